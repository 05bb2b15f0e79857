//! The daemon, its files, and its conversation with the peers.

use std::time::Duration;

use super::super::Trouble;
use super::super::facts::{Daemon, Facts, Known, Purpose};
use crate::api::PeerReport;

/// Whether the daemon answers.
pub(super) fn daemon(facts: &Facts) -> Known<Vec<Trouble>> {
    let name = &facts.name;
    match &facts.daemon {
        Daemon::Answers(_) => Ok(Vec::new()),
        Daemon::Forbidden(why) => Err(why.clone()),
        Daemon::Silent { pid: Some(pid), stopped: true, .. } => Ok(vec![
            Trouble::problem(format!("The daemon of {name}, process {pid}, is stopped (SIGSTOP)."))
                .means("No packet passes the tunnel, and nothing is repaired that others change.")
                .mend("Let it go on.")
                .command(format!("kill -CONT {pid}")),
        ]),
        Daemon::Silent { pid, why, .. } => {
            let process = pid.map_or_else(String::new, |pid| format!(", process {pid},"));
            let trouble = Trouble::problem(format!("The daemon of {name}{process} does not answer: {why}."))
                .means("Its packet loop may hang; what it has applied stays as it is.")
                .mend("End the process, then undo what it has left behind.");
            Ok(vec![match pid {
                Some(pid) => trouble.command(format!("kill -KILL {pid}; adit recover {name}")),
                None => trouble,
            }])
        }
        Daemon::Gone => Ok(vec![
            Trouble::problem(format!("The daemon of {name} is gone; what it had applied is still there."))
                .means(if dead_and_closed(facts) {
                    "The host is closed: what the tunnel carried leaves neither by it nor in the clear."
                } else {
                    "Addresses, routes or files of a tunnel that does not exist any more are in the way."
                })
                .mend("Undo what is left, or bring the tunnel up again.")
                .command(format!("adit recover {name}")),
        ]),
    }
}

fn dead_and_closed(facts: &Facts) -> bool {
    matches!(&facts.journal, Ok(Some(journal)) if journal.keeps_closed)
}

/// Whether what the tunnel has changed is on disk.
pub(super) fn journal(facts: &Facts) -> Known<Vec<Trouble>> {
    let found = facts.journal.as_ref().map_err(Clone::clone)?;
    Ok(match found {
        Some(journal) if !journal.is_of_this_host => vec![
            Trouble::note(format!(
                "{} runs in another network namespace, whose routing is not seen from here.",
                facts.name
            ))
            .mend("Ask there: `ip netns exec NAMESPACE adit doctor`, or `nsenter -n`."),
        ],
        Some(_) => Vec::new(),
        None => vec![
            Trouble::problem("The tunnel's journal is gone.")
                .means("If the daemon is killed, nobody knows what is to be undone.")
                .mend("Take the tunnel down, and bring it up again.")
                .command(format!("adit down {}", facts.name)),
        ],
    })
}

/// Whether the socket for wg(8) answers.
pub(super) fn wg_socket(facts: &Facts) -> Known<Vec<Trouble>> {
    let answers = *facts.uapi_answers.as_ref().map_err(Clone::clone)?;
    let expected = facts.status().is_some();
    Ok(if answers || !expected {
        Vec::new()
    } else {
        vec![
            Trouble::warning("Nobody listens on the tunnel's socket for wg(8).")
                .means("`wg show` does not know the tunnel; its packets are not affected.")
                .mend("Take the tunnel down, and bring it up again.")
                .command(format!("adit down {}", facts.name)),
        ]
    })
}

