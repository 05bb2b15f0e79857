//! One end of the demo's tunnel: an engine with its pump, and what both modes ask of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_core::{Command, Engine, EngineConfig, Event, PeerUpdate, PresharedKey, PrivateKey, PublicKey, Update};
use adit_tun::device::Device;
use adit_tun::handle::Reply;
use adit_tun::socket::{Socket as _, UdpOptions, UdpSockets};
use adit_tun::{Pump, PumpCommand, PumpHandle, PumpSnapshot};
use crossbeam_channel::{Receiver, bounded};
use ipnet::IpNet;

use crate::failure::{Failure, Kind, Outcome};
use crate::keys;
use crate::watch::Watch;

/// Which of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Begins: handshake, pings, transfer.
    A,
    /// Answers.
    B,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The host's address in the tunnel.
    pub(super) fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number())
    }

    /// The host's address in the tunnel.
    pub(super) fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number().into())
    }

    /// Both addresses, which are all that is routed to the host.
    pub(super) fn nets(self) -> [IpNet; 2] {
        [IpAddr::from(self.ipv4()).into(), IpAddr::from(self.ipv6()).into()]
    }
}

/// What the two ends must know of each other.
pub(super) struct Secrets {
    private: [PrivateKey; 2],
    preshared: PresharedKey,
}

impl Secrets {
    /// Makes keys for this run.
    pub(super) fn new() -> Outcome<Self> {
        let private = [PrivateKey::from_bytes(*keys::random()?), PrivateKey::from_bytes(*keys::random()?)];
        Ok(Self { private, preshared: PresharedKey::from_bytes(*keys::random()?) })
    }

    fn public(&self, side: Side) -> PublicKey {
        self.private[side as usize].public_key()
    }
}

/// A running engine. Dropping it stops the pump and waits for it, so that device and sockets are closed afterwards.
pub(super) struct Tunnel {
    side: Side,
    handle: PumpHandle,
    events: Receiver<Event>,
    port: u16,
    join: Option<Box<dyn FnOnce() + Send>>,
}

impl Tunnel {
    /// Starts an engine on a device, with sockets in the network namespace of the calling thread.
    pub(super) fn start<D: Device>(side: Side, device: D) -> Outcome<Self> {
        let socket = UdpSockets::bind(UdpOptions::default())
            .map_err(|error| Failure::new(Kind::Network, format!("host {}: {error}", side.name())))?;
        let port = socket.local_port();
        let config = EngineConfig { mtu: MTU, seed: random_seed()?, ..EngineConfig::default() };
        let engine = Engine::new(config).map_err(Failure::failed)?;
        let (sender, events) = bounded(EVENTS);
        let (handle, thread) = Pump::spawn(engine, device, socket, sender)?;
        let join = Box::new(move || {
            if thread.join().is_err() {
                tracing::error!("a packet loop has panicked");
            }
        });
        Ok(Self { side, handle, events, port, join: Some(join) })
    }

    /// The UDP port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Tells the engine its key and its only peer. The end that has no endpoint learns it from the first handshake.
    pub(super) fn configure(&self, watch: &Watch, secrets: &Secrets, endpoint: Option<SocketAddr>) -> Outcome {
        let other = self.side.other();
        let mut peer = PeerUpdate::new(secrets.public(other)).allow(other.nets()).preshared(secrets.preshared.clone());
        peer.endpoint = endpoint;
        let private_key = Some(Some(secrets.private[self.side as usize].clone()));
        let update = Update { private_key, peers: vec![peer], ..Update::default() };
        self.command(watch, Command::Update(Box::new(update)))
    }

    /// Begins a handshake and returns how long it took until there was a session.
    ///
    /// The engine's own figure has milliseconds only, which is too coarse for loopback.
    pub(super) fn handshake(&self, watch: &Watch) -> Outcome<Duration> {
        let begun = Instant::now();
        self.command(watch, Command::Connect)?;
        loop {
            let event = watch.receive(&self.events, HANDSHAKE_LIMIT, "the handshake").map_err(|failure| {
                Failure::new(if watch.check().is_err() { failure.kind } else { Kind::Network }, failure.message)
            })?;
            if matches!(event, Event::HandshakeCompleted { .. }) {
                return Ok(begun.elapsed());
            }
        }
    }

    /// Everything that can be told of the engine.
    pub(super) fn snapshot(&self, watch: &Watch) -> Outcome<PumpSnapshot> {
        self.ask(watch, PumpCommand::Snapshot).map(|snapshot| *snapshot)
    }

    fn command(&self, watch: &Watch, command: Command) -> Outcome {
        self.ask(watch, |reply| PumpCommand::Engine(command, reply))?.map_err(Failure::failed)
    }

    fn ask<T: Send + 'static>(&self, watch: &Watch, command: impl FnOnce(Reply<T>) -> PumpCommand) -> Outcome<T> {
        let (sender, reply) = bounded(1);
        let command = command(Box::new(move |value| {
            // Whoever asked may have given up.
            let _unwanted = sender.try_send(value);
        }));
        self.handle.send(command).map_err(Failure::failed)?;
        watch.receive(&reply, COMMAND_LIMIT, &format!("a command to the engine of host {}", self.side.name()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(join) = self.join.take() {
            join();
        }
    }
}

/// A seed from the system's random source.
pub(super) fn random_seed() -> Outcome<u64> {
    let bytes = keys::random()?;
    Ok(bytes
        .chunks_exact(8)
        .fold(0, |seed, chunk| seed ^ chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))))
}

/// The tunnel's MTU in bytes: Ethernet's 1500 less what WireGuard adds over IPv6.
pub(super) const MTU: usize = 1420;

/// A response over loopback takes about a millisecond; initiations are repeated every 5 s (REKEY_TIMEOUT), so one may be
/// lost.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(12);

/// The packet loop looks at its commands every few milliseconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);

/// Events kept; the demo sees a handful.
const EVENTS: usize = 64;
