//! What a tunnel changes on a Linux host, over rtnetlink.
//!
//! [`apply`] compares what is wanted with what the host shows and with the journal, records what is missing, adds it, and
//! then removes what the journal holds and is wanted no more. So the first start, a second call and a reload are one
//! operation; new routes are there before old ones go, and a failure on the way leaves the host as it was before the call.
//! [`undo`] takes back everything in a journal, also one that a dead process left behind.
//!
//! Nothing is removed that is not in the journal, and nothing of the journal that somebody has replaced meanwhile. No
//! program is run, but for nft(8) by the firewall. It works in the network namespace of the calling thread, inside a tokio runtime.

mod address;
mod change;
mod closed;
pub mod inspect;
mod link;
mod local;
mod monitor;
mod netlink;
mod plan;
mod routes;
mod rules;
mod sysctl;
mod underlay;

use std::collections::HashSet;

use ipnet::IpNet;

pub use closed::{keeps_closed, mark_in_force, undo_but_stay_closed};
pub use monitor::Monitor;

use super::{Applied, Binding, PulledOut, Reason, RouteError, mtu};
use crate::firewall::{self, FirewallError, Part};
use crate::journal::{Entry, Journal};
use crate::settings::{Family, MtuSource, Settings, TablePreference};
use link::Link;
use netlink::Netlink;
use plan::Occasion;
use rules::Numbers;

/// Fits settings to this host, and returns the mark of the tunnel's own packets, if they need one: fills in mark and table
/// where the settings leave them open, and leaves out protection that would need nftables where there is none.
///
/// The tunnel's sockets must carry the mark before [`apply`] adds the rules, or their packets would be routed into the
/// tunnel. Numbers in the journal, of a tunnel that is up, stay. A mark is not reserved until it is applied.
///
/// # Errors
///
/// The kernel's tables cannot be read or all are taken, or there is a kill switch and no nftables.
pub async fn pin(settings: &mut Settings, journal: &Journal) -> Result<Option<u32>, RouteError> {
    check_firewall(settings).await?;
    let Some(numbers) = rules::choose(&Netlink::open()?, settings, journal.entries()).await? else { return Ok(None) };
    settings.fwmark = Some(numbers.fwmark);
    settings.table = TablePreference::Number(numbers.table);
    Ok(settings.fwmark)
}

/// What the tunnel's own sockets must be bound to: nothing, for a mark keeps their datagrams out of the tunnel.
///
/// # Errors
///
/// None on this system.
pub async fn binding(_settings: &Settings) -> Result<Binding, RouteError> {
    Ok(Binding::Free)
}

/// Makes the host conform to the settings: firewall, addresses, MTU, up, routes, policy routing. Calling it again with the
/// same settings changes nothing but what others have changed meanwhile, and with other settings changes the difference.
///
/// # Errors
///
/// What could not be done and why. If something could not be added, everything that this call did is undone and the host
/// is as before. If something old could not be removed ([`RouteError::Left`]), the new settings are in force.
pub async fn apply(ifname: &str, settings: &Settings, journal: &mut Journal) -> Result<Applied, RouteError> {
    apply_with(ifname, settings, journal, &mut |_, _| ()).await
}

