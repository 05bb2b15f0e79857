/// What `NEPacketTunnelNetworkSettings` is to hold, value by value, without needing NetworkExtension.
///
/// The plan is where decisions are made, so that they can be tested anywhere; the provider only copies values from it.
/// ``differences(from:)`` is the way back: it says where settings that were read from the system are not the plan.
public struct NetworkSettingsPlan: Codable, Hashable, Sendable {
    /// A value for an `NEIPv4Route`.
    public struct IPv4Route: Codable, Hashable, Sendable {
        /// `destinationAddress`, with its host bits cleared.
        public var destination: String
        /// `destinationSubnetMask`.
        public var subnetMask: String
        /// `gatewayAddress`: the tunnel's own address for the network it lies in, `nil` for every other route.
        public var gateway: String?

        /// A route.
        public init(destination: String, subnetMask: String, gateway: String? = nil) {
            self.destination = destination
            self.subnetMask = subnetMask
            self.gateway = gateway
        }
    }

    /// A value for an `NEIPv6Route`.
    public struct IPv6Route: Codable, Hashable, Sendable {
        /// `destinationAddress`, with its host bits cleared.
        public var destination: String
        /// `destinationNetworkPrefixLength`.
        public var prefixLength: Int
        /// `gatewayAddress`: the tunnel's own address for the network it lies in, `nil` for every other route.
        public var gateway: String?

        /// A route.
        public init(destination: String, prefixLength: Int, gateway: String? = nil) {
            self.destination = destination
            self.prefixLength = prefixLength
            self.gateway = gateway
        }
    }

    /// Values for an `NEIPv4Settings`.
    public struct IPv4: Codable, Hashable, Sendable {
        /// `addresses`.
        public var addresses: [String]
        /// `subnetMasks`, as many as ``addresses``.
        public var subnetMasks: [String]
        /// `includedRoutes`.
        public var includedRoutes: [IPv4Route]
        /// `excludedRoutes`.
        public var excludedRoutes: [IPv4Route]

        /// IPv4 settings.
        public init(
            addresses: [String],
            subnetMasks: [String],
            includedRoutes: [IPv4Route] = [],
            excludedRoutes: [IPv4Route] = []
        ) {
            self.addresses = addresses
            self.subnetMasks = subnetMasks
            self.includedRoutes = includedRoutes
            self.excludedRoutes = excludedRoutes
        }
    }

    /// Values for an `NEIPv6Settings`.
    public struct IPv6: Codable, Hashable, Sendable {
        /// `addresses`.
        public var addresses: [String]
        /// `networkPrefixLengths`, as many as ``addresses``, none longer than ``longestPrefix``.
        public var prefixLengths: [Int]
        /// `includedRoutes`.
        public var includedRoutes: [IPv6Route]
        /// `excludedRoutes`.
        public var excludedRoutes: [IPv6Route]

        /// IPv6 settings.
        public init(
            addresses: [String],
            prefixLengths: [Int],
            includedRoutes: [IPv6Route] = [],
            excludedRoutes: [IPv6Route] = []
        ) {
            self.addresses = addresses
            self.prefixLengths = prefixLengths
            self.includedRoutes = includedRoutes
            self.excludedRoutes = excludedRoutes
        }

        /// The longest prefix an address may have: with a longer one the system takes the address and routes nothing.
        public static let longestPrefix = 120
    }

    /// Values for an `NEDNSSettings`.
    public struct DNS: Codable, Hashable, Sendable {
        /// `servers`; never empty.
        public var servers: [String]
        /// `searchDomains`; `nil` if there are none.
        public var searchDomains: [String]?
        /// `matchDomains`.
        public var matchDomains: [String]?
        /// `matchDomainsNoSearch`.
        public var matchDomainsNoSearch: Bool

        /// DNS settings.
        public init(
            servers: [String],
            searchDomains: [String]? = nil,
            matchDomains: [String]? = nil,
            matchDomainsNoSearch: Bool = false
        ) {
            self.servers = servers
            self.searchDomains = searchDomains
            self.matchDomains = matchDomains
            self.matchDomainsNoSearch = matchDomainsNoSearch
        }
    }

    /// The system whose rules a plan follows.
    public enum Platform: Hashable, Sendable {
        /// iOS and its relatives: no `tunnelOverheadBytes`, 1280 as the MTU unless another is asked for.
        case iOS
        /// macOS: without an MTU the system follows the underlay's, less ``NetworkSettingsPlan/overhead``.
        case macOS

        /// The system this was compiled for; elsewhere, as in tests on Linux, macOS.
        public static var current: Platform {
            #if os(iOS) || os(tvOS) || os(visionOS)
                return .iOS
            #else
                return .macOS
            #endif
        }
    }

    /// `tunnelRemoteAddress`.
    public var tunnelRemoteAddress: String
    /// `ipv4Settings`; `nil` if the tunnel has no IPv4 address.
    public var ipv4: IPv4?
    /// `ipv6Settings`; `nil` if the tunnel has no IPv6 address.
    public var ipv6: IPv6?
    /// `dnsSettings`; `nil` if the tunnel names no resolver.
    public var dns: DNS?
    /// `mtu`, in bytes. Exactly one of this and ``tunnelOverheadBytes`` is set.
    public var mtu: Int?
    /// `tunnelOverheadBytes`.
    public var tunnelOverheadBytes: Int?
    /// What was left out or changed on the way, and why.
    public var notes: [Settings.Warning]

    /// A plan, value by value.
    public init(
        tunnelRemoteAddress: String,
        ipv4: IPv4? = nil,
        ipv6: IPv6? = nil,
        dns: DNS? = nil,
        mtu: Int? = nil,
        tunnelOverheadBytes: Int? = nil,
        notes: [Settings.Warning] = []
    ) {
        self.tunnelRemoteAddress = tunnelRemoteAddress
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.dns = dns
        self.mtu = mtu
        self.tunnelOverheadBytes = tunnelOverheadBytes
        self.notes = notes
    }

    /// The bytes around a packet over IPv6: 40 of IPv6, 8 of UDP, 32 of WireGuard.
    public static let overhead = 80
    /// The MTU on iOS unless another is asked for: the smallest that IPv6 allows, since too many networks lose more.
    public static let smallMTU = 1280
    /// Stands for a peer that has no one address. The system wants an address there and excludes it from the tunnel.
    public static let noRemoteAddress = "127.0.0.1"
}
