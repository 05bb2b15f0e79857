//! The firewall, and the kernel's own filter of forged sources.

use super::super::Trouble;
use super::super::facts::{Facts, FirewallState, Known, Purpose};
use super::{repair, some};
use crate::firewall::{self, Firewall};
use crate::settings::Family;

/// Whether nothing leaves but by the tunnel, if that was asked for.
pub(super) fn kill_switch(facts: &Facts) -> Known<Vec<Trouble>> {
    let asked = facts.config.as_ref().is_ok_and(|config| config.interface.kill_switch);
    if !facts.in_force.is_recorded {
        return Err(unrecorded(facts));
    }
    let Some(firewall) = facts.in_force.firewall.as_ref().filter(|_| facts.in_force.kill_switch()) else {
        return Ok(if asked {
            vec![
                Trouble::problem("The file asks for a kill switch, and the tunnel runs without one.")
                    .means("Traffic that does not go into the tunnel leaves in the clear.")
                    .mend("The file has changed since the tunnel read it: have it read again.")
                    .command(format!("adit reload {}", facts.name)),
            ]
        } else {
            Vec::new()
        });
    };
    let means = "Traffic that does not go into the tunnel leaves in the clear, although the kill switch is on.";
    Ok(not_in_force(facts, firewall)?.map(|what| broken(facts, Trouble::problem(what), means)).into_iter().collect())
}

/// Whether the tunnel's addresses are kept to the tunnel, as wg-quick does for a full one.
pub(super) fn reply_protection(facts: &Facts) -> Known<Vec<Trouble>> {
    let means = "Whoever is on the underlay can send packets to the tunnel's addresses.";
    let in_force = &facts.in_force;
    if !in_force.is_recorded {
        return Err(unrecorded(facts));
    }
    match in_force.firewall.as_ref().filter(|firewall| firewall.reply_protection) {
        // The other check tells of the same table.
        Some(_) if in_force.kill_switch() => Ok(Vec::new()),
        Some(firewall) => Ok(not_in_force(facts, firewall)?
            .map(|what| broken(facts, Trouble::warning(what), means))
            .into_iter()
            .collect()),
        None if !in_force.rules.is_empty() => Ok(vec![
            Trouble::warning("The tunnel was brought up without the protection by nftables that wg-quick gives.")
                .means(means)
                .mend("Install nftables (the package `nftables`), then take the tunnel down and bring it up again.")
                .command(format!("adit down {}", facts.name)),
        ]),
        None => Ok(Vec::new()),
    }
}

/// Whether a strict reverse path filter drops the peers' answers: it looks the way back up, and that leads into the tunnel
/// unless the packet has the tunnel's mark and the mark counts.
pub(super) fn reverse_path(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let in_force = &facts.in_force;
    if in_force.policy(Family::Ipv4).is_none() {
        return Ok(Vec::new());
    }
    let ours = facts.answers.iter().filter(|answer| answer.question.purpose == Purpose::Endpoint);
    let ways = ours.filter(|answer| answer.question.to.is_ipv4()).filter_map(|answer| answer.way.as_ref().ok());
    let mut devices: Vec<String> = ways.filter_map(|way| Some(way.device.as_ref()?.name.clone())).collect();
    if devices.is_empty() {
        let defaults = kernel.underlay_defaults(Family::Ipv4, facts.index());
        devices.extend(
            defaults.iter().flat_map(|route| &route.hops).filter_map(|hop| Some(hop.device.as_ref()?.name.clone())),
        );
    }
    devices.sort_unstable();
    devices.dedup();
    // The kernel takes the greater of the two (Documentation/networking/ip-sysctl).
    let strict = |device: &String| number(facts, "all", "rp_filter").max(number(facts, device, "rp_filter")) == STRICT;
    let strict: Vec<String> = devices.into_iter().filter(|device| device != &facts.name).filter(strict).collect();
    let Some(first) = strict.first() else { return Ok(Vec::new()) };
    let counts =
        |device: &String| number(facts, "all", "src_valid_mark").max(number(facts, device, "src_valid_mark")) != 0;
    let table = firewall::table_name(&facts.name);
    let unprotected = match (in_force.firewall.as_ref().filter(|f| f.reply_protection), &facts.firewall) {
        (_, Err(why)) => return Err(why.clone()),
        (Some(_), Ok(FirewallState::InForce)) => None,
        _ => Some(format!("nothing marks the peers' answers: the nftables table inet {table} is not in force")),
    };
    let reason = match unprotected {
        Some(reason) => reason,
        None if strict.iter().all(counts) => return Ok(Vec::new()),
        None => "marks do not count in it (src_valid_mark is 0)".to_owned(),
    };
    let what = format!("The reverse path filter on {} is strict, and {reason}.", some(&strict));
    Ok(vec![
        Trouble::problem(what)
            .means("The kernel drops what the peers send: handshakes are not answered.")
            .mend("Make the filter loose on that interface.")
            .command(format!("sysctl -w net/ipv4/conf/{first}/rp_filter=2")),
    ])
}

