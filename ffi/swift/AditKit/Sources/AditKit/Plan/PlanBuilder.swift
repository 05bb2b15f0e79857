extension NetworkSettingsPlan {
    /// The plan for settings of the engine.
    ///
    /// Nothing is invented: routes and resolvers are those of the settings. What the system could not take is left out
    /// with a note, and an address or route that is none is an error rather than a tunnel that is less than was asked for.
    ///
    /// - Throws: ``PlanError`` if an address, a route or a resolver cannot be read.
    public init(settings: Settings, platform: Platform = .current) throws {
        let addresses = try settings.addresses.map { try PlanError.prefix($0, "addresses") }
        let included = try settings.includedRoutes.map { try PlanError.prefix($0, "included_routes") }
        let excluded = try settings.excludedRoutes.map { try PlanError.prefix($0, "excluded_routes") }
        guard !addresses.isEmpty else {
            throw PlanError(field: "addresses", value: "", problem: "a tunnel needs at least one address")
        }

        var notes: [Settings.Warning] = []
        let routes4 = RouteLists(.v4, addresses, included, excluded, &notes)
        let routes6 = RouteLists(.v6, addresses, included, excluded, &notes)
        let dns = try NetworkSettingsPlan.dns(of: settings, included: included, excluded: excluded, &notes)
        let wanted = settings.mtu ?? 0
        guard wanted >= 0, wanted <= 65535 else {
            throw PlanError(field: "mtu", value: String(wanted), problem: "an MTU is between 0 and 65535")
        }
        if wanted > 0, wanted < NetworkSettingsPlan.smallMTU, !routes6.addresses.isEmpty {
            notes.append(
                Settings.Warning(
                    code: "mtu-below-ipv6-minimum",
                    message: "IPv6 needs an MTU of 1280 bytes, this tunnel has \(wanted)"
                )
            )
        }
        var mtu: Int?
        var overhead: Int?
        if wanted > 0 {
            mtu = wanted
        } else if platform == .iOS {
            mtu = NetworkSettingsPlan.smallMTU
        } else {
            overhead = NetworkSettingsPlan.overhead
        }

        self.init(
            tunnelRemoteAddress: NetworkSettingsPlan.remote(of: settings, &notes),
            ipv4: routes4.ipv4(),
            ipv6: routes6.ipv6(),
            dns: dns,
            mtu: mtu,
            tunnelOverheadBytes: overhead,
            notes: notes
        )
    }

    private static func remote(of settings: Settings, _ notes: inout [Settings.Warning]) -> String {
        guard let written = settings.remoteAddress else { return noRemoteAddress }
        if let address = IPPrefix(written), address.length == address.family.bits {
            return address.address
        }
        notes.append(
            Settings.Warning(code: "remote-address-unreadable", message: "\(written) is no address: \(noRemoteAddress) is used")
        )
        return noRemoteAddress
    }

    private static func dns(
        of settings: Settings,
        included: [IPPrefix],
        excluded: [IPPrefix],
        _ notes: inout [Settings.Warning]
    ) throws -> DNS? {
        guard let wanted = settings.dns else { return nil }
        guard !wanted.servers.isEmpty else {
            notes.append(
                Settings.Warning(
                    code: "dns-without-servers",
                    message: "domains without a resolver have no effect: no DNS settings are applied"
                )
            )
            return nil
        }
        var servers: [String] = []
        for written in wanted.servers {
            let server = try PlanError.prefix(written, "dns.servers")
            guard server.length == server.family.bits else {
                throw PlanError(field: "dns.servers", value: written, problem: "a resolver is one address")
            }
            if !isRouted(server, included: included, excluded: excluded) {
                notes.append(
                    Settings.Warning(
                        code: "dns-server-not-routed",
                        message: "no route leads to the resolver \(server.address) through the tunnel"
                    )
                )
            }
            servers.append(server.address)
        }
        return DNS(
            servers: servers,
            searchDomains: wanted.searchDomains.isEmpty ? nil : wanted.searchDomains,
            matchDomains: wanted.matchDomains,
            matchDomainsNoSearch: wanted.matchDomainsNoSearch
        )
    }

    /// Whether the longest of the routes that cover an address is an included one.
    private static func isRouted(_ address: IPPrefix, included: [IPPrefix], excluded: [IPPrefix]) -> Bool {
        let inside = included.filter { $0.contains(address) }.map { $0.length }.max() ?? -1
        let outside = excluded.filter { $0.contains(address) }.map { $0.length }.max() ?? -1
        return inside > outside
    }
}

