//! The host's firewall, as far as a tunnel needs it: the kill switch, and the protection of answers that wg-quick(8) sets
//! up for a full tunnel. Everything is in one nftables table, `inet adit-INTERFACE`, which is replaced whole and which no
//! process has to keep alive; no other table is touched, and what another one drops stays dropped.
//!
//! The kill switch says what may leave, of this host's own packets and of forwarded ones, whatever routing says and whether
//! or not they belong to a flow that was there before: to loopback and into the tunnel; the tunnel's own datagrams, known by
//! their mark; DHCP, neighbour discovery and multicast membership, without which there is no underlay; and what the user
//! excluded. Everything else fails at once, with a reset or "administratively prohibited"; only to a host behind this one
//! that answer cannot be sent, unless it is in a local network or behind the tunnel.
//!
//! What it does not stop: packet sockets (AF_PACKET), as DHCP clients and sniffers have, and programs attached to devices
//! (XDP, tc), which are below the firewall; flows that somebody's flowtable forwards past it; bridged frames; programs with
//! the capability to set the mark, or a DHCP port as their source; other network namespaces, but for what this one forwards
//! of theirs; and whoever may change the firewall. Packets come in as before, but answers to them go only where anything
//! may: a login over the underlay from outside the local networks ends. Where two tunnels have kill switches, only what
//! both let through leaves.

mod error;
#[cfg(target_os = "linux")]
mod listing;
#[cfg(target_os = "linux")]
mod nft;
#[cfg(target_os = "linux")]
mod ruleset;
#[cfg(target_os = "linux")]
mod table;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::FirewallError;
#[cfg(target_os = "linux")]
pub use ruleset::ruleset;
#[cfg(target_os = "linux")]
pub use table::{Part, apply, check, exists, is_in_force, remove, table_name, tunnels};

/// What the firewall must do for one tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Firewall {
    /// The tunnel's interface. Rules match it by name, so they hold for a device that is made anew, too.
    pub ifname: String,
    /// The mark of the tunnel's own datagrams. With 0 nothing is let through by its mark.
    pub fwmark: u32,
    /// The interface's own addresses, for the reply protection.
    pub addresses: Vec<IpNet>,
    /// Whether to do what wg-quick does for a full tunnel.
    pub reply_protection: bool,
    /// What may leave outside of the tunnel; `None` is all.
    pub kill_switch: Option<KillSwitch>,
}

/// What may leave outside of the tunnel in spite of the kill switch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KillSwitch {
    /// Destinations that are excluded from the tunnel.
    pub excluded: Vec<IpNet>,
    /// Local networks that stay reachable.
    pub local: Vec<IpNet>,
    /// Whether DNS (ports 53 and 853) to local networks is refused, because the configuration names DNS servers.
    pub no_local_dns: bool,
}
