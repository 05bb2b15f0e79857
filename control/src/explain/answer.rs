//! One answer: where the packets of one address or prefix go, every step of the decision, and the kernel's own word.

use std::net::IpAddr;

use adit_core::PublicKey;
use adit_core::route::{Decision, RuleKind, Way};
use ipnet::IpNet;
use serde::Serialize;

use super::trace::{Found, Packet, Trace, Visit};
use super::words::{LostWords, RuleWords};
use super::{View, verdict, words};
use crate::api::Layout;
use crate::route::Reason;
use crate::route::inspect::{Inspector, KernelWay, Query, table_name};

/// Where packets go, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The addresses that it is for.
    pub net: IpNet,
    /// Where they go: `tunnel`, `no-peer`, `underlay`, `host` or `blocked`.
    pub way: &'static str,
    /// That, as a sentence.
    pub summary: String,
    /// The peer that they go to.
    pub peer: Option<PeerName>,
    /// The rule that says so; without one, the host's default route leads them on.
    pub rule: Option<RuleWords>,
    /// The other rules that claim them, in the order in which they would have had their say.
    pub lost: Vec<LostWords>,
    /// The interface that they leave by.
    pub device: Option<String>,
    /// The router that they go to first, outside of the tunnel.
    pub gateway: Option<IpAddr>,
    /// The source address that they get.
    pub source: Option<IpAddr>,
    /// How long they may be, in bytes.
    pub mtu: Option<u32>,
    /// What the kernel says, if it could be asked.
    pub kernel: Option<KernelSide>,
    /// Whether the kernel does that; `None` if there is nothing to compare.
    pub agrees: Option<bool>,
    /// What the kernel does otherwise, and by which rule or route.
    pub difference: Option<String>,
    /// What else a person should know.
    pub notes: Vec<String>,
    #[serde(skip)]
    is_up: bool,
}

/// A peer to whom packets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerName {
    /// Its key.
    pub public_key: PublicKey,
    /// Where it is.
    pub endpoint: Option<String>,
}

/// What the kernel says about a packet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelSide {
    /// Its way, if it has one.
    pub way: Option<KernelWay>,
    /// Why it has none.
    pub refusal: Option<String>,
    /// The rules that select it, up to the one that decides, each with what it finds.
    pub rules: Vec<String>,
    #[serde(skip)]
    asked: Result<KernelWay, Reason>,
    #[serde(skip)]
    trace: Trace,
}

impl KernelSide {
    pub(super) async fn ask(inspector: &Inspector, view: &View<'_>, packet: &Packet) -> Self {
        let asked = inspector.way(&packet.query).await;
        Self::new(asked, Trace::follow(view.facts.family_of(packet.query.destination), packet))
    }

    pub(super) fn new(asked: Result<KernelWay, Reason>, trace: Trace) -> Self {
        Self {
            way: asked.as_ref().ok().cloned(),
            refusal: asked.as_ref().err().map(|reason| verdict::refusal(*reason)),
            rules: trace.visits.iter().map(visit).collect(),
            asked,
            trace,
        }
    }

    /// What it says, in a line.
    fn text(&self) -> String {
        let way = match &self.asked {
            Ok(way) => way,
            Err(reason) => {
                let refuses = |found: &Found| match found {
                    Found::Route(route) => route.kind.stops(),
                    found => *found == Found::Refusal,
                };
                let by = self.trace.end().filter(|end| refuses(&end.found));
                let by = by.map(|end| format!("; rule `{}`", end.rule)).unwrap_or_default();
                return format!("refuses it: {}{by}", verdict::refusal(*reason));
            }
        };
        let found = self.trace.end().filter(|end| match (&end.found, &way.route) {
            (Found::Route(own), Some(told)) => (own.table, own.destination) == (told.table, told.destination),
            (Found::Route(own), None) => Some(own.table) == way.table,
            _ => false,
        });
        let route = way.route.as_ref().or_else(|| match found.map(|end| &end.found) {
            Some(Found::Route(route)) => Some(route),
            _ => None,
        });
        let mut text = match (route, way.table) {
            (Some(route), _) => format!("{route} in table {}", table_name(route.table)),
            (None, Some(table)) => format!("{} by table {}", verdict::leads(way), table_name(table)),
            (None, None) => verdict::leads(way),
        };
        if let Some(end) = found {
            text += &format!("; rule `{}`", end.rule);
        }
        text
    }
}

