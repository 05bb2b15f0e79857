/// Hands events from the engine's thread to whoever awaits them.
///
/// Telling never waits. Reading is for one task: two would take events from each other.
final class EventQueue: @unchecked Sendable {
    private struct State {
        var buffer: EventBuffer
        var readers: [CheckedContinuation<Event?, Never>] = []
        var isClosed = false
    }

    private enum Step {
        case deliver(Event?)
        case wait
    }

    private let state: Locked<State>

    init(capacity: Int) {
        state = Locked(State(buffer: EventBuffer(capacity: capacity)))
    }

    /// How many events no reader will see.
    var missed: UInt64 {
        return state.withLock { $0.buffer.missed }
    }

    /// Tells an event. After ``close()`` it is lost.
    func send(_ event: Event) {
        let reader: CheckedContinuation<Event?, Never>? = state.withLock { state in
            if state.isClosed {
                return nil
            }
            if state.readers.isEmpty {
                state.buffer.append(event)
                return nil
            }
            return state.readers.removeFirst()
        }
        reader?.resume(returning: event)
    }

    /// The next event, or `nil` when there will be none.
    func next() async -> Event? {
        return await withCheckedContinuation { (continuation: CheckedContinuation<Event?, Never>) in
            let step: Step = state.withLock { state in
                if let event = state.buffer.popFirst() {
                    return .deliver(event)
                }
                if state.isClosed {
                    return .deliver(nil)
                }
                state.readers.append(continuation)
                return .wait
            }
            if case .deliver(let event) = step {
                continuation.resume(returning: event)
            }
        }
    }

    /// Ends the stream: what was told is still read, then comes `nil`.
    func close() {
        let readers: [CheckedContinuation<Event?, Never>] = state.withLock { state in
            state.isClosed = true
            let readers = state.readers
            state.readers = []
            return readers
        }
        for reader in readers {
            reader.resume(returning: nil)
        }
    }

    /// The queue as a stream. Cancelling the task that reads it ends the stream for good.
    func stream() -> AsyncStream<Event> {
        return AsyncStream<Event>(
            unfolding: { await self.next() },
            onCancel: { self.close() }
        )
    }
}
