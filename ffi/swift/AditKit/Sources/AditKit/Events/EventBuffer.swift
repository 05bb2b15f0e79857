/// Events that were told and not read yet, never more than ``capacity``.
///
/// When it is full, an event is given up: the oldest of those that are not essential; if there is none, the oldest that
/// has a newer one of its kind. So the newest event of every essential kind is always delivered, in the order in which
/// they happened, and a host that never reads costs a fixed amount of memory.
struct EventBuffer {
    /// How many events are kept.
    let capacity: Int
    /// How many were given up.
    private(set) var missed: UInt64 = 0
    private var events: [Event] = []

    /// A buffer; it cannot be smaller than ``smallest``, below which two kinds would compete for a place.
    init(capacity: Int) {
        self.capacity = max(capacity, EventBuffer.smallest)
    }

    /// Whether nothing waits.
    var isEmpty: Bool {
        return events.isEmpty
    }

    /// Adds an event, giving up another one if there is no place.
    mutating func append(_ event: Event) {
        if case .room = event {
            // Told once, it says all there is to say.
            if let last = events.last, last.kind == event.kind { return }
        }
        events.append(event)
        if events.count > capacity {
            events.remove(at: expendable())
            missed += 1
        }
    }

    /// Takes the oldest event.
    mutating func popFirst() -> Event? {
        return events.isEmpty ? nil : events.removeFirst()
    }

    /// The index of the event to give up. There are more events than kinds, so one of them has a newer one of its kind.
    private func expendable() -> Int {
        if let index = events.firstIndex(where: { !$0.isEssential }) {
            return index
        }
        for (index, event) in events.enumerated() {
            let isSuperseded = events[(index + 1)...].contains(where: { $0.kind == event.kind })
            if isSuperseded {
                return index
            }
        }
        return 0
    }

    /// The number of essential kinds, with room to spare.
    static let smallest = 16
}