/// Why it is not known what was applied.
fn unrecorded(facts: &Facts) -> String {
    facts.journal.as_ref().err().cloned().unwrap_or_else(|| "the tunnel has no journal".into())
}

/// What is wrong with the tunnel's table of nftables, if something is.
fn not_in_force(facts: &Facts, firewall: &Firewall) -> Known<Option<String>> {
    let table = firewall::table_name(&firewall.ifname);
    Ok(match facts.firewall.as_ref().map_err(Clone::clone)? {
        FirewallState::InForce => None,
        FirewallState::Changed => Some(format!("The tunnel's nftables table inet {table} is gone or was changed.")),
        FirewallState::Unavailable(why) => {
            Some(format!("The tunnel's nftables table inet {table} cannot be seen: {why}."))
        }
    })
}

fn broken(facts: &Facts, trouble: Trouble, means: &str) -> Trouble {
    let (mend, command) = repair(facts);
    let trouble = trouble.means(means);
    match &facts.firewall {
        Ok(FirewallState::Unavailable(_)) => {
            trouble.mend("Install nftables (the package `nftables`), then reload the tunnel.")
        }
        _ => trouble.mend(mend),
    }
    .command(command)
}

fn number(facts: &Facts, device: &str, parameter: &str) -> u32 {
    let value = facts.sysctls.get(&format!("net/ipv4/conf/{device}/{parameter}"));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// RFC 3704's strict mode.
const STRICT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use crate::doctor::sample::{config, full, kill_switch as switched, one, set};

    #[test]
    fn what_is_in_force_is_fine() {
        let mut facts = full();
        for check in [kill_switch, reply_protection, reverse_path] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
        switched(&mut facts);
        for check in [kill_switch, reply_protection, reverse_path] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_kill_switch_whose_table_is_gone_is_a_problem_and_told_once() {
        let mut facts = full();
        switched(&mut facts);
        facts.firewall = Ok(FirewallState::Changed);
        let found = one(kill_switch(&facts));
        assert!(found.what.contains("inet adit-wg0") && found.severity == Severity::Problem, "{found:?}");
        assert_eq!(reply_protection(&facts), Ok(Vec::new()));
        facts.firewall = Ok(FirewallState::Unavailable("no nft".into()));
        assert!(one(kill_switch(&facts)).mend.unwrap().contains("Install"));
        facts.firewall = Err("not permitted".into());
        assert_eq!(kill_switch(&facts), Err("not permitted".into()));
    }

    #[test]
    fn a_kill_switch_that_was_not_applied_is_a_problem() {
        let mut facts = full();
        config(&mut facts).interface.kill_switch = true;
        assert_eq!(one(kill_switch(&facts)).command.as_deref(), Some("adit reload wg0"));
    }

    #[test]
    fn a_full_tunnel_without_protection_is_a_warning() {
        let mut facts = full();
        facts.firewall = Ok(FirewallState::Changed);
        assert_eq!(one(reply_protection(&facts)).severity, Severity::Warning);
        facts.in_force.firewall = None;
        assert!(one(reply_protection(&facts)).mend.unwrap().contains("Install"));
        facts.in_force.rules.clear();
        assert_eq!(reply_protection(&facts), Ok(Vec::new()));
    }

    #[test]
    fn a_strict_filter_needs_marks_that_count() {
        let mut facts = full();
        set(&mut facts, "net/ipv4/conf/eth0/rp_filter", "1");
        assert_eq!(reverse_path(&facts), Ok(Vec::new()), "the answers are marked");
        facts.firewall = Ok(FirewallState::Changed);
        let found = one(reverse_path(&facts));
        assert!(found.what.contains("nothing marks the peers' answers"), "{found:?}");
        assert_eq!(found.command.as_deref(), Some("sysctl -w net/ipv4/conf/eth0/rp_filter=2"));

        facts.firewall = Ok(FirewallState::InForce);
        set(&mut facts, "net/ipv4/conf/all/src_valid_mark", "0");
        assert!(one(reverse_path(&facts)).what.contains("src_valid_mark"));
        set(&mut facts, "net/ipv4/conf/eth0/rp_filter", "2");
        assert_eq!(reverse_path(&facts), Ok(Vec::new()));
        set(&mut facts, "net/ipv4/conf/eth0/rp_filter", "0");
        set(&mut facts, "net/ipv4/conf/all/rp_filter", "1");
        assert_eq!(one(reverse_path(&facts)).severity, Severity::Problem, "the greater counts");
        facts.in_force.rules.clear();
        assert_eq!(reverse_path(&facts), Ok(Vec::new()), "no policy routing");
    }
}
