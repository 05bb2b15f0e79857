//! A host to change, and the thread that it lives on.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use adit_control::journal::Journal;
use adit_control::settings::{Settings, Wanted};
use tun_rs::{DeviceBuilder, SyncDevice};

/// A network namespace with a physical network: v0 has 198.51.100.2/24 and 2001:db8:0:1::2/64 and the default routes.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        for command in [
            "link set lo up",
            "link add v0 type veth peer name v1",
            // Without link-local addresses there is no duplicate address detection that changes routes later.
            "link set v0 addrgenmode none up",
            "link set v1 addrgenmode none up",
            "address add 198.51.100.2/24 dev v0",
            "address add 2001:db8:0:1::2/64 dev v0 nodad",
            "route add default via 198.51.100.1",
            "-6 route add default via 2001:db8:0:1::1",
        ] {
            host.ip(&command.split(' ').collect::<Vec<_>>());
        }
        host.settle();
        host
    }

    /// Waits until the kernel has noticed that its links are up, and knows its address, which it does a moment later.
    fn settle(&self) {
        let begun = Instant::now();
        let is_settled = || {
            let links = self.ip(&["-o", "link", "show"]);
            let local = self.ip(&["-6", "route", "show", "table", "local"]);
            links.matches("state UP").count() == 2 && local.contains("local 2001:db8:0:1::2 ")
        };
        while !is_settled() {
            assert!(begun.elapsed() < TIME_LIMIT, "the links do not come up");
            std::thread::yield_now();
        }
    }

    pub(crate) fn tun(&self) -> SyncDevice {
        self.tun_named(TUN)
    }

    pub(crate) fn tun_named(&self, name: &str) -> SyncDevice {
        let tun = DeviceBuilder::new().name(name).enable(false).build_sync().unwrap();
        // The kernel gives a device its queue when it is set up first, and that stays.
        self.ip(&["link", "set", name, "addrgenmode", "none", "up"]);
        self.ip(&["link", "set", name, "down"]);
        tun
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal::create(self.dir.path(), TUN).unwrap()
    }

    /// Everything that a tunnel may change, as text.
    pub(crate) fn snapshot(&self) -> String {
        let lists: [&[&str]; 5] = [
            &["-4", "rule"],
            &["-6", "rule"],
            &["-4", "route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
            &["address"],
        ];
        lists.map(|list| self.ip(list)).join("--\n") + &self.sysctl()
    }

    pub(crate) fn sysctl(&self) -> String {
        std::fs::read_to_string(SRC_VALID_MARK).unwrap().trim().to_owned()
    }

    pub(crate) fn index_of(&self, name: &str) -> u32 {
        self.ip(&["link", "show", name]).split(':').next().unwrap().parse().unwrap()
    }

    /// The interface by which a packet to `destination` leaves.
    pub(crate) fn device_to(&self, destination: &str, mark: u32) -> String {
        let answer = self.ip(&["route", "get", destination, "mark", &mark.to_string()]);
        answer.split_once(" dev ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or(&answer).to_owned()
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        self.try_ip(arguments).unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")))
    }

    pub(crate) fn try_ip(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("ip").args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

/// Runs a test on a thread of its own in a new network namespace, which goes with the thread, and fails it when it takes
/// too long. Everything the test opens, processes included, belongs to that namespace.
pub(crate) fn in_namespace<T, F>(test: T)
where
    T: FnOnce(Host) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let (done, result) = mpsc::channel();
    let outside = namespace(Path::new("/proc/thread-self/ns/net"));
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
        assert_ne!(namespace(Path::new("/proc/thread-self/ns/net")), outside);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(Host::new()));
        let _ = done.send(());
    });
    if result.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test took longer than {TIME_LIMIT:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn namespace(path: &Path) -> PathBuf {
    std::fs::read_link(path).unwrap()
}

pub(crate) fn settings(addresses: &[&str], allowed_ips: &[&str], change: impl FnOnce(&mut Wanted)) -> Settings {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let mut wanted = Wanted { addresses: nets(addresses), allowed_ips: nets(allowed_ips), ..Wanted::default() };
    change(&mut wanted);
    Settings::new(&wanted)
}

pub(crate) fn full_tunnel() -> Settings {
    settings(&["10.9.0.2/24", "fd09::2/64"], &["0.0.0.0/0", "::/0"], |_| ())
}

pub(crate) const TUN: &str = "adt0";
pub(crate) const SRC_VALID_MARK: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
const TIME_LIMIT: Duration = Duration::from_secs(60);
