import Foundation

/// A value that is only reached with its lock held.
///
/// The lock is never held while code of the host or of the engine runs: take what is needed out of the closure and call
/// afterwards.
final class Locked<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) {
        self.value = value
    }

    func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }
}
