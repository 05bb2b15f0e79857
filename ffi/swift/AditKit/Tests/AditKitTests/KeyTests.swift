import XCTest

@testable import AditKit

final class KeyTests: XCTestCase {
    func testAPublicKeyBelongsToItsPrivateKey() throws {
        // RFC 7748, section 6.1: Alice's keys.
        let secret = try PrivateKey(base64: "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=")
        XCTAssertEqual(try secret.publicKey().base64, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
    }

    func testKeysAreReadAsTheyAreWritten() throws {
        let secret = try PrivateKey.generate()
        let text = try secret.exposedBase64()
        XCTAssertEqual(text.count, 44)
        XCTAssertEqual(try PrivateKey(base64: text).exposedBase64(), text)
        XCTAssertNotEqual(try PrivateKey.generate().exposedBase64(), text)

        let shared = try PresharedKey.generate().exposedBase64()
        XCTAssertEqual(try PresharedKey(base64: shared).exposedBase64(), shared)
    }

    func testWhatIsNoKey() {
        for text in ["", "key", String(repeating: "A", count: 43), String(repeating: "A", count: 45)] {
            XCTAssertThrowsError(try PublicKey(base64: text), text) { error in
                XCTAssertEqual((error as? TunnelError)?.code, .key)
            }
        }
    }

    func testSecretsAreNotPrinted() throws {
        let secret = try PrivateKey.generate()
        let text = try secret.exposedBase64()
        var dumped = ""
        dump(secret, to: &dumped)
        for shown in ["\(secret)", String(reflecting: secret), dumped] {
            XCTAssertFalse(shown.contains(text))
            XCTAssertFalse(shown.contains("bytes"))
        }
        let configuration = Configuration("[Interface]\nPrivateKey = \(text)\n")
        dumped = ""
        dump(configuration, to: &dumped)
        for shown in ["\(configuration)", String(reflecting: configuration), dumped] {
            XCTAssertFalse(shown.contains(text))
        }
    }
}

final class ConfigurationTests: XCTestCase {
    func testAGoodConfiguration() throws {
        for name in ["full.conf", "split.conf", "ipv6.conf"] {
            let text = String(decoding: try Fixture.data(name), as: UTF8.self)
            let report = try Configuration(text).check()
            XCTAssertTrue(report.isValid, name)
            XCTAssertEqual(report.diagnostics.filter { $0.severity == "error" }, [], name)
        }
    }

    func testEverythingThatIsWrongIsSaid() throws {
        let text = "[Interface]\nPrivateKey = short\nAdress = 10.0.0.2/32\n"
        let report = try Configuration(text).check()
        XCTAssertFalse(report.isValid)
        let lines = report.diagnostics.filter { $0.severity == "error" }.compactMap { $0.line }
        XCTAssertTrue(lines.contains(2), "\(report.diagnostics)")
        XCTAssertTrue(lines.contains(3), "\(report.diagnostics)")
        XCTAssertFalse(report.diagnostics.contains(where: { $0.message.contains("short") }), "a key is not repeated")
    }

    func testATunnelIsNotMadeOfAWrongOne() {
        let configuration = Configuration("[Interface]\nAdress = 10.0.0.2/32\n")
        XCTAssertThrowsError(try Tunnel(configuration: configuration, applySettings: { _ in })) { error in
            let error = error as? TunnelError
            XCTAssertEqual(error?.code, .configuration)
            XCTAssertEqual(error?.message.hasPrefix("error: "), true, "\(String(describing: error))")
        }
    }

    func testSettingsAreThoseOfTheConfiguration() async throws {
        for name in ["full", "split", "ipv6"] {
            let text = String(decoding: try Fixture.data("\(name).conf"), as: UTF8.self)
            let tunnel = try Tunnel(configuration: Configuration(text), applySettings: { _ in })
            var settings = try await tunnel.settings()
            var expected = try Fixture.settings("\(name).json")
            // Warnings depend on the network that the tests run on, and the address of a peer is known once it is looked up.
            settings.warnings = []
            expected.warnings = []
            expected.remoteAddress = settings.remoteAddress
            XCTAssertEqual(settings, expected, name)
            await tunnel.close()
        }
    }

    func testTheLibrary() {
        XCTAssertFalse(Adit.version.isEmpty)
        XCTAssertGreaterThanOrEqual(Adit.abiVersion, 1)
    }
}
