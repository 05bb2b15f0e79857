//! The kernel's answer, in a network namespace with a real tun device and a veth pair as the underlay.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::case::Case;

/// A network namespace with the device [`TUN`], and v0 with the default routes' gateways.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    /// [`Host::tables`] without a case.
    pub(crate) fresh: String,
    _tun: SyncDevice,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It leaves by this device.
    Device(String),
    /// It stays on the host.
    Local,
    /// It is refused.
    Nowhere,
}

/// Runs a test on a thread of its own in a new network namespace, which goes with the thread.
pub(crate) fn in_namespace<T, F>(test: T)
where
    T: FnOnce(Host) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Host::new()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    fn new() -> Self {
        ip(&[
            "link set lo up".to_owned(),
            "link add v0 type veth peer name v1".to_owned(),
            // Without link-local addresses there is no duplicate address detection that changes routes later.
            "link set v0 addrgenmode none up".to_owned(),
            "link set v1 addrgenmode none up".to_owned(),
        ]);
        // The kernel notices a moment later that the links are up, which shows in the tables.
        let begun = Instant::now();
        while ip(&["link show".to_owned()]).matches("state UP").count() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the links do not come up");
            std::thread::yield_now();
        }
        let tun = DeviceBuilder::new().name(TUN).enable(false).build_sync().unwrap();
        ip(&[format!("link set {TUN} addrgenmode none up"), format!("link set {TUN} down")]);
        let mut host = Self { dir: tempfile::tempdir().unwrap(), fresh: String::new(), _tun: tun };
        host.fresh = host.tables();
        host
    }

    /// Makes it the host of a case, with the routes that others have added.
    pub(crate) fn prepare(&self, case: &Case) {
        let mut commands: Vec<String> =
            case.underlay.iter().map(|own| format!("address add {own} dev v0{}", nodad(own))).collect();
        commands
            .extend(["route add default via 198.51.100.1", "route add default via 2001:db8:0:1::1"].map(str::to_owned));
        commands.extend(case.main.iter().map(|net| format!("route add {net} {}", gateway(net))));
        if let Some(table) = case.table {
            for family in ["-4", "-6"] {
                commands.push(format!("{family} rule add priority 100 lookup {table}"));
            }
        }
        ip(&commands);
    }

    /// Takes back what [`Host::prepare`] did; the tunnel is gone already.
    pub(crate) fn restore(&self, case: &Case) {
        let mut commands: Vec<String> =
            case.main.iter().map(|net| format!("route delete {net} {}", gateway(net))).collect();
        commands.push("-4 address flush dev v0".to_owned());
        commands.push("-6 address flush dev v0".to_owned());
        commands.push("-6 route flush default".to_owned());
        if case.table.is_some() {
            commands.extend(["-4", "-6"].map(|family| format!("{family} rule delete priority 100")));
        }
        ip(&commands);
    }

    /// Waits until the kernel knows all IPv6 addresses for its own, which it does a moment after they are added.
    pub(crate) fn settle(&self, case: &Case) {
        let begun = Instant::now();
        let own: Vec<IpNet> =
            case.underlay.iter().chain(&case.tunnel).filter(|own| own.addr().is_ipv6()).copied().collect();
        loop {
            let local = ip(&["-6 route show table local".to_owned()]);
            if own.iter().all(|own| local.contains(&format!("local {} dev", own.addr()))) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{own:?}\n{local}");
            std::thread::yield_now();
        }
    }

    /// Rules, routes and addresses.
    pub(crate) fn tables(&self) -> String {
        let lists = ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "address"];
        lists.map(|list| ip(&[list.to_owned()])).join("--\n")
    }

    /// Asks for routes (RTM_GETROUTE), with `ip -batch` so that one program asks for all of them.
    pub(crate) fn ways(&self, destinations: &[IpAddr], mark: u32) -> Vec<Answer> {
        let questions: String = destinations.iter().map(|to| format!("route get {to} mark {mark}\n")).collect();
        let (told, failed) = run(&["-force", "-batch", "-"], &questions);
        // "Command failed -:7" says that line 7 had no answer.
        let numbers = failed.lines().filter_map(|line| line.strip_prefix("Command failed -:")?.parse::<usize>().ok());
        let refused: BTreeSet<usize> = numbers.collect();
        let mut answers = told.lines().filter(|line| !line.starts_with([' ', '\t']) && !line.is_empty());
        let ways: Vec<Answer> = (1..=destinations.len())
            .map(|line| if refused.contains(&line) { Answer::Nowhere } else { parse(answers.next().unwrap_or("")) })
            .collect();
        assert_eq!(answers.next(), None, "more answers than questions: {told}\n{failed}");
        ways
    }
}

fn parse(line: &str) -> Answer {
    match line.split(' ').next() {
        Some("local") => Answer::Local,
        Some("unreachable" | "prohibit" | "blackhole" | "throw") => Answer::Nowhere,
        _ => {
            let device = line.split_once(" dev ").and_then(|(_, rest)| rest.split(' ').next());
            match device.unwrap_or_else(|| panic!("no answer: {line}")) {
                "lo" => Answer::Local,
                device => Answer::Device(device.to_owned()),
            }
        }
    }
}

/// Runs commands of ip(8), in one go those of any family, of IPv4 and of IPv6; fails unless all succeed.
fn ip(commands: &[String]) -> String {
    let mut all = String::new();
    for family in ["-0", "-4", "-6"] {
        let of_family = |line: &&String| line.get(..2).filter(|start| start.starts_with('-')).unwrap_or("-0") == family;
        let lines: Vec<&str> = commands.iter().filter(of_family).map(|line| line.trim_start_matches(family)).collect();
        if lines.is_empty() {
            continue;
        }
        let family = Some(family).filter(|family| *family != "-0");
        let arguments: Vec<&str> = family.into_iter().chain(["-batch", "-"]).collect();
        let (told, failed) = run(&arguments, &(lines.join("\n") + "\n"));
        assert!(failed.is_empty(), "{lines:#?}\n{failed}");
        all += &told;
    }
    all
}

fn run(arguments: &[&str], input: &str) -> (String, String) {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It answers while it is asked.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn nodad(own: &IpNet) -> &'static str {
    if own.addr().is_ipv6() { " nodad" } else { "" }
}

fn gateway(net: &IpNet) -> &'static str {
    if net.addr().is_ipv6() { "via 2001:db8:0:1::1 dev v0" } else { "via 198.51.100.1 dev v0" }
}

/// The tunnel's device.
pub(crate) const TUN: &str = "adt0";
