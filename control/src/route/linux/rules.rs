//! Policy rules of a tunnel, and the choice of its table, mark and priorities.
//!
//! The rule of a family sends everything that does not carry the tunnel's mark to the tunnel's own table. In wg-quick's
//! way of routing another one comes before it, which looks into the main table but passes over its default routes, so
//! that other networks there stay reachable. IPv4 and IPv6 have rules of their own.
//!
//! Every rule has an explicit priority: without one the kernel accepts the same rule twice (net/core/fib_rules.c).

use std::collections::HashSet;

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::netlink::Netlink;
use super::routes::{self, PROTOCOL, address_family};
use crate::journal::{Entry, Rule, Target};
use crate::route::error::{Reason, RouteError};
use crate::settings::{FIRST_TABLE, Family, Policy, Settings, TABLE_MAIN, TablePreference};

/// The numbers of a tunnel with policy routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) fwmark: u32,
    pub(super) table: u32,
}

/// Decides on the table and the mark of a tunnel: what is configured, else what the journal says is in use, else the first
/// table that no route is in and no rule looks up, and whose number is no mark that a rule selects.
pub(super) async fn choose(
    netlink: &Netlink,
    settings: &Settings,
    entries: &[Entry],
) -> Result<Option<Numbers>, RouteError> {
    if !settings.needs_mark() {
        return Ok(None);
    }
    let in_use = entries.iter().find_map(|entry| match entry {
        Entry::Rule(Rule { target: Target::NotMarked(fwmark), table, .. }) => {
            Some(Numbers { fwmark: *fwmark, table: *table })
        }
        _ => None,
    });
    let table = match (settings.table, in_use) {
        (TablePreference::Number(number), _) => number,
        (TablePreference::FirstFree, Some(numbers)) => numbers.table,
        (TablePreference::FirstFree, None) => first_free_table(netlink).await?,
    };
    Ok(Some(Numbers { fwmark: settings.fwmark.unwrap_or(table), table }))
}

/// The rules of one family, in the order in which they are to be added.
///
/// Their priorities are those of wg-quick, directly before the main table's rule; if either is taken, the pair below, and
/// so on. Rules of the journal that are still wanted keep theirs.
pub(super) async fn wanted(
    netlink: &Netlink,
    family: Family,
    policy: Policy,
    numbers: Numbers,
    entries: &[Entry],
) -> Result<Vec<Rule>, RouteError> {
    let make = |priority: u32| -> Vec<Rule> {
        let not_marked = Rule { family, priority, table: numbers.table, target: Target::NotMarked(numbers.fwmark) };
        let main = Rule { priority: priority - 1, table: TABLE_MAIN, target: Target::SuppressDefault, ..not_marked };
        let first = policy.main_first.then_some(main);
        first.into_iter().chain([not_marked]).collect()
    };
    let recorded = entries.iter().find_map(|entry| match entry {
        Entry::Rule(rule @ Rule { target: Target::NotMarked(_), .. }) => Some(rule)
            .filter(|rule| rule.priority > 1 && make(rule.priority).last() == Some(*rule))
            .map(|rule| rule.priority),
        _ => None,
    });
    if let Some(priority) = recorded {
        return Ok(make(priority));
    }
    let taken: HashSet<u32> = list(netlink, family).await?.iter().map(|found| found.priority).collect();
    let mut candidates = (2..=LAST_PRIORITY).rev().step_by(2);
    let free = candidates.find(|priority| !taken.contains(priority) && !taken.contains(&(priority - 1)));
    free.map(make).ok_or(RouteError::NoPriority { family })
}

/// Adds a rule; it is no error if the very same exists.
pub(super) async fn add(netlink: &Netlink, rule: &Rule) -> Result<(), RouteError> {
    match netlink.create(RouteNetlinkMessage::NewRule(message(rule))).await {
        Ok(()) => Ok(()),
        // The kernel says so of a rule that differs in its protocol or its "not" alone, too.
        Err(Reason::Errno(Errno::EEXIST)) if exists(netlink, rule).await? => Ok(()),
        Err(reason) => Err(RouteError::Kernel { action: "add", object: describe(rule), reason }),
    }
}

/// Removes a rule of ours; it is no error if it is gone.
pub(super) async fn remove(netlink: &Netlink, rule: &Rule) -> Result<(), RouteError> {
    // The kernel compares less than all of a rule when it deletes, so a similar rule of another program could be hit.
    if !exists(netlink, rule).await? {
        return Ok(());
    }
    match netlink.change(RouteNetlinkMessage::DelRule(message(rule))).await {
        Ok(()) | Err(Reason::Errno(Errno::ENOENT | Errno::ESRCH)) => Ok(()),
        Err(reason) => Err(RouteError::Kernel { action: "remove", object: describe(rule), reason }),
    }
}

/// Whether exactly this rule, with our protocol number, exists.
pub(super) async fn exists(netlink: &Netlink, rule: &Rule) -> Result<bool, RouteError> {
    Ok(list(netlink, rule.family).await?.iter().any(|found| found.ours.as_ref() == Some(rule)))
}

