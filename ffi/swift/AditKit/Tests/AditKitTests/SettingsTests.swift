import XCTest

@testable import AditKit

final class SettingsTests: XCTestCase {
    func testSettingsOfTheEngine() throws {
        let settings = try Fixture.settings("full.json")
        XCTAssertEqual(settings.addresses, ["10.192.122.2/32", "fd00:192:122::2/128"])
        XCTAssertEqual(settings.includedRoutes, ["0.0.0.0/0", "::/0"])
        XCTAssertEqual(settings.excludedRoutes, [])
        XCTAssertEqual(
            settings.dns,
            Settings.DNS(servers: ["10.192.122.1"], matchDomains: [""], searchDomains: ["corp.example"])
        )
        XCTAssertEqual(settings.mtu, 1280)
        XCTAssertEqual(settings.remoteAddress, "192.0.2.1")
        XCTAssertNil(settings.excludeLocalNetworks)
    }

    func testWhatIsNotSaid() throws {
        let settings = try Fixture.settings("split.json")
        XCTAssertNil(settings.dns)
        XCTAssertEqual(settings.excludeLocalNetworks, true)
        XCTAssertEqual(settings.excludedRoutes, ["10.192.9.0/24"])
    }

    func testTheyAreWrittenAsTheyAreRead() throws {
        for name in ["full.json", "split.json", "ipv6.json"] {
            let settings = try Fixture.settings(name)
            let again = try JSONDecoder().decode(Settings.self, from: JSONEncoder().encode(settings))
            XCTAssertEqual(again, settings)
        }
    }

    func testAFieldThatIsMissingIsAnError() {
        let json = Data("{\"addresses\":[\"10.0.0.2/32\"]}".utf8)
        XCTAssertThrowsError(try JSONDecoder().decode(Settings.self, from: json))
    }
}
