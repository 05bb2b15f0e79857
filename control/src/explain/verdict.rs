//! Whether the kernel does what it should, and if not, what made it do something else.

use adit_core::route::{Decision, RuleKind, Way};
use nix::errno::Errno;

use super::View;
use super::trace::{Found, Packet, Trace, Visit};
use crate::api::Layout;
use crate::route::Reason;
use crate::route::inspect::{KernelRule, KernelWay, Protocol, RouteKind, RuleAction, table_name};

/// `None` if there is nothing to compare, else what differs.
pub(super) fn compare(
    view: &View<'_>,
    decision: &Decision,
    packet: &Packet,
    way: &Result<KernelWay, Reason>,
    trace: &Trace,
) -> Option<Result<(), String>> {
    let index = view.index()?;
    let is_by_interface = decision.by.is_some_and(|rule| rule.kind == RuleKind::Multicast);
    if is_by_interface || matches!(view.tunnel.routing.layout, Layout::Table | Layout::Other) {
        return None;
    }
    // What is forwarded may be refused for what else the host is told: not to forward, or to filter by the reverse path.
    if packet.input.is_some() && way.is_err() {
        return None;
    }
    if matches!(way, Err(Reason::Timeout | Reason::Unexpected | Reason::NoSocket(_))) {
        return None;
    }
    let place = place(way, index);
    let agrees = match decision.way {
        Way::Tunnel { .. } | Way::NoPeer => place == Place::Tunnel,
        // Where the underlay has no route, there would be none without the tunnel either.
        Way::Underlay => matches!(place, Place::Elsewhere | Place::NoRoute),
        Way::Blocked => matches!(place, Place::Elsewhere | Place::NoRoute | Place::Refused),
        Way::Host => place == Place::Host,
        _ => return None,
    };
    // Route and rules of main itself may refuse what leaves by the underlay; that is as without the tunnel.
    let refused_by_main = decision.way == Way::Underlay
        && place == Place::Refused
        && trace.end().is_some_and(|end| !is_tunnels_rule(view, &end.rule) && !end.rule.is_ours);
    if agrees || refused_by_main {
        return Some(Ok(()));
    }
    let should = match decision.way {
        Way::Tunnel { .. } | Way::NoPeer => format!("should go by {}", view.tunnel.name),
        Way::Host => "should stay on this host".to_owned(),
        _ => "should leave by the underlay".to_owned(),
    };
    Some(Err(format!("{should}, but {}", cause(view, decision, packet, way, trace))))
}

/// Where a packet ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Tunnel,
    Host,
    Elsewhere,
    NoRoute,
    Refused,
}

fn place(way: &Result<KernelWay, Reason>, tunnel: u32) -> Place {
    match way {
        Ok(way) if way.kind.stops() => Place::Refused,
        Ok(KernelWay { kind: RouteKind::Local | RouteKind::Anycast, .. }) => Place::Host,
        Ok(way) if way.device.as_ref().is_some_and(|device| device.index == tunnel) => Place::Tunnel,
        Ok(_) => Place::Elsewhere,
        Err(Reason::Errno(Errno::ENETUNREACH)) => Place::NoRoute,
        Err(_) => Place::Refused,
    }
}

/// What made the kernel do what it does.
fn cause(
    view: &View<'_>,
    decision: &Decision,
    packet: &Packet,
    way: &Result<KernelWay, Reason>,
    trace: &Trace,
) -> String {
    let missing = missing_rule(view, packet).filter(|_| matches!(decision.way, Way::Tunnel { .. } | Way::NoPeer));
    if let Some(missing) = missing {
        return missing;
    }
    if !trace.is_certain() {
        return "a rule that this program does not understand may have taken it".into();
    }
    match (trace.end(), way) {
        (Some(Visit { rule, found: Found::Route(route) }), _) => {
            let owner = owner(rule.protocol);
            let what = if route.kind.stops() { "refuses it" } else { "takes it" };
            let route_owner = if route.protocol == rule.protocol {
                String::new()
            } else {
                format!(", {}", self::owner(route.protocol))
            };
            format!("the rule `{rule}` ({owner}) {what}: {route} in table {}{route_owner}", table_name(route.table))
        }
        (Some(Visit { rule, .. }), _) => format!("the rule `{rule}` ({}) refuses it", owner(rule.protocol)),
        (None, Ok(way)) => format!("the kernel sends it {}, for a reason that its rules do not show", leads(way)),
        (None, Err(reason)) => format!("no rule finds a route: {}", refusal(*reason)),
    }
}

/// The rule of the tunnel's that is not there, if its layout needs one.
fn missing_rule(view: &View<'_>, packet: &Packet) -> Option<String> {
    let table = view.tunnel.routing.own_table?;
    let rules = &view.facts.family_of(packet.query.destination).rules;
    if rules.iter().any(|rule| is_tunnels_rule(view, rule)) {
        return None;
    }
    let family = if packet.query.destination.is_ipv4() { "IPv4" } else { "IPv6" };
    Some(format!("Adit's {family} rule that looks up table {table} is gone"))
}

/// Whether a rule leads to the tunnel's own table.
fn is_tunnels_rule(view: &View<'_>, rule: &KernelRule) -> bool {
    rule.is_ours && view.tunnel.routing.own_table.is_some_and(|table| rule.action == RuleAction::Lookup(table))
}

/// Who made a rule or a route.
fn owner(protocol: Protocol) -> String {
    match protocol {
        Protocol::ADIT => "Adit's".into(),
        Protocol::KERNEL => "the kernel's".into(),
        Protocol(0) => "not Adit's".into(),
        other => format!("not Adit's, proto {other}"),
    }
}

/// What a refusal means as an answer to where a packet goes (net/ipv4/fib_semantics.c, `fib_props`).
pub(super) fn refusal(reason: Reason) -> String {
    match reason {
        Reason::Errno(Errno::ENETUNREACH) => "there is no route (ENETUNREACH)".into(),
        Reason::Errno(Errno::EHOSTUNREACH) => "unreachable (EHOSTUNREACH)".into(),
        Reason::Errno(Errno::EACCES) => "prohibited (EACCES)".into(),
        Reason::Errno(Errno::EINVAL) => "dropped, or not a packet that there can be (EINVAL)".into(),
        other => other.to_string(),
    }
}

/// The way of a packet, in a few words.
pub(super) fn leads(way: &KernelWay) -> String {
    let device = way.device.as_ref().map(|device| device.name.as_str()).unwrap_or_default();
    match (way.kind, way.gateway) {
        (RouteKind::Local | RouteKind::Anycast, _) => "to this host itself".into(),
        (kind, _) if kind.stops() => format!("nowhere: {kind}"),
        (_, Some(gateway)) => format!("via {gateway} dev {device}"),
        (_, None) => format!("directly on {device}"),
    }
}
