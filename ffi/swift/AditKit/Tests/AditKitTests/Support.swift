import Foundation
import XCTest

@testable import AditKit

/// Files beside the tests, and what several tests need.
enum Fixture {
    /// The bytes of a file in `Fixtures`.
    static func data(_ name: String) throws -> Data {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")
        return try Data(contentsOf: folder.appendingPathComponent(name))
    }

    /// The settings of a file in `Fixtures`.
    static func settings(_ name: String) throws -> Settings {
        return try JSONDecoder().decode(Settings.self, from: data(name))
    }

    /// The objects of an array in a file of `Fixtures`, each as its own JSON.
    static func objects(_ name: String) throws -> [Data] {
        let array = try JSONSerialization.jsonObject(with: data(name)) as? [[String: Any]]
        return try XCTUnwrap(array).map { try JSONSerialization.data(withJSONObject: $0) }
    }
}

/// A packet of IPv4 with a UDP datagram in it, with the checksums that belong there.
func ipv4Packet(from source: [UInt8], to destination: [UInt8], payload: [UInt8]) -> Data {
    let udpLength = 8 + payload.count
    let total = 20 + udpLength
    var header: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 0xFF), 0, 0, 0, 0, 64, 17, 0, 0]
    header += source
    header += destination
    let sum = checksum(header)
    header[10] = UInt8(sum >> 8)
    header[11] = UInt8(sum & 0xFF)
    // A checksum of zero says that there is none, which IPv4 allows.
    let udp: [UInt8] = [0x30, 0x39, 0x30, 0x3A, UInt8(udpLength >> 8), UInt8(udpLength & 0xFF), 0, 0]
    return Data(header + udp + payload)
}

private func checksum(_ bytes: [UInt8]) -> UInt16 {
    var sum: UInt32 = 0
    for index in stride(from: 0, to: bytes.count, by: 2) {
        sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16)
    }
    return ~UInt16(sum)
}

/// What arrived, in the order in which it did.
final class Inbox<Element: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var elements: [Element] = []

    func add(_ element: Element) {
        lock.lock()
        elements.append(element)
        lock.unlock()
    }

    var all: [Element] {
        lock.lock()
        defer { lock.unlock() }
        return elements
    }

    /// Waits until something fits, ten seconds at most.
    func first(where fits: (Element) -> Bool) async throws -> Element? {
        for _ in 0..<1000 {
            if let found = all.first(where: fits) {
                return found
            }
            try await Task.sleep(nanoseconds: 10_000_000)
        }
        return nil
    }
}

/// A UDP socket on loopback that answers nothing.
final class SilentPeer {
    let port: UInt16
    private let descriptor: Int32

    init() throws {
        #if canImport(Darwin)
            let kind = SOCK_DGRAM
        #else
            let kind = Int32(SOCK_DGRAM.rawValue)
        #endif
        descriptor = socket(AF_INET, kind, 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let fd = descriptor
        let result: Int32 = withUnsafeMutablePointer(to: &address) { pointer in
            return pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                if bind(fd, rebound, length) != 0 {
                    return -1
                }
                return getsockname(fd, rebound, &length)
            }
        }
        port = UInt16(bigEndian: address.sin_port)
        if result != 0 || port == 0 {
            throw TunnelError(code: .system, message: "no UDP socket on loopback")
        }
    }

    deinit {
        close(descriptor)
    }

    /// A port that nobody has, until somebody takes it.
    static func freePort() throws -> UInt16 {
        return try SilentPeer().port
    }
}
