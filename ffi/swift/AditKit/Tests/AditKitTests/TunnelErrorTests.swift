import CAdit
import XCTest

@testable import AditKit

final class TunnelErrorTests: XCTestCase {
    func testNumbersAreThoseOfTheHeader() {
        let table: [(TunnelError.Code, UInt32)] = [
            (.nullPointer, UInt32(ADIT_ERROR_NULL_POINTER)),
            (.invalidArgument, UInt32(ADIT_ERROR_INVALID_ARGUMENT)),
            (.invalidUTF8, UInt32(ADIT_ERROR_INVALID_UTF8)),
            (.invalidSize, UInt32(ADIT_ERROR_INVALID_SIZE)),
            (.invalidHandle, UInt32(ADIT_ERROR_INVALID_HANDLE)),
            (.poisoned, UInt32(ADIT_ERROR_POISONED)),
            (.panic, UInt32(ADIT_ERROR_PANIC)),
            (.invalidState, UInt32(ADIT_ERROR_INVALID_STATE)),
            (.alreadyRunning, UInt32(ADIT_ERROR_ALREADY_RUNNING)),
            (.tooLarge, UInt32(ADIT_ERROR_TOO_LARGE)),
            (.tooMany, UInt32(ADIT_ERROR_TOO_MANY)),
            (.configuration, UInt32(ADIT_ERROR_CONFIGURATION)),
            (.resolve, UInt32(ADIT_ERROR_RESOLVE)),
            (.socket, UInt32(ADIT_ERROR_SOCKET)),
            (.peerTimeout, UInt32(ADIT_ERROR_PEER_TIMEOUT)),
            (.settingsTimeout, UInt32(ADIT_ERROR_SETTINGS_TIMEOUT)),
            (.settingsRejected, UInt32(ADIT_ERROR_SETTINGS_REJECTED)),
            (.startTimeout, UInt32(ADIT_ERROR_START_TIMEOUT)),
            (.stopped, UInt32(ADIT_ERROR_STOPPED)),
            (.device, UInt32(ADIT_ERROR_DEVICE)),
            (.deviceLost, UInt32(ADIT_ERROR_DEVICE_LOST)),
            (.timeout, UInt32(ADIT_ERROR_TIMEOUT)),
            (.busy, UInt32(ADIT_ERROR_BUSY)),
            (.stale, UInt32(ADIT_ERROR_STALE)),
            (.packet, UInt32(ADIT_ERROR_PACKET)),
            (.key, UInt32(ADIT_ERROR_KEY)),
            (.system, UInt32(ADIT_ERROR_SYSTEM)),
            (.internal, UInt32(ADIT_ERROR_INTERNAL)),
        ]
        for (code, number) in table {
            XCTAssertEqual(code.rawValue, number)
            XCTAssertEqual(TunnelError.Code(name: code.name), code)
        }
        XCTAssertEqual(Set(table.map { $0.0.name }).count, table.count)
    }

    func testACodeOfALaterVersionIsKept() {
        let error = TunnelError(code: TunnelError.Code(rawValue: 6999))
        XCTAssertEqual(error.code.name, "unknown-6999")
        XCTAssertFalse(error.message.isEmpty)
        XCTAssertNil(TunnelError.Code(name: "later"))
    }

    func testWhatTheSystemMakesOfIt() {
        let error = TunnelError(code: .peerTimeout, message: "nobody is there")
        XCTAssertEqual(TunnelError.errorDomain, "AditErrorDomain")
        XCTAssertEqual(error.errorCode, 6115)
        XCTAssertEqual(error.errorDescription, "nobody is there")
        XCTAssertEqual(error.errorUserInfo[NSLocalizedDescriptionKey] as? String, "nobody is there")
        XCTAssertEqual(error.description, "peer-timeout: nobody is there")
    }

    func testTheLibraryHasASentenceForEachCode() {
        XCTAssertNotEqual(TunnelError(code: .resolve).message, TunnelError(code: .socket).message)
        XCTAssertFalse(TunnelError(code: .resolve).message.isEmpty)
    }

    func testSuccessIsNoError() throws {
        XCTAssertNoThrow(try TunnelError.check(UInt32(ADIT_OK)))
        XCTAssertThrowsError(try TunnelError.check(UInt32(ADIT_ERROR_BUSY))) { error in
            XCTAssertEqual((error as? TunnelError)?.code, .busy)
        }
    }

    func testOnlyTheNetworkIsTransient() {
        XCTAssertTrue(TunnelError(code: .peerTimeout).isTransient)
        XCTAssertFalse(TunnelError(code: .configuration).isTransient)
        XCTAssertFalse(TunnelError(code: .poisoned).isTransient)
    }
}
