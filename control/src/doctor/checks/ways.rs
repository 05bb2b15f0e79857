//! Where the kernel sends packets: the tunnel's own, those that it is for, and all others.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::facts::{Answer, Facts, Kernel, Known, Purpose};
use super::super::{Trouble, option};
use super::{repair, some};
use crate::route::inspect::KernelRoute;
use crate::settings::{Family, TABLE_MAIN};

/// Whether the tunnel's own datagrams come back into it.
pub(super) fn endless(facts: &Facts) -> Known<Vec<Trouble>> {
    facts.kernel()?;
    facts.endpoints_are_known()?;
    let index = facts.index();
    let into = |answer: &&Answer| {
        let device = answer.way.as_ref().ok().and_then(|way| way.device.as_ref());
        answer.question.purpose == Purpose::Endpoint && device.is_some_and(|device| Some(device.index) == index)
    };
    let endpoints: Vec<_> = facts.answers.iter().filter(into).map(|answer| answer.question.to).collect();
    let mut troubles = Vec::new();
    if !endpoints.is_empty() {
        let what = format!("The tunnel's own datagrams to {} lead into the tunnel.", some(&endpoints));
        let trouble = Trouble::problem(what).means("None of them reaches the peer, so nothing gets through.");
        troubles.push(match facts.in_force.mark().filter(|mark| *mark != facts.mark()) {
            Some(mark) => trouble
                .mend(format!(
                    "The tunnel's rules except the mark {mark:#x}, and its socket sets {:#x}: give it the right one.",
                    facts.mark()
                ))
                .command(format!("wg set {} fwmark {mark:#x}", facts.name)),
            None => {
                let (mend, command) = repair(facts);
                trouble.mend(mend).command(command)
            }
        });
    }
    let caught = facts.status().and_then(|status| status.drops.get(LOOP_COUNTER)).copied().unwrap_or(0);
    if caught > 0 {
        troubles.push(
            Trouble::warning(format!(
                "{caught} packets to the tunnel's own endpoint came into the tunnel and were dropped."
            ))
            .means("Something but the tunnel sends to the endpoint, or the tunnel's datagrams had lost their way.")
            .mend("If the number grows, look at the findings about rules and marks; if not, it is over.")
            .command(format!("adit status {}", facts.name)),
        );
    }
    Ok(troubles)
}

/// Whether what the tunnel is for goes into it.
pub(super) fn leak(facts: &Facts) -> Known<Vec<Trouble>> {
    facts.kernel()?;
    let index = facts.index();
    let mut troubles = Vec::new();
    for answer in &facts.answers {
        let Purpose::Carried(net) = answer.question.purpose else { continue };
        let to = answer.question.to.ip();
        let Ok(way) = &answer.way else { continue };
        if way.kind.stops() {
            continue;
        }
        let Some(device) = way.device.as_ref().filter(|device| Some(device.index) != index) else { continue };
        let via = way.gateway.map_or_else(String::new, |gateway| format!(" to {gateway}"));
        let part = if net.prefix_len() == 0 { format!("all {}", Family::of(&net)) } else { net.to_string() };
        let what = format!("The tunnel is for {part}, and a packet to {to} leaves by {}{via}.", device.name);
        let (mend, command) = repair(facts);
        troubles.push(
            Trouble::problem(what)
                .means(if facts.in_force.kill_switch() {
                    "The kill switch refuses such traffic, so it goes nowhere."
                } else {
                    "Such traffic leaves in the clear, or does not arrive."
                })
                .mend(format!("See the findings about rules and routes. {mend}"))
                .command(command),
        );
    }
    Ok(troubles)
}

