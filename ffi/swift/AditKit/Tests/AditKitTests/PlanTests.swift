import XCTest

@testable import AditKit

final class PlanTests: XCTestCase {
    func testAFullTunnel() throws {
        let plan = try NetworkSettingsPlan(settings: Fixture.settings("full.json"), platform: .iOS)
        let expected = NetworkSettingsPlan(
            tunnelRemoteAddress: "192.0.2.1",
            ipv4: NetworkSettingsPlan.IPv4(
                addresses: ["10.192.122.2"],
                subnetMasks: ["255.255.255.255"],
                includedRoutes: [
                    NetworkSettingsPlan.IPv4Route(
                        destination: "10.192.122.2",
                        subnetMask: "255.255.255.255",
                        gateway: "10.192.122.2"
                    ),
                    NetworkSettingsPlan.IPv4Route(destination: "0.0.0.0", subnetMask: "0.0.0.0"),
                ]
            ),
            ipv6: NetworkSettingsPlan.IPv6(
                addresses: ["fd00:192:122::2"],
                prefixLengths: [120],
                includedRoutes: [
                    NetworkSettingsPlan.IPv6Route(
                        destination: "fd00:192:122::2",
                        prefixLength: 128,
                        gateway: "fd00:192:122::2"
                    ),
                    NetworkSettingsPlan.IPv6Route(destination: "::", prefixLength: 0),
                ]
            ),
            dns: NetworkSettingsPlan.DNS(
                servers: ["10.192.122.1"],
                searchDomains: ["corp.example"],
                matchDomains: [""]
            ),
            mtu: 1280
        )
        XCTAssertEqual(plan, expected)
    }

    func testASplitTunnel() throws {
        let plan = try NetworkSettingsPlan(settings: Fixture.settings("split.json"), platform: .macOS)
        let expected = NetworkSettingsPlan(
            tunnelRemoteAddress: "192.0.2.1",
            ipv4: NetworkSettingsPlan.IPv4(
                addresses: ["10.192.122.2"],
                subnetMasks: ["255.255.255.0"],
                includedRoutes: [
                    NetworkSettingsPlan.IPv4Route(
                        destination: "10.192.122.0",
                        subnetMask: "255.255.255.0",
                        gateway: "10.192.122.2"
                    ),
                    NetworkSettingsPlan.IPv4Route(destination: "10.192.0.0", subnetMask: "255.255.0.0"),
                    NetworkSettingsPlan.IPv4Route(destination: "172.16.0.0", subnetMask: "255.240.0.0"),
                ],
                excludedRoutes: [
                    NetworkSettingsPlan.IPv4Route(destination: "10.192.9.0", subnetMask: "255.255.255.0")
                ]
            ),
            mtu: 1420
        )
        XCTAssertEqual(plan, expected)
    }

    func testAnIPv6AddressIsNeverMoreThan120BitsLong() throws {
        let plan = try NetworkSettingsPlan(settings: Fixture.settings("ipv6.json"), platform: .iOS)
        XCTAssertNil(plan.ipv4)
        XCTAssertEqual(plan.ipv6?.prefixLengths, [120])
        XCTAssertEqual(plan.ipv6?.includedRoutes.map { $0.prefixLength }, [128, 32])
        XCTAssertEqual(plan.tunnelRemoteAddress, "2001:db8::1")

        let shorter = try NetworkSettingsPlan(settings: Settings(addresses: ["fd00::2/64"]), platform: .iOS)
        XCTAssertEqual(shorter.ipv6?.prefixLengths, [64])
    }

