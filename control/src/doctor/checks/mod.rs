//! The checks of a tunnel, in the order in which a person would want to hear of them: the daemon, what it has applied,
//! where packets go, who else has a say in that, and what the network is like.

mod applied;
mod daemon;
mod families;
mod filter;
mod foreign;
mod size;
mod ways;

use super::{Check, Facts};
use crate::doctor::facts::Daemon;

/// All of them; the names are for programs and stay.
pub(super) const TABLE: &[Check<Facts>] = &[
    Check { name: "daemon", fine: "The daemon answers.", look: daemon::daemon },
    Check { name: "journal", fine: "The journal is there.", look: daemon::journal },
    Check { name: "wg-socket", fine: "wg(8) reaches the tunnel.", look: daemon::wg_socket },
    Check { name: "handshake", fine: "Peers have answered.", look: daemon::handshake },
    Check { name: "endpoint", fine: "There is a way to every endpoint.", look: daemon::endpoint },
    Check { name: "clock", fine: "The clock is not behind the tunnel's last handshake.", look: daemon::clock },
    Check { name: "device", fine: "The device is there and up.", look: applied::device },
    Check { name: "addresses", fine: "The device has its addresses.", look: applied::addresses },
    Check { name: "routes", fine: "The tunnel's routes are in place.", look: applied::routes },
    Check { name: "rules", fine: "The tunnel's policy rules are in place.", look: applied::rules },
    Check { name: "kill-switch", fine: "The kill switch is as it was asked for.", look: filter::kill_switch },
    Check {
        name: "reply-protection",
        fine: "Nothing forged reaches the tunnel's addresses by another way.",
        look: filter::reply_protection,
    },
    Check {
        name: "reverse-path-filter",
        fine: "The reverse path filter lets the peers' answers pass.",
        look: filter::reverse_path,
    },
    Check { name: "rivalry", fine: "Nobody has changed the tunnel's routing.", look: applied::rivalry },
    Check { name: "loop", fine: "The tunnel's own datagrams do not lead into it.", look: ways::endless },
    Check { name: "leak", fine: "What the tunnel is for goes into it.", look: ways::leak },
    Check { name: "pulled-out", fine: "No route of the main table takes traffic out.", look: ways::pulled_out },
    Check { name: "default-route", fine: "The main table's default routes can be used.", look: ways::default_route },
    Check { name: "foreign-rule", fine: "No rule of others goes before the tunnel's.", look: foreign::rules },
    Check { name: "mark", fine: "The tunnel's mark is its own.", look: foreign::mark },
    Check { name: "table", fine: "The tunnel's table is its own.", look: foreign::table },
    Check { name: "missing-family", fine: "No family of addresses passes the tunnel by.", look: families::missing },
    Check {
        name: "family-without-address",
        fine: "The tunnel has the addresses it needs.",
        look: families::no_address,
    },
    Check { name: "ipv6-disabled", fine: "IPv6 is switched on where the tunnel needs it.", look: families::disabled },
    Check { name: "mtu", fine: "The tunnel's MTU fits its underlay.", look: size::mtu },
    Check { name: "name-servers", fine: "Name resolution is as the file has it.", look: families::name_servers },
];

/// What has the tunnel's settings put right again, and the command for it.
fn repair(facts: &Facts) -> (String, String) {
    match &facts.daemon {
        Daemon::Silent { pid: Some(pid), stopped: true, .. } => {
            ("Let the daemon go on: it puts its settings right by itself.".into(), format!("kill -CONT {pid}"))
        }
        Daemon::Silent { .. } | Daemon::Gone => {
            ("Take the tunnel down, and bring it up again.".into(), format!("adit down {}", facts.name))
        }
        _ => (
            "The daemon puts its settings right within a second; if this stays, its log tells why.".into(),
            format!("adit reload {}", facts.name),
        ),
    }
}

/// The first few of many things, in words.
fn some<T: std::fmt::Display>(things: &[T]) -> String {
    const SHOWN: usize = 4;
    let mut words: Vec<String> = things.iter().take(SHOWN).map(ToString::to_string).collect();
    match things.len().saturating_sub(SHOWN) {
        0 => {}
        more => words.push(format!("{more} more")),
    }
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
