//! What a running tunnel is made of: engine, sockets, device and packet loop, made and changed as the session says.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;

use adit_core::{Command, Engine, EngineConfig, PeerUpdate, Update};
use adit_tun::device::Descriptor;
use adit_tun::device::host::{HostDevice, HostPackets};
use adit_tun::handle::{PumpCommand, PumpGone, PumpHandle};
use adit_tun::pump::{Pump, PumpThread};
use adit_tun::socket::{UdpOptions, UdpSockets};
use tokio::sync::mpsc;

use super::{HostedOptions, PacketSource};
use crate::config::Config;
use crate::endpoints::Resolved;
use crate::session::{Code, Failure};
use crate::timestamp;

/// A packet loop and the ways to talk to it.
pub(super) struct EngineRoom {
    pub(super) pump: PumpHandle,
    /// The host's end of its packets, unless they come from a descriptor.
    pub(super) packets: Option<HostPackets>,
    thread: Option<PumpThread<HostDevice, UdpSockets>>,
}

impl EngineRoom {
    /// Makes everything else and configures the engine.
    pub(super) fn open(
        config: &Config,
        resolved: &Resolved,
        options: &HostedOptions,
        socket: UdpSockets,
        source: PacketSource,
    ) -> Result<(Self, mpsc::Receiver<adit_core::Event>), Failure> {
        let mtu = usize::from(config.interface.mtu.unwrap_or(options.default_mtu));
        let floor = match (&options.state_dir, &config.interface.private_key) {
            (Some(dir), Some(key)) => timestamp::load(dir, &key.public_key()),
            _ => None,
        };
        let engine =
            Engine::new(EngineConfig { mtu, seed: seed()?, timestamp_floor: floor, ..EngineConfig::default() })
                .map_err(configuration)?;
        let (device, packets) = match source {
            PacketSource::Callbacks => {
                let (device, packets) = HostDevice::callbacks(&*options.name, mtu);
                (device, Some(packets))
            }
            PacketSource::Descriptor(descriptor) => (HostDevice::descriptor(&*options.name, mtu, descriptor), None),
        };
        let (sender, events) = mpsc::channel(EVENTS);
        let sink: Box<dyn FnMut(adit_core::Event) -> bool + Send> =
            Box::new(move |event| sender.try_send(event).is_ok());
        let (pump, thread) =
            Pump::spawn(engine, device, socket, sink).map_err(|error| system("no packet loop", &error))?;
        let room = Self { pump, packets, thread: Some(thread) };
        room.tell(Command::Update(Box::new(config.update(|endpoint| resolved.address(endpoint)))))?;
        Ok((room, events))
    }

    /// Passes a command on to the engine.
    pub(super) fn tell(&self, command: Command) -> Result<(), Failure> {
        self.pump.command(command).map_err(gone)?.map_err(configuration)
    }

    /// Configures the engine anew, and the socket as far as it has to be another one.
    pub(super) fn reconfigure(
        &self,
        config: &Config,
        former: &Config,
        resolved: &Resolved,
        options: &HostedOptions,
    ) -> Result<(), Failure> {
        let (port, mtu) = (config.interface.listen_port, config.interface.mtu);
        // What can fail comes first; the engine takes a configuration that was checked.
        if port != former.interface.listen_port {
            self.rebind_to(port.unwrap_or(0))?;
        }
        if mtu != former.interface.mtu {
            let mtu = usize::from(mtu.unwrap_or(options.default_mtu));
            let answer = self.pump.call(|reply| PumpCommand::SetMtu(mtu, reply)).map_err(gone)?;
            answer.map_err(|error| Failure::new(Code::Configuration, error.to_string()))?;
        }
        self.tell(Command::Update(Box::new(config.update(|endpoint| resolved.address(endpoint)))))
    }

    /// Tells the engine the addresses of endpoints that are others than before. Where a peer has moved to meanwhile is
    /// left alone as long as its name says nothing new.
    pub(super) fn refresh(&self, config: &Config, before: &Resolved, now: &Resolved) -> Result<(), Failure> {
        let changed = config.peers.iter().filter_map(|peer| {
            let endpoint = peer.endpoint.as_ref()?;
            let address = now.address(endpoint)?;
            (before.address(endpoint) != Some(address)).then(|| {
                let mut update = PeerUpdate::new(peer.public_key).endpoint(address);
                update.update_only = true;
                update
            })
        });
        let update = Update { peers: changed.collect(), ..Update::default() };
        if update.peers.is_empty() { Ok(()) } else { self.tell(Command::Update(Box::new(update))) }
    }

