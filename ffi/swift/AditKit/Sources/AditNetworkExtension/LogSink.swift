#if canImport(NetworkExtension)
import AditKit
import Foundation
import os

/// The engine's log in the system's.
///
/// Lines up to `info` have no addresses in them and are public; from `debug` on they are private, so that they are only
/// readable on a device that its developer has told to show them.
enum LogSink {
    /// The subsystem that the lines stand under.
    static let subsystem = "dev.adit.AditKit"

    /// What the provider itself has to say.
    static let provider = Logger(subsystem: subsystem, category: "provider")

    /// Sends the engine's log to the system's.
    static func install(_ level: Adit.LogLevel) {
        let engine = Logger(subsystem: subsystem, category: "engine")
        do {
            try Adit.setLog(level) { line in
                switch line.level {
                case .error:
                    engine.error("\(line.target, privacy: .public): \(line.message, privacy: .public)")
                case .warning:
                    engine.warning("\(line.target, privacy: .public): \(line.message, privacy: .public)")
                case .info:
                    engine.info("\(line.target, privacy: .public): \(line.message, privacy: .public)")
                case .debug, .trace:
                    engine.debug("\(line.target, privacy: .public): \(line.message, privacy: .private)")
                }
            }
        } catch {
            provider.error("the engine's log is not to be had: \(String(describing: error), privacy: .public)")
        }
    }
}
#endif
