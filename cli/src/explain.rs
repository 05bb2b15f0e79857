//! `adit explain`: where packets go, and why, for people and as JSON.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_control::api::{self, ApiClient, ClientError};
use adit_control::config::{self, Config, Endpoint, Host};
use adit_control::explain::{
    AppleExplanation, AppleOptions, ExplainError, Explanation, Facts, Question, Subject, Target, Transport, explain,
    explain_apple,
};
use adit_control::route::inspect::Inspector;
use adit_control::socket;
use adit_core::route::ApplePlatform;
use ipnet::IpNet;
use owo_colors::OwoColorize;

use crate::args::{Explain, Os, Proto};
use crate::control::{block_on, client_failure};
use crate::failure::{Failure, Kind, Outcome};
use crate::{check, locate};

/// Explains where packets go.
pub(crate) fn run(options: &Explain) -> Outcome {
    block_on(async {
        let (target, written) = target(&options.target).await?;
        match options.os {
            Some(os) => apple(options, os, &target).await,
            None => here(options, target, written).await,
        }
    })
}

async fn here(options: &Explain, target: Target, written: Option<String>) -> Outcome {
    let Chosen { subject, mut notes, .. } = choose(options.tunnel.as_deref(), false).await?;
    let question = Question {
        target,
        from: options.from.map(|from| from.to_canonical()),
        transport: options.proto.map(|proto| match proto {
            Proto::Tcp => Transport::Tcp,
            Proto::Udp => Transport::Udp,
            Proto::Icmp => Transport::Icmp,
        }),
        port: options.port,
    };
    if options.proto == Some(Proto::Icmp) && options.port.is_some() {
        return Err(Failure::new(Kind::Usage, "ICMP has no ports: --port goes with --proto tcp or udp"));
    }
    notes.extend(written);
    let inspector = Inspector::open().map_err(Failure::failed)?;
    let mut explanation = explain(&inspector, &subject, &question).await.map_err(|error| {
        let kind = match error {
            ExplainError::Model(_) => Kind::Configuration,
            ExplainError::Families { .. } => Kind::Usage,
            _ => Kind::Failed,
        };
        Failure::new(kind, error)
    })?;
    explanation.notes.splice(0..0, notes);
    let mut stdout = anstream::stdout();
    if options.json {
        let value = serde_json::to_value(&explanation).map_err(Failure::failed)?;
        writeln!(stdout, "{value:#}")?;
    } else {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = show(&mut text, &explanation, matches!(question.target, Target::Prefix(_)));
        write!(stdout, "{text}")?;
    }
    stdout.flush()?;
    if explanation.disagrees() {
        let message = format!("the kernel does not do what the settings of {} say", explanation.tunnel);
        return Err(Failure::failed(message));
    }
    Ok(())
}

fn show(out: &mut String, explanation: &Explanation, is_prefix: bool) -> std::fmt::Result {
    let is_divided = is_prefix && explanation.answers.len() > 1;
    if is_divided {
        writeln!(out, "{} is divided:", explanation.target)?;
    }
    let lead = if is_divided { "  " } else { "" };
    for (index, answer) in explanation.answers.iter().enumerate() {
        if index > 0 && !is_divided {
            writeln!(out)?;
        }
        let summary = match answer.way {
            "tunnel" => answer.summary.green().to_string(),
            "underlay" | "host" => answer.summary.clone(),
            _ => answer.summary.yellow().to_string(),
        };
        writeln!(out, "{lead}{}", summary.bold())?;
        for (label, text) in answer.lines() {
            // Parts of a prefix are many; what decides and what is wrong tells enough about each.
            if is_divided && !(label == "rule" || label == "agrees" && answer.agrees == Some(false)) {
                continue;
            }
            let text = if answer.agrees == Some(false) && label == "agrees" { text.red().to_string() } else { text };
            writeln!(out, "{lead}  {}{text}", format!("{label:<8}").dimmed())?;
        }
    }
    if explanation.omitted > 0 {
        let least = if explanation.is_more { "at least " } else { "" };
        writeln!(out, "  and {least}{} more parts", explanation.omitted)?;
    }
    notes(out, &explanation.notes)
}