/// Whether peers answer.
pub(super) fn handshake(facts: &Facts) -> Known<Vec<Trouble>> {
    let status = facts.told()?;
    let mut troubles = Vec::new();
    if status.peers.is_empty() {
        troubles.push(
            Trouble::note("The tunnel has no peer.")
                .means("It carries nothing.")
                .mend("Write a [Peer] section into the file, then reload it.")
                .command(format!("adit reload {}", facts.name)),
        );
    }
    let never = |peer: &&PeerReport| peer.latest_handshake_age_s.is_none();
    let (called, waiting): (Vec<_>, Vec<_>) = status.peers.iter().partition(|peer| peer.endpoint.is_some());
    let silent: Vec<String> = called.iter().copied().filter(never).map(|peer| peer.public_key.to_string()).collect();
    if !silent.is_empty() && status.engine.handshakes_sent > 0 {
        let what = format!("{} never answered: {}.", has_have(silent.len(), "peer"), super::some(&silent));
        let trouble = if silent.len() == status.peers.len() { Trouble::problem(what) } else { Trouble::warning(what) };
        troubles.push(trouble.means("Nothing can be sent to them, and what is meant for them waits or is lost.").mend(
            "See whether the peer is on, has this tunnel's public key, the same preshared key, and its UDP port open \
             (NAT and firewalls between included).",
        ));
    } else if !silent.is_empty() {
        troubles.push(
            Trouble::note("No handshake was tried yet, as there was nothing to send.")
                .mend("Send something into the tunnel, or set PersistentKeepalive."),
        );
    }
    let lost: Vec<String> = called
        .iter()
        .filter(|peer| !peer.has_session && peer.persistent_keepalive > 0 && peer.latest_handshake_age_s.is_some())
        .map(|peer| peer.public_key.to_string())
        .collect();
    if !lost.is_empty() {
        troubles.push(
            Trouble::warning(format!("{} no longer answered: {}.", has_have(lost.len(), "peer"), super::some(&lost)))
                .means("The last session has expired although keepalives are sent.")
                .mend("See whether the peer is on and can be reached at its endpoint."),
        );
    }
    let waiting: Vec<String> = waiting.into_iter().filter(never).map(|peer| peer.public_key.to_string()).collect();
    if !waiting.is_empty() {
        troubles.push(
            Trouble::note(format!("{} no endpoint: {}.", has_have(waiting.len(), "peer"), super::some(&waiting)))
                .means("They must call first, which is right on the side that does not move."),
        );
    }
    Ok(troubles)
}

fn has_have(count: usize, noun: &str) -> String {
    if count == 1 { format!("One {noun} has") } else { format!("{count} {noun}s have") }
}

/// Whether the underlay has a way to the endpoints.
pub(super) fn endpoint(facts: &Facts) -> Known<Vec<Trouble>> {
    facts.kernel()?;
    facts.endpoints_are_known()?;
    let ours = facts.answers.iter().filter(|answer| answer.question.purpose == Purpose::Endpoint);
    let refused = ours.filter_map(|answer| Some((answer.question.to, answer.way.as_ref().err()?)));
    let troubles = refused.map(|(to, why)| {
        let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
        Trouble::problem(format!("The underlay has no way to the endpoint {to}: {why}."))
            .means("The peer cannot be reached from this network.")
            .mend(format!(
                "Connect to a network that has {family}, or give the peer an endpoint of the other family in the file."
            ))
    });
    Ok(troubles.collect())
}

/// Whether the clock was set back.
pub(super) fn clock(facts: &Facts) -> Known<Vec<Trouble>> {
    let behind = facts.newest_timestamp.and_then(|newest| newest.duration_since(facts.now).ok());
    Ok(match behind.filter(|gap| *gap > TOLERATED) {
        None => Vec::new(),
        Some(gap) => vec![
            Trouble::warning(format!(
                "The clock is {} s behind the newest handshake of this tunnel's key.",
                gap.as_secs()
            ))
            .means("Peers take handshakes for replays and do not answer until the clock has caught up.")
            .mend("Set the clock, best by NTP.")
            .command("timedatectl set-ntp true"),
        ],
    })
}

