import Foundation

/// Holds back a provider that the system starts again and again although it fails each time.
///
/// On demand, the system starts a failed provider at once. Without a pause that empties the battery and floods the peer.
/// The guard is a value: the provider loads it, asks, tells what happened and saves it, so that it outlives a crash.
public struct RestartGuard: Codable, Hashable, Sendable {
    /// How many starts failed in a row.
    public private(set) var failures: Int
    /// When the newest one failed.
    public private(set) var lastFailure: Date?
    /// Set while a tunnel runs: a start that finds it set follows a crash.
    public private(set) var startedAt: Date?

    /// A guard that knows of no failure.
    public init() {
        failures = 0
        lastFailure = nil
        startedAt = nil
    }

    /// Notes a start, and says how many seconds to wait before it goes on: 0 for most.
    ///
    /// - Parameters:
    ///   - isUserInitiated: Whether a person asked for it, who is not made to wait.
    ///   - now: The time of the clock on the wall, which may be set back: then nobody waits longer than ``longestPause``.
    public mutating func begin(isUserInitiated: Bool, now: Date) -> TimeInterval {
        if let started = startedAt {
            // The process went without saying so. A long life before that was no failing start.
            if now.timeIntervalSince(started) < RestartGuard.provenAfter {
                failures += 1
                lastFailure = now
            } else {
                failures = 0
                lastFailure = nil
            }
        }
        startedAt = now
        guard !isUserInitiated, let last = lastFailure else { return 0 }
        let elapsed = now.timeIntervalSince(last)
        if elapsed < 0 {
            return min(pause, RestartGuard.longestPause)
        }
        return max(0, pause - elapsed)
    }

    /// Notes that a tunnel failed, at its start or later.
    public mutating func failed(now: Date) {
        if let started = startedAt, now.timeIntervalSince(started) >= RestartGuard.provenAfter {
            failures = 0
        }
        failures += 1
        lastFailure = now
        startedAt = nil
    }

    /// Notes that a tunnel was stopped on purpose. A failing one that is stopped is no proof that it works.
    public mutating func stopped(now: Date) {
        if let started = startedAt, now.timeIntervalSince(started) >= RestartGuard.provenAfter {
            failures = 0
            lastFailure = nil
        }
        startedAt = nil
    }

    /// The pause that follows the failures so far: none after the first, then 2, 4, 8, … seconds.
    public var pause: TimeInterval {
        guard failures > 1 else { return 0 }
        let doublings = min(failures - 1, 10)
        return min(TimeInterval(1 << doublings), RestartGuard.longestPause)
    }

    /// The longest pause in seconds: with the start after it, it stays within what the system waits for.
    public static let longestPause: TimeInterval = 25
    /// After how many seconds a tunnel has shown that it works.
    public static let provenAfter: TimeInterval = 60
}
