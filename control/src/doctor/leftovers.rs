//! What tunnels have left on a host that do not run any more.

use std::collections::{HashMap, HashSet};

use super::facts::{HostFacts, Known, Recorded, as_ours, key_of_found, key_of_recorded};
use super::{Check, Trouble, option};
use crate::journal::Entry;
use crate::route::inspect::table_name;
use crate::settings::Family;

/// The checks; the names are for programs and stay.
pub(super) const TABLE: &[Check<HostFacts>] = &[
    Check { name: "dead-tunnel", fine: "No tunnel has ended without undoing what it had changed.", look: dead },
    Check { name: "stray-firewall", fine: "There is no firewall of a tunnel that is gone.", look: firewalls },
    Check { name: "stray-rule", fine: "There is no policy rule of a tunnel that is gone.", look: rules },
    Check { name: "stray-route", fine: "There is no route of a tunnel that is gone.", look: routes },
    Check { name: "dead-socket", fine: "There is no socket of a tunnel that is gone.", look: sockets },
    Check { name: "journals", fine: "All journals can be read.", look: journals },
];

fn dead(facts: &HostFacts) -> Known<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for (name, journal) in all(facts)? {
        let Ok((state, entries)) = journal else { continue };
        if state.owner_alive {
            continue;
        }
        if !state.is_of_this_host {
            troubles.push(Trouble::note(format!(
                "{name} has ended in another network namespace, or before the last boot."
            )));
            continue;
        }
        let command = format!("adit recover {name}");
        let what = format!("{name} has ended without undoing what it had changed ({}).", changes(entries.len()));
        troubles.push(if state.keeps_closed {
            Trouble::problem(what)
                .means("The host is closed, as it has to be: what the tunnel carried leaves neither by it nor in the clear.")
                .mend(format!("Bring it up again (`adit up {name}`), or open the host."))
                .command(command)
        } else {
            Trouble::warning(what).means("Addresses, routes or files are in the way.").mend("Undo them.").command(command)
        });
    }
    Ok(troubles)
}

fn firewalls(facts: &HostFacts) -> Known<Vec<Trouble>> {
    let found = facts.firewalls.as_ref().map_err(Clone::clone)?;
    let known: HashSet<&String> = all(facts)?.iter().map(|(name, _)| name).collect();
    let stray = found.iter().filter(|name| !known.contains(name));
    Ok(stray
        .map(|name| {
            let table = crate::firewall::table_name(name);
            Trouble::problem(format!("The nftables table inet {table} is there, and no tunnel {name} is known."))
                .means("If it is a kill switch, it refuses everything that leaves this host.")
                .mend("Delete it.")
                .command(format!("nft delete table inet {table}"))
        })
        .collect())
}

fn rules(facts: &HostFacts) -> Known<Vec<Trouble>> {
    let (kernel, recorded) = complete(facts)?;
    let known: HashSet<_> =
        recorded.iter().filter_map(|entry| if let Entry::Rule(r) = entry { Some(r) } else { None }).collect();
    let ours = kernel.rules.iter().filter(|rule| rule.is_ours);
    let stray = ours.filter(|rule| as_ours(rule).is_none_or(|rule| !known.contains(&rule)));
    Ok(stray
        .map(|rule| {
            Trouble::problem(format!(
                "The {} rule `{rule}` is Adit's, and no tunnel is known that has it.",
                rule.family
            ))
            .means("It leads traffic into a table that nobody fills.")
            .mend("Delete it.")
            .command(format!("ip {} rule delete priority {}", option(rule.family), rule.priority))
        })
        .collect())
}

fn routes(facts: &HostFacts) -> Known<Vec<Trouble>> {
    let (kernel, recorded) = complete(facts)?;
    let recorded = recorded.iter().filter_map(|entry| if let Entry::Route(it) = entry { Some(it) } else { None });
    let used: HashSet<_> = recorded.clone().map(|route| (Family::of(&route.destination), route.table)).collect();
    let known: HashSet<_> = recorded.map(key_of_recorded).collect();
    let ours = kernel.routes.iter().filter(|route| route.is_ours);
    let mut stray: HashMap<(Family, u32), (usize, String)> = HashMap::new();
    for route in ours.filter(|route| !known.contains(&key_of_found(route))) {
        let key = (Family::of(&route.destination), route.table);
        stray.entry(key).or_insert_with(|| (0, route.to_string())).0 += 1;
    }
    let mut stray: Vec<_> = stray.into_iter().collect();
    stray.sort_unstable();
    Ok(stray
        .into_iter()
        .map(|((family, table), (count, first))| {
            let named = table_name(table);
            let what = match count {
                1 => format!(
                    "The {family} route `{first}` in table {named} is Adit's, and no tunnel is known that has it."
                ),
                _ => format!(
                    "{count} {family} routes in table {named} are Adit's, and no tunnel is known that has them."
                ),
            };
            let trouble = Trouble::warning(what).means("Traffic to these destinations may go nowhere.");
            let option = option(family);
            match count {
                1 => trouble.mend("Delete it.").command(format!("ip {option} route delete {first} table {table}")),
                _ if !used.contains(&(family, table)) => {
                    trouble.mend("Delete them.").command(format!("ip {option} route flush table {table} proto {ADIT}"))
                }
                _ => trouble.mend(format!("Look at them (`ip {option} route show table {table} proto {ADIT}`).")),
            }
        })
        .collect())
}

