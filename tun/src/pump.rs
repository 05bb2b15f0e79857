//! The only packet loop: one thread that owns an engine, a device and a socket.
//!
//! A turn is: timers, commands, then rounds of (flush, a batch of datagrams, a batch of packets) until nothing is left or
//! the turn's budget is spent, events, and a wait for whatever comes next. The loop only moves; the engine decides.
//!
//! Nothing is read that has no room to go to: while datagrams wait for the socket the device is not read, and while
//! packets wait for the device the socket is not. So a slow side holds back its sender, and the loop itself loses
//! nothing that it has read. No error of a socket ends the loop. All memory is allocated before the first packet.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_core::{Command, DropReason, Engine, Event, OffloadSide, Outputs, Source, TunPacket};

use crate::batch::{Appetite, DatagramBatch, PacketBatch};
use crate::clock::Clock;
use crate::device::{Descriptor, Device};
use crate::engine::PacketEngine;
use crate::handle::{EventSink, Inbox, Mail, MtuError, PumpCommand, PumpCounters, PumpHandle, PumpSnapshot, PumpStats};
use crate::memory::TABLE;
use crate::queue::{SendQueue, WriteQueue};
use crate::reactor::{End, Reactor, Readiness, Ready};
use crate::socket::{BindError, Socket};

/// The loop and everything in it.
pub struct Pump<D, S, E = Engine> {
    /// Before the descriptors that it watches, so that it is dropped before them.
    reactor: Reactor,
    engine: E,
    device: D,
    socket: S,
    clock: Clock,
    inbox: Inbox,
    events: Box<dyn EventSink>,
    packets: PacketBatch,
    datagrams: DatagramBatch,
    /// How long batches of both should be.
    appetites: Appetites,
    sending: SendQueue,
    writing: WriteQueue,
    /// What may be possible without waiting: true until it was tried in vain.
    ready: Ready,
    repair: Option<Repair>,
    stats: PumpStats,
}

/// How a pump ended, and what it was made of.
#[derive(Debug)]
pub struct PumpExit<D, S, E = Engine> {
    /// Why.
    pub reason: ExitReason,
    /// The engine, with its sessions.
    pub engine: E,
    /// The device, of no use any more if that was the reason.
    pub device: D,
    /// The socket, still bound.
    pub socket: S,
    /// Counters.
    pub stats: PumpStats,
}

/// The loop's thread, to be joined once the loop was stopped.
pub type PumpThread<D, S, E = Engine> = JoinHandle<PumpExit<D, S, E>>;

/// Why a pump ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExitReason {
    /// It was told to, or nobody was left who could.
    #[error("the packet loop was stopped")]
    Stopped,
    /// The device is gone: deleted, unplugged, closed.
    #[error("the device is gone ({0})")]
    DeviceGone(io::Error),
    /// The system does not let it wait any more.
    #[error("the packet loop cannot wait for its descriptors ({0})")]
    Poller(io::Error),
}

#[derive(Debug)]
struct Appetites {
    packets: Appetite,
    datagrams: Appetite,
}

/// A broken socket that is to be bound anew.
#[derive(Debug, Clone, Copy)]
struct Repair {
    at: Instant,
    pause: Duration,
}

impl<D: Device, S: Socket, E: PacketEngine> Pump<D, S, E> {
    /// Allocates everything and starts the loop in a thread of its own.
    ///
    /// # Errors
    /// What the system says when it has no descriptors or threads left. The device and the socket are dropped then.
    pub fn spawn(
        engine: E,
        mut device: D,
        mut socket: S,
        events: impl EventSink,
    ) -> io::Result<(PumpHandle, PumpThread<D, S, E>)> {
        let clock = Clock::new();
        let mut reactor = Reactor::new(clock)?;
        device.attach(reactor.waker());
        socket.attach(reactor.waker());
        reactor.add(End::Device, device.fd())?;
        reactor.add(End::Socket, socket.fds())?;
        let (handle, inbox) = PumpHandle::new(reactor.waker());
        let mut writing = WriteQueue::new();
        writing.set_offloads(device.offloads());
        let pump = Self {
            reactor,
            engine,
            device,
            socket,
            clock,
            inbox,
            events: Box::new(events),
            packets: PacketBatch::new(),
            datagrams: DatagramBatch::new(),
            appetites: Appetites {
                packets: Appetite::new(1, TABLE.packets),
                // One slot that stays empty shows that a datagram was alone.
                datagrams: Appetite::new(2, TABLE.receive_slots),
            },
            sending: SendQueue::new(),
            writing,
            ready: Ready { device: Readiness::ALL, socket: Readiness::ALL },
            repair: None,
            stats: PumpStats::default(),
        };
        let thread = std::thread::Builder::new().name("adit-pump".into()).spawn(move || pump.run())?;
        Ok((handle, thread))
    }

