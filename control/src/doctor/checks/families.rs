//! Families of addresses that a tunnel forgets, and names that it does not resolve yet.

use super::super::Trouble;
use super::super::facts::{Facts, Known, Purpose};
use super::some;
use crate::settings::Family;

/// Whether a full tunnel carries one family only while the underlay has the other.
pub(super) fn missing(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let in_force = &facts.in_force;
    let mut troubles = Vec::new();
    for (carried, other) in [(Family::Ipv4, Family::Ipv6), (Family::Ipv6, Family::Ipv4)] {
        if !in_force.is_full(carried) || in_force.carries(other) {
            continue;
        }
        let defaults = kernel.underlay_defaults(other, facts.index());
        let Some(route) = defaults.first() else { continue };
        let everything = if other == Family::Ipv4 { "0.0.0.0/0" } else { "::/0" };
        let mend = format!(
            "If the peer carries {other}, add {everything} to its AllowedIPs and an {other} address to the interface; if not, \
             `KillSwitch = on` refuses it. Then have the file read again."
        );
        let passes =
            format!("The tunnel carries {carried} only, and the underlay has a default route for {other} ({route})");
        troubles.push(if in_force.kill_switch() {
            Trouble::note(format!("{passes}, which the kill switch closes."))
                .means(format!("{other} is refused at once, and programs fall back to {carried}."))
        } else {
            Trouble::warning(format!("{passes}."))
                .means(format!(
                    "{other} traffic passes the tunnel by and leaves in the clear, under this host's own address."
                ))
                .mend(mend)
                .command(format!("adit reload {}", facts.name))
        });
    }
    Ok(troubles)
}

/// Whether the tunnel carries a family of which it has no address.
pub(super) fn no_address(facts: &Facts) -> Known<Vec<Trouble>> {
    if facts.in_force.device.is_none() {
        return Err("it is not known what was applied".into());
    }
    let lacks = |family: &Family| {
        let has = facts.in_force.addresses.iter().any(|it| Family::of(&it.address) == *family);
        facts.in_force.carries(*family) && !has
    };
    let troubles = [Family::Ipv4, Family::Ipv6].into_iter().filter(lacks).map(|family| {
        Trouble::warning(format!("The tunnel is for {family} prefixes, and its interface has no {family} address."))
            .means("Packets get the address of another interface, which the peer refuses, or are not sent at all.")
            .mend(format!(
                "Add the {family} address that the peer expects to `Address`, or take the {family} prefixes out of AllowedIPs. \
                 Then have the file read again."
            ))
            .command(format!("adit reload {}", facts.name))
    });
    Ok(troubles.collect())
}

/// Whether IPv6 is switched off where the tunnel needs it.
pub(super) fn disabled(facts: &Facts) -> Known<Vec<Trouble>> {
    let in_force = &facts.in_force;
    let has = in_force.addresses.iter().any(|it| Family::of(&it.address) == Family::Ipv6);
    if !has && !in_force.carries(Family::Ipv6) {
        return Ok(Vec::new());
    }
    let parameter = format!("net/ipv6/conf/{}/disable_ipv6", facts.name);
    Ok(match facts.sysctls.get(&parameter).map(String::as_str) {
        Some("0") => Vec::new(),
        Some(_) => vec![
            Trouble::problem(format!("IPv6 is switched off on {}.", facts.name))
                .means("The kernel has taken the tunnel's IPv6 addresses and routes.")
                .mend("Switch it on.")
                .command(format!("sysctl -w {parameter}=0")),
        ],
        // A kernel without IPv6 has no such parameter, and neither has a device that is gone.
        None => Vec::new(),
    })
}

