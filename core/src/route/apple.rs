//! What an Apple system does with a packet while a packet tunnel provider is configured so and so.
//!
//! Apple documents some of it (NEPacketTunnelNetworkSettings, NEVPNProtocol, «Routing your VPN network traffic») and some
//! is only observed; what is, or is told differently by different people, is a field of [`AppleAssumptions`] with a
//! default that says where it comes from. Nothing here asks a system, and lists are searched from end to end: it is for
//! explaining and checking, not for packets on their way.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a provider tells the system: its network settings, and the properties of its configuration (NEVPNProtocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppleSettings {
    /// The tunnel's own addresses with the prefixes of their networks.
    pub addresses: Vec<IpNet>,
    /// `includedRoutes` of both families.
    pub included: Vec<IpNet>,
    /// `excludedRoutes` of both families.
    pub excluded: Vec<IpNet>,
    /// `tunnelRemoteAddress`; a placeholder such as 127.0.0.1 does no harm.
    pub tunnel_remote_addresses: Vec<IpAddr>,
    /// `includeAllNetworks`: everything into the tunnel, and nowhere while it is not connected.
    pub include_all_networks: bool,
    /// `enforceRoutes`: the tunnel's routes win over those of the system; without effect beside `include_all_networks`.
    pub enforce_routes: bool,
    /// `excludeLocalNetworks`; of effect only with one of the two above.
    pub exclude_local_networks: bool,
    /// `excludeCellularServices`; of effect only with `include_all_networks`, as are the next two.
    pub exclude_cellular_services: bool,
    /// `excludeAPNs`.
    pub exclude_apns: bool,
    /// `excludeDeviceCommunication`.
    pub exclude_device_communication: bool,
    /// `dnsSettings`.
    pub dns: Option<AppleDns>,
    /// Whether the tunnel is connected, so that its settings are applied.
    pub is_connected: bool,
}

/// `NEDNSSettings`, so far as names are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppleDns {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// `searchDomains`.
    pub search_domains: Vec<String>,
    /// `matchDomains`; `None` leaves it to the system, an empty name stands for all.
    pub match_domains: Option<Vec<String>>,
    /// `matchDomainsNoSearch`: match domains are not searched.
    pub match_domains_no_search: bool,
}

/// Which system; their defaults and faults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApplePlatform {
    /// iOS and iPadOS.
    Ios,
    /// macOS.
    MacOs,
}

/// What the system's own table has, beside a default route by the primary physical interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemTable {
    /// Prefixes on the link of the physical interfaces.
    pub on_link: Vec<IpNet>,
    /// Other routes by physical interfaces that are more specific than a default one, such as those from DHCP.
    pub routes: Vec<IpNet>,
    /// Own addresses of physical interfaces.
    pub addresses: Vec<IpAddr>,
}

/// A packet, or the flow that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplePacket {
    /// Where it is to go.
    pub destination: IpAddr,
    /// Whose it is.
    pub class: AppleClass,
    /// The interface that the program has bound it to.
    pub scope: Option<AppleScope>,
    /// Whether it is TCP and its connection was alive when the tunnel's settings were applied.
    pub was_alive: bool,
}

/// Kinds of traffic that the system treats by rules of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AppleClass {
    /// Anything else.
    Ordinary,
    /// The provider's own: the system keeps it off tunnels.
    Provider,
    /// DHCP and other control of the network.
    Dhcp,
    /// The sign-in page of a network.
    CaptivePortal,
    /// A paired watch.
    Companion,
    /// Voice over the cellular network and the like.
    CellularServices,
    /// Push notifications.
    Apns,
    /// Devices connected to this one.
    DeviceCommunication,
}

/// An interface that a program can bind to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppleScope {
    /// The tunnel's.
    Tunnel,
    /// A physical one.
    Physical,
}

