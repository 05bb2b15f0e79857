//! Shows that a run of the tests left the machine as it found it.
//!
//! A snapshot before is compared with one after: namespaces, links, control sockets, rules, nftables and name resolution,
//! the folder for temporary files, and every process that carries the run's mark. Names that contain the id of a living
//! process belong to another run on the same machine, which is no leak of this one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command;
use crate::step::Context;

/// What there is on the machine: lines of the form «kind: name».
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the machine now.
    pub(crate) fn take() -> Self {
        let mut seen = BTreeSet::new();
        for (kind, folder) in FOLDERS {
            seen.extend(names(Path::new(folder)).into_iter().map(|name| format!("{kind}: {name}")));
        }
        for (kind, words) in LISTINGS {
            seen.extend(listing(words).into_iter().map(|line| format!("{kind}: {line}")));
        }
        for path in FILES {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            seen.extend(text.lines().map(|line| format!("{path}: {line}")));
        }
        Self(seen)
    }

    /// What is there now and was not there `before`, and what was there and is gone.
    fn since(&self, before: &Self) -> Vec<String> {
        let come =
            self.0.difference(&before.0).filter(|line| !of_living_process(line)).map(|line| format!("new {line}"));
        // Something of another run may end at any time; only the machine's own is missed.
        let gone = before.0.difference(&self.0).filter(|line| owner(line).is_none());
        come.chain(gone.map(|line| format!("gone {line}"))).collect()
    }
}

/// Fails if the machine differs from `before` or something of the run in `context` is still alive.
///
/// The kernel takes namespaces apart in the background, so a difference has some seconds to vanish.
pub(crate) fn check(context: &Context, before: &Snapshot) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let left = left_over(context, before);
        if left.is_empty() {
            println!("    no process, namespace, link, socket, rule or file is left behind");
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the tests changed the machine:\n    {}", left.join("\n    "));
        }
        pause();
    }
}

fn left_over(context: &Context, before: &Snapshot) -> Vec<String> {
    let mut left = Snapshot::take().since(before);
    left.extend(names(&context.temporary).into_iter().map(|name| format!("temporary file: {name}")));
    let mut alive: BTreeSet<u32> = command::marked(&context.mark).into_iter().collect();
    let target = context.root.join("target");
    // A daemon may have dropped its environment; `adit` from this workspace is known by its file, too.
    alive.extend(command::processes().into_iter().filter(|pid| {
        let file = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        file.starts_with(&target) && file.file_name().is_some_and(|name| name == "adit")
    }));
    left.extend(alive.into_iter().filter_map(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        // A process without a command line is a zombie that its parent has yet to fetch.
        (!words.trim().is_empty()).then(|| format!("process {pid}: {}", words.trim()))
    }));
    left
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn listing(words: &[&str]) -> Vec<String> {
    let Some((program, args)) = words.split_first() else { return Vec::new() };
    let Some(file) = command::find(program) else { return Vec::new() };
    // Without root some of these fail; such a run cannot have changed what they list.
    command::output(Command::new(file).args(args))
        .map_or_else(|_| Vec::new(), |text| text.lines().map(str::to_owned).collect())
}

fn of_living_process(line: &str) -> bool {
    owner(line).is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
}

/// The process id in a name that the harness of the tests made: `adit-PID-…` or `LETTERSPID-NUMBER`.
fn owner(line: &str) -> Option<u32> {
    let (_, name) = line.split_once(": ")?;
    let rest = name.strip_prefix("adit-").unwrap_or_else(|| name.trim_start_matches(|c: char| c.is_ascii_lowercase()));
    let (pid, _) = rest.split_once('-')?;
    pid.parse().ok()
}

#[allow(clippy::disallowed_methods, reason = "the loop around it has a deadline and a condition")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Folders whose entries are compared.
const FOLDERS: &[(&str, &str)] = &[
    ("namespace", "/run/netns"),
    ("link", "/sys/class/net"),
    ("socket", "/var/run/wireguard"),
    ("state", "/run/adit"),
];

/// Commands whose lines are compared.
const LISTINGS: &[(&str, &[&str])] =
    &[("rule", &["ip", "-4", "rule"]), ("rule6", &["ip", "-6", "rule"]), ("table", &["nft", "list", "tables"])];

/// Files whose lines are compared.
const FILES: &[&str] = &["/etc/resolv.conf"];

/// How long the machine may take to settle.
const SETTLE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lines: &[&str]) -> Snapshot {
        Snapshot(lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn what_is_new_and_what_is_gone_is_told() {
        let before = snapshot(&["link: eth0", "link: lo"]);
        let after = snapshot(&["link: lo", "link: wg0"]);
        assert_eq!(after.since(&before), ["new link: wg0", "gone link: eth0"]);
        assert!(before.since(&before).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn names_of_other_living_runs_are_not_ours_but_those_of_dead_ones_are() {
        let alive = format!("namespace: adit-{}-1-a", std::process::id());
        // Above the kernel's largest process id (PID_MAX_LIMIT, 2^22).
        let dead = "namespace: adit-4194305-1-a";
        assert_eq!(snapshot(&[&alive, dead]).since(&snapshot(&[])), [format!("new {dead}")]);
        assert!(snapshot(&[]).since(&snapshot(&[dead])).is_empty(), "the janitor may remove it");
    }

    #[test]
    fn owners_are_read_from_names() {
        assert_eq!(owner("namespace: adit-12-3-left"), Some(12));
        assert_eq!(owner("socket: wg345-6.sock"), Some(345));
        assert_eq!(owner("link: eth0"), None);
        assert_eq!(owner("rule: 0:\tfrom all lookup local"), None);
    }
}
