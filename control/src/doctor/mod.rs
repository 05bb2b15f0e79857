//! What is wrong with a tunnel, or with what a dead one has left behind, and how to mend it.
//!
//! Two halves. [`gather()`] asks daemon, kernel, journal, file and firewall, changes nothing, and notes for everything that
//! it could not see why not. [`examine`] and [`examine_host`] are pure: they judge [`Facts`] by a table of checks, each of
//! which has a name that stays. A check that lacks a fact says that it could not look; it never guesses that all is well.
//!
//! What the tunnel *should* have is what its journal says that it applied, so a healthy tunnel is one whose journal and
//! kernel agree, and through which the kernel sends what the tunnel is for.

mod checks;
mod facts;
mod gather;
mod leftovers;
mod questions;

#[cfg(test)]
mod sample;

use serde::Serialize;

use crate::settings::Family;

pub use facts::{
    Answer, Daemon, Facts, FirewallState, HostFacts, InForce, JournalState, Kernel, Known, Purpose, Question, Recorded,
};
pub use gather::{gather, gather_host};

/// All that was looked at, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The tunnel, or `None` for the host.
    pub tunnel: Option<String>,
    /// At least one of each check.
    pub findings: Vec<Finding>,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, for programs.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is, a sentence.
    pub what: String,
    /// What follows from it, a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<String>,
    /// How to mend it, a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// A command for a shell that mends it, or does the last step of what `mend` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it has to be.
    Ok,
    /// Worth knowing, or could not be looked at.
    Note,
    /// Works, but not as most people would want.
    Warning,
    /// Does not work, or lets traffic out that should not get out.
    Problem,
}

impl Report {
    /// The worst that was found.
    #[must_use]
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    /// How many findings are as bad as this.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl Severity {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Judges a tunnel. Of one whose daemon is gone only that is told: all else follows from it.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let is_gone = matches!(facts.daemon, Daemon::Gone);
    let table = if is_gone { checks::TABLE.get(..1).unwrap_or_default() } else { checks::TABLE };
    Report { tunnel: Some(facts.name.clone()), findings: run(table, facts) }
}

/// Judges what is left on a host by tunnels that do not run.
#[must_use]
pub fn examine_host(facts: &HostFacts) -> Report {
    Report { tunnel: None, findings: run(leftovers::TABLE, facts) }
}

/// The option of ip(8) for a family.
fn option(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "-4",
        Family::Ipv6 => "-6",
    }
}

/// A check: its name, what is true if it finds nothing, and how it looks.
struct Check<F: 'static> {
    name: &'static str,
    fine: &'static str,
    look: fn(&F) -> Known<Vec<Trouble>>,
}

/// A finding without its check's name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    severity: Severity,
    what: String,
    means: Option<String>,
    mend: Option<String>,
    command: Option<String>,
}

impl Trouble {
    fn new(severity: Severity, what: impl Into<String>) -> Self {
        Self { severity, what: what.into(), means: None, mend: None, command: None }
    }

    fn problem(what: impl Into<String>) -> Self {
        Self::new(Severity::Problem, what)
    }

    fn warning(what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, what)
    }

    fn note(what: impl Into<String>) -> Self {
        Self::new(Severity::Note, what)
    }

    fn means(mut self, means: impl Into<String>) -> Self {
        self.means = Some(means.into());
        self
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    fn of(self, check: &'static str) -> Finding {
        let Self { severity, what, means, mend, command } = self;
        Finding { check, severity, what, means, mend, command }
    }
}

fn run<F>(table: &[Check<F>], facts: &F) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in table {
        match (check.look)(facts) {
            Ok(troubles) if troubles.is_empty() => {
                findings.push(Trouble::new(Severity::Ok, check.fine).of(check.name));
            }
            Ok(troubles) => findings.extend(troubles.into_iter().map(|trouble| trouble.of(check.name))),
            Err(why) => findings.push(Trouble::note(format!("This could not be looked at: {why}.")).of(check.name)),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(report: &Report) -> Vec<&'static str> {
        report.findings.iter().map(|finding| finding.check).collect()
    }

    #[test]
    fn a_healthy_tunnel_passes_every_check_and_each_is_told_once() {
        let report = examine(&sample::full());
        assert_eq!(report.worst(), Severity::Ok, "{report:#?}");
        let all: Vec<&str> = checks::TABLE.iter().map(|check| check.name).collect();
        assert_eq!(names(&report), all);
    }

    #[test]
    fn names_are_kebab_case_and_told_apart() {
        let all = checks::TABLE.iter().map(|check| (check.name, check.fine));
        let all: Vec<_> = all.chain(leftovers::TABLE.iter().map(|check| (check.name, check.fine))).collect();
        for (index, (name, fine)) in all.iter().enumerate() {
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{name}"
            );
            assert!(fine.ends_with('.'), "{fine}");
            assert!(!all[..index].iter().any(|(other, _)| other == name), "{name} twice");
        }
    }

    #[test]
    fn what_could_not_be_looked_at_is_a_note_and_never_fine() {
        let mut facts = sample::full();
        let why = || "not permitted".to_owned();
        facts.kernel = Err(why());
        facts.journal = Err(why());
        facts.firewall = Err(why());
        facts.daemon = Daemon::Forbidden(why());
        facts.in_force.is_recorded = false;
        let report = examine(&facts);
        assert_eq!(report.worst(), Severity::Note, "{report:#?}");
        for check in ["daemon", "journal", "handshake", "device", "rules", "kill-switch", "loop", "leak", "mtu"] {
            let found: Vec<_> = report.findings.iter().filter(|finding| finding.check == check).collect();
            let [Finding { severity: Severity::Note, what, .. }] = found.as_slice() else {
                panic!("{check}: {found:?}")
            };
            assert!(what.contains("not permitted"), "{check}: {what}");
        }
    }

    #[test]
    fn of_a_tunnel_that_is_gone_only_that_is_told() {
        let mut facts = sample::full();
        facts.daemon = Daemon::Gone;
        facts.kernel = Ok(Kernel::default());
        let report = examine(&facts);
        assert_eq!((names(&report), report.worst()), (vec!["daemon"], Severity::Problem));
    }

    #[test]
    fn a_report_has_the_documented_form() {
        let mut facts = sample::full();
        facts.daemon = Daemon::Gone;
        let json = serde_json::to_value(examine(&facts)).unwrap();
        assert_eq!(json["tunnel"], "wg0");
        let finding = &json["findings"][0];
        assert_eq!((&finding["check"], &finding["severity"]), (&"daemon".into(), &"problem".into()));
        assert_eq!(finding["command"], "adit recover wg0");
        assert!(finding["what"].is_string() && finding["means"].is_string() && finding["mend"].is_string());
    }
}
