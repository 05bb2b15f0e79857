//! What becomes of an address: one answer from all that has a say in it, with the rules that lost.
//!
//! The model follows what the Linux kernel does with the routes and rules that a tunnel is given: tables are asked in
//! their order (the host's own addresses; the tunnel's table; main), in each the longest prefix wins, and a prefix that is
//! taken out of the tunnel sends the search on to main. It is pure: prefixes come in as lists, and nothing here knows
//! whether a system agrees.
//!
//! It refuses to guess what it is not told: main's default route and what a router does with a packet are not in it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::AllowedIps;
use super::complement::{address, prefixes, span};
use super::decision::{Decision, Part, Partition, RouteModelError, Routing, Rule, RuleKind, Way};

/// Everything that a [`RouteModel`] is made of. Host bits of prefixes are ignored, but those of own addresses.
#[derive(Debug, Clone, Default)]
pub struct RouteInputs {
    /// What is to go to which peer. If two peers claim the very same prefix, it belongs to the later one.
    pub allowed: Vec<(IpNet, usize)>,
    /// What is to leave by the underlay, inside allowed prefixes to any depth.
    pub excluded: Vec<IpNet>,
    /// Whether local networks are to be reached directly; `None` is not said: they are unless there is a kill switch.
    pub exclude_local_networks: Option<bool>,
    /// Whether everything that would leave by the underlay is to be refused, but for what is excluded.
    pub kill_switch: bool,
    /// The underlay's connected prefixes, trusted or not. In main, an allowed IP wins over an equal one of IPv4; in IPv6 the
    /// kernel's own routes have the better metric (256, and 1024 if none is said).
    pub connected: Vec<IpNet>,
    /// All other prefixes that have a route in the main table and are not the tunnel's. Default routes have no say, and
    /// an equal allowed IP wins.
    pub main: Vec<IpNet>,
    /// The tunnel's own addresses with the prefixes of their networks.
    pub tunnel_addresses: Vec<IpNet>,
    /// The host's other addresses with the prefixes of their networks.
    pub underlay_addresses: Vec<IpNet>,
    /// Where peers are reached, so far as that is known.
    pub endpoints: Vec<IpAddr>,
}

/// Decides what becomes of addresses.
pub struct RouteModel {
    routing: Routing,
    /// Sorted by prefix, and rules for the same prefix as they win over one another.
    rules: Vec<Rule>,
    /// For each prefix, where its rules are.
    table: AllowedIps<Group>,
    peers: AllowedIps<usize>,
    is_killing: bool,
    /// Whether marked datagrams are led past the tunnel's table, for IPv4 and IPv6.
    is_marked: [bool; 2],
}

impl RouteInputs {
    /// How routes are laid out for this if nobody asks for something else: as wg-quick(8) does it, unless something is
    /// wanted that wg-quick does not know, or the tunnel's own datagrams would be routed into it.
    pub fn routing(&self) -> Routing {
        let is_asked = !self.excluded.is_empty() || self.exclude_local_networks.is_some() || self.kill_switch;
        if is_asked || self.has_looping_endpoint() { Routing::Strict } else { Routing::Plain }
    }

    /// Whether local networks are reached directly: unless it is said, they are as with wg-quick(8), but a kill switch
    /// closes what was not asked for.
    fn excludes_local_networks(&self) -> bool {
        self.exclude_local_networks.unwrap_or(!self.kill_switch)
    }

    /// Whether an endpoint lies in an allowed IP that is no default route, whose route in main would catch marked
    /// datagrams as well.
    fn has_looping_endpoint(&self) -> bool {
        let mut routes = AllowedIps::new();
        for (net, _) in self.allowed.iter().filter(|(net, _)| net.prefix_len() > 0) {
            routes.insert(*net, ());
        }
        self.endpoints.iter().any(|endpoint| routes.lookup(*endpoint).is_some())
    }
}

impl RouteModel {
    /// Makes the model of [`RouteInputs::routing`].
    ///
    /// # Errors
    /// [`RouteModelError::IncludedAndExcluded`] names the prefix.
    pub fn new(inputs: &RouteInputs) -> Result<Self, RouteModelError> {
        Self::with_routing(inputs, inputs.routing())
    }

