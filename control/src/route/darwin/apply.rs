//! Brings a host to a plan, and back: every change is in the journal before it is made.
//!
//! What the system does stands behind [`Kernel`], so that all this is tested with a table in memory. A failure on the way
//! leaves the host as it was before the call. Nothing is removed that is not in the journal, and nothing of the journal
//! that somebody has replaced meanwhile.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use ipnet::IpNet;
use nix::errno::Errno;

use super::plan::{Plan, needs_binding, plan, refuse};
use super::table::{Table, gateway_of};
use crate::journal::{Device, Entry, Journal, Route, Via};
use crate::route::mtu::{self, MIN_IPV6};
use crate::route::{Applied, Binding, Reason, RouteError};
use crate::settings::{Family, MtuSource, Settings};

/// What applying settings needs of a system.
pub trait Kernel {
    /// The routing table and the interfaces as they are.
    ///
    /// # Errors
    /// They cannot be read.
    fn table(&mut self) -> Result<Table, RouteError>;

    /// Makes a change.
    ///
    /// # Errors
    /// What the kernel says: EEXIST if there is a route to the destination already.
    fn make(&mut self, change: &Entry) -> Result<(), Errno>;

    /// Lets the route to a destination lead elsewhere.
    ///
    /// # Errors
    /// What the kernel says: ESRCH if there is none.
    fn redirect(&mut self, route: &Route) -> Result<(), Errno>;

    /// Takes an address or a route away.
    ///
    /// # Errors
    /// What the kernel says.
    fn unmake(&mut self, change: &Entry) -> Result<(), Errno>;
}