impl Answer {
    /// All of it in lines with a label each, for a person; the [summary](Self::summary) goes before them.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        match &self.rule {
            Some(rule) => lines.push(("rule", rule.text.clone())),
            None if self.way == "underlay" => {
                lines.push(("rule", "none of the tunnel's; the default route of main".into()));
            }
            None => {}
        }
        lines.extend(self.lost.iter().map(|lost| {
            let label = if lost.reason == words::NEXT { "next" } else { "lost" };
            (label, format!("{}: {}", lost.rule.text, lost.reason))
        }));
        if let Some(source) = self.source {
            lines.push(("source", source.to_string()));
        }
        if let Some(mtu) = self.mtu {
            lines.push(("mtu", mtu.to_string()));
        }
        if let Some(kernel) = &self.kernel {
            lines.push((if self.is_up { "kernel" } else { "now" }, kernel.text()));
        }
        match (self.agrees, &self.difference) {
            (Some(true), _) => lines.push(("agrees", "yes".into())),
            (_, Some(difference)) => lines.push(("agrees", format!("NO: it {difference}"))),
            _ => {}
        }
        lines.extend(self.notes.iter().map(|note| ("note", note.clone())));
        lines
    }
}

pub(super) fn answer(view: &View<'_>, net: IpNet, packet: &Packet, kernel: Option<KernelSide>) -> Answer {
    let mut decision = view.model.decide(packet.query.destination);
    let mut notes = Vec::new();
    if is_refused_dns(view, packet, &decision) {
        decision.way = Way::Blocked;
        notes.push(
            "DNS of the local network is refused: the kill switch is on and the tunnel has DNS servers".to_owned(),
        );
    }
    if let Some(note) = pulled_out(view, &decision) {
        notes.push(note);
    }
    let compared =
        kernel.as_ref().and_then(|kernel| verdict::compare(view, &decision, packet, &kernel.asked, &kernel.trace));
    let difference = compared.as_ref().and_then(|result| result.as_ref().err().cloned());
    let is_up = view.index().is_some();
    let asked = kernel.as_ref().and_then(|kernel| kernel.way.as_ref());
    // What the kernel says about the way holds only where it takes the same; without the tunnel's device it cannot.
    let holds = match decision.way {
        Way::Underlay | Way::Host => difference.is_none(),
        Way::Tunnel { .. } | Way::NoPeer => is_up && difference.is_none(),
        _ => false,
    };
    let asked_way = asked.filter(|_| holds);
    let is_tunnel = matches!(decision.way, Way::Tunnel { .. } | Way::NoPeer);
    let by_tunnel = is_tunnel.then(|| view.tunnel.name.clone());
    let own = view.tunnel.routing.addresses.iter().map(IpNet::addr);
    let own = own.into_iter().find(|own| own.is_ipv4() == packet.query.destination.is_ipv4());
    Answer {
        net,
        way: decision.way.name(),
        summary: summary(view, net, &decision, asked_way, difference.is_some()),
        peer: match decision.way {
            Way::Tunnel { peer } => view.tunnel.peers.get(peer).map(|peer| PeerName {
                public_key: peer.public_key,
                endpoint: peer.endpoint_name.clone().or_else(|| peer.endpoint.map(|endpoint| endpoint.to_string())),
            }),
            _ => None,
        },
        rule: decision.by.as_ref().map(|rule| words::rule(view, rule)),
        lost: words::lost(view, &decision),
        device: asked_way.and_then(|way| Some(way.device.as_ref()?.name.clone())).or(by_tunnel),
        gateway: asked_way.and_then(|way| way.gateway).filter(|_| !is_tunnel),
        source: packet.query.source.or(asked_way.and_then(|way| way.source)).or(own.filter(|_| is_tunnel)),
        mtu: asked_way.and_then(|way| way.mtu).or(view.tunnel.mtu.filter(|_| is_tunnel)),
        agrees: compared.map(|result| result.is_ok()),
        difference,
        kernel,
        notes,
        is_up,
    }
}

/// Looks at another packet of the same prefix, of which only a disagreement is news.
pub(super) async fn elsewhere(inspector: &Inspector, view: &View<'_>, packet: &Packet, answer: &mut Answer) {
    if answer.agrees != Some(true) {
        return;
    }
    let kernel = KernelSide::ask(inspector, view, packet).await;
    let decision = view.model.decide(packet.query.destination);
    if let Some(Err(difference)) = verdict::compare(view, &decision, packet, &kernel.asked, &kernel.trace) {
        answer.agrees = Some(false);
        answer.difference = Some(format!("{difference} (asked about {})", packet.query.destination));
    }
}

/// Adds what becomes of packets whose sender lets the kernel choose a source address and asks again with that one, as TCP
/// does before it connects: a rule may select by it.
pub(super) async fn again(inspector: &Inspector, view: &View<'_>, packet: &Packet, answer: &mut Answer) {
    let first = answer.kernel.as_ref().and_then(|kernel| kernel.way.as_ref());
    let Some((source, device)) = first.and_then(|way| way.source.zip(way.device.clone())) else { return };
    if packet.query.source.is_some() || answer.agrees != Some(true) || answer.way == Way::Blocked.name() {
        return;
    }
    let packet = Packet { query: Query { source: Some(source), ..packet.query }, ..packet.clone() };
    let kernel = KernelSide::ask(inspector, view, &packet).await;
    if kernel.way.as_ref().is_some_and(|way| way.device.as_ref() == Some(&device)) {
        return;
    }
    let decision = view.model.decide(packet.query.destination);
    if let Some(Err(difference)) = verdict::compare(view, &decision, &packet, &kernel.asked, &kernel.trace) {
        answer.agrees = Some(false);
        answer.difference = Some(format!("{difference} (once it has the source address {source}, as TCP connects)"));
    }
}

