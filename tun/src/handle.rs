//! Talking to a running pump: commands in, replies and events out.
//!
//! Any thread may hold a [`PumpHandle`]. Nothing here touches a packet, and nothing makes the packet loop wait: the
//! command queue is bounded, replies are closures that must not block, and an event that nobody takes is counted.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use adit_core::{Command, CommandError, Event, Snapshot};
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, select_biased};
use thiserror::Error;

use crate::device::Descriptor;
use crate::engine::EngineCounters;
use crate::memory::{ENTRY, TABLE};
use crate::reactor::Waker;
use crate::socket::{BindError, SocketStats};

/// Speaks to one pump. Clones speak to the same one; when the last is dropped, the pump stops.
#[derive(Debug)]
pub struct PumpHandle {
    /// Dropped before the pump is woken for the last time, so that it sees that nobody is left.
    commands: ManuallyDrop<Sender<PumpCommand>>,
    /// Has never anything in it, and is disconnected when the pump ends.
    ended: Receiver<Infallible>,
    stop: Arc<AtomicBool>,
    waker: Waker,
}

/// What a pump can be told to do.
pub enum PumpCommand {
    /// Pass a command on to the engine.
    Engine(Command, Reply<Result<(), CommandError>>),
    /// Tell everything.
    Snapshot(Reply<Box<PumpSnapshot>>),
    /// Tell what is worth asking often: it costs the same however many prefixes the peers have.
    Counters(Reply<Box<PumpCounters>>),
    /// Bind the socket to a port, 0 being a free one and its own port meaning new sockets, and tell the peers. The reply
    /// is the port.
    Rebind(u16, Reply<Result<u16, BindError>>),
    /// Set the firewall mark; 0 is none.
    SetMark(u32, Reply<Result<(), BindError>>),
    /// Set the MTU of the device and of the tunnel, in bytes.
    SetMtu(usize, Reply<Result<(), MtuError>>),
    /// Go on with the packets of a descriptor, as a [`HostDevice`](crate::device::HostDevice) does; other devices say
    /// that this is unsupported. Packets that the host gave before are still sent.
    Attach(Descriptor, Reply<io::Result<()>>),
    /// Send over one network interface only, by its index, or over the one that the routing table chooses. Apple's systems
    /// only.
    BindInterface(Option<NonZeroU32>, Reply<Result<(), BindError>>),
}

/// Called on the pump's thread with the result; it must not block. It is dropped uncalled if the pump ends first.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Everything that can be asked of a pump.
#[derive(Debug, Clone, PartialEq)]
pub struct PumpSnapshot {
    /// The engine and its peers.
    pub engine: Snapshot,
    /// The packet loop.
    pub pump: PumpStats,
    /// The socket.
    pub socket: SocketStats,
    /// The UDP port.
    pub port: u16,
}

/// What can be asked of a pump as often as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PumpCounters {
    /// When they were read, on the pump's [`Clock`](crate::Clock).
    pub at: Instant,
    /// The engine, and its newest handshake.
    pub engine: EngineCounters,
    /// The packet loop.
    pub pump: PumpStats,
    /// The socket.
    pub socket: SocketStats,
    /// The UDP port.
    pub port: u16,
}

/// Counters of the packet loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PumpStats {
    /// How often the loop slept and was woken. It does not grow while a tunnel is idle and has no keepalive to send.
    pub wakeups: u64,
    /// Batches of datagrams read.
    pub datagram_batches: u64,
    /// Batches of packets read.
    pub packet_batches: u64,
    /// How often the device had to wait because the socket took no more.
    pub socket_blocked: u64,
    /// How often the socket had to wait because the device took no more.
    pub device_blocked: u64,
    /// Sockets made anew, by command or because they were broken.
    pub rebinds: u64,
    /// Events that nobody took.
    pub events_lost: u64,
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// Too many commands wait.
    #[error("the packet loop has too many commands to do; try again")]
    Busy,
    /// There is no pump any more.
    #[error("the packet loop has ended")]
    Gone,
}

