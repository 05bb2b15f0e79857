#if canImport(NetworkExtension)
import AditKit
import Foundation
import NetworkExtension

/// One start of a provider, up to its stop: the tunnel, its packets, its path and what is known about them.
///
/// The order of a start is the engine's (look up, bind, shake hands, settings, packets); this class does what the engine
/// asks for and tells the system how it went, once.
final class ProviderSession: @unchecked Sendable {
    private struct State {
        var tunnel: Tunnel?
        var start: Task<Void, Never>?
        var reader: Task<Void, Never>?
        var path: NetworkPath?
        var status: AppMessage.Status
        var isStarted = false
        var isEnding = false
        /// What ended the tunnel before its start was told to be over.
        var earlyFailure: Error?
    }

    private let lock = NSLock()
    private var state: State
    private weak var provider: AditPacketTunnelProvider?
    private let flow: PacketFlow
    private let monitor = PathMonitor()
    private let restarts: RestartStore
    private let settingsWait: TimeInterval
    private let usesDescriptor: Bool
    /// The utun descriptors that were there before this session: none of them is its own.
    private let knownDescriptors: Set<Int32>

    init(_ provider: AditPacketTunnelProvider) {
        self.provider = provider
        flow = PacketFlow(provider.packetFlow)
        restarts = RestartStore(appGroup: provider.appGroup)
        settingsWait = provider.settingsWait
        usesDescriptor = provider.usesDescriptor
        knownDescriptors = Set(UtunDescriptors.open().map { $0.descriptor })
        state = State(status: AppMessage.Status(state: .idle, engine: Adit.version))
    }

    /// What an app is told.
    var status: AppMessage.Status {
        return withState { $0.status }
    }

    /// Whether it has failed or is being stopped, so that another one may begin.
    var isOver: Bool {
        return withState { $0.isEnding }
    }

    /// What an app is told, or `nil` if there is no tunnel.
    func stats() throws -> Stats? {
        return try withState { $0.tunnel }?.stats()
    }

    /// Makes the tunnel and starts it; `done` is called when packets can flow, or with the reason why not.
    func start(
        _ configuration: Configuration,
        _ options: TunnelOptions,
        isUserInitiated: Bool,
        _ done: Once<Error?>
    ) throws {
        let tunnel = try Tunnel(configuration: configuration, options: options) { [weak self] settings in
            guard let session = self else { throw CancellationError() }
            try await session.apply(settings)
        }
        let flow = self.flow
        flow.connect(tunnel)
        withState { $0.tunnel = tunnel }
        let events = tunnel.events
        let reader = Task<Void, Never> { [weak self] in
            for await event in events {
                guard let session = self else { return }
                session.handle(event)
            }
        }
        let start = Task<Void, Never> {
            await self.run(tunnel, isUserInitiated, done)
        }
        let isEnding: Bool = withState { state in
            state.reader = reader
            state.start = start
            return state.isEnding
        }
        if isEnding {
            start.cancel()
        }
    }

    /// Stops the tunnel for the reason that the system gave, and gives everything back.
    func stop(_ reason: StopReason) async {
        let parts: (Tunnel?, Task<Void, Never>?, Task<Void, Never>?) = withState { state in
            state.isEnding = true
            return (state.tunnel, state.start, state.reader)
        }
        flow.end()
        monitor.cancel()
        if let tunnel = parts.0 {
            do {
                try await tunnel.stop(reason: reason)
            } catch {
                LogSink.provider.warning("stop: \(String(describing: error), privacy: .public)")
            }
        }
        // After the stop, so that its reason is the one that is kept. What this ends is the pause before a start.
        parts.1?.cancel()
        restarts.stopped()
        await close()
        // The stream has an end now: what was told is still handed on.
        await parts.2?.value
    }

    func sleep() {
        told("sleep") { try $0.sleep() }
    }

    func wake() {
        told("wake") { try $0.wake() }
    }

    // MARK: - Start

    private func run(_ tunnel: Tunnel, _ isUserInitiated: Bool, _ done: Once<Error?>) async {
        let pause = restarts.begin(isUserInitiated: isUserInitiated)
        do {
            if pause > 0 {
                LogSink.provider.warning("waiting \(pause, privacy: .public) s after failures in a row")
                try await Task.sleep(nanoseconds: UInt64(pause * 1_000_000_000))
            }
            monitor.start { [weak self] path in
                self?.pathChanged(path)
            }
            let flow = self.flow
            try await tunnel.start(.callbacks({ batch in flow.write(batch) }))
            let earlyFailure: Error? = withState { state in
                state.isStarted = true
                state.status.upSince = Date()
                return state.earlyFailure
            }
            if let failure = earlyFailure {
                throw failure
            }
            done(nil)
        } catch {
            let isEnding: Bool = withState { state in
                let isEnding = state.isEnding
                state.isEnding = true
                state.status.lastError = error as? TunnelError
                return isEnding
            }
            LogSink.provider.error("start: \(String(describing: error), privacy: .public)")
            if !isEnding {
                restarts.failed()
                flow.end()
                monitor.cancel()
                await close()
            }
            let told: Error = error is CancellationError ? TunnelError(code: .stopped) : error
            done(told)
        }
    }