    /// Makes the model of another layout than the inputs would have by themselves. For a table that the user chose
    /// (`Table = N`), [`Routing::Strict`] is what packets meet that the user's rules send there.
    ///
    /// # Errors
    /// [`RouteModelError::IncludedAndExcluded`] names the prefix.
    pub fn with_routing(inputs: &RouteInputs, routing: Routing) -> Result<Self, RouteModelError> {
        let mut peers = AllowedIps::new();
        for (net, peer) in &inputs.allowed {
            peers.insert(*net, *peer);
        }
        let excluded: HashSet<IpNet> = inputs.excluded.iter().map(IpNet::trunc).collect();
        if let Some((net, _)) = peers.iter().find(|(net, _)| excluded.contains(net)) {
            return Err(RouteModelError::IncludedAndExcluded { net });
        }
        let mut rules = own_rules(inputs);
        rules.extend(table_rules(inputs, routing, &peers));
        rules.extend(main_rules(inputs));
        rules.sort_unstable_by_key(|rule| (rule.net, rule.kind));
        rules.dedup();
        rules.dedup_by(|b, a| (b.net, b.kind, a.kind) == (a.net, RuleKind::MoreSpecificMain, RuleKind::Connected));
        let mut table = AllowedIps::new();
        let mut from = 0;
        for group in rules.chunk_by(|a, b| a.net == b.net) {
            table.insert(group[0].net, Group { from, to: from + group.len() });
            from += group.len();
        }
        let is_marked = [false, true].map(|is_v6| {
            peers.iter().any(|(net, _)| {
                is_ipv6(&net) == is_v6
                    && (routing == Routing::Strict || routing == Routing::Plain && net.prefix_len() == 0)
            })
        });
        Ok(Self { routing, rules, table, peers, is_killing: inputs.kill_switch, is_marked })
    }

    /// How the tunnel's routes are laid out.
    pub fn routing(&self) -> Routing {
        self.routing
    }

    /// What becomes of a packet to `destination` that some program on the host sends. The unspecified address is no
    /// destination (systems take it for themselves), and gets the answer of its neighbours. The answer holds for the address of an
    /// endpoint as well: only the tunnel's own datagrams are led past the tunnel.
    pub fn decide(&self, destination: IpAddr) -> Decision {
        let mut rules = self.claims(destination);
        let winner = self.winner(&rules);
        let way = winner.map_or(Way::Underlay, |at| self.way(rules[at].kind, destination));
        if way == Way::Underlay && self.is_killing && !rules.iter().any(|rule| Self::is_let_out(rule.kind)) {
            if let Some(at) = winner {
                rules[..=at].rotate_right(1);
            }
            let by = Some(Rule { net: default_net(destination.is_ipv6()), kind: RuleKind::KillSwitch });
            return Decision { way: Way::Blocked, by, lost: rules };
        }
        Decision { way, by: winner.map(|at| rules.remove(at)), lost: rules }
    }

    /// What becomes of the tunnel's own datagrams, marked as they are, to the endpoint `destination`. An answer other than
    /// [`Way::Underlay`] means that they come back into the tunnel, or reach the host itself.
    pub fn decide_datagram(&self, destination: IpAddr) -> Decision {
        let is_marked = self.is_marked[usize::from(destination.is_ipv6())];
        let (mut rules, passed): (Vec<_>, Vec<_>) =
            self.claims(destination).into_iter().partition(|rule| !(is_marked && self.is_past_mark(rule)));
        let winner = self.winner(&rules);
        let way = winner.map_or(Way::Underlay, |at| self.way(rules[at].kind, destination));
        let mark = Rule { net: default_net(destination.is_ipv6()), kind: RuleKind::Mark };
        let by = winner.map(|at| rules.remove(at)).or((!passed.is_empty()).then_some(mark));
        rules.extend(passed);
        Decision { way, by, lost: rules }
    }

