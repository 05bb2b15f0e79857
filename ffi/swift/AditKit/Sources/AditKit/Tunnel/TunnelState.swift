/// Where a tunnel is in its life.
public enum TunnelState: Hashable, Sendable {
    /// Not started, or stopped again.
    case idle
    /// Names of peers are being looked up, outside the tunnel.
    case resolving
    /// The first handshake is under way.
    case handshaking
    /// The host is applying the settings.
    case applyingSettings
    /// Packets flow.
    case up
    /// Packets flowed and the engine is bringing that back: the network changed or a peer went silent.
    case reasserting
    /// The tunnel is being stopped.
    case stopping
    /// A state that is newer than this version.
    case unknown(UInt32)

    /// The state with a number of the C header.
    public init(rawValue: UInt32) {
        switch rawValue {
        case 0: self = .idle
        case 1: self = .resolving
        case 2: self = .handshaking
        case 3: self = .applyingSettings
        case 4: self = .up
        case 5: self = .reasserting
        case 6: self = .stopping
        default: self = .unknown(rawValue)
        }
    }

    /// The state with a name as it stands in the engine's JSON, or `nil` for a name that this version does not know.
    public init?(name: String) {
        switch name {
        case "idle": self = .idle
        case "resolving": self = .resolving
        case "handshaking": self = .handshaking
        case "applying-settings": self = .applyingSettings
        case "up": self = .up
        case "reasserting": self = .reasserting
        case "stopping": self = .stopping
        default: return nil
        }
    }

    /// The number of the C header.
    public var rawValue: UInt32 {
        switch self {
        case .idle: return 0
        case .resolving: return 1
        case .handshaking: return 2
        case .applyingSettings: return 3
        case .up: return 4
        case .reasserting: return 5
        case .stopping: return 6
        case .unknown(let number): return number
        }
    }

    /// The name as it stands in the engine's JSON.
    public var name: String {
        switch self {
        case .idle: return "idle"
        case .resolving: return "resolving"
        case .handshaking: return "handshaking"
        case .applyingSettings: return "applying-settings"
        case .up: return "up"
        case .reasserting: return "reasserting"
        case .stopping: return "stopping"
        case .unknown(let number): return "unknown-\(number)"
        }
    }
}

extension TunnelState: CustomStringConvertible {
    public var description: String {
        return name
    }
}

extension TunnelState: Codable {
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
