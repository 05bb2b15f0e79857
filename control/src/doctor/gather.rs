//! Finds out what is so. Nothing is changed; what cannot be seen is noted with the reason.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::SystemTime;

use super::facts::{
    Answer, Daemon, Facts, FirewallState, HostFacts, InForce, JournalState, Kernel, Known, Purpose, Question, Recorded,
};
use super::questions::questions;
use crate::api::{ApiClient, ClientError, StatusReport};
use crate::config::{self, Config};
use crate::firewall;
use crate::journal::{Entry, Journal};
use crate::route::inspect::{Inspector, Query};
use crate::route::{self, RouteError};
use crate::settings::Family;
use crate::socket;
use crate::timestamp;
use crate::tunnel::Directories;

/// Finds out about a tunnel, whether it runs or not.
pub async fn gather(directories: &Directories, name: &str) -> Facts {
    let loaded = Journal::load(&directories.runtime, name).map_err(|error| error.to_string());
    let (journal, entries): (Known<_>, Option<Vec<Entry>>) = match loaded {
        Ok(Some(journal)) => (Ok(Some(state(&journal))), Some(journal.entries().to_vec())),
        Ok(None) => (Ok(None), None),
        Err(why) => (Err(why), None),
    };
    let daemon = ask(&directories.runtime, name, journal.as_ref().ok().and_then(Option::as_ref)).await;
    let kernel = match &journal {
        Ok(Some(state)) if !state.is_of_this_host => Err("it runs in another network namespace".to_owned()),
        _ => kernel().await.map_err(|error| error.to_string()),
    };
    let in_force = match (&entries, &kernel) {
        (Some(entries), _) => InForce::recorded(entries),
        (None, Ok(kernel)) => InForce::seen(kernel, name),
        (None, Err(_)) => InForce::default(),
    };
    let status = if let Daemon::Answers(report) = &daemon { Some(report.as_ref()) } else { None };
    let own_key = status.and_then(|status| status.public_key.as_ref());
    let mut facts = Facts {
        name: name.to_owned(),
        config: file(status),
        firewall: firewall_of(&in_force, &journal, &kernel).await,
        sysctls: kernel.as_ref().map(|kernel| sysctls(kernel, name)).unwrap_or_default(),
        answers: Vec::new(),
        name_servers: fs::read_to_string(RESOLV_CONF).map(|text| name_servers(&text)).unwrap_or_default(),
        uapi_answers: socket::list(&directories.uapi)
            .await
            .map(|names| names.iter().any(|other| other == name))
            .map_err(|error| error.to_string()),
        newest_timestamp: own_key.and_then(|key| timestamp::load(&directories.state, key)),
        now: SystemTime::now(),
        daemon,
        journal,
        in_force,
        kernel,
    };
    if facts.kernel.is_ok() {
        facts.answers = answers(questions(&facts)).await;
    }
    facts
}

/// Finds out what is left on this host by tunnels that do not run.
pub async fn gather_host(directories: &Directories) -> HostFacts {
    let dir = &directories.runtime;
    let firewalls = match firewall::tunnels().await {
        // Where there is no nftables there is nothing of ours in it.
        Err(error) if error.is_unavailable() => Ok(Vec::new()),
        result => result.map_err(|error| error.to_string()),
    };
    let in_dir = |error: std::io::Error| format!("{}: {error}", dir.display());
    // A tunnel that starts or ends meanwhile has its journal either before or after.
    let before = journals(dir);
    let kernel = kernel().await.map_err(|error| error.to_string());
    HostFacts {
        journals: before.and_then(|before| Ok(merged(before, journals(dir)?))),
        kernel,
        firewalls,
        dead_sockets: dead_sockets(dir).await.map_err(in_dir),
    }
}

fn journals(dir: &Path) -> Known<Vec<(String, Known<Recorded>)>> {
    let names = Journal::list(dir).map_err(|error| error.to_string())?;
    let read = |name: String| match Journal::load(dir, &name) {
        Ok(Some(journal)) => Some((name, Ok((state(&journal), journal.entries().to_vec())))),
        // It has ended properly since.
        Ok(None) => None,
        Err(error) => Some((name, Err(error.to_string()))),
    };
    Ok(names.into_iter().filter_map(read).collect())
}