    fn run(mut self) -> PumpExit<D, S, E> {
        let reason = loop {
            if let Err(reason) = self.turn() {
                break reason;
            }
        };
        match reason {
            // Whoever stopped it knows, and tells why.
            ExitReason::Stopped => tracing::debug!(device = self.device.name(), "packet loop ended"),
            _ => tracing::warn!(device = self.device.name(), %reason, "packet loop ended"),
        }
        self.reactor.remove(End::Device);
        self.reactor.remove(End::Socket);
        let stats = self.stats();
        PumpExit { reason, engine: self.engine, device: self.device, socket: self.socket, stats }
    }

    fn turn(&mut self) -> Result<(), ExitReason> {
        let mut now = self.clock.now();
        self.timers(now);
        self.commands(now)?;
        for _ in 0..ROUNDS {
            self.flush_network(now);
            self.flush_device()?;
            let received = self.receive(now)?;
            let sent = self.transmit(now)?;
            if !received && !sent {
                break;
            }
            now = self.clock.now();
        }
        self.report();
        self.wait()
    }

    fn timers(&mut self, now: Instant) {
        if self.engine.poll_timeout().is_some_and(|deadline| deadline.at <= now) {
            let mut out = Outputs { network: &mut self.sending, device: &mut self.writing };
            self.engine.handle_timeout(now, &mut out);
        }
        if let Some(repair) = self.repair.filter(|repair| repair.at <= now)
            && let Err(error) = self.rebind(self.socket.local_port(), now)
        {
            let pause = (repair.pause * 2).min(REPAIR_MAX);
            tracing::warn!(%error, retry_in = ?pause, "the socket could not be made anew");
            self.repair = Some(Repair { at: now + pause, pause });
        }
    }

    fn commands(&mut self, now: Instant) -> Result<(), ExitReason> {
        for _ in 0..COMMANDS {
            match self.inbox.next() {
                Mail::Command(command) => self.command(command, now),
                Mail::Nothing => return Ok(()),
                Mail::Stop => {
                    // What the engine has said already may still go out, as far as it goes.
                    self.flush_network(now);
                    self.report();
                    return Err(ExitReason::Stopped);
                }
            }
        }
        // There may be more: come back without sleeping.
        self.reactor.waker().wake();
        Ok(())
    }

    fn command(&mut self, command: PumpCommand, now: Instant) {
        tracing::debug!(?command, "command");
        match command {
            PumpCommand::Engine(command, reply) => reply(self.tell_engine(command, now)),
            PumpCommand::Snapshot(reply) => reply(Box::new(PumpSnapshot {
                engine: self.engine.snapshot(now),
                pump: self.stats(),
                socket: self.socket.stats(),
                port: self.socket.local_port(),
            })),
            PumpCommand::Counters(reply) => reply(Box::new(PumpCounters {
                at: now,
                engine: self.engine.counters(now),
                pump: self.stats(),
                socket: self.socket.stats(),
                port: self.socket.local_port(),
            })),
            PumpCommand::Rebind(port, reply) => reply(self.rebind(port, now)),
            PumpCommand::SetMark(mark, reply) => reply(self.socket.set_mark(mark)),
            PumpCommand::SetMtu(mtu, reply) => reply(self.set_mtu(mtu, now)),
            PumpCommand::Attach(descriptor, reply) => reply(self.attach(descriptor)),
            PumpCommand::BindInterface(index, reply) => reply(self.socket.bind_interface(index)),
        }
    }

    fn tell_engine(&mut self, command: Command, now: Instant) -> Result<(), adit_core::CommandError> {
        let mut out = Outputs { network: &mut self.sending, device: &mut self.writing };
        self.engine.handle_command(command, now, self.clock.wall(), &mut out)
    }

