//! What the daemon has applied, compared with what is there.

use std::collections::HashSet;

use super::super::facts::{Facts, InForce, Known, as_ours, key_of_found, key_of_recorded};
use super::super::{Trouble, option};
use super::{repair, some};
use crate::journal::{Route, Target, Via};

/// Whether the device is there, is the tunnel's, and is up.
pub(super) fn device(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let name = &facts.name;
    let (mend, command) = ("Take the tunnel down, and bring it up again.", format!("adit down {name}"));
    let trouble = match (facts.index().and_then(|index| kernel.link(index)), kernel.link_named(name)) {
        (Some(link), _) if !link.is_up => Some(
            Trouble::problem(format!("The device {} is down.", link.device.name))
                .means("Routes into it are gone or do not count, and no packet passes.")
                .mend("Set it up.")
                .command(format!("ip link set {} up", link.device.name)),
        ),
        (Some(link), _) if link.device.name != *name => Some(
            Trouble::warning(format!("The device of {name} is called {} by now.", link.device.name))
                .means("The firewall's rules, which know it by its name, do not hold for it.")
                .mend(mend)
                .command(command),
        ),
        (Some(_), _) => None,
        (None, Some(_)) => Some(
            Trouble::problem(format!("The device {name} is not the tunnel's: another program made it."))
                .means("The tunnel's own device is gone, and so is what led into it.")
                .mend(mend)
                .command(command),
        ),
        (None, None) => Some(
            Trouble::problem(format!("There is no device {name}."))
                .means("No packet passes the tunnel.")
                .mend(mend)
                .command(command),
        ),
    };
    Ok(trouble.into_iter().collect())
}

/// Whether the device has its addresses.
pub(super) fn addresses(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let recorded = recorded(facts)?;
    let has = |index, address| kernel.addresses.iter().any(|a| a.device.index == index && a.address == address);
    let missing = recorded.addresses.iter().filter(|it| !has(it.device.index, it.address));
    let missing: Vec<_> = missing.map(|it| it.address).collect();
    Ok(lacking(facts, "address", &missing, "Packets have another source address, which peers refuse."))
}

/// Whether the tunnel's routes are there.
pub(super) fn routes(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let recorded = recorded(facts)?;
    let found: HashSet<_> = kernel.routes.iter().filter(|route| route.is_ours).map(key_of_found).collect();
    let missing = |route: &&Route| !found.contains(&key_of_recorded(route));
    let (into, stops): (Vec<&Route>, Vec<&Route>) =
        recorded.routes.iter().filter(missing).partition(|route| route.via != Via::Unreachable);
    let names = |routes: &[&Route]| routes.iter().map(|route| shown(route)).collect::<Vec<_>>();
    let mut troubles =
        lacking(facts, "route", &names(&into), "Traffic goes where it should not, or does not go into the tunnel.");
    troubles.extend(lacking(
        facts,
        "route",
        &names(&stops),
        "If the device goes, traffic leaves in the clear instead of being refused.",
    ));
    Ok(troubles)
}

/// Whether the tunnel's policy rules are there.
pub(super) fn rules(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let recorded = recorded(facts)?;
    let found: HashSet<_> = kernel.rules.iter().filter_map(as_ours).collect();
    let missing = recorded.rules.iter().filter(|rule| !found.contains(rule));
    let missing: Vec<String> = missing
        .map(|rule| {
            let (option, priority) = (option(rule.family), rule.priority);
            match rule.target {
                Target::SuppressDefault => {
                    format!("`ip {option} rule {priority}: lookup main suppress_prefixlength 0`")
                }
                Target::NotMarked(mark) => {
                    format!("`ip {option} rule {priority}: not from all fwmark {mark:#x} lookup {}`", rule.table)
                }
            }
        })
        .collect();
    Ok(lacking(facts, "policy rule", &missing, "Traffic passes the tunnel by, or local networks are cut off."))
}

/// Whether others keep changing what the tunnel needs.
pub(super) fn rivalry(facts: &Facts) -> Known<Vec<Trouble>> {
    let repairs = facts.told()?.repairs;
    let what = format!("Others have changed the tunnel's routing; {repairs} changes were repaired since it is up.");
    let mend = "Find out which program does it: `ip monitor route rule` and the tunnel's log tell when.";
    Ok(match repairs {
        0 => Vec::new(),
        1..OFTEN => vec![Trouble::note(what).mend(mend)],
        _ => vec![
            Trouble::warning(what)
                .means("Some program wants another routing, and each change is a gap until it is repaired.")
                .mend(mend),
        ],
    })
}

/// What the journal says, if it is known.
fn recorded(facts: &Facts) -> Known<&InForce> {
    match (&facts.journal, facts.in_force.is_recorded) {
        (_, true) => Ok(&facts.in_force),
        (Err(why), false) => Err(why.clone()),
        (Ok(_), false) => Err("the tunnel has no journal".into()),
    }
}

