//! Policy rules and routes of others that go before the tunnel's, or share its mark or its table.

use ipnet::IpNet;

use super::super::facts::{Facts, Kernel, Known, as_ours, is_narrow};
use super::super::{Severity, Trouble, option};
use super::some;
use crate::journal::Via;
use crate::route::inspect::{KernelRoute, KernelRule, RouteKind, RuleAction};
use crate::settings::{Family, TABLE_LOCAL, TABLE_MAIN};

/// Rules of others that take what the tunnel is for.
pub(super) fn rules(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    Ok(before(facts, kernel).filter_map(|rule| judge(facts, kernel, rule)).collect())
}

/// Rules of others that are about the tunnel's mark.
pub(super) fn mark(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let mark = facts.mark();
    let mut troubles = Vec::new();
    if let Some(expected) = facts.in_force.mark().filter(|expected| *expected != mark && facts.status().is_some()) {
        troubles.push(
            Trouble::problem(format!(
                "The tunnel's datagrams carry the mark {mark:#x}, and its rules except {expected:#x}."
            ))
            .means("They are led into the tunnel, or refused by the kill switch.")
            .mend("Give them the right mark.")
            .command(format!("wg set {} fwmark {expected:#x}", facts.name)),
        );
    }
    if mark == 0 {
        return Ok(troubles);
    }
    // Whoever excepts the same mark lets our datagrams pass as well, which is as it should be.
    let about = |rule: &&KernelRule| !rule.is_inverted && rule.mark.is_some_and(|wanted| wanted.matches(mark));
    let to_main = |rule: &KernelRule| rule.action == RuleAction::Lookup(TABLE_MAIN);
    troubles.extend(foreign(facts, kernel).filter(about).filter(|rule| !to_main(rule)).map(|rule| {
        Trouble::warning(format!("The rule `{rule}` of {} is about the tunnel's mark {mark:#x}.", maker(kernel, rule)))
            .means("The tunnel's own datagrams follow it, and not the main table.")
            .mend("Write another FwMark into the tunnel's file, then take it down and bring it up again.")
            .command(format!("adit down {}", facts.name))
    }));
    Ok(troubles)
}

/// What others have in the tunnel's table.
pub(super) fn table(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let Some(table) = facts.in_force.table() else { return Ok(Vec::new()) };
    let mut troubles = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let others =
            |route: &&KernelRoute| route.table == table && !route.is_ours && Family::of(&route.destination) == family;
        let routes: Vec<&KernelRoute> = kernel.routes.iter().filter(others).collect();
        let Some(first) = routes.first() else { continue };
        let names: Vec<String> = routes.iter().map(|route| format!("`{route}`")).collect();
        troubles.push(
            Trouble::warning(format!("Others have {family} routes in the tunnel's table {table}: {}.", some(&names)))
                .means("They decide about traffic that the tunnel is for.")
                .mend("Remove them, or write another FwMark or Table into the file of whoever came second.")
                .command(format!("ip {} route delete {first} table {table}", option(family))),
        );
    }
    let looks_up = foreign(facts, kernel).filter(|rule| rule.action == RuleAction::Lookup(table));
    troubles.extend(looks_up.map(|rule| {
        Trouble::warning(format!("The rule `{rule}` of {} looks up the tunnel's table.", maker(kernel, rule)))
            .means("It leads traffic into the tunnel that the tunnel's own rules would not.")
            .mend("Remove it, or choose another table for one of the two.")
            .command(deletion(rule))
    }));
    Ok(troubles)
}

/// The rules that are not this tunnel's, nor the kernel's own.
fn foreign<'a>(facts: &'a Facts, kernel: &'a Kernel) -> impl Iterator<Item = &'a KernelRule> {
    kernel.rules.iter().filter(|rule| {
        let kernels_own = matches!(
            (rule.priority, rule.action),
            (0, RuleAction::Lookup(TABLE_LOCAL)) | (32_766.., RuleAction::Lookup(_)) | (_, RuleAction::LookupDomain)
        );
        !kernels_own && !as_ours(rule).is_some_and(|rule| facts.in_force.rules.contains(&rule))
    })
}