/// Adds what becomes of the tunnel's own datagrams, if the address is that of an endpoint.
pub(super) async fn datagrams(inspector: &Inspector, view: &View<'_>, ip: IpAddr, answer: &mut Answer) {
    let is_endpoint = |peer: &&super::SubjectPeer| peer.endpoint.is_some_and(|at| at.ip().to_canonical() == ip);
    let Some(peer) = view.tunnel.peers.iter().find(is_endpoint) else { return };
    let decision = view.model.decide_datagram(ip);
    let way = match decision.way {
        Way::Underlay => "leave by the underlay".to_owned(),
        other => format!("would not get out ({})", other.name()),
    };
    let mark = view.tunnel.fwmark.unwrap_or(0);
    let marked = if mark == 0 { String::new() } else { format!(", marked {mark:#x},") };
    let mut note = format!("the tunnel's own datagrams to {}{marked} {way}", peer.public_key.short());
    if let Some(index) = view.index() {
        let asked = inspector.way(&Query { mark, ip_protocol: Some(17), ..Query::to(ip) }).await;
        match asked {
            Ok(found) if found.device.as_ref().is_some_and(|device| device.index == index) => {
                let loops = "sends the tunnel's own datagrams back into the tunnel, where they are dropped".to_owned();
                answer.agrees = Some(false);
                answer.difference = Some(match answer.difference.take() {
                    Some(other) => format!("{other}; and it {loops}"),
                    None => loops,
                });
            }
            Ok(found) => note += &format!(", {}", verdict::leads(&found)),
            Err(reason) => note += &format!(", and the kernel refuses them: {}", verdict::refusal(reason)),
        }
    }
    answer.notes.push(note);
}

fn summary(view: &View<'_>, net: IpNet, decision: &Decision, way: Option<&KernelWay>, differs: bool) -> String {
    let what = if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
    let name = &view.tunnel.name;
    let goes = |is: &str, be: &str| match view.index() {
        None => format!("would {be}"),
        Some(_) if differs => format!("should {be}"),
        Some(_) => is.to_owned(),
    };
    match decision.way {
        Way::Tunnel { peer } => {
            let peer = view.tunnel.peers.get(peer).map(super::SubjectPeer::describe).unwrap_or_default();
            format!("{what} {} through the tunnel {name}, to peer {peer}", goes("goes", "go"))
        }
        Way::NoPeer => {
            format!("{what} {} into the tunnel {name}, where it is dropped: no peer has it", goes("goes", "go"))
        }
        Way::Host => format!("{what} {} this host itself", goes("is", "be")),
        Way::Blocked => format!("{what} {} blocked: the kill switch refuses it", goes("is", "be")),
        _ => {
            let led = way.map(|way| format!(", {}", verdict::leads(way))).unwrap_or_default();
            format!("{what} {} by the underlay{led}", goes("leaves", "leave"))
        }
    }
}

/// Whether the kill switch refuses DNS to a network that it otherwise lets out.
fn is_refused_dns(view: &View<'_>, packet: &Packet, decision: &Decision) -> bool {
    let routing = &view.tunnel.routing;
    let is_dns = packet.query.destination_port == Some(53) && matches!(packet.query.ip_protocol, None | Some(6 | 17));
    is_dns
        && routing.kill_switch
        && routing.names_dns_servers
        && decision.way == Way::Underlay
        && decision.by.is_some_and(|rule| rule.kind == RuleKind::LocalNetwork)
}

/// What to say where a route in main takes traffic out of a full tunnel.
fn pulled_out(view: &View<'_>, decision: &Decision) -> Option<String> {
    let is_main = matches!(decision.by?.kind, RuleKind::MoreSpecificMain | RuleKind::Connected);
    let is_full =
        |lost: &adit_core::route::Rule| matches!(lost.kind, RuleKind::AllowedIp { .. }) && lost.net.prefix_len() == 0;
    (is_main && view.tunnel.routing.layout == Layout::Plain && decision.lost.iter().any(is_full)).then(|| {
        "main is asked before a full tunnel, as with wg-quick; ExcludeLocalNetworks, said either way, puts the tunnel first"
            .to_owned()
    })
}

/// A rule and what it finds.
fn visit(visit: &Visit) -> String {
    let rule = &visit.rule;
    match &visit.found {
        Found::Nothing => format!("{rule}: no route"),
        Found::Suppressed(route) => format!("{rule}: {route}, suppressed"),
        Found::Throw(route) => format!("{rule}: {route}, goes on"),
        Found::Route(route) => format!("{rule}: {route}"),
        Found::Refusal => format!("{rule}: refused"),
        Found::Goto => format!("{rule}: goes on there"),
        Found::Unknown => format!("{rule}: unknown"),
    }
}