/// What rounding and a small step of NTP come to.
const TOLERATED: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::sample::{full, status};
    use crate::doctor::{Severity, facts::JournalState};

    fn worst(found: Known<Vec<Trouble>>) -> Option<Severity> {
        found.unwrap().iter().map(|trouble| trouble.severity).max()
    }

    #[test]
    fn a_healthy_daemon_has_nothing_to_complain_of() {
        let facts = full();
        for check in [daemon, journal, wg_socket, handshake, endpoint, clock] {
            assert_eq!(check(&facts), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_daemon_that_is_stopped_silent_dead_or_somebody_elses_is_told_apart() {
        let mut facts = full();
        facts.daemon = Daemon::Silent { pid: Some(7), why: "no answer within 2s".into(), stopped: true };
        assert_eq!(daemon(&facts).unwrap()[0].command.as_deref(), Some("kill -CONT 7"));
        assert!(handshake(&facts).is_err(), "nobody tells");
        facts.daemon = Daemon::Silent { pid: Some(7), why: "no answer within 2s".into(), stopped: false };
        let silent = daemon(&facts).unwrap().remove(0);
        assert!(silent.what.contains("process 7") && silent.command.unwrap().contains("kill -KILL 7"));
        facts.daemon = Daemon::Forbidden("only root may".into());
        assert_eq!(daemon(&facts), Err("only root may".into()));
        facts.daemon = Daemon::Gone;
        let dead = |facts: &Facts| daemon(facts).unwrap().remove(0);
        assert_eq!(dead(&facts).command.as_deref(), Some("adit recover wg0"));
        assert!(!dead(&facts).means.unwrap().contains("closed"));
        let Ok(Some(JournalState { keeps_closed, .. })) = &mut facts.journal else { panic!() };
        *keeps_closed = true;
        assert!(dead(&facts).means.unwrap().contains("closed"));
    }

    #[test]
    fn a_journal_that_is_gone_elsewhere_or_unreadable_is_told_of() {
        let mut facts = full();
        let Ok(Some(state)) = &mut facts.journal else { panic!() };
        state.is_of_this_host = false;
        assert_eq!(worst(journal(&facts)), Some(Severity::Note));
        facts.journal = Ok(None);
        assert_eq!(worst(journal(&facts)), Some(Severity::Problem));
        facts.journal = Err("not permitted".into());
        assert!(journal(&facts).is_err());
    }

    #[test]
    fn a_dead_socket_for_wg_is_told_of_while_the_daemon_lives() {
        let mut facts = full();
        facts.uapi_answers = Ok(false);
        assert_eq!(worst(wg_socket(&facts)), Some(Severity::Warning));
        facts.daemon = Daemon::Gone;
        assert_eq!(worst(wg_socket(&facts)), None);
    }

    #[test]
    fn peers_that_do_not_answer_are_named() {
        let mut facts = full();
        let key = status(&mut facts).peers[0].public_key.to_string();
        status(&mut facts).peers[0].latest_handshake_age_s = None;
        status(&mut facts).engine.handshakes_sent = 0;
        assert_eq!(worst(handshake(&facts)), Some(Severity::Note));
        status(&mut facts).engine.handshakes_sent = 3;
        let found = handshake(&facts).unwrap();
        assert_eq!(found[0].severity, Severity::Problem);
        assert!(found[0].what.contains(&key), "{found:?}");

        let answered = full();
        let other = answered.status().unwrap().peers[0].clone();
        status(&mut facts).peers.push(other);
        assert_eq!(worst(handshake(&facts)), Some(Severity::Warning), "one of two");

        let mut facts = full();
        let peer = &mut status(&mut facts).peers[0];
        (peer.has_session, peer.latest_handshake_age_s) = (false, Some(400.0));
        assert_eq!(worst(handshake(&facts)), None, "it is idle");
        status(&mut facts).peers[0].persistent_keepalive = 25;
        assert_eq!(worst(handshake(&facts)), Some(Severity::Warning));
    }

    #[test]
    fn peers_that_have_to_call_are_a_note_and_so_are_none() {
        let mut facts = full();
        let peer = &mut status(&mut facts).peers[0];
        (peer.endpoint, peer.latest_handshake_age_s) = (None, None);
        assert_eq!(worst(handshake(&facts)), Some(Severity::Note));
        status(&mut facts).peers.clear();
        assert_eq!(worst(handshake(&facts)), Some(Severity::Note));
    }

    #[test]
    fn an_endpoint_without_a_way_is_a_problem() {
        let mut facts = full();
        facts.answers[0].way = Err("Network is unreachable".into());
        let found = endpoint(&facts).unwrap();
        facts.daemon = Daemon::Forbidden("not permitted".into());
        assert!(endpoint(&facts).is_ok(), "the file tells them");
        facts.config = Err("not permitted".into());
        assert!(endpoint(&facts).is_err(), "nobody tells them");
        assert!(found[0].what.contains("198.51.100.9:51820") && found[0].what.contains("unreachable"), "{found:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_is_told_of() {
        let mut facts = full();
        facts.newest_timestamp = Some(facts.now - Duration::from_secs(5));
        assert_eq!(worst(clock(&facts)), None);
        facts.newest_timestamp = Some(facts.now + Duration::from_secs(3600));
        let found = clock(&facts).unwrap();
        assert!(found[0].what.contains("3600 s"), "{found:?}");
    }
}
