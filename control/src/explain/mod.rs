//! Why a packet goes where it goes: what the tunnel's settings decide, what the kernel says, and whether the two agree.
//!
//! The decision is core's [`RouteModel`], fed with the tunnel's settings (as a running tunnel tells them, or as a file says
//! them) and the host's addresses and routes. The kernel is asked beside it (RTM_GETROUTE), and its look-up is followed
//! rule by rule, so that a disagreement names the rule or the route that took the packet. It changes nothing, sends nothing
//! but questions to the kernel, and does not read the firewall, which only root may: what the kill switch refuses is said
//! by the model.

mod answer;
mod apple;
mod facts;
mod subject;
mod trace;
mod tree;
mod verdict;
mod words;

use std::net::IpAddr;

use adit_core::route::{RouteModel, RouteModelError, Routing};
use ipnet::IpNet;
use serde::Serialize;

pub use answer::{Answer, KernelSide, PeerName};
pub use apple::{
    AppleAnswer, AppleExplanation, AppleFinding, AppleOptions, AppleSettingsWords, AppleStepWords, explain_apple,
};
pub use facts::{Facts, FamilyFacts};
pub use subject::{Subject, SubjectPeer};
pub use trace::{Found, Packet, Trace, Visit, best};
pub use tree::{FamilyTree, RouteNode, RuleNode, TableNode, trees};
pub use words::{LostWords, RuleWords};

use crate::api::Layout;
use crate::route::RouteError;
use crate::route::inspect::{Inspector, Query};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where packets go.
    pub target: Target,
    /// Where they come from: an address of the host's, or else they are packets that the host forwards.
    pub from: Option<IpAddr>,
    /// What they carry.
    pub transport: Option<Transport>,
    /// The port that they go to.
    pub port: Option<u16>,
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To one address.
    Address(IpAddr),
    /// To all addresses of a prefix.
    Prefix(IpNet),
    /// To a host by its name, which has these addresses.
    Name(String, Vec<IpAddr>),
}

/// What packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, or ICMPv6 to an IPv6 address.
    Icmp,
}

/// Why packets go where they go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked about.
    pub target: String,
    /// The tunnel's name.
    pub tunnel: String,
    /// Its file, if that is known.
    pub file: Option<std::path::PathBuf>,
    /// Whether its interface is there.
    pub is_up: bool,
    /// How its routes are laid out.
    pub layout: Layout,
    /// An answer for every address, or for every part of a prefix.
    pub answers: Vec<Answer>,
    /// How many parts of a prefix are left out; at least so many if [`is_more`](Self::is_more).
    pub omitted: usize,
    /// Whether there are still more parts than are counted.
    pub is_more: bool,
    /// What holds for all of it.
    pub notes: Vec<String>,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Model(#[from] RouteModelError),
    /// The kernel does not answer.
    #[error(transparent)]
    Kernel(#[from] RouteError),
    /// Source and destination are of different families.
    #[error("{from} and {to} are of different address families: a packet has both of one")]
    Families {
        /// The source.
        from: IpAddr,
        /// The destination.
        to: IpAddr,
    },
}

impl Transport {
    /// The IP protocol's number in packets to an address.
    #[must_use]
    pub fn number(self, to: IpAddr) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp if to.is_ipv4() => 1,
            Self::Icmp => 58,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Prefix(net) => write!(f, "{net}"),
            Self::Name(name, _) => f.write_str(name),
        }
    }
}

impl Explanation {
    /// Whether the kernel does something else than it should with any of the packets.
    #[must_use]
    pub fn disagrees(&self) -> bool {
        self.answers.iter().any(|answer| answer.agrees == Some(false))
    }
}

/// What an answer is made of, beside the packet.
struct View<'a> {
    tunnel: &'a Subject,
    facts: &'a Facts,
    model: &'a RouteModel,
}

impl View<'_> {
    /// The number of the tunnel's interface, if it is there.
    fn index(&self) -> Option<u32> {
        self.facts.link(&self.tunnel.name).map(|link| link.device.index)
    }
}

