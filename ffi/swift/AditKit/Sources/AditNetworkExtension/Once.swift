#if canImport(NetworkExtension)
import Foundation

/// A completion handler of the system: called exactly once, by whoever is first, and once in any case.
///
/// If it goes without having been called, it is called with the value for that: a handler that is never called leaves
/// the system waiting.
final class Once<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var handler: ((Value) -> Void)?
    private let forgotten: Value

    init(forgotten: Value, _ handler: @escaping (Value) -> Void) {
        self.forgotten = forgotten
        self.handler = handler
    }

    deinit {
        handler?(forgotten)
    }

    /// Calls the handler; returns whether this was the call that did.
    @discardableResult
    func callAsFunction(_ value: Value) -> Bool {
        lock.lock()
        let taken = handler
        handler = nil
        lock.unlock()
        guard let call = taken else { return false }
        call(value)
        return true
    }
}
#endif
