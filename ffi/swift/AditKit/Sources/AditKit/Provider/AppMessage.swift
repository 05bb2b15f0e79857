import Foundation

/// What an app and its provider say to each other through `sendProviderMessage` and `handleAppMessage`: versioned JSON.
///
/// App and provider are updated together but not at the same moment, so either side can be older. A reader ignores fields
/// it does not know, and answers a request that it does not know with an error instead of silence.
public enum AppMessage {
    /// The version that this package writes, and the newest that it reads.
    public static let version = 1

    /// What an app can ask.
    public enum Request: String, Codable, Hashable, Sendable {
        /// Where the tunnel is in its life; answered with ``Reply/status(_:)``.
        case status
        /// What it has done and holds; answered with ``Reply/stats(_:)``.
        case stats
    }

    /// What a provider answers.
    public enum Reply: Hashable, Sendable {
        /// Where the tunnel is in its life.
        case status(Status)
        /// What it has done and holds.
        case stats(Stats)
        /// The request was not understood or could not be answered.
        case failure(code: String, message: String)
    }

    /// Where a tunnel is in its life, for an app to show.
    public struct Status: Codable, Hashable, Sendable {
        /// How packets go between system and engine.
        public enum PacketMode: String, Codable, Hashable, Sendable {
            /// By the tun descriptor.
            case descriptor
            /// By `packetFlow`.
            case packetFlow = "packet-flow"
        }

        /// Where the tunnel is in its life.
        public var state: TunnelState
        /// When it came up.
        public var upSince: Date?
        /// How packets go, once they do.
        public var packetMode: PacketMode?
        /// The settings that are applied.
        public var settings: Settings?
        /// What the user should know.
        public var warnings: [Settings.Warning]
        /// The newest failure.
        public var lastError: TunnelError?
        /// The version of the engine.
        public var engine: String

        /// A status.
        public init(
            state: TunnelState,
            upSince: Date? = nil,
            packetMode: PacketMode? = nil,
            settings: Settings? = nil,
            warnings: [Settings.Warning] = [],
            lastError: TunnelError? = nil,
            engine: String
        ) {
            self.state = state
            self.upSince = upSince
            self.packetMode = packetMode
            self.settings = settings
            self.warnings = warnings
            self.lastError = lastError
            self.engine = engine
        }
    }

    /// The bytes of a request, for `sendProviderMessage`.
    public static func encode(_ request: Request) throws -> Data {
        return try encoder().encode(RequestEnvelope(version: version, request: request.rawValue))
    }

    /// Reads a request. What is wrong with one that cannot be read is the reply to send.
    public static func decodeRequest(_ data: Data) -> Result<Request, Refusal> {
        guard data.count <= longest else {
            return .failure(Refusal(code: "too-large", message: "a request has at most \(longest) bytes"))
        }
        guard let envelope = try? decoder().decode(RequestEnvelope.self, from: data) else {
            return .failure(Refusal(code: "malformed", message: "a request is a JSON object with version and request"))
        }
        guard envelope.version >= 1, envelope.version <= version else {
            let message = "version \(envelope.version) is not known here, 1 to \(version) are"
            return .failure(Refusal(code: "unsupported-version", message: message))
        }
        guard let request = Request(rawValue: envelope.request) else {
            return .failure(Refusal(code: "unknown-request", message: "no such request: \(envelope.request)"))
        }
        return .success(request)
    }

    /// The bytes of a reply, for the completion of `handleAppMessage`.
    public static func encode(_ reply: Reply) throws -> Data {
        var envelope = ReplyEnvelope(version: version, reply: "", status: nil, stats: nil, error: nil)
        switch reply {
        case .status(let status):
            envelope.reply = "status"
            envelope.status = status
        case .stats(let stats):
            envelope.reply = "stats"
            envelope.stats = stats
        case .failure(let code, let message):
            envelope.reply = "error"
            envelope.error = Refusal(code: code, message: message)
        }
        return try encoder().encode(envelope)
    }

    /// Reads a reply.
    ///
    /// - Throws: ``Refusal`` if it is none, or of a version that is not known here.
    public static func decodeReply(_ data: Data) throws -> Reply {
        guard let envelope = try? decoder().decode(ReplyEnvelope.self, from: data) else {
            throw Refusal(code: "malformed", message: "the reply cannot be read")
        }
        guard envelope.version >= 1, envelope.version <= version else {
            throw Refusal(code: "unsupported-version", message: "the reply has version \(envelope.version)")
        }
        if envelope.reply == "status", let status = envelope.status {
            return .status(status)
        }
        if envelope.reply == "stats", let stats = envelope.stats {
            return .stats(stats)
        }
        if envelope.reply == "error", let error = envelope.error {
            return .failure(code: error.code, message: error.message)
        }
        throw Refusal(code: "unknown-reply", message: "no such reply: \(envelope.reply)")
    }

    /// Why a message was not understood.
    public struct Refusal: Error, Codable, Hashable, Sendable {
        /// A name that stays the same between versions.
        public var code: String
        /// A sentence for a log.
        public var message: String

        /// A refusal.
        public init(code: String, message: String) {
            self.code = code
            self.message = message
        }
    }

    /// The longest request in bytes that is looked at.
    public static let longest = 65536

    private struct RequestEnvelope: Codable {
        var version: Int
        var request: String
    }

    private struct ReplyEnvelope: Codable {
        var version: Int
        var reply: String
        var status: Status?
        var stats: Stats?
        var error: Refusal?
    }

    private static func encoder() -> JSONEncoder {
        let encoder = JSONEncoder()
        encoder.dateEncodingStrategy = .secondsSince1970
        encoder.outputFormatting = [.sortedKeys]
        return encoder
    }

    private static func decoder() -> JSONDecoder {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .secondsSince1970
        return decoder
    }
}
