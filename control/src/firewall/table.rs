//! A tunnel's table in the kernel: made, replaced, compared, removed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::error::FirewallError;
use super::nft::Nft;
use super::ruleset::{self, contents, ruleset};
use super::{Firewall, KillSwitch, listing};

/// What a firewall can be needed for; each needs another part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// See [`Firewall::reply_protection`].
    ReplyProtection,
    /// See [`Firewall::kill_switch`].
    KillSwitch,
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

/// Whether a part of the firewall can be used here, without changing anything: the kernel is asked to prepare it, and then
/// to forget it.
///
/// # Errors
///
/// What is missing: the program, the permission, or the kernel's support.
pub async fn check(part: Part) -> Result<(), FirewallError> {
    let nothing = KillSwitch { excluded: Vec::new(), local: Vec::new(), no_local_dns: false };
    let firewall = Firewall {
        ifname: "check".into(),
        fwmark: 1,
        addresses: vec![IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST))],
        reply_protection: part == Part::ReplyProtection,
        kill_switch: Some(nothing).filter(|_| part == Part::KillSwitch),
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
    Ok(tables().await?.contains(&table_name(ifname)))
}

/// The tunnels that have a table, running or not, by their interfaces' names.
///
/// # Errors
///
/// The firewall cannot be read.
pub async fn tunnels() -> Result<Vec<String>, FirewallError> {
    Ok(tables().await?.iter().filter_map(|table| table.strip_prefix(PREFIX)).map(str::to_owned).collect())
}

/// The name of a tunnel's table, of family `inet`.
#[must_use]
pub fn table_name(ifname: &str) -> String {
    format!("{PREFIX}{ifname}")
}

/// All tables of the family `inet`.
async fn tables() -> Result<Vec<String>, FirewallError> {
    let nft = Nft { action: "list the firewall's tables", limit: TIME_LIMIT };
    let answer = nft.run(&["list", "tables", "inet"], &[]).await?;
    listing::names(&answer).map_err(|error| nft.unintelligible(&error))
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

/// What the names of tunnels' tables begin with.
const PREFIX: &str = "adit-";

/// How long `nft` may take: it needs 20 ms, and more on a host that is busy.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How much longer for each prefix: 100 000 take 2 s on two cores with a flood of packets beside.
const TIME_PER_PREFIX: Duration = Duration::from_micros(200);