/// A value of the settings that no plan can be made of.
public struct PlanError: Error, Hashable, Sendable {
    /// The key of the settings, such as `included_routes`.
    public let field: String
    /// The value as it was written.
    public let value: String
    /// What would be right.
    public let problem: String

    static func prefix(_ text: String, _ field: String) throws -> IPPrefix {
        guard let prefix = IPPrefix(text) else {
            throw PlanError(field: field, value: text, problem: "an IPv4 or IPv6 address, with or without a prefix length")
        }
        return prefix
    }
}

extension PlanError: CustomStringConvertible {
    public var description: String {
        return "\(field): '\(value)': \(problem)"
    }
}

/// The addresses and routes of one family, in the order in which they are set.
private struct RouteLists {
    struct Entry {
        var prefix: IPPrefix
        var gateway: String?
    }

    var addresses: [IPPrefix] = []
    var included: [Entry] = []
    var excluded: [Entry] = []

    init(
        _ family: IPPrefix.Family,
        _ allAddresses: [IPPrefix],
        _ allIncluded: [IPPrefix],
        _ allExcluded: [IPPrefix],
        _ notes: inout [Settings.Warning]
    ) {
        for address in allAddresses where address.family == family && !addresses.contains(address) {
            addresses.append(address)
        }
        let wantedIncluded = RouteLists.unique(allIncluded.filter { $0.family == family })
        let wantedExcluded = RouteLists.unique(allExcluded.filter { $0.family == family })
        guard !addresses.isEmpty else {
            if !wantedIncluded.isEmpty {
                notes.append(
                    Settings.Warning(
                        code: family == .v4 ? "ipv4-routes-without-address" : "ipv6-routes-without-address",
                        message: "routes of a family need an address of that family in the tunnel: \(wantedIncluded.count) left out"
                    )
                )
            }
            return
        }

        for prefix in wantedExcluded {
            // One loopback prefix in this list makes the system throw the whole list away.
            if prefix.isLoopback {
                notes.append(
                    Settings.Warning(
                        code: "loopback-exclusion-dropped",
                        message: "\(prefix) never leaves the device and need not be excluded"
                    )
                )
            } else {
                excluded.append(Entry(prefix: prefix, gateway: nil))
            }
        }

        // The network of each address is reached through the address itself, as it would be on any interface.
        for address in addresses {
            let network = address.network
            let isExcluded = excluded.contains(where: { $0.prefix == network })
            let isKnown = included.contains(where: { $0.prefix == network })
            if !isExcluded && !isKnown {
                included.append(Entry(prefix: network, gateway: address.address))
            }
        }
        for prefix in wantedIncluded {
            if excluded.contains(where: { $0.prefix == prefix }) {
                notes.append(
                    Settings.Warning(
                        code: "route-included-and-excluded",
                        message: "\(prefix) is included and excluded: it is excluded"
                    )
                )
            } else if !included.contains(where: { $0.prefix == prefix }) {
                included.append(Entry(prefix: prefix, gateway: nil))
            }
        }
    }

    func ipv4() -> NetworkSettingsPlan.IPv4? {
        guard !addresses.isEmpty else { return nil }
        let route: (Entry) -> NetworkSettingsPlan.IPv4Route = { entry in
            return NetworkSettingsPlan.IPv4Route(
                destination: entry.prefix.address,
                subnetMask: entry.prefix.subnetMask,
                gateway: entry.gateway
            )
        }
        return NetworkSettingsPlan.IPv4(
            addresses: addresses.map { $0.address },
            subnetMasks: addresses.map { $0.subnetMask },
            includedRoutes: included.map(route),
            excludedRoutes: excluded.map(route)
        )
    }

    func ipv6() -> NetworkSettingsPlan.IPv6? {
        guard !addresses.isEmpty else { return nil }
        let route: (Entry) -> NetworkSettingsPlan.IPv6Route = { entry in
            return NetworkSettingsPlan.IPv6Route(
                destination: entry.prefix.address,
                prefixLength: entry.prefix.length,
                gateway: entry.gateway
            )
        }
        return NetworkSettingsPlan.IPv6(
            addresses: addresses.map { $0.address },
            prefixLengths: addresses.map { min($0.length, NetworkSettingsPlan.IPv6.longestPrefix) },
            includedRoutes: included.map(route),
            excludedRoutes: excluded.map(route)
        )
    }

    private static func unique(_ prefixes: [IPPrefix]) -> [IPPrefix] {
        var seen = Set<IPPrefix>()
        return prefixes.map { $0.network }.filter { seen.insert($0).inserted }
    }
}
