//! Names of namespaces and links that no other test and no other run on the machine has.
//!
//! They carry the id of the process that made them, by which leftovers of a dead run are recognised.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// A name for a namespace: `adit-PID-NUMBER-LABEL`.
pub fn namespace(label: &str) -> String {
    format!("{NAMESPACE_PREFIX}{}-{}-{label}", std::process::id(), number())
}

/// A name for a network link: `PREFIXPID-NUMBER`, within the kernel's 15 characters (IFNAMSIZ less the zero).
///
/// Control sockets lie in one folder for all namespaces, so tunnels need such names even in namespaces of their own.
/// Of `prefix` at most three lower-case letters are used, so that the id can be found again.
pub fn link(prefix: &str) -> String {
    let prefix: String = prefix.chars().filter(char::is_ascii_lowercase).take(3).collect();
    format!("{prefix}{}-{}", std::process::id(), number() % 1000)
}

/// The process that made `name` by one of the functions above, if the name has that form.
pub fn owner(name: &str) -> Option<u32> {
    let letters = |c: char| c.is_ascii_lowercase();
    let rest = name.strip_prefix(NAMESPACE_PREFIX).unwrap_or_else(|| name.trim_start_matches(letters));
    let (pid, _) = rest.split_once('-')?;
    pid.parse().ok()
}

/// Whether the process that made `name` is gone; false for names of another form.
pub fn is_abandoned(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const NAMESPACE_PREFIX: &str = "adit-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_lead_back_to_this_process() {
        let (one, two) = (link("adit"), link("adit"));
        assert_ne!(one, two);
        assert_eq!(owner(&one), Some(std::process::id()));
        assert_eq!(owner(&namespace("left")), Some(std::process::id()));
        // The largest process id has seven digits (PID_MAX_LIMIT, 2^22).
        assert!(format!("adi{}-{}", 4_194_304, 999).len() <= 15);
        assert!(!is_abandoned(&one));
    }

    #[test]
    fn only_names_of_dead_processes_are_abandoned() {
        assert!(is_abandoned("adit-4194305-1-left"));
        assert!(is_abandoned("wg4194305-1.sock"));
        for foreign in ["wg0", "eth0", "adit-demo-a", "adit0.sock", ""] {
            assert!(!is_abandoned(foreign), "{foreign}");
        }
    }
}
