import CAdit
import Foundation

/// What the engine's callbacks come to: the object behind their context pointer.
///
/// It is retained from the making of the tunnel until `adit_tunnel_free` has returned, so a callback always finds it. It
/// knows the tunnel by its handle only; a call with the handle of a tunnel that is gone is an error, not a crash.
///
/// No lock is held while code of the host runs or a continuation is resumed.
final class CallbackBox: @unchecked Sendable {
    typealias Waiter = CheckedContinuation<Void, Error>
    typealias ApplySettings = @Sendable (Settings) async throws -> Void

    private struct State {
        var start: Waiter?
        var updates: [(id: UInt64, waiter: Waiter)] = []
        var nextUpdate: UInt64 = 0
        var onPackets: PacketHandler?
        var applying: Task<Void, Never>?
        /// From the call of a start to the event that ends what it began.
        var isRunning = false
        /// Counts the starts.
        var run: UInt64 = 0
    }

    let events: EventQueue
    private let applySettings: ApplySettings
    private let state = Locked(State())

    init(eventCapacity: Int, applySettings: @escaping ApplySettings) {
        events = EventQueue(capacity: eventCapacity)
        self.applySettings = applySettings
    }

    /// Registers a start; `false` if the tunnel is started already.
    func beginStart(_ waiter: Waiter, onPackets: PacketHandler?) -> Bool {
        return state.withLock { state in
            if state.isRunning {
                return false
            }
            state.start = waiter
            state.onPackets = onPackets
            state.isRunning = true
            state.run += 1
            return true
        }
    }

    /// Takes the start, for whoever completes it: only the first to ask gets it.
    func takeStart() -> Waiter? {
        return state.withLock { state in
            let waiter = state.start
            state.start = nil
            return waiter
        }
    }

    /// Takes the start back since the engine refused it, so that nothing will be told of it.
    func refuseStart() -> Waiter? {
        return state.withLock { state in
            let waiter = state.start
            state.start = nil
            state.onPackets = nil
            state.isRunning = false
            return waiter
        }
    }

    /// Whether the engine will tell how an update goes: of a tunnel that is not running there is nothing to tell.
    var isRunning: Bool {
        return state.withLock { $0.isRunning }
    }

    /// The number of the newest start.
    var run: UInt64 {
        return state.withLock { $0.run }
    }

    /// Registers an update. Updates are answered in the order in which they were registered.
    func beginUpdate(_ waiter: Waiter) -> UInt64 {
        return state.withLock { state in
            let id = state.nextUpdate
            state.nextUpdate += 1
            state.updates.append((id: id, waiter: waiter))
            return id
        }
    }

    /// Takes one update back, or `nil` if it is completed.
    func takeUpdate(_ id: UInt64) -> Waiter? {
        return state.withLock { state in
            guard let index = state.updates.firstIndex(where: { $0.id == id }) else { return nil }
            return state.updates.remove(at: index).waiter
        }
    }

    /// A tunnel's callback for events.
    func handle(_ event: Event, of tunnel: AditTunnel) {
        // The stream first: whoever awaits a start finds its events there when it goes on.
        events.send(event)
        switch event {
        case .started(let error):
            let waiter = takeStart()
            if let error = error {
                finish(error)
            }
            CallbackBox.complete(waiter, error)
        case .updated(let error):
            let first: Waiter? = state.withLock { state in
                return state.updates.isEmpty ? nil : state.updates.removeFirst().waiter
            }
            CallbackBox.complete(first, error)
        case .settings(let generation, let settings):
            apply(settings, generation: generation, of: tunnel)
        case .stopped(_, let error):
            finish(error ?? TunnelError(code: .stopped))
        default:
            break
        }
    }

    /// A tunnel's callback for packets.
    func handle(_ packets: PacketBatch) {
        let handler = state.withLock { $0.onPackets }
        handler?(packets)
    }

