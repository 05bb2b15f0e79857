//! Making and reverting one recorded change.

use super::netlink::Netlink;
use super::{address, link, routes, rules, sysctl};
use crate::firewall;
use crate::journal::{Entry, Journal, Mtu, Route};
use crate::route::error::RouteError;
use crate::socket;

/// Cuts a list of changes into runs that are made at once: routes together, so that many of them take little time,
/// everything else one by one.
pub(super) fn batches(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let together = |a: &Entry, b: &Entry| matches!((a, b), (Entry::Route(_), Entry::Route(_)));
    entries.chunk_by(together).flat_map(|run| run.chunks(BATCH))
}

/// Makes a batch of changes, a result each.
pub(super) async fn make_all(netlink: &Netlink, batch: &[Entry]) -> Vec<Result<(), RouteError>> {
    match batch {
        [Entry::Route(_), ..] => routes::add_all(netlink, &only_routes(batch)).await,
        _ => {
            let mut results = Vec::new();
            for entry in batch {
                results.push(make(netlink, entry).await);
            }
            results
        }
    }
}

/// Reverts a batch of changes, a result each.
pub(super) async fn revert_all(netlink: &Netlink, batch: &[Entry], journal: &Journal) -> Vec<Result<(), RouteError>> {
    match batch {
        [Entry::Route(_), ..] => routes::remove_all(netlink, &only_routes(batch)).await,
        _ => {
            let mut results = Vec::new();
            for entry in batch {
                results.push(revert(netlink, entry, journal).await);
            }
            results
        }
    }
}

fn only_routes(batch: &[Entry]) -> Vec<&Route> {
    let routes = batch.iter().filter_map(|entry| match entry {
        Entry::Route(route) => Some(route),
        _ => None,
    });
    routes.collect()
}

/// Makes a change. Interfaces and sockets are made by others and only recorded.
pub(super) async fn make(netlink: &Netlink, entry: &Entry) -> Result<(), RouteError> {
    match entry {
        Entry::Address(it) => address::add(netlink, it).await,
        Entry::Mtu(it) => link::set_mtu(netlink, &it.device, it.value).await,
        Entry::Up(device) => link::set_up(netlink, device, true).await,
        Entry::Route(it) => routes::add_all(netlink, &[it]).await.pop().unwrap_or(Ok(())),
        Entry::Sysctl(it) => sysctl::set(it),
        Entry::Rule(it) => rules::add(netlink, it).await,
        Entry::Firewall(it) => Ok(firewall::apply(it).await?),
        Entry::Link(_) | Entry::Socket { .. } => Ok(()),
    }
}

/// Reverts a change, if it is still there: what is gone already, or was changed by somebody else since, is left alone.
pub(super) async fn revert(netlink: &Netlink, entry: &Entry, journal: &Journal) -> Result<(), RouteError> {
    match entry {
        Entry::Address(it) => address::remove(netlink, it).await,
        Entry::Mtu(it) => restore_mtu(netlink, it).await,
        Entry::Up(device) => match link::by_index(netlink, device.index).await? {
            Some(found) if found.up => link::set_up(netlink, device, false).await,
            _ => Ok(()),
        },
        Entry::Route(it) => routes::remove_all(netlink, &[it]).await.pop().unwrap_or(Ok(())),
        Entry::Sysctl(it) => sysctl::restore(it, journal),
        Entry::Rule(it) => rules::remove(netlink, it).await,
        Entry::Firewall(it) => Ok(firewall::remove(&it.ifname).await?),
        Entry::Link(device) => link::delete(netlink, device).await,
        // That of a tunnel which is just going down has somebody behind it, who removes it last.
        Entry::Socket { path } => socket::remove_dead_at(path)
            .await
            .map_err(|source| RouteError::Socket { path: path.display().to_string(), source }),
    }
}

async fn restore_mtu(netlink: &Netlink, mtu: &Mtu) -> Result<(), RouteError> {
    match link::by_index(netlink, mtu.device.index).await? {
        Some(found) if found.mtu == mtu.value => link::set_mtu(netlink, &mtu.device, mtu.former).await,
        _ => Ok(()),
    }
}

/// Routes of one batch: progress is told and a failure noticed after each.
const BATCH: usize = 1024;
