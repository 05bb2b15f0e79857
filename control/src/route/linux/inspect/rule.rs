//! A policy rule, as the kernel shows it.

use std::fmt;

use ipnet::IpNet;
use rtnetlink::packet_core::{DefaultNla, Nla as _};
use rtnetlink::packet_route::rule::{self, RuleAttribute, RuleFlags, RuleMessage};
use serde::Serialize;

use super::super::routes::PROTOCOL_NUMBER;
use super::route::Protocol;
use crate::settings::{Family, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};

/// A policy rule: what it selects, and what becomes of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelRule {
    /// The family of the packets that meet it.
    pub family: Family,
    /// Rules are asked from the lowest to the highest.
    pub priority: u32,
    /// Whether it is about what does *not* match.
    pub is_inverted: bool,
    /// Source addresses; `None` is all.
    pub from: Option<IpNet>,
    /// Destination addresses; `None` is all.
    pub to: Option<IpNet>,
    /// Type of service; 0 is any.
    pub tos: u8,
    /// The mark, if it matters.
    pub mark: Option<Mark>,
    /// The interface that a packet came in by; `lo` means that the host made it.
    pub input: Option<String>,
    /// The interface that the sender has bound itself to.
    pub output: Option<String>,
    /// The IP protocol's number.
    pub ip_protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<Range>,
    /// Destination ports.
    pub destination_ports: Option<Range>,
    /// The users whose programs it is for.
    pub users: Option<Range>,
    /// Whether it looks at something that is not shown here.
    pub has_more: bool,
    /// What becomes of a packet that it selects.
    pub action: RuleAction,
    /// Routes that it finds with a prefix of this length or a shorter one do not count.
    pub suppress_prefix_length: Option<u32>,
    /// Who made it.
    pub protocol: Protocol,
    /// Whether it carries Adit's protocol number.
    pub is_ours: bool,
}

/// A mark that a rule selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// What the mark must be, so far as the mask goes.
    pub value: u32,
    /// The bits that matter.
    pub mask: u32,
}

/// Numbers from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RuleAction {
    /// Looks this table up.
    Lookup(u32),
    /// Looks up the table of the virtual routing domain (VRF) of the interface.
    LookupDomain,
    /// Goes on with the rule of this priority.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drops.
    Blackhole,
    /// Refuses: network unreachable.
    Unreachable,
    /// Refuses: prohibited.
    Prohibit,
    /// Something newer.
    Other,
}

impl Mark {
    /// Whether a packet with this mark is meant.
    #[must_use]
    pub fn matches(self, mark: u32) -> bool {
        (mark ^ self.value) & self.mask == 0
    }
}

