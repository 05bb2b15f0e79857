//! The one kernel parameter that an IPv4 full tunnel needs.
//!
//! `src_valid_mark` makes the reverse path filter look the source of an arriving packet up with the packet's mark
//! (Documentation/networking/ip-sysctl). Without it a strict filter drops the peers' datagrams, because the route back to
//! their source, looked up unmarked, leads into the tunnel.
//!
//! Several tunnels share the parameter. Each records the value from before the first of them, and the last one to go
//! restores it.

use std::fs;
use std::io;

use crate::journal::{Entry, Journal, Sysctl};
use crate::route::error::RouteError;

/// The change that an IPv4 full tunnel needs, or `None` if somebody else has set the parameter for good.
pub(super) fn wanted(journal: &Journal) -> Result<Option<Sysctl>, RouteError> {
    let recorded = journal.entries().iter().find_map(|entry| match entry {
        Entry::Sysctl(sysctl) if sysctl.path == SRC_VALID_MARK => Some(sysctl.clone()),
        _ => None,
    });
    if let Some(sysctl) = recorded.or_else(|| journal.sysctl_of_another(SRC_VALID_MARK)) {
        return Ok(Some(sysctl));
    }
    let former = read(SRC_VALID_MARK)?;
    let change = Sysctl { path: SRC_VALID_MARK.to_owned(), former, value: ON.to_owned() };
    Ok(Some(change).filter(|sysctl| sysctl.former != sysctl.value))
}

/// Whether the parameter has the value that is wanted.
pub(super) fn is_set(sysctl: &Sysctl) -> Result<bool, RouteError> {
    Ok(read(&sysctl.path)? == sysctl.value)
}

/// Sets the parameter.
pub(super) fn set(sysctl: &Sysctl) -> Result<(), RouteError> {
    write(&sysctl.path, &sysctl.value)
}

/// Restores the former value, unless another tunnel needs the parameter or somebody has changed it since.
pub(super) fn restore(sysctl: &Sysctl, journal: &Journal) -> Result<(), RouteError> {
    if journal.sysctl_of_another(&sysctl.path).is_some() || !is_set(sysctl)? {
        return Ok(());
    }
    write(&sysctl.path, &sysctl.former)
}

// /proc/sys/net shows the network namespace of the thread that opens a file, so these run on the caller's thread and not
// on one of tokio's for blocking work; procfs answers from memory.

fn read(path: &str) -> Result<String, RouteError> {
    let text = fs::read_to_string(path);
    text.map(|text| text.trim_end().to_owned()).map_err(|source| failed("read".to_owned(), path, source))
}

fn write(path: &str, value: &str) -> Result<(), RouteError> {
    fs::write(path, value).map_err(|source| failed(format!("write {value} to"), path, source))
}

fn failed(action: String, path: &str, source: io::Error) -> RouteError {
    RouteError::Sysctl { action, path: path.to_owned(), source }
}

const SRC_VALID_MARK: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
const ON: &str = "1";
