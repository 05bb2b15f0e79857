//! The demo without privileges: smoltcp hosts on in-memory devices, joined over UDP on loopback.
//!
//! Side A's host is driven by whoever measures, side B's by a thread that answers until its device is unplugged. A host
//! sleeps until a packet comes, until there is room for one, or until its stack wants to be polled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_core::netstack::{Connection, Host};
use adit_tun::device::memory::{MemoryDevice, MemoryHost, RingError};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::stream::{DIGEST, Digest, Incoming, Outgoing};
use super::tunnel::{MTU, Side, Tunnel, random_seed};
use super::{PING_LIMIT, Pair, Transferred};
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::{SLICE, Watch};

/// Two hosts in this process.
pub(super) struct Process {
    /// Before the thread of side B, which ends when the pumps have.
    tunnels: [Tunnel; 2],
    loopback: IpAddr,
    node: Node,
    received: Receiver<Outcome<Incoming>>,
    _server: Server,
    watch: Arc<Watch>,
}

impl Process {
    /// Makes both hosts and engines.
    pub(super) fn open(loopback: IpAddr, watch: &Arc<Watch>) -> Outcome<Self> {
        // Says what is wrong with the address before anything is built on it.
        std::net::UdpSocket::bind((loopback, 0))
            .map_err(|error| Failure::new(Kind::Network, format!("no UDP over {loopback}: {error}")))?;
        let (node, a) = Node::make(Side::A)?;
        let (answering, b) = Node::make(Side::B)?;
        let (sender, received) = bounded(1);
        let tunnels = [Tunnel::start(Side::A, a)?, Tunnel::start(Side::B, b)?];
        let server = Server::start(answering, sender, Arc::clone(watch))?;
        Ok(Self { tunnels, loopback, node, received, _server: server, watch: Arc::clone(watch) })
    }
}

impl Pair for Process {
    fn tunnels(&self) -> [&Tunnel; 2] {
        self.tunnels.each_ref()
    }

    fn endpoint(&self) -> IpAddr {
        self.loopback
    }

    fn device(&self, side: Side) -> &str {
        device_name(side)
    }

    fn ping(&mut self, to: IpAddr, sequence: u16) -> Outcome<Option<Duration>> {
        let begun = Instant::now();
        self.node
            .stack
            .ping(to, sequence)
            .ok_or_else(|| Failure::failed(format!("the host's stack does not send echo requests to {to}")))?;
        self.node.drive(&self.watch, |stack| {
            while let Some(pong) = stack.pong() {
                if pong == (to, sequence) {
                    return Ok(Some(Some(begun.elapsed())));
                }
            }
            Ok((begun.elapsed() >= PING_LIMIT).then_some(None))
        })
    }

    fn transfer(&mut self, to: IpAddr, size: u64) -> Outcome<Transferred> {
        let to = SocketAddr::new(to, PORT);
        let connection = self
            .node
            .stack
            .connect(to)
            .ok_or_else(|| Failure::failed(format!("the host's stack does not connect to {to}")))?;
        let mut client =
            Client { connection, out: Outgoing::new(size, random_seed()?), begun: None, answer: Vec::new() };
        let (time, answer) = self.node.drive(&self.watch, |stack| client.step(stack))?;
        let received = self.watch.receive(&self.received, super::STALL_LIMIT, "the receiver")??;
        if received.digest() != answer {
            return Err(Failure::failed("the receiver's answer did not arrive as it was sent"));
        }
        Ok(Transferred { time, sent: client.out.digest(), answer, received_bytes: received.bytes() })
    }
}