/// What is not documented, or not known to be as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppleAssumptions {
    /// The networks of the tunnel's addresses are routed to it without being included. Default: yes; it is not
    /// documented, and wireguard-apple includes them to be safe.
    pub has_subnet_routes: bool,
    /// Of equal prefixes, the excluded one wins. Default: yes; documentation does not say, so no configuration should ask.
    pub excluded_wins_ties: bool,
    /// One loopback prefix among the exclusions makes the system forget all of them. Default: yes, as observed on iOS.
    pub loopback_voids_exclusions: bool,
    /// Exclusions count with `includeAllNetworks`. Default: no, as observed.
    pub excludes_with_include_all: bool,
    /// What exclusions do with `enforceRoutes`.
    pub excludes_with_enforce: ExcludesWithEnforce,
    /// TCP connections that were alive when the settings were applied are led into the tunnel, wherever they go. Default:
    /// yes, as observed on macOS.
    pub captures_live_flows: bool,
}

/// What exclusions do with `enforceRoutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExcludesWithEnforce {
    /// They count, as documented.
    #[default]
    Count,
    /// They do not, as some have observed.
    Ignored,
    /// Included traffic is dropped if there is any exclusion, as observed on iPadOS 26 with a default route.
    DropIncluded,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppleWay {
    /// To the provider.
    Tunnel,
    /// Out by a physical interface.
    Physical,
    /// To the device itself.
    Host,
    /// Nowhere.
    Dropped,
}

/// What decides on an Apple system, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AppleRule {
    /// An address of the device itself.
    OwnAddress,
    /// The provider's own traffic.
    Provider,
    /// `tunnelRemoteAddress` is excluded by itself.
    TunnelRemoteAddress,
    /// A kind of traffic that `includeAllNetworks` leaves out.
    ExemptClass,
    /// On the link of a physical interface, with `excludeLocalNetworks`.
    LocalNetwork,
    /// `includeAllNetworks` while the tunnel is not connected.
    NotConnected,
    /// A connection that was alive when the settings were applied.
    LiveFlow,
    /// `includeAllNetworks`.
    IncludeAllNetworks,
    /// A prefix of the exclusions, under `enforceRoutes` or `includeAllNetworks`.
    EnforcedExcluded,
    /// An included prefix, under `enforceRoutes`.
    EnforcedIncluded,
    /// The program's choice of an interface.
    Scope,
    /// A route of the system.
    SystemRoute,
    /// An excluded prefix.
    Excluded,
    /// An included prefix.
    Included,
    /// The network of one of the tunnel's addresses.
    TunnelSubnet,
    /// The default route of the primary interface.
    DefaultRoute,
}

/// A rule that has something to say about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppleStep {
    /// The rule.
    pub rule: AppleRule,
    /// The prefix by which it does, if it goes by one.
    pub net: Option<IpNet>,
    /// What it says.
    pub way: AppleWay,
}

/// Where a packet goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppleDecision {
    /// Where.
    pub way: AppleWay,
    /// All rules that have something to say, in their order: the first one decides. Never empty.
    pub steps: Vec<AppleStep>,
}

impl AppleSettings {
    /// Settings of a connected tunnel that include nothing and have the platform's defaults.
    #[must_use]
    pub fn new(platform: ApplePlatform) -> Self {
        Self {
            addresses: Vec::new(),
            included: Vec::new(),
            excluded: Vec::new(),
            tunnel_remote_addresses: Vec::new(),
            include_all_networks: false,
            enforce_routes: false,
            exclude_local_networks: platform == ApplePlatform::Ios,
            exclude_cellular_services: true,
            exclude_apns: true,
            exclude_device_communication: true,
            dns: None,
            is_connected: true,
        }
    }

    /// Whether the tunnel is the default route of any family, so that its resolver is the default one as well.
    pub fn is_default(&self) -> bool {
        self.include_all_networks || self.included.iter().any(|net| net.prefix_len() == 0)
    }

    /// The exclusions that are left when the system has read them.
    fn effective_excluded(&self, assumptions: &AppleAssumptions) -> &[IpNet] {
        let is_void = assumptions.loopback_voids_exclusions && self.excluded.iter().any(is_loopback);
        if is_void { &[] } else { &self.excluded }
    }

    /// Whether `includeAllNetworks` leaves this traffic out.
    fn exempts(&self, class: AppleClass) -> bool {
        match class {
            AppleClass::Ordinary => false,
            AppleClass::Provider | AppleClass::Dhcp | AppleClass::CaptivePortal | AppleClass::Companion => true,
            AppleClass::CellularServices => self.exclude_cellular_services,
            AppleClass::Apns => self.exclude_apns,
            AppleClass::DeviceCommunication => self.exclude_device_communication,
        }
    }
}