    /// Takes `net` apart into the fewest prefixes for each of which there is one answer, `limit` of them at most.
    pub fn partition(&self, net: IpNet, limit: usize) -> Partition {
        let (is_v6, (first, last)) = (is_ipv6(&net), span(&net));
        let allowed = self.peers.iter().map(|(net, _)| net);
        let inside = self.rules.iter().map(|rule| rule.net).chain(allowed).filter(|inner| net.contains(inner));
        // Answers change only where a prefix begins, or behind where it ends.
        let mut starts: Vec<_> = inside
            .flat_map(|inner| {
                let (start, end) = span(&inner);
                [Some(start), end.checked_add(1).filter(|next| *next <= last)]
            })
            .flatten()
            .chain([first])
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([last]);
        let mut answers = starts.iter().zip(ends).map(|(start, end)| {
            let Decision { way, by, .. } = self.decide(address(*start, is_v6));
            (*start, end, way, by)
        });
        let mut parts = Vec::new();
        let mut run = answers.next();
        while let Some((start, mut end, way, by)) = run {
            run = None;
            for next in answers.by_ref() {
                if (next.2, next.3) != (way, by) {
                    run = Some(next);
                    break;
                }
                end = next.1;
            }
            for net in prefixes([(start, end)], is_v6) {
                if parts.len() == limit {
                    return Partition { parts, is_complete: false };
                }
                parts.push(Part { net, way, by });
            }
        }
        Partition { parts, is_complete: true }
    }

    /// All rules that contain an address, as they have their say: table by table, and in each the longest prefix first.
    fn claims(&self, destination: IpAddr) -> Vec<Rule> {
        let mut groups = Vec::new();
        self.table.covering(destination, |group| groups.push(group));
        let mut rules: Vec<_> =
            groups.iter().rev().flat_map(|group| &self.rules[group.from..group.to]).copied().collect();
        rules.sort_by_key(|rule| (self.table_of(rule.kind), Reverse(rule.net.prefix_len()), !self.has_metric(rule)));
        rules
    }

    /// Whether the kernel made this route, and with a better metric than the tunnel's beside it have.
    fn has_metric(&self, rule: &Rule) -> bool {
        let is_kernels = matches!(rule.kind, RuleKind::TunnelNetwork | RuleKind::Connected);
        is_kernels && self.routing == Routing::Plain && is_ipv6(&rule.net)
    }

    /// Which of the claims decides.
    fn winner(&self, rules: &[Rule]) -> Option<usize> {
        let first = rules.first()?;
        if !first.kind.is_throw() {
            return Some(0);
        }
        // The search goes on in main; whatever leads to the underlay from there does so because of this.
        let main = rules.iter().position(|rule| self.table_of(rule.kind) == Table::Main);
        Some(main.filter(|at| rules[*at].kind == RuleKind::TunnelNetwork).unwrap_or(0))
    }

    fn way(&self, kind: RuleKind, destination: IpAddr) -> Way {
        match kind {
            RuleKind::OwnAddress => Way::Host,
            RuleKind::AllowedIp { peer } => Way::Tunnel { peer },
            RuleKind::TunnelNetwork | RuleKind::Broadcast { tunnel: true } => {
                self.peers.lookup(destination).map_or(Way::NoPeer, |peer| Way::Tunnel { peer })
            }
            _ => Way::Underlay,
        }
    }

    /// The table in which a rule stands.
    fn table_of(&self, kind: RuleKind) -> Table {
        match kind {
            RuleKind::OwnAddress | RuleKind::Broadcast { .. } | RuleKind::Multicast => Table::Local,
            RuleKind::TunnelNetwork | RuleKind::Connected | RuleKind::MoreSpecificMain => Table::Main,
            // Main's routes and the default one behind them are as good as one table: the default one is the shortest.
            RuleKind::AllowedIp { .. } if self.routing == Routing::Plain => Table::Main,
            _ if self.routing == Routing::Strict => Table::Tunnel,
            _ => Table::Filter,
        }
    }

    /// Whether the kill switch lists this as something that may leave by the underlay.
    fn is_let_out(kind: RuleKind) -> bool {
        matches!(kind, RuleKind::Excluded | RuleKind::LocalNetwork)
    }

    /// Whether marked datagrams do not meet this rule.
    fn is_past_mark(&self, rule: &Rule) -> bool {
        match self.routing {
            Routing::Off => false,
            Routing::Plain => matches!(rule.kind, RuleKind::AllowedIp { .. }) && rule.net.prefix_len() == 0,
            Routing::Strict => self.table_of(rule.kind) == Table::Tunnel,
        }
    }
}

impl std::fmt::Debug for RouteModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteModel")
            .field("routing", &self.routing)
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

