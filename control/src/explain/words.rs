//! Rules of the model in a person's words, and why one lost to another.

use adit_core::route::{Decision, Routing, Rule, RuleKind, Way};
use ipnet::IpNet;
use serde::Serialize;

use super::View;

/// A rule that claims an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleWords {
    /// What it is, for programs.
    pub kind: &'static str,
    /// The prefix that it is about.
    pub net: IpNet,
    /// What it is, for people.
    pub text: String,
}

/// A rule that claims an address and does not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostWords {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleWords,
    /// Why it does not decide.
    pub reason: &'static str,
}

pub(super) fn rule(view: &View<'_>, rule: &Rule) -> RuleWords {
    let net = rule.net;
    let one = net.addr();
    let text = match rule.kind {
        RuleKind::OwnAddress if net.prefix_len() < net.max_prefix_len() => format!("the loopback network {net}"),
        RuleKind::OwnAddress => match view.facts.addresses.iter().find(|own| own.address.addr() == one) {
            Some(own) => format!("the address {one} of {}", own.device.name),
            None if one.is_loopback() => format!("the loopback address {one}"),
            None => format!("the tunnel's address {one}"),
        },
        RuleKind::Broadcast { .. } => format!("the broadcast address {one}"),
        RuleKind::Multicast => format!("IPv6 multicast, {net}"),
        RuleKind::AllowedIp { peer } => match view.tunnel.peers.get(peer) {
            Some(peer) => format!("AllowedIPs {net} of {}", peer.public_key.short()),
            None => format!("AllowedIPs {net}"),
        },
        RuleKind::Excluded => format!("ExcludedIPs {net}"),
        RuleKind::LocalNetwork => format!("the local network {net}, which is left out of the tunnel"),
        RuleKind::LinkLocalScope => format!("link-local addresses, {net}, which are left out of the tunnel"),
        RuleKind::TunnelNetwork => format!("the network {net} of the tunnel's own address"),
        RuleKind::Connected | RuleKind::MoreSpecificMain => {
            let connected = if rule.kind == RuleKind::Connected { "the connected network" } else { "the route" };
            match view.facts.in_main(net, &view.tunnel.name) {
                Some(route) => format!("{connected} {route} in main (proto {})", route.protocol),
                None => format!("{connected} {net} in main"),
            }
        }
        RuleKind::Mark => match view.tunnel.fwmark {
            Some(mark) => format!("the mark {mark:#x} of the tunnel's own datagrams"),
            None => "the mark of the tunnel's own datagrams".into(),
        },
        RuleKind::KillSwitch => "KillSwitch: what is not excluded may not leave".into(),
        other => format!("{} {net}", other.name()),
    };
    RuleWords { kind: rule.kind.name(), net, text }
}

/// The rules that do not decide, as they would have had their say.
pub(super) fn lost(view: &View<'_>, decision: &Decision) -> Vec<LostWords> {
    let why = |lost: &Rule| reason(view.model.routing(), decision, lost);
    decision.lost.iter().map(|lost| LostWords { rule: rule(view, lost), reason: why(lost) }).collect()
}

fn reason(routing: Routing, decision: &Decision, lost: &Rule) -> &'static str {
    let Some(won) = &decision.by else { return "" };
    if won.kind == RuleKind::Mark {
        return "is not asked about marked packets";
    }
    if won.kind == RuleKind::KillSwitch {
        return match decision.way {
            Way::Blocked if place(routing, lost.kind) == Place::Main => "would say by which way it leaves",
            _ => "is no exception to the kill switch",
        };
    }
    let (winner, loser) = (place(routing, won.kind), place(routing, lost.kind));
    let is_exception = matches!(won.kind, RuleKind::Excluded | RuleKind::LocalNetwork | RuleKind::LinkLocalScope);
    match loser.cmp(&winner) {
        std::cmp::Ordering::Greater if winner == Place::Host => "asked later: the host's own addresses come first",
        std::cmp::Ordering::Greater if is_exception && loser == Place::Main => NEXT,
        std::cmp::Ordering::Greater => "asked later: the tunnel's table comes before main",
        std::cmp::Ordering::Less => "leads on to main",
        std::cmp::Ordering::Equal if lost.net.prefix_len() < won.net.prefix_len() => "a shorter prefix",
        std::cmp::Ordering::Equal => match (won.kind, lost.kind) {
            (RuleKind::AllowedIp { .. }, RuleKind::LocalNetwork | RuleKind::LinkLocalScope) => {
                "the same prefix, and the tunnel's wins"
            }
            (RuleKind::TunnelNetwork | RuleKind::Connected, _) => "the same prefix, and the kernel's own route wins",
            _ => "the same prefix, and comes second",
        },
    }
}

/// Why a rule of main does not decide what is an exception to the tunnel: it does, about something else.
pub(super) const NEXT: &str = "says by which way it leaves";

/// Where a rule stands, in the order in which these are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Host,
    Tunnel,
    Main,
}

fn place(routing: Routing, kind: RuleKind) -> Place {
    match kind {
        RuleKind::OwnAddress | RuleKind::Broadcast { .. } | RuleKind::Multicast => Place::Host,
        RuleKind::TunnelNetwork | RuleKind::Connected | RuleKind::MoreSpecificMain => Place::Main,
        RuleKind::AllowedIp { .. } if routing == Routing::Plain => Place::Main,
        _ => Place::Tunnel,
    }
}
