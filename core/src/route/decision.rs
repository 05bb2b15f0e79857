//! The words in which a [`RouteModel`](super::RouteModel) answers: ways, rules, and what an answer is made of.

use ipnet::IpNet;
use thiserror::Error;

/// How a tunnel's routes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Routing {
    /// There are none: `Table = off`, or somebody else makes them.
    Off,
    /// As wg-quick(8) does it: in main, beside the routes that are there, and only a default route in a table of its own.
    Plain,
    /// All in a table of the tunnel's own that is asked before main.
    Strict,
}

/// One thing that claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The prefix that it is about.
    pub net: IpNet,
    /// What it is.
    pub kind: RuleKind,
}

/// Why a [`Rule`] claims an address. In this order they win over one another where everything else is equal, but
/// for the metrics of IPv6 (see [`RouteInputs::connected`](super::RouteInputs::connected)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RuleKind {
    /// An address of the host itself, or its loopback network.
    OwnAddress,
    /// The broadcast address of a network that the host has an address in.
    Broadcast {
        /// Whether that is the tunnel's.
        tunnel: bool,
    },
    /// IPv6 multicast, which the kernel sends by an interface and not by a table.
    Multicast,
    /// A peer's allowed IP.
    AllowedIp {
        /// Which peer, by the number that it was given in [`RouteInputs::allowed`](super::RouteInputs::allowed).
        peer: usize,
    },
    /// Taken out of the tunnel by the user.
    Excluded,
    /// A connected prefix that is taken out of the tunnel because local networks are, and that is [`trusted_local`](super::trusted_local).
    LocalNetwork,
    /// IPv6 link-local addresses, which mean nothing beyond their link.
    LinkLocalScope,
    /// The network of one of the tunnel's own addresses, which the kernel has a connected route to.
    TunnelNetwork,
    /// A network that the underlay is connected to, which the kernel has a route to in main.
    Connected,
    /// Another route in main that is more specific than a default one.
    MoreSpecificMain,
    /// The mark of the tunnel's own datagrams, which leads them past the tunnel's table.
    Mark,
    /// The kill switch: what may leave by the underlay is listed, and this is not.
    KillSwitch,
}

/// Where an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// Through the tunnel.
    Tunnel {
        /// To which peer, by the number that it was given in [`RouteInputs::allowed`](super::RouteInputs::allowed).
        peer: usize,
    },
    /// Into the tunnel's device, behind which no peer has it among its allowed IPs: the engine drops it.
    NoPeer,
    /// As without the tunnel.
    Underlay,
    /// On the host itself.
    Host,
    /// Nowhere: the kill switch refuses it.
    Blocked,
}

/// What becomes of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where it is reached.
    pub way: Way,
    /// The rule that says so. `None`: no rule contains it, so that it goes where the host's default route leads.
    pub by: Option<Rule>,
    /// All other rules that contain it, in the order in which they would have had their say.
    pub lost: Vec<Rule>,
}

/// A prefix for all addresses of which there is one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The prefix.
    pub net: IpNet,
    /// Where its addresses are reached.
    pub way: Way,
    /// The rule that says so. Which rules lose to it may differ within the prefix.
    pub by: Option<Rule>,
}

/// A prefix taken apart, by [`RouteModel::partition`](super::RouteModel::partition).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The parts, in the order of their addresses.
    pub parts: Vec<Part>,
    /// Whether these are all: there would have been more than the limit.
    pub is_complete: bool,
}

/// Why no model can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RouteModelError {
    /// A prefix is to go into the tunnel and to stay out of it.
    #[error(
        "{net} is both an allowed and an excluded prefix: it can be one of them only (a longer prefix inside it may be \
         the other)"
    )]
    IncludedAndExcluded {
        /// The prefix.
        net: IpNet,
    },
}

impl Routing {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Plain => "plain",
            Self::Strict => "strict",
        }
    }
}

impl RuleKind {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnAddress => "own-address",
            Self::Broadcast { .. } => "broadcast",
            Self::Multicast => "multicast",
            Self::AllowedIp { .. } => "allowed-ip",
            Self::Excluded => "excluded",
            Self::LocalNetwork => "local-network",
            Self::LinkLocalScope => "link-local-scope",
            Self::TunnelNetwork => "tunnel-network",
            Self::Connected => "connected",
            Self::MoreSpecificMain => "more-specific-main",
            Self::Mark => "mark",
            Self::KillSwitch => "kill-switch",
        }
    }

    /// Whether it sends the search on to main.
    pub(super) fn is_throw(self) -> bool {
        matches!(self, Self::Excluded | Self::LocalNetwork | Self::LinkLocalScope)
    }
}

impl Way {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnel { .. } => "tunnel",
            Self::NoPeer => "no-peer",
            Self::Underlay => "underlay",
            Self::Host => "host",
            Self::Blocked => "blocked",
        }
    }
}
