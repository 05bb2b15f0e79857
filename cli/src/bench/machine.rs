//! What a benchmark ran on, as the system tells it. What it does not tell is said to be unknown.

use std::fs::read_to_string;

use super::model::Machine;

impl Machine {
    /// This machine.
    pub(super) fn this() -> Self {
        let uname = nix::sys::utsname::uname().ok();
        let word = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        let kernel = uname.as_ref().map(|uname| format!("{} {}", word(uname.sysname()), word(uname.release())));
        let architecture = uname.map(|uname| word(uname.machine()));
        let known = |fact: Option<String>| fact.unwrap_or_else(|| "unknown".to_owned());
        let system = [kernel, distribution()].into_iter().flatten().collect::<Vec<_>>().join(", ");
        Self {
            cpu: known(processor().or(architecture)),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory().unwrap_or(0),
            kernel: known(Some(system).filter(|system| !system.is_empty())),
            adit: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The processor's name. Linux has none for most of Arm's.
fn processor() -> Option<String> {
    if cfg!(target_os = "macos") {
        return sysctl("machdep.cpu.brand_string");
    }
    let info = read_to_string("/proc/cpuinfo").ok()?;
    ["model name", "Model", "Hardware"].into_iter().find_map(|name| field(&info, name, ':'))
}

/// Main memory, in bytes.
fn memory() -> Option<u64> {
    if cfg!(target_os = "macos") {
        return sysctl("hw.memsize")?.parse().ok();
    }
    // proc_meminfo(5) says kB and means 1024 bytes.
    let total = field(&read_to_string("/proc/meminfo").ok()?, "MemTotal", ':')?;
    total.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The system around the kernel: os-release(5), or macOS's version.
fn distribution() -> Option<String> {
    if cfg!(target_os = "macos") {
        return sysctl("kern.osproductversion").map(|version| format!("macOS {version}"));
    }
    let release = read_to_string("/etc/os-release").ok()?;
    field(&release, "PRETTY_NAME", '=').map(|name| name.trim_matches('"').to_owned())
}

/// The value of the first line with this name.
fn field(text: &str, name: &str, separator: char) -> Option<String> {
    let values = text.lines().filter_map(|line| line.split_once(separator)).filter(|(found, _)| found.trim() == name);
    values.map(|(_, value)| value.trim().to_owned()).find(|value| !value.is_empty())
}

/// One value of sysctl(8).
fn sysctl(name: &str) -> Option<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info =
            "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.0GHz: fast\nmodel name\t: other\nempty:\n";
        assert_eq!(field(info, "model name", ':').as_deref(), Some("Some CPU @ 2.0GHz: fast"));
        assert_eq!(field(info, "model", ':').as_deref(), Some("85"));
        assert_eq!((field(info, "name", ':'), field(info, "empty", ':')), (None, None));
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory > 1 << 24, "{machine:?}");
        assert!(!machine.cpu.is_empty() && machine.kernel.len() > 5, "{machine:?}");
        assert_eq!(machine.adit, env!("CARGO_PKG_VERSION"));
    }
}
