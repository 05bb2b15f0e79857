#if canImport(NetworkExtension)
import AditKit
import Foundation
import NetworkExtension

/// `packetFlow` as the engine's callbacks and ``AditKit/PacketFeeder`` want it: whole batches both ways.
final class PacketFlow: @unchecked Sendable {
    private let flow: NEPacketTunnelFlow
    private let lock = NSLock()
    private var feeder: PacketFeeder?

    init(_ flow: NEPacketTunnelFlow) {
        self.flow = flow
    }

    /// Says which tunnel the packets of the system are for. Nothing is read before ``begin()``.
    func connect(_ tunnel: Tunnel) {
        let flow = self.flow
        let feeder = PacketFeeder(
            read: { deliver in
                flow.readPackets { packets, protocols in
                    deliver(PacketBatch(packets: packets, families: protocols.map { $0.int32Value }))
                }
            },
            inject: { [weak tunnel] batch in
                guard let tunnel = tunnel else { return batch.count }
                return try tunnel.inject(batch)
            }
        )
        lock.lock()
        self.feeder = feeder
        lock.unlock()
    }

    /// Writes a batch. What the system has no room for is lost, as on any interface.
    func write(_ batch: PacketBatch) {
        let protocols = batch.families.map { NSNumber(value: $0) }
        _ = flow.writePackets(batch.packets, withProtocols: protocols)
    }

    func begin() {
        current()?.begin()
    }

    func end() {
        current()?.end()
    }

    func roomAgain() {
        current()?.roomAgain()
    }

    private func current() -> PacketFeeder? {
        lock.lock()
        defer { lock.unlock() }
        return feeder
    }
}
#endif
