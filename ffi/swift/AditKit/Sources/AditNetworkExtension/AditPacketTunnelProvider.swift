#if canImport(NetworkExtension)
import AditKit
import Foundation
import Network
import NetworkExtension
import Security

/// A packet-tunnel provider that runs Adit.
///
/// Subclass it, name the subclass as the extension's principal class, and that is a working extension: the configuration
/// is found where apps commonly put it. Every method of the section *For subclasses* may be overridden.
///
/// ```swift
/// final class PacketTunnelProvider: AditPacketTunnelProvider, @unchecked Sendable {
///     override var appGroup: String? { return "group.com.example.vpn" }
/// }
/// ```
open class AditPacketTunnelProvider: NEPacketTunnelProvider, @unchecked Sendable {
    private let lock = NSLock()
    private var session: ProviderSession?

    // MARK: - For subclasses

    /// The configuration to start with.
    ///
    /// Unless overridden it is the text under ``configurationKey`` in the provider's configuration, or the one in the
    /// keychain that `passwordReference` refers to, which is where a private key belongs.
    ///
    /// - Parameter options: What the app gave to `startTunnel`; `nil` if the system starts the tunnel itself.
    open func makeConfiguration(options: [String: NSObject]?) throws -> Configuration {
        let saved = protocolConfiguration as? NETunnelProviderProtocol
        if let text = saved?.providerConfiguration?[AditPacketTunnelProvider.configurationKey] as? String {
            return Configuration(text)
        }
        if let reference = saved?.passwordReference {
            return Configuration(try AditPacketTunnelProvider.keychainText(reference))
        }
        throw TunnelError(
            code: .configuration,
            message: "there is neither \(AditPacketTunnelProvider.configurationKey) nor a password reference"
        )
    }

    /// How the tunnel is made; unless overridden with the defaults and a folder of the app group for what is remembered.
    open func makeOptions() -> TunnelOptions {
        var options = TunnelOptions()
        if let appGroup = appGroup {
            options.stateDirectory = FileManager.default.containerURL(forSecurityApplicationGroupIdentifier: appGroup)
        }
        return options
    }

    /// The app group that app and extension share, or `nil`.
    open var appGroup: String? {
        return nil
    }

    /// How much of the engine's log goes to the system's.
    open var logLevel: Adit.LogLevel {
        return .info
    }

    /// Seconds to wait for `setTunnelNetworkSettings`, which does not always answer. After that the settings are taken
    /// for applied. Shorter than the engine's own limit (``TunnelOptions/settingsTimeout``, ten seconds).
    open var settingsWait: TimeInterval {
        return 5
    }

    /// Whether packets go by the tunnel's descriptor if it can be found. It is faster than `packetFlow`, and nothing the
    /// system promises; without it, or with `false`, packets go by `packetFlow`.
    open var usesDescriptor: Bool {
        return true
    }

    /// What the system is to apply; override to change it.
    open func plan(for settings: Settings) throws -> NetworkSettingsPlan {
        return try NetworkSettingsPlan(settings: settings)
    }

    /// Told every event, on no particular thread, after the provider has done its part.
    open func didReceive(_ event: Event) {}

    /// Answers a message of the app that is not one of ``AditKit/AppMessage``; `nil` answers that it is not understood.
    open func handleMessage(_ message: Data) -> Data? {
        return nil
    }

    /// The key of the configuration's text in `providerConfiguration`.
    public static let configurationKey = "AditConfiguration"

    // MARK: - NEPacketTunnelProvider

    open override func startTunnel(options: [String: NSObject]? = nil, completionHandler: @escaping (Error?) -> Void) {
        let forgotten = TunnelError(code: .internal, message: "the start was forgotten")
        let done = Once<Error?>(forgotten: forgotten, completionHandler)
        LogSink.install(logLevel)
        let session = ProviderSession(self)
        guard begin(session) else {
            done(TunnelError(code: .alreadyRunning))
            return
        }
        do {
            let configuration = try makeConfiguration(options: options)
            try session.start(configuration, makeOptions(), isUserInitiated: options != nil, done)
        } catch {
            LogSink.provider.error("start: \(String(describing: error), privacy: .public)")
            _ = take()
            done(error)
        }
    }

    open override func stopTunnel(with reason: NEProviderStopReason, completionHandler: @escaping () -> Void) {
        let done = Once<Bool>(forgotten: true) { _ in
            completionHandler()
        }
        // A second stop, as at some log-outs, finds no session and is done at once; the first goes on.
        guard let session = take() else {
            done(true)
            return
        }
        let told = StopReason(providerReason: reason.rawValue)
        Task {
            await session.stop(told)
            done(true)
        }
    }

    open override func sleep(completionHandler: @escaping () -> Void) {
        current()?.sleep()
        completionHandler()
    }

    open override func wake() {
        current()?.wake()
    }

    open override func handleAppMessage(_ messageData: Data, completionHandler: ((Data?) -> Void)? = nil) {
        guard let completionHandler = completionHandler else { return }
        completionHandler(reply(to: messageData))
    }

    // MARK: - For the session

    /// The name of the tunnel's interface, if this system tells it already.
    var interfaceName: String? {
        // The SDK that came with this compiler is the first that has it.
        #if compiler(>=6.0)
            if #available(iOS 18.0, macOS 15.0, *) {
                return virtualInterface?.name
            }
        #endif
        return nil
    }

    /// What the app has set on the protocol.
    func advice() -> ProtocolAdvice {
        return ProtocolAdvice(
            includesAllNetworks: protocolConfiguration.includeAllNetworks,
            enforcesRoutes: protocolConfiguration.enforceRoutes,
            excludesLocalNetworks: protocolConfiguration.excludeLocalNetworks
        )
    }

    private func reply(to message: Data) -> Data? {
        let reply: AppMessage.Reply
        switch AppMessage.decodeRequest(message) {
        case .failure(let refusal):
            if let custom = handleMessage(message) {
                return custom
            }
            reply = .failure(code: refusal.code, message: refusal.message)
        case .success(.status):
            reply = .status(current()?.status ?? AppMessage.Status(state: .idle, engine: Adit.version))
        case .success(.stats):
            reply = statsReply()
        }
        return try? AppMessage.encode(reply)
    }

    private func statsReply() -> AppMessage.Reply {
        do {
            if let stats = try current()?.stats() {
                return .stats(stats)
            }
            return .failure(code: "not-running", message: "there is no tunnel")
        } catch let error as TunnelError {
            return .failure(code: error.code.name, message: error.message)
        } catch {
            return .failure(code: "internal", message: String(describing: error))
        }
    }

    private func begin(_ new: ProviderSession) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        if let old = session, !old.isOver {
            return false
        }
        session = new
        return true
    }

    private func take() -> ProviderSession? {
        lock.lock()
        defer { lock.unlock() }
        let taken = session
        session = nil
        return taken
    }

    private func current() -> ProviderSession? {
        lock.lock()
        defer { lock.unlock() }
        return session
    }

    private static func keychainText(_ reference: Data) throws -> String {
        let query: [String: Any] = [
            kSecValuePersistentRef as String: reference,
            kSecReturnData as String: true,
        ]
        var item: CFTypeRef?
        let status = SecItemCopyMatching(query as CFDictionary, &item)
        guard status == errSecSuccess, let data = item as? Data, let text = String(data: data, encoding: .utf8) else {
            throw TunnelError(code: .configuration, message: "the keychain does not give the configuration: \(status)")
        }
        return text
    }
}
#endif
