#if canImport(NetworkExtension)
import AditKit
import Darwin
import Foundation

/// Finds the utun descriptors that are open in this process.
///
/// There is no function of the system for it. A kernel-control socket whose control is the one of utun is a utun; which
/// of several is the session's own is decided by ``AditKit/UtunElection``. The descriptors stay the system's.
///
/// The structs of `sys/kern_control.h` are read byte by byte, since not every SDK has that header.
enum UtunDescriptors {
    /// Every open utun descriptor with the name of its interface.
    static func open() -> [UtunElection.Candidate] {
        var candidates: [UtunElection.Candidate] = []
        for descriptor in Int32(0)...highest {
            if isUtun(descriptor), let name = interfaceName(of: descriptor) {
                candidates.append(UtunElection.Candidate(descriptor: descriptor, name: name))
            }
        }
        return candidates
    }

    /// Whether the peer of a socket is the control of utun.
    private static func isUtun(_ descriptor: Int32) -> Bool {
        // struct sockaddr_ctl: u8 length, u8 family, u16 system address, u32 control, u32 unit, 20 bytes reserved.
        var address = [UInt8](repeating: 0, count: 128)
        var length = socklen_t(128)
        let result: Int32 = address.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return -1 }
            return getpeername(descriptor, base.assumingMemoryBound(to: sockaddr.self), &length)
        }
        guard result == 0, length >= 8, address[1] == systemFamily else { return false }
        let control = address[4..<8]

        // struct ctl_info: u32 control, 96 bytes of name.
        var info = [UInt8](repeating: 0, count: 100)
        info.replaceSubrange(4..<(4 + controlName.count), with: controlName)
        let found: Int32 = info.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return -1 }
            return ioctl(descriptor, controlInfoRequest, base)
        }
        return found == 0 && info[0..<4].elementsEqual(control)
    }

    private static func interfaceName(of descriptor: Int32) -> String? {
        var name = [UInt8](repeating: 0, count: 64)
        var length = socklen_t(64)
        let result = getsockopt(descriptor, systemProtocolControl, interfaceNameOption, &name, &length)
        guard result == 0 else { return nil }
        let text = String(decoding: name.prefix(while: { $0 != 0 }), as: UTF8.self)
        return text.isEmpty ? nil : text
    }

    /// A provider has a few dozen descriptors open.
    private static let highest: Int32 = 1024
    /// `AF_SYSTEM`.
    private static let systemFamily: UInt8 = 32
    /// `UTUN_CONTROL_NAME`.
    private static let controlName = Array("com.apple.net.utun_control".utf8)
    /// `CTLIOCGINFO`, a macro that Swift does not see: `_IOWR('N', 3, struct ctl_info)`.
    private static let controlInfoRequest: UInt = 0xC064_4E03
    /// `SYSPROTO_CONTROL`.
    private static let systemProtocolControl: Int32 = 2
    /// `UTUN_OPT_IFNAME`.
    private static let interfaceNameOption: Int32 = 2
}
#endif
