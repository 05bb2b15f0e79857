//! The rules of a [`Firewall`] as one nftables transaction. Pure: nothing here asks the host.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::expr::{CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField};
use nftables::expr::{Prefix, SetItem};
use nftables::schema::{Chain, NfListObject, Nftables, Rule, Set, SetFlag, SetType, SetTypeValue, Table};
use nftables::stmt::{JumpTarget, Mangle, Match, Operator, Reject, RejectType, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};
use sha2::{Digest, Sha256};

use super::{Firewall, KillSwitch};

/// The transaction that makes a firewall, in place of whatever the tunnel had before.
///
/// An empty [`Firewall`], without kill switch and reply protection, makes an empty table.
#[must_use]
pub fn ruleset(firewall: &Firewall) -> Nftables<'static> {
    let table = NfListObject::Table(table(&firewall.ifname));
    let mut batch = Batch::new();
    // To delete a table that is not there is an error, to add one that is there is none.
    batch.add(table.clone());
    batch.delete(table.clone());
    batch.add(table);
    contents(firewall).into_iter().for_each(|object| batch.add(object));
    batch.to_nftables()
}

/// The table of a tunnel.
pub(super) fn table(ifname: &str) -> Table<'static> {
    Table { family: NfFamily::INet, name: super::table_name(ifname).into(), handle: None }
}

/// What the table holds: sets, then chains, then rules.
pub(super) fn contents(firewall: &Firewall) -> Vec<NfListObject<'static>> {
    let mut builder = Builder { table: super::table_name(&firewall.ifname), ..Builder::default() };
    if firewall.reply_protection {
        builder.reply_protection(firewall);
    }
    if let Some(switch) = &firewall.kill_switch {
        builder.kill_switch(firewall, switch);
    }
    [builder.sets, builder.chains, builder.rules].concat()
}

/// Prefixes of one family, merged and in order.
pub(super) fn merged(nets: &[IpNet], family: Family) -> Vec<IpNet> {
    let of_family: Vec<IpNet> = nets.iter().filter(|net| family.is_of(&net.addr())).map(IpNet::trunc).collect();
    IpNet::aggregate(&of_family)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn is_of(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    fn nfproto(self) -> Statement<'static> {
        equals(meta(MetaKey::Nfproto), text(if self == Self::Ipv4 { "ipv4" } else { "ipv6" }))
    }
}

#[derive(Default)]
struct Builder {
    table: String,
    sets: Vec<NfListObject<'static>>,
    chains: Vec<NfListObject<'static>>,
    rules: Vec<NfListObject<'static>>,
}

impl Builder {
    /// What wg-quick(8) does for a full tunnel: nobody on the underlay reaches the tunnel's addresses, and answers to the
    /// tunnel's own datagrams carry its mark, so that a strict rp_filter looks for them in the right table.
    fn reply_protection(&mut self, firewall: &Firewall) {
        self.base_chain("preraw", NfHook::Prerouting, PRIORITY_RAW, NfChainPolicy::Accept);
        for family in Family::BOTH {
            let own = firewall.addresses.iter().map(IpNet::addr).filter(|address| family.is_of(address));
            let own: Vec<SetItem<'static>> = own.map(|address| SetItem::Element(address_text(address))).collect();
            if own.is_empty() {
                continue;
            }
            self.rule(
                "preraw",
                "spoofed: to the tunnel's address, by another way",
                vec![
                    differs(meta(MetaKey::Iifname), text(&firewall.ifname)),
                    equals(field(family.protocol(), "daddr"), Expression::Named(NamedExpression::Set(own))),
                    differs(source_type(), text("local")),
                    Statement::Drop(None),
                ],
            );
        }
        if firewall.fwmark == 0 {
            return;
        }
        self.base_chain("premangle", NfHook::Prerouting, PRIORITY_MANGLE, NfChainPolicy::Accept);
        let mark = || Expression::Number(firewall.fwmark);
        self.rule(
            "premangle",
            "answers get the mark of the tunnel's datagrams",
            vec![
                equals(meta(MetaKey::L4proto), text("udp")),
                equals(ct_mark(), mark()),
                Statement::Mangle(Mangle { key: meta(MetaKey::Mark), value: mark() }),
            ],
        );
        self.base_chain("postmangle", NfHook::Postrouting, PRIORITY_MANGLE, NfChainPolicy::Accept);
        self.rule(
            "postmangle",
            "the tunnel's datagrams leave their mark with the flow",
            vec![
                equals(meta(MetaKey::L4proto), text("udp")),
                equals(meta(MetaKey::Mark), mark()),
                Statement::Mangle(Mangle { key: ct_mark(), value: mark() }),
            ],
        );
    }

