//! The rules of a [`Firewall`] as one nftables transaction. Pure: nothing here asks the host.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::expr::{CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField};
use nftables::expr::{Prefix, SetItem};
use nftables::schema::{Chain, NfCmd, NfListObject, Nftables, Rule, Set, SetFlag, SetType, SetTypeValue, Table};
use nftables::stmt::{JumpTarget, Mangle, Match, Operator, Reject, RejectType, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};
use sha2::{Digest, Sha256};

use super::{Firewall, KillSwitch};

/// The transaction that makes a firewall, in place of whatever the tunnel had before.
///
/// An empty [`Firewall`], without kill switch and reply protection, makes an empty table.
#[must_use]
pub fn ruleset(firewall: &Firewall) -> Nftables<'static> {
    let mut batch = Batch::new();
    let table = replaced(&mut batch, &firewall.ifname);
    batch.add(table);
    contents(firewall).into_iter().for_each(|object| batch.add(object));
    batch.to_nftables()
}

/// The transaction that takes a tunnel's table away, if it is there.
pub(super) fn removal(ifname: &str) -> Nftables<'static> {
    let mut batch = Batch::new();
    replaced(&mut batch, ifname);
    batch.to_nftables()
}

/// The question what the table holds.
pub(super) fn question(ifname: &str) -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.add_cmd(NfCmd::List(table(ifname)));
    batch.to_nftables()
}

/// Makes the table go. To delete one that is not there is an error, and to add one that is there is none.
fn replaced(batch: &mut Batch<'static>, ifname: &str) -> NfListObject<'static> {
    let table = table(ifname);
    batch.add(table.clone());
    batch.delete(table.clone());
    table
}

fn table(ifname: &str) -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: super::table_name(ifname).into(), handle: None })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn firewall(fwmark: u32) -> Firewall {
        Firewall {
            ifname: "adt0".into(),
            fwmark,
            addresses: nets(&["10.9.0.2/24", "10.9.1.2/32", "fd09::2/64"]),
            reply_protection: true,
            kill_switch: Some(KillSwitch {
                excluded: nets(&["192.0.2.0/25", "2001:db8::/32", "192.0.2.128/25", "192.0.2.77/24"]),
                local: nets(&["192.168.1.0/24", "fd77::/64"]),
                no_local_dns: true,
            }),
        }
    }

    /// A line for each object, which begins with where it is and ends with what it is for.
    fn lines(objects: &[NfListObject<'static>]) -> Vec<String> {
        objects
            .iter()
            .map(|object| match object {
                NfListObject::Rule(rule) => {
                    let expr = serde_json::to_string(&rule.expr).unwrap();
                    format!("{}: {expr} # {}", rule.chain, rule.comment.as_deref().unwrap())
                }
                other => serde_json::to_string(other).unwrap(),
            })
            .collect()
    }

    #[test]
    fn the_rules_are_these() {
        let lines = lines(&contents(&firewall(0xca6c))).join("\n");
        assert_eq!(lines, include_str!("golden.txt").trim_end(), "\n{lines}\n");
    }

    #[test]
    fn the_table_is_replaced_and_nothing_else_is_named() {
        let transaction = serde_json::to_value(ruleset(&firewall(1))).unwrap();
        let commands = transaction["nftables"].as_array().unwrap();
        let table = serde_json::json!({"table": {"family": "inet", "name": "adit-adt0"}});
        let expected = [("add", &table), ("delete", &table), ("add", &table)];
        for (command, (verb, object)) in commands.iter().zip(expected) {
            assert_eq!(&command[verb], object, "{command}");
        }
        for command in &commands[3..] {
            let (_, object) = command["add"].as_object().unwrap().iter().next().unwrap();
            assert_eq!((&object["family"], &object["table"]), (&"inet".into(), &"adit-adt0".into()), "{command}");
        }
        let removal = serde_json::to_value(removal("adt0")).unwrap();
        assert_eq!(removal["nftables"].as_array().unwrap()[..], commands[..2]);
    }

    #[test]
    fn without_a_mark_no_rule_asks_for_one() {
        let with = lines(&contents(&firewall(7)));
        let without = lines(&contents(&firewall(0)));
        assert_eq!(with.iter().filter(|line| line.contains("mark\"")).count(), 3);
        assert!(!without.iter().any(|line| line.contains("mark\"")), "{without:#?}");
        assert_eq!(without.len(), with.len() - 5, "three rules, and the chains that two of them would be in");
    }

    #[test]
    fn only_what_is_wanted_is_there() {
        let chains = |firewall: &Firewall| -> Vec<String> {
            let objects = contents(firewall);
            objects
                .iter()
                .filter_map(|object| match object {
                    NfListObject::Chain(chain) => Some(chain.name.to_string()),
                    _ => None,
                })
                .collect()
        };
        let mut firewall = firewall(7);
        assert_eq!(chains(&firewall), ["preraw", "premangle", "postmangle", "refuse", "output", "forward"]);
        firewall.reply_protection = false;
        assert_eq!(chains(&firewall), ["refuse", "output", "forward"]);
        firewall.kill_switch = None;
        assert!(contents(&firewall).is_empty());

        let nothing = KillSwitch { excluded: Vec::new(), local: Vec::new(), no_local_dns: true };
        firewall.kill_switch = Some(nothing);
        let lines = lines(&contents(&firewall));
        assert!(!lines.iter().any(|line| line.contains("daddr") || line.contains("dns")), "{lines:#?}");
        let ends = lines.iter().filter(|line| line.contains(r#"[{"goto":{"target":"refuse"}}]"#)).count();
        assert_eq!(ends, 2, "output and forward end with a refusal: {lines:#?}");
    }

    #[test]
    fn a_changed_rule_has_another_comment_and_the_kernel_has_room_for_it() {
        let comments = |fwmark| -> Vec<String> {
            let lines = lines(&contents(&firewall(fwmark)));
            lines.iter().filter_map(|line| line.split_once(" # ")).map(|(_, comment)| comment.to_owned()).collect()
        };
        let (one, other) = (comments(7), comments(8));
        assert_eq!(one.iter().zip(&other).filter(|(one, other)| one != other).count(), 3);
        assert_eq!(one, comments(7));
        // NFTNL_UDATA_COMMENT_MAXLEN of libnftnl, with the zero at its end.
        assert!(one.iter().all(|comment| comment.len() < 128));
    }
}
