//! How long packets may be: the tunnel's MTU beside that of the way to its endpoints.

use std::net::SocketAddr;

use super::super::Trouble;
use super::super::facts::{Facts, Known, Purpose};
use super::repair;
use crate::settings::Family;

/// Whether the tunnel's MTU fits.
pub(super) fn mtu(facts: &Facts) -> Known<Vec<Trouble>> {
    let kernel = facts.kernel()?;
    let Some(link) = facts.index().and_then(|index| kernel.link(index)) else { return Ok(Vec::new()) };
    let has = |family| facts.in_force.addresses.iter().any(|it| Family::of(&it.address) == family);
    let ipv6 = has(Family::Ipv6) || facts.in_force.carries(Family::Ipv6);
    if ipv6 && link.mtu < MIN_IPV6 {
        return Ok(vec![
            Trouble::problem(format!("The tunnel's MTU is {}, and it carries IPv6.", link.mtu))
                .means(format!(
                    "IPv6 needs {MIN_IPV6} (RFC 8200 section 5); the kernel switches it off on a device with less."
                ))
                .mend("Write a greater MTU into the file, or none, and have it read again.")
                .command(format!("adit reload {}", facts.name)),
        ]);
    }
    facts.endpoints_are_known()?;
    let narrowest = narrowest(facts);
    let Some((to, path)) = narrowest else { return Ok(Vec::new()) };
    let room = path.saturating_sub(overhead(to));
    let least = if ipv6 { MIN_IPV6 } else { MIN_IPV4 };
    let name = &facts.name;
    if link.mtu > room {
        let what =
            format!("The tunnel's MTU is {}, and the way to {to} carries {path}, which leaves {room}.", link.mtu);
        if link.mtu <= least {
            return Ok(vec![
                Trouble::note(what)
                    .means(format!("It cannot be less than {least}, so full packets travel in two fragments.")),
            ]);
        }
        let trouble = Trouble::warning(what)
            .means("Full packets travel in fragments, which cost speed and which many networks drop.");
        let fitting = path.saturating_sub(OVERHEAD_IPV6).max(least);
        return Ok(vec![if fixed(facts) {
            trouble
                .mend(format!("Write `MTU = {fitting}` into the file, or no MTU at all, and have it read again."))
                .command(format!("adit reload {name}"))
        } else {
            let (mend, command) = repair(facts);
            trouble.mend(mend).command(command)
        }]);
    }
    // What Adit derives keeps room for IPv6 outside, and that is no waste.
    let derived = path.saturating_sub(OVERHEAD_IPV6);
    if fixed(facts) && link.mtu < derived {
        return Ok(vec![
            Trouble::note(format!("The tunnel's MTU is {}, and the way to {to} leaves room for {derived}.", link.mtu))
                .means("Each packet carries less than it could.")
                .mend("If the way beyond the first network carries as much, take the MTU out of the file and have it read again.")
                .command(format!("adit reload {name}")),
        ]);
    }
    Ok(Vec::new())
}

/// The endpoint whose way carries least, and how much.
fn narrowest(facts: &Facts) -> Option<(SocketAddr, u32)> {
    let ours = facts.answers.iter().filter(|answer| answer.question.purpose == Purpose::Endpoint);
    let index = facts.index();
    let outside = ours.filter_map(|answer| {
        let way = answer.way.as_ref().ok()?;
        // A loop has a finding of its own.
        way.device.as_ref().filter(|device| Some(device.index) != index)?;
        Some((answer.question.to, way.mtu?))
    });
    outside.min_by_key(|(to, path)| path.saturating_sub(overhead(*to)))
}

fn fixed(facts: &Facts) -> bool {
    facts.config.as_ref().is_ok_and(|config| config.interface.mtu.is_some())
}

/// IP, UDP 8, and WireGuard's 32 bytes of header and tag.
fn overhead(to: SocketAddr) -> u32 {
    if to.is_ipv4() { OVERHEAD_IPV4 } else { OVERHEAD_IPV6 }
}

const OVERHEAD_IPV4: u32 = 60;
const OVERHEAD_IPV6: u32 = 80;
/// The least MTU of an IPv6 link (RFC 8200 section 5).
const MIN_IPV6: u32 = 1280;
/// What Adit gives to a tunnel at least (RFC 1122 section 3.3.2).
const MIN_IPV4: u32 = 576;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use crate::doctor::sample::{TUNNEL, config, full, kernel, one, only};

    fn with(path: u32, own: u32) -> Facts {
        let mut facts = full();
        for answer in facts.answers.iter_mut().filter(|answer| answer.question.purpose == Purpose::Endpoint) {
            answer.way.as_mut().unwrap().mtu = Some(path);
        }
        for link in kernel(&mut facts).links.iter_mut().filter(|link| link.device.index == TUNNEL) {
            link.mtu = own;
        }
        facts
    }

    #[test]
    fn what_fits_is_fine() {
        for (path, own) in [(1500, 1420), (1500, 1440), (1500, 1280)] {
            assert_eq!(mtu(&with(path, own)), Ok(Vec::new()), "{path} {own}");
        }
    }

    #[test]
    fn what_does_not_fit_is_a_warning_with_the_number_that_would() {
        let mut facts = with(1400, 1420);
        let found = one(mtu(&facts));
        assert!(found.severity == Severity::Warning && found.what.contains("leaves 1340"), "{found:?}");
        config(&mut facts).interface.mtu = Some(1420);
        assert!(one(mtu(&facts)).mend.unwrap().contains("`MTU = 1320`"));
    }

    #[test]
    fn what_cannot_be_less_is_a_note() {
        assert_eq!(one(mtu(&with(1280, 1280))).severity, Severity::Note);
        let mut facts = with(1280, 1280);
        only(&mut facts, Family::Ipv4);
        assert_eq!(one(mtu(&facts)).severity, Severity::Warning, "IPv4 alone could have less");
    }

    #[test]
    fn too_little_for_ipv6_is_a_problem_and_less_than_could_be_a_note() {
        assert_eq!(one(mtu(&with(1500, 1200))).severity, Severity::Problem);
        let mut facts = with(1500, 1300);
        config(&mut facts).interface.mtu = Some(1300);
        assert!(one(mtu(&facts)).what.contains("room for 1420"));
    }
}