    fn set_mtu(&mut self, mtu: usize, now: Instant) -> Result<(), MtuError> {
        let before = self.engine.mtu();
        self.tell_engine(Command::SetMtu(mtu), now)?;
        self.device.set_mtu(mtu).map_err(|source| {
            // It was the engine's until now, so the engine takes it back.
            let _taken_back = self.tell_engine(Command::SetMtu(before), now);
            MtuError::Device { mtu, source }
        })
    }

    /// Gives the device another descriptor.
    fn attach(&mut self, descriptor: Descriptor) -> io::Result<()> {
        self.reactor.remove(End::Device);
        let attached = self.device.attach_descriptor(descriptor);
        let watched = self.reactor.add(End::Device, self.device.fd());
        self.writing.set_offloads(self.device.offloads());
        // Whatever held back the former one says nothing of this.
        self.ready.device = Readiness::ALL;
        attached.and(watched)
    }

    /// Binds the socket anew and tells the peers where we are now.
    fn rebind(&mut self, port: u16, now: Instant) -> Result<u16, BindError> {
        self.reactor.remove(End::Socket);
        let same = port == self.socket.local_port();
        let result = self.socket.rebind(port);
        if let Err(error) = self.reactor.add(End::Socket, self.socket.fds()) {
            self.socket_broken(now, &error);
            return result;
        }
        if result.is_ok() {
            self.stats.rebinds += 1;
            self.repair = None;
            self.ready.socket = Readiness::ALL;
            if let Err(error) = self.tell_engine(Command::Rebound, now) {
                tracing::warn!(%error, "the peers could not be told about the new socket");
            }
        } else if same && self.repair.is_none() {
            // It had to be closed first, so there is none now.
            self.repair = Some(Repair { at: now + REPAIR_MIN, pause: REPAIR_MIN });
        }
        result
    }

    /// Plans to bind anew a socket that will not work again by itself.
    fn socket_broken(&mut self, now: Instant, error: &io::Error) {
        if self.repair.is_none() {
            tracing::warn!(%error, retry_in = ?REPAIR_MIN, "the socket is broken and will be made anew");
            self.reactor.remove(End::Socket);
            self.repair = Some(Repair { at: now + REPAIR_MIN, pause: REPAIR_MIN });
        }
        self.ready.socket.readable = false;
    }

    /// Reads a batch of datagrams and opens them; says whether there may be more.
    fn receive(&mut self, now: Instant) -> Result<bool, ExitReason> {
        if !self.ready.socket.readable || !self.writing.is_empty() {
            return Ok(false);
        }
        self.datagrams.clear();
        self.datagrams.set_limit(self.appetites.datagrams.limit());
        if let Err(error) = self.socket.recv_batch(&mut self.datagrams) {
            self.socket_broken(now, &error);
        }
        self.appetites.datagrams.learn(self.datagrams.len(), self.datagrams.is_full());
        self.ready.socket.readable &= self.datagrams.is_full();
        if self.datagrams.is_empty() {
            return Ok(false);
        }
        self.stats.datagram_batches += 1;
        for index in 0..self.datagrams.len() {
            let Some(run) = self.datagrams.run(index) else { break };
            let from = Source { remote: run.from.remote, local: run.from.local };
            for datagram in run.datagrams() {
                let mut out = Outputs { network: &mut self.sending, device: &mut self.writing };
                self.engine.handle_udp(from, run.from.ecn, datagram, now, &mut out);
            }
            // Packets leave as early as possible, but for the last one, which the next run may continue; if the device
            // takes none now, the queue has room for the whole batch.
            if self.writing.has_ended() && self.ready.device.writable {
                self.write()?;
            }
        }
        self.flush_device()?;
        self.flush_network(now);
        Ok(true)
    }

    /// Reads a batch of packets and seals them; says whether there may be more.
    fn transmit(&mut self, now: Instant) -> Result<bool, ExitReason> {
        if !self.ready.device.readable || !self.sending.is_empty() {
            return Ok(false);
        }
        self.packets.clear();
        self.packets.set_limit(self.appetites.packets.limit());
        self.device.recv_batch(&mut self.packets).map_err(ExitReason::DeviceGone)?;
        self.appetites.packets.learn(self.packets.len(), self.packets.is_full());
        self.ready.device.readable &= self.packets.is_full();
        if self.packets.is_empty() {
            return Ok(false);
        }
        self.stats.packet_batches += 1;
        for index in 0..self.packets.len() {
            let Some(packet) = self.packets.packet(index) else { break };
            let mut out = Outputs { network: &mut self.sending, device: &mut self.writing };
            let host = TunPacket::new(packet.buffer, packet.len);
            self.engine.handle_tun(host, packet.offload, now, &mut out);
            // A full send is on its way while the next packet is sealed, and its memory is still in the cache.
            if self.sending.bytes() >= FLUSH_BYTES {
                self.flush_network(now);
            }
        }
        self.flush_network(now);
        Ok(true)
    }

