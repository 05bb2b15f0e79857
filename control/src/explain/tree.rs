//! The host's rules and tables as a tree: under every rule the table that it looks up, in it each prefix inside of the
//! shorter one that holds it.
//!
//! It shows what there is and judges nothing.

use std::collections::HashMap;

use adit_core::PublicKey;
use ipnet::IpNet;
use serde::Serialize;

use super::facts::{Facts, FamilyFacts};
use super::subject::Subject;
use crate::route::inspect::{KernelRoute, KernelRule, RouteKind, RuleAction, table_name};
use crate::settings::{Family, TABLE_LOCAL};

/// The rules of a family with what they look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyTree {
    /// The family.
    pub family: Family,
    /// The rules, in the order in which they are asked.
    pub rules: Vec<RuleNode>,
    /// Tables with routes of tunnels that no rule looks up.
    pub unused: Vec<TableNode>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleNode {
    /// As `ip rule` writes it.
    pub text: String,
    /// All of it.
    pub rule: KernelRule,
    /// The table that it looks up, unless an earlier rule shows it already.
    pub table: Option<TableNode>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableNode {
    /// Its number.
    pub table: u32,
    /// Its name, or its number again.
    pub name: String,
    /// How many routes it has.
    pub count: usize,
    /// The routes, those inside of others with these.
    pub routes: Vec<RouteNode>,
    /// How many are not shown beside the last of them.
    pub omitted: usize,
}

/// A route, and those inside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteNode {
    /// As `ip route` writes it.
    pub text: String,
    /// All of it.
    pub route: KernelRoute,
    /// The peer that it leads to, if it leads into a tunnel.
    pub peer: Option<PublicKey>,
    /// Routes to longer prefixes.
    pub inside: Vec<RouteNode>,
    /// How many are not shown beside the last of them.
    pub omitted: usize,
}

/// Makes the trees of both families. `limit` is how many routes are shown side by side; `None` shows all, and the table of
/// the host's own addresses as well.
#[must_use]
pub fn trees(facts: &Facts, tunnels: &[Subject], limit: Option<usize>) -> Vec<FamilyTree> {
    let mut peers = HashMap::new();
    for tunnel in tunnels {
        for peer in &tunnel.peers {
            peers.extend(peer.allowed_ips.iter().map(|net| ((tunnel.name.as_str(), *net), peer.public_key)));
        }
    }
    let families = [(Family::Ipv4, &facts.ipv4), (Family::Ipv6, &facts.ipv6)];
    families.map(|(family, facts)| tree(family, facts, &peers, limit)).into_iter().collect()
}

type Peers<'a> = HashMap<(&'a str, IpNet), PublicKey>;

fn tree(family: Family, facts: &FamilyFacts, peers: &Peers<'_>, limit: Option<usize>) -> FamilyTree {
    let mut shown = Vec::new();
    let rules = facts.rules.iter().map(|rule| {
        let table = match rule.action {
            RuleAction::Lookup(number) if !shown.contains(&number) => {
                shown.push(number);
                Some(table(number, facts.table(number), peers, limit))
            }
            _ => None,
        };
        RuleNode { text: rule.to_string(), rule: rule.clone(), table }
    });
    let rules: Vec<_> = rules.collect();
    let unused = facts
        .tables
        .iter()
        .filter(|(number, routes)| !shown.contains(number) && routes.iter().any(|route| route.is_ours));
    let unused = unused.map(|(number, routes)| table(*number, routes, peers, limit)).collect();
    FamilyTree { family, rules, unused }
}

fn table(number: u32, routes: &[KernelRoute], peers: &Peers<'_>, limit: Option<usize>) -> TableNode {
    // What is local to the host is seldom in question, and much of it.
    let limit = if number == TABLE_LOCAL { limit.map(|_| 0) } else { limit };
    let mut sorted: Vec<&KernelRoute> = routes.iter().collect();
    sorted.sort_by_key(|route| (route.destination.network(), route.destination.prefix_len(), route.metric));
    let mut rest = sorted.as_slice();
    let (routes, omitted) = nest(&mut rest, None, peers, limit);
    TableNode { table: number, name: table_name(number), count: sorted.len(), routes, omitted }
}

/// Takes the routes from the front that are inside of a prefix. Equal prefixes stand side by side, and what is inside of
/// them is with the first one, which has the best metric.
fn nest(
    rest: &mut &[&KernelRoute],
    outer: Option<IpNet>,
    peers: &Peers<'_>,
    limit: Option<usize>,
) -> (Vec<RouteNode>, usize) {
    let (mut nodes, mut omitted) = (Vec::new(), 0);
    while let Some((first, after)) = rest.split_first() {
        let net = first.destination;
        if outer.is_some_and(|outer| !outer.contains(&net)) {
            break;
        }
        let equal = 1 + after.iter().take_while(|next| next.destination == net).count();
        let (group, after) = rest.split_at(equal);
        *rest = after;
        // Prefixes are at most 128 bits long, and so is the recursion.
        let (mut inside, mut left_out) = nest(rest, Some(net), peers, limit);
        for route in group {
            let (inside, left_out) = (std::mem::take(&mut inside), std::mem::take(&mut left_out));
            if limit.is_some_and(|limit| nodes.len() >= limit) {
                omitted += 1 + left_out + count(&inside);
            } else {
                nodes.push(node(route, peers, inside, left_out));
            }
        }
    }
    (nodes, omitted)
}

fn node(route: &KernelRoute, peers: &Peers<'_>, inside: Vec<RouteNode>, omitted: usize) -> RouteNode {
    let device = route.hops.first().and_then(|hop| hop.device.as_ref());
    let device = device.filter(|_| route.kind == RouteKind::Unicast);
    let peer = device.and_then(|device| peers.get(&(device.name.as_str(), route.destination)).copied());
    RouteNode { text: route.to_string(), route: route.clone(), peer, inside, omitted }
}

fn count(nodes: &[RouteNode]) -> usize {
    nodes.iter().map(|node| 1 + node.omitted + count(&node.inside)).sum()
}
