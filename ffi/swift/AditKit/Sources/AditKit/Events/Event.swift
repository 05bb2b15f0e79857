import Foundation

/// Something a tunnel tells its host.
///
/// What a call waits for (``Tunnel/start(_:)``, ``Tunnel/update(_:)``) is told to the call as well; events are for
/// showing, logging and following.
public enum Event: Hashable, Sendable {
    /// The tunnel went into a state.
    case state(TunnelState)
    /// A start is over: `nil` is success. Told once for every start.
    case started(TunnelError?)
    /// The host is asked to apply settings; ``Tunnel`` answers by the function it was made with.
    case settings(generation: UInt64, settings: Settings)
    /// A handshake with a peer (its public key) was done.
    case handshake(peer: String, roundTrip: TimeInterval?, isFirst: Bool)
    /// A peer did not answer; the next try is due in `retryIn` seconds, or waits for traffic.
    case handshakeTimedOut(peer: String, retryIn: TimeInterval?)
    /// A peer is heard from another address.
    case roamed(peer: String)
    /// There is room for packets again, after a batch was not taken whole.
    case room
    /// Something the user should know although the tunnel goes on.
    case warning(Settings.Warning)
    /// An update is over: `nil` is success. Told once for every update.
    case updated(TunnelError?)
    /// The tunnel carries packets again after sleep or a change of the network.
    case resumed
    /// The tunnel stopped, by a call or by itself. Told once for every tunnel that had started.
    case stopped(reason: StopReason?, error: TunnelError?)
    /// An event that is newer than this version, or one that could not be read.
    case unknown(kind: UInt32, json: String)

    /// The number of the C header's `ADIT_EVENT_…`.
    public var kind: UInt32 {
        switch self {
        case .state: return 1
        case .started: return 2
        case .settings: return 3
        case .handshake: return 4
        case .handshakeTimedOut: return 5
        case .roamed: return 6
        case .room: return 7
        case .warning: return 8
        case .updated: return 9
        case .resumed: return 10
        case .stopped: return 11
        case .unknown(let kind, _): return kind
        }
    }

    /// Whether the newest event of this kind must reach a slow reader, however full the buffer is.
    ///
    /// The others tell of something that happened and will be told again when it happens again.
    var isEssential: Bool {
        switch self {
        case .state, .started, .settings, .room, .updated, .resumed, .stopped:
            return true
        case .handshake, .handshakeTimedOut, .roamed, .warning, .unknown:
            return false
        }
    }
}