/// Makes the host conform to the settings: addresses, up, routes. Calling it again with the same settings changes nothing
/// but what others have changed meanwhile or what follows the network, and with other settings changes the difference.
///
/// # Errors
/// What could not be done and why, as [`route::apply`](crate::route::apply) says.
pub fn apply(
    kernel: &mut impl Kernel,
    ifname: &str,
    settings: &Settings,
    journal: &mut Journal,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<(Applied, Plan), RouteError> {
    refuse(settings)?;
    let table = kernel.table()?;
    let tunnel = table.by_name(ifname).ok_or_else(|| RouteError::NoDevice { name: ifname.to_owned() })?;
    let device = table.device(tunnel.index);
    let system = table.without(device.index, journal.entries());
    let mtu = choose_mtu(settings, &system)?;
    let mut plan = plan(settings, &device, &system);
    keep_recorded(&mut plan, journal);
    // It tells which interface was the tunnel's, once that is gone.
    journal.record(Entry::Link(device.clone()))?;

    // The kernel makes routes of its own for addresses, and takes routes along with them: so it is looked at in between.
    let (addresses, routes): (Vec<_>, Vec<_>) =
        plan.changes.iter().cloned().partition(|entry| !matches!(entry, Entry::Route(_)));
    let given = add(kernel, journal, &addresses, &mut |_, _| ())?;
    let led = match add(kernel, journal, &routes, progress) {
        Ok(led) => led,
        Err(cause) => return Err(take_back(kernel, journal, &given, cause)),
    };
    let mut changed = given.len() + led.len();
    let (removed, lost_address) = remove_unwanted(kernel, journal, &plan.changes)?;
    changed += removed;
    if lost_address {
        changed += add(kernel, journal, &plan.changes, &mut |_, _| ())?.len();
    }
    let binding = binding(settings, &system);
    let applied = Applied { index: device.index, mtu, fwmark: None, table: None, binding, changed };
    Ok((applied, plan))
}

/// Takes back everything in a journal, latest first, and forgets what is taken back.
///
/// What leads into the tunnel's own interface is forgotten only, unless this process has made it: the interface went with
/// its process, and another one may have its number by now. The sockets of a tunnel are not this module's.
///
/// # Errors
/// [`RouteError::Left`] with all that could not be taken back, which the journal still holds.
pub fn undo(kernel: &mut impl Kernel, journal: &mut Journal) -> Result<(), RouteError> {
    let is_ours = journal.owner().pid == std::process::id();
    let tunnels: Vec<Device> = journal
        .entries()
        .iter()
        .filter_map(|entry| if let Entry::Link(device) = entry { Some(device.clone()) } else { None })
        .collect();
    let table = kernel.table()?;
    let present = table.present();
    let (mut reverted, mut left) = (Vec::new(), Vec::new());
    for entry in journal.entries().iter().rev().filter(|entry| !matches!(entry, Entry::Socket { .. })) {
        let is_gone = !is_ours && device_of(entry).is_some_and(|device| tunnels.contains(device));
        // The state of the tunnel's interface goes with it.
        let is_change = matches!(entry, Entry::Address(_) | Entry::Route(_));
        let result = if is_change && !is_gone && present.has(entry) { unmake(kernel, entry) } else { Ok(()) };
        match result {
            Ok(()) => reverted.push(entry.clone()),
            Err(error) => left.push(error),
        }
    }
    journal.edit(Vec::new(), &reverted)?;
    if left.is_empty() { Ok(()) } else { Err(RouteError::Left { cause: None, left }) }
}

/// What the tunnel's own sockets must be bound to: the interface with the default route, if a datagram could loop.
#[must_use]
pub fn binding(settings: &Settings, system: &Table) -> Binding {
    match system.primary().and_then(NonZeroU32::new) {
        _ if !needs_binding(settings) => Binding::Free,
        Some(index) => Binding::To(index),
        // Unbound, they would send into the tunnel.
        None => Binding::Unchanged,
    }
}

fn choose_mtu(settings: &Settings, system: &Table) -> Result<u16, RouteError> {
    let carries_ipv6 = settings.carries(Family::Ipv6);
    match &settings.mtu {
        MtuSource::Fixed(mtu) if carries_ipv6 && *mtu < MIN_IPV6 => Err(RouteError::MtuTooSmall { mtu: *mtu }),
        MtuSource::Fixed(mtu) => Ok(*mtu),
        MtuSource::DeriveFromUnderlay { endpoints, .. } => Ok(mtu::inner(system.mtu(endpoints), carries_ipv6)),
    }
}

/// Records and makes what is missing, all or nothing; returns what that was.
fn add(
    kernel: &mut impl Kernel,
    journal: &mut Journal,
    wanted: &[Entry],
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Vec<Entry>, RouteError> {
    let table = kernel.table()?;
    let present = table.present();
    let missing: Vec<&Entry> = wanted.iter().filter(|entry| !present.has(entry)).collect();
    let known: HashSet<Entry> = journal.entries().iter().cloned().collect();
    let in_place: HashMap<IpNet, &Entry> = known
        .iter()
        .filter_map(|entry| match entry {
            Entry::Route(route) if present.has(entry) => Some((route.destination, entry)),
            _ => None,
        })
        .collect();
    // What is there already and is not in the journal, somebody else has made.
    let record: Vec<Entry> = missing.iter().filter(|entry| !known.contains(entry)).map(|&e| e.clone()).collect();
    journal.edit(record.clone(), &[])?;

    let mut made: Vec<(&Entry, Option<&Entry>)> = Vec::new();
    let mut failure = None;
    for entry in &missing {
        let former = match entry {
            Entry::Route(route) => in_place.get(&route.destination).copied(),
            _ => None,
        };
        match make(kernel, entry, former) {
            Ok(()) => made.push((entry, former)),
            Err(cause) => {
                failure = Some(cause);
                break;
            }
        }
        if made.len().is_multiple_of(STEP) {
            progress(made.len(), missing.len());
        }
    }
    let Some(cause) = failure else {
        progress(made.len(), missing.len());
        return Ok(missing.into_iter().cloned().collect());
    };
    let mut left = Vec::new();
    let mut kept = HashSet::new();
    for (entry, former) in made.into_iter().rev() {
        let back = match former {
            Some(old) => replace(kernel, entry, old).map_err(|errno| refused("put back", old, errno)),
            None => unmake(kernel, entry),
        };
        if let Err(error) = back {
            kept.insert(entry);
            left.push(error);
        }
    }
    let forget: Vec<Entry> = record.iter().filter(|entry| !kept.contains(entry)).cloned().collect();
    if let Err(error) = journal.edit(Vec::new(), &forget) {
        left.push(error.into());
    }
    Err(if left.is_empty() { cause } else { RouteError::Left { cause: Some(Box::new(cause)), left } })
}

/// Takes changes back that were made just now, and adds to the cause what could not be.
fn take_back(kernel: &mut impl Kernel, journal: &mut Journal, made: &[Entry], cause: RouteError) -> RouteError {
    let (mut back, mut left) = (Vec::new(), Vec::new());
    for entry in made.iter().rev() {
        match unmake(kernel, entry) {
            Ok(()) => back.push(entry.clone()),
            Err(error) => left.push(error),
        }
    }
    if let Err(error) = journal.edit(Vec::new(), &back) {
        left.push(error.into());
    }
    if left.is_empty() { cause } else { RouteError::Left { cause: Some(Box::new(cause)), left } }
}

/// Where the network has changed and an exception has not, the recorded one stands: which interface a router is behind is
/// the kernel's business, and two networks often have the same one.
fn keep_recorded(plan: &mut Plan, journal: &Journal) {
    let identity = |entry: &Entry| match entry {
        Entry::Route(Route { destination, via: via @ Via::Gateway { .. }, .. }) => {
            Some((*destination, gateway_of(via)?))
        }
        _ => None,
    };
    let recorded: HashMap<_, &Entry> =
        journal.entries().iter().filter_map(|entry| Some((identity(entry)?, entry))).collect();
    for entry in &mut plan.changes {
        if let Some(&same) = identity(entry).and_then(|identity| recorded.get(&identity)) {
            entry.clone_from(same);
        }
    }
}

/// Makes a change, or puts it in the place of one of ours to the same destination.
fn make(kernel: &mut impl Kernel, entry: &Entry, former: Option<&Entry>) -> Result<(), RouteError> {
    let made = match former {
        Some(former) => replace(kernel, former, entry),
        None => kernel.make(entry),
    };
    match made {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) if kernel.table()?.present().has(entry) => Ok(()),
        Err(Errno::EEXIST) => Err(RouteError::Conflict { object: describe(entry) }),
        Err(errno) => Err(refused("add", entry, errno)),
    }
}

/// Puts one route in the place of another to the same destination. From router to router it is never gone in between; the
/// kernel does not make a route of another kind out of one.
fn replace(kernel: &mut impl Kernel, from: &Entry, to: &Entry) -> Result<(), Errno> {
    if let (
        Entry::Route(Route { via: Via::Gateway { .. }, .. }),
        Entry::Route(route @ Route { via: Via::Gateway { .. }, .. }),
    ) = (from, to)
    {
        return match kernel.redirect(route) {
            Err(Errno::ESRCH) => kernel.make(to),
            result => result,
        };
    }
    match kernel.unmake(from) {
        Ok(()) | Err(Errno::ESRCH) => kernel.make(to).inspect_err(|_| {
            // Better the old way than none; if that fails too, the journal has it.
            let _lost = kernel.make(from);
        }),
        error => error,
    }
}

/// Removes what the journal holds and the plan does not want; says how much that was, and whether an address was in it.
fn remove_unwanted(
    kernel: &mut impl Kernel,
    journal: &mut Journal,
    plan: &[Entry],
) -> Result<(usize, bool), RouteError> {
    let wanted: HashSet<&Entry> = plan.iter().collect();
    let unwanted: Vec<Entry> = journal
        .entries()
        .iter()
        .filter(|entry| matches!(entry, Entry::Address(_) | Entry::Route(_)) && !wanted.contains(entry))
        .cloned()
        .collect();
    if unwanted.is_empty() {
        return Ok((0, false));
    }
    let table = kernel.table()?;
    let present = table.present();
    let (mut reverted, mut left) = (Vec::new(), Vec::new());
    for entry in unwanted.iter().rev() {
        match if present.has(entry) { unmake(kernel, entry) } else { Ok(()) } {
            Ok(()) => reverted.push(entry.clone()),
            Err(error) => left.push(error),
        }
    }
    journal.edit(Vec::new(), &reverted)?;
    let lost_address = reverted.iter().any(|entry| matches!(entry, Entry::Address(_)));
    if left.is_empty() { Ok((unwanted.len(), lost_address)) } else { Err(RouteError::Left { cause: None, left }) }
}

/// Takes a change away; one that is gone already is as good.
fn unmake(kernel: &mut impl Kernel, entry: &Entry) -> Result<(), RouteError> {
    match (entry, kernel.unmake(entry)) {
        (_, Ok(()) | Err(Errno::ESRCH | Errno::ENXIO | Errno::EADDRNOTAVAIL)) => Ok(()),
        (entry, Err(errno)) => Err(refused("remove", entry, errno)),
    }
}

fn device_of(entry: &Entry) -> Option<&Device> {
    match entry {
        Entry::Route(Route { via: Via::Device(device), .. }) => Some(device),
        Entry::Address(address) => Some(&address.device),
        _ => None,
    }
}

fn refused(action: &'static str, entry: &Entry, errno: Errno) -> RouteError {
    RouteError::Kernel { action, object: describe(entry), reason: Reason::Errno(errno) }
}

fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Route(route) => {
            let destination = route.destination;
            match &route.via {
                Via::Device(device) => format!("the route {destination} by {}", device.name),
                Via::Gateway { address, device } => format!("the route {destination} by {address} on {}", device.name),
                Via::Unreachable | Via::Throw => format!("the route {destination} to an error"),
            }
        }
        Entry::Address(address) => format!("the address {} on {}", address.address, address.device.name),
        Entry::Up(device) => format!("the state of {}", device.name),
        entry => format!("{entry:?}"),
    }
}

/// Progress is told after so many changes.
const STEP: usize = 256;

#[cfg(test)]
mod tests;