/// What routes of others in the main table take out of a full tunnel that looks at main first.
pub(super) fn pulled_out(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    if !facts.in_force.main_first() {
        return Ok(Vec::new());
    }
    let full = |route: &&KernelRoute| facts.in_force.is_full(Family::of(&route.destination));
    // Those of another tunnel of Adit's are meant to be there.
    let routes: Vec<&KernelRoute> =
        kernel.specific_in_main(facts.index()).filter(full).filter(|route| !route.is_ours).collect();
    let (near, far): (Vec<&KernelRoute>, Vec<&KernelRoute>) =
        routes.into_iter().filter(|route| !is_link_local(route)).partition(|route| route.is_connected());
    let mut troubles = Vec::new();
    let (wide, far): (Vec<&KernelRoute>, Vec<&KernelRoute>) = far.into_iter().partition(|route| is_wide(route));
    let remedy = "Remove it if nobody means it; or write `ExcludeLocalNetworks = on` (or off) into the file and reload, \
                  then no route of the main table goes before the tunnel";
    for (route, what) in wide
        .iter()
        .map(|route| (route, format!("The route {route} in the main table takes {} out of the tunnel.", share(route))))
        .chain(far.iter().map(|route| (route, format!("The route {route} in the main table passes the tunnel by."))))
        .take(MAX_NAMED)
    {
        let wide = is_wide(route);
        let trouble = if wide { Trouble::problem(what) } else { Trouble::warning(what) };
        let means = if wide {
            "That is how TunnelVision (CVE-2024-3661) shows a tunnel's traffic to the network; other VPN clients do it, too."
        } else {
            "As with wg-quick, what is more specific than the tunnel's default route wins; DHCP can set such routes."
        };
        troubles.push(trouble.means(means).mend(format!("{remedy}.")).command(deletion(route)));
    }
    let unnamed = (wide.len() + far.len()).saturating_sub(MAX_NAMED);
    if unnamed > 0 {
        troubles.push(Trouble::warning(format!("So do {unnamed} more routes.")).mend(format!("{remedy}.")));
    }
    let public: Vec<IpNet> =
        near.iter().map(|route| route.destination).filter(|net| !adit_core::route::trusted_local(net)).collect();
    if !public.is_empty() {
        troubles.push(
            Trouble::note(format!("Connected networks with public addresses pass the tunnel by: {}.", some(&public)))
                .means("A hostile network can hand out such addresses to see traffic to them (TunnelCrack).")
                .mend("If you do not trust the network, write `ExcludeLocalNetworks = on` into the file and reload."),
        );
    }
    Ok(troubles)
}

/// Whether the underlay's default routes can be used.
pub(super) fn default_route(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let index = facts.index();
    let mut troubles = Vec::new();
    let ours = facts.in_force.routes.iter().any(|r| r.table == TABLE_MAIN && r.destination.prefix_len() == 0);
    let inside = kernel.routes.iter().filter(|route| {
        let default = route.table == TABLE_MAIN && route.destination.prefix_len() == 0;
        default && !ours && index.is_some_and(|index| route.leads_to(index))
    });
    troubles.extend(inside.map(|route| {
        Trouble::problem(format!(
            "The {} default route of the main table leads into the tunnel.",
            Family::of(&route.destination)
        ))
        .means("It is not Adit's; the tunnel's own datagrams follow it, and what is excluded from the tunnel does.")
        .mend("Remove it.")
        .command(deletion(route))
    }));
    for family in [Family::Ipv4, Family::Ipv6] {
        let defaults = kernel.underlay_defaults(family, index);
        let Some(best) = defaults.first() else { continue };
        for hop in &best.hops {
            let Some(device) = &hop.device else { continue };
            let link = kernel.link(device.index);
            let is_off = hop.is_dead || link.is_none_or(|link| !link.is_up || !link.is_running);
            let strange = hop.gateway.filter(|gateway| !is_reachable(kernel, *gateway, device.index));
            let what = match strange {
                _ if is_off => format!("leads to {}, which is down or has no carrier", device.name),
                Some(gateway) => format!("goes to {gateway}, which is in none of the networks of {}", device.name),
                None => continue,
            };
            troubles.push(
                Trouble::warning(format!("The {family} default route of the main table {what}."))
                    .means("Neither the tunnel's datagrams nor anything beside it may get out this way.")
                    .mend("Connect the network, or have it configured anew (DHCP)."),
            );
        }
    }
    Ok(troubles)
}

fn is_reachable(kernel: &Kernel, gateway: IpAddr, index: u32) -> bool {
    let link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let on_link = |route: &KernelRoute| {
        let direct = route.hops.iter().all(|hop| hop.gateway.is_none());
        direct && route.leads_to(index) && route.destination.contains(&gateway)
    };
    link_local || kernel.routes.iter().any(on_link)
}

/// Link-local and multicast addresses mean something on their interface only.
fn is_link_local(route: &KernelRoute) -> bool {
    match route.destination {
        IpNet::V4(net) => net.addr().is_link_local() || net.addr().is_multicast(),
        IpNet::V6(net) => net.addr().is_unicast_link_local() || net.addr().is_multicast(),
    }
}

/// Whether a route is so short that nobody's network is that large.
fn is_wide(route: &KernelRoute) -> bool {
    match route.destination {
        IpNet::V4(net) => net.prefix_len() < 8,
        IpNet::V6(net) => net.prefix_len() < 16 && !is_link_local(route),
    }
}

fn share(route: &KernelRoute) -> String {
    match route.destination.prefix_len() {
        1 => format!("half of {}", Family::of(&route.destination)),
        length => format!("one part in {} of {}", 1_u32 << length, Family::of(&route.destination)),
    }
}

/// The command that removes a route of the main table.
fn deletion(route: &KernelRoute) -> String {
    format!("ip {} route delete {route}", option(Family::of(&route.destination)))
}

/// The drop reason of the loop guard.
const LOOP_COUNTER: &str = "endpoint_loop";