    fn kill_switch(&mut self, firewall: &Firewall, switch: &KillSwitch) {
        let outside = self.sets_of(switch);
        self.chains.push(NfListObject::Chain(self.plain_chain(REFUSE)));
        self.rule(
            REFUSE,
            "TCP fails at once",
            vec![equals(meta(MetaKey::L4proto), text("tcp")), reject(RejectType::TCPReset, None)],
        );
        self.rule(REFUSE, "so does the rest", vec![reject(RejectType::ICMPX, Some(RejectCode::AdminProhibited))]);

        self.base_chain(OUTPUT, NfHook::Output, PRIORITY_FILTER, NfChainPolicy::Drop);
        self.accept(OUTPUT, "loopback", vec![equals(meta(MetaKey::Oif), text("lo"))]);
        self.accept(OUTPUT, "into the tunnel", vec![equals(meta(MetaKey::Oifname), text(&firewall.ifname))]);
        if firewall.fwmark != 0 {
            self.accept(
                OUTPUT,
                "the tunnel's own datagrams",
                vec![
                    equals(meta(MetaKey::Mark), Expression::Number(firewall.fwmark)),
                    equals(meta(MetaKey::L4proto), text("udp")),
                ],
            );
        }
        for (comment, family, from, to) in [("DHCPv4", Family::Ipv4, 68, 67), ("DHCPv6", Family::Ipv6, 546, 547)] {
            self.accept(
                OUTPUT,
                comment,
                vec![
                    family.nfproto(),
                    equals(field("udp", "sport"), Expression::Number(from)),
                    equals(field("udp", "dport"), Expression::Number(to)),
                ],
            );
        }
        self.accept(
            OUTPUT,
            "neighbour discovery and multicast membership",
            vec![equals(field("icmpv6", "type"), numbers(&ICMPV6_TYPES))],
        );
        self.outside(OUTPUT, &outside, switch.no_local_dns);

        self.base_chain(FORWARD, NfHook::Forward, PRIORITY_FILTER, NfChainPolicy::Drop);
        self.accept(FORWARD, "into the tunnel", vec![equals(meta(MetaKey::Oifname), text(&firewall.ifname))]);
        self.accept(FORWARD, "out of the tunnel", vec![equals(meta(MetaKey::Iifname), text(&firewall.ifname))]);
        self.outside(FORWARD, &outside, switch.no_local_dns);
    }

    /// What may leave outside of the tunnel because the user says so, and the end of a chain.
    fn outside(&mut self, chain: &'static str, sets: &[OutsideSet], no_local_dns: bool) {
        for set in sets.iter().filter(|set| !set.local) {
            self.accept(chain, "excluded from the tunnel", vec![set.matches()]);
        }
        if no_local_dns && sets.iter().any(|set| set.local) {
            self.rule(
                chain,
                "no DNS server but the configured ones",
                vec![
                    equals(meta(MetaKey::L4proto), set_of([text("tcp"), text("udp")])),
                    equals(field("th", "dport"), numbers(&DNS_PORTS)),
                    Statement::Goto(JumpTarget { target: REFUSE.into() }),
                ],
            );
        }
        for set in sets.iter().filter(|set| set.local) {
            self.accept(chain, "local network", vec![set.matches()]);
        }
        self.rule(chain, "everything else", vec![Statement::Goto(JumpTarget { target: REFUSE.into() })]);
    }