impl ApplePacket {
    /// A packet of some program that does nothing special.
    pub fn new(destination: IpAddr) -> Self {
        Self { destination, class: AppleClass::Ordinary, scope: None, was_alive: false }
    }
}

impl Default for AppleAssumptions {
    fn default() -> Self {
        Self {
            has_subnet_routes: true,
            excluded_wins_ties: true,
            loopback_voids_exclusions: true,
            excludes_with_include_all: false,
            excludes_with_enforce: ExcludesWithEnforce::Count,
            captures_live_flows: true,
        }
    }
}

impl AppleRule {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnAddress => "own-address",
            Self::Provider => "provider",
            Self::TunnelRemoteAddress => "tunnel-remote-address",
            Self::ExemptClass => "exempt-class",
            Self::LocalNetwork => "local-network",
            Self::NotConnected => "not-connected",
            Self::LiveFlow => "live-flow",
            Self::IncludeAllNetworks => "include-all-networks",
            Self::EnforcedExcluded => "enforced-excluded",
            Self::EnforcedIncluded => "enforced-included",
            Self::Scope => "scope",
            Self::SystemRoute => "system-route",
            Self::Excluded => "excluded",
            Self::Included => "included",
            Self::TunnelSubnet => "tunnel-subnet",
            Self::DefaultRoute => "default-route",
        }
    }
}

impl AppleWay {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Physical => "physical",
            Self::Host => "host",
            Self::Dropped => "dropped",
        }
    }
}

/// Decides where a packet goes.
pub fn decide_apple(
    packet: &ApplePacket,
    settings: &AppleSettings,
    table: &SystemTable,
    assumptions: &AppleAssumptions,
) -> AppleDecision {
    let mut steps = before_routes(packet, settings, table, assumptions);
    let destination = packet.destination;
    let excluded = settings.effective_excluded(assumptions);
    let longest = |nets: &[IpNet]| {
        nets.iter().filter(|net| net.contains(&destination)).max_by_key(|net| net.prefix_len()).copied()
    };
    let mut say = |rule, net, way| steps.push(AppleStep { rule, net, way });

    if settings.is_connected && settings.include_all_networks {
        if assumptions.excludes_with_include_all
            && let Some(net) = longest(excluded)
        {
            say(AppleRule::EnforcedExcluded, Some(net), AppleWay::Physical);
        }
        say(AppleRule::IncludeAllNetworks, None, AppleWay::Tunnel);
    }
    if settings.is_connected && settings.enforce_routes && !settings.include_all_networks {
        if settings.exclude_local_networks
            && let Some(net) = longest(&table.on_link)
        {
            say(AppleRule::LocalNetwork, Some(net), AppleWay::Physical);
        }
        let is_dropping =
            assumptions.excludes_with_enforce == ExcludesWithEnforce::DropIncluded && !excluded.is_empty();
        let included = longest(&settings.included).map(|net| AppleStep {
            rule: AppleRule::EnforcedIncluded,
            net: Some(net),
            way: if is_dropping { AppleWay::Dropped } else { AppleWay::Tunnel },
        });
        let counts = assumptions.excludes_with_enforce != ExcludesWithEnforce::Ignored;
        let excluded = longest(excluded).filter(|_| counts).map(|net| AppleStep {
            rule: AppleRule::EnforcedExcluded,
            net: Some(net),
            way: AppleWay::Physical,
        });
        steps.extend(ranked(included.into_iter().chain(excluded), assumptions));
    }
    let mut say = |rule, net, way| steps.push(AppleStep { rule, net, way });
    match packet.scope {
        Some(AppleScope::Tunnel) if settings.is_connected => say(AppleRule::Scope, None, AppleWay::Tunnel),
        Some(AppleScope::Physical) => say(AppleRule::Scope, None, AppleWay::Physical),
        _ => {}
    }
    steps.extend(routes(destination, settings, table, assumptions));
    steps.push(AppleStep { rule: AppleRule::DefaultRoute, net: None, way: AppleWay::Physical });
    AppleDecision { way: steps[0].way, steps }
}

