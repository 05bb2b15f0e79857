/// What the system says about the way to the network: the underlay that the tunnel's own datagrams take.
///
/// Interfaces are known by index and kind. Names are no identity: they can be given to another interface at any time.
public struct NetworkPath: Hashable, Sendable {
    /// What kind of interface it is, by what it is for (`IFRTYPE_FUNCTIONAL_*` of the system's `net/if.h`).
    public enum InterfaceKind: UInt32, Hashable, Sendable {
        /// Nothing is known about it; virtual interfaces are of this kind.
        case unknown = 0
        /// The loopback interface.
        case loopback = 1
        /// Ethernet.
        case wired = 2
        /// Wi-Fi with an access point.
        case wifi = 3
        /// Wi-Fi between devices.
        case wifiPeerToPeer = 4
        /// A cellular network.
        case cellular = 5
        /// The link to a coprocessor of the device.
        case coprocessor = 6
        /// The link to a companion, such as a watch.
        case companionLink = 7
        /// A network for management.
        case management = 8
    }

    /// The index of the interface that traffic leaves by, or 0 if there is none.
    public var interfaceIndex: UInt32
    /// The kind of that interface.
    public var interfaceKind: InterfaceKind
    /// Whether there is a way to the network at all. It is advice: a tunnel may be started without one.
    public var isSatisfied: Bool
    /// Whether traffic costs money, as on a cellular network or a personal hotspot.
    public var isExpensive: Bool
    /// Whether the user asked for little traffic (Low Data Mode).
    public var isConstrained: Bool
    /// Whether IPv4 destinations can be reached.
    public var supportsIPv4: Bool
    /// Whether IPv6 destinations can be reached.
    public var supportsIPv6: Bool
    /// Whether the interface is a direct link to a development machine, which is no way to the internet.
    public var isDirectLink: Bool

    /// A path; what is left out is what an ordinary network has.
    public init(
        interfaceIndex: UInt32,
        interfaceKind: InterfaceKind,
        isSatisfied: Bool,
        isExpensive: Bool = false,
        isConstrained: Bool = false,
        supportsIPv4: Bool = true,
        supportsIPv6: Bool = true,
        isDirectLink: Bool = false
    ) {
        self.interfaceIndex = interfaceIndex
        self.interfaceKind = interfaceKind
        self.isSatisfied = isSatisfied
        self.isExpensive = isExpensive
        self.isConstrained = isConstrained
        self.supportsIPv4 = supportsIPv4
        self.supportsIPv6 = supportsIPv6
        self.isDirectLink = isDirectLink
    }

    /// No way to the network.
    public static let unsatisfied = NetworkPath(
        interfaceIndex: 0,
        interfaceKind: .unknown,
        isSatisfied: false,
        supportsIPv4: false,
        supportsIPv6: false
    )

    /// The flags of `adit_tunnel_path_changed`.
    public var flags: UInt32 {
        var flags: UInt32 = 0
        if isSatisfied { flags |= 1 }
        if isExpensive { flags |= 2 }
        if isConstrained { flags |= 4 }
        if supportsIPv4 { flags |= 8 }
        if supportsIPv6 { flags |= 16 }
        if isDirectLink { flags |= 32 }
        return flags
    }
}

/// One interface of a path, as a path monitor lists it.
public struct PathInterface: Hashable, Sendable {
    /// Its index; only a positive one is valid.
    public var index: Int
    /// What it is for.
    public var kind: NetworkPath.InterfaceKind
    /// Whether it is a direct link to a development machine.
    public var isDirectLink: Bool

    /// An interface of a path.
    public init(index: Int, kind: NetworkPath.InterfaceKind, isDirectLink: Bool = false) {
        self.index = index
        self.kind = kind
        self.isDirectLink = isDirectLink
    }
}

/// Turns a path monitor's reports into what the engine is told, and keeps quiet when nothing changed.
///
/// A monitor reports in bursts and repeats itself. Equal reports end here; the engine waits for the rest of a burst
/// itself, so no timer is needed on this side.
public struct PathFilter: Sendable {
    private var last: NetworkPath?

    /// A filter that lets the first report through.
    public init() {
        last = nil
    }

    /// The path to tell the engine, or `nil` if it knows.
    public mutating func changed(to path: NetworkPath) -> NetworkPath? {
        guard path != last else { return nil }
        last = path
        return path
    }

    /// Chooses, from a monitor's list in its order of preference, the interface that traffic leaves by.
    ///
    /// Tunnels (their index is `excluding`, and other virtual interfaces are of no known kind) come last, loopback,
    /// direct links and invalid indices never.
    public static func underlay(of interfaces: [PathInterface], excluding tunnel: Int? = nil) -> PathInterface? {
        let usable = interfaces.filter { interface in
            return interface.index > 0
                && interface.index != tunnel
                && interface.kind != .loopback
                && !interface.isDirectLink
        }
        return usable.first(where: { $0.kind != .unknown }) ?? usable.first
    }
}