    func testTheMTU() throws {
        func plan(_ mtu: Int?, _ platform: NetworkSettingsPlan.Platform) throws -> NetworkSettingsPlan {
            return try NetworkSettingsPlan(settings: Settings(addresses: ["10.0.0.2"], mtu: mtu), platform: platform)
        }
        XCTAssertEqual(try plan(1380, .iOS).mtu, 1380)
        XCTAssertNil(try plan(1380, .macOS).tunnelOverheadBytes)
        XCTAssertEqual(try plan(nil, .iOS).mtu, 1280)
        XCTAssertEqual(try plan(0, .iOS).mtu, 1280)
        XCTAssertNil(try plan(nil, .iOS).tunnelOverheadBytes)
        XCTAssertNil(try plan(nil, .macOS).mtu)
        XCTAssertEqual(try plan(0, .macOS).tunnelOverheadBytes, 80)
        XCTAssertThrowsError(try plan(-1, .iOS))
        XCTAssertThrowsError(try plan(65536, .iOS))
    }

    func testAnMTUThatIPv6CannotDoWith() throws {
        let settings = Settings(addresses: ["10.0.0.2", "fd00::2"], mtu: 1200)
        let plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertEqual(plan.notes.map { $0.code }, ["mtu-below-ipv6-minimum"])
    }

    func testDNS() throws {
        var settings = Settings(addresses: ["10.0.0.2"], includedRoutes: ["0.0.0.0/0"])
        settings.dns = Settings.DNS(servers: ["10.0.0.1"], matchDomains: ["corp.example"], matchDomainsNoSearch: true)
        var plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertEqual(
            plan.dns,
            NetworkSettingsPlan.DNS(servers: ["10.0.0.1"], matchDomains: ["corp.example"], matchDomainsNoSearch: true)
        )
        XCTAssertEqual(plan.notes, [])

        settings.includedRoutes = ["192.168.0.0/16"]
        plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertEqual(plan.notes.map { $0.code }, ["dns-server-not-routed"])

        settings.dns = Settings.DNS(servers: [], searchDomains: ["corp.example"])
        plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertNil(plan.dns)
        XCTAssertEqual(plan.notes.map { $0.code }, ["dns-without-servers"])

        settings.dns = Settings.DNS(servers: ["10.0.0.0/8"])
        XCTAssertThrowsError(try NetworkSettingsPlan(settings: settings, platform: .iOS))
    }

    func testAResolverIsRoutedByTheLongestPrefix() throws {
        var settings = Settings(addresses: ["10.0.0.2"], includedRoutes: ["10.0.0.0/8"], excludedRoutes: ["10.0.0.0/24"])
        settings.dns = Settings.DNS(servers: ["10.0.0.1"])
        XCTAssertEqual(
            try NetworkSettingsPlan(settings: settings, platform: .iOS).notes.map { $0.code },
            ["dns-server-not-routed"]
        )
        settings.includedRoutes.append("10.0.0.1/32")
        XCTAssertEqual(try NetworkSettingsPlan(settings: settings, platform: .iOS).notes, [])
    }

    func testALoopbackExclusionDoesNotTakeTheOthersWithIt() throws {
        let settings = Settings(
            addresses: ["10.0.0.2"],
            includedRoutes: ["0.0.0.0/0"],
            excludedRoutes: ["127.0.0.0/8", "192.168.0.0/16"]
        )
        let plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertEqual(plan.ipv4?.excludedRoutes.map { $0.destination }, ["192.168.0.0"])
        XCTAssertEqual(plan.notes.map { $0.code }, ["loopback-exclusion-dropped"])
    }

    func testARouteIsEitherInOrOut() throws {
        let settings = Settings(
            addresses: ["10.0.0.2"],
            includedRoutes: ["10.0.0.0/8", "10.1.2.3/8", "172.16.0.0/12"],
            excludedRoutes: ["172.16.0.0/12"]
        )
        let plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertEqual(plan.ipv4?.includedRoutes.map { $0.destination }, ["10.0.0.2", "10.0.0.0"])
        XCTAssertEqual(plan.ipv4?.excludedRoutes.map { $0.destination }, ["172.16.0.0"])
        XCTAssertEqual(plan.notes.map { $0.code }, ["route-included-and-excluded"])
    }

    func testRoutesOfAFamilyWithoutAnAddress() throws {
        let settings = Settings(addresses: ["10.0.0.2"], includedRoutes: ["0.0.0.0/0", "::/0"])
        let plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertNil(plan.ipv6)
        XCTAssertEqual(plan.notes.map { $0.code }, ["ipv6-routes-without-address"])
    }

