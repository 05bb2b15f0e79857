//! `adit status`: running tunnels, for people in the manner of wg(8), and as JSON.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use adit_control::api::{self, ApiClient, ClientError, PeerReport, StatusReport};
use adit_control::socket;
use owo_colors::OwoColorize;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Status;
use crate::control::{block_on, client_failure};
use crate::failure::{Failure, Outcome, tell};

/// Shows tunnels, once or again and again.
pub(crate) fn run(options: &Status) -> Outcome {
    block_on(async {
        // From here on an interrupt ends the loop between two looks, and none is lost during one.
        let mut interrupt = if options.watch { Some(signal(SignalKind::interrupt())?) } else { None };
        loop {
            let reports = look(options.name.as_deref()).await?;
            show(options, &reports)?;
            let Some(interrupt) = &mut interrupt else { return Ok(()) };
            tokio::select! {
                () = tokio::time::sleep(options.interval) => {}
                _ = interrupt.recv() => return Ok(()),
            }
        }
    })
}

/// Asks one tunnel, or all that run; of these, one that does not answer is told of and does not hide the others.
async fn look(name: Option<&str>) -> Outcome<Vec<StatusReport>> {
    let dir = Path::new(api::SOCKET_DIR);
    if let Some(name) = name {
        let name = crate::locate::name(name)?;
        return match ask(dir, &name).await {
            Ok(report) => Ok(vec![report]),
            Err(error) => Err(client_failure(&name, &unless_ending(dir, &name, error).await).await),
        };
    }
    let mut reports = Vec::new();
    for name in &socket::list(dir).await? {
        match ask(dir, name).await {
            Ok(report) => reports.push(report),
            Err(ClientError::Forbidden { path }) => {
                return Err(client_failure(name, &ClientError::Forbidden { path }).await);
            }
            // It may have ended meanwhile, in the middle of its answer even.
            Err(error) => match ApiClient::connect(dir, name).await {
                Err(again) if again.is_not_running() => {}
                _ => tell(client_failure(name, &error).await.message),
            },
        }
    }
    Ok(reports)
}

/// What a tunnel on its way down cannot answer any more is told as what it is in a moment: that it is not up.
async fn unless_ending(dir: &Path, name: &str, error: ClientError) -> ClientError {
    if matches!(error, ClientError::Forbidden { .. } | ClientError::Name { .. }) {
        return error;
    }
    for _ in 0..ENDING_LOOKS {
        match ApiClient::connect(dir, name).await {
            Err(again) if again.is_not_running() => return again,
            _ => tokio::time::sleep(ENDING_STEP).await,
        }
    }
    error
}

async fn ask(dir: &Path, name: &str) -> Result<StatusReport, ClientError> {
    ApiClient::connect(dir, name).await?.status().await
}

fn show(options: &Status, reports: &[StatusReport]) -> Outcome {
    let mut stdout = anstream::stdout();
    if options.json {
        // A named tunnel is one object, all tunnels are a list; watched, each look is one line.
        let value = match (&options.name, reports) {
            (Some(_), [report]) => serde_json::to_value(report),
            _ => serde_json::to_value(reports),
        };
        let value = value.map_err(Failure::failed)?;
        let written = if options.watch { writeln!(stdout, "{value}") } else { writeln!(stdout, "{value:#}") };
        return Ok(written?);
    }
    let mut text = String::new();
    for (index, report) in reports.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = tunnel(&mut text, report);
    }
    if reports.is_empty() {
        text.push_str("no tunnel is up\n");
    }
    if options.watch && io::stdout().is_terminal() {
        // Home, write over what is there, erase the rest: no flicker.
        let text = text.replace('\n', "\x1b[K\n");
        write!(stdout, "\x1b[H{text}\x1b[J")?;
    } else {
        write!(stdout, "{text}")?;
    }
    Ok(stdout.flush()?)
}

fn tunnel(out: &mut String, report: &StatusReport) -> std::fmt::Result {
    writeln!(out, "{}: {}", "tunnel".green().bold(), report.name.green())?;
    if let Some(interface) = &report.interface {
        field(out, "interface", interface)?;
    }
    if let Some(key) = &report.public_key {
        field(out, "public key", key)?;
    }
    if let Some(port) = report.listen_port {
        field(out, "listening port", port)?;
    }
    if report.fwmark != 0 {
        field(out, "fwmark", format_args!("{:#x}", report.fwmark))?;
    }
    field(out, "mtu", report.mtu)?;
    field(out, "up for", age(report.uptime_s))?;
    if let Some(config) = &report.config {
        field(out, "file", config.display())?;
    }
    if report.repairs > 0 {
        field(out, "repaired", format_args!("{} changes of its routing by others", report.repairs))?;
    }
    field(out, "drops", drops(&report.drops))?;
    for peer in &report.peers {
        writeln!(out)?;
        self::peer(out, peer)?;
    }
    Ok(())
}

fn peer(out: &mut String, peer: &PeerReport) -> std::fmt::Result {
    writeln!(out, "{}: {}", "peer".yellow().bold(), peer.public_key.yellow())?;
    if peer.has_preshared_key {
        field(out, "preshared key", "(hidden)")?;
    }
    match peer.endpoint {
        Some(endpoint) => field(out, "endpoint", endpoint)?,
        None => field(out, "endpoint", "(none)")?,
    }
    let nets: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    field(out, "allowed ips", if nets.is_empty() { "(none)".to_owned() } else { nets.join(", ") })?;
    match peer.latest_handshake_age_s {
        Some(seconds) => {
            let round_trip = peer.handshake_rtt_ms.map_or_else(String::new, |ms| format!(", round trip {ms:.1} ms"));
            let expired = if peer.has_session { "" } else { ", session expired" };
            field(out, "latest handshake", format_args!("{} ago{round_trip}{expired}", age(seconds)))?;
        }
        None => field(out, "latest handshake", "(none)")?,
    }
    field(out, "transfer", format_args!("{} received, {} sent", bytes(peer.rx_bytes), bytes(peer.tx_bytes)))?;
    if peer.persistent_keepalive > 0 {
        field(out, "persistent keepalive", format_args!("every {}", age(f64::from(peer.persistent_keepalive))))?;
    }
    if !peer.drops.is_empty() {
        field(out, "drops", drops(&peer.drops))?;
    }
    Ok(())
}

fn field(out: &mut String, name: &str, value: impl std::fmt::Display) -> std::fmt::Result {
    writeln!(out, "  {}: {value}", name.bold())
}

fn drops(drops: &std::collections::BTreeMap<String, u64>) -> String {
    if drops.is_empty() {
        return "none".to_owned();
    }
    drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

/// A duration in the two largest units that it has, in words as wg(8) writes them.
fn age(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let mut rest = seconds.max(0.0) as u64;
    let mut parts = Vec::new();
    for (size, name) in UNITS {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(", ") }
}

/// Bytes in binary units, with two decimals as wg(8) has them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// How often, and how long after one another, it is looked whether a tunnel that gave no answer has ended.
const ENDING_LOOKS: u32 = 20;
const ENDING_STEP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        assert_eq!(age(0.4), "0 seconds");
        assert_eq!(age(61.0), "1 minute, 1 second");
        assert_eq!(age(93_784.0), "1 day, 2 hours");
        assert_eq!(age(-3.0), "0 seconds");
    }

    #[test]
    fn bytes_have_binary_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(u64::MAX), "16384.00 PiB");
    }
}
