#if canImport(NetworkExtension)
import AditKit
import Foundation
import Network

/// Feeds what the system says about the network to a function, without repetitions.
///
/// In a provider the system keeps the tunnel itself out of these paths. The interface that traffic leaves by is the first
/// of the path that is a way to the network at all; it is known by index and kind, not by name.
final class PathMonitor: @unchecked Sendable {
    private let monitor = NWPathMonitor()
    private let queue = DispatchQueue(label: "adit.path", qos: .utility)
    /// Only used on `queue`.
    private var filter = PathFilter()

    /// Begins to feed; the first path comes at once.
    func start(_ changed: @escaping @Sendable (NetworkPath) -> Void) {
        monitor.pathUpdateHandler = { [weak self] path in
            guard let self = self else { return }
            if let news = self.filter.changed(to: PathMonitor.networkPath(path)) {
                changed(news)
            }
        }
        monitor.start(queue: queue)
    }

    /// Ends for good: a monitor that was cancelled cannot be started again.
    func cancel() {
        monitor.cancel()
    }

    private static func networkPath(_ path: Network.NWPath) -> NetworkPath {
        guard path.status == .satisfied else { return .unsatisfied }
        let interfaces = path.availableInterfaces.map { interface in
            return PathInterface(index: interface.index, kind: kind(of: interface.type))
        }
        let underlay = PathFilter.underlay(of: interfaces)
        return NetworkPath(
            interfaceIndex: UInt32(exactly: underlay?.index ?? 0) ?? 0,
            interfaceKind: underlay?.kind ?? .unknown,
            isSatisfied: true,
            isExpensive: path.isExpensive,
            isConstrained: path.isConstrained,
            supportsIPv4: path.supportsIPv4,
            supportsIPv6: path.supportsIPv6,
            isDirectLink: false
        )
    }

    private static func kind(of type: NWInterface.InterfaceType) -> NetworkPath.InterfaceKind {
        switch type {
        case .wifi: return .wifi
        case .cellular: return .cellular
        case .wiredEthernet: return .wired
        case .loopback: return .loopback
        case .other: return .unknown
        @unknown default: return .unknown
        }
    }
}
#endif