fn notes(out: &mut String, notes: &[String]) -> std::fmt::Result {
    for note in notes {
        writeln!(out, "{}: {note}", "note".cyan())?;
    }
    Ok(())
}

async fn apple(options: &Explain, os: Os, target: &Target) -> Outcome {
    let Chosen { subject, config, notes: mut found } = choose(options.tunnel.as_deref(), true).await?;
    let config = config.ok_or_else(|| Failure::failed(format!("{} does not tell its file", subject.name)))?;
    let inspector = Inspector::open().map_err(Failure::failed)?;
    let facts = Facts::gather(&inspector).await.map_err(Failure::failed)?;
    let platform = match os {
        Os::Apple => ApplePlatform::Ios,
        Os::Macos => ApplePlatform::MacOs,
    };
    let switches = AppleOptions {
        platform,
        include_all_networks: options.include_all_networks,
        enforce_routes: options.enforce_routes,
    };
    let mut explanation = explain_apple(&subject, &config, &facts, switches, target);
    found.append(&mut explanation.notes);
    explanation.notes = found;
    let mut stdout = anstream::stdout();
    if options.json {
        let value = serde_json::to_value(&explanation).map_err(Failure::failed)?;
        writeln!(stdout, "{value:#}")?;
    } else {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = show_apple(&mut text, &explanation);
        write!(stdout, "{text}")?;
    }
    Ok(stdout.flush()?)
}

fn show_apple(out: &mut String, explanation: &AppleExplanation) -> std::fmt::Result {
    for (index, answer) in explanation.answers.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let summary = if answer.way == "tunnel" { answer.summary.green().to_string() } else { answer.summary.clone() };
        writeln!(out, "{}", summary.bold())?;
        for (index, rule) in answer.rules.iter().enumerate() {
            let (label, way) = if index == 0 { ("rule", "") } else { ("lost", rule.way) };
            let way = if way.is_empty() { String::new() } else { format!(" ({way})") };
            writeln!(out, "  {}{}{way}", format!("{label:<8}").dimmed(), rule.text)?;
        }
    }
    for finding in &explanation.findings {
        writeln!(out, "{}: {}: {}", "finding".yellow(), finding.kind, finding.text)?;
    }
    notes(out, &explanation.notes)
}

/// A tunnel to explain, and what to say about how it was found.
struct Chosen {
    subject: Subject,
    /// Its file, if that was read.
    config: Option<Config>,
    notes: Vec<String>,
}

/// The tunnel that is meant: a running one tells its settings itself unless its file is what counts.
async fn choose(argument: Option<&str>, by_file: bool) -> Outcome<Chosen> {
    let name = match argument {
        Some(argument) => locate::name(argument)?,
        None => only_one().await?,
    };
    let told = async { ApiClient::connect(Path::new(api::SOCKET_DIR), &name).await?.status().await }.await;
    match told {
        Ok(report) if by_file => {
            let path = report.config.clone().ok_or_else(|| Failure::failed(format!("{name} has no file")))?;
            of_file(path, name, Vec::new()).await
        }
        Ok(report) => {
            let subject = Subject::running(&report).ok_or_else(|| {
                Failure::failed(format!(
                    "{name} does not tell its settings: it is being changed or about to end (try again), or of an older version"
                ))
            })?;
            Ok(Chosen { notes: other_file(argument, &subject), subject, config: None })
        }
        Err(error) if error.is_not_running() => {
            let Some(argument) = argument else { return Err(client_failure(&name, &error).await) };
            let (path, name) = match locate::file(argument) {
                Ok(found) => found,
                Err(failure) if failure.kind == Kind::NotFound => {
                    let mut not_up = client_failure(&name, &error).await;
                    not_up.message += &format!("; {}", failure.message);
                    return Err(not_up);
                }
                Err(failure) => return Err(failure),
            };
            of_file(path, name, Vec::new()).await
        }
        Err(error @ ClientError::Forbidden { .. }) => {
            let (path, name) = match locate::file(argument.unwrap_or(&name)) {
                Ok(found) => found,
                Err(failure) => {
                    return Err(Failure::new(failure.kind, format!("{error}; and {}", failure.message)));
                }
            };
            of_file(path, name, vec![error.to_string()]).await
        }
        Err(error) => Err(client_failure(&name, &error).await),
    }
}

