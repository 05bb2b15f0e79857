import Foundation

/// Reads packets from the host and hands them to a tunnel, no faster than the tunnel takes them.
///
/// A host's `readPackets` gives one batch per call and is called again when that is done. While the tunnel has no room
/// it is not called: the packets then wait in the system's own queue, and the senders slow down. ``roomAgain()`` goes on.
///
/// It knows neither NetworkExtension nor the engine, only two functions.
public final class PacketFeeder: @unchecked Sendable {
    /// Asks for one batch, which is given to the function at any time, from any thread.
    public typealias Read = (_ deliver: @escaping @Sendable (PacketBatch) -> Void) -> Void
    /// Hands over a batch and says how many packets were taken, from the first on.
    public typealias Inject = (PacketBatch) throws -> Int

    private enum Phase {
        /// Not begun, or ended.
        case idle
        /// A batch was asked for.
        case reading
        /// A batch is being handed over.
        case feeding(roomCame: Bool)
        /// This is left, and there is no room.
        case waiting(PacketBatch)
    }

    private struct State {
        var phase = Phase.idle
        var epoch: UInt64 = 0
        var refused: UInt64 = 0
    }

    private let state = Locked(State())
    private let read: Read
    private let inject: Inject

    /// A feeder that does nothing yet.
    public init(read: @escaping Read, inject: @escaping Inject) {
        self.read = read
        self.inject = inject
    }

    /// How many packets were thrown away since the tunnel refused their batch.
    public var refused: UInt64 {
        return state.withLock { $0.refused }
    }

    /// Starts to read. Beginning twice is harmless.
    public func begin() {
        let epoch: UInt64? = state.withLock { state in
            guard case .idle = state.phase else { return nil }
            state.phase = .reading
            state.epoch += 1
            return state.epoch
        }
        if let epoch = epoch {
            ask(epoch)
        }
    }

    /// Stops to read. A batch that was asked for and comes later is thrown away.
    public func end() {
        state.withLock { state in
            state.phase = .idle
            state.epoch += 1
        }
    }

    /// Says that the tunnel has room again.
    public func roomAgain() {
        let rest: (PacketBatch, UInt64)? = state.withLock { state in
            switch state.phase {
            case .waiting(let batch):
                state.phase = .feeding(roomCame: false)
                return (batch, state.epoch)
            case .feeding:
                // It came before the batch was found not to fit: not to be forgotten.
                state.phase = .feeding(roomCame: true)
                return nil
            case .idle, .reading:
                return nil
            }
        }
        if let rest = rest {
            feed(rest.0, rest.1)
        }
    }

    private func ask(_ epoch: UInt64) {
        read { [weak self] batch in
            self?.arrived(batch, epoch)
        }
    }

    private func arrived(_ batch: PacketBatch, _ epoch: UInt64) {
        let isCurrent: Bool = state.withLock { state in
            guard state.epoch == epoch, case .reading = state.phase else { return false }
            state.phase = .feeding(roomCame: false)
            return true
        }
        if isCurrent {
            feed(batch, epoch)
        }
    }

    /// Hands over until everything is taken, then reads again; or keeps the rest until there is room.
    private func feed(_ batch: PacketBatch, _ epoch: UInt64) {
        var rest = batch
        while !rest.isEmpty {
            let part = rest.prefix(PacketBatch.largest)
            let taken: Int
            do {
                taken = try inject(part)
            } catch {
                // One that is no packet makes the engine refuse all. Without such ones it is tried again, once: whatever
                // else is wrong would go wrong again.
                let sound = part.sound()
                let kept = sound.count < part.count ? sound : PacketBatch(packets: [], families: [])
                state.withLock { $0.refused += UInt64(part.count - kept.count) }
                rest = kept.appending(rest.dropFirst(part.count))
                continue
            }
            let isWhole = taken >= part.count
            rest = rest.dropFirst(taken)
            if isWhole {
                continue
            }
            let left = rest
            let goesOn: Bool = state.withLock { state in
                guard state.epoch == epoch, case .feeding(let roomCame) = state.phase else { return false }
                if roomCame {
                    state.phase = .feeding(roomCame: false)
                    return true
                }
                state.phase = .waiting(left)
                return false
            }
            if !goesOn {
                return
            }
        }
        let isCurrent: Bool = state.withLock { state in
            guard state.epoch == epoch, case .feeding = state.phase else { return false }
            state.phase = .reading
            return true
        }
        if isCurrent {
            ask(epoch)
        }
    }
}
