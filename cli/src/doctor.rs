//! `adit doctor`: what is wrong with tunnels, in a person's words and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use adit_control::doctor::{Daemon, Finding, Report, Severity, examine, examine_host, gather, gather_host};
use adit_control::socket::{self, socket_path};
use adit_control::tunnel::Directories;
use anstream::{AutoStream, ColorChoice};
use owo_colors::{AnsiColors, OwoColorize};
use serde::Serialize;

use crate::args::Doctor;
use crate::control::{block_on, not_running};
use crate::failure::{Failure, Kind, Outcome};

/// Examines a tunnel, or all of them and what dead ones have left.
pub(crate) fn run(options: &Doctor) -> Outcome {
    let directories = Directories::default();
    let reports = block_on(async {
        match &options.name {
            Some(name) => Ok(vec![one(&directories, &crate::locate::name(name)?).await?]),
            None => Ok(all(&directories).await),
        }
    })?;
    let problems: usize = reports.iter().map(|report| report.count(Severity::Problem)).sum();
    let text = if options.json {
        let document = Document { problems, reports: &reports };
        serde_json::to_string_pretty(&document).map_err(Failure::failed)? + "\n"
    } else {
        let symbols = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        shown(&reports, symbols)
    };
    let mut stdout = anstream::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    match problems {
        0 => Ok(()),
        1 => Err(Failure::failed("1 problem")),
        many => Err(Failure::failed(format!("{many} problems"))),
    }
}

async fn one(directories: &Directories, name: &str) -> Outcome<Report> {
    socket_path(&directories.runtime, name).map_err(|error| Failure::new(Kind::NotFound, error))?;
    let facts = gather(directories, name).await;
    if matches!(facts.daemon, Daemon::Gone) && facts.journal == Ok(None) {
        return Err(not_running(name).await);
    }
    Ok(examine(&facts))
}

/// Those that run, with or without a socket that answers, and then the host.
async fn all(directories: &Directories) -> Vec<Report> {
    let host = gather_host(directories).await;
    // If the directory may not be read, the host's report says so.
    let mut names: BTreeSet<String> =
        socket::list(&directories.runtime).await.unwrap_or_default().into_iter().collect();
    names.extend(host.journals.iter().flatten().filter_map(|(name, journal)| {
        let alive = journal.as_ref().is_ok_and(|(state, _)| state.owner_alive);
        alive.then(|| name.clone())
    }));
    let mut reports = Vec::with_capacity(names.len() + 1);
    for name in &names {
        let facts = gather(directories, name).await;
        // It may have ended meanwhile; if it has left something, the host's report tells.
        if !matches!(facts.daemon, Daemon::Gone) {
            reports.push(examine(&facts));
        }
    }
    reports.push(examine_host(&host));
    reports
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    problems: usize,
    reports: &'a [Report],
}

fn shown(reports: &[Report], symbols: bool) -> String {
    let mut text = String::new();
    if reports.iter().all(|report| report.tunnel.is_none()) {
        text.push_str("no tunnel is seen to be up\n\n");
    }
    for (index, report) in reports.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = show(&mut text, report, symbols);
    }
    text
}

fn show(out: &mut String, report: &Report, symbols: bool) -> std::fmt::Result {
    let subject = report.tunnel.as_deref().unwrap_or("this host");
    writeln!(out, "{}: {}", subject.bold(), verdict(report))?;
    let mut bad: Vec<&Finding> = report.findings.iter().filter(|finding| finding.severity > Severity::Ok).collect();
    bad.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut told: Vec<&Finding> = Vec::new();
    for finding in &bad {
        // What one missing permission has kept many checks from is said once.
        let same = |other: &&&Finding| other.what == finding.what && other.severity == finding.severity;
        if told.iter().any(|other| same(&other)) {
            continue;
        }
        told.push(finding);
        let checks: Vec<&str> = bad.iter().filter(same).map(|finding| finding.check).collect();
        heading(out, finding.severity, &checks, symbols)?;
        for sentence in [Some(&finding.what), finding.means.as_ref(), finding.mend.as_ref()].into_iter().flatten() {
            wrapped(out, "     ", 5, sentence.split(' '))?;
        }
        if let Some(command) = &finding.command {
            writeln!(out, "        {} {}", "$".dimmed(), command.bold())?;
        }
    }
    let fine: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Ok)
        .map(|finding| finding.check)
        .collect();
    if fine.is_empty() { Ok(()) } else { heading(out, Severity::Ok, &fine, symbols) }
}