    /// Fails whoever still waits, and ends the applying of settings: nothing more is told.
    ///
    /// - Parameter run: The start that has ended, if it is to be that one and no newer one.
    func finish(_ error: TunnelError, run: UInt64? = nil) {
        var waiters: [Waiter] = []
        var applying: Task<Void, Never>?
        state.withLock { state in
            if let run = run, run != state.run {
                return
            }
            if let start = state.start {
                waiters.append(start)
            }
            waiters.append(contentsOf: state.updates.map { $0.waiter })
            applying = state.applying
            state.start = nil
            state.updates = []
            state.applying = nil
            state.onPackets = nil
            state.isRunning = false
        }
        applying?.cancel()
        for waiter in waiters {
            waiter.resume(throwing: error)
        }
    }

    /// Lets the host apply settings and tells the engine how it went. Older settings are cancelled: their answer would
    /// be stale.
    private func apply(_ settings: Settings, generation: UInt64, of tunnel: AditTunnel) {
        let applySettings = self.applySettings
        let older: Task<Void, Never>? = state.withLock { state in
            let older = state.applying
            state.applying = nil
            return older
        }
        older?.cancel()
        let task = Task<Void, Never> {
            if Task.isCancelled {
                return
            }
            do {
                try await applySettings(settings)
                _ = adit_tunnel_settings_applied(tunnel, generation)
            } catch {
                CallbackBox.reject(generation, of: tunnel, String(describing: error))
            }
        }
        state.withLock { $0.applying = task }
    }

    /// Tells the engine that settings were not applied.
    private static func reject(_ generation: UInt64, of tunnel: AditTunnel, _ message: String) {
        message.withCString { text in
            _ = adit_tunnel_settings_failed(tunnel, generation, text, numericCast(message.utf8.count))
        }
    }

    private static func complete(_ waiter: Waiter?, _ error: TunnelError?) {
        if let error = error {
            waiter?.resume(throwing: error)
        } else {
            waiter?.resume()
        }
    }
}

extension CallbackBox {
    /// The box behind a context pointer, without touching its count.
    static func behind(_ context: UnsafeMutableRawPointer?) -> CallbackBox? {
        guard let context = context else { return nil }
        return Unmanaged<CallbackBox>.fromOpaque(context).takeUnretainedValue()
    }

    /// What the C callback for events does. Everything it is given is borrowed for the call, so it is copied here.
    static func event(_ context: UnsafeMutableRawPointer?, _ tunnel: AditTunnel, _ event: UnsafePointer<AditEvent>?) {
        guard let box = CallbackBox.behind(context), let event = event else { return }
        let raw = event.pointee
        let json = CText.data(raw.json, count: Int(raw.json_length))
        let decoded = EventDecoder.event(
            kind: raw.kind,
            state: raw.state,
            result: raw.result,
            generation: raw.generation,
            json: json
        )
        if case .unknown(3, _) = decoded {
            reject(raw.generation, of: tunnel, "the host cannot read the settings")
        }
        box.handle(decoded, of: tunnel)
    }

    /// What the C callback for packets does: one copy of each packet, since the host keeps them.
    static func packets(
        _ context: UnsafeMutableRawPointer?,
        _ slices: UnsafePointer<AditSlice>?,
        _ families: UnsafePointer<Int32>?,
        _ count: Int
    ) {
        guard let box = CallbackBox.behind(context), let slices = slices, let families = families, count > 0 else { return }
        var packets: [Data] = []
        packets.reserveCapacity(count)
        for slice in UnsafeBufferPointer(start: slices, count: count) {
            let bytes: UnsafePointer<UInt8>? = slice.data
            if let bytes = bytes {
                packets.append(Data(bytes: bytes, count: Int(slice.length)))
            } else {
                packets.append(Data())
            }
        }
        let protocols = Array(UnsafeBufferPointer(start: families, count: count))
        box.handle(PacketBatch(packets: packets, families: protocols))
    }
}
