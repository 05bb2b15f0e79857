import XCTest

@testable import AditKit

final class IPPrefixTests: XCTestCase {
    func testWhatIsReadIsWhatIsWritten() throws {
        for text in ["10.0.0.2/24", "0.0.0.0/0", "255.255.255.255/32", "::/0", "fd00:192:122::2/128", "2001:db8::/33"] {
            XCTAssertEqual(try XCTUnwrap(IPPrefix(text)).description, text)
        }
        XCTAssertEqual(IPPrefix("10.0.0.2")?.length, 32)
        XCTAssertEqual(IPPrefix("::1")?.length, 128)
    }

    func testWhatIsNoPrefix() {
        let wrong = [
            "", "/", "10.0.0.2/", "10.0.0.2/33", "10.0.0.2/-1", "10.0.0.2/+8", "10.0.0/8", "::/129", "example.com",
            "10.0.0.2/24/8", "10.0.0.2 /8", "fe80::1%en0", "10.0.0.2\u{0}/8",
        ]
        for text in wrong {
            XCTAssertNil(IPPrefix(text), text)
        }
    }

    func testMasks() throws {
        let masks = [
            ("10.0.0.0/0", "0.0.0.0"), ("10.0.0.0/1", "128.0.0.0"), ("10.0.0.0/8", "255.0.0.0"),
            ("10.0.0.0/20", "255.255.240.0"), ("10.0.0.0/31", "255.255.255.254"), ("10.0.0.0/32", "255.255.255.255"),
        ]
        for (text, mask) in masks {
            XCTAssertEqual(try XCTUnwrap(IPPrefix(text)).subnetMask, mask)
        }
    }

    func testNetworks() throws {
        XCTAssertEqual(IPPrefix("10.1.2.3/20")?.network.description, "10.1.0.0/20")
        XCTAssertEqual(IPPrefix("fd00:192:122::2/33")?.network.description, "fd00:192::/33")
        XCTAssertEqual(IPPrefix("fd00::2/128")?.network.description, "fd00::2/128")
    }

    func testContaining() throws {
        let wide = try XCTUnwrap(IPPrefix("10.0.0.0/9"))
        XCTAssertTrue(wide.contains(try XCTUnwrap(IPPrefix("10.127.255.255"))))
        XCTAssertFalse(wide.contains(try XCTUnwrap(IPPrefix("10.128.0.0"))))
        XCTAssertFalse(wide.contains(try XCTUnwrap(IPPrefix("10.0.0.0/8"))))
        XCTAssertFalse(try XCTUnwrap(IPPrefix("::/0")).contains(wide))
    }

    func testLoopback() {
        XCTAssertEqual(IPPrefix("127.0.0.0/8")?.isLoopback, true)
        XCTAssertEqual(IPPrefix("127.1.2.3")?.isLoopback, true)
        XCTAssertEqual(IPPrefix("126.0.0.0/7")?.isLoopback, false)
        XCTAssertEqual(IPPrefix("::1")?.isLoopback, true)
        XCTAssertEqual(IPPrefix("::/0")?.isLoopback, false)
    }
}
