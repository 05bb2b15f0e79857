extension NetworkSettingsPlan {
    /// One value that is not as planned.
    public struct Difference: Hashable, Sendable, CustomStringConvertible {
        /// The property, such as `ipv4.includedRoutes`.
        public let field: String
        /// What the plan says.
        public let expected: String
        /// What was found.
        public let actual: String

        public var description: String {
            return "\(field): expected \(expected), found \(actual)"
        }
    }

    /// Where `actual`, read back from the system's object, is not this plan; empty if it is.
    ///
    /// Routes and their order are compared as the system sees them: as sets. ``notes`` are not compared.
    public func differences(from actual: NetworkSettingsPlan) -> [Difference] {
        var found: [Difference] = []
        func compare<Value: Equatable>(_ field: String, _ expected: Value, _ actual: Value) {
            if expected != actual {
                found.append(Difference(field: field, expected: "\(expected)", actual: "\(actual)"))
            }
        }
        func compareText(_ field: String, _ expected: String, _ actual: String) {
            if expected != actual {
                found.append(Difference(field: field, expected: expected, actual: actual))
            }
        }

        compareText("tunnelRemoteAddress", tunnelRemoteAddress, actual.tunnelRemoteAddress)
        compareText("mtu", NetworkSettingsPlan.text(mtu), NetworkSettingsPlan.text(actual.mtu))
        compareText(
            "tunnelOverheadBytes",
            NetworkSettingsPlan.text(tunnelOverheadBytes),
            NetworkSettingsPlan.text(actual.tunnelOverheadBytes)
        )

        let planned4 = ipv4 ?? IPv4(addresses: [], subnetMasks: [])
        let actual4 = actual.ipv4 ?? IPv4(addresses: [], subnetMasks: [])
        compare("ipv4.addresses", planned4.addresses, actual4.addresses)
        compare("ipv4.subnetMasks", planned4.subnetMasks, actual4.subnetMasks)
        compareText(
            "ipv4.includedRoutes",
            NetworkSettingsPlan.text(planned4.includedRoutes),
            NetworkSettingsPlan.text(actual4.includedRoutes)
        )
        compareText(
            "ipv4.excludedRoutes",
            NetworkSettingsPlan.text(planned4.excludedRoutes),
            NetworkSettingsPlan.text(actual4.excludedRoutes)
        )

        let planned6 = ipv6 ?? IPv6(addresses: [], prefixLengths: [])
        let actual6 = actual.ipv6 ?? IPv6(addresses: [], prefixLengths: [])
        compare("ipv6.addresses", planned6.addresses, actual6.addresses)
        compare("ipv6.prefixLengths", planned6.prefixLengths, actual6.prefixLengths)
        compareText(
            "ipv6.includedRoutes",
            NetworkSettingsPlan.text(planned6.includedRoutes),
            NetworkSettingsPlan.text(actual6.includedRoutes)
        )
        compareText(
            "ipv6.excludedRoutes",
            NetworkSettingsPlan.text(planned6.excludedRoutes),
            NetworkSettingsPlan.text(actual6.excludedRoutes)
        )

        let plannedDNS = dns ?? DNS(servers: [])
        let actualDNS = actual.dns ?? DNS(servers: [])
        compare("dns.servers", plannedDNS.servers, actualDNS.servers)
        compare("dns.searchDomains", plannedDNS.searchDomains ?? [], actualDNS.searchDomains ?? [])
        compareText(
            "dns.matchDomains",
            NetworkSettingsPlan.text(plannedDNS.matchDomains),
            NetworkSettingsPlan.text(actualDNS.matchDomains)
        )
        compare("dns.matchDomainsNoSearch", plannedDNS.matchDomainsNoSearch, actualDNS.matchDomainsNoSearch)
        return found
    }

    private static func text(_ number: Int?) -> String {
        guard let number = number else { return "none" }
        return String(number)
    }

    private static func text(_ list: [String]?) -> String {
        guard let list = list else { return "none" }
        return "[" + list.map { "'\($0)'" }.joined(separator: ", ") + "]"
    }

    private static func text(_ routes: [IPv4Route]) -> String {
        let lines = routes.map { route in
            return "\(route.destination) mask \(route.subnetMask)" + gateway(route.gateway)
        }
        return "[" + Set(lines).sorted().joined(separator: ", ") + "]"
    }

    private static func text(_ routes: [IPv6Route]) -> String {
        let lines = routes.map { route in
            return "\(route.destination)/\(route.prefixLength)" + gateway(route.gateway)
        }
        return "[" + Set(lines).sorted().joined(separator: ", ") + "]"
    }

    private static func gateway(_ gateway: String?) -> String {
        guard let gateway = gateway else { return "" }
        return " via \(gateway)"
    }
}
