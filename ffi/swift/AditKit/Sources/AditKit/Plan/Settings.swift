/// What the host must apply before packets flow: the engine's own words, decoded from its JSON.
///
/// ``NetworkSettingsPlan`` says what that means in the terms of NetworkExtension.
public struct Settings: Codable, Hashable, Sendable {
    /// DNS as the tunnel wants it.
    public struct DNS: Codable, Hashable, Sendable {
        /// Addresses of resolvers, in order of preference.
        public var servers: [String]
        /// The domains that are asked of ``servers``; `[""]` is every name, `nil` leaves it to the system.
        public var matchDomains: [String]?
        /// The domains that are appended to names of one label.
        public var searchDomains: [String]
        /// Whether ``matchDomains`` are kept out of the list of search domains.
        public var matchDomainsNoSearch: Bool

        /// DNS settings.
        public init(
            servers: [String],
            matchDomains: [String]? = nil,
            searchDomains: [String] = [],
            matchDomainsNoSearch: Bool = false
        ) {
            self.servers = servers
            self.matchDomains = matchDomains
            self.searchDomains = searchDomains
            self.matchDomainsNoSearch = matchDomainsNoSearch
        }

        enum CodingKeys: String, CodingKey {
            case servers
            case matchDomains = "match_domains"
            case searchDomains = "search_domains"
            case matchDomainsNoSearch = "match_domains_no_search"
        }
    }

    /// Something the user should know although the tunnel starts.
    public struct Warning: Codable, Hashable, Sendable {
        /// A name that stays the same between versions, such as `ipv6-default-missing`.
        public var code: String
        /// A sentence for people.
        public var message: String

        /// A warning.
        public init(code: String, message: String) {
            self.code = code
            self.message = message
        }
    }

    /// The tunnel's own addresses with their prefix lengths, such as `10.0.0.2/32`.
    public var addresses: [String]
    /// The networks that are routed into the tunnel.
    public var includedRoutes: [String]
    /// The networks that are not, although an included one covers them.
    public var excludedRoutes: [String]
    /// DNS, or `nil` if the tunnel has none to offer.
    public var dns: DNS?
    /// The MTU in bytes; `nil` or 0 leaves it to the platform.
    public var mtu: Int?
    /// The address of the peer, or `nil` if there is no one address.
    public var remoteAddress: String?
    /// Whether connected networks stay reachable; `nil` if the configuration does not say.
    public var excludeLocalNetworks: Bool?
    /// What the user should know.
    public var warnings: [Warning]

    /// Settings, as a test or a host without an engine would write them.
    public init(
        addresses: [String],
        includedRoutes: [String] = [],
        excludedRoutes: [String] = [],
        dns: DNS? = nil,
        mtu: Int? = nil,
        remoteAddress: String? = nil,
        excludeLocalNetworks: Bool? = nil,
        warnings: [Warning] = []
    ) {
        self.addresses = addresses
        self.includedRoutes = includedRoutes
        self.excludedRoutes = excludedRoutes
        self.dns = dns
        self.mtu = mtu
        self.remoteAddress = remoteAddress
        self.excludeLocalNetworks = excludeLocalNetworks
        self.warnings = warnings
    }

    enum CodingKeys: String, CodingKey {
        case addresses
        case includedRoutes = "included_routes"
        case excludedRoutes = "excluded_routes"
        case dns
        case mtu
        case remoteAddress = "remote_address"
        case excludeLocalNetworks = "exclude_local_networks"
        case warnings
    }
}
