import CAdit
import Dispatch
import Foundation

/// A handle of the C library: its functions with Swift's types and errors, callable from any thread.
///
/// What may wait (stopping, freeing) is to be run by ``perform(_:)``, on a queue that has a thread of its own, so that no
/// task of the host's is held up.
final class NativeTunnel: @unchecked Sendable {
    let box: CallbackBox
    private let handle: AditTunnel
    private let context: Unmanaged<CallbackBox>
    private let isClosed = Locked(false)
    private let queue = DispatchQueue(label: "adit.calls", qos: .userInitiated)

    init(_ configuration: Configuration, _ options: TunnelOptions, _ box: CallbackBox) throws {
        let context = Unmanaged.passRetained(box)
        let handle: AditTunnel
        do {
            handle = try NativeTunnel.make(configuration, options, context.toOpaque())
        } catch {
            // Nothing was made, so nothing will call back.
            context.release()
            throw error
        }
        self.handle = handle
        self.box = box
        self.context = context
    }

    /// Starts, and returns or throws when the engine has told how that went.
    func start(_ source: PacketSource, _ call: StartCall) async throws {
        try await withCheckedThrowingContinuation { (waiter: CallbackBox.Waiter) in
            var onPackets: PacketHandler?
            if case .callbacks(let handler) = source {
                onPackets = handler
            }
            guard box.beginStart(waiter, onPackets: onPackets) else {
                waiter.resume(throwing: TunnelError(code: .alreadyRunning))
                return
            }
            let result = begin(source)
            if result != 0 {
                box.refuseStart()?.resume(throwing: TunnelError(code: TunnelError.Code(rawValue: result)))
            } else if call.claim() {
                // Cancelled before there was anything to stop.
                requestStop()
            }
        }
    }

    /// Gives the engine a new configuration, and returns or throws when it has told how that went.
    func update(_ configuration: Configuration) async throws {
        try await withCheckedThrowingContinuation { (waiter: CallbackBox.Waiter) in
            let id = box.beginUpdate(waiter)
            let text = configuration.text
            let result = text.withCString { pointer in
                return adit_tunnel_update(handle, pointer, numericCast(text.utf8.count))
            }
            if result != 0 {
                box.takeUpdate(id)?.resume(throwing: NativeTunnel.error(result, configuration))
            } else if !box.isRunning {
                box.takeUpdate(id)?.resume()
            }
        }
    }

