//! Applies a tunnel's [`Settings`] to a Linux host over rtnetlink, and takes them back.
//!
//! [`apply`] compares what is wanted with what the host shows and with the journal, records what is missing, adds it, and
//! then removes what the journal holds and is wanted no more. So the first start, a second call and a reload are one
//! operation; new routes are there before old ones go, and a failure on the way leaves the host as it was before the call.
//! [`undo`] takes back everything in a journal, also one that a dead process left behind.
//!
//! Nothing is removed that is not in the journal, and nothing of the journal that somebody has replaced meanwhile. No
//! program is run. It works in the network namespace of the calling thread, inside a tokio runtime.

mod address;
mod change;
mod closed;
mod error;
mod link;
mod monitor;
mod netlink;
mod plan;
mod routes;
mod rules;
mod sysctl;
mod underlay;

use std::collections::HashSet;

pub use closed::{keeps_closed, mark_in_force, undo_but_stay_closed};
pub use error::{Reason, RouteError};
pub use monitor::Monitor;

use crate::journal::{Entry, Journal, Mtu};
use crate::settings::{Family, MtuSource, Settings, TablePreference};
use link::Link;
use netlink::Netlink;
use rules::Policy;

/// What was applied, with the numbers that the settings left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The interface's number.
    pub index: u32,
    /// The interface's MTU in bytes.
    pub mtu: u16,
    /// The mark that the tunnel's own packets must carry, if it is a full tunnel.
    pub fwmark: Option<u32>,
    /// The table that holds the default routes, if it is a full tunnel.
    pub table: Option<u32>,
    /// How many changes this call has made.
    pub changed: usize,
}

/// Fills in the mark and the table of a full tunnel where the settings leave them open, and returns the mark.
///
/// The tunnel's sockets must carry the mark before [`apply`] adds the rules, or their packets would be routed into the
/// tunnel. Numbers in the journal, of a tunnel that is up, stay. A full tunnel's mark is not reserved until it is applied.
///
/// # Errors
///
/// The kernel's tables cannot be read or all are taken.
pub async fn pin(settings: &mut Settings, journal: &Journal) -> Result<Option<u32>, RouteError> {
    let Some(full) = &mut settings.full_tunnel else { return Ok(None) };
    let policy = rules::choose(&Netlink::open()?, full, journal.entries()).await?;
    full.fwmark = Some(policy.fwmark);
    full.table = TablePreference::Number(policy.table);
    Ok(full.fwmark)
}

/// Makes the host conform to the settings: addresses, MTU, up, routes, policy routing. Calling it again with the same
/// settings changes nothing, and with other settings changes the difference.
///
/// # Errors
///
/// What could not be done and why. If something could not be added, everything that this call did is undone and the host
/// is as before. If something old could not be removed ([`RouteError::Left`]), the new settings are in force.
pub async fn apply(ifname: &str, settings: &Settings, journal: &mut Journal) -> Result<Applied, RouteError> {
    check_namespace(journal)?;
    let netlink = Netlink::open()?;
    let link = link::by_name(&netlink, ifname).await?;
    let policy = match &settings.full_tunnel {
        Some(full) => Some(rules::choose(&netlink, full, journal.entries()).await?),
        None => None,
    };
    let mtu = choose_mtu(&netlink, settings, &link, policy).await?;
    let plan = plan::changes(&netlink, settings, &link, mtu, policy, journal).await?;

    let missing = plan::missing(&netlink, &plan, &link).await?;
    add(&netlink, journal, &plan, &missing).await?;
    remove_unwanted(&netlink, ifname, journal, &plan).await?;
    Ok(Applied {
        index: link.device.index,
        mtu,
        fwmark: policy.map(|policy| policy.fwmark),
        table: policy.map(|policy| policy.table),
        changed: missing.len(),
    })
}

/// Takes back everything in a journal, latest first, and forgets what is taken back. What is gone already counts as
/// taken back, so it can be called again, after a crash too. The journal itself stays; see [`Journal::remove`].
///
/// # Errors
///
/// [`RouteError::Left`] with all that could not be taken back, which the journal still holds.
pub async fn undo(journal: &mut Journal) -> Result<(), RouteError> {
    let mut entries = journal.entries().to_vec();
    if !journal.owner().is_of_this_boot() {
        // The reboot took the rest.
        journal.edit(Vec::new(), &entries.iter().filter(|e| !is_socket(e)).cloned().collect::<Vec<_>>())?;
        entries.retain(is_socket);
    }
    if entries.is_empty() {
        return Ok(());
    }
    check_namespace(journal)?;
    revert(&Netlink::open()?, journal, &entries).await
}

/// Sets the length of an interface's send queue, in packets; a tun device's default of 500 is short for fast tunnels.
///
/// # Errors
///
/// There is no such interface, or the kernel refuses.
pub async fn set_queue_length(ifname: &str, packets: u32) -> Result<(), RouteError> {
    let netlink = Netlink::open()?;
    let link = link::by_name(&netlink, ifname).await?;
    link::set_queue_length(&netlink, &link.device, packets).await
}

