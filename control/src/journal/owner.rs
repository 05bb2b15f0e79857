//! Who wrote a journal, so that a process id that another program got meanwhile is not taken for the owner.

#[cfg(target_os = "macos")]
mod darwin;
#[cfg(not(target_os = "macos"))]
mod proc;

use serde::{Deserialize, Serialize};

#[cfg(target_os = "macos")]
use darwin::{boot_id, network_namespace, process};
#[cfg(not(target_os = "macos"))]
use proc::{boot_id, network_namespace, process};

/// A process, told apart from all others of this machine's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process id.
    pub pid: u32,
    /// When it started: in clock ticks since boot, field 22 of /proc/PID/stat (proc(5)); on macOS in microseconds since
    /// 1970 (`struct proc_bsdinfo`). `None` where it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// The boot that it belongs to (/proc/sys/kernel/random/boot_id, on macOS the sysctl kern.bootsessionuuid).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The inode of the network namespace of the thread that made the journal: routes and rules belong to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<u64>,
}

impl Owner {
    /// This process, in the network namespace of the calling thread.
    #[must_use]
    pub fn this_process() -> Self {
        let pid = std::process::id();
        let start_time = process(pid).map(|process| process.start_time);
        Self { pid, start_time, boot_id: boot_id(), network_namespace: network_namespace() }
    }

    /// Whether the process is running; a zombie is not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        if !self.is_of_this_boot() {
            return false;
        }
        match self.start_time {
            Some(start_time) => process(self.pid).is_some_and(|p| p.running && p.start_time == start_time),
            None => i32::try_from(self.pid).is_ok_and(|pid| {
                let pid = nix::unistd::Pid::from_raw(pid);
                matches!(nix::sys::signal::kill(pid, None), Ok(()) | Err(nix::errno::Errno::EPERM))
            }),
        }
    }

    /// Whether the machine was not booted since; if it was, routes, rules and interfaces are gone. True if unknown.
    #[must_use]
    pub fn is_of_this_boot(&self) -> bool {
        match (&self.boot_id, boot_id()) {
            (Some(then), Some(now)) => *then == now,
            _ => true,
        }
    }

    /// Whether the calling thread is in the network namespace that the journal speaks of. True if unknown.
    #[must_use]
    pub fn is_of_this_network_namespace(&self) -> bool {
        match (self.network_namespace, network_namespace()) {
            (Some(then), Some(now)) => then == now,
            _ => true,
        }
    }

    /// Whether two processes see the same routes, rules and network parameters.
    #[must_use]
    pub fn shares_network_with(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id && self.network_namespace == other.network_namespace
    }
}

/// What the system tells about a process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    /// It is there, and no zombie.
    running: bool,
    start_time: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive() {
        assert!(Owner::this_process().is_alive());
        let unknown = Owner { start_time: None, boot_id: None, network_namespace: None, ..Owner::this_process() };
        assert!(unknown.is_alive() && unknown.is_of_this_network_namespace());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_recycled_process_id_is_not_the_owner() {
        let me = Owner::this_process();
        let earlier = Owner { start_time: me.start_time.map(|ticks| ticks - 1), ..me.clone() };
        assert!(!earlier.is_alive());
        let other_boot = Owner { boot_id: Some("another".into()), ..me.clone() };
        assert!(!other_boot.is_alive() && !other_boot.is_of_this_boot());
        let elsewhere = Owner { network_namespace: Some(1), ..me };
        assert!(elsewhere.is_alive() && !elsewhere.is_of_this_network_namespace());
    }

    #[cfg(target_os = "linux")]
    fn wait_without_reaping(pid: u32) {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_ended_is_dead_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start_time = process(child.id()).map(|p| p.start_time);
        let owner = Owner { pid: child.id(), start_time, ..Owner::this_process() };
        assert!(owner.is_alive());
        child.kill().unwrap();
        wait_without_reaping(child.id());
        assert!(!owner.is_alive());
        child.wait().unwrap();
        assert!(!owner.is_alive());
    }
}