/// Those that are asked before the one that leads into the tunnel.
fn before<'a>(facts: &'a Facts, kernel: &'a Kernel) -> impl Iterator<Item = &'a KernelRule> {
    let limit = |family| facts.in_force.policy(family).map_or(MAIN_PRIORITY, |rule| rule.priority);
    let carries = |family| facts.in_force.carries(family);
    foreign(facts, kernel).filter(move |rule| rule.priority < limit(rule.family) && carries(rule.family))
}

fn judge(facts: &Facts, kernel: &Kernel, rule: &KernelRule) -> Option<Trouble> {
    // One that asks for a mark is not about what programs send, and neither is one that asks for something else.
    if is_narrow(rule) || (rule.mark.is_some() && !rule.is_inverted) {
        return None;
    }
    let mut ours: Vec<IpNet> = facts
        .in_force
        .carried()
        .map(|route| route.destination)
        .filter(|net| Family::of(net) == rule.family && rule.to.is_none_or(|to| meet(&to, net)))
        .collect();
    // With the shortest first, most of what meets one of them is found at once.
    ours.sort_unstable_by_key(IpNet::prefix_len);
    let taken = match rule.action {
        _ if ours.is_empty() => return None,
        RuleAction::Lookup(TABLE_MAIN) if facts.in_force.main_first() || facts.in_force.rules.is_empty() => {
            return None;
        }
        RuleAction::Lookup(number) => taken(facts, kernel, rule, number, &ours),
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
            Taken { all: rule.to.is_none(), nets: rule.to.into_iter().collect(), device: None }
        }
        _ => return None,
    };
    if !taken.all && taken.nets.is_empty() {
        return None;
    }
    let maker = maker(kernel, rule);
    let what = if taken.all { "everything".to_owned() } else { some(&taken.nets) };
    let towards = taken.device.as_ref().map_or_else(String::new, |name| format!(" to {name}"));
    let sentence = format!("The rule `{rule}` of {maker} goes before the tunnel's, and leads {what}{towards}.");
    let severity = match (taken.all, &maker) {
        (true, Maker::Adit) => Severity::Warning,
        (true, _) => Severity::Problem,
        // The addresses of its own network are no business of ours.
        (false, Maker::Tailscale | Maker::Adit) => Severity::Note,
        (false, _) => Severity::Warning,
    };
    let (mend, command) = match (&maker, &taken.device) {
        (Maker::Tailscale, _) if taken.all => ("Use no exit node.", "tailscale set --exit-node=".to_owned()),
        (Maker::WgQuick, Some(device)) => ("Take that tunnel down, or split it.", format!("wg-quick down {device}")),
        (Maker::Adit, Some(device)) => ("Take that tunnel down, or split it.", format!("adit down {device}")),
        _ => ("Remove it, if whoever made it does not need it.", deletion(rule)),
    };
    let means = if taken.all { "Nothing goes into the tunnel." } else { "Such traffic does not go into the tunnel." };
    let trouble = Trouble::new(severity, sentence).means(means);
    Some(if severity == Severity::Note { trouble } else { trouble.mend(mend).command(command) })
}

/// What a rule takes from the tunnel.
struct Taken {
    all: bool,
    nets: Vec<IpNet>,
    /// Where most of it goes.
    device: Option<String>,
}

fn taken(facts: &Facts, kernel: &Kernel, rule: &KernelRule, table: u32, ours: &[IpNet]) -> Taken {
    let index = facts.index();
    let counts = |route: &&KernelRoute| {
        route.table == table
            && Family::of(&route.destination) == rule.family
            && (route.kind == RouteKind::Unicast || route.kind.stops())
            && rule.suppress_prefix_length.is_none_or(|length| u32::from(route.destination.prefix_len()) > length)
            && index.is_none_or(|index| !route.leads_to(index))
            && rule.to.is_none_or(|to| meet(&to, &route.destination))
            && ours.iter().any(|net| meet(net, &route.destination))
    };
    let mut routes: Vec<&KernelRoute> = kernel.routes.iter().filter(counts).collect();
    routes.sort_by_key(|route| route.destination.prefix_len());
    let excluded = |net: &IpNet| {
        let throws = facts.in_force.routes.iter().filter(|route| route.via == Via::Throw);
        throws.map(|route| route.destination).any(|thrown| thrown.contains(net))
    };
    routes.retain(|route| !excluded(&route.destination));
    let device = routes.first().and_then(|route| route.hops.first()).and_then(|hop| hop.device.as_ref());
    Taken {
        all: rule.to.is_none() && routes.first().is_some_and(|route| route.destination.prefix_len() == 0),
        nets: routes.iter().map(|route| route.destination).collect(),
        device: device.map(|device| device.name.clone()),
    }
}

