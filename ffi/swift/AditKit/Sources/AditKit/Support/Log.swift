import CAdit
import Foundation

/// The engine: its version, and its log.
public enum Adit {
    /// The version of the library, such as `0.1.0`.
    public static var version: String {
        let pointer: UnsafePointer<CChar>? = adit_version()
        guard let text = pointer else { return "" }
        return String(cString: text)
    }

    /// The version of the C functions. It grows when functions are added; what is there never changes its meaning.
    public static var abiVersion: UInt32 {
        return adit_abi_version()
    }

    /// How much a line of the log matters. Higher numbers say more, and less of what matters.
    public enum LogLevel: UInt32, Comparable, Sendable {
        /// Something failed.
        case error = 1
        /// Something that may fail soon, or that is less than was asked for.
        case warning = 2
        /// A change of state.
        case info = 3
        /// Details for whoever looks for a fault; from here on with addresses.
        case debug = 4
        /// A line per packet.
        case trace = 5

        public static func < (left: LogLevel, right: LogLevel) -> Bool {
            return left.rawValue < right.rawValue
        }
    }

    /// A line of the log. Keys are never in it, addresses only from ``LogLevel/debug`` on.
    public struct LogLine: Hashable, Sendable {
        /// How much it matters.
        public let level: LogLevel
        /// The part of the engine that says it.
        public let target: String
        /// What it says.
        public let message: String
    }

    /// Sends the log of every tunnel in this process to a function, in place of the one before.
    ///
    /// It is called on a thread of the log's own, never while the engine holds a lock; lines that it is too slow for are
    /// counted and told. After this function or ``removeLog()`` has returned, the former one is not called again: both
    /// wait for it, so neither may be called from within a sink.
    ///
    /// - Throws: ``TunnelError`` if the library refuses; the former function then stays.
    public static func setLog(_ level: LogLevel, _ sink: @escaping @Sendable (LogLine) -> Void) throws {
        let box = LogBox(sink)
        try sinks.withLock { current in
            let context = Unmanaged.passRetained(box)
            let result = adit_init(
                { context, level, target, message, length in
                    LogBox.line(context, level, target, message, numericCast(length))
                },
                context.toOpaque(),
                level.rawValue
            )
            if result != 0 {
                context.release()
                throw TunnelError(code: TunnelError.Code(rawValue: result))
            }
            current?.release()
            current = context
        }
    }

    /// Ends the log.
    public static func removeLog() throws {
        try sinks.withLock { current in
            try TunnelError.check(adit_init(nil, nil, 0))
            current?.release()
            current = nil
        }
    }

    private static let sinks = Locked<Unmanaged<LogBox>?>(nil)
}

/// The object behind the context pointer of the log: retained for as long as the library may call it.
private final class LogBox: Sendable {
    private let sink: @Sendable (Adit.LogLine) -> Void

    init(_ sink: @escaping @Sendable (Adit.LogLine) -> Void) {
        self.sink = sink
    }

    static func line(
        _ context: UnsafeMutableRawPointer?,
        _ level: UInt32,
        _ target: UnsafePointer<CChar>?,
        _ message: UnsafePointer<CChar>?,
        _ length: Int
    ) {
        guard let context = context else { return }
        let box = Unmanaged<LogBox>.fromOpaque(context).takeUnretainedValue()
        var name = ""
        if let target = target {
            name = String(cString: target)
        }
        let known = Adit.LogLevel(rawValue: level) ?? .trace
        box.sink(Adit.LogLine(level: known, target: name, message: CText.string(message, count: length)))
    }
}
