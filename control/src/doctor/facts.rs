//! What is known about a tunnel and its host. Plain values: whoever has them can judge them without a kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::api::StatusReport;
use crate::config::Config;
use crate::firewall::Firewall;
use crate::journal::{Address, Device, Entry, Mtu, Route, Rule, Sysctl, Target, Via};
use crate::route::inspect::{
    KernelAddress, KernelLink, KernelRoute, KernelRule, KernelWay, Mark, RouteKind, RuleAction,
};
use crate::settings::{Family, TABLE_MAIN};

/// A fact, or why it is not known: a clause without full stop.
pub type Known<T> = Result<T, String>;

/// What is known about one tunnel.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The interface's name.
    pub name: String,
    /// What its daemon says.
    pub daemon: Daemon,
    /// Its journal; `None` if there is no such file.
    pub journal: Known<Option<JournalState>>,
    /// What was applied for it, as its journal tells, or as it looks from the kernel's side.
    pub in_force: InForce,
    /// The file that it was configured from, as it is now.
    pub config: Known<Config>,
    /// What the kernel has.
    pub kernel: Known<Kernel>,
    /// The tunnel's table of nftables.
    pub firewall: Known<FirewallState>,
    /// Kernel parameters by their path below /proc/sys; one that is not there is absent.
    pub sysctls: BTreeMap<String, String>,
    /// What the kernel does with some packets.
    pub answers: Vec<Answer>,
    /// The name servers of the host.
    pub name_servers: Vec<IpAddr>,
    /// Whether wg(8) reaches the tunnel.
    pub uapi_answers: Known<bool>,
    /// The newest handshake timestamp that was ever used with the tunnel's key.
    pub newest_timestamp: Option<SystemTime>,
    /// The wall clock.
    pub now: SystemTime,
}

/// What a daemon says.
#[derive(Debug, Clone)]
pub enum Daemon {
    /// It answers.
    Answers(Box<StatusReport>),
    /// It is there and does not answer; `stopped` by a signal.
    Silent {
        /// The process, if it is known.
        pid: Option<u32>,
        /// What was tried.
        why: String,
        /// Whether it is stopped (SIGSTOP).
        stopped: bool,
    },
    /// It belongs to somebody else.
    Forbidden(String),
    /// There is none.
    Gone,
}

/// A journal, without its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalState {
    /// The file.
    pub path: PathBuf,
    /// The process that wrote it.
    pub pid: u32,
    /// Whether that is still running.
    pub owner_alive: bool,
    /// Whether it speaks of this network namespace and this boot.
    pub is_of_this_host: bool,
    /// Whether it holds what keeps a host closed.
    pub keeps_closed: bool,
}

/// What was applied for a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// The interface, if there is one.
    pub device: Option<Device>,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Its policy rules.
    pub rules: Vec<Rule>,
    /// Kernel parameters.
    pub sysctls: Vec<Sysctl>,
    /// Its firewall.
    pub firewall: Option<Firewall>,
    /// Whether the journal says so. If not, it is what the kernel has under the tunnel's name and Adit's protocol number,
    /// of which nothing can be found missing.
    pub is_recorded: bool,
}

/// The tunnel's table of nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallState {
    /// It is as it was applied.
    InForce,
    /// It is not there, or somebody has changed it.
    Changed,
    /// The host has no nftables, and this is what is missing.
    Unavailable(String),
}

/// What the kernel has, in this network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Policy rules, in the order of the kernel's look-up within a family.
    pub rules: Vec<KernelRule>,
    /// Routes of all tables.
    pub routes: Vec<KernelRoute>,
    /// Interfaces.
    pub links: Vec<KernelLink>,
    /// Their addresses.
    pub addresses: Vec<KernelAddress>,
}

/// A packet that the kernel is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its destination; the port is of no matter.
    pub to: SocketAddr,
    /// Its mark.
    pub mark: u32,
    /// Why it is asked.
    pub purpose: Purpose,
}