    // MARK: - Settings

    /// Applies settings. It returns when the system has them, or has been silent for longer than it ever is.
    private func apply(_ settings: Settings) async throws {
        guard let provider = provider else { throw CancellationError() }
        let plan = try provider.plan(for: settings)
        let warnings = settings.warnings + plan.notes + provider.advice().warnings(for: settings)
        for warning in warnings {
            LogSink.provider.warning("\(warning.code, privacy: .public): \(warning.message, privacy: .private)")
        }
        withState { state in
            state.status.settings = settings
            state.status.warnings = warnings
        }

        let outcome = await SettingsCall.set(plan.makeNetworkSettings(), on: provider, within: settingsWait) { [weak self] error in
            // It was taken for applied and was not: traffic that belongs into the tunnel goes elsewhere.
            self?.fail(error)
        }
        switch outcome {
        case .applied:
            break
        case .silent:
            LogSink.provider.warning("the system does not say whether it has the settings: taken for applied")
        case .failed(let error):
            throw error
        }
        try Task.checkCancellation()
        connectPackets(provider)
    }

    /// Lets packets flow at once: by the tunnel's own descriptor if it can be found, or else by `packetFlow`. Never by
    /// both, which would take packets from each other.
    private func connectPackets(_ provider: AditPacketTunnelProvider) {
        let connected: (Tunnel?, Bool) = withState { state in
            return (state.tunnel, state.status.packetMode != nil)
        }
        guard let tunnel = connected.0, !connected.1 else { return }
        if usesDescriptor {
            let elected = UtunElection.elect(
                UtunDescriptors.open(),
                known: knownDescriptors,
                name: provider.interfaceName
            )
            if let elected = elected {
                do {
                    try tunnel.attach(TunnelDescriptor(elected.descriptor, ownership: .borrowed, framing: .utun))
                    withState { $0.status.packetMode = .descriptor }
                    return
                } catch {
                    LogSink.provider.warning("no descriptor: \(String(describing: error), privacy: .public)")
                }
            }
        }
        withState { $0.status.packetMode = .packetFlow }
        flow.begin()
    }

    // MARK: - Events

    private func handle(_ event: Event) {
        switch event {
        case .state(let now):
            let path: NetworkPath? = withState { state in
                state.status.state = now
                return state.path
            }
            if now == .resolving, let path = path {
                // What was told before the start counts for it.
                pathChanged(path)
            }
            reassert(now)
        case .room:
            flow.roomAgain()
        case .warning(let warning):
            LogSink.provider.warning("\(warning.code, privacy: .public): \(warning.message, privacy: .private)")
            withState { state in
                if state.status.warnings.count < ProviderSession.mostWarnings {
                    state.status.warnings.append(warning)
                }
            }
        case .stopped(_, let error):
            if let error = error {
                fail(error)
            }
        default:
            break
        }
        provider?.didReceive(event)
    }

    /// Shows the user that a tunnel that was up is coming back.
    private func reassert(_ now: TunnelState) {
        let isStarted: Bool = withState { $0.isStarted }
        guard isStarted, let provider = provider else { return }
        let reasserting = now == .reasserting
        if provider.reasserting != reasserting {
            provider.reasserting = reasserting
        }
    }

    private func pathChanged(_ path: NetworkPath) {
        withState { $0.path = path }
        told("path") { try $0.pathChanged(path) }
    }

    /// Ends a tunnel that was up and cannot go on. A start that fails tells the system itself.
    private func fail(_ error: Error) {
        let isFirst: Bool = withState { state in
            if !state.isStarted {
                // The start is not over for this side: it finds this there.
                state.earlyFailure = error
                return false
            }
            if state.isEnding {
                return false
            }
            state.isEnding = true
            state.status.lastError = error as? TunnelError
            return true
        }
        guard isFirst else { return }
        LogSink.provider.error("the tunnel ended: \(String(describing: error), privacy: .public)")
        restarts.failed()
        flow.end()
        monitor.cancel()
        provider?.cancelTunnelWithError(error)
        Task {
            await self.close()
        }
    }

    private func close() async {
        let tunnel: Tunnel? = withState { state in
            let tunnel = state.tunnel
            state.tunnel = nil
            return tunnel
        }
        await tunnel?.close()
    }

    private func told(_ what: String, _ tell: (Tunnel) throws -> Void) {
        guard let tunnel = withState({ $0.tunnel }) else { return }
        do {
            try tell(tunnel)
        } catch {
            LogSink.provider.debug("\(what, privacy: .public): \(String(describing: error), privacy: .public)")
        }
    }

    private func withState<Result>(_ body: (inout State) throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(&state)
    }

    private static let mostWarnings = 64
}
#endif
