import XCTest

@testable import AditKit

final class StopReasonTests: XCTestCase {
    func testNumbersAreThoseOfTheSystem() {
        let table: [(UInt32, StopReason, String)] = [
            (0, .unspecified, "unspecified"),
            (1, .userInitiated, "user-initiated"),
            (2, .providerFailed, "provider-failed"),
            (3, .noNetworkAvailable, "no-network-available"),
            (4, .unrecoverableNetworkChange, "unrecoverable-network-change"),
            (5, .providerDisabled, "provider-disabled"),
            (6, .authenticationCanceled, "authentication-canceled"),
            (7, .configurationFailed, "configuration-failed"),
            (8, .idleTimeout, "idle-timeout"),
            (9, .configurationDisabled, "configuration-disabled"),
            (10, .configurationRemoved, "configuration-removed"),
            (11, .superceded, "superceded"),
            (12, .userLogout, "user-logout"),
            (13, .userSwitch, "user-switch"),
            (14, .connectionFailed, "connection-failed"),
            (15, .sleep, "sleep"),
            (16, .appUpdate, "app-update"),
            (17, .internalError, "internal-error"),
        ]
        for (number, reason, name) in table {
            XCTAssertEqual(StopReason(rawValue: number), reason)
            XCTAssertEqual(reason.rawValue, number)
            XCTAssertEqual(reason.description, name)
        }
    }

    func testLaterNumbersAreKept() {
        XCTAssertEqual(StopReason(rawValue: 18), .unknown(18))
        XCTAssertEqual(StopReason(rawValue: UInt32.max).rawValue, UInt32.max)
    }

    func testASignedNumberOfTheSystem() {
        XCTAssertEqual(StopReason(providerReason: 12), .userLogout)
        XCTAssertEqual(StopReason(providerReason: 99), .unknown(99))
        XCTAssertEqual(StopReason(providerReason: -1), .unspecified)
    }

    func testAnUpdateOfTheAppLeavesLittleTime() {
        XCTAssertEqual(StopReason.appUpdate.deadline, 1)
        XCTAssertEqual(StopReason.userInitiated.deadline, 5)
    }
}