fn meet(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Who may have made a rule.
#[derive(Debug, PartialEq, Eq)]
enum Maker {
    Adit,
    Tailscale,
    WgQuick,
    Other(String),
}

impl std::fmt::Display for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Adit => f.write_str("another tunnel of Adit's"),
            Self::Tailscale => f.write_str("Tailscale"),
            Self::WgQuick => f.write_str("wg-quick"),
            Self::Other(name) => write!(f, "another program ({name})"),
        }
    }
}

fn maker(kernel: &Kernel, rule: &KernelRule) -> Maker {
    // wg-quick's pair: everything but its mark, which is the table's number, and main without its default routes before.
    let excepts_number = |rule: &KernelRule| match (rule.action, rule.mark) {
        (RuleAction::Lookup(table), Some(mark)) => rule.is_inverted && mark.value == table,
        _ => false,
    };
    let suppresses =
        |rule: &KernelRule| rule.action == RuleAction::Lookup(TABLE_MAIN) && rule.suppress_prefix_length == Some(0);
    let has_partner = || {
        kernel.rules.iter().any(|other| {
            other.family == rule.family && !other.is_ours && other.priority > rule.priority && excepts_number(other)
        })
    };
    if rule.is_ours {
        Maker::Adit
    } else if rule.action == RuleAction::Lookup(TAILSCALE_TABLE) || TAILSCALE_PRIORITIES.contains(&rule.priority) {
        Maker::Tailscale
    } else if excepts_number(rule) || (suppresses(rule) && has_partner()) {
        Maker::WgQuick
    } else {
        Maker::Other(format!("proto {}", rule.protocol))
    }
}

/// The command that removes a rule; a priority may be shared.
fn deletion(rule: &KernelRule) -> String {
    let table = match rule.action {
        RuleAction::Lookup(table) => format!(" table {}", crate::route::inspect::table_name(table)),
        _ => String::new(),
    };
    format!("ip {} rule delete priority {}{table}", option(rule.family), rule.priority)
}

