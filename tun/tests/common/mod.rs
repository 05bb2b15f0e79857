//! Two pumps with a tunnel between them, for the tests of this crate.
#![allow(dead_code, reason = "every test uses another part")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_core::{Command, Engine, EngineConfig, Event, PeerUpdate, PrivateKey, Update};
use adit_tun::device::Device;
use adit_tun::device::memory::{MemoryDevice, MemoryHost, RingError};
use adit_tun::socket::Socket;
use adit_tun::socket::memory::{MemoryNetwork, MemorySocket};
use adit_tun::{ExitReason, Pump, PumpExit, PumpHandle};
use crossbeam_channel::{Receiver, bounded};

/// Longer than anything takes on a busy machine, and short enough to wait for in a failing test.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) const MTU: usize = 1420;

/// Packets that each direction of a memory device holds.
pub(crate) const RING: usize = 64;

/// One end of a tunnel: a running pump, and the host in front of it.
pub(crate) struct Side<D, S> {
    pub(crate) number: u8,
    pub(crate) handle: PumpHandle,
    pub(crate) thread: JoinHandle<PumpExit<D, S>>,
    pub(crate) events: Receiver<Event>,
}

pub(crate) type MemorySide = Side<MemoryDevice, MemorySocket>;

impl<D: Device, S: Socket> Side<D, S> {
    /// Starts a pump with a private key and no peers.
    pub(crate) fn start(number: u8, device: D, socket: S) -> Self {
        let config = EngineConfig { mtu: MTU, seed: u64::from(number), ..EngineConfig::default() };
        let side = Self::with_engine(number, Engine::new(config).unwrap(), device, socket);
        let update = Update { private_key: Some(Some(key(number))), ..Update::default() };
        side.handle.command(Command::Update(Box::new(update))).unwrap().unwrap();
        side
    }

    pub(crate) fn with_engine(number: u8, engine: Engine, device: D, socket: S) -> Self {
        let (sender, events) = bounded(64);
        let (handle, thread) = Pump::spawn(engine, device, socket, sender).unwrap();
        Self { number, handle, thread, events }
    }

    /// Makes the other side a peer, which has all of 10.0.NUMBER.0/24.
    pub(crate) fn add_peer(&self, other: u8, endpoint: Option<SocketAddr>) {
        let net = format!("10.0.{other}.0/24").parse().unwrap();
        let mut peer = PeerUpdate::new(key(other).public_key()).allow([net]);
        peer.endpoint = endpoint;
        let update = Update { peers: vec![peer], ..Update::default() };
        self.handle.command(Command::Update(Box::new(update))).unwrap().unwrap();
    }

    pub(crate) fn exit(self) -> PumpExit<D, S> {
        self.handle.stop();
        let exit = self.thread.join().unwrap();
        assert!(matches!(exit.reason, ExitReason::Stopped), "{}", exit.reason);
        exit
    }

    /// Waits for an event that `wanted` accepts.
    pub(crate) fn expect_event(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event did not come");
            if wanted(&event) {
                return event;
            }
        }
    }
}

pub(crate) fn key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

pub(crate) fn device(number: u8) -> (MemoryDevice, MemoryHost) {
    MemoryDevice::new(format!("mem{number}"), MTU, RING)
}

/// Two sides on a memory network, whose inboxes hold `datagrams` datagrams, that know each other's endpoints.
pub(crate) fn memory_pair(datagrams: usize) -> [(MemorySide, MemoryHost); 2] {
    let network = MemoryNetwork::new(datagrams);
    let endpoint = |number: u8| SocketAddr::from(([192, 0, 2, number], 51_820));
    let sides = [1, 2].map(|number| {
        let (device, host) = device(number);
        (Side::start(number, device, network.bind(endpoint(number)).unwrap()), host)
    });
    sides[0].0.add_peer(2, Some(endpoint(2)));
    sides[1].0.add_peer(1, Some(endpoint(1)));
    sides
}

/// An IPv4 packet between the hosts of two sides that says which one it is.
pub(crate) fn packet(from: u8, to: u8, number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; len.max(24)];
    let total = u16::try_from(packet.len()).unwrap();
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[12..16].copy_from_slice(&Ipv4Addr::new(10, 0, from, 1).octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::new(10, 0, to, 1).octets());
    packet[20..24].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Sends, waiting for room.
pub(crate) fn send(host: &MemoryHost, packet: &[u8]) {
    let end = Instant::now() + LIMIT;
    while let Err(error) = host.send(packet) {
        assert_eq!(error, RingError::Full);
        assert!(Instant::now() < end, "the tunnel took nothing for {LIMIT:?}");
        host.wait(Duration::from_millis(100));
    }
}

/// Receives the next packet.
pub(crate) fn receive(host: &MemoryHost) -> Vec<u8> {
    let mut buffer = [0; 65_535];
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(len) = host.recv(&mut buffer) {
            return buffer[..len].to_vec();
        }
        assert!(Instant::now() < end, "no packet came for {LIMIT:?}");
        host.wait(Duration::from_millis(100));
    }
}