/// So many findings about routes can be read; the rest is a number.
const MAX_NAMED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use crate::doctor::sample::{self, TUNNEL, full, kernel, main_route, one, status};

    #[test]
    fn a_healthy_tunnel_has_its_ways() {
        let facts = full();
        for check in [endless, leak, pulled_out, default_route] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
    }

    #[test]
    fn an_endpoint_inside_is_a_loop_whose_cause_is_named() {
        let mut facts = full();
        facts.answers[0].way = Ok(sample::way(TUNNEL, "wg0"));
        let found = one(endless(&facts));
        assert!(found.what.contains("198.51.100.9:51820"), "{found:?}");
        assert_eq!(found.command.as_deref(), Some("adit reload wg0"));
        status(&mut facts).fwmark = 0;
        assert_eq!(one(endless(&facts)).command.as_deref(), Some("wg set wg0 fwmark 0xca6c"));
    }

    #[test]
    fn what_the_loop_guard_caught_is_a_warning() {
        let mut facts = full();
        status(&mut facts).drops.insert("endpoint_loop".into(), 5);
        let found = one(endless(&facts));
        assert!(found.what.starts_with("5 packets") && found.severity == Severity::Warning, "{found:?}");
        assert!(adit_core::DropReason::ALL.iter().any(|reason| reason.name() == LOOP_COUNTER));
    }

    #[test]
    fn a_sample_that_leaves_elsewhere_is_a_leak_and_one_that_is_refused_is_none() {
        let mut facts = full();
        facts.answers[1].way = Ok(sample::way(sample::UNDERLAY, "eth0"));
        let found = one(leak(&facts));
        assert!(found.what.contains("all IPv4") && found.what.contains("203.0.113.1 leaves by eth0"), "{found:?}");
        assert!(found.means.unwrap().contains("in the clear"));
        sample::kill_switch(&mut facts);
        assert!(one(leak(&facts)).means.unwrap().contains("kill switch"));
        facts.answers[1].way = Err("Network is unreachable".into());
        assert_eq!(leak(&facts), Ok(Vec::new()));
    }

    #[test]
    fn halves_are_a_problem_other_routes_a_warning_and_lans_nothing() {
        let mut facts = full();
        let gateway = Some("192.168.1.66".parse().unwrap());
        kernel(&mut facts).routes.push(main_route("0.0.0.0/1", 2, gateway));
        let found = one(pulled_out(&facts));
        assert!(found.severity == Severity::Problem && found.what.contains("half of IPv4"), "{found:?}");
        assert!(found.means.unwrap().contains("TunnelVision"));
        assert_eq!(found.command.as_deref(), Some("ip -4 route delete 0.0.0.0/1 via 192.168.1.66 dev eth0"));
        kernel(&mut facts).routes.push(main_route("203.0.113.0/24", 2, gateway));
        assert_eq!(pulled_out(&facts).unwrap()[1].severity, Severity::Warning);

        let mut public = main_route("198.51.100.0/24", 2, None);
        public.protocol = crate::route::inspect::Protocol::KERNEL;
        let mut facts = full();
        kernel(&mut facts).routes.push(public);
        assert_eq!(one(pulled_out(&facts)).severity, Severity::Note);
        // In the strict way nothing in main goes first.
        kernel(&mut facts).routes.push(main_route("0.0.0.0/1", 2, gateway));
        facts.in_force.rules.retain(|rule| rule.priority == 32765);
        assert_eq!(pulled_out(&facts), Ok(Vec::new()));
    }

    #[test]
    fn many_routes_are_a_number() {
        let mut facts = full();
        let gateway = Some("192.168.1.66".parse().unwrap());
        for last in 0..20 {
            kernel(&mut facts).routes.push(main_route(&format!("203.0.113.{last}/32"), 2, gateway));
        }
        let found = pulled_out(&facts).unwrap();
        assert_eq!(found.len(), MAX_NAMED + 1);
        assert!(found[MAX_NAMED].what.contains("12 more"), "{found:?}");
    }

    #[test]
    fn a_default_route_into_the_tunnel_or_to_nowhere_is_told_of() {
        let mut facts = full();
        let mut inside = main_route("0.0.0.0/0", TUNNEL, None);
        inside.metric = 5000;
        kernel(&mut facts).routes.push(inside);
        let found = one(default_route(&facts));
        assert_eq!(found.command.as_deref(), Some("ip -4 route delete default dev wg0"));

        let mut facts = full();
        for link in kernel(&mut facts).links.iter_mut().filter(|link| link.device.index == sample::UNDERLAY) {
            link.is_running = false;
        }
        let found = default_route(&facts).unwrap();
        assert!(found.len() == 2 && found[0].what.contains("eth0, which is down"), "both families: {found:?}");

        let mut facts = full();
        kernel(&mut facts).routes.retain(|route| route.destination.prefix_len() != 24);
        assert!(one(default_route(&facts)).what.contains("192.168.1.1, which is in none"));
    }
}
