/// Why a tunnel stopped: the numbers of `NEProviderStopReason`, which newer systems add to.
///
/// A number this version does not know is kept as it is in ``unknown(_:)``; nothing is guessed from it.
public enum StopReason: Hashable, Sendable {
    /// No reason was given.
    case unspecified
    /// The user turned the tunnel off.
    case userInitiated
    /// The provider failed.
    case providerFailed
    /// There is no network.
    case noNetworkAvailable
    /// The network changed in a way the tunnel cannot follow.
    case unrecoverableNetworkChange
    /// The provider was disabled.
    case providerDisabled
    /// Authentication was cancelled.
    case authenticationCanceled
    /// The configuration could not be used.
    case configurationFailed
    /// The tunnel was idle for too long.
    case idleTimeout
    /// The configuration was disabled.
    case configurationDisabled
    /// The configuration was removed.
    case configurationRemoved
    /// Another configuration took over. The spelling is the system's.
    case superceded
    /// The user logged out (macOS). It can be told twice at one log-out.
    case userLogout
    /// Another user took the console (macOS).
    case userSwitch
    /// The connection failed.
    case connectionFailed
    /// The device went to sleep and the configuration disconnects on sleep.
    case sleep
    /// The app is being updated: stop at once, the next process goes on.
    case appUpdate
    /// The system had an internal error.
    case internalError
    /// A reason that is newer than this version.
    case unknown(UInt32)

    /// The reason with a number of `NEProviderStopReason`.
    public init(rawValue: UInt32) {
        if let known = StopReason.numbered.first(where: { $0.0 == rawValue }) {
            self = known.1
        } else {
            self = .unknown(rawValue)
        }
    }

    /// The reason for the raw value of an `NEProviderStopReason`, which is a signed number; a negative one is no reason.
    public init(providerReason: Int) {
        self.init(rawValue: UInt32(exactly: providerReason) ?? 0)
    }

    /// The number of `NEProviderStopReason`.
    public var rawValue: UInt32 {
        if case .unknown(let number) = self {
            return number
        }
        return StopReason.numbered.first(where: { $0.1 == self })?.0 ?? 0
    }

    /// How long a stop for this reason may take, in seconds.
    ///
    /// An update of the app and a log-out leave little time, after which the process is killed.
    public var deadline: Double {
        switch self {
        case .appUpdate, .userLogout, .userSwitch:
            return 1
        default:
            return 5
        }
    }

    private static let numbered: [(UInt32, StopReason)] = [
        (0, .unspecified),
        (1, .userInitiated),
        (2, .providerFailed),
        (3, .noNetworkAvailable),
        (4, .unrecoverableNetworkChange),
        (5, .providerDisabled),
        (6, .authenticationCanceled),
        (7, .configurationFailed),
        (8, .idleTimeout),
        (9, .configurationDisabled),
        (10, .configurationRemoved),
        (11, .superceded),
        (12, .userLogout),
        (13, .userSwitch),
        (14, .connectionFailed),
        (15, .sleep),
        (16, .appUpdate),
        (17, .internalError),
    ]
}

extension StopReason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unspecified: return "unspecified"
        case .userInitiated: return "user-initiated"
        case .providerFailed: return "provider-failed"
        case .noNetworkAvailable: return "no-network-available"
        case .unrecoverableNetworkChange: return "unrecoverable-network-change"
        case .providerDisabled: return "provider-disabled"
        case .authenticationCanceled: return "authentication-canceled"
        case .configurationFailed: return "configuration-failed"
        case .idleTimeout: return "idle-timeout"
        case .configurationDisabled: return "configuration-disabled"
        case .configurationRemoved: return "configuration-removed"
        case .superceded: return "superceded"
        case .userLogout: return "user-logout"
        case .userSwitch: return "user-switch"
        case .connectionFailed: return "connection-failed"
        case .sleep: return "sleep"
        case .appUpdate: return "app-update"
        case .internalError: return "internal-error"
        case .unknown(let number): return "unknown (\(number))"
        }
    }
}