/// The one tunnel that is up.
async fn only_one() -> Outcome<String> {
    let mut names = socket::list(Path::new(api::SOCKET_DIR)).await?;
    match names.as_slice() {
        [] => Err(Failure::new(Kind::NotFound, "no tunnel is up: name a file, as in `adit explain TARGET ./wg0.conf`")),
        [_] => Ok(names.remove(0)),
        several => {
            Err(Failure::new(Kind::Usage, format!("several tunnels are up, name one of them: {}", several.join(", "))))
        }
    }
}

/// What to say if a file was named and the running tunnel has another one.
fn other_file(argument: Option<&str>, subject: &Subject) -> Vec<String> {
    let Some((named, file)) = argument.filter(|name| name.contains('/')).zip(subject.file.as_ref()) else {
        return Vec::new();
    };
    let is_same = match (std::fs::canonicalize(named), std::fs::canonicalize(file)) {
        (Ok(named), Ok(file)) => named == file,
        _ => Path::new(named) == file,
    };
    if is_same { Vec::new() } else { vec![format!("{} is up with another file: {}", subject.name, file.display())] }
}

async fn of_file(path: PathBuf, name: String, mut notes: Vec<String>) -> Outcome<Chosen> {
    let config = config::load(&path).map_err(|error| check::failure(&path, &error))?.config;
    let endpoints = endpoints(&config, &mut notes).await;
    let subject = Subject::of_file(name, path, &config, |endpoint| {
        endpoint.socket_addr().or_else(|| endpoints.get(endpoint).copied())
    });
    Ok(Chosen { subject, config: Some(config), notes })
}

/// The addresses of the endpoints that are names; what has none is noted.
async fn endpoints(config: &Config, notes: &mut Vec<String>) -> HashMap<Endpoint, SocketAddr> {
    let mut lookups = tokio::task::JoinSet::new();
    for endpoint in config.named_endpoints() {
        let endpoint = endpoint.clone();
        lookups.spawn(async move {
            let Host::Name(name) = &endpoint.host else { return (endpoint, None) };
            let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name.as_str(), endpoint.port))).await;
            let address = found.ok().and_then(Result::ok).and_then(|mut list| list.next());
            (endpoint, address)
        });
    }
    let mut found = HashMap::new();
    let mut missing = Vec::new();
    for (endpoint, address) in lookups.join_all().await {
        match address {
            Some(address) => drop(found.insert(endpoint, address)),
            None => missing.push(endpoint.to_string()),
        }
    }
    missing.sort();
    notes.extend(missing.iter().map(|name| format!("the endpoint {name} does not resolve now, and is left out")));
    found
}

/// Reads what is asked about, and says what is meant if that is not what is written.
async fn target(text: &str) -> Outcome<(Target, Option<String>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((Target::Address(ip.to_canonical()), None));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        let meant = (net.trunc() != net).then(|| format!("{net} has host bits set; {} is meant", net.trunc()));
        return match net.prefix_len() == net.max_prefix_len() {
            true => Ok((Target::Address(net.addr().to_canonical()), None)),
            false => Ok((Target::Prefix(net.trunc()), meant)),
        };
    }
    let is_name = !text.is_empty()
        && text.len() <= MAX_NAME
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && text.chars().any(char::is_alphabetic);
    if !is_name {
        let message =
            format!("`{text}` is no address, no prefix and no host name; like 192.0.2.7, 10.0.0.0/8, example.com");
        return Err(Failure::new(Kind::Usage, message));
    }
    let failed =
        |reason: &dyn std::fmt::Display| Failure::new(Kind::Network, format!("{text} does not resolve: {reason}"));
    let found = match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((text, 0))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"the resolver did not answer in time")),
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(failed(&"the resolver gave no address"));
    }
    Ok((Target::Name(text.to_owned(), addresses), None))
}

/// How long names may take to resolve: a person waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest host name (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
