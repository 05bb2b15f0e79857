//! What namespaces and tun devices take: the capabilities of root, or a user namespace in which we have them.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use crate::failure::{Failure, Kind, Outcome};

/// Makes sure that this process may make network namespaces, and says by what right.
///
/// Without the capabilities it enters a user namespace, for good: the process keeps its user and its files, and is root
/// over what it makes there only (user_namespaces(7)). That works only while it has one thread.
pub(crate) fn acquire() -> Outcome<&'static str> {
    // Before anything is changed: in a user namespace too the device can only be opened by whom its mode admits.
    fs::OpenOptions::new().read(true).write(true).open(TUN).map_err(|error| failure(TUN, &error))?;
    let status = fs::read_to_string("/proc/self/status").map_err(|error| failure("/proc/self/status", &error))?;
    if effective_capabilities(&status).is_some_and(|found| found & NEEDED == NEEDED) {
        return Ok("as root");
    }
    // Without a map our user is shown as nobody, and is allowed everything in there all the same; with one, the kernel
    // would ask for more where the user is root without capabilities (user_namespaces(7)).
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| failure("not root, and no user namespaces", &io::Error::from(errno)))?;
    Ok(IN_USER_NAMESPACE)
}

/// The same for programs that this process is going to execute as root of its namespaces.
///
/// # Errors
/// Besides those of [`acquire`]: this user cannot be made root of a user namespace.
pub(crate) fn acquire_for_programs() -> Outcome<&'static str> {
    let (user, group) = (getuid(), getgid());
    let right = acquire()?;
    if right == IN_USER_NAMESPACE {
        // Without a map there is nobody whom files could belong to, and a program that is executed loses its
        // capabilities, since only those of root are kept (user_namespaces(7), capabilities(7)).
        let write = |file: &str, text: String| fs::write(file, text).map_err(|error| failure(file, &error));
        write("/proc/self/uid_map", format!("0 {user} 1"))?;
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    Ok(right)
}

/// The set that counts, from proc_pid_status(5).
fn effective_capabilities(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn failure(what: &str, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => Kind::NotPermitted,
        _ => Kind::Failed,
    };
    Failure::new(kind, format!("{what}: {error}"))
}

const IN_USER_NAMESPACE: &str = "in a user namespace";

const TUN: &str = "/dev/net/tun";

/// CAP_NET_ADMIN for devices, CAP_NET_RAW for ping, CAP_SYS_ADMIN for namespaces (linux/capability.h).
const NEEDED: u64 = 1 << 12 | 1 << 13 | 1 << 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tadit\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("Name:\tadit\n"), None);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(effective_capabilities(&own).is_some());
    }
}