/// The pump has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the packet loop has ended")]
pub struct PumpGone;

/// Why an MTU was not set; the old one stays.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MtuError {
    /// No tunnel can have it.
    #[error(transparent)]
    Tunnel(#[from] CommandError),
    /// The device cannot have it.
    #[error("the device does not take an MTU of {mtu} bytes ({source})")]
    Device {
        /// What was asked for.
        mtu: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes events off a pump. It is called on the pump's thread and must not block.
pub trait EventSink: Send + 'static {
    /// Takes an event, or returns `false` because there is no room; then it is lost, and counted.
    fn take(&mut self, event: Event) -> bool;
}

impl EventSink for Sender<Event> {
    fn take(&mut self, event: Event) -> bool {
        self.try_send(event).is_ok()
    }
}

impl EventSink for Box<dyn FnMut(Event) -> bool + Send> {
    fn take(&mut self, event: Event) -> bool {
        self(event)
    }
}

impl PumpHandle {
    pub(crate) fn new(waker: Waker) -> (Self, Inbox) {
        let (commands, receiver) = bounded(TABLE.commands);
        let (alive, ended) = bounded(0);
        let stop = Arc::new(AtomicBool::new(false));
        let inbox = Inbox { commands: receiver, alive: Some(alive), stop: Arc::clone(&stop) };
        (Self { commands: ManuallyDrop::new(commands), ended, stop, waker }, inbox)
    }

    /// Queues a command, without waiting for anything.
    ///
    /// # Errors
    /// [`SendError`]; the command and its reply are dropped.
    pub fn send(&self, command: PumpCommand) -> Result<(), SendError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Busy,
            TrySendError::Disconnected(_) => SendError::Gone,
        })?;
        if self.ended.try_recv() == Err(TryRecvError::Disconnected) {
            // It may have come after the pump had looked for the last time.
            return Err(SendError::Gone);
        }
        self.waker.wake();
        Ok(())
    }

    /// Queues a command, made with the reply that it is given, and waits until it is done. Not for a thread that must
    /// not wait, and never for the pump's own.
    ///
    /// # Errors
    /// [`PumpGone`] if the pump ended before it was done.
    pub fn call<T: Send + 'static>(&self, command: impl FnOnce(Reply<T>) -> PumpCommand) -> Result<T, PumpGone> {
        let (reply, result) = bounded(1);
        let command = command(Box::new(move |value| {
            // Whoever asked may have gone meanwhile.
            let _unwanted = reply.try_send(value);
        }));
        self.commands.send(command).map_err(|_| PumpGone)?;
        self.waker.wake();
        select_biased! {
            recv(result) -> value => value.map_err(|_| PumpGone),
            // Nobody looks at a command that came after the last look, and nobody drops it.
            recv(self.ended) -> _ => result.try_recv().map_err(|_| PumpGone),
        }
    }

    /// Passes a command on to the engine and waits for its result.
    ///
    /// # Errors
    /// [`PumpGone`]; inside, what the engine refused.
    pub fn command(&self, command: Command) -> Result<Result<(), CommandError>, PumpGone> {
        self.call(|reply| PumpCommand::Engine(command, reply))
    }

    /// Asks for everything and waits for it.
    ///
    /// # Errors
    /// [`PumpGone`].
    pub fn snapshot(&self) -> Result<PumpSnapshot, PumpGone> {
        self.call(PumpCommand::Snapshot).map(|snapshot| *snapshot)
    }

    /// Asks for the counters and waits for them.
    ///
    /// # Errors
    /// [`PumpGone`].
    pub fn counters(&self) -> Result<PumpCounters, PumpGone> {
        self.call(PumpCommand::Counters).map(|counters| *counters)
    }

    /// Goes on with the packets of a descriptor and waits for it; see [`PumpCommand::Attach`].
    ///
    /// # Errors
    /// [`PumpGone`]; inside, why the device does not.
    pub fn attach(&self, descriptor: Descriptor) -> Result<io::Result<()>, PumpGone> {
        self.call(|reply| PumpCommand::Attach(descriptor, reply))
    }

    /// Binds the socket to another port and waits for it; see [`PumpCommand::Rebind`].
    ///
    /// # Errors
    /// [`PumpGone`]; inside, why there is no such port.
    pub fn rebind(&self, port: u16) -> Result<Result<u16, BindError>, PumpGone> {
        self.call(|reply| PumpCommand::Rebind(port, reply))
    }

    /// Ends the pump: promptly, whatever it does, and however often it is called. Join its thread to get the device back.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Clone for PumpHandle {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            ended: self.ended.clone(),
            stop: Arc::clone(&self.stop),
            waker: self.waker.clone(),
        }
    }
}