/// All that stood in journals at one of two times, with the state that they had last.
fn merged(
    before: Vec<(String, Known<Recorded>)>,
    mut after: Vec<(String, Known<Recorded>)>,
) -> Vec<(String, Known<Recorded>)> {
    for (name, journal) in before {
        match after.iter_mut().find(|(other, _)| *other == name) {
            None => after.push((name, journal)),
            Some((_, Ok((_, entries)))) => {
                let known: HashSet<Entry> = entries.iter().cloned().collect();
                let former = journal.into_iter().flat_map(|(_, former)| former);
                entries.extend(former.filter(|entry| !known.contains(entry)));
            }
            Some((_, Err(_))) => {}
        }
    }
    after
}

fn state(journal: &Journal) -> JournalState {
    let owner = journal.owner();
    JournalState {
        path: journal.path().to_owned(),
        pid: owner.pid,
        owner_alive: journal.owner_alive(),
        is_of_this_host: owner.is_of_this_boot() && owner.is_of_this_network_namespace(),
        keeps_closed: route::keeps_closed(journal),
    }
}

async fn ask(dir: &Path, name: &str, journal: Option<&JournalState>) -> Daemon {
    let asked = async { ApiClient::connect(dir, name).await?.status().await }.await;
    let pid = journal.filter(|journal| journal.owner_alive).map(|journal| journal.pid);
    let silent = |why: String| Daemon::Silent { pid, why, stopped: pid.is_some_and(is_stopped) };
    match asked {
        Ok(report) => Daemon::Answers(Box::new(report)),
        Err(error @ ClientError::Forbidden { .. }) => Daemon::Forbidden(error.to_string()),
        Err(error) if error.is_not_running() => match pid {
            Some(_) => silent("its control socket is gone".to_owned()),
            None => Daemon::Gone,
        },
        Err(error) => silent(error.to_string()),
    }
}

/// Whether a process is stopped by a signal or a debugger (proc(5), State).
fn is_stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| state.trim_start().starts_with(['T', 't']))
}

/// The file behind a tunnel. One that is no regular file cannot be read twice, or not to its end.
fn file(status: Option<&StatusReport>) -> Known<Config> {
    let path = status.and_then(|status| status.config.as_ref()).ok_or("the daemon does not name its file")?;
    let kind = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !kind.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    let loaded = config::load(path).map_err(|error| error.to_string())?;
    Ok(loaded.config)
}

async fn kernel() -> Result<Kernel, RouteError> {
    let inspector = Inspector::open()?;
    let mut kernel = Kernel { links: inspector.links().await?, ..Kernel::default() };
    kernel.addresses = inspector.addresses().await?;
    for family in [Family::Ipv4, Family::Ipv6] {
        kernel.rules.extend(inspector.rules(family).await?);
        kernel.routes.extend(inspector.routes(family, None).await?);
    }
    Ok(kernel)
}