/// The longest prefix that the system applies to an IPv6 address of a tunnel: longer ones have no effect on iOS, and on
/// macOS cost the default route (so wireguard-apple and others clamp them).
pub const MAX_IPV6_PREFIX: u8 = 120;

/// What speaks before any prefix of the tunnel does.
fn before_routes(
    packet: &ApplePacket,
    settings: &AppleSettings,
    table: &SystemTable,
    assumptions: &AppleAssumptions,
) -> Vec<AppleStep> {
    let destination = packet.destination;
    let (is_connected, is_all) = (settings.is_connected, settings.include_all_networks);
    let is_own = destination.is_loopback()
        || table.addresses.contains(&destination)
        || is_connected && settings.addresses.iter().any(|own| own.addr() == destination);
    let on_link = table.on_link.iter().any(|net| net.contains(&destination));
    let remote = settings.tunnel_remote_addresses.contains(&destination);
    let rules = [
        (is_own, AppleRule::OwnAddress, AppleWay::Host),
        (packet.class == AppleClass::Provider, AppleRule::Provider, AppleWay::Physical),
        (remote && (is_connected || is_all), AppleRule::TunnelRemoteAddress, AppleWay::Physical),
        (is_all && settings.exempts(packet.class), AppleRule::ExemptClass, AppleWay::Physical),
        (is_all && settings.exclude_local_networks && on_link, AppleRule::LocalNetwork, AppleWay::Physical),
        (is_all && !is_connected, AppleRule::NotConnected, AppleWay::Dropped),
        (is_connected && packet.was_alive && assumptions.captures_live_flows, AppleRule::LiveFlow, AppleWay::Tunnel),
    ];
    rules.into_iter().filter(|(says, ..)| *says).map(|(_, rule, way)| AppleStep { rule, net: None, way }).collect()
}

/// What the routing table says, the longest prefix first; of equal ones, the system's wins.
fn routes(
    destination: IpAddr,
    settings: &AppleSettings,
    table: &SystemTable,
    assumptions: &AppleAssumptions,
) -> Vec<AppleStep> {
    let entry = |rule, way| move |net: IpNet| AppleStep { rule, net: Some(net), way };
    let system = table.on_link.iter().chain(&table.routes).copied();
    let mut steps: Vec<_> = system.map(entry(AppleRule::SystemRoute, AppleWay::Physical)).collect();
    if settings.is_connected {
        let excluded = settings.effective_excluded(assumptions).iter().copied();
        steps.extend(excluded.map(entry(AppleRule::Excluded, AppleWay::Physical)));
        steps.extend(settings.included.iter().copied().map(entry(AppleRule::Included, AppleWay::Tunnel)));
        let subnets = settings.addresses.iter().filter(|_| assumptions.has_subnet_routes).map(clamped);
        steps.extend(subnets.map(entry(AppleRule::TunnelSubnet, AppleWay::Tunnel)));
    }
    steps.retain(|step| step.net.is_some_and(|net| net.contains(&destination)));
    ranked(steps, assumptions)
}

/// In the order of the longest prefix, and of equal ones as rules win over one another.
fn ranked(steps: impl IntoIterator<Item = AppleStep>, assumptions: &AppleAssumptions) -> Vec<AppleStep> {
    let excluded = if assumptions.excluded_wins_ties { 1 } else { 3 };
    let mut steps: Vec<_> = steps.into_iter().collect();
    steps.sort_by_key(|step| {
        let rank = match step.rule {
            AppleRule::SystemRoute => 0,
            AppleRule::Excluded | AppleRule::EnforcedExcluded => excluded,
            _ => 2,
        };
        (std::cmp::Reverse(step.net.map(|net| net.prefix_len())), rank)
    });
    steps
}

/// The network that the system makes of a tunnel's address.
fn clamped(own: &IpNet) -> IpNet {
    match own {
        IpNet::V6(own) if own.prefix_len() > MAX_IPV6_PREFIX => {
            ipnet::Ipv6Net::new(own.addr(), MAX_IPV6_PREFIX).map_or(IpNet::V6(*own), |net| IpNet::V6(net.trunc()))
        }
        own => own.trunc(),
    }
}

/// Whether a prefix is one of loopback addresses.
pub(super) fn is_loopback(net: &IpNet) -> bool {
    net.network().is_loopback() && net.broadcast().is_loopback()
}
