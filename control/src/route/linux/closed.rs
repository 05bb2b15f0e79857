//! What keeps a host closed when its tunnel has ended without being taken down: a killed process, a removed device.
//!
//! Policy rules, the routes that lead nowhere behind them, and what these need. They outlive the tunnel's device, so that
//! nothing that the tunnel carried leaves in the clear until somebody says so.

use super::netlink::Netlink;
use super::{check_namespace, revert};
use crate::journal::{Entry, Journal, Rule, Target, Via};
use crate::route::error::RouteError;

/// Whether a journal of this boot and network namespace holds something that keeps traffic from leaving in the clear.
#[must_use]
pub fn keeps_closed(journal: &Journal) -> bool {
    let owner = journal.owner();
    owner.is_of_this_boot() && owner.is_of_this_network_namespace() && journal.entries().iter().any(stops)
}

/// The mark that a datagram must carry to pass the rules of a journal.
#[must_use]
pub fn mark_in_force(journal: &Journal) -> Option<u32> {
    journal.entries().iter().find_map(|entry| match entry {
        Entry::Rule(Rule { target: Target::NotMarked(mark), .. }) => Some(*mark),
        Entry::Firewall(firewall) if firewall.kill_switch.is_some() => Some(firewall.fwmark),
        _ => None,
    })
}

/// Takes back everything in a journal, as [`undo`](super::undo) does, but for what keeps the host closed.
///
/// # Errors
///
/// [`RouteError::Left`] with all that could not be taken back, which the journal still holds.
pub async fn undo_but_stay_closed(journal: &mut Journal) -> Result<(), RouteError> {
    check_namespace(journal)?;
    let open: Vec<Entry> = journal.entries().iter().filter(|entry| !is_protective(entry)).cloned().collect();
    revert(&Netlink::open()?, journal, &open).await
}

fn stops(entry: &Entry) -> bool {
    match entry {
        Entry::Route(route) => route.via == Via::Unreachable,
        Entry::Firewall(firewall) => firewall.kill_switch.is_some(),
        _ => false,
    }
}

fn is_protective(entry: &Entry) -> bool {
    match entry {
        Entry::Rule(_) | Entry::Sysctl(_) | Entry::Firewall(_) => true,
        Entry::Route(route) => !matches!(route.via, Via::Device(_)),
        Entry::Link(_) | Entry::Address(_) | Entry::Mtu(_) | Entry::Up(_) | Entry::Socket { .. } => false,
    }
}
