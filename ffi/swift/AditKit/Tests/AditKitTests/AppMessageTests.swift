import XCTest

@testable import AditKit

final class AppMessageTests: XCTestCase {
    func testRequests() throws {
        for request in [AppMessage.Request.status, AppMessage.Request.stats] {
            let data = try AppMessage.encode(request)
            XCTAssertEqual(try AppMessage.decodeRequest(data).get(), request)
        }
        let text = String(decoding: try AppMessage.encode(AppMessage.Request.stats), as: UTF8.self)
        XCTAssertEqual(text, "{\"request\":\"stats\",\"version\":1}")
    }

    func testARequestThatIsNotUnderstoodIsAnswered() {
        func code(_ text: String) -> String? {
            switch AppMessage.decodeRequest(Data(text.utf8)) {
            case .success: return nil
            case .failure(let refusal): return refusal.code
            }
        }
        XCTAssertNil(code("{\"version\":1,\"request\":\"status\",\"later\":true}"))
        XCTAssertEqual(code(""), "malformed")
        XCTAssertEqual(code("{\"request\":\"status\"}"), "malformed")
        XCTAssertEqual(code("{\"version\":2,\"request\":\"status\"}"), "unsupported-version")
        XCTAssertEqual(code("{\"version\":0,\"request\":\"status\"}"), "unsupported-version")
        XCTAssertEqual(code("{\"version\":1,\"request\":\"reboot\"}"), "unknown-request")
        XCTAssertEqual(code(String(repeating: " ", count: AppMessage.longest + 1)), "too-large")
    }

    func testAStatus() throws {
        let expected = AppMessage.Status(
            state: .reasserting,
            upSince: Date(timeIntervalSince1970: 1_700_000_000),
            packetMode: .packetFlow,
            settings: Settings(
                addresses: ["10.192.122.2/32"],
                includedRoutes: ["0.0.0.0/0"],
                mtu: 1280,
                remoteAddress: "192.0.2.1"
            ),
            warnings: [Settings.Warning(code: "ipv6-default-missing", message: "IPv6 goes around the tunnel")],
            lastError: TunnelError(code: .peerTimeout, message: "no peer answered"),
            engine: "0.1.0"
        )
        XCTAssertEqual(try AppMessage.decodeReply(Fixture.data("app-status.json")), .status(expected))
        let again = try AppMessage.decodeReply(AppMessage.encode(AppMessage.Reply.status(expected)))
        XCTAssertEqual(again, .status(expected))
    }

    func testAFailure() throws {
        let reply = AppMessage.Reply.failure(code: "not-running", message: "there is no tunnel")
        XCTAssertEqual(try AppMessage.decodeReply(AppMessage.encode(reply)), reply)
    }

    func testAReplyThatIsNone() {
        for text in ["", "{}", "{\"version\":9,\"reply\":\"status\"}", "{\"version\":1,\"reply\":\"status\"}"] {
            XCTAssertThrowsError(try AppMessage.decodeReply(Data(text.utf8)), text)
        }
    }
}
