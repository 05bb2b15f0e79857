//! A host behind a firewall, and others that are connected to it, each in a network namespace and on a thread of its own.

use std::future::Future;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recvfrom, setsockopt, socket, sockopt};

use adit_control::firewall::{Firewall, KillSwitch};

/// The host under test: v0 is its underlay, 198.51.100.2/24 and 2001:db8:0:1::2/64, and [`TUN`] its tunnel, 10.9.0.2/24.
pub(crate) struct Host {
    /// What both lead to, with 198.51.100.1 and 10.9.0.1, and 203.0.113.9, 192.0.2.9 and 2001:db8:9::9 behind them.
    pub(crate) far: Other,
    /// A host behind the tested one, 10.77.0.2/24.
    pub(crate) client: Other,
}

impl Host {
    fn new() -> Self {
        let host = Self { far: Other::new(), client: Other::new() };
        ip("link set lo up");
        ip("link add v0 type veth peer name v1");
        ip(&format!("link set v1 netns {}", host.far.thread_id));
        ip("link set v0 addrgenmode none up");
        host.far.ip("link set lo up");
        host.far.ip("link set v1 addrgenmode none up");
        for address in ["198.51.100.1/24 dev v1", "2001:db8:0:1::1/64 dev v1 nodad", "203.0.113.9/32 dev lo"] {
            host.far.ip(&format!("address add {address}"));
        }
        host.far.ip("address add 192.0.2.9/32 dev lo");
        host.far.ip("address add 2001:db8:9::9/128 dev lo nodad");
        host.far.ip("route add default via 198.51.100.2");
        host.far.ip("-6 route add default via 2001:db8:0:1::2");
        ip("address add 198.51.100.2/24 dev v0");
        ip("address add 2001:db8:0:1::2/64 dev v0 nodad");
        ip("route add default via 198.51.100.1");
        ip("-6 route add default via 2001:db8:0:1::1");
        host.add_tunnel();

        ip("link add c0 type veth peer name c1");
        ip(&format!("link set c1 netns {}", host.client.thread_id));
        ip("link set c0 addrgenmode none up");
        ip("address add 10.77.0.1/24 dev c0");
        host.client.ip("link set c1 addrgenmode none up");
        host.client.ip("address add 10.77.0.2/24 dev c1");
        host.client.ip("route add default via 10.77.0.1");
        wait_until_up("v0");
        wait_until_up("c0");
        host.far.run(|| wait_until_up("v1"));
        host.client.run(|| wait_until_up("c1"));
        sysctl("ipv4/ip_forward", "1");
        host
    }

    /// A pair of devices stands for the tunnel: what goes into the near one comes out at the far host.
    pub(crate) fn add_tunnel(&self) {
        ip(&format!("link add {TUN} type veth peer name t1"));
        ip(&format!("link set t1 netns {}", self.far.thread_id));
        ip(&format!("link set {TUN} addrgenmode none up"));
        ip(&format!("address add 10.9.0.2/24 dev {TUN}"));
        self.far.ip("link set t1 addrgenmode none up");
        self.far.ip("address add 10.9.0.1/24 dev t1");
        self.far.ip("route add 10.77.0.0/24 via 10.9.0.2");
        wait_until_up(TUN);
        self.far.run(|| wait_until_up("t1"));
    }
}

/// A thread in a network namespace of its own, both of which end with this.
pub(crate) struct Other {
    thread_id: i32,
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Other {
    fn new() -> Self {
        let (work, works) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            works.into_iter().for_each(|work| work());
        });
        Self { thread_id: started.recv().unwrap(), work: Some(work), thread: Some(thread) }
    }

    /// Does something there.
    pub(crate) fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let work = Box::new(move || drop(done.send(what())));
        self.work.as_ref().unwrap().send(work).unwrap();
        result.recv_timeout(TIME_LIMIT).unwrap()
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// A socket there.
    pub(crate) fn udp(&self, address: &'static str) -> UdpSocket {
        self.run(move || udp(address))
    }

    /// Listens to a device there.
    pub(crate) fn listen(&self, device: &'static str) -> Sniffer {
        self.run(move || Sniffer::new(device))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Hears every packet that comes in on a device.
pub(crate) struct Sniffer(OwnedFd);

impl Sniffer {
    fn new(device: &str) -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll).unwrap();
        setsockopt(&fd, sockopt::BindToDevice, &device.into()).unwrap();
        setsockopt(&fd, sockopt::RcvBuf, &(4 << 20)).unwrap();
        Self(fd)
    }

    /// How many of the packets that came in since the last call contain each text, up to the first that contains `last`,
    /// which has to come within some seconds.
    pub(crate) fn heard<const N: usize>(&self, texts: [&str; N], last: &str) -> [usize; N] {
        let (mut counts, deadline) = ([0; N], Instant::now() + Duration::from_secs(5));
        let mut packet = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut packet) {
                // What leaves may quote what came in.
                Ok((_, Some(from))) if from.pkttype() == libc::PACKET_OUTGOING => {}
                Ok((length, _)) => {
                    let contains = |text: &str| packet[..length].windows(text.len()).any(|w| w == text.as_bytes());
                    for (count, text) in counts.iter_mut().zip(texts) {
                        *count += usize::from(contains(text));
                    }
                    if contains(last) {
                        return counts;
                    }
                }
                Err(nix::Error::EAGAIN) => {
                    assert!(Instant::now() < deadline, "{last:?} did not arrive");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Runs a test on a thread of its own in a new network namespace, and fails it when it takes too long.
pub(crate) fn in_namespace<T, F>(test: T)
where
    T: FnOnce(Rc<Host>) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // A test that does not look at the others needs them all the same, to the end.
        let host = Rc::new(Host::new());
        runtime.block_on(test(Rc::clone(&host)));
        let _ = done.send(());
    });
    if result.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test took longer than {TIME_LIMIT:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A firewall with a kill switch that lets nothing through but the tunnel.
pub(crate) fn closed() -> Firewall {
    open_to(&[], &[])
}

/// A firewall with a kill switch and exceptions.
pub(crate) fn open_to(excluded: &[&str], local: &[&str]) -> Firewall {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Firewall {
        ifname: TUN.into(),
        fwmark: MARK,
        addresses: nets(&["10.9.0.2/24"]),
        reply_protection: false,
        kill_switch: Some(KillSwitch { excluded: nets(excluded), local: nets(local), no_local_dns: false }),
    }
}

pub(crate) fn udp(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

pub(crate) fn marked(socket: UdpSocket) -> UdpSocket {
    setsockopt(&socket, sockopt::Mark, &MARK).unwrap();
    socket
}

/// What becomes of a datagram at once.
pub(crate) fn send(socket: &UdpSocket, text: &str, to: &str) -> Result<(), ErrorKind> {
    socket.send_to(text.as_bytes(), to).map(drop).map_err(|error| error.kind())
}

pub(crate) fn ip(arguments: &str) -> String {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

/// What is sent before the kernel has noticed that the other end is up as well is lost.
fn wait_until_up(device: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ip(&format!("link show {device}")).contains("state UP") {
        assert!(Instant::now() < deadline, "{device} does not come up");
        std::thread::yield_now();
    }
}

pub(crate) fn nft(command: &str) -> String {
    run("nft", &[command])
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().unwrap().status.success()
}

pub(crate) fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

pub(crate) const TUN: &str = "adt0";
pub(crate) const MARK: u32 = 51820;
const TIME_LIMIT: Duration = Duration::from_secs(60);