fn lacking<T: std::fmt::Display>(facts: &Facts, noun: &str, missing: &[T], means: &str) -> Vec<Trouble> {
    if missing.is_empty() {
        return Vec::new();
    }
    let plural = match (missing.len(), noun) {
        (1, _) => format!("A {noun} of the tunnel is missing"),
        (count, "address") => format!("{count} addresses of the tunnel are missing"),
        (count, _) => format!("{count} {noun}s of the tunnel are missing"),
    };
    let (mend, command) = repair(facts);
    vec![Trouble::problem(format!("{plural}: {}.", some(missing))).means(means).mend(mend).command(command)]
}

fn shown(route: &Route) -> String {
    let Route { destination, table, .. } = route;
    match &route.via {
        Via::Device(device) => format!("`{destination} dev {} table {table}`", device.name),
        Via::Gateway { address, device } => format!("`{destination} via {address} dev {} table {table}`", device.name),
        Via::Unreachable => format!("`unreachable {destination} table {table}`"),
        Via::Throw => format!("`throw {destination} table {table}`"),
    }
}

/// What can happen by accident happens less often than this.
const OFTEN: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::Daemon;
    use crate::doctor::sample::{TUNNEL, full, kernel, one, status};

    #[test]
    fn what_is_as_it_was_applied_is_fine() {
        let facts = full();
        for check in [device, addresses, routes, rules, rivalry] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_device_that_is_down_renamed_replaced_or_gone_is_told_of() {
        let mut facts = full();
        let link = |facts: &mut Facts| -> usize {
            kernel(facts).links.iter().position(|link| link.device.index == TUNNEL).unwrap()
        };
        let at = link(&mut facts);
        kernel(&mut facts).links[at].is_up = false;
        assert_eq!(one(device(&facts)).command.as_deref(), Some("ip link set wg0 up"));
        kernel(&mut facts).links[at].is_up = true;
        kernel(&mut facts).links[at].device.name = "wg1".into();
        assert!(one(device(&facts)).what.contains("called wg1"));
        kernel(&mut facts).links[at].device.name = "wg0".into();
        kernel(&mut facts).links[at].device.index = 99;
        assert!(one(device(&facts)).what.contains("another program"));
        kernel(&mut facts).links.remove(at);
        assert!(one(device(&facts)).what.contains("no device wg0"));
    }

    #[test]
    fn what_is_missing_is_named_with_who_mends_it() {
        let mut facts = full();
        kernel(&mut facts).addresses.retain(|found| found.device.index != TUNNEL);
        assert!(one(addresses(&facts)).what.starts_with("2 addresses of the tunnel are missing: 10.9.0.2/24"));

        kernel(&mut facts).rules.retain(|rule| rule.priority != 32765);
        let missing = one(rules(&facts));
        assert!(missing.what.contains("`ip -4 rule 32765: not from all fwmark 0xca6c lookup 51820`"), "{missing:?}");
        assert_eq!(missing.command.as_deref(), Some("adit reload wg0"));
        facts.daemon = Daemon::Silent { pid: Some(7), why: String::new(), stopped: true };
        assert_eq!(one(rules(&facts)).command.as_deref(), Some("kill -CONT 7"));
        facts.daemon = Daemon::Gone;
        assert_eq!(one(rules(&facts)).command.as_deref(), Some("adit down wg0"));

        kernel(&mut facts).routes.retain(|route| route.table != 51820);
        let missing = routes(&facts).unwrap();
        assert!(missing[0].what.contains("`0.0.0.0/0 dev wg0 table 51820`"), "{missing:?}");
        assert!(missing[1].what.contains("unreachable ::/0"), "{missing:?}");
    }

    #[test]
    fn a_route_of_others_does_not_stand_for_ours() {
        let mut facts = full();
        for route in &mut kernel(&mut facts).routes {
            route.is_ours = false;
        }
        assert!(!routes(&facts).unwrap().is_empty());
    }

    #[test]
    fn without_a_journal_nothing_can_be_found_missing() {
        let mut facts = full();
        facts.in_force.is_recorded = false;
        facts.journal = Err("not permitted".into());
        for check in [addresses, routes, rules] {
            assert_eq!(check(&facts), Err("not permitted".into()));
        }
    }

    #[test]
    fn repairs_are_a_note_and_many_a_warning() {
        let mut facts = full();
        status(&mut facts).repairs = 3;
        assert_eq!(one(rivalry(&facts)).severity, crate::doctor::Severity::Note);
        status(&mut facts).repairs = 300;
        assert_eq!(one(rivalry(&facts)).severity, crate::doctor::Severity::Warning);
    }
}
