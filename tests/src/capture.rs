//! What really leaves by a link, as tcpdump(8) sees it: for packets that must not.

use std::time::Duration;

use anyhow::Result;

use crate::netns::Namespace;
use crate::process::Process;

/// A running capture; ended on drop.
#[derive(Debug)]
pub struct Capture {
    process: Process,
}

impl Capture {
    /// Begins to capture what passes `link` of `namespace` and matches the words of `filter` (pcap-filter(7)).
    ///
    /// # Errors
    /// If tcpdump(8) cannot be started, or does not understand the filter; with what it said.
    pub fn start(namespace: &Namespace, link: &str, filter: &str) -> Result<Self> {
        let mut process = namespace.spawn("tcpdump", ["-n", "-l", "--immediate-mode", "-i", link, filter])?;
        process.wait_for_line("listening on", PATIENCE)?;
        Ok(Self { process })
    }

    /// Waits for a packet.
    ///
    /// # Errors
    /// If none comes.
    pub fn wait(&mut self) -> Result<String> {
        self.process.wait_for_line(" > ", PATIENCE)
    }

    /// Ends the capture and returns its packets, a line each.
    ///
    /// # Errors
    /// If it does not end.
    pub fn finish(mut self) -> Result<Vec<String>> {
        self.process.stop(PATIENCE)?;
        Ok(self.process.output().lines().filter(|line| line.contains(" > ")).map(str::to_owned).collect())
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