    fn sets_of(&mut self, switch: &KillSwitch) -> Vec<OutsideSet> {
        let mut sets = Vec::new();
        for (local, nets) in [(false, &switch.excluded), (true, &switch.local)] {
            for family in Family::BOTH {
                let nets = merged(nets, family);
                if nets.is_empty() {
                    continue;
                }
                let set = OutsideSet { local, family };
                self.sets.push(NfListObject::Set(Box::new(Set {
                    family: NfFamily::INet,
                    table: self.table.clone().into(),
                    name: set.name().into(),
                    set_type: SetTypeValue::Single(match family {
                        Family::Ipv4 => SetType::Ipv4Addr,
                        Family::Ipv6 => SetType::Ipv6Addr,
                    }),
                    flags: Some(HashSet::from([SetFlag::Interval])),
                    elem: Some(nets.iter().map(prefix).collect()),
                    ..Set::default()
                })));
                sets.push(set);
            }
        }
        sets
    }

    fn base_chain(&mut self, name: &'static str, hook: NfHook, priority: i32, policy: NfChainPolicy) {
        self.chains.push(NfListObject::Chain(Chain {
            _type: Some(NfChainType::Filter),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(policy),
            ..self.plain_chain(name)
        }));
    }

    fn plain_chain(&self, name: &'static str) -> Chain<'static> {
        Chain { family: NfFamily::INet, table: self.table.clone().into(), name: name.into(), ..Chain::default() }
    }

    fn accept(&mut self, chain: &'static str, comment: &str, mut expr: Vec<Statement<'static>>) {
        expr.push(Statement::Accept(None));
        self.rule(chain, comment, expr);
    }

    fn rule(&mut self, chain: &'static str, comment: &str, expr: Vec<Statement<'static>>) {
        let comment = format!("{comment} [{}]", digest(&expr));
        self.rules.push(NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: self.table.clone().into(),
            chain: chain.into(),
            expr: expr.into(),
            comment: Some(comment.into()),
            ..Rule::default()
        }));
    }
}

/// A set of destinations that the kill switch lets through.
#[derive(Clone, Copy)]
struct OutsideSet {
    local: bool,
    family: Family,
}

impl OutsideSet {
    fn name(self) -> &'static str {
        match (self.local, self.family) {
            (false, Family::Ipv4) => "excluded4",
            (false, Family::Ipv6) => "excluded6",
            (true, Family::Ipv4) => "local4",
            (true, Family::Ipv6) => "local6",
        }
    }

    fn matches(self) -> Statement<'static> {
        equals(field(self.family.protocol(), "daddr"), text(&format!("@{}", self.name())))
    }
}

/// The kernel keeps a rule's comment with it, so a digest there tells a rule from one that replaced it.
fn digest(expr: &[Statement<'static>]) -> String {
    let text = serde_json::to_vec(expr).unwrap_or_default();
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn equals(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn differs(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

fn text(text: &str) -> Expression<'static> {
    Expression::String(Cow::Owned(text.to_owned()))
}

fn address_text(address: IpAddr) -> Expression<'static> {
    Expression::String(Cow::Owned(address.to_string()))
}

fn set_of(items: impl IntoIterator<Item = Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(items.into_iter().map(SetItem::Element).collect()))
}

fn numbers(numbers: &[u32]) -> Expression<'static> {
    set_of(numbers.iter().copied().map(Expression::Number))
}

fn prefix(net: &IpNet) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(address_text(net.addr())),
        len: u32::from(net.prefix_len()),
    }))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn ct_mark() -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: "mark".into(), family: None, dir: None }))
}

fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

fn source_type() -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags: HashSet::from([FibFlag::Saddr]) }))
}

fn reject(kind: RejectType, code: Option<RejectCode>) -> Statement<'static> {
    Statement::Reject(Some(Reject::new(Some(kind), code)))
}

const OUTPUT: &str = "output";
const FORWARD: &str = "forward";
const REFUSE: &str = "refuse";

/// Priorities of nft(8), table "Standard priority names": before connection tracking (-200), after it, and after DNAT.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_MANGLE: i32 = -150;
const PRIORITY_FILTER: i32 = 0;

/// Multicast listener query, report, done (RFC 2710) and version 2 report (RFC 3810); router and neighbour solicitation,
/// advertisement and redirect (RFC 4861).
const ICMPV6_TYPES: [u32; 9] = [130, 131, 132, 143, 133, 134, 135, 136, 137];

/// DNS and DNS over TLS (RFC 7858).
const DNS_PORTS: [u32; 2] = [53, 853];
