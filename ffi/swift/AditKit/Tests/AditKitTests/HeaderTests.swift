import CAdit
import XCTest

@testable import AditKit

/// The numbers of this package are those of the C header.
final class HeaderTests: XCTestCase {
    func testStates() {
        XCTAssertEqual(TunnelState.idle.rawValue, UInt32(ADIT_STATE_IDLE))
        XCTAssertEqual(TunnelState.resolving.rawValue, UInt32(ADIT_STATE_RESOLVING))
        XCTAssertEqual(TunnelState.handshaking.rawValue, UInt32(ADIT_STATE_HANDSHAKING))
        XCTAssertEqual(TunnelState.applyingSettings.rawValue, UInt32(ADIT_STATE_APPLYING_SETTINGS))
        XCTAssertEqual(TunnelState.up.rawValue, UInt32(ADIT_STATE_UP))
        XCTAssertEqual(TunnelState.reasserting.rawValue, UInt32(ADIT_STATE_REASSERTING))
        XCTAssertEqual(TunnelState.stopping.rawValue, UInt32(ADIT_STATE_STOPPING))
    }

    func testEvents() {
        XCTAssertEqual(Event.state(.up).kind, UInt32(ADIT_EVENT_STATE))
        XCTAssertEqual(Event.started(nil).kind, UInt32(ADIT_EVENT_STARTED))
        XCTAssertEqual(Event.settings(generation: 1, settings: Settings(addresses: [])).kind, UInt32(ADIT_EVENT_SETTINGS))
        XCTAssertEqual(Event.handshake(peer: "", roundTrip: nil, isFirst: true).kind, UInt32(ADIT_EVENT_HANDSHAKE))
        XCTAssertEqual(Event.handshakeTimedOut(peer: "", retryIn: nil).kind, UInt32(ADIT_EVENT_HANDSHAKE_TIMED_OUT))
        XCTAssertEqual(Event.roamed(peer: "").kind, UInt32(ADIT_EVENT_ROAMED))
        XCTAssertEqual(Event.room.kind, UInt32(ADIT_EVENT_ROOM))
        XCTAssertEqual(Event.warning(Settings.Warning(code: "", message: "")).kind, UInt32(ADIT_EVENT_WARNING))
        XCTAssertEqual(Event.updated(nil).kind, UInt32(ADIT_EVENT_UPDATED))
        XCTAssertEqual(Event.resumed.kind, UInt32(ADIT_EVENT_RESUMED))
        XCTAssertEqual(Event.stopped(reason: nil, error: nil).kind, UInt32(ADIT_EVENT_STOPPED))
    }

    func testWhatGoesIn() {
        XCTAssertEqual(Configuration.Format.conf.rawValue, UInt32(ADIT_FORMAT_CONF))
        XCTAssertEqual(Configuration.Format.toml.rawValue, UInt32(ADIT_FORMAT_TOML))
        XCTAssertEqual(Configuration.Format.json.rawValue, UInt32(ADIT_FORMAT_JSON))
        XCTAssertEqual(TunnelDescriptor.Ownership.borrowed.rawValue, UInt32(ADIT_FD_BORROWED))
        XCTAssertEqual(TunnelDescriptor.Ownership.owned.rawValue, UInt32(ADIT_FD_OWNED))
        XCTAssertEqual(TunnelDescriptor.Framing.raw.rawValue, UInt32(ADIT_FRAMING_RAW))
        XCTAssertEqual(TunnelDescriptor.Framing.utun.rawValue, UInt32(ADIT_FRAMING_UTUN))
        XCTAssertEqual(Tunnel.Redaction.secrets.rawValue, UInt32(ADIT_REDACT_SECRETS))
        XCTAssertEqual(Tunnel.Redaction.everything.rawValue, UInt32(ADIT_REDACT_ADDRESSES))
        XCTAssertEqual(Adit.LogLevel.error.rawValue, UInt32(ADIT_LOG_ERROR))
        XCTAssertEqual(Adit.LogLevel.trace.rawValue, UInt32(ADIT_LOG_TRACE))
        XCTAssertEqual(PacketBatch.largest, Int(ADIT_MAX_PACKETS))
    }

    func testFlags() {
        let path = NetworkPath(
            interfaceIndex: 1,
            interfaceKind: .wired,
            isSatisfied: true,
            isExpensive: true,
            isConstrained: true,
            supportsIPv4: true,
            supportsIPv6: true,
            isDirectLink: true
        )
        let low = UInt32(ADIT_PATH_SATISFIED) | UInt32(ADIT_PATH_EXPENSIVE) | UInt32(ADIT_PATH_CONSTRAINED)
        let high = UInt32(ADIT_PATH_IPV4) | UInt32(ADIT_PATH_IPV6) | UInt32(ADIT_PATH_DIRECT_LINK)
        XCTAssertEqual(path.flags, low | high)
    }

    func testTheLibraryIsThatOfTheHeader() {
        XCTAssertEqual(Adit.abiVersion, UInt32(ADIT_ABI_VERSION))
    }
}