/// Whether a connected prefix may be taken for a local network: all of it is for private use.
///
/// A hostile network can hand out public addresses as its own, and would get what is sent to them in the clear
/// (TunnelCrack, CVE-2023-36672). Private ones are those of RFC 1918, RFC 6598 (shared), RFC 3927 and RFC 4291 (both
/// link-local) and RFC 4193.
pub fn trusted_local(net: &IpNet) -> bool {
    PRIVATE.iter().any(|private| private.contains(net))
}

/// What claims an address before any routes do.
fn own_rules(inputs: &RouteInputs) -> Vec<Rule> {
    let mut rules = vec![
        Rule { net: LOOPBACK_V4, kind: RuleKind::OwnAddress },
        Rule { net: LOOPBACK_V6, kind: RuleKind::OwnAddress },
        Rule { net: MULTICAST_V6, kind: RuleKind::Multicast },
    ];
    for (addresses, tunnel) in [(&inputs.tunnel_addresses, true), (&inputs.underlay_addresses, false)] {
        for own in addresses {
            rules.push(Rule { net: own.addr().into(), kind: RuleKind::OwnAddress });
            // Of two addresses or one there is none for broadcasts (RFC 3021).
            if let IpNet::V4(net) = own
                && net.prefix_len() < 31
            {
                rules.push(Rule {
                    net: IpNet::from(IpAddr::from(net.broadcast())),
                    kind: RuleKind::Broadcast { tunnel },
                });
            }
        }
    }
    rules
}

/// What the tunnel adds, in main or in its own table.
fn table_rules(inputs: &RouteInputs, routing: Routing, peers: &AllowedIps<usize>) -> Vec<Rule> {
    let mut rules = Vec::new();
    if routing != Routing::Off {
        rules.extend(peers.iter().map(|(net, peer)| Rule { net, kind: RuleKind::AllowedIp { peer } }));
    }
    if routing == Routing::Strict && rules.iter().any(|rule| is_ipv6(&rule.net)) {
        rules.push(Rule { net: LINK_LOCAL_V6, kind: RuleKind::LinkLocalScope });
    }
    // The kill switch has them in its list, whoever makes the routes.
    if routing != Routing::Strict && !inputs.kill_switch {
        return rules;
    }
    rules.extend(inputs.excluded.iter().map(|net| Rule { net: net.trunc(), kind: RuleKind::Excluded }));
    if inputs.excludes_local_networks() {
        let trusted = inputs.connected.iter().map(IpNet::trunc).filter(trusted_local);
        rules.extend(trusted.map(|net| Rule { net, kind: RuleKind::LocalNetwork }));
    }
    rules
}

/// What stands in main anyway.
fn main_rules(inputs: &RouteInputs) -> Vec<Rule> {
    let own = inputs.tunnel_addresses.iter().filter(|own| own.prefix_len() < own.max_prefix_len());
    let own = own.map(|own| Rule { net: own.trunc(), kind: RuleKind::TunnelNetwork });
    let more_specific = |nets: &'_ [IpNet], kind| {
        let nets = nets.iter().map(IpNet::trunc).filter(|net| net.prefix_len() > 0);
        nets.map(|net| Rule { net, kind }).collect::<Vec<_>>()
    };
    let connected = more_specific(&inputs.connected, RuleKind::Connected);
    own.chain(connected).chain(more_specific(&inputs.main, RuleKind::MoreSpecificMain)).collect()
}

fn is_ipv6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

fn default_net(is_v6: bool) -> IpNet {
    if is_v6 { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) }
}

/// Where the rules of one prefix are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    from: usize,
    to: usize,
}

/// The tables, in the order in which they are asked; the last one decides only whether what leaves may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Local,
    Tunnel,
    Main,
    Filter,
}

const LOOPBACK_V4: IpNet = v4([127, 0, 0, 0], 8);
const LOOPBACK_V6: IpNet = v6([0, 0, 0, 0, 0, 0, 0, 1], 128);
const MULTICAST_V6: IpNet = v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8);
const LINK_LOCAL_V6: IpNet = v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10);

/// What [`trusted_local`] trusts.
const PRIVATE: [IpNet; 7] = [
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    v4([169, 254, 0, 0], 16),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    LINK_LOCAL_V6,
];

const fn v4(octets: [u8; 4], len: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), len))
}

const fn v6(segments: [u16; 8], len: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h), len))
}