    fn flush_network(&mut self, now: Instant) {
        if self.sending.is_empty() || !self.ready.socket.writable {
            return;
        }
        let progress = self.socket.send_batch(&mut self.sending);
        if progress.dropped > 0 {
            self.engine.count_drops(DropReason::SendFailed, progress.dropped as u64);
        }
        if progress.blocked {
            self.ready.socket.writable = false;
            self.stats.socket_blocked += 1;
        }
        if progress.offload_refused {
            self.tell(Event::OffloadRefused { side: OffloadSide::Socket });
        }
        if progress.broken {
            self.socket_broken(now, &io::ErrorKind::NotConnected.into());
        }
    }

    fn flush_device(&mut self) -> Result<(), ExitReason> {
        self.writing.close();
        if self.writing.is_empty() || !self.ready.device.writable {
            return Ok(());
        }
        self.write()
    }

    /// Writes what waits for the device.
    fn write(&mut self) -> Result<(), ExitReason> {
        let progress = self.device.send_batch(&mut self.writing).map_err(ExitReason::DeviceGone)?;
        if progress.dropped > 0 {
            self.engine.count_drops(DropReason::WriteFailed, progress.dropped as u64);
        }
        if progress.blocked {
            self.ready.device.writable = false;
            self.stats.device_blocked += 1;
        }
        if progress.offload_refused {
            self.writing.set_offloads(self.device.offloads());
            self.tell(Event::OffloadRefused { side: OffloadSide::Device });
        }
        Ok(())
    }

    /// Hands out an event.
    fn tell(&mut self, event: Event) {
        if !self.events.take(event) {
            self.stats.events_lost += 1;
        }
    }

    /// Hands out the engine's events.
    fn report(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            self.tell(event);
        }
    }

    fn wait(&mut self) -> Result<(), ExitReason> {
        let read_device = self.sending.is_empty();
        let read_socket = self.writing.is_empty();
        let device = Readiness { readable: read_device, writable: !self.writing.is_empty() };
        self.reactor.watch(End::Device, device);
        let socket = Readiness { readable: read_socket, writable: !self.sending.is_empty() };
        self.reactor.watch(End::Socket, socket);

        // What is ready and has somewhere to go is done in the next turn; anything else is worth sleeping for.
        let more = (self.ready.device.readable && read_device)
            || (self.ready.socket.readable && read_socket)
            || (self.ready.device.writable && !self.writing.is_empty())
            || (self.ready.socket.writable && !self.sending.is_empty());
        let deadline = self.engine.poll_timeout().map(|deadline| deadline.at);
        let deadline = deadline.into_iter().chain(self.repair.map(|repair| repair.at)).min();
        let found = if more { self.reactor.poll() } else { self.reactor.wait(deadline, self.clock.now()) };
        let found = found.map_err(ExitReason::Poller)?;
        for (ready, found) in [(&mut self.ready.device, found.device), (&mut self.ready.socket, found.socket)] {
            ready.readable |= found.readable;
            ready.writable |= found.writable;
        }
        Ok(())
    }

    fn stats(&self) -> PumpStats {
        PumpStats { wakeups: self.reactor.wakeups(), ..self.stats }
    }
}

/// Rounds of a turn. One round is at most a megabyte in and 256 KiB out, about 1 ms at 10 Gbit/s, so commands and timers
/// wait some milliseconds at worst; fewer rounds would ask the kernel for readiness more often than it pays.
const ROUNDS: usize = 4;

/// Bytes to send that are not kept for more: what one call takes (UDP's longest datagram, which a run is sent as).
const FLUSH_BYTES: usize = 64 << 10;

/// Commands of a turn.
const COMMANDS: usize = 16;

/// The first and the longest pause before a broken socket is made anew. Making sockets costs the system something (macOS
/// runs out of memory for them after some 160 000), so a network that stays broken is asked twice a minute.
const REPAIR_MIN: Duration = Duration::from_millis(500);
const REPAIR_MAX: Duration = Duration::from_secs(30);
