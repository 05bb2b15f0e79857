import Foundation

/// An address with a prefix length, such as `10.0.0.2/24` or `fd00::1`.
///
/// The host bits are kept: ``address`` is what was written, ``network`` is the prefix it lies in.
public struct IPPrefix: Hashable, Sendable {
    /// The two families of addresses.
    public enum Family: Hashable, Sendable {
        /// IPv4.
        case v4
        /// IPv6.
        case v6

        /// The number of bits of an address.
        public var bits: Int {
            switch self {
            case .v4: return 32
            case .v6: return 128
            }
        }
    }

    /// The family of the address.
    public let family: Family
    /// The number of leading bits that are the network.
    public let length: Int
    /// The address in network order: 4 or 16 bytes.
    public let bytes: [UInt8]

    /// Reads `address` or `address/length`; `nil` if the text is neither.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first else { return nil }
        let host = String(first)
        let family: Family
        let bytes: [UInt8]
        if let parsed = IPPrefix.parse(host, AF_INET, 4) {
            family = .v4
            bytes = parsed
        } else if let parsed = IPPrefix.parse(host, AF_INET6, 16) {
            family = .v6
            bytes = parsed
        } else {
            return nil
        }
        var length = family.bits
        if parts.count == 2 {
            let digits = parts[1]
            guard !digits.isEmpty, digits.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }) else { return nil }
            guard let written = Int(digits), written <= family.bits else { return nil }
            length = written
        }
        self.family = family
        self.length = length
        self.bytes = bytes
    }

    private init(family: Family, length: Int, bytes: [UInt8]) {
        self.family = family
        self.length = length
        self.bytes = bytes
    }

    /// The address as text, without the prefix length.
    public var address: String {
        return IPPrefix.text(bytes, family)
    }

    /// The prefix with its host bits cleared.
    public var network: IPPrefix {
        let mask = IPPrefix.mask(length, family.bits / 8)
        var masked = bytes
        for index in masked.indices {
            masked[index] &= mask[index]
        }
        return IPPrefix(family: family, length: length, bytes: masked)
    }

    /// The mask as text, such as `255.255.255.0`.
    public var subnetMask: String {
        return IPPrefix.text(IPPrefix.mask(length, family.bits / 8), family)
    }

    /// Whether every address of `other` is one of this prefix.
    public func contains(_ other: IPPrefix) -> Bool {
        guard family == other.family, length <= other.length else { return false }
        let mask = IPPrefix.mask(length, family.bits / 8)
        for index in mask.indices where (bytes[index] ^ other.bytes[index]) & mask[index] != 0 {
            return false
        }
        return true
    }

    /// Whether it lies in 127.0.0.0/8 or is ::1.
    public var isLoopback: Bool {
        switch family {
        case .v4:
            return length >= 8 && bytes[0] == 127
        case .v6:
            return length == 128 && bytes == IPPrefix.loopback6
        }
    }

    private static let loopback6: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]

    private static func parse(_ host: String, _ family: Int32, _ size: Int) -> [UInt8]? {
        // inet_pton stops at a NUL, so a text that holds one would be read as less than it is.
        guard !host.utf8.contains(0) else { return nil }
        var bytes = [UInt8](repeating: 0, count: size)
        let result = bytes.withUnsafeMutableBytes { buffer in
            return inet_pton(family, host, buffer.baseAddress)
        }
        return result == 1 ? bytes : nil
    }

    private static func text(_ bytes: [UInt8], _ family: Family) -> String {
        switch family {
        case .v4:
            return bytes.map { String($0) }.joined(separator: ".")
        case .v6:
            var text = [CChar](repeating: 0, count: 64)
            let written = inet_ntop(AF_INET6, bytes, &text, 64)
            guard written != nil else { return "" }
            return text.withUnsafeBytes { raw in
                return String(decoding: raw.prefix(while: { $0 != 0 }), as: UTF8.self)
            }
        }
    }

    private static func mask(_ length: Int, _ size: Int) -> [UInt8] {
        var mask = [UInt8](repeating: 0, count: size)
        for index in mask.indices {
            let bits = min(max(length - index * 8, 0), 8)
            mask[index] = UInt8(truncatingIfNeeded: 0xFF00 >> bits)
        }
        return mask
    }
}

extension IPPrefix: CustomStringConvertible {
    public var description: String {
        return "\(address)/\(length)"
    }
}
