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
mod listing;
mod nft;
mod ruleset;

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::FirewallError;
use nft::Nft;
use ruleset::contents;
pub use ruleset::ruleset;

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

/// Makes the kernel's rules those of `firewall`, in one transaction: before it the old ones hold and after it the new
/// ones, and nothing else is touched.
///
/// # Errors
///
/// Why it could not be done; the old rules hold then, but after [`FirewallError::Timeout`] the new ones may.
pub async fn apply(firewall: &Firewall) -> Result<(), FirewallError> {
    check_name(&firewall.ifname)?;
    let action = format!("set up the firewall of {}", firewall.ifname);
    let nft = Nft { action: &action, limit: firewall.time_limit() };
    nft.load(&ruleset(firewall), &[]).await.map(drop)
}

/// Whether the firewall can be used here, without changing anything: the kernel is asked to prepare a kill switch, and
/// then to forget it.
///
/// # Errors
///
/// What is missing: the program, the permission, or the kernel's support.
pub async fn check() -> Result<(), FirewallError> {
    let nothing = KillSwitch { excluded: Vec::new(), local: Vec::new(), no_local_dns: false };
    let firewall = Firewall {
        ifname: "check".into(),
        fwmark: 1,
        addresses: Vec::new(),
        reply_protection: false,
        kill_switch: Some(nothing),
    };
    let nft = Nft { action: "use the firewall", limit: TIME_LIMIT };
    nft.load(&ruleset(&firewall), &["-c"]).await.map(drop)
}

/// Whether the kernel's rules are those that [`apply`] makes: all of them and no other, none changed or reordered, the
/// chains where they were and with their policy, the same prefixes in the sets.
///
/// # Errors
///
/// The firewall cannot be read.
pub async fn is_in_force(firewall: &Firewall) -> Result<bool, FirewallError> {
    check_name(&firewall.ifname)?;
    let action = format!("read the firewall of {}", firewall.ifname);
    let nft = Nft { action: &action, limit: firewall.time_limit() };
    match nft.load(&ruleset::question(&firewall.ifname), &[]).await {
        Ok(answer) => listing::matches(&answer, &contents(firewall)).map_err(|error| nft.unintelligible(&error)),
        // No table reads like no support by the kernel.
        Err(FirewallError::Kernel { .. }) if !exists(&firewall.ifname).await? => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the tunnel's table away; that it is gone already is no error.
///
/// # Errors
///
/// Why it could not be done.
pub async fn remove(ifname: &str) -> Result<(), FirewallError> {
    check_name(ifname)?;
    let action = format!("remove the firewall of {ifname}");
    let nft = Nft { action: &action, limit: TIME_LIMIT };
    nft.load(&ruleset::removal(ifname), &[]).await.map(drop)
}

/// Whether the tunnel has a table, whatever it holds.
///
/// # Errors
///
/// The firewall cannot be read.
pub async fn exists(ifname: &str) -> Result<bool, FirewallError> {
    check_name(ifname)?;
    let nft = Nft { action: "list the firewall's tables", limit: TIME_LIMIT };
    let answer = nft.run(&["list", "tables", "inet"], &[]).await?;
    listing::names(&answer, &table_name(ifname)).map_err(|error| nft.unintelligible(&error))
}

/// The name of a tunnel's table, of family `inet`.
#[must_use]
pub fn table_name(ifname: &str) -> String {
    format!("adit-{ifname}")
}

impl Firewall {
    fn time_limit(&self) -> Duration {
        let prefixes = self.kill_switch.as_ref().map_or(0, |switch| switch.excluded.len() + switch.local.len());
        TIME_LIMIT + TIME_PER_PREFIX * u32::try_from(prefixes).unwrap_or(u32::MAX)
    }
}

/// A tunnel's name must not mean anything to nftables, for which `@NAME` is a set and `NAME*` any interface.
fn check_name(ifname: &str) -> Result<(), FirewallError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    let valid = (1..=15).contains(&ifname.len()) && ifname.bytes().all(allowed) && ifname != "." && ifname != "..";
    if valid { Ok(()) } else { Err(FirewallError::Name { name: ifname.to_owned() }) }
}

/// How long `nft` may take: it needs 20 ms, and more on a host that is busy.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How much longer for each prefix: 100 000 take 2 s on two cores with a flood of packets beside.
const TIME_PER_PREFIX: Duration = Duration::from_micros(200);