async fn firewall_of<T>(
    in_force: &InForce,
    journal: &Known<Option<JournalState>>,
    kernel: &Known<T>,
) -> Known<FirewallState> {
    if let Err(why) = kernel {
        return Err(why.clone());
    }
    let Some(wanted) = &in_force.firewall else {
        return if in_force.is_recorded {
            Ok(FirewallState::Changed)
        } else {
            Err(journal.as_ref().err().cloned().unwrap_or_else(|| "the tunnel has no journal".to_owned()))
        };
    };
    match firewall::is_in_force(wanted).await {
        Ok(true) => Ok(FirewallState::InForce),
        Ok(false) => Ok(FirewallState::Changed),
        Err(error) if error.is_unavailable() => Ok(FirewallState::Unavailable(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// The parameters that the checks know, of all interfaces that are up.
fn sysctls(kernel: &Kernel, name: &str) -> BTreeMap<String, String> {
    let links = kernel.links.iter().filter(|link| link.is_up).take(MAX_LINKS).map(|link| link.device.name.as_str());
    let ipv4 = ["all"].into_iter().chain(links).flat_map(|device| {
        ["rp_filter", "src_valid_mark"].map(|parameter| format!("net/ipv4/conf/{device}/{parameter}"))
    });
    let ipv6 = format!("net/ipv6/conf/{name}/disable_ipv6");
    let read = |path: String| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(&path)).ok()?;
        Some((path, text.trim().to_owned()))
    };
    ipv4.chain([ipv6]).filter_map(read).collect()
}

async fn answers(questions: Vec<Question>) -> Vec<Answer> {
    let Ok(inspector) = Inspector::open() else { return Vec::new() };
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let mut query = Query { mark: question.mark, ..Query::to(question.to.ip()) };
        if question.purpose == Purpose::Endpoint {
            query.ip_protocol = Some(UDP);
        }
        if let SocketAddr::V6(to) = question.to {
            query.output = Some(to.scope_id()).filter(|scope| *scope != 0);
        }
        let way = match inspector.way(&query).await {
            Ok(way) if way.kind.stops() => Err(format!("the route is {}", way.kind)),
            Ok(way) => Ok(way),
            Err(reason) => Err(reason.to_string()),
        };
        answers.push(Answer { question, way });
    }
    answers
}

/// The servers of a resolv.conf(5).
fn name_servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).take(MAX_SERVERS).collect()
}

/// The tunnels whose control socket nobody listens on.
async fn dead_sockets(dir: &Path) -> std::io::Result<Vec<String>> {
    let alive = socket::list(dir).await?;
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut dead = Vec::new();
    for file in files {
        let file = file?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".sock"));
        dead.extend(name.filter(|name| !alive.iter().any(|other| other == name)).map(str::to_owned));
    }
    dead.sort_unstable();
    Ok(dead)
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// IPPROTO_UDP.
const UDP: u8 = 17;
/// What a resolver uses (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;
/// A host of containers has thousands of interfaces, of which the underlay's are the first.
const MAX_LINKS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text = "# comment\nsearch example.com\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # here\n\
                    nameserver fe80::1%eth0\nnameservers 192.0.2.9x\n";
        let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn only_a_stopped_process_is_stopped() {
        assert!(!is_stopped(std::process::id()));
        assert!(!is_stopped(u32::MAX));
    }

    #[test]
    fn what_was_in_a_journal_at_either_time_counts() {
        let socket = |path: &str| Entry::Socket { path: path.into() };
        let state = |owner_alive| JournalState {
            path: "/run/adit/wg0.journal".into(),
            pid: 1,
            owner_alive,
            is_of_this_host: true,
            keeps_closed: false,
        };
        let before = vec![
            ("ended".to_owned(), Ok((state(true), vec![socket("a")]))),
            ("stays".to_owned(), Ok((state(true), vec![socket("b"), socket("c")]))),
        ];
        let after = vec![
            ("stays".to_owned(), Ok((state(false), vec![socket("c")]))),
            ("started".to_owned(), Ok((state(true), vec![socket("d")]))),
        ];
        let expected = vec![
            ("stays".to_owned(), Ok((state(false), vec![socket("c"), socket("b")]))),
            ("started".to_owned(), Ok((state(true), vec![socket("d")]))),
            ("ended".to_owned(), Ok((state(true), vec![socket("a")]))),
        ];
        assert_eq!(merged(before, after), expected);
    }

    #[tokio::test]
    async fn a_tunnel_that_is_not_there_has_neither_daemon_nor_journal() {
        let dir = tempfile::tempdir().unwrap();
        let directories =
            Directories { runtime: dir.path().into(), uapi: dir.path().join("uapi"), state: dir.path().join("state") };
        let facts = gather(&directories, "adit-no-such0").await;
        assert!(matches!(facts.daemon, Daemon::Gone) && facts.journal == Ok(None), "{facts:?}");
        assert_eq!(facts.in_force, InForce::default());
        let host = gather_host(&directories).await;
        assert!(host.journals.is_ok_and(|all| all.is_empty()));
        assert_eq!(host.dead_sockets, Ok(Vec::new()));
    }
}