impl Range {
    /// Whether a number is in it.
    #[must_use]
    pub fn contains(self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// As `ip rule show` writes it.
impl fmt::Display for KernelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        if self.is_inverted {
            f.write_str(" not")?;
        }
        match self.from {
            Some(net) => write!(f, " from {}", Shown(net))?,
            None => f.write_str(" from all")?,
        }
        if let Some(net) = self.to {
            write!(f, " to {}", Shown(net))?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        match self.mark {
            Some(Mark { value, mask: u32::MAX }) => write!(f, " fwmark {value:#x}")?,
            Some(Mark { value, mask }) => write!(f, " fwmark {value:#x}/{mask:#x}")?,
            None => {}
        }
        for (word, name) in [("iif", &self.input), ("oif", &self.output)] {
            if let Some(name) = name {
                write!(f, " {word} {name}")?;
            }
        }
        for (word, range) in [("uidrange", self.users), ("sport", self.source_ports), ("dport", self.destination_ports)]
        {
            if let Some(range) = range {
                write!(f, " {word} {range}")?;
            }
        }
        if let Some(number) = self.ip_protocol {
            write!(f, " ipproto {}", protocol_name(number))?;
        }
        if self.has_more {
            f.write_str(" ...")?;
        }
        write!(f, " {}", self.action)?;
        match self.suppress_prefix_length {
            Some(length) => write!(f, " suppress_prefixlength {length}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(table) => write!(f, "lookup {}", table_name(*table)),
            Self::LookupDomain => f.write_str("lookup [l3mdev-table]"),
            Self::Goto(priority) => write!(f, "goto {priority}"),
            Self::Nop => f.write_str("nop"),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Prohibit => f.write_str("prohibit"),
            Self::Other => f.write_str("..."),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// The name of a table, where the kernel has one for it, else its number.
#[must_use]
pub fn table_name(table: u32) -> String {
    match table {
        TABLE_LOCAL => "local".into(),
        TABLE_MAIN => "main".into(),
        TABLE_DEFAULT => "default".into(),
        number => number.to_string(),
    }
}

pub(super) fn parse(family: Family, message: &RuleMessage) -> KernelRule {
    let header = &message.header;
    let mut rule = KernelRule {
        family,
        priority: 0,
        is_inverted: header.flags.contains(RuleFlags::Invert),
        from: None,
        to: None,
        tos: header.tos,
        mark: None,
        input: None,
        output: None,
        ip_protocol: None,
        source_ports: None,
        destination_ports: None,
        users: None,
        has_more: false,
        action: header.action.into(),
        suppress_prefix_length: None,
        protocol: Protocol(0),
        is_ours: false,
    };
    let mut table = u32::from(header.table);
    let (mut mark, mut mask, mut target, mut domain) = (0, 0, 0, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, header.dst_len).ok(),
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::Iifname(name) => rule.input = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.output = Some(name.clone()),
            RuleAttribute::IpProtocol(number) => {
                rule.ip_protocol = Some((*number).into()).filter(|&number| number != 0);
            }
            RuleAttribute::SourcePortRange(ports) => rule.source_ports = Some(range(ports.start, ports.end)),
            RuleAttribute::DestinationPortRange(ports) => rule.destination_ports = Some(range(ports.start, ports.end)),
            RuleAttribute::UidRange(users) => rule.users = Some(range(users.start, users.end)),
            RuleAttribute::Goto(priority) => target = *priority,
            RuleAttribute::L3MDev(on) => domain = *on,
            // The kernel shows -1 for "none" (FRA_SUPPRESS_PREFIXLEN, FRA_SUPPRESS_IFGROUP).
            RuleAttribute::SuppressPrefixLen(length) => {
                rule.suppress_prefix_length = Some(*length).filter(|&length| length != u32::MAX);
            }
            RuleAttribute::SuppressIfGroup(group) => rule.has_more |= *group != u32::MAX,
            RuleAttribute::Protocol(protocol) => rule.protocol = Protocol((*protocol).into()),
            // It labels what it selects, and selects nothing.
            RuleAttribute::Realm(_) => {}
            RuleAttribute::Other(nla) if is_whole_mask(nla) => {}
            _ => rule.has_more = true,
        }
    }
    rule.mark = (mask != 0).then_some(Mark { value: mark, mask });
    rule.action = match rule.action {
        RuleAction::Lookup(_) if domain => RuleAction::LookupDomain,
        RuleAction::Lookup(_) => RuleAction::Lookup(table),
        RuleAction::Goto(_) => RuleAction::Goto(target),
        other => other,
    };
    rule.is_ours = rule.protocol.0 == PROTOCOL_NUMBER;
    rule
}

fn range(first: impl Into<u32>, last: impl Into<u32>) -> Range {
    Range { first: first.into(), last: last.into() }
}

/// Linux 6.15 and later say of a single port that all its bits matter.
fn is_whole_mask(attribute: &DefaultNla) -> bool {
    let mut value = [0; 2];
    if !matches!(attribute.kind(), FRA_SPORT_MASK | FRA_DPORT_MASK) || attribute.value_len() != value.len() {
        return false;
    }
    attribute.emit_value(&mut value);
    value == [0xff; 2]
}

/// The name of an IP protocol that `--proto` knows, else its number.
fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "ipv6-icmp".into(),
        number => number.to_string(),
    }
}

/// Without the length where it is that of an address.
struct Shown(IpNet);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

impl From<rule::RuleAction> for RuleAction {
    fn from(action: rule::RuleAction) -> Self {
        match action {
            rule::RuleAction::ToTable => Self::Lookup(0),
            rule::RuleAction::Goto => Self::Goto(0),
            rule::RuleAction::Nop => Self::Nop,
            rule::RuleAction::Blackhole => Self::Blackhole,
            rule::RuleAction::Unreachable => Self::Unreachable,
            rule::RuleAction::Prohibit => Self::Prohibit,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
impl KernelRule {
    /// An IPv4 rule for all packets.
    pub(crate) fn of_all(priority: u32, action: RuleAction, protocol: Protocol) -> Self {
        Self {
            family: Family::Ipv4,
            priority,
            is_inverted: false,
            from: None,
            to: None,
            tos: 0,
            mark: None,
            input: None,
            output: None,
            ip_protocol: None,
            source_ports: None,
            destination_ports: None,
            users: None,
            has_more: false,
            action,
            suppress_prefix_length: None,
            protocol,
            is_ours: protocol == Protocol::ADIT,
        }
    }
}

/// linux/fib_rules.h.
const FRA_SPORT_MASK: u16 = 28;
/// linux/fib_rules.h.
const FRA_DPORT_MASK: u16 = 29;
