import Foundation

/// A tunnel: made from a configuration, started and stopped as often as needed, closed when the last reference goes.
///
/// ```swift
/// let tunnel = try Tunnel(configuration: Configuration(text)) { settings in
///     // Apply the settings; return when packets can flow, throw if they cannot.
/// }
/// try await tunnel.start(.callbacks { batch in
///     // Packets that come out of the tunnel.
/// })
/// try tunnel.inject(batch)
/// try await tunnel.stop()
/// ```
///
/// **Starting.** ``start(_:)`` returns when packets can flow: peers are looked up, sockets are bound and the first
/// handshake is done before the settings are handed to the function the tunnel was made with. It completes exactly once.
/// Cancelling its task stops the tunnel and throws `CancellationError`.
///
/// **Threads.** Packets come and events are told on a thread of the tunnel's own. Every method can be called from
/// anywhere; those that are not `async` never wait.
public actor Tunnel {
    /// Applies settings of the engine to the system.
    ///
    /// Its task is cancelled when newer settings come or the tunnel stops; its result is of no interest then.
    public typealias ApplySettings = @Sendable (Settings) async throws -> Void

    /// What is left out of a snapshot besides private keys, which are never in it.
    public enum Redaction: UInt32, Sendable {
        /// Nothing else.
        case secrets = 0
        /// Addresses, names and public keys too: for a report that leaves the device.
        case everything = 1
    }

    /// What the tunnel tells, from its making on. For one reader; see ``missedEvents``.
    public nonisolated let events: AsyncStream<Event>

    private nonisolated let native: NativeTunnel

    /// Reads the configuration and makes a tunnel that is not started.
    ///
    /// - Parameters:
    ///   - configuration: What the tunnel is made from.
    ///   - options: How it is made.
    ///   - applySettings: Applies what the engine asks for. An error that it throws ends the start with
    ///     ``TunnelError/Code/settingsRejected``.
    /// - Throws: ``TunnelError``; with ``TunnelError/Code/configuration`` its message is the first thing that is wrong.
    public init(
        configuration: Configuration,
        options: TunnelOptions = TunnelOptions(),
        applySettings: @escaping ApplySettings
    ) throws {
        let box = CallbackBox(eventCapacity: options.eventCapacity, applySettings: applySettings)
        let native = try NativeTunnel(configuration, options, box)
        self.native = native
        self.events = box.events.stream()
    }

    deinit {
        native.closeInBackground()
    }

    /// How many events no reader will see, since they were not read in time.
    ///
    /// The newest event of every kind that matters (states, settings, starts, updates, stops) is never among them.
    public nonisolated var missedEvents: UInt64 {
        return native.box.events.missed
    }

    /// Starts the tunnel and returns when packets can flow.
    ///
    /// - Throws: ``TunnelError``, after which the tunnel is stopped; `CancellationError` if the task was cancelled.
    public func start(_ source: PacketSource) async throws {
        try Task.checkCancellation()
        let native = self.native
        let call = StartCall()
        var failure: Error?
        do {
            try await withTaskCancellationHandler {
                try await native.start(source, call)
            } onCancel: {
                if call.cancel() {
                    native.requestStop()
                }
            }
        } catch {
            failure = error
        }
        if call.finish() {
            // The stop of the handler is awaited by one that comes after it, so that none is left for a later start.
            _ = try? await native.perform { native in
                try native.stop(reason: .unspecified, deadline: StopReason.unspecified.deadline)
            }
            throw CancellationError()
        }
        if let failure = failure {
            throw failure
        }
    }

    /// Stops the tunnel and returns when its last callback has returned.
    ///
    /// It is legal in every state and as often as one likes; the first reason is kept.
    ///
    /// - Parameters:
    ///   - reason: Why; told in ``Event/stopped(reason:error:)``.
    ///   - deadline: Seconds to wait at most; unless said, what the reason leaves.
    /// - Throws: ``TunnelError`` with ``TunnelError/Code/timeout`` if a callback was still running then. No new one begins.
    public func stop(reason: StopReason = .userInitiated, deadline: TimeInterval? = nil) async throws {
        let seconds = deadline ?? reason.deadline
        try await native.perform { native in
            try native.stop(reason: reason, deadline: seconds)
        }
    }

    /// Stops the tunnel and gives everything back. Every call after that throws; ``events`` ends.
    public func close() async {
        _ = try? await native.perform { native in
            native.close()
        }
    }

    /// Replaces the configuration of a running tunnel and returns when it is in use.
    ///
    /// - Throws: ``TunnelError``, after which the tunnel goes on with the former configuration.
    public func update(_ configuration: Configuration) async throws {
        try await native.update(configuration)
    }

    /// What the host is to apply, as far as the configuration alone says it.
    public func settings() throws -> Settings {
        return try native.settings()
    }

    /// Diagnostics as JSON. Private keys are never in it.
    public func snapshot(redaction: Redaction = .everything) async throws -> Data {
        return try await native.perform { native in
            return try native.snapshot(redaction: redaction)
        }
    }

    /// Hands packets of the host to the tunnel, all in one call.
    ///
    /// - Returns: How many were taken, from the first on. If they are fewer than there are, wait for ``Event/room`` and
    ///   hand over the rest; ``PacketFeeder`` does that.
    /// - Throws: ``TunnelError``; with ``TunnelError/Code/packet`` one of them is no packet, and none was taken.
    @discardableResult
    public nonisolated func inject(_ batch: PacketBatch) throws -> Int {
        return try native.inject(batch)
    }

    /// Goes on with a descriptor instead of the callbacks; what was injected until then is still delivered.
    public nonisolated func attach(_ descriptor: TunnelDescriptor) throws {
        try native.attach(descriptor)
    }

    /// Tells the engine what the system says about the network.
    public nonisolated func pathChanged(_ path: NetworkPath) throws {
        try native.pathChanged(path)
    }

    /// Tells the engine that the device goes to sleep: timers stand still, keys are kept.
    public nonisolated func sleep() throws {
        try native.sleep()
    }

    /// Tells the engine that the device woke up. It does not reconnect until there is traffic.
    public nonisolated func wake() throws {
        try native.wake()
    }

    /// What the tunnel has done and holds.
    public nonisolated func stats() throws -> Stats {
        return try native.stats()
    }
}