impl Drop for PumpHandle {
    fn drop(&mut self) {
        // SAFETY: the sender is dropped here and nowhere else, and not used again.
        unsafe { ManuallyDrop::drop(&mut self.commands) };
        self.waker.wake();
    }
}

impl fmt::Debug for PumpCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The command may hold keys, and the reply is a closure.
            Self::Engine(..) => f.write_str("Engine"),
            Self::Snapshot(_) => f.write_str("Snapshot"),
            Self::Counters(_) => f.write_str("Counters"),
            Self::Rebind(port, _) => f.debug_tuple("Rebind").field(port).finish(),
            Self::SetMark(mark, _) => f.debug_tuple("SetMark").field(mark).finish(),
            Self::SetMtu(mtu, _) => f.debug_tuple("SetMtu").field(mtu).finish(),
            Self::Attach(descriptor, _) => f.debug_tuple("Attach").field(&descriptor.name()).finish(),
            Self::BindInterface(index, _) => f.debug_tuple("BindInterface").field(index).finish(),
        }
    }
}

/// The pump's end of its handles.
#[derive(Debug)]
pub(crate) struct Inbox {
    commands: Receiver<PumpCommand>,
    /// Dropped first of all, so that nobody waits for the reply to a command that is not looked at any more.
    alive: Option<Sender<Infallible>>,
    stop: Arc<AtomicBool>,
}

/// What is in the inbox.
pub(crate) enum Mail {
    Command(PumpCommand),
    Nothing,
    Stop,
}

impl Drop for Inbox {
    /// Drops what is queued: the channel would keep it, and the replies, for as long as there is a handle.
    fn drop(&mut self) {
        self.alive = None;
        while self.commands.try_recv().is_ok() {}
    }
}

impl Inbox {
    pub(crate) fn next(&self) -> Mail {
        if self.stop.load(Ordering::Acquire) {
            return Mail::Stop;
        }
        match self.commands.try_recv() {
            Ok(command) => Mail::Command(command),
            Err(TryRecvError::Empty) => Mail::Nothing,
            Err(TryRecvError::Disconnected) => Mail::Stop,
        }
    }
}

const _: () = assert!(size_of::<PumpCommand>() <= ENTRY);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::reactor::Reactor;

    fn pump() -> (PumpHandle, Inbox) {
        PumpHandle::new(Reactor::new(Clock::new()).unwrap().waker())
    }

    #[test]
    fn replies_to_what_is_queued_at_the_end_are_dropped_although_a_handle_is_left() {
        let (handle, inbox) = pump();
        let (reply, result) = bounded(1);
        let reply: Reply<Box<PumpCounters>> = Box::new(move |counters| drop(reply.try_send(counters)));
        handle.send(PumpCommand::Counters(reply)).unwrap();
        drop(inbox);
        assert_eq!(result.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(handle.counters(), Err(PumpGone));
    }

    #[test]
    fn nobody_waits_for_a_pump_that_ends_at_any_moment() {
        for _ in 0..200 {
            let (handle, inbox) = pump();
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| while handle.counters().is_ok() {});
                scope.spawn(move || {
                    if let Mail::Command(command) = inbox.next() {
                        drop(command);
                    }
                });
                asking.join().unwrap();
            });
        }
    }
}