async fn first_free_table(netlink: &Netlink) -> Result<u32, RouteError> {
    let mut rules = list(netlink, Family::Ipv4).await?;
    rules.extend(list(netlink, Family::Ipv6).await?);
    for table in FIRST_TABLE..=LAST_TABLE {
        // The number is the mark as well, and a mark that another program's rule selects would lead our packets there.
        if !rules.iter().any(|found| found.table == table || found.selects(table))
            && routes::list(netlink, Family::Ipv4, table, None).await?.is_empty()
            && routes::list(netlink, Family::Ipv6, table, None).await?.is_empty()
        {
            return Ok(table);
        }
    }
    Err(RouteError::NoTable { first: FIRST_TABLE, last: LAST_TABLE })
}

/// A rule that exists.
struct Found {
    priority: u32,
    table: u32,
    /// The marks that the rule asks for, or the ones that it leaves out: value and mask.
    mark: (u32, u32),
    /// The rule, if it is one that we could have made and carries our protocol number.
    ours: Option<Rule>,
}

impl Found {
    /// Whether the rule is about this mark.
    fn selects(&self, fwmark: u32) -> bool {
        let (value, mask) = self.mark;
        mask != 0 && fwmark & mask == value
    }
}

async fn list(netlink: &Netlink, family: Family) -> Result<Vec<Found>, RouteError> {
    let mut filter = RuleMessage::default();
    filter.header.family = address_family(family);
    let answers = netlink.list(RouteNetlinkMessage::GetRule(filter)).await.map_err(|reason| RouteError::Kernel {
        action: "list",
        object: format!("the {family} policy rules"),
        reason,
    })?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(found) if found.header.family == address_family(family) => {
                Some(parse(family, &found))
            }
            _ => None,
        })
        .collect())
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    // A table above 255 has its number in the attribute alone.
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(PROTOCOL),
    ];
    match rule.target {
        Target::SuppressDefault => message.attributes.push(RuleAttribute::SuppressPrefixLen(0)),
        Target::NotMarked(fwmark) => {
            message.header.flags = RuleFlags::Invert;
            message.attributes.extend([RuleAttribute::FwMark(fwmark), RuleAttribute::FwMask(u32::MAX)]);
        }
    }
    message
}

fn parse(family: Family, message: &RuleMessage) -> Found {
    let header = &message.header;
    let mut found = Found { priority: 0, table: u32::from(header.table), mark: (0, 0), ours: None };
    let (mut mark, mut mask, mut suppress, mut protocol) = (0, 0, None, None);
    let mut plain = header.action == RuleAction::ToTable && (header.dst_len, header.src_len, header.tos) == (0, 0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => found.priority = *value,
            RuleAttribute::Table(value) => found.table = *value,
            RuleAttribute::FwMark(value) => mark = *value,
            RuleAttribute::FwMask(value) => mask = *value,
            // The kernel shows -1 for "none" (FRA_SUPPRESS_PREFIXLEN).
            RuleAttribute::SuppressPrefixLen(value) => suppress = Some(*value).filter(|&length| length != u32::MAX),
            RuleAttribute::Protocol(value) => protocol = Some(*value),
            _ => plain = false,
        }
    }
    found.mark = (mark, mask);
    let inverted = header.flags.contains(RuleFlags::Invert);
    let target = match (inverted, mark, mask, suppress) {
        (false, 0, 0, Some(0)) => Some(Target::SuppressDefault),
        (true, mark, u32::MAX, None) => Some(Target::NotMarked(mark)),
        _ => None,
    };
    if plain && protocol == Some(PROTOCOL) {
        found.ours = target.map(|target| Rule { family, priority: found.priority, table: found.table, target });
    }
    found
}

fn describe(rule: &Rule) -> String {
    let Rule { family, priority, table, target } = rule;
    match target {
        Target::SuppressDefault => {
            format!("the {family} rule {priority}: from all lookup {table} suppress_prefixlength 0")
        }
        Target::NotMarked(mark) => {
            format!("the {family} rule {priority}: not from all fwmark {mark:#x} lookup {table}")
        }
    }
}

/// Directly before the main table's rule, 32766 (ip-rule(8)).
const LAST_PRIORITY: u32 = 32765;
/// So many tunnels with default routes are a mistake somewhere, and looking on would take for ever.
const LAST_TABLE: u32 = FIRST_TABLE + 999;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(target: Target) -> Rule {
        Rule { family: Family::Ipv4, priority: 32765, table: 51820, target }
    }

    #[test]
    fn a_rule_is_recognised_as_what_was_sent() {
        for target in [Target::SuppressDefault, Target::NotMarked(0xca6c), Target::NotMarked(0)] {
            let rule = rule(target);
            assert_eq!(parse(Family::Ipv4, &message(&rule)).ours, Some(rule));
        }
    }

    #[test]
    fn similar_rules_of_others_are_not_ours() {
        let ours = message(&rule(Target::NotMarked(1)));
        let mut not_inverted = ours.clone();
        not_inverted.header.flags = RuleFlags::empty();
        let mut other_protocol = ours.clone();
        other_protocol.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        let mut narrower = ours.clone();
        narrower.attributes.push(RuleAttribute::Iifname("eth0".into()));
        for message in [not_inverted, other_protocol, narrower] {
            let found = parse(Family::Ipv4, &message);
            assert_eq!((found.ours, found.priority, found.table), (None, 32765, 51820));
        }
    }
}