/// A host and the cable to its device.
struct Node {
    stack: Host,
    wire: MemoryHost,
    /// A packet that the device had no room for.
    waiting: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Node {
    fn make(side: Side) -> Outcome<(Self, MemoryDevice)> {
        let (device, wire) = MemoryDevice::new(device_name(side), MTU, RING);
        let stack = Host::new(&side.nets(), MTU, random_seed()?, Instant::now());
        Ok((Self { stack, wire, waiting: None, buffer: vec![0; MTU] }, device))
    }

    /// Keeps the host going until `work` has a result.
    fn drive<T>(&mut self, watch: &Watch, mut work: impl FnMut(&mut Host) -> Outcome<Option<T>>) -> Outcome<T> {
        loop {
            watch.check()?;
            if self.wire.is_closed() {
                return Err(Failure::failed("an engine has ended too early"));
            }
            // Not more at a time than the stack's queue takes.
            for _ in 0..RING {
                let Some(len) = self.wire.recv(&mut self.buffer) else { break };
                self.stack.receive(&self.buffer[..len]);
            }
            self.stack.poll(Instant::now());
            let result = work(&mut self.stack)?;
            let now = Instant::now();
            self.stack.poll(now);
            self.flush()?;
            if let Some(result) = result {
                return Ok(result);
            }
            let pause = if self.waiting.is_some() {
                SLICE
            } else {
                self.stack.poll_at(now).map_or(SLICE, |at| at.saturating_duration_since(now).min(SLICE))
            };
            if !pause.is_zero() {
                self.wire.wait(pause);
            }
        }
    }

    /// Sends packets until there are no more, or no room.
    fn flush(&mut self) -> Outcome {
        while let Some(packet) = self.waiting.take().or_else(|| self.stack.transmit()) {
            match self.wire.send(&packet) {
                Ok(()) => self.stack.recycle(packet),
                Err(RingError::Full) => {
                    self.waiting = Some(packet);
                    break;
                }
                Err(RingError::Closed) => return Err(Failure::failed("an engine has ended too early")),
            }
        }
        Ok(())
    }
}

/// Side A of the transfer.
struct Client {
    connection: Connection,
    out: Outgoing,
    begun: Option<Instant>,
    answer: Vec<u8>,
}

impl Client {
    fn step(&mut self, stack: &mut Host) -> Outcome<Option<(Duration, Digest)>> {
        if self.begun.is_none() && stack.may_send(self.connection) {
            self.begun = Some(Instant::now());
        }
        let Some(begun) = self.begun else {
            return match stack.is_finished(self.connection) {
                true => Err(Failure::new(Kind::Network, "the connection was refused")),
                false => Ok(None),
            };
        };
        while stack.may_send(self.connection) {
            let bytes = self.out.bytes();
            if bytes.is_empty() {
                stack.close(self.connection);
                break;
            }
            match stack.send(self.connection, bytes) {
                0 => break,
                sent => self.out.advance(sent),
            }
        }
        let room = DIGEST - self.answer.len();
        stack.recv(self.connection, |bytes| {
            let taken = bytes.len().min(room);
            self.answer.extend_from_slice(&bytes[..taken]);
            taken
        });
        if let Ok(answer) = self.answer.as_slice().try_into() {
            return Ok(Some((begun.elapsed(), Digest(answer))));
        }
        if stack.is_finished(self.connection) {
            return Err(Failure::new(Kind::Network, "the connection has ended before the receiver's answer"));
        }
        Ok(None)
    }
}

/// The thread of side B's host. It ends when its device is unplugged, and is waited for.
struct Server(Option<JoinHandle<()>>);

impl Server {
    fn start(mut node: Node, result: Sender<Outcome<Incoming>>, watch: Arc<Watch>) -> Outcome<Self> {
        let connection = node.stack.listen(PORT);
        let work = move || {
            let (mut incoming, mut told) = (Some(Incoming::default()), false);
            let end = node.drive(&watch, |stack| {
                if let Some(received) = &mut incoming {
                    while stack.recv(connection, |bytes| {
                        received.take(bytes);
                        watch.arrived(bytes.len());
                        bytes.len()
                    }) > 0
                    {}
                    if stack.is_finished(connection) {
                        stack.send(connection, &received.digest().0);
                        stack.close(connection);
                        // There is room for the only result.
                        told = result.try_send(Ok(incoming.take().unwrap_or_default())).is_ok();
                    }
                }
                // It goes on answering, so that the answer arrives.
                Ok(None::<()>)
            });
            if let (false, Err(failure)) = (told, end) {
                let _nobody_asks = result.try_send(Err(failure));
            }
        };
        let thread = std::thread::Builder::new().name("adit-demo-b".into()).spawn(work)?;
        Ok(Self(Some(thread)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of host b has panicked");
        }
    }
}

fn device_name(side: Side) -> &'static str {
    match side {
        Side::A => "memory-a",
        Side::B => "memory-b",
    }
}

/// The receiver's TCP port.
const PORT: u16 = 7700;

/// Packets that a device holds in each direction: a batch of the pump, twice.
const RING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_whose_engine_is_gone_ends_with_an_error() {
        let (mut node, device) = Node::make(Side::A).unwrap();
        drop(device);
        node.stack.ping(Side::B.ipv4().into(), 1).unwrap();
        let end = node.drive(&Watch::default(), |_| Ok(None::<()>));
        assert!(end.unwrap_err().message.contains("engine has ended"));
    }

    #[test]
    fn an_address_that_is_not_this_machine_s_is_refused() {
        let error = Process::open("192.0.2.1".parse().unwrap(), &Arc::new(Watch::default())).err().unwrap();
        assert_eq!(error.kind, Kind::Network);
        assert!(error.message.starts_with("no UDP over 192.0.2.1"), "{}", error.message);
    }
}
