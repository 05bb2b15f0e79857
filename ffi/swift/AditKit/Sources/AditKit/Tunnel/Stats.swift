import CAdit
import Foundation

/// What a tunnel has done and holds; cheap enough to ask every second. Counters begin at zero with each start.
public struct Stats: Codable, Hashable, Sendable {
    /// Where the tunnel is in its life.
    public var state: TunnelState
    /// Seconds since the tunnel came up; 0 if it is not up.
    public var uptime: TimeInterval
    /// Bytes of UDP payload sent to peers.
    public var bytesSent: UInt64
    /// Bytes of UDP payload received from peers.
    public var bytesReceived: UInt64
    /// Packets of the host that were sent to peers.
    public var packetsOut: UInt64
    /// Packets of peers that were given to the host.
    public var packetsIn: UInt64
    /// Packets that went nowhere, for whatever reason.
    public var drops: UInt64
    /// Batches of the host that were refused since a packet in them was none; of the tunnel's whole life.
    public var injectRefused: UInt64
    /// Packets of the host that found no room when they were handed over.
    public var injectNoRoom: UInt64
    /// Packets for the host that found no room because it did not keep up.
    public var outputDropped: UInt64
    /// How often the host was called; of the tunnel's whole life.
    public var callbacks: UInt64
    /// Handshake messages sent.
    public var handshakes: UInt64
    /// Seconds since the newest handshake, or `nil` if there was none.
    public var lastHandshakeAge: TimeInterval?
    /// Round trip of the newest handshake in seconds, or `nil` if unknown.
    public var handshakeRoundTrip: TimeInterval?
    /// Bytes of memory that are allocated for packets.
    public var packetMemory: UInt64
    /// Bytes of memory that may be allocated for packets on this platform.
    public var packetMemoryBudget: UInt64
    /// Bytes of packets that wait: for a handshake, for the tunnel or for the host.
    public var queuedBytes: UInt64
    /// UDP sockets made.
    public var socketsCreated: UInt64
    /// Sockets made anew because the network changed or they were broken.
    public var rebinds: UInt64
    /// How often the packet loop slept and was woken.
    public var wakeups: UInt64

    init(_ raw: AditStats) {
        state = TunnelState(rawValue: raw.state)
        uptime = Stats.seconds(milliseconds: UInt64(raw.uptime_ms)) ?? 0
        bytesSent = UInt64(raw.tx_bytes)
        bytesReceived = UInt64(raw.rx_bytes)
        packetsOut = UInt64(raw.packets_out)
        packetsIn = UInt64(raw.packets_in)
        drops = UInt64(raw.drops)
        injectRefused = UInt64(raw.inject_refused)
        injectNoRoom = UInt64(raw.inject_no_room)
        outputDropped = UInt64(raw.output_dropped)
        callbacks = UInt64(raw.callbacks)
        handshakes = UInt64(raw.handshakes)
        lastHandshakeAge = Stats.seconds(milliseconds: UInt64(raw.last_handshake_age_ms))
        handshakeRoundTrip = Stats.seconds(microseconds: UInt64(raw.handshake_rtt_us))
        packetMemory = UInt64(raw.packet_memory_bytes)
        packetMemoryBudget = UInt64(raw.packet_memory_budget)
        queuedBytes = UInt64(raw.queued_bytes)
        socketsCreated = UInt64(raw.sockets_created)
        rebinds = UInt64(raw.rebinds)
        wakeups = UInt64(raw.wakeups)
    }

    /// Seconds, or `nil` for the number that stands for "there is none".
    static func seconds(milliseconds: UInt64) -> TimeInterval? {
        return milliseconds == UInt64.max ? nil : TimeInterval(milliseconds) / 1000
    }

    /// Seconds, or `nil` for the number that stands for "there is none".
    static func seconds(microseconds: UInt64) -> TimeInterval? {
        return microseconds == UInt64.max ? nil : TimeInterval(microseconds) / 1_000_000
    }
}
