#if canImport(NetworkExtension)
import AditKit
import Foundation
import NetworkExtension

extension NetworkSettingsPlan {
    /// The system's object with exactly the values of this plan.
    public func makeNetworkSettings() -> NEPacketTunnelNetworkSettings {
        let settings = NEPacketTunnelNetworkSettings(tunnelRemoteAddress: tunnelRemoteAddress)
        if let plan = ipv4 {
            let ipv4Settings = NEIPv4Settings(addresses: plan.addresses, subnetMasks: plan.subnetMasks)
            ipv4Settings.includedRoutes = plan.includedRoutes.map { NetworkSettingsPlan.route($0) }
            ipv4Settings.excludedRoutes = plan.excludedRoutes.map { NetworkSettingsPlan.route($0) }
            settings.ipv4Settings = ipv4Settings
        }
        if let plan = ipv6 {
            let lengths = plan.prefixLengths.map { NSNumber(value: $0) }
            let ipv6Settings = NEIPv6Settings(addresses: plan.addresses, networkPrefixLengths: lengths)
            ipv6Settings.includedRoutes = plan.includedRoutes.map { NetworkSettingsPlan.route($0) }
            ipv6Settings.excludedRoutes = plan.excludedRoutes.map { NetworkSettingsPlan.route($0) }
            settings.ipv6Settings = ipv6Settings
        }
        if let plan = dns {
            let dnsSettings = NEDNSSettings(servers: plan.servers)
            dnsSettings.searchDomains = plan.searchDomains
            dnsSettings.matchDomains = plan.matchDomains
            dnsSettings.matchDomainsNoSearch = plan.matchDomainsNoSearch
            settings.dnsSettings = dnsSettings
        }
        if let mtu = mtu {
            settings.mtu = NSNumber(value: mtu)
        }
        if let overhead = tunnelOverheadBytes {
            settings.tunnelOverheadBytes = NSNumber(value: overhead)
        }
        return settings
    }

    /// The plan that an object of the system amounts to: the way back, for ``differences(from:)``.
    public init(reading settings: NEPacketTunnelNetworkSettings) {
        var ipv4: IPv4?
        if let found = settings.ipv4Settings {
            ipv4 = IPv4(
                addresses: found.addresses,
                subnetMasks: found.subnetMasks,
                includedRoutes: (found.includedRoutes ?? []).map { NetworkSettingsPlan.planned($0) },
                excludedRoutes: (found.excludedRoutes ?? []).map { NetworkSettingsPlan.planned($0) }
            )
        }
        var ipv6: IPv6?
        if let found = settings.ipv6Settings {
            ipv6 = IPv6(
                addresses: found.addresses,
                prefixLengths: found.networkPrefixLengths.map { $0.intValue },
                includedRoutes: (found.includedRoutes ?? []).map { NetworkSettingsPlan.planned($0) },
                excludedRoutes: (found.excludedRoutes ?? []).map { NetworkSettingsPlan.planned($0) }
            )
        }
        var dns: DNS?
        if let found = settings.dnsSettings {
            dns = DNS(
                servers: found.servers,
                searchDomains: found.searchDomains,
                matchDomains: found.matchDomains,
                matchDomainsNoSearch: found.matchDomainsNoSearch
            )
        }
        self.init(
            tunnelRemoteAddress: settings.tunnelRemoteAddress,
            ipv4: ipv4,
            ipv6: ipv6,
            dns: dns,
            mtu: settings.mtu?.intValue,
            tunnelOverheadBytes: settings.tunnelOverheadBytes?.intValue
        )
    }

    private static func route(_ plan: IPv4Route) -> NEIPv4Route {
        let route = NEIPv4Route(destinationAddress: plan.destination, subnetMask: plan.subnetMask)
        route.gatewayAddress = plan.gateway
        return route
    }

    private static func route(_ plan: IPv6Route) -> NEIPv6Route {
        let length = NSNumber(value: plan.prefixLength)
        let route = NEIPv6Route(destinationAddress: plan.destination, networkPrefixLength: length)
        route.gatewayAddress = plan.gateway
        return route
    }

    private static func planned(_ route: NEIPv4Route) -> IPv4Route {
        return IPv4Route(
            destination: route.destinationAddress,
            subnetMask: route.destinationSubnetMask,
            gateway: route.gatewayAddress
        )
    }

    private static func planned(_ route: NEIPv6Route) -> IPv6Route {
        return IPv6Route(
            destination: route.destinationAddress,
            prefixLength: route.destinationNetworkPrefixLength.intValue,
            gateway: route.gatewayAddress
        )
    }
}
#endif