/// Why the kernel is asked about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is one of the tunnel's own datagrams.
    Endpoint,
    /// It is one that the tunnel is to carry, because of this prefix.
    Carried(IpNet),
    /// It is to a name server.
    NameServer,
}

/// What the kernel would do with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// Its way, or the kernel's word for why there is none.
    pub way: Known<KernelWay>,
}

/// A journal with all that it holds.
pub type Recorded = (JournalState, Vec<Entry>);

/// What is known about a host's tunnels that do not run.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The journals that there are, by the tunnel's name.
    pub journals: Known<Vec<(String, Known<Recorded>)>>,
    /// What the kernel has.
    pub kernel: Known<Kernel>,
    /// The tunnels that have a table of nftables.
    pub firewalls: Known<Vec<String>>,
    /// Control sockets of Adit's that nobody listens on.
    pub dead_sockets: Known<Vec<String>>,
}

impl Facts {
    /// What the daemon says, if it does.
    #[must_use]
    pub fn status(&self) -> Option<&StatusReport> {
        match &self.daemon {
            Daemon::Answers(report) => Some(report),
            _ => None,
        }
    }

    /// What the daemon says, or why it does not.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn told(&self) -> Known<&StatusReport> {
        match &self.daemon {
            Daemon::Answers(report) => Ok(report),
            Daemon::Silent { .. } => Err("the daemon does not answer".into()),
            Daemon::Forbidden(why) => Err(why.clone()),
            Daemon::Gone => Err("there is no daemon".into()),
        }
    }

    /// Whether the tunnel's endpoints are known.
    ///
    /// # Errors
    /// Why not.
    pub fn endpoints_are_known(&self) -> Known<()> {
        self.told().map(|_| ()).or_else(|why| self.config.as_ref().map(|_| ()).map_err(|_| why))
    }

    /// The kernel's state, or why it is not known.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn kernel(&self) -> Known<&Kernel> {
        self.kernel.as_ref().map_err(Clone::clone)
    }

    /// The mark that the tunnel's own datagrams carry.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.status().map(|status| status.fwmark).or_else(|| self.in_force.mark()).unwrap_or(0)
    }

    /// The number of the tunnel's interface.
    #[must_use]
    pub fn index(&self) -> Option<u32> {
        let by_name = || self.kernel.as_ref().ok()?.link_named(&self.name).map(|link| link.device.index);
        self.in_force.device.as_ref().map(|device| device.index).or_else(by_name)
    }
}

impl InForce {
    /// What the entries of a journal say.
    #[must_use]
    pub fn recorded(entries: &[Entry]) -> Self {
        let mut all = Self { is_recorded: true, ..Self::default() };
        for entry in entries.iter().cloned() {
            match entry {
                Entry::Link(device) | Entry::Up(device) => all.device = Some(device),
                Entry::Address(address) => all.addresses.push(address),
                Entry::Mtu(mtu) => all.mtu = Some(mtu),
                Entry::Route(route) => all.routes.push(route),
                Entry::Sysctl(sysctl) => all.sysctls.push(sysctl),
                Entry::Rule(rule) => all.rules.push(rule),
                Entry::Firewall(firewall) => all.firewall = Some(firewall),
                Entry::Socket { .. } => {}
            }
        }
        all
    }

    /// What the kernel has under a tunnel's name, where its journal may not be read.
    #[must_use]
    pub fn seen(kernel: &Kernel, name: &str) -> Self {
        let Some(link) = kernel.link_named(name) else { return Self::default() };
        let device = link.device.clone();
        let ours = kernel.routes.iter().filter(|route| route.is_ours && route.leads_to(device.index));
        let routes: Vec<Route> = ours
            .map(|route| Route {
                destination: route.destination,
                table: route.table,
                via: Via::Device(device.clone()),
                metric: Some(route.metric),
            })
            .collect();
        let all: Vec<Rule> = kernel.rules.iter().filter_map(as_ours).collect();
        let leads = |rule: &Rule| rule.table != TABLE_MAIN && routes.iter().any(|route| route.table == rule.table);
        // The one that looks at main first stands directly before.
        let pair = |rule: &Rule| {
            let partner = |other: &&Rule| other.family == rule.family && other.priority == rule.priority + 1;
            rule.target == Target::SuppressDefault && all.iter().find(partner).is_some_and(leads)
        };
        let rules = all.iter().filter(|rule| leads(rule) || pair(rule)).cloned();
        let addresses = kernel.addresses.iter().filter(|found| found.device == device);
        let addresses = addresses.map(|found| Address { device: device.clone(), address: found.address });
        Self { rules: rules.collect(), addresses: addresses.collect(), routes, device: Some(device), ..Self::default() }
    }

