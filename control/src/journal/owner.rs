//! Who wrote a journal, so that a process id that another program got meanwhile is not taken for the owner.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process, told apart from all others of this machine's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)). `None` where there is no /proc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// The boot that the time counts from (/proc/sys/kernel/random/boot_id).
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

/// What /proc/PID/stat says.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    running: bool,
    start_time: u64,
}

fn process(pid: u32) -> Option<Process> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let running = !matches!(fields.next()?, "Z" | "X" | "x");
    Some(Process { running, start_time: fields.nth(18)?.parse().ok()? })
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// Of the calling thread, since each thread may be in one of its own.
fn network_namespace() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/thread-self/ns/net").ok().map(|namespace| namespace.ino())
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

    #[test]
    fn program_names_cannot_confuse_the_parser() {
        let tail = "1 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4242 1000 10";
        let expected = |running| Some(Process { running, start_time: 4242 });
        assert_eq!(parse_stat(&format!("7 (a) R (b)) S {tail}")), expected(true));
        assert_eq!(parse_stat(&format!("7 (x) Z {tail}")), expected(false));
        for broken in ["", "7 (x", "7 (x) S 1 2", "7 (x) S 1 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 no"] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }
}
