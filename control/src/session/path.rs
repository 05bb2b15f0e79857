//! The network below the tunnel, as a host reports it.
//!
//! Reports come in bursts and repeat themselves; what matters is only whether datagrams would leave by another way than
//! before. Interfaces are known by their index: names are no interface of Apple's, and an interface that was made anew
//! under an old name is another one.

use std::num::NonZeroU32;

use serde::Serialize;

/// The path by which the tunnel's datagrams would leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NetworkPath {
    /// The interface's index; `None` if the host does not know it.
    pub interface: Option<NonZeroU32>,
    /// What kind of interface it is.
    pub kind: InterfaceKind,
    /// Whether the host believes that it leads anywhere.
    pub satisfied: bool,
    /// Whether it costs money (a cellular network, a hotspot).
    pub expensive: bool,
    /// Whether its user asked for little traffic.
    pub constrained: bool,
    /// Whether it has IPv4.
    pub ipv4: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Whether it is a cable to a developer's machine (SIOCGIFDIRECTLINK, Apple's TN3158), which leads nowhere.
    pub direct_link: bool,
}

/// The functional type of an interface (`IFRTYPE_FUNCTIONAL_*` in xnu's bsd/net/if.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceKind {
    /// Not known, or of a kind that was added later.
    Unknown,
    /// The loopback interface.
    Loopback,
    /// A cable.
    Wired,
    /// Wi-Fi with an access point.
    Wifi,
    /// Wi-Fi between devices (AWDL).
    WifiPeerToPeer,
    /// A cellular network.
    Cellular,
    /// A coprocessor of the same machine.
    Coprocessor,
    /// A paired watch or phone.
    Companion,
    /// A management interface.
    Management,
}

/// What a new report means for the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// Nothing.
    None,
    /// There is no network any more.
    Lost,
    /// Datagrams leave by another way, or by one again.
    Moved,
}

impl NetworkPath {
    /// What it means that this is the path after `before`; `None` is that nothing was reported so far.
    ///
    /// The first report of a usable path changes nothing: sockets that were just made use it already.
    #[must_use]
    pub fn change_from(&self, before: Option<&Self>) -> PathChange {
        let (was, is) = (before.is_none_or(Self::is_usable), self.is_usable());
        match (was, is) {
            (true, false) => PathChange::Lost,
            (false, true) => PathChange::Moved,
            (false, false) => PathChange::None,
            (true, true) => match before {
                Some(before) if self.way() != before.way() => PathChange::Moved,
                _ => PathChange::None,
            },
        }
    }

    /// Whether it is worth to send anything.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.satisfied && !self.direct_link
    }

    /// What a socket's way out depends on. Cost and constraints are none of it.
    fn way(&self) -> (Option<NonZeroU32>, bool, bool) {
        (self.interface, self.ipv4, self.ipv6)
    }
}

impl InterfaceKind {
    /// The kind with this number in xnu's header; any that is not known is [`Unknown`](Self::Unknown).
    #[must_use]
    pub const fn from_functional_type(number: u32) -> Self {
        match number {
            1 => Self::Loopback,
            2 => Self::Wired,
            3 => Self::Wifi,
            4 => Self::WifiPeerToPeer,
            5 => Self::Cellular,
            6 => Self::Coprocessor,
            7 => Self::Companion,
            8 => Self::Management,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn path(index: u32) -> NetworkPath {
        NetworkPath {
            interface: NonZeroU32::new(index),
            kind: InterfaceKind::Wifi,
            satisfied: true,
            expensive: false,
            constrained: false,
            ipv4: true,
            ipv6: false,
            direct_link: false,
        }
    }

    #[test]
    fn only_another_way_out_is_a_change() {
        let wifi = path(4);
        let lost = NetworkPath { satisfied: false, ..wifi };
        let cable = NetworkPath { direct_link: true, ..path(9) };
        let cases = [
            (None, wifi, PathChange::None),
            (None, lost, PathChange::Lost),
            (Some(wifi), wifi, PathChange::None),
            (Some(wifi), NetworkPath { expensive: true, constrained: true, ..wifi }, PathChange::None),
            (Some(wifi), path(5), PathChange::Moved),
            (Some(wifi), NetworkPath { ipv6: true, ..wifi }, PathChange::Moved),
            (Some(wifi), NetworkPath { ipv4: false, ipv6: true, ..wifi }, PathChange::Moved),
            (Some(wifi), lost, PathChange::Lost),
            (Some(lost), lost, PathChange::None),
            (Some(lost), wifi, PathChange::Moved),
            (Some(wifi), cable, PathChange::Lost),
            (Some(cable), NetworkPath { satisfied: false, ..cable }, PathChange::None),
        ];
        for (before, after, change) in cases {
            assert_eq!(after.change_from(before.as_ref()), change, "{before:?} -> {after:?}");
        }
    }

    #[test]
    fn kinds_of_later_systems_are_unknown_and_no_error() {
        let known: Vec<_> = (1..=8).map(InterfaceKind::from_functional_type).collect();
        assert!(!known.contains(&InterfaceKind::Unknown));
        for number in [0, 9, u32::MAX] {
            assert_eq!(InterfaceKind::from_functional_type(number), InterfaceKind::Unknown);
        }
    }
}
