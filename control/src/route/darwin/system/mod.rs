//! The half of this folder that only macOS has: it moves bytes, and what they mean is decided beside it.

mod calls;
mod monitor;

use nix::errno::Errno;
use socket2::Socket;

pub use monitor::Monitor;

use super::apply::Kernel;
use super::message::Action;
use super::table::{Table, gateway_of};
use super::{apply as applying, plan};
use crate::journal::{Entry, Journal, Route};
use crate::route::{Applied, Binding, PulledOut, Reason, RouteError};
use crate::settings::Settings;
use crate::socket;

/// This host.
struct Darwin {
    routing: Socket,
    sequence: i32,
}

/// Fits settings to this host: refuses what macOS has no means for. No packet has a mark here, so there is none to return.
///
/// # Errors
///
/// [`RouteError::Unsupported`], or the kernel's tables cannot be read.
pub async fn pin(settings: &mut Settings, _journal: &Journal) -> Result<Option<u32>, RouteError> {
    plan::refuse(settings)?;
    // The mark that stands for the rules of a firewall that is not there.
    settings.firewall = None;
    if plan::hides_ipv6_names(settings, &Darwin::open()?.table()?) {
        tracing::warn!(
            "no service of this host has an IPv6 default route, and macOS asks for no IPv6 addresses of names then: what \
             has no other is found by its address only"
        );
    }
    Ok(None)
}

/// What the tunnel's own sockets must be bound to, so that their datagrams are not routed into it: the interface with the
/// default route.
///
/// # Errors
///
/// The kernel's tables cannot be read.
pub async fn binding(settings: &Settings) -> Result<Binding, RouteError> {
    Ok(applying::binding(settings, &Darwin::open()?.table()?))
}

/// Makes the host conform to the settings: addresses, up, routes. Calling it again with the same settings changes nothing
/// but what others have changed meanwhile or what follows the network, and with other settings changes the difference.
///
/// # Errors
///
/// What could not be done and why. If something could not be added, everything that this call did is undone and the host
/// is as before. If something old could not be removed ([`RouteError::Left`]), the new settings are in force.
pub async fn apply(ifname: &str, settings: &Settings, journal: &mut Journal) -> Result<Applied, RouteError> {
    apply_with(ifname, settings, journal, &mut |_, _| ()).await
}

/// Does what [`apply`] does, and says now and then how many of how many changes are made.
///
/// # Errors
///
/// As those of [`apply`].
pub async fn apply_with(
    ifname: &str,
    settings: &Settings,
    journal: &mut Journal,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Applied, RouteError> {
    let (applied, plan) = applying::apply(&mut Darwin::open()?, ifname, settings, journal, progress)?;
    if applied.changed > 0 && !plan.ties.is_empty() {
        tracing::warn!(
            routes = plan.ties.len(),
            "the system has routes of its own to prefixes of the tunnel, and they win: longer prefixes in AllowedIPs would"
        );
        for net in plan.ties.iter().take(SHOWN) {
            tracing::debug!(%net, "a prefix that the system has a route to");
        }
    }
    Ok(applied)
}

/// What leaves a full tunnel because the system has a longer route to it.
///
/// # Errors
///
/// The kernel's tables cannot be read.
pub async fn pulled_out(ifname: &str, settings: &Settings) -> Result<Vec<PulledOut>, RouteError> {
    let table = Darwin::open()?.table()?;
    let tunnel = table.by_name(ifname).map_or(0, |interface| interface.index);
    Ok(plan::pulled_out(settings, &table.without(tunnel, &[])))
}

/// Takes back everything in a journal, latest first, and forgets what is taken back. What is gone already counts as
/// taken back, so it can be called again, after a crash too. The journal itself stays; see [`Journal::remove`].
///
/// # Errors
///
/// [`RouteError::Left`] with all that could not be taken back, which the journal still holds.
pub async fn undo(journal: &mut Journal) -> Result<(), RouteError> {
    if journal.owner().is_of_this_boot() {
        applying::undo(&mut Darwin::open()?, journal)?;
    } else {
        // The reboot took them.
        let gone: Vec<Entry> =
            journal.entries().iter().filter(|entry| !matches!(entry, Entry::Socket { .. })).cloned().collect();
        journal.edit(Vec::new(), &gone)?;
    }
    for entry in journal.entries().to_vec() {
        if let Entry::Socket { path } = &entry {
            let failed = |source| RouteError::Socket { path: path.display().to_string(), source };
            socket::remove_dead_at(path).await.map_err(failed)?;
            journal.forget(&entry)?;
        }
    }
    Ok(())
}

/// Whether a journal holds something that keeps traffic from leaving in the clear: nothing does here, for all that a
/// tunnel has is gone with its interface.
#[must_use]
pub fn keeps_closed(_journal: &Journal) -> bool {
    false
}

/// The mark that a datagram must carry to pass the rules of a journal: there are none here.
#[must_use]
pub fn mark_in_force(_journal: &Journal) -> Option<u32> {
    None
}

/// Takes back everything in a journal; nothing here would keep the host closed.
///
/// # Errors
///
/// As those of [`undo`].
pub async fn undo_but_stay_closed(journal: &mut Journal) -> Result<(), RouteError> {
    undo(journal).await
}

/// Sets the length of an interface's send queue: utun's is what its socket holds, which the device has set already.
///
/// # Errors
///
/// None on this system.
pub async fn set_queue_length(_ifname: &str, _packets: u32) -> Result<(), RouteError> {
    Ok(())
}

impl Darwin {
    fn open() -> Result<Self, RouteError> {
        let routing = calls::routing_socket().map_err(|error| RouteError::Kernel {
            action: "open",
            object: "a routing socket".into(),
            reason: Reason::NoSocket(calls::errno(&error)),
        })?;
        Ok(Self { routing, sequence: 0 })
    }

    fn send(&mut self, action: Action, route: &Route) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let gateway = gateway_of(&route.via).ok_or(Errno::EINVAL)?;
        // Only destination and mask tell routes apart; what leads elsewhere meanwhile was looked at by the caller.
        let gateway = (action != Action::Delete).then_some(gateway);
        calls::send(&self.routing, &calls::request(action, route.destination, gateway, self.sequence))
    }
}

impl Kernel for Darwin {
    fn table(&mut self) -> Result<Table, RouteError> {
        calls::table().map_err(|error| RouteError::Kernel {
            action: "read",
            object: "the kernel's routes and interfaces".into(),
            reason: Reason::Errno(calls::errno(&error)),
        })
    }

    fn make(&mut self, change: &Entry) -> Result<(), Errno> {
        match change {
            Entry::Address(address) => calls::add_address(address),
            Entry::Up(device) => calls::set_up(device),
            Entry::Route(route) => self.send(Action::Add, route),
            _ => Err(Errno::EINVAL),
        }
    }

    fn redirect(&mut self, route: &Route) -> Result<(), Errno> {
        self.send(Action::Change, route)
    }

    fn unmake(&mut self, change: &Entry) -> Result<(), Errno> {
        match change {
            Entry::Address(address) => calls::remove_address(address),
            Entry::Route(route) => self.send(Action::Delete, route),
            // An interface that is set up is the tunnel's, and goes with it.
            Entry::Up(_) => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// So many prefixes are enough to find where they come from.
const SHOWN: usize = 20;