/// The main table's rule (ip-rule(8)).
const MAIN_PRIORITY: u32 = 32_766;
/// What Tailscale uses on Linux (wgengine/router/osrouter, router_linux.go).
const TAILSCALE_TABLE: u32 = 52;
const TAILSCALE_PRIORITIES: std::ops::RangeInclusive<u32> = 5210..=5270;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::sample::{full, kernel, main_route, one, rule, status};
    use crate::route::inspect::Mark;

    fn in_table(table: u32, net: &str, index: u32) -> KernelRoute {
        KernelRoute { table, ..main_route(net, index, None) }
    }

    #[test]
    fn the_tunnels_own_rules_and_the_kernels_are_nobodys_business() {
        let facts = full();
        for check in [rules, mark, table] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_rule_before_ours_that_takes_everything_is_a_problem() {
        let mut facts = full();
        kernel(&mut facts).rules.push(rule(100, 77));
        assert_eq!(rules(&facts), Ok(Vec::new()), "its table is empty");
        kernel(&mut facts).routes.push(in_table(77, "0.0.0.0/0", 2));
        let found = one(rules(&facts));
        assert!(found.severity == Severity::Problem && found.what.contains("everything to eth0"), "{found:?}");
        assert_eq!(found.command.as_deref(), Some("ip -4 rule delete priority 100 table 77"));
        kernel(&mut facts).rules.last_mut().unwrap().priority = 32766;
        assert_eq!(rules(&facts), Ok(Vec::new()), "it comes after ours");
    }

    #[test]
    fn rules_that_are_about_some_packets_only_are_left_alone() {
        let mut facts = full();
        kernel(&mut facts).routes.push(in_table(77, "0.0.0.0/0", 2));
        let marked = KernelRule { mark: Some(Mark { value: 1, mask: 0xff }), ..rule(100, 77) };
        let from = KernelRule { from: Some("10.0.0.0/8".parse().unwrap()), ..rule(101, 77) };
        let other_family = KernelRule { family: Family::Ipv6, ..rule(102, 77) };
        kernel(&mut facts).rules.extend([marked, from, other_family]);
        assert_eq!(rules(&facts), Ok(Vec::new()));
    }

    #[test]
    fn a_rule_that_refuses_everything_is_a_problem() {
        let mut facts = full();
        kernel(&mut facts).rules.push(KernelRule { action: RuleAction::Blackhole, ..rule(100, 0) });
        assert_eq!(one(rules(&facts)).command.as_deref(), Some("ip -4 rule delete priority 100"));
    }

    #[test]
    fn other_tunnels_are_told_by_their_ways() {
        let mut facts = full();
        let not =
            KernelRule { is_inverted: true, mark: Some(Mark { value: 51821, mask: u32::MAX }), ..rule(99, 51821) };
        kernel(&mut facts).rules.push(not);
        kernel(&mut facts).routes.push(in_table(51821, "0.0.0.0/0", 9));
        kernel(&mut facts).routes.last_mut().unwrap().hops[0].device.as_mut().unwrap().name = "wg9".into();
        let found = one(rules(&facts));
        assert!(found.what.contains("of wg-quick"), "{found:?}");
        assert_eq!(found.command.as_deref(), Some("wg-quick down wg9"));
        kernel(&mut facts).rules.last_mut().unwrap().is_ours = true;
        let found = one(rules(&facts));
        assert_eq!((found.severity, found.command.as_deref()), (Severity::Warning, Some("adit down wg9")));

        let mut facts = full();
        kernel(&mut facts).rules.push(rule(5270, 52));
        kernel(&mut facts).routes.push(in_table(52, "100.64.0.9/32", 9));
        assert_eq!(one(rules(&facts)).severity, Severity::Note);
        kernel(&mut facts).routes.push(in_table(52, "0.0.0.0/0", 9));
        let found = one(rules(&facts));
        assert!(found.severity == Severity::Problem && found.command.unwrap().starts_with("tailscale"));
    }

    #[test]
    fn the_mark_must_be_the_one_that_the_rules_except_and_nobody_elses() {
        let mut facts = full();
        let by_mark = KernelRule { mark: Some(Mark { value: 0x6c, mask: 0xff }), ..rule(100, 77) };
        kernel(&mut facts).rules.push(by_mark);
        assert_eq!(one(mark(&facts)).severity, Severity::Warning);
        kernel(&mut facts).rules.last_mut().unwrap().mark = Some(Mark { value: 0x6d, mask: 0xff });
        assert_eq!(mark(&facts), Ok(Vec::new()));
        status(&mut facts).fwmark = 7;
        assert_eq!(one(mark(&facts)).command.as_deref(), Some("wg set wg0 fwmark 0xca6c"));
    }

    #[test]
    fn others_in_the_tunnels_table_are_told_of() {
        let mut facts = full();
        kernel(&mut facts).routes.push(in_table(51820, "203.0.113.0/24", 2));
        assert_eq!(
            one(table(&facts)).command.as_deref(),
            Some("ip -4 route delete 203.0.113.0/24 dev eth0 table 51820")
        );
        let mut facts = full();
        kernel(&mut facts).rules.push(rule(40_000, 51820));
        assert_eq!(table(&facts), Ok(Vec::new()), "after main nothing is left to look up");
        kernel(&mut facts).rules.push(rule(40, 51820));
        assert!(one(table(&facts)).what.contains("looks up"));
        facts.in_force.rules.clear();
        assert_eq!(table(&facts), Ok(Vec::new()));
    }
}
