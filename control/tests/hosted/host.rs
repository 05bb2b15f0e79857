//! A host that writes down what it is told, and a pair of tunnels that have one each.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use adit_control::config::{Config, Format, parse};
use adit_control::hosted::{Code, Host, HostBatch, HostEvent, HostedOptions, HostedTunnel, PacketSource, StopReason};
use adit_core::PrivateKey;

/// What a host does when it is asked to apply settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Apply,
    Refuse,
    Never,
}

/// What a host was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<HostEvent>,
    pub(crate) packets: Vec<Vec<u8>>,
    /// Whether a call for packets has begun.
    pub(crate) blocked: bool,
}

type Hook<T> = Mutex<Arc<T>>;

pub(crate) struct Recorder {
    seen: Mutex<Seen>,
    changed: Condvar,
    answer: Mutex<Answer>,
    tunnel: Mutex<Weak<HostedTunnel>>,
    event_hook: Hook<dyn Fn(&HostEvent) + Send + Sync>,
    packet_hook: Hook<dyn Fn() + Send + Sync>,
    calls: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Recorder {
    fn new() -> Self {
        Self {
            seen: Mutex::default(),
            changed: Condvar::new(),
            answer: Mutex::new(Answer::Apply),
            tunnel: Mutex::default(),
            event_hook: Mutex::new(Arc::new(|_: &HostEvent| {})),
            packet_hook: Mutex::new(Arc::new(|| {})),
            calls: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn take_packets(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.seen.lock().unwrap().packets)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn on_event(&self, hook: impl Fn(&HostEvent) + Send + Sync + 'static) {
        *self.event_hook.lock().unwrap() = Arc::new(hook);
    }

    pub(crate) fn on_packets(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.packet_hook.lock().unwrap() = Arc::new(hook);
    }

    /// Waits until something was seen.
    pub(crate) fn wait(&self, what: &str, mut done: impl FnMut(&Seen) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut seen = self.seen.lock().unwrap();
        while !done(&seen) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}: {:?}", seen.events);
            seen = self.changed.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Recorder {
    /// Fails as soon as something is not so any more.
    pub(crate) fn stays(&self, what: &str, duration: Duration, mut so: impl FnMut(&Seen) -> bool) {
        let end = Instant::now() + duration;
        let mut seen = self.seen.lock().unwrap();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            assert!(so(&seen), "not {what} any more: {:?}", seen.events);
            seen = self.changed.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Host for Recorder {
    fn event(&self, event: &HostEvent) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().events.push(event.clone());
        self.changed.notify_all();
        let hook = Arc::clone(&self.event_hook.lock().unwrap());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hook(event)));
        self.panics.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
        let HostEvent::Settings { generation, .. } = event else { return };
        let tunnel = self.tunnel.lock().unwrap().upgrade();
        let Some(tunnel) = tunnel else { return };
        let answer = *self.answer.lock().unwrap();
        // A hook may have stopped the tunnel.
        match answer {
            Answer::Apply => drop(tunnel.settings_applied(*generation)),
            Answer::Refuse => drop(tunnel.settings_failed(*generation, "no")),
            Answer::Never => {}
        }
    }

    fn packets(&self, packets: &HostBatch) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.seen.lock().unwrap();
        seen.packets.extend(packets.iter().map(<[u8]>::to_vec));
        seen.blocked = true;
        drop(seen);
        self.changed.notify_all();
        let hook = Arc::clone(&self.packet_hook.lock().unwrap());
        hook();
    }
}

impl Seen {
    /// How the starts went: `None` is well.
    pub(crate) fn outcomes(&self) -> Vec<Option<Code>> {
        let outcome = |event: &HostEvent| match event {
            HostEvent::Started { error } => Some(error.as_ref().map(|error| error.code)),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }

    /// How the updates went.
    pub(crate) fn updates(&self) -> Vec<Option<Code>> {
        let outcome = |event: &HostEvent| match event {
            HostEvent::Updated { error } => Some(error.as_ref().map(|error| error.code)),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }
}

/// Two tunnels that are each other's peers.
pub(crate) struct Pair {
    pub(crate) tunnels: [Arc<HostedTunnel>; 2],
    pub(crate) hosts: [Arc<Recorder>; 2],
    keys: [PrivateKey; 2],
    ports: [u16; 2],
}

impl Pair {
    pub(crate) fn new(options: impl Fn(&mut HostedOptions)) -> Self {
        let keys = [PrivateKey::from_bytes([0x11; 32]), PrivateKey::from_bytes([0x22; 32])];
        let ports = free_ports();
        let hosts = [Arc::new(Recorder::new()), Arc::new(Recorder::new())];
        let tunnels = [0, 1].map(|index: usize| {
            let mut own = HostedOptions { name: format!("pair{index}"), ..HostedOptions::default() };
            options(&mut own);
            let host: Arc<Recorder> = Arc::clone(&hosts[index]);
            let config = config(&keys, ports, index, "");
            let tunnel = Arc::new(HostedTunnel::new(config, own, host).unwrap());
            *hosts[index].tunnel.lock().unwrap() = Arc::downgrade(&tunnel);
            tunnel
        });
        Self { tunnels, hosts, keys, ports }
    }

    pub(crate) fn up() -> Self {
        let pair = Self::new(|_| {});
        pair.start();
        pair
    }

    pub(crate) fn start(&self) {
        for (tunnel, host) in self.tunnels.iter().zip(&self.hosts) {
            host.seen.lock().unwrap().events.clear();
            tunnel.start(PacketSource::Callbacks).unwrap();
        }
        for host in &self.hosts {
            host.wait("the start", |seen| !seen.outcomes().is_empty());
            assert_eq!(host.seen().outcomes(), [None]);
        }
    }

    pub(crate) fn stop(&self) {
        for tunnel in &self.tunnels {
            tunnel.stop(StopReason::USER_INITIATED, Duration::from_secs(5)).unwrap();
        }
    }

    pub(crate) fn config(&self, index: usize) -> Config {
        config(&self.keys, self.ports, index, "")
    }

    pub(crate) fn config_with_dns(&self, index: usize) -> Config {
        config(&self.keys, self.ports, index, "DNS = 10.9.0.53\n")
    }

    pub(crate) fn private_key(&self, index: usize) -> String {
        self.keys[index].to_base64().to_string()
    }

    pub(crate) fn public_key(&self, index: usize) -> String {
        self.keys[index].public_key().to_base64()
    }
}

/// An IPv4 packet of `len` bytes between the two tunnels' addresses.
pub(crate) fn packet(from: usize, to: usize, len: usize) -> Vec<u8> {
    let address = |index: usize| Ipv4Addr::new(10, 9, 0, index as u8 + 1).octets();
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(address(from), address(to), 64).udp(4000, 5000);
    builder.write(&mut packet, &vec![0xA5; len.saturating_sub(28)]).unwrap();
    packet
}

fn config(keys: &[PrivateKey; 2], ports: [u16; 2], index: usize, more: &str) -> Config {
    let other = 1 - index;
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {}\nAddress = 10.9.0.{}/24\n{more}[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.9.0.0/24\nEndpoint = 127.0.0.1:{}\n",
        &*keys[index].to_base64(),
        ports[index],
        index + 1,
        keys[other].public_key().to_base64(),
        ports[other],
    );
    parse(&text, Format::Conf, "test.conf").unwrap().0
}

/// Two ports that were free a moment ago over both families.
fn free_ports() -> [u16; 2] {
    let sockets = [0, 1].map(|_| adit_tun::socket::UdpSockets::bind(adit_tun::socket::UdpOptions::default()).unwrap());
    sockets.each_ref().map(adit_tun::socket::Socket::local_port)
}
