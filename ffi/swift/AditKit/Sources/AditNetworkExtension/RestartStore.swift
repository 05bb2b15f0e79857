#if canImport(NetworkExtension)
import AditKit
import Foundation

/// Keeps a ``AditKit/RestartGuard`` where it outlives the process: in the defaults of the app group, if there is one.
final class RestartStore: @unchecked Sendable {
    private let lock = NSLock()
    private let defaults: UserDefaults

    init(appGroup: String?) {
        if let appGroup = appGroup, let shared = UserDefaults(suiteName: appGroup) {
            defaults = shared
        } else {
            defaults = UserDefaults.standard
        }
    }

    /// Notes a start; returns the seconds to wait before it.
    func begin(isUserInitiated: Bool) -> TimeInterval {
        return change { $0.begin(isUserInitiated: isUserInitiated, now: Date()) }
    }

    /// Notes a failure.
    func failed() {
        change { $0.failed(now: Date()) }
    }

    /// Notes a stop that was asked for.
    func stopped() {
        change { $0.stopped(now: Date()) }
    }

    @discardableResult
    private func change<Result>(_ body: (inout RestartGuard) -> Result) -> Result {
        lock.lock()
        defer { lock.unlock() }
        var restarts = RestartGuard()
        if let data = defaults.data(forKey: RestartStore.key) {
            // One that cannot be read is of another version: it is begun anew.
            restarts = (try? JSONDecoder().decode(RestartGuard.self, from: data)) ?? RestartGuard()
        }
        let result = body(&restarts)
        if let data = try? JSONEncoder().encode(restarts) {
            defaults.set(data, forKey: RestartStore.key)
        }
        return result
    }

    private static let key = "dev.adit.restart-guard"
}
#endif