fn sockets(facts: &HostFacts) -> Known<Vec<Trouble>> {
    let dead = facts.dead_sockets.as_ref().map_err(Clone::clone)?;
    let known: HashSet<&String> = all(facts)?.iter().map(|(name, _)| name).collect();
    Ok(dead
        .iter()
        .filter(|name| !known.contains(name))
        .map(|name| {
            Trouble::note(format!("The control socket of {name} is there, and nobody listens on it."))
                .mend("Remove it; the next start of that tunnel would do so, too.")
                .command(format!("adit recover {name}"))
        })
        .collect())
}

fn journals(facts: &HostFacts) -> Known<Vec<Trouble>> {
    let unreadable = all(facts)?.iter().filter_map(|(name, journal)| Some((name, journal.as_ref().err()?)));
    Ok(unreadable
        .map(|(name, why)| {
            Trouble::warning(format!("The journal of {name} cannot be read: {why}."))
                .means("What that tunnel has changed cannot be undone by Adit.")
                .mend("If it needs other rights or another version of Adit, use these; if it is damaged, undo by hand.")
        })
        .collect())
}

fn all(facts: &HostFacts) -> Known<&Vec<(String, Known<Recorded>)>> {
    facts.journals.as_ref().map_err(Clone::clone)
}

/// What the kernel has and all that journals hold; a journal that cannot be read might hold anything.
fn complete(facts: &HostFacts) -> Known<(&super::Kernel, Vec<&Entry>)> {
    let kernel = facts.kernel.as_ref().map_err(Clone::clone)?;
    let mut recorded = Vec::new();
    for (_, journal) in all(facts)? {
        let (state, entries) = journal.as_ref().map_err(Clone::clone)?;
        recorded.extend(entries.iter().filter(|_| state.is_of_this_host));
    }
    Ok((kernel, recorded))
}

fn changes(count: usize) -> String {
    if count == 1 { "1 change".into() } else { format!("{count} changes") }
}

/// Adit's protocol number, as ip(8) takes it.
const ADIT: u8 = crate::route::inspect::Protocol::ADIT.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Severity, examine_host, sample};

    #[test]
    fn a_host_whose_tunnels_run_has_no_leftovers() {
        let report = examine_host(&sample::host());
        assert_eq!(report.worst(), Severity::Ok, "{report:#?}");
        assert_eq!(report.findings.len(), TABLE.len());
    }

    fn first(facts: &HostFacts, check: &str) -> super::super::Finding {
        let report = examine_host(facts);
        report.findings.into_iter().find(|finding| finding.check == check).unwrap()
    }

    fn state(facts: &mut HostFacts) -> &mut super::super::JournalState {
        let (_, journal) = facts.journals.as_mut().unwrap().first_mut().unwrap();
        &mut journal.as_mut().unwrap().0
    }

    #[test]
    fn a_dead_tunnel_is_worse_if_it_keeps_the_host_closed() {
        let mut facts = sample::host();
        state(&mut facts).owner_alive = false;
        assert_eq!(first(&facts, "dead-tunnel").severity, Severity::Warning);
        state(&mut facts).keeps_closed = true;
        let found = first(&facts, "dead-tunnel");
        assert_eq!((found.severity, found.command.as_deref()), (Severity::Problem, Some("adit recover wg0")));
        state(&mut facts).is_of_this_host = false;
        assert_eq!(first(&facts, "dead-tunnel").severity, Severity::Note);
    }

    #[test]
    fn what_no_journal_knows_is_stray() {
        let mut facts = sample::host();
        facts.journals = Ok(Vec::new());
        let found = first(&facts, "stray-firewall");
        assert_eq!(found.command.as_deref(), Some("nft delete table inet adit-wg0"));
        let found = first(&facts, "stray-rule");
        assert!(found.severity == Severity::Problem && found.what.contains("suppress_prefixlength 0"), "{found:?}");
        let found = first(&facts, "stray-route");
        assert!(
            found.severity == Severity::Warning && found.what.contains("2 IPv4 routes in table 51820"),
            "{found:?}"
        );
        assert_eq!(found.command.as_deref(), Some("ip -4 route flush table 51820 proto 173"));
        facts.dead_sockets = Ok(vec!["wg0".into()]);
        assert_eq!(first(&facts, "dead-socket").severity, Severity::Note);
    }

    #[test]
    fn journals_that_cannot_be_read_might_hold_anything() {
        let mut facts = sample::host();
        facts.journals = Ok(vec![("wg0".into(), Err("it is damaged".into()))]);
        for check in ["stray-rule", "stray-route"] {
            let found = first(&facts, check);
            assert!(found.severity == Severity::Note && found.what.contains("could not be looked at"), "{found:?}");
        }
        assert!(first(&facts, "journals").what.contains("of wg0 cannot be read: it is damaged"));
        facts.journals = Err("not permitted".into());
        assert!(examine_host(&facts).findings.iter().all(|finding| finding.severity == Severity::Note));
    }
}
