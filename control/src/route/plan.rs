//! The list of changes that settings need on this host, in the order in which they are made.
//!
//! The order keeps traffic out of a half-made tunnel: the interface is complete before routes lead to it, a table is
//! filled before a rule looks it up, and the rule that protects the local network comes before the one that would capture it.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::RouteError;
use super::link::Link;
use super::netlink::Netlink;
use super::routes::{self, Key};
use super::rules::{self, Policy};
use super::{address, sysctl};
use crate::journal::{Address, Entry, Journal, Mtu, Route};
use crate::settings::{Family, Settings, TABLE_MAIN};

/// All changes that the settings need, whether made already or not.
pub(super) async fn changes(
    netlink: &Netlink,
    settings: &Settings,
    link: &Link,
    mtu: u16,
    policy: Option<Policy>,
    journal: &Journal,
) -> Result<Vec<Entry>, RouteError> {
    let device = &link.device;
    // The MTU comes first: below 1280 the interface takes no IPv6 address.
    let mut plan = vec![Entry::Mtu(Mtu { device: device.clone(), former: link.mtu, value: u32::from(mtu) })];
    let addresses = settings.addresses.iter().map(|&address| Address { device: device.clone(), address });
    plan.extend(addresses.map(Entry::Address));
    plan.push(Entry::Up(device.clone()));
    plan.extend(settings.routes.iter().map(|route| {
        let table = route.table.unwrap_or(TABLE_MAIN);
        Entry::Route(Route { destination: route.net, table, device: Some(device.clone()), metric: None })
    }));
    let (Some(full), Some(policy)) = (settings.full_tunnel, policy) else { return Ok(plan) };
    for family in full.families() {
        let destination = default_of(family);
        let stop = Route { destination, table: policy.table, device: None, metric: Some(LAST_RESORT_METRIC) };
        plan.push(Entry::Route(stop.clone()));
        plan.push(Entry::Route(Route { device: Some(device.clone()), metric: None, ..stop }));
    }
    if full.ipv4 {
        plan.extend(sysctl::wanted(journal)?.map(Entry::Sysctl));
    }
    for family in full.families() {
        plan.extend(rules::pair(netlink, family, policy, journal.entries()).await?.map(Entry::Rule));
    }
    Ok(plan)
}

/// The changes of a plan that the host does not show.
pub(super) async fn missing(netlink: &Netlink, plan: &[Entry], link: &Link) -> Result<Vec<Entry>, RouteError> {
    let addresses = address::list(netlink, &link.device).await?;
    let mut tables: HashMap<(Family, u32, Option<u32>), HashSet<Key>> = HashMap::new();
    let mut missing = Vec::new();
    for entry in plan {
        let present = match entry {
            Entry::Address(it) => addresses.contains(&it.address),
            Entry::Mtu(it) => link.mtu == it.value,
            Entry::Up(_) => link.up,
            Entry::Route(it) => {
                let key = Key::of(it);
                let (family, table, interface) = (Family::of(&it.destination), it.table, key.interface);
                let found = match tables.entry((family, table, interface)) {
                    MapEntry::Occupied(found) => found.into_mut(),
                    MapEntry::Vacant(place) => {
                        let found = routes::list(netlink, family, table, interface).await?;
                        place.insert(found.into_iter().map(|found| found.key).collect())
                    }
                };
                found.contains(&key)
            }
            Entry::Sysctl(it) => sysctl::is_set(it)?,
            Entry::Rule(it) => rules::exists(netlink, it).await?,
            Entry::Link(_) | Entry::Socket { .. } => true,
        };
        if !present {
            missing.push(entry.clone());
        }
    }
    Ok(missing)
}

fn default_of(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => Ipv4Net::default().into(),
        Family::Ipv6 => Ipv6Net::default().into(),
    }
}

/// The metric of the route that says "unreachable" behind a full tunnel's default route.
///
/// When the interface goes, the kernel takes its routes, the table would be empty and everything would leave in the
/// clear by the main table. The value (0xff002000) is far behind any route that a person or program adds.
const LAST_RESORT_METRIC: u32 = 4_278_198_272;