    func testSettingsThatNoPlanCanBeMadeOf() {
        XCTAssertThrowsError(try NetworkSettingsPlan(settings: Settings(addresses: []), platform: .iOS))
        let wrong = Settings(addresses: ["10.0.0.2"], includedRoutes: ["10.0.0.0/40"])
        XCTAssertThrowsError(try NetworkSettingsPlan(settings: wrong, platform: .iOS)) { error in
            XCTAssertEqual((error as? PlanError)?.field, "included_routes")
            XCTAssertEqual((error as? PlanError)?.value, "10.0.0.0/40")
        }
    }

    func testAPeerWithoutOneAddress() throws {
        var settings = Settings(addresses: ["10.0.0.2"])
        XCTAssertEqual(try NetworkSettingsPlan(settings: settings, platform: .iOS).tunnelRemoteAddress, "127.0.0.1")
        settings.remoteAddress = "vpn.example.com"
        let plan = try NetworkSettingsPlan(settings: settings, platform: .iOS)
        XCTAssertEqual(plan.tunnelRemoteAddress, "127.0.0.1")
        XCTAssertEqual(plan.notes.map { $0.code }, ["remote-address-unreadable"])
    }

    func testNoDifferenceFromItself() throws {
        for name in ["full.json", "split.json", "ipv6.json"] {
            let plan = try NetworkSettingsPlan(settings: Fixture.settings(name), platform: .iOS)
            XCTAssertEqual(plan.differences(from: plan), [])
        }
    }

    func testTheOrderOfRoutesIsNoDifference() throws {
        let plan = try NetworkSettingsPlan(settings: Fixture.settings("split.json"), platform: .iOS)
        var actual = plan
        actual.ipv4?.includedRoutes.reverse()
        actual.notes = [Settings.Warning(code: "any", message: "not compared")]
        XCTAssertEqual(plan.differences(from: actual), [])
    }

    func testEveryDifferenceIsNamed() throws {
        let plan = try NetworkSettingsPlan(settings: Fixture.settings("full.json"), platform: .iOS)
        var actual = plan
        actual.tunnelRemoteAddress = "192.0.2.2"
        actual.ipv4?.excludedRoutes = [
            NetworkSettingsPlan.IPv4Route(destination: "10.0.0.0", subnetMask: "255.0.0.0")
        ]
        actual.ipv6?.prefixLengths = [128]
        actual.dns?.matchDomains = nil
        actual.mtu = nil
        actual.tunnelOverheadBytes = 80
        XCTAssertEqual(
            Set(plan.differences(from: actual).map { $0.field }),
            [
                "tunnelRemoteAddress", "ipv4.excludedRoutes", "ipv6.prefixLengths", "dns.matchDomains", "mtu",
                "tunnelOverheadBytes",
            ]
        )
        actual = plan
        actual.ipv6 = nil
        XCTAssertEqual(
            Set(plan.differences(from: actual).map { $0.field }),
            ["ipv6.addresses", "ipv6.prefixLengths", "ipv6.includedRoutes"]
        )
    }

    func testWhatTheAppHasSet() throws {
        let settings = try Fixture.settings("split.json")
        let quiet = ProtocolAdvice(includesAllNetworks: false, enforcesRoutes: false, excludesLocalNetworks: false)
        XCTAssertEqual(quiet.warnings(for: settings), [])
        let all = ProtocolAdvice(includesAllNetworks: true, enforcesRoutes: false, excludesLocalNetworks: true)
        XCTAssertEqual(all.warnings(for: settings).map { $0.code }, ["exclusions-without-effect"])
        let enforced = ProtocolAdvice(includesAllNetworks: false, enforcesRoutes: true, excludesLocalNetworks: false)
        XCTAssertEqual(
            enforced.warnings(for: settings).map { $0.code },
            ["exclusions-with-enforced-routes", "local-networks-differ"]
        )
    }
}