    func inject(_ batch: PacketBatch) throws -> Int {
        if batch.isEmpty {
            return 0
        }
        // All packets in one piece of memory: the pointers into it are good for the whole call.
        let total = batch.packets.reduce(0) { $0 + $1.count }
        let arena = UnsafeMutableRawBufferPointer.allocate(byteCount: max(total, 1), alignment: 1)
        defer { arena.deallocate() }
        var slices: [AditSlice] = []
        slices.reserveCapacity(batch.count)
        var offset = 0
        for packet in batch.packets {
            let place = UnsafeMutableRawBufferPointer(rebasing: arena[offset..<(offset + packet.count)])
            packet.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
                place.copyMemory(from: bytes)
            }
            var slice = AditSlice()
            slice.data = UnsafePointer(arena.baseAddress?.advanced(by: offset).assumingMemoryBound(to: UInt8.self))
            slice.length = numericCast(packet.count)
            slices.append(slice)
            offset += packet.count
        }
        var accepted = 0
        let result = adit_tunnel_inject(
            handle,
            slices,
            numericCast(slices.count),
            batch.families,
            numericCast(batch.families.count),
            &accepted
        )
        try TunnelError.check(result)
        return accepted
    }

    func attach(_ descriptor: TunnelDescriptor) throws {
        let result = adit_tunnel_attach_fd(
            handle,
            descriptor.number,
            descriptor.ownership.rawValue,
            descriptor.framing.rawValue
        )
        try TunnelError.check(result)
    }

    func settings() throws -> Settings {
        let json = try CText.take { adit_tunnel_settings(handle, $0) }
        do {
            return try JSONDecoder().decode(Settings.self, from: json)
        } catch {
            throw TunnelError(code: .internal, message: "the settings of the engine cannot be read: \(error)")
        }
    }

    func pathChanged(_ path: NetworkPath) throws {
        let result = adit_tunnel_path_changed(handle, path.interfaceIndex, path.interfaceKind.rawValue, path.flags)
        try TunnelError.check(result)
    }

    func sleep() throws {
        try TunnelError.check(adit_tunnel_sleep(handle))
    }

    func wake() throws {
        try TunnelError.check(adit_tunnel_wake(handle))
    }

    func stats() throws -> Stats {
        var raw = AditStats()
        raw.size = numericCast(MemoryLayout<AditStats>.stride)
        try TunnelError.check(adit_tunnel_stats(handle, &raw))
        return Stats(raw)
    }

    func snapshot(redaction: Tunnel.Redaction) throws -> Data {
        return try CText.take { adit_tunnel_snapshot(handle, redaction.rawValue, $0) }
    }

    func stop(reason: StopReason, deadline: TimeInterval) throws {
        let run = box.run
        let result = adit_tunnel_stop(handle, reason.rawValue, TunnelOptions.milliseconds(deadline))
        if result != 0 {
            // The deadline passed: the engine tells nothing more, so whoever waits is told here.
            box.finish(TunnelError(code: .stopped), run: run)
        }
        try TunnelError.check(result)
    }

    /// Stops in the background. Stops that are asked for later come after it.
    func requestStop() {
        queue.async {
            _ = try? self.stop(reason: .unspecified, deadline: StopReason.unspecified.deadline)
        }
    }

    /// Runs something that may wait, in the order in which it was asked for.
    func perform<Value: Sendable>(_ work: @escaping @Sendable (NativeTunnel) throws -> Value) async throws -> Value {
        return try await withCheckedThrowingContinuation { (waiter: CheckedContinuation<Value, Error>) in
            queue.async {
                do {
                    waiter.resume(returning: try work(self))
                } catch {
                    waiter.resume(throwing: error)
                }
            }
        }
    }

    /// Frees the handle in the background, after everything that was asked for before.
    func closeInBackground() {
        queue.async {
            self.close()
        }
    }

    /// Frees the handle. Everything after that is an error; closing twice is harmless.
    func close() {
        let isFirst: Bool = isClosed.withLock { isClosed in
            let isFirst = !isClosed
            isClosed = true
            return isFirst
        }
        guard isFirst else { return }
        let result = adit_tunnel_free(handle)
        box.finish(TunnelError(code: .stopped))
        box.events.close()
        if result == 0 {
            context.release()
        }
        // Otherwise a callback may still be running, blocked in code of the host: its box is left to it.
    }

    private func begin(_ source: PacketSource) -> AditResult {
        switch source {
        case .descriptor(let descriptor):
            return adit_tunnel_start_fd(
                handle,
                descriptor.number,
                descriptor.ownership.rawValue,
                descriptor.framing.rawValue
            )
        case .callbacks:
            return adit_tunnel_start_callbacks(
                handle,
                { context, _, slices, families, count in
                    CallbackBox.packets(context, slices, families, numericCast(count))
                },
                context.toOpaque()
            )
        }
    }

    private static func make(
        _ configuration: Configuration,
        _ options: TunnelOptions,
        _ context: UnsafeMutableRawPointer
    ) throws -> AditTunnel {
        var handle: AditTunnel = 0
        let text = configuration.text
        let result: AditResult = CText.withOptional(options.name) { name in
            return CText.withOptional(options.stateDirectory?.path) { folder in
                return text.withCString { pointer in
                    var raw = AditOptions()
                    raw.size = numericCast(MemoryLayout<AditOptions>.stride)
                    raw.format = configuration.format.rawValue
                    raw.flags = (options.isHandshakeOptional ? 1 : 0) | (options.bindsToPath ? 2 : 0)
                    raw.resolve_ms = TunnelOptions.milliseconds(options.resolveTimeout)
                    raw.handshake_ms = TunnelOptions.milliseconds(options.handshakeTimeout)
                    raw.settings_ms = TunnelOptions.milliseconds(options.settingsTimeout)
                    raw.start_ms = TunnelOptions.milliseconds(options.startTimeout)
                    raw.default_mtu = UInt32(options.defaultMTU ?? 0)
                    raw.name = name
                    raw.state_directory = folder
                    return adit_tunnel_new(
                        pointer,
                        numericCast(text.utf8.count),
                        &raw,
                        { context, tunnel, event in
                            CallbackBox.event(context, tunnel, event)
                        },
                        context,
                        &handle
                    )
                }
            }
        }
        if result != 0 {
            throw error(result, configuration)
        }
        return handle
    }

    /// What a result means. Of a configuration that cannot be used, the first thing that is wrong is said.
    private static func error(_ result: AditResult, _ configuration: Configuration) -> TunnelError {
        let code = TunnelError.Code(rawValue: result)
        if code == .configuration, let report = try? configuration.check() {
            if let first = report.diagnostics.first(where: { $0.severity == "error" }) {
                return TunnelError(code: code, message: first.description)
            }
        }
        return TunnelError(code: code)
    }
}

/// One call of a start, which its task can cancel at any time.
///
/// A cancellation stops the tunnel only if this call is the one that is starting it, and only until the call returns.
final class StartCall: @unchecked Sendable {
    private struct State {
        var isClaimed = false
        var isCancelled = false
        var isFinished = false
    }

    private let state = Locked(State())

    /// Says that this call is starting the tunnel; returns whether it was cancelled before.
    func claim() -> Bool {
        return state.withLock { state in
            state.isClaimed = true
            return state.isCancelled
        }
    }

    /// Cancels; returns whether the tunnel is to be stopped for it.
    func cancel() -> Bool {
        return state.withLock { state in
            if state.isFinished || state.isCancelled {
                return false
            }
            state.isCancelled = true
            return state.isClaimed
        }
    }

    /// Ends the call; returns whether it was cancelled while it was starting the tunnel.
    func finish() -> Bool {
        return state.withLock { state in
            state.isFinished = true
            return state.isCancelled && state.isClaimed
        }
    }
}