    /// The rule of a family that sends what is not the tunnel's own into the tunnel's table.
    #[must_use]
    pub fn policy(&self, family: Family) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.family == family && matches!(rule.target, Target::NotMarked(_)))
    }

    /// The mark that the rules and the firewall except.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        let by_rule = self.rules.iter().find_map(|rule| match rule.target {
            Target::NotMarked(mark) => Some(mark),
            Target::SuppressDefault => None,
        });
        by_rule.or_else(|| self.firewall.as_ref().map(|firewall| firewall.fwmark).filter(|mark| *mark != 0))
    }

    /// The tunnel's own table.
    #[must_use]
    pub fn table(&self) -> Option<u32> {
        [Family::Ipv4, Family::Ipv6].into_iter().find_map(|family| self.policy(family).map(|rule| rule.table))
    }

    /// Whether routes in main that are no default ones go before the tunnel's, as with wg-quick.
    #[must_use]
    pub fn main_first(&self) -> bool {
        self.rules.iter().any(|rule| rule.target == Target::SuppressDefault)
    }

    /// Whether there is a kill switch.
    #[must_use]
    pub fn kill_switch(&self) -> bool {
        self.firewall.as_ref().is_some_and(|firewall| firewall.kill_switch.is_some())
    }

    /// The routes into the tunnel that the kernel comes to: those in main, and those in the table that its rule looks up.
    pub fn carried(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| {
            let own = self.policy(Family::of(&route.destination)).is_some_and(|rule| rule.table == route.table);
            matches!(route.via, Via::Device(_)) && (own || route.table == TABLE_MAIN)
        })
    }

    /// Whether everything of a family goes into the tunnel: by a default route, or by both halves.
    #[must_use]
    pub fn is_full(&self, family: Family) -> bool {
        let of_length = |length| {
            let nets = self.carried().map(|route| &route.destination);
            nets.filter(|net| net.prefix_len() == length && Family::of(net) == family).count()
        };
        of_length(0) > 0 || of_length(1) == 2
    }

    /// Whether the tunnel has routes of a family that the kernel comes to.
    #[must_use]
    pub fn carries(&self, family: Family) -> bool {
        self.carried().any(|route| Family::of(&route.destination) == family)
    }
}

impl Kernel {
    /// The interface with this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&KernelLink> {
        self.links.iter().find(|link| link.device.name == name)
    }

    /// The interface with this number.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<&KernelLink> {
        self.links.iter().find(|link| link.device.index == index)
    }

    /// The default routes of the main table that lead somewhere, but not into this interface; best first.
    #[must_use]
    pub fn underlay_defaults(&self, family: Family, tunnel: Option<u32>) -> Vec<&KernelRoute> {
        let in_family =
            |route: &&KernelRoute| route.destination.prefix_len() == 0 && Family::of(&route.destination) == family;
        let mut found: Vec<&KernelRoute> = self.in_main(tunnel).filter(in_family).collect();
        found.sort_by_key(|route| route.metric);
        found
    }

    /// The routes of the main table that are no default ones and send packets on, but not into this interface.
    pub fn specific_in_main(&self, tunnel: Option<u32>) -> impl Iterator<Item = &KernelRoute> {
        self.in_main(tunnel).filter(|route| route.destination.prefix_len() > 0)
    }

    fn in_main(&self, tunnel: Option<u32>) -> impl Iterator<Item = &KernelRoute> {
        self.routes.iter().filter(move |route| {
            let elsewhere = tunnel.is_none_or(|index| !route.leads_to(index));
            route.table == TABLE_MAIN && route.kind == RouteKind::Unicast && elsewhere
        })
    }
}