/// A severity and the checks that came to it, wrapped as a terminal of usual width needs it.
fn heading(out: &mut String, severity: Severity, checks: &[&str], symbols: bool) -> std::fmt::Result {
    let (symbol, colour) = match severity {
        Severity::Ok => ("✓ ", AnsiColors::Green),
        Severity::Note => ("· ", AnsiColors::Cyan),
        Severity::Warning => ("! ", AnsiColors::Yellow),
        Severity::Problem => ("✗ ", AnsiColors::Red),
    };
    let symbol = if symbols { symbol } else { "" };
    let word = format!("{symbol}{}", severity.name());
    write!(out, "  {}", word.color(colour))?;
    wrapped(out, "", 2 + word.chars().count(), checks.join(", ").split(' '))
}

/// Words with a blank before each, wrapped and indented; `column` is where they begin.
fn wrapped<'a>(
    out: &mut String,
    start: &str,
    mut column: usize,
    words: impl Iterator<Item = &'a str>,
) -> std::fmt::Result {
    write!(out, "{start}")?;
    for (index, word) in words.enumerate() {
        let length = 1 + word.chars().count();
        if index > 0 && column + length > WIDTH {
            write!(out, "\n     ")?;
            column = 5;
        }
        write!(out, " {word}")?;
        column += length;
    }
    writeln!(out)
}

fn verdict(report: &Report) -> String {
    let counted = [(Severity::Problem, "problem"), (Severity::Warning, "warning"), (Severity::Note, "note")];
    let parts: Vec<String> = counted
        .into_iter()
        .map(|(severity, noun)| (report.count(severity), noun))
        .filter(|(count, _)| *count > 0)
        .map(|(count, noun)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }))
        .collect();
    if parts.is_empty() { "all is well".to_owned() } else { parts.join(", ") }
}

/// Columns; commands may be longer, since who copies one wants it whole.
const WIDTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: &'static str, severity: Severity, what: &str) -> Finding {
        let bad = severity > Severity::Ok;
        Finding {
            check,
            severity,
            what: what.into(),
            means: bad.then(|| "It matters.".into()),
            mend: bad.then(|| "Do this.".into()),
            command: (severity == Severity::Problem).then(|| "true".into()),
        }
    }

    fn report() -> Report {
        let findings = vec![
            finding("daemon", Severity::Ok, "Fine."),
            finding("mtu", Severity::Note, "Unseen."),
            finding("rules", Severity::Problem, "Gone."),
            finding("leak", Severity::Note, "Unseen."),
            finding("routes", Severity::Ok, "Fine."),
        ];
        Report { tunnel: Some("wg0".into()), findings }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_worst_comes_first_and_what_is_the_same_is_said_once() {
        let text = plain(&shown(&[report()], false));
        let expected = "wg0: 1 problem, 2 notes\n  problem rules\n      Gone.\n      It matters.\n      Do this.\n        \
                        $ true\n  note mtu, leak\n      Unseen.\n      It matters.\n      Do this.\n  ok daemon, routes\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn symbols_stand_beside_the_words() {
        let text = plain(&shown(&[report()], true));
        for part in ["✗ problem rules", "· note mtu", "✓ ok daemon"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_host_without_tunnels_says_so() {
        let host = Report { tunnel: None, findings: vec![finding("dead-tunnel", Severity::Ok, "None.")] };
        assert_eq!(
            plain(&shown(&[host], false)),
            "no tunnel is seen to be up\n\nthis host: all is well\n  ok dead-tunnel\n"
        );
    }

    #[test]
    fn long_lists_are_wrapped() {
        let findings = (0..40).map(|_| finding("a-check-of-some-length", Severity::Ok, "Fine.")).collect();
        let text = plain(&shown(&[Report { tunnel: Some("wg0".into()), findings }], false));
        assert!(text.lines().count() > 5 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }
}
