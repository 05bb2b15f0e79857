//! The kernel's look-up, done again step by step on what it shows: the kernel says which way a packet takes, and not
//! which rule sent it there.
//!
//! It follows fib_rules_lookup (net/core/fib_rules.c) and the tables' own search: rules by priority, in a table the longest
//! prefix and then the lowest metric, `throw` and suppressed routes lead on to the next rule. It knows no state, such as
//! exceptions that ICMP has made; the kernel's own answer is asked for beside it.

use std::net::IpAddr;

use super::facts::FamilyFacts;
use crate::route::inspect::{KernelRoute, KernelRule, Query, RouteKind, RuleAction};

/// A packet on its way through the rules.
#[derive(Debug, Clone)]
pub struct Packet {
    /// What is asked about.
    pub query: Query,
    /// The user whose program sends it.
    pub user: u32,
    /// The interface that it came in by, if the host only forwards it.
    pub input: Option<String>,
}

/// All rules that select a packet, up to the one that decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// In the order in which they are asked.
    pub visits: Vec<Visit>,
}

/// A rule that selects the packet, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The rule.
    pub rule: KernelRule,
    /// What it finds.
    pub found: Found,
}

/// What a rule finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its table has no route for the packet.
    Nothing,
    /// A route that the rule passes over, because its prefix is too short.
    Suppressed(KernelRoute),
    /// A `throw` route: the next rule is asked.
    Throw(KernelRoute),
    /// The route that decides.
    Route(KernelRoute),
    /// The rule itself refuses the packet.
    Refusal,
    /// Another rule is to go on with.
    Goto,
    /// Something that this program does not know.
    Unknown,
}

impl Trace {
    /// Follows a packet.
    #[must_use]
    pub fn follow(facts: &FamilyFacts, packet: &Packet) -> Self {
        let mut visits = Vec::new();
        let mut least = 0;
        for rule in &facts.rules {
            if rule.priority < least || !selects(rule, packet) {
                continue;
            }
            let found = match rule.action {
                // One that selects by more than is shown may or may not apply.
                _ if rule.has_more => Found::Unknown,
                RuleAction::Lookup(table) => look_up(facts.table(table), rule, packet),
                RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => Found::Refusal,
                RuleAction::Goto(priority) if priority > rule.priority => {
                    least = priority;
                    Found::Goto
                }
                RuleAction::Nop | RuleAction::Goto(_) => continue,
                _ => Found::Unknown,
            };
            let is_end = matches!(found, Found::Route(_) | Found::Refusal);
            visits.push(Visit { rule: rule.clone(), found });
            if is_end {
                break;
            }
        }
        Self { visits }
    }

    /// The rule that decides, if one does.
    #[must_use]
    pub fn end(&self) -> Option<&Visit> {
        self.visits.last().filter(|visit| matches!(visit.found, Found::Route(_) | Found::Refusal))
    }

    /// Whether all rules on the way are understood.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !self.visits.iter().any(|visit| visit.found == Found::Unknown)
    }
}

/// fib_rule_match and the families' own parts of it.
fn selects(rule: &KernelRule, packet: &Packet) -> bool {
    let query = &packet.query;
    let matches = rule.from.is_none_or(|net| query.source.is_some_and(|source| net.contains(&source)))
        && rule.to.is_none_or(|net| net.contains(&query.destination))
        && rule.tos == 0
        && rule.mark.is_none_or(|mark| mark.matches(query.mark))
        // What the host makes itself comes from the loopback interface.
        && rule.input.as_deref().is_none_or(|name| name == packet.input.as_deref().unwrap_or("lo"))
        && rule.output.is_none()
        && rule.ip_protocol.is_none_or(|protocol| query.ip_protocol == Some(protocol))
        && rule.source_ports.is_none_or(|ports| query.source_port.is_some_and(|port| ports.contains(port.into())))
        && rule
            .destination_ports
            .is_none_or(|ports| query.destination_port.is_some_and(|port| ports.contains(port.into())))
        && rule.users.is_none_or(|users| users.contains(packet.user));
    matches != rule.is_inverted
}

fn look_up(table: &[KernelRoute], rule: &KernelRule, packet: &Packet) -> Found {
    let Some(route) = best(table, packet.query.destination, packet.query.source) else { return Found::Nothing };
    let length = u32::from(route.destination.prefix_len());
    if route.kind == RouteKind::Throw {
        Found::Throw(route.clone())
    } else if rule.suppress_prefix_length.is_some_and(|least| length <= least) && !route.kind.stops() {
        Found::Suppressed(route.clone())
    } else {
        Found::Route(route.clone())
    }
}

/// The route that a table has for a destination.
#[must_use]
pub fn best(table: &[KernelRoute], destination: IpAddr, source: Option<IpAddr>) -> Option<&KernelRoute> {
    let applies = |route: &&KernelRoute| {
        route.destination.contains(&destination)
            && route.source.is_none_or(|net| source.is_some_and(|source| net.contains(&source)))
            && route.tos == 0
            && (route.hops.is_empty() || route.hops.iter().any(|hop| !hop.is_dead))
    };
    // The first of equal ones is the one that the kernel lists first.
    let rank = |route: &&KernelRoute| {
        let source = route.source.map_or(0, |net| net.prefix_len());
        (route.destination.prefix_len(), source, std::cmp::Reverse(route.metric))
    };
    table.iter().filter(applies).fold(None, |best, route| match best {
        Some(other) if rank(&other) >= rank(&route) => Some(other),
        _ => Some(route),
    })
}
