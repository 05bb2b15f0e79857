import Foundation

/// How a tunnel is made; every value has a default that fits a packet-tunnel provider.
public struct TunnelOptions: Hashable, Sendable {
    /// The name in logs.
    public var name: String?
    /// A folder for what outlives the process, such as the last addresses of peers. It must exist.
    public var stateDirectory: URL?
    /// Seconds to look up names of peers.
    public var resolveTimeout: TimeInterval?
    /// Seconds to wait for the first handshake.
    public var handshakeTimeout: TimeInterval?
    /// Seconds to wait until the settings are applied.
    public var settingsTimeout: TimeInterval?
    /// Seconds a start may take as a whole. The system gives up after about sixty.
    public var startTimeout: TimeInterval?
    /// Whether a start succeeds without a handshake. With it, a tunnel to a peer that is away routes into nothing.
    public var isHandshakeOptional: Bool
    /// Whether the tunnel's own sockets are bound to the interface of the path. A provider need not: the system keeps
    /// its traffic out of its own tunnel.
    public var bindsToPath: Bool
    /// The MTU if the configuration has none; `nil` leaves it to the engine: 1280 on iOS, 1420 elsewhere.
    public var defaultMTU: UInt16?
    /// How many events wait for a slow reader of ``Tunnel/events``; at least 16.
    public var eventCapacity: Int

    /// Options; `nil` is the engine's default.
    public init(
        name: String? = nil,
        stateDirectory: URL? = nil,
        resolveTimeout: TimeInterval? = nil,
        handshakeTimeout: TimeInterval? = nil,
        settingsTimeout: TimeInterval? = nil,
        startTimeout: TimeInterval? = nil,
        isHandshakeOptional: Bool = false,
        bindsToPath: Bool = false,
        defaultMTU: UInt16? = nil,
        eventCapacity: Int = 64
    ) {
        self.name = name
        self.stateDirectory = stateDirectory
        self.resolveTimeout = resolveTimeout
        self.handshakeTimeout = handshakeTimeout
        self.settingsTimeout = settingsTimeout
        self.startTimeout = startTimeout
        self.isHandshakeOptional = isHandshakeOptional
        self.bindsToPath = bindsToPath
        self.defaultMTU = defaultMTU
        self.eventCapacity = eventCapacity
    }

    /// Seconds as the whole milliseconds of the C header, where 0 is the default: shorter than one is one.
    static func milliseconds(_ seconds: TimeInterval?) -> UInt32 {
        guard let seconds = seconds else { return 0 }
        let milliseconds = (seconds * 1000).rounded(.up)
        // A NaN is neither smaller nor larger than anything.
        guard milliseconds > 1 else { return 1 }
        return milliseconds < 4_000_000_000 ? UInt32(milliseconds) : 4_000_000_000
    }
}
