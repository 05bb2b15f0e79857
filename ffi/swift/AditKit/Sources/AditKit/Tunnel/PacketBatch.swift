import Foundation

/// Packets with their protocol families: the two parallel arrays of `readPackets` and `writePackets`.
public struct PacketBatch: Sendable {
    /// Whole IP packets.
    public let packets: [Data]
    /// `AF_INET` or `AF_INET6` of this platform for each packet, in host byte order.
    public let families: [Int32]

    /// A batch with the families that the packets' first bytes say, or `nil` if one of them is no IP packet.
    public init?(_ packets: [Data]) {
        var families: [Int32] = []
        families.reserveCapacity(packets.count)
        for packet in packets {
            guard let family = PacketBatch.family(of: packet) else { return nil }
            families.append(family)
        }
        self.packets = packets
        self.families = families
    }

    /// A batch as somebody gave it; the engine checks the families against the packets.
    ///
    /// The shorter of the two arrays ends the batch.
    public init(packets: [Data], families: [Int32]) {
        let count = min(packets.count, families.count)
        self.packets = Array(packets.prefix(count))
        self.families = Array(families.prefix(count))
    }

    /// The number of packets.
    public var count: Int {
        return packets.count
    }

    /// Whether there is none.
    public var isEmpty: Bool {
        return packets.isEmpty
    }

    /// What is left without the first packets.
    public func dropFirst(_ taken: Int) -> PacketBatch {
        return PacketBatch(packets: Array(packets.dropFirst(taken)), families: Array(families.dropFirst(taken)))
    }

    /// The first packets.
    public func prefix(_ longest: Int) -> PacketBatch {
        return PacketBatch(packets: Array(packets.prefix(longest)), families: Array(families.prefix(longest)))
    }

    /// The packets whose family is what their first bytes say.
    func sound() -> PacketBatch {
        var packets: [Data] = []
        var families: [Int32] = []
        for (packet, family) in zip(self.packets, self.families) where PacketBatch.family(of: packet) == family {
            packets.append(packet)
            families.append(family)
        }
        return PacketBatch(packets: packets, families: families)
    }

    /// This batch and another one after it.
    func appending(_ other: PacketBatch) -> PacketBatch {
        return PacketBatch(packets: packets + other.packets, families: families + other.families)
    }

    /// The family that a packet's version says, or `nil` if it is no IP packet.
    public static func family(of packet: Data) -> Int32? {
        guard let first = packet.first else { return nil }
        switch first >> 4 {
        case 4: return AF_INET
        case 6: return AF_INET6
        default: return nil
        }
    }

    /// How many packets the engine takes in one call.
    public static let largest = 4096
}

/// Takes the packets that come out of the tunnel.
///
/// It is called on the tunnel's own thread and holds up its events while it runs, so it hands the packets on and returns.
public typealias PacketHandler = @Sendable (PacketBatch) -> Void

/// Where a tunnel's packets come from and go to.
public enum PacketSource: Sendable {
    /// ``Tunnel/inject(_:)`` in, the handler out.
    case callbacks(PacketHandler)
    /// A tun descriptor, both ways.
    case descriptor(TunnelDescriptor)
}

/// A descriptor of a tun device.
public struct TunnelDescriptor: Hashable, Sendable {
    /// What happens to the number that was given. The engine works on a duplicate in either case.
    public enum Ownership: UInt32, Sendable {
        /// It stays the caller's, who closes it when it likes.
        case borrowed = 0
        /// The engine closes it at once if the call succeeds; if it fails it stays the caller's.
        case owned = 1
    }

    /// How packets are framed.
    public enum Framing: UInt32, Sendable {
        /// A packet and nothing else, as on Linux with `IFF_NO_PI`.
        case raw = 0
        /// Four bytes of protocol family in network order before each packet, as on an Apple utun.
        case utun = 1
    }

    /// The number of the descriptor.
    public var number: Int32
    /// Who closes it.
    public var ownership: Ownership
    /// How packets are framed.
    public var framing: Framing

    /// A descriptor; the framing is the platform's unless said.
    public init(_ number: Int32, ownership: Ownership = .borrowed, framing: Framing = TunnelDescriptor.platformFraming) {
        self.number = number
        self.ownership = ownership
        self.framing = framing
    }

    /// How this platform frames packets.
    public static var platformFraming: Framing {
        #if canImport(Darwin)
            return .utun
        #else
            return .raw
        #endif
    }
}
