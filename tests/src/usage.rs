//! What a process holds, as the kernel counts it: memory and descriptors (proc_pid_status(5), proc_pid_fd(5)).

use anyhow::{Context as _, Result};

/// A process's memory and descriptors at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Memory that is resident, in KiB (VmRSS).
    pub resident: u64,
    /// The most that was ever resident, in KiB (VmHWM).
    pub peak: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// Asks about process `pid`.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { resident: kib(&status, "VmRSS:")?, peak: kib(&status, "VmHWM:")?, descriptors })
    }
}

fn kib(status: &str, key: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.with_context(|| format!("no {key} in {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_are_counted() {
        let before = Usage::of(std::process::id()).unwrap();
        assert!(before.resident > 100 && before.peak >= before.resident, "{before:?}");
        let memory = vec![1_u8; 32 << 20];
        let files: Vec<_> = (0..50).map(|_| tempfile::tempfile().unwrap()).collect();
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.resident > before.resident + (16 << 10), "{before:?}, {after:?}");
        assert!(after.descriptors >= before.descriptors + 40, "{before:?}, {after:?}");
        drop((memory, files));
        Usage::of(u32::MAX).unwrap_err();
    }
}