    /// Makes new sockets, under another port if that may be; says how many peers have a session.
    pub(super) fn rebind(
        &self,
        config: &Config,
        options: &HostedOptions,
        fresh_port: bool,
        interface: Option<NonZeroU32>,
    ) -> Result<usize, Failure> {
        if options.bind_to_path {
            let bound = self.pump.call(|reply| PumpCommand::BindInterface(interface, reply)).map_err(gone)?;
            bound.map_err(|error| Failure::new(Code::Socket, error.to_string()))?;
        }
        let snapshot = self.pump.snapshot().map_err(gone)?;
        let is_free = config.interface.listen_port.is_none_or(|port| port == 0);
        self.rebind_to(if fresh_port && is_free { 0 } else { snapshot.port })?;
        Ok(snapshot.engine.peers.iter().filter(|peer| peer.has_session).count())
    }

    fn rebind_to(&self, port: u16) -> Result<(), Failure> {
        let answer = self.pump.rebind(port).map_err(gone)?;
        answer.map(drop).map_err(|error| Failure::new(Code::Socket, error.to_string()))
    }

    /// Lets the packets come from a descriptor from now on.
    pub(super) fn attach(&mut self, descriptor: Descriptor) -> Result<(), Failure> {
        if self.packets.is_none() {
            return Err(Failure::new(Code::InvalidState, "the tunnel has a descriptor already"));
        }
        let answer = self.pump.call(|reply| PumpCommand::Attach(descriptor, reply)).map_err(gone)?;
        answer.map_err(|error| Failure::new(Code::Device, format!("the descriptor cannot be used: {error}")))?;
        self.packets = None;
        Ok(())
    }

    /// Keeps the newest timestamp for the next start.
    pub(super) fn keep_timestamp(&self, dir: &Path) {
        let dir = dir.to_owned();
        let store = PumpCommand::Snapshot(Box::new(move |snapshot| timestamp::store(&dir, &snapshot.engine)));
        // A busy or ended loop: the next handshake, or the end, writes it down.
        let _later = self.pump.send(store);
    }

    /// Ends the packet loop and says why it ended, if not because of this. The newest timestamp is kept.
    pub(super) fn close(mut self, state_dir: Option<&Path>) -> Result<(), Failure> {
        self.pump.stop();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        match thread.join() {
            Ok(exit) => {
                if let Some(dir) = state_dir {
                    timestamp::store(dir, &exit.engine.snapshot(adit_tun::Clock::new().now()));
                }
                match exit.reason {
                    adit_tun::ExitReason::Stopped => Ok(()),
                    reason => Err(Failure::new(Code::DeviceLost, reason.to_string())),
                }
            }
            Err(_) => Err(Failure::new(Code::Internal, "the packet loop has panicked; this is a bug in Adit")),
        }
    }
}

impl Drop for EngineRoom {
    fn drop(&mut self) {
        self.pump.stop();
        if let Some(thread) = self.thread.take() {
            // What it says has no reader any more.
            drop(thread.join());
        }
    }
}

/// Makes the sockets of a configuration; [`Code::System`] if there are none for the moment.
pub(super) fn socket(
    config: &Config,
    options: &HostedOptions,
    interface: Option<NonZeroU32>,
) -> Result<UdpSockets, Failure> {
    let udp = UdpOptions {
        port: config.interface.listen_port.unwrap_or(0),
        mark: if cfg!(target_os = "linux") { config.interface.fwmark.unwrap_or(0) } else { 0 },
        bind_interface: interface.filter(|_| options.bind_to_path),
    };
    UdpSockets::bind(udp).map_err(|error| {
        let code = if error.is_passing() { Code::System } else { Code::Socket };
        Failure::new(code, error.to_string())
    })
}

/// The addresses of a configuration's endpoints as far as they are known.
pub(super) fn endpoints(config: &Config, resolved: &Resolved) -> Vec<SocketAddr> {
    resolved.all(config)
}

fn seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| system("no random numbers", &io::Error::other(error)))?;
    Ok(u64::from_le_bytes(bytes))
}

fn configuration(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Configuration, error.to_string())
}

fn gone(_: PumpGone) -> Failure {
    Failure::new(Code::DeviceLost, "the packet loop has ended")
}

pub(super) fn system(what: &str, error: &io::Error) -> Failure {
    Failure::new(Code::System, format!("the system gives {what}: {error}"))
}

/// Events of the engine that may wait for the control thread; more are counted as lost.
const EVENTS: usize = 256;
