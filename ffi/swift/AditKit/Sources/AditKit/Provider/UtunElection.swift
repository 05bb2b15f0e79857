/// Chooses the tunnel's own descriptor among all utun descriptors of a process.
///
/// The system hands a provider no descriptor; it is found among those that are open. There can be several: a session
/// that was not closed yet, or another one of the app's own. The wrong one would carry somebody else's packets, so a name
/// decides where one is known, and the newest one otherwise.
public enum UtunElection {
    /// An open utun descriptor.
    public struct Candidate: Hashable, Sendable {
        /// Its number.
        public let descriptor: Int32
        /// The name of its interface, such as `utun4`.
        public let name: String

        /// An open utun descriptor.
        public init(descriptor: Int32, name: String) {
            self.descriptor = descriptor
            self.name = name
        }

        /// The number in the name: interfaces are numbered in the order in which they are made.
        var unit: Int? {
            let digits = name.drop(while: { !$0.isNumber })
            guard name.hasPrefix("utun"), digits.count == name.count - 4 else { return nil }
            return Int(digits)
        }
    }

    /// The descriptor to use, or `nil` if none is certain enough; then packets go through `packetFlow`.
    ///
    /// - Parameters:
    ///   - candidates: The open utun descriptors, in any order.
    ///   - known: The descriptors that were open before this session: none of them is it.
    ///   - name: The name of the session's interface, if the system tells it. A name that no candidate has means that
    ///     the descriptor is not there (yet): then there is none, rather than one that is another's.
    public static func elect(_ candidates: [Candidate], known: Set<Int32> = [], name: String? = nil) -> Candidate? {
        if let name = name, !name.isEmpty {
            // The same interface can be open twice; the higher number was opened later.
            return candidates.filter { $0.name == name }.max(by: { $0.descriptor < $1.descriptor })
        }
        let fresh = candidates.filter { !known.contains($0.descriptor) }
        let eligible = fresh.isEmpty ? candidates : fresh
        return eligible.max { left, right in
            let leftUnit = left.unit ?? -1
            let rightUnit = right.unit ?? -1
            if leftUnit != rightUnit {
                return leftUnit < rightUnit
            }
            return left.descriptor < right.descriptor
        }
    }
}