/// Does what [`apply`] does, and says now and then how many of how many changes are made.
///
/// # Errors
///
/// As those of [`apply`].
pub async fn apply_with(
    ifname: &str,
    settings: &Settings,
    journal: &mut Journal,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Applied, RouteError> {
    check_namespace(journal)?;
    let netlink = Netlink::open()?;
    let link = link::by_name(&netlink, ifname).await?;
    let numbers = rules::choose(&netlink, settings, journal.entries()).await?;
    let occasion = Occasion {
        settings,
        link: &link,
        mtu: choose_mtu(&netlink, settings, &link, numbers, journal).await?,
        numbers,
        local: &local_networks(&netlink, settings, &link).await?,
    };
    let plan = plan::changes(&netlink, &occasion, journal).await?;

    let missing = plan::missing(&netlink, &plan, &link, journal).await?;
    add(&netlink, journal, &plan, &missing, progress).await?;
    let removed = remove_unwanted(&netlink, ifname, journal, &plan).await?;
    if missing.len() + removed > 0 && settings.policy.is_some_and(|policy| policy.ipv6) {
        // What they change is in the tunnel's own table, and nothing that sockets have found in main.
        if let Err(error) = address::forget_ipv6_routes(&netlink, &link.device).await {
            tracing::debug!(%error, "connected sockets may keep their old IPv6 routes for a while");
        }
    }
    Ok(Applied {
        index: link.device.index,
        mtu: occasion.mtu,
        fwmark: numbers.map(|numbers| numbers.fwmark),
        binding: Binding::Free,
        table: numbers.filter(|_| settings.policy.is_some()).map(|numbers| numbers.table),
        changed: missing.len() + removed,
    })
}

/// What leaves a full tunnel because the main table has a route to it: nothing, unless main is looked at first.
///
/// # Errors
///
/// The kernel's tables cannot be read.
pub async fn pulled_out(ifname: &str, settings: &Settings) -> Result<Vec<PulledOut>, RouteError> {
    let Some(policy) = settings.policy.filter(|policy| policy.main_first) else { return Ok(Vec::new()) };
    let netlink = Netlink::open()?;
    let link = link::by_name(&netlink, ifname).await?;
    local::in_main(&netlink, &policy.families(), link.device.index).await
}

/// Leaves the reply protection out where there is no nftables, which is a loss only where the reverse path filter is strict.
/// A kill switch cannot be left out.
async fn check_firewall(settings: &mut Settings) -> Result<(), RouteError> {
    let Some(wanted) = &mut settings.firewall else { return Ok(()) };
    if wanted.kill_switch.is_some() {
        firewall::check(Part::KillSwitch).await?;
    }
    if wanted.reply_protection
        && let Err(error) = firewall::check(Part::ReplyProtection).await
    {
        if error.is_permission() {
            return Err(error.into());
        }
        tracing::warn!(%error, "no protection against forged answers, and none from a strict reverse path filter");
        wanted.reply_protection = false;
    }
    settings.firewall.take_if(|wanted| !wanted.reply_protection && wanted.kill_switch.is_none());
    Ok(())
}

/// The connected networks that may be reached beside the tunnel, if that is asked for.
async fn local_networks(netlink: &Netlink, settings: &Settings, link: &Link) -> Result<Vec<IpNet>, RouteError> {
    let kill_switch = settings.firewall.as_ref().and_then(|firewall| firewall.kill_switch.as_ref());
    if settings.local_networks.is_none() && !kill_switch.is_some_and(|wanted| wanted.local_networks) {
        return Ok(Vec::new());
    }
    local::trusted(netlink, link.device.index).await
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
    numbers: Option<Numbers>,
    journal: &Journal,
) -> Result<u16, RouteError> {
    let ipv6 = settings.carries(Family::Ipv6);
    match &settings.mtu {
        MtuSource::Fixed(mtu) if ipv6 && *mtu < mtu::MIN_IPV6 => Err(RouteError::MtuTooSmall { mtu: *mtu }),
        MtuSource::Fixed(mtu) => Ok(*mtu),
        MtuSource::DeriveFromUnderlay { endpoints, fwmark } => {
            let mark = fwmark.or(numbers.map(|numbers| numbers.fwmark));
            let outer = underlay::mtu(netlink, &link.device, endpoints, mark).await?;
            // While the underlay is away there is nothing to learn, and it most often comes back as it was.
            let before = plan::recorded_mtu(journal, &link.device).and_then(|mtu| u16::try_from(mtu).ok());
            Ok(before.filter(|_| outer.is_none()).unwrap_or_else(|| mtu::inner(outer, ipv6)))
        }
    }
}

/// Records and makes the missing changes of a plan, all or none.
async fn add(
    netlink: &Netlink,
    journal: &mut Journal,
    plan: &[Entry],
    missing: &[Entry],
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<(), RouteError> {
    let known: HashSet<&Entry> = journal.entries().iter().collect();
    let (mut record, mut replaced) = (Vec::new(), Vec::new());
    for entry in missing.iter().filter(|entry| !known.contains(entry)) {
        match journal.entries().iter().find(|recorded| recorded.is_replaced_by(entry)) {
            Some(old) => {
                record.push(entry.clone().in_place_of(old));
                replaced.push(old.clone());
            }
            None => record.push(entry.clone()),
        }
    }
    // One that another tunnel has set counts as changed by this one too, so that the last of them restores it.
    let among_missing: HashSet<&Entry> = missing.iter().collect();
    let shared =
        plan.iter().filter(|e| matches!(e, Entry::Sysctl(_)) && !known.contains(e) && !among_missing.contains(e));
    record.extend(shared.cloned());
    journal.edit(record.clone(), &replaced)?;

    let mut made: Vec<&Entry> = Vec::new();
    let mut failure = None;
    for batch in change::batches(missing) {
        for (entry, result) in batch.iter().zip(change::make_all(netlink, batch).await) {
            match result {
                Ok(()) => made.push(entry),
                Err(cause) => {
                    if is_uncertain(&cause) {
                        made.push(entry);
                    }
                    failure = failure.or(Some(cause));
                }
            }
        }
        if failure.is_some() {
            break;
        }
        progress(made.len(), missing.len());
    }
    let Some(cause) = failure else { return Ok(()) };
    let mut left = Vec::new();
    for entry in made.into_iter().rev() {
        let back = match replaced.iter().find(|old| old.is_replaced_by(entry)) {
            Some(old) => change::make(netlink, old).await,
            None => change::revert(netlink, entry, journal).await,
        };
        if let Err(error) = back {
            record.retain(|recorded| recorded != entry);
            left.push(error);
        }
    }
    if let Err(error) = journal.edit(replaced, &record) {
        left.push(error.into());
    }
    Err(if left.is_empty() { cause } else { RouteError::Left { cause: Some(Box::new(cause)), left } })
}

/// Removes what the journal holds and the plan does not want; says how much that was.
async fn remove_unwanted(
    netlink: &Netlink,
    ifname: &str,
    journal: &mut Journal,
    plan: &[Entry],
) -> Result<usize, RouteError> {
    let wanted: HashSet<&Entry> = plan.iter().collect();
    let unwanted: Vec<Entry> = journal
        .entries()
        .iter()
        .filter(|entry| !matches!(entry, Entry::Link(_) | Entry::Mtu(_) | Entry::Up(_) | Entry::Socket { .. }))
        .filter(|entry| !wanted.contains(entry))
        .cloned()
        .collect();
    let removed = revert(netlink, journal, &unwanted).await;
    if unwanted.iter().any(|entry| matches!(entry, Entry::Address(_))) {
        // With an IPv4 address go the later ones in its network, and with the last one all IPv4 routes of the interface
        // (net/ipv4/devinet.c, fib_frontend.c); with either goes its connected route.
        let link = link::by_name(netlink, ifname).await?;
        let missing = plan::missing(netlink, plan, &link, journal).await?;
        add(netlink, journal, plan, &missing, &mut |_, _| ()).await?;
    }
    removed.map(|()| unwanted.len())
}

/// Reverts entries of the journal, latest first, and forgets those that are reverted.
async fn revert(netlink: &Netlink, journal: &mut Journal, entries: &[Entry]) -> Result<(), RouteError> {
    let (mut reverted, mut left) = (Vec::new(), Vec::new());
    let latest_first: Vec<Entry> = entries.iter().rev().cloned().collect();
    for batch in change::batches(&latest_first) {
        for (entry, result) in batch.iter().zip(change::revert_all(netlink, batch, journal).await) {
            match result {
                Ok(()) => reverted.push(entry.clone()),
                Err(error) => left.push(error),
            }
        }
    }
    journal.edit(Vec::new(), &reverted)?;
    if left.is_empty() { Ok(()) } else { Err(RouteError::Left { cause: None, left }) }
}

fn check_namespace(journal: &Journal) -> Result<(), RouteError> {
    if journal.owner().is_of_this_network_namespace() {
        return Ok(());
    }
    Err(RouteError::OtherNamespace { name: journal.name().to_owned() })
}

/// Whether a change may have been made in spite of the error.
fn is_uncertain(error: &RouteError) -> bool {
    matches!(
        error,
        RouteError::Kernel { reason: Reason::Timeout | Reason::Unexpected, .. }
            | RouteError::Firewall(FirewallError::Timeout { .. } | FirewallError::Answer { .. })
    )
}

fn is_socket(entry: &Entry) -> bool {
    matches!(entry, Entry::Socket { .. })
}
