import CAdit

/// A public key of WireGuard.
public struct PublicKey: Hashable, Sendable {
    /// The key in base64, as it stands in a configuration.
    public let base64: String

    /// Reads a key in base64.
    ///
    /// - Throws: ``TunnelError`` with ``TunnelError/Code/key`` if it is none.
    public init(base64: String) throws {
        self.base64 = try SecretKey(base64: base64).base64()
    }

    fileprivate init(_ key: SecretKey) throws {
        base64 = try key.base64()
    }
}

extension PublicKey: CustomStringConvertible {
    public var description: String {
        return base64
    }
}

/// A private key of WireGuard.
///
/// Its bytes are wiped when the last copy goes. It is never printed; ``exposedBase64()`` is the one way out, for a
/// configuration. What that returns is an ordinary text, which nobody wipes.
public struct PrivateKey: Sendable {
    private let secret: SecretKey

    /// A new key.
    ///
    /// - Throws: ``TunnelError`` if the system has no random bytes.
    public static func generate() throws -> PrivateKey {
        return PrivateKey(try SecretKey { adit_key_generate_private($0) })
    }

    /// Reads a key in base64.
    ///
    /// - Throws: ``TunnelError`` with ``TunnelError/Code/key`` if it is none.
    public init(base64: String) throws {
        secret = try SecretKey(base64: base64)
    }

    private init(_ secret: SecretKey) {
        self.secret = secret
    }

    /// The key that others know this one by.
    public func publicKey() throws -> PublicKey {
        return try PublicKey(secret.publicKey())
    }

    /// The key in base64, for a configuration.
    public func exposedBase64() throws -> String {
        return try secret.base64()
    }
}

extension PrivateKey: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String {
        return "PrivateKey(not shown)"
    }

    public var debugDescription: String {
        return description
    }

    public var customMirror: Mirror {
        return Mirror(self, children: [])
    }
}

/// A key that two peers share in addition to their own.
///
/// Its bytes are wiped when the last copy goes, and it is never printed.
public struct PresharedKey: Sendable {
    private let secret: SecretKey

    /// A new key.
    ///
    /// - Throws: ``TunnelError`` if the system has no random bytes.
    public static func generate() throws -> PresharedKey {
        return PresharedKey(try SecretKey { adit_key_generate_preshared($0) })
    }

    /// Reads a key in base64.
    ///
    /// - Throws: ``TunnelError`` with ``TunnelError/Code/key`` if it is none.
    public init(base64: String) throws {
        secret = try SecretKey(base64: base64)
    }

    private init(_ secret: SecretKey) {
        self.secret = secret
    }

    /// The key in base64, for a configuration.
    public func exposedBase64() throws -> String {
        return try secret.base64()
    }
}

extension PresharedKey: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String {
        return "PresharedKey(not shown)"
    }

    public var debugDescription: String {
        return description
    }

    public var customMirror: Mirror {
        return Mirror(self, children: [])
    }
}

/// 32 bytes in one place of memory, wiped at the end.
///
/// The pointer is written in the initialiser and only read until the object goes, so tasks can share it.
private final class SecretKey: @unchecked Sendable {
    private let key: UnsafeMutablePointer<AditKey>

    init(_ fill: (UnsafeMutablePointer<AditKey>) -> AditResult) throws {
        key = UnsafeMutablePointer<AditKey>.allocate(capacity: 1)
        key.initialize(to: AditKey())
        try TunnelError.check(fill(key))
    }

    convenience init(base64: String) throws {
        try self.init { out in
            return base64.withCString { text in
                return adit_key_from_base64(text, numericCast(base64.utf8.count), out)
            }
        }
    }

    deinit {
        adit_key_wipe(key)
        key.deallocate()
    }

    func publicKey() throws -> SecretKey {
        return try SecretKey { out in
            return adit_key_public(key, out)
        }
    }

    func base64() throws -> String {
        var text = AditKeyText()
        defer {
            withUnsafeMutableBytes(of: &text) { bytes in
                for index in bytes.indices {
                    bytes[index] = 0
                }
            }
        }
        let result = withUnsafeMutablePointer(to: &text) { out in
            return adit_key_to_base64(key, out)
        }
        try TunnelError.check(result)
        return withUnsafeBytes(of: &text) { bytes in
            return String(decoding: bytes.prefix(while: { $0 != 0 }), as: UTF8.self)
        }
    }
}