/// Explains where packets go, and why.
///
/// # Errors
///
/// See [`ExplainError`].
pub async fn explain(
    inspector: &Inspector,
    tunnel: &Subject,
    question: &Question,
) -> Result<Explanation, ExplainError> {
    let facts = Facts::gather(inspector).await?;
    let inputs = facts.inputs(tunnel);
    let routing = match tunnel.routing.layout {
        Layout::Off => Routing::Off,
        Layout::Plain => Routing::Plain,
        Layout::Strict | Layout::Table => Routing::Strict,
        Layout::Other => inputs.routing(),
    };
    let model = RouteModel::with_routing(&inputs, routing)?;
    let view = View { tunnel, facts: &facts, model: &model };
    let mut explanation = Explanation {
        target: question.target.to_string(),
        tunnel: tunnel.name.clone(),
        file: tunnel.file.clone(),
        is_up: view.index().is_some(),
        layout: tunnel.routing.layout,
        answers: Vec::new(),
        omitted: 0,
        is_more: false,
        notes: Vec::new(),
    };
    if !explanation.is_up {
        explanation
            .notes
            .push(format!("{} is not up: this is what would be, and nothing to compare with", tunnel.name));
    } else if !tunnel.is_told {
        explanation.notes.push(format!(
            "what {} was told is read from its file, which may have changed since it came up",
            tunnel.name
        ));
    }
    if let (Layout::Table, crate::settings::RouteTable::Number(number)) = (tunnel.routing.layout, tunnel.routing.table)
    {
        explanation.notes.push(format!(
            "Table = {number}: this holds for what rules of yours look up in that table, and Adit has none"
        ));
    }
    let parts: Vec<(IpNet, IpAddr)> = match &question.target {
        Target::Address(ip) => vec![(IpNet::from(*ip), *ip)],
        Target::Name(_, list) => list.iter().map(|ip| (IpNet::from(*ip), *ip)).collect(),
        Target::Prefix(net) => {
            let partition = model.partition(*net, COUNTED);
            explanation.omitted = partition.parts.len().saturating_sub(SHOWN);
            explanation.is_more = !partition.is_complete;
            partition.parts.iter().take(SHOWN).map(|part| (part.net, inside(part.net))).collect()
        }
    };
    // A name may have addresses of both families.
    let (parts, others): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|(_, to)| question.from.is_none_or(|from| from.is_ipv4() == to.is_ipv4()));
    match (question.from, others.first()) {
        (Some(from), Some((_, to))) if parts.is_empty() => return Err(ExplainError::Families { from, to: *to }),
        (Some(from), Some(_)) => {
            explanation.notes.push(format!("addresses of the other family than {from} are left out"));
        }
        _ => {}
    }
    let sender = sender(inspector, &view, question, &mut explanation.notes).await;
    for (net, ip) in parts {
        let packet = Packet {
            query: Query {
                source: sender.source,
                input: sender.input.as_ref().map(|(index, _)| *index),
                ip_protocol: question.transport.map(|transport| transport.number(ip)),
                destination_port: question.port,
                ..Query::to(ip)
            },
            user: nix::unistd::getuid().as_raw(),
            input: sender.input.as_ref().map(|(_, name)| name.clone()),
        };
        let kernel = if sender.can_ask { Some(KernelSide::ask(inspector, &view, &packet).await) } else { None };
        let mut answer = answer::answer(&view, net, &packet, kernel);
        if sender.can_ask && net.prefix_len() < net.max_prefix_len() {
            for other in facts.family_of(ip).landmarks(net, LANDMARKS) {
                answer::elsewhere(
                    inspector,
                    &view,
                    &Packet { query: Query { destination: other, ..packet.query }, ..packet.clone() },
                    &mut answer,
                )
                .await;
            }
        }
        answer::again(inspector, &view, &packet, &mut answer).await;
        answer::datagrams(inspector, &view, ip, &mut answer).await;
        explanation.answers.push(answer);
    }
    Ok(explanation)
}

/// Who sends the packets.
#[derive(Default)]
struct Sender {
    source: Option<IpAddr>,
    /// Number and name of the interface that they come in by, if the host forwards them.
    input: Option<(u32, String)>,
    /// Whether the kernel can be asked about them.
    can_ask: bool,
}

async fn sender(inspector: &Inspector, view: &View<'_>, question: &Question, notes: &mut Vec<String>) -> Sender {
    let Some(from) = question.from else { return Sender { can_ask: true, ..Sender::default() } };
    if view.facts.is_own(from) {
        return Sender { source: Some(from), input: None, can_ask: true };
    }
    if view.tunnel.routing.addresses.iter().any(|own| own.addr() == from) {
        notes.push(format!("{from} is the tunnel's address, and not there yet: the kernel cannot be asked about it"));
        return Sender { source: Some(from), ..Sender::default() };
    }
    match inspector.way(&Query::to(from)).await.ok().and_then(|way| way.device) {
        Some(device) => {
            notes.push(format!("{from} is not this host's: packets that it forwards, coming in by {}", device.name));
            let switch = if from.is_ipv4() { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
            if std::fs::read_to_string(format!("/proc/sys/{switch}")).is_ok_and(|value| value.trim() == "0") {
                notes.push(format!("this host does not forward: sysctl {} is 0", switch.replace('/', ".")));
            }
            Sender { source: Some(from), input: Some((device.index, device.name)), can_ask: true }
        }
        None => {
            notes.push(format!(
                "{from} is not this host's, and there is no route back to it: the kernel would not forward"
            ));
            Sender { source: Some(from), ..Sender::default() }
        }
    }
}

/// An address of a prefix to ask about. The unspecified one is none.
fn inside(net: IpNet) -> IpAddr {
    let first = net.network();
    if first.is_unspecified() { net.hosts().find(|ip| !ip.is_unspecified()).unwrap_or(first) } else { first }
}

/// Addresses of a part that the kernel is asked about beside the first one.
const LANDMARKS: usize = 32;
/// Parts of a prefix that are explained.
const SHOWN: usize = 24;
/// Parts of a prefix that are counted.
const COUNTED: usize = 10_000;

#[cfg(test)]
mod tests;
