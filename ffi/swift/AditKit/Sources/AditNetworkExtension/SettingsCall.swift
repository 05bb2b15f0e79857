#if canImport(NetworkExtension)
import Foundation
import NetworkExtension

/// `setTunnelNetworkSettings` with a limit: its completion handler is not always called.
enum SettingsCall {
    enum Outcome {
        /// The system has the settings.
        case applied
        /// It refused them.
        case failed(Error)
        /// It did not say in time.
        case silent
    }

    /// Sets the settings and waits for the system's word, `seconds` at most.
    ///
    /// - Parameter late: Told an error that comes after that.
    static func set(
        _ settings: NEPacketTunnelNetworkSettings,
        on provider: AditPacketTunnelProvider,
        within seconds: TimeInterval,
        late: @escaping @Sendable (Error) -> Void
    ) async -> Outcome {
        return await withCheckedContinuation { (continuation: CheckedContinuation<Outcome, Never>) in
            let answer = Once<Outcome>(forgotten: .silent) { outcome in
                continuation.resume(returning: outcome)
            }
            provider.setTunnelNetworkSettings(settings) { error in
                if let error = error {
                    if !answer(.failed(error)) {
                        late(error)
                    }
                } else {
                    answer(.applied)
                }
            }
            DispatchQueue.global(qos: .userInitiated).asyncAfter(deadline: .now() + seconds) {
                answer(.silent)
            }
        }
    }
}
#endif