/// A rule of the kernel's as one of Adit's, if it could be one.
pub(super) fn as_ours(rule: &KernelRule) -> Option<Rule> {
    let RuleAction::Lookup(table) = rule.action else { return None };
    if !rule.is_ours || is_narrow(rule) || rule.to.is_some() {
        return None;
    }
    let target = match (rule.is_inverted, rule.mark, rule.suppress_prefix_length) {
        (false, None, Some(0)) => Target::SuppressDefault,
        (true, Some(Mark { value, mask: u32::MAX }), None) => Target::NotMarked(value),
        _ => return None,
    };
    Some(Rule { family: rule.family, priority: rule.priority, table, target })
}

/// Whether a rule asks for more than a destination and a mark, so that it is about some of the host's packets only.
pub(super) fn is_narrow(rule: &KernelRule) -> bool {
    rule.from.is_some()
        || rule.tos != 0
        || rule.input.as_ref().is_some_and(|name| name != "lo")
        || rule.output.is_some()
        || rule.ip_protocol.is_some()
        || rule.source_ports.is_some()
        || rule.destination_ports.is_some()
        || rule.users.is_some()
        || rule.has_more
}

/// What tells apart the routes of a host: table, destination, what it does, the interface, the metric.
pub(super) type RouteKey = (u32, IpNet, RouteKind, Option<u32>, u32);

/// The key of a route of the kernel's.
pub(super) fn key_of_found(route: &KernelRoute) -> RouteKey {
    let device = route.hops.first().and_then(|hop| hop.device.as_ref());
    // IPv6 shows the loopback interface on routes that lead nowhere.
    let device = device.filter(|_| route.kind == RouteKind::Unicast);
    (route.table, route.destination, route.kind, device.map(|device| device.index), route.metric)
}

/// The key of a route of a journal.
pub(super) fn key_of_recorded(route: &Route) -> RouteKey {
    let (kind, device) = match &route.via {
        Via::Device(device) | Via::Gateway { device, .. } => (RouteKind::Unicast, Some(device.index)),
        Via::Unreachable => (RouteKind::Unreachable, None),
        Via::Throw => (RouteKind::Throw, None),
    };
    let metric = route.metric.unwrap_or(match Family::of(&route.destination) {
        Family::Ipv4 => 0,
        Family::Ipv6 => IPV6_METRIC,
    });
    (route.table, route.destination, kind, device, metric)
}

/// What the kernel takes for "no metric" (IP6_RT_PRIO_USER, linux/ipv6_route.h).
const IPV6_METRIC: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::sample;

    #[test]
    fn what_is_seen_in_the_kernel_is_what_the_journal_would_say_of_ways() {
        let facts = sample::full();
        let seen = InForce::seen(facts.kernel.as_ref().unwrap(), "wg0");
        assert!(!seen.is_recorded && seen.main_first());
        assert_eq!(seen.rules, facts.in_force.rules);
        assert_eq!((seen.mark(), seen.table()), (Some(51820), Some(51820)));
        for family in [Family::Ipv4, Family::Ipv6] {
            assert!(seen.is_full(family));
        }
        assert_eq!(InForce::seen(facts.kernel.as_ref().unwrap(), "wg1"), InForce::default());
    }

    #[test]
    fn two_halves_are_a_full_tunnel_and_one_is_not() {
        let mut in_force = sample::full().in_force;
        in_force.routes.retain(|route| route.destination.prefix_len() > 0);
        let half = |net: &str| Route { destination: net.parse().unwrap(), table: TABLE_MAIN, ..sample::into_tunnel() };
        in_force.routes.push(half("0.0.0.0/1"));
        assert!(!in_force.is_full(Family::Ipv4));
        in_force.routes.push(half("128.0.0.0/1"));
        assert!(in_force.is_full(Family::Ipv4) && !in_force.is_full(Family::Ipv6));
    }
}