/// Whether names are resolved as the file has it.
pub(super) fn name_servers(facts: &Facts) -> Known<Vec<Trouble>> {
    let mut troubles = Vec::new();
    if let Ok(config) = &facts.config
        && (!config.interface.dns.is_empty() || !config.interface.dns_search.is_empty())
    {
        let named = some(&config.interface.dns);
        let what = if named.is_empty() { "search domains".to_owned() } else { format!("the name servers {named}") };
        troubles.push(
            Trouble::warning(format!("The file names {what}, which Adit does not set up yet."))
                .means("Names are resolved as without the tunnel, by servers that others chose.")
                .mend(
                    "Set them up by a hook: `PostUp = resolvconf -a %i -m 0 -x < FILE`, `PostDown = resolvconf -d %i`.",
                ),
        );
    }
    let index = facts.index();
    let full = [Family::Ipv4, Family::Ipv6].into_iter().any(|family| facts.in_force.is_full(family));
    let outside = facts.answers.iter().filter(|answer| answer.question.purpose == Purpose::NameServer && full);
    for answer in outside {
        let Ok(way) = &answer.way else { continue };
        let Some(device) = way.device.as_ref().filter(|device| Some(device.index) != index) else { continue };
        if way.kind == crate::route::inspect::RouteKind::Local {
            continue;
        }
        let ip = answer.question.to.ip();
        troubles.push(
            Trouble::note(format!("The name server {ip} is reached by {}, beside the tunnel.", device.name))
                .means("Whoever runs that network sees the names that are asked for.")
                .mend("Name one in /etc/resolv.conf that is reached through the tunnel."),
        );
    }
    Ok(troubles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use crate::doctor::facts::{Answer, Question};
    use crate::doctor::sample::{UNDERLAY, config, full, kernel, kill_switch, one, only, set, way};

    #[test]
    fn a_tunnel_of_both_families_forgets_none() {
        let facts = full();
        for check in [missing, no_address, disabled, name_servers] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_family_that_only_the_underlay_has_leaks_or_is_refused() {
        for (carried, other) in [(Family::Ipv4, Family::Ipv6), (Family::Ipv6, Family::Ipv4)] {
            let mut facts = full();
            only(&mut facts, carried);
            let found = one(missing(&facts));
            assert!(found.what.contains(&format!("default route for {other} (default via")), "{found:?}");
            assert_eq!(found.command.as_deref(), Some("adit reload wg0"));
            kill_switch(&mut facts);
            assert_eq!(one(missing(&facts)).severity, Severity::Note);
            kernel(&mut facts).routes.retain(|route| Family::of(&route.destination) == carried);
            assert_eq!(missing(&facts), Ok(Vec::new()), "the underlay has not got it either");
        }
    }

    #[test]
    fn a_family_without_address_is_a_warning() {
        let mut facts = full();
        facts.in_force.addresses.retain(|it| Family::of(&it.address) == Family::Ipv4);
        assert!(one(no_address(&facts)).what.contains("no IPv6 address"));
        facts.in_force.device = None;
        assert!(no_address(&facts).is_err());
    }

    #[test]
    fn ipv6_that_is_switched_off_is_a_problem_for_who_needs_it() {
        let mut facts = full();
        set(&mut facts, "net/ipv6/conf/wg0/disable_ipv6", "1");
        assert_eq!(one(disabled(&facts)).command.as_deref(), Some("sysctl -w net/ipv6/conf/wg0/disable_ipv6=0"));
        only(&mut facts, Family::Ipv4);
        assert_eq!(disabled(&facts), Ok(Vec::new()));
    }

    #[test]
    fn name_servers_that_are_not_set_up_or_outside_are_told_of() {
        let mut facts = full();
        config(&mut facts).interface.dns = vec!["10.9.0.53".parse().unwrap()];
        assert!(one(name_servers(&facts)).what.contains("10.9.0.53"));
        config(&mut facts).interface.dns.clear();
        let question = Question { to: "192.168.1.1:53".parse().unwrap(), mark: 0, purpose: Purpose::NameServer };
        facts.answers.push(Answer { question, way: Ok(way(UNDERLAY, "eth0")) });
        let found = one(name_servers(&facts));
        assert!(found.severity == Severity::Note && found.what.contains("192.168.1.1 is reached by eth0"), "{found:?}");
        facts.in_force.routes.clear();
        assert_eq!(name_servers(&facts), Ok(Vec::new()), "no full tunnel");
    }
}
