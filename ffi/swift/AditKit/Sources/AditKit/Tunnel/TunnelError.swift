import CAdit
import Foundation

/// Why a call or a tunnel failed: a code to act on, and a sentence to show or log.
public struct TunnelError: Error, Hashable, Sendable {
    /// The kind of failure. A code that is newer than this version is kept as its number.
    public struct Code: RawRepresentable, Hashable, Sendable {
        /// The number of the C header's `ADIT_ERROR_…`.
        public let rawValue: UInt32

        /// The code with a number of the C header.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// A pointer was NULL: a bug of this package.
        public static let nullPointer = Code(rawValue: 6101)
        /// An argument has a value that is not allowed.
        public static let invalidArgument = Code(rawValue: 6102)
        /// A text is not UTF-8 or has a NUL inside.
        public static let invalidUTF8 = Code(rawValue: 6103)
        /// The header and the library do not belong together.
        public static let invalidSize = Code(rawValue: 6104)
        /// The tunnel was closed.
        public static let invalidHandle = Code(rawValue: 6105)
        /// The tunnel failed inside before; it can only be stopped and closed.
        public static let poisoned = Code(rawValue: 6106)
        /// A bug in the engine ended the call; the tunnel is poisoned.
        public static let panic = Code(rawValue: 6107)
        /// The call is not allowed in the state that the tunnel is in.
        public static let invalidState = Code(rawValue: 6108)
        /// The tunnel is started already, or is still being stopped.
        public static let alreadyRunning = Code(rawValue: 6109)
        /// A text or a batch is too large for one call.
        public static let tooLarge = Code(rawValue: 6110)
        /// There are too many tunnels in this process.
        public static let tooMany = Code(rawValue: 6111)
        /// The configuration cannot be used; ``Configuration/check()`` says why.
        public static let configuration = Code(rawValue: 6112)
        /// The name of an endpoint could not be resolved.
        public static let resolve = Code(rawValue: 6113)
        /// A UDP socket could not be opened or bound.
        public static let socket = Code(rawValue: 6114)
        /// No peer answered the handshake in time.
        public static let peerTimeout = Code(rawValue: 6115)
        /// The host did not say in time whether the settings are applied.
        public static let settingsTimeout = Code(rawValue: 6116)
        /// The host could not apply the settings.
        public static let settingsRejected = Code(rawValue: 6117)
        /// The start as a whole took too long.
        public static let startTimeout = Code(rawValue: 6118)
        /// The tunnel was stopped before what was asked for was done.
        public static let stopped = Code(rawValue: 6119)
        /// The descriptor is closed, no tun device, or framed in another way than was said.
        public static let device = Code(rawValue: 6120)
        /// The descriptor failed while it was in use.
        public static let deviceLost = Code(rawValue: 6121)
        /// The deadline of the call passed.
        public static let timeout = Code(rawValue: 6122)
        /// The tunnel is busy; try again later.
        public static let busy = Code(rawValue: 6123)
        /// What is answered is no longer asked.
        public static let stale = Code(rawValue: 6124)
        /// A packet of a batch is none; nothing of the batch was taken.
        public static let packet = Code(rawValue: 6125)
        /// The text is not a key.
        public static let key = Code(rawValue: 6126)
        /// The operating system refused something.
        public static let system = Code(rawValue: 6127)
        /// Something failed inside; the log says what.
        public static let `internal` = Code(rawValue: 6128)

        /// The name of the code in the engine's JSON, such as `peer-timeout`.
        public var name: String {
            return Code.names.first(where: { $0.0 == self })?.1 ?? "unknown-\(rawValue)"
        }

        /// The code with a name of the engine's JSON, or `nil` for one that this version does not know.
        public init?(name: String) {
            guard let known = Code.names.first(where: { $0.1 == name }) else { return nil }
            self = known.0
        }

        private static let names: [(Code, String)] = [
            (.nullPointer, "null-pointer"),
            (.invalidArgument, "invalid-argument"),
            (.invalidUTF8, "invalid-utf8"),
            (.invalidSize, "invalid-size"),
            (.invalidHandle, "invalid-handle"),
            (.poisoned, "poisoned"),
            (.panic, "panic"),
            (.invalidState, "invalid-state"),
            (.alreadyRunning, "already-running"),
            (.tooLarge, "too-large"),
            (.tooMany, "too-many"),
            (.configuration, "configuration"),
            (.resolve, "resolve"),
            (.socket, "socket"),
            (.peerTimeout, "peer-timeout"),
            (.settingsTimeout, "settings-timeout"),
            (.settingsRejected, "settings-rejected"),
            (.startTimeout, "start-timeout"),
            (.stopped, "stopped"),
            (.device, "device"),
            (.deviceLost, "device-lost"),
            (.timeout, "timeout"),
            (.busy, "busy"),
            (.stale, "stale"),
            (.packet, "packet"),
            (.key, "key"),
            (.system, "system"),
            (.internal, "internal"),
        ]
    }

    /// What to act on.
    public let code: Code
    /// What to show or log: one sentence, without secrets.
    public let message: String

    /// An error with a sentence of its own.
    public init(code: Code, message: String) {
        self.code = code
        self.message = message
    }

    /// An error with the library's sentence for its code.
    public init(code: Code) {
        self.init(code: code, message: TunnelError.sentence(for: code))
    }

    /// Whether the same start may succeed later without a change of the configuration: a matter of the network.
    public var isTransient: Bool {
        switch code {
        case .resolve, .socket, .peerTimeout, .startTimeout, .deviceLost, .timeout, .busy, .system:
            return true
        default:
            return false
        }
    }

    /// The domain of the error as an `NSError`, which is what the app gets from the system.
    public static let domain = "AditErrorDomain"

    /// Throws what a result of the C functions means, unless it is success.
    static func check(_ result: AditResult) throws {
        if result != 0 {
            throw TunnelError(code: Code(rawValue: result))
        }
    }

    private static func sentence(for code: Code) -> String {
        let pointer: UnsafePointer<CChar>? = adit_error_message(code.rawValue)
        guard let text = pointer else { return "error \(code.rawValue)" }
        return String(cString: text)
    }
}

extension TunnelError: LocalizedError {
    public var errorDescription: String? {
        return message
    }
}

extension TunnelError: CustomNSError {
    public static var errorDomain: String {
        return domain
    }

    public var errorCode: Int {
        return Int(code.rawValue)
    }

    public var errorUserInfo: [String: Any] {
        return [NSLocalizedDescriptionKey: message]
    }
}

extension TunnelError: CustomStringConvertible {
    public var description: String {
        return "\(code.name): \(message)"
    }
}

extension TunnelError.Code: Codable {
    /// Reads the number, which a newer version can add to without breaking an older app.
    public init(from decoder: Decoder) throws {
        let container = try decoder.singleValueContainer()
        self.init(rawValue: try container.decode(UInt32.self))
    }

    public func encode(to encoder: Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(rawValue)
    }
}

extension TunnelError: Codable {}
