//! The list of changes that settings need on this host, in the order in which they are made.
//!
//! The order keeps traffic out of a half-made tunnel: the interface is complete before routes lead to it, a table is
//! filled before a rule looks it up, and an exception comes before what it is an exception of.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::link::Link;
use super::netlink::Netlink;
use super::routes::{self, Key, KeyVia};
use super::rules::{self, Numbers};
use super::{address, sysctl};
use crate::firewall::{self, Firewall, KillSwitch};
use crate::journal::{Address, Device, Entry, Journal, Mtu, Route, Via};
use crate::route::error::RouteError;
use crate::settings::{self, Family, Place, Settings, Way};

/// What a plan is made for.
pub(super) struct Occasion<'a> {
    pub(super) settings: &'a Settings,
    pub(super) link: &'a Link,
    /// The MTU that the interface is to have, in bytes.
    pub(super) mtu: u16,
    /// The numbers of a tunnel with policy routing or a kill switch.
    pub(super) numbers: Option<Numbers>,
    /// The connected networks that stay reachable.
    pub(super) local: &'a [IpNet],
}

/// All changes that the settings need, whether made already or not.
pub(super) async fn changes(
    netlink: &Netlink,
    occasion: &Occasion<'_>,
    journal: &Journal,
) -> Result<Vec<Entry>, RouteError> {
    let Occasion { settings, link, mtu, numbers, .. } = occasion;
    let device = &link.device;
    // The firewall comes first: a kill switch is closed before anything leads anywhere else.
    let mut plan: Vec<Entry> = firewall(occasion).map(Entry::Firewall).into_iter().collect();
    // Below an MTU of 1280 the interface takes no IPv6 address.
    plan.push(Entry::Mtu(Mtu { device: device.clone(), former: link.mtu, value: u32::from(*mtu) }));
    let addresses = settings.addresses.iter().map(|&address| Address { device: device.clone(), address });
    plan.extend(addresses.map(Entry::Address));
    plan.push(Entry::Up(device.clone()));
    plan.extend(routes(occasion).map(Entry::Route));
    let (Some(policy), Some(numbers)) = (settings.policy, *numbers) else { return Ok(plan) };
    if policy.ipv4 {
        plan.extend(sysctl::wanted(journal)?.map(Entry::Sysctl));
    }
    for family in policy.families() {
        let rules = rules::wanted(netlink, family, policy, numbers, journal.entries()).await?;
        plan.extend(rules.into_iter().map(Entry::Rule));
    }
    Ok(plan)
}

/// The routes of the settings, and those that let local networks out.
fn routes(occasion: &Occasion<'_>) -> impl Iterator<Item = Route> {
    let Occasion { settings, link, numbers, local, .. } = occasion;
    // A network that is the tunnel's as well goes into the tunnel, or whoever names a network could take its traffic.
    let named: HashSet<IpNet> = settings.routes.iter().map(|route| route.net).collect();
    let families = settings.policy.map(|policy| policy.families());
    let carried = move |net: &IpNet| families.as_ref().is_none_or(|families| families.contains(&Family::of(net)));
    let excepted = settings.local_networks.into_iter().flat_map(move |place| {
        let local: Vec<IpNet> = local.iter().filter(|net| !named.contains(*net) && carried(net)).copied().collect();
        local.into_iter().map(move |net| settings::Route { net, place, way: Way::Underlay })
    });
    // Exceptions are there before the routes that they are exceptions of.
    excepted.chain(settings.routes.iter().copied()).filter_map(|route| {
        let table = match route.place {
            Place::Table(number) => number,
            Place::Own => numbers.map(|numbers| numbers.table)?,
        };
        let (via, metric) = match route.way {
            Way::Tunnel => (Via::Device(link.device.clone()), None),
            Way::Underlay => (Via::Throw, Some(EXCEPTION_METRIC)),
            Way::Nowhere => (Via::Unreachable, Some(LAST_RESORT_METRIC)),
        };
        Some(Route { destination: route.net, table, via, metric })
    })
}

fn firewall(occasion: &Occasion<'_>) -> Option<Firewall> {
    let Occasion { settings, link, numbers, local, .. } = occasion;
    let wanted = settings.firewall.as_ref()?;
    let kill_switch = wanted.kill_switch.as_ref().map(|wanted| KillSwitch {
        excluded: wanted.excluded.clone(),
        local: if wanted.local_networks { [local, LOCAL_GROUPS.as_slice()].concat() } else { Vec::new() },
        no_local_dns: wanted.no_local_dns,
    });
    Some(Firewall {
        ifname: link.device.name.clone(),
        fwmark: numbers.map_or(0, |numbers| numbers.fwmark),
        addresses: settings.addresses.clone(),
        reply_protection: wanted.reply_protection,
        kill_switch,
    })
}

/// The changes of a plan that the host does not show.
///
/// An MTU that was set before and is another one now is left alone: hooks set it, and what is wrong about a smaller one
/// is known to whoever wants it.
pub(super) async fn missing(
    netlink: &Netlink,
    plan: &[Entry],
    link: &Link,
    journal: &Journal,
) -> Result<Vec<Entry>, RouteError> {
    let addresses = address::list(netlink, &link.device).await?;
    let mut tables: HashMap<(Family, u32, Option<u32>), HashSet<Key>> = HashMap::new();
    let mut missing = Vec::new();
    for entry in plan {
        let present = match entry {
            Entry::Address(it) => addresses.contains(&it.address),
            Entry::Mtu(it) => link.mtu == it.value || recorded_mtu(journal, &it.device) == Some(it.value),
            Entry::Up(_) => link.up,
            Entry::Route(it) => {
                let key = Key::of(it);
                let (family, table) = (Family::of(&it.destination), it.table);
                let interface = match key.via {
                    KeyVia::Interface(index) => Some(index),
                    _ => None,
                };
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
            Entry::Firewall(it) => firewall::is_in_force(it).await?,
            Entry::Link(_) | Entry::Socket { .. } => true,
        };
        if !present {
            missing.push(entry.clone());
        }
    }
    Ok(missing)
}

/// The MTU that the journal says an interface was given, in bytes.
pub(super) fn recorded_mtu(journal: &Journal, device: &Device) -> Option<u32> {
    journal.entries().iter().find_map(|entry| match entry {
        Entry::Mtu(mtu) if mtu.device == *device => Some(mtu.value),
        _ => None,
    })
}

/// The metric of an exception. Another one than that of a route into the tunnel, so that the two can be there together
/// while a prefix goes from one to the other; then it is the tunnel's.
const EXCEPTION_METRIC: u32 = 4096;

/// The metric of the route that says "unreachable" behind a full tunnel's default route.
///
/// When the interface goes, the kernel takes its routes, the table would be empty and everything would leave in the
/// clear by the main table. The value (0xff002000) is far behind any route that a person or program adds.
const LAST_RESORT_METRIC: u32 = 4_278_198_272;

/// What programs send to the whole local network: link-local multicast (RFC 5771 section 4, RFC 4291 section 2.7), service
/// discovery (SSDP) and the limited broadcast.
const LOCAL_GROUPS: [IpNet; 4] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 24)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(239, 255, 255, 250), 32)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16)),
];
