//! Processes as Linux's /proc shows them (proc(5)); elsewhere there is none, and nothing is told.

use std::fs;

use super::Process;

pub(super) fn process(pid: u32) -> Option<Process> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let running = !matches!(fields.next()?, "Z" | "X" | "x");
    Some(Process { running, start_time: fields.nth(18)?.parse().ok()? })
}

pub(super) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// Of the calling thread, since each thread may be in one of its own.
pub(super) fn network_namespace() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/thread-self/ns/net").ok().map(|namespace| namespace.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

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