async fn choose_mtu(
    netlink: &Netlink,
    settings: &Settings,
    link: &Link,
    policy: Option<Policy>,
) -> Result<u16, RouteError> {
    let ipv6 = settings.carries(Family::Ipv6);
    match &settings.mtu {
        MtuSource::Fixed(mtu) if ipv6 && *mtu < underlay::MIN_IPV6 => Err(RouteError::MtuTooSmall { mtu: *mtu }),
        MtuSource::Fixed(mtu) => Ok(*mtu),
        MtuSource::DeriveFromUnderlay { endpoints, fwmark } => {
            let mark = fwmark.or(policy.map(|policy| policy.fwmark));
            underlay::mtu(netlink, &link.device, endpoints, mark, ipv6).await
        }
    }
}

/// Records and makes the missing changes of a plan, all or none.
async fn add(netlink: &Netlink, journal: &mut Journal, plan: &[Entry], missing: &[Entry]) -> Result<(), RouteError> {
    let known: HashSet<&Entry> = journal.entries().iter().collect();
    let (mut record, mut replaced) = (Vec::new(), Vec::new());
    for entry in missing {
        match (entry, recorded_mtu(journal, entry)) {
            // The journal keeps the value from before the tunnel's first change.
            (Entry::Mtu(new), Some(old)) => {
                record.push(Entry::Mtu(Mtu { former: old.former, ..new.clone() }));
                replaced.push(Entry::Mtu(old));
            }
            _ if !known.contains(entry) => record.push(entry.clone()),
            _ => {}
        }
    }
    // One that another tunnel has set counts as changed by this one too, so that the last of them restores it.
    let shared = plan.iter().filter(|e| matches!(e, Entry::Sysctl(_)) && !known.contains(e) && !missing.contains(e));
    record.extend(shared.cloned());
    journal.edit(record.clone(), &replaced)?;

    let mut made: Vec<&Entry> = Vec::new();
    for entry in missing {
        let Err(cause) = change::make(netlink, entry).await else {
            made.push(entry);
            continue;
        };
        if cause.is_uncertain() {
            made.push(entry);
        }
        let mut left = Vec::new();
        for entry in made.into_iter().rev() {
            if let Err(error) = change::revert(netlink, entry, journal).await {
                record.retain(|recorded| recorded != entry);
                left.push(error);
            }
        }
        if let Err(error) = journal.edit(replaced, &record) {
            left.push(error.into());
        }
        return Err(if left.is_empty() { cause } else { RouteError::Left { cause: Some(Box::new(cause)), left } });
    }
    Ok(())
}

/// Removes what the journal holds and the plan does not want.
async fn remove_unwanted(
    netlink: &Netlink,
    ifname: &str,
    journal: &mut Journal,
    plan: &[Entry],
) -> Result<(), RouteError> {
    let wanted: HashSet<&Entry> = plan.iter().collect();
    let unwanted: Vec<Entry> = journal
        .entries()
        .iter()
        .filter(|entry| matches!(entry, Entry::Address(_) | Entry::Route(_) | Entry::Sysctl(_) | Entry::Rule(_)))
        .filter(|entry| !wanted.contains(entry))
        .cloned()
        .collect();
    let removed = revert(netlink, journal, &unwanted).await;
    if unwanted.iter().any(|entry| matches!(entry, Entry::Address(_))) {
        // With an IPv4 address go the later ones in its network, and with the last one all IPv4 routes of the interface
        // (net/ipv4/devinet.c, fib_frontend.c); with either goes its connected route.
        let link = link::by_name(netlink, ifname).await?;
        let missing = plan::missing(netlink, plan, &link).await?;
        add(netlink, journal, plan, &missing).await?;
    }
    removed
}

/// Reverts entries of the journal, latest first, and forgets those that are reverted.
async fn revert(netlink: &Netlink, journal: &mut Journal, entries: &[Entry]) -> Result<(), RouteError> {
    let (mut reverted, mut left) = (Vec::new(), Vec::new());
    for entry in entries.iter().rev() {
        match change::revert(netlink, entry, journal).await {
            Ok(()) => reverted.push(entry.clone()),
            Err(error) => left.push(error),
        }
    }
    journal.edit(Vec::new(), &reverted)?;
    if left.is_empty() { Ok(()) } else { Err(RouteError::Left { cause: None, left }) }
}

fn recorded_mtu(journal: &Journal, entry: &Entry) -> Option<Mtu> {
    let Entry::Mtu(new) = entry else { return None };
    journal.entries().iter().find_map(|entry| match entry {
        Entry::Mtu(old) if old.device == new.device => Some(old.clone()),
        _ => None,
    })
}

fn check_namespace(journal: &Journal) -> Result<(), RouteError> {
    if journal.owner().is_of_this_network_namespace() {
        return Ok(());
    }
    Err(RouteError::OtherNamespace { name: journal.name().to_owned() })
}

fn is_socket(entry: &Entry) -> bool {
    matches!(entry, Entry::Socket { .. })
}
