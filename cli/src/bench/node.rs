//! Real engines in memory: with an address that is only a number, the packet loop's own queues, and sessions that were
//! made by handshakes.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use adit_core::config::{EngineConfig, Limits};
use adit_core::offload::VirtioNetHeader;
use adit_core::{Command, Ecn, Engine, Outputs, PeerUpdate, PrivateKey, PublicKey, Source, TunPacket, Update, Verdict};
use adit_tun::batch::{BatchPacket, DatagramBatch, Received};
use adit_tun::queue::{SendQueue, WriteQueue};

use crate::failure::{Failure, Outcome};
use crate::keys;

/// The queues that a pump has, of the platform's own sizes.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Datagrams on their way to the socket.
    pub(super) network: SendQueue,
    /// Packets on their way to the device.
    pub(super) device: WriteQueue,
}

impl Queues {
    pub(super) fn outputs(&mut self) -> Outputs<'_, SendQueue, WriteQueue> {
        Outputs { network: &mut self.network, device: &mut self.device }
    }

    /// Takes out all datagrams, as a socket does that sends them.
    pub(super) fn send_all(&mut self, mut take: impl FnMut(&[u8], usize)) {
        while let Some(run) = self.network.front() {
            let datagrams = run.datagrams();
            take(run.bytes, run.segment);
            self.network.advance(datagrams);
        }
    }

    /// Takes out all packets, as a device does that they are written to.
    pub(super) fn write_all(&mut self, mut take: impl FnMut(&[u8])) {
        while let Some(packet) = self.device.front() {
            take(packet);
            self.device.advance();
        }
    }
}

/// An engine and where it is.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) engine: Engine,
    /// Where its datagrams come from.
    pub(super) source: Source,
    key: PublicKey,
}

impl Node {
    /// Makes an engine with a fresh key.
    pub(super) fn new(address: SocketAddr) -> Outcome<Self> {
        // A hub gets all its peers' handshakes at once here, which is no attack.
        let limits = Limits { handshakes_per_second: u64::MAX, ..Limits::default() };
        let config = EngineConfig { limits, seed: fastrand::u64(..), ..EngineConfig::default() };
        let engine = Engine::new(config).map_err(Failure::failed)?;
        let private = PrivateKey::from_bytes(*keys::random()?);
        let source = Source { remote: address, local: None };
        let mut node = Self { engine, source, key: private.public_key() };
        node.command(
            Command::Update(Box::new(Update { private_key: Some(Some(private)), ..Update::default() })),
            &mut Queues::default(),
        )?;
        Ok(node)
    }

    /// This node as another one's peer.
    pub(super) fn as_peer(&self) -> PeerUpdate {
        PeerUpdate::new(self.key).endpoint(self.source.remote)
    }

    pub(super) fn add(&mut self, peers: Vec<PeerUpdate>, queues: &mut Queues) -> Outcome {
        self.command(Command::Update(Box::new(Update { peers, ..Update::default() })), queues)
    }

    fn command(&mut self, command: Command, queues: &mut Queues) -> Outcome {
        let result = self.engine.handle_command(command, Instant::now(), SystemTime::now(), &mut queues.outputs());
        result.map_err(Failure::failed)
    }

    /// Makes a session with the only peer, which is `other`.
    pub(super) fn connect(&mut self, other: &mut Self, queues: &mut Queues) -> Outcome {
        self.command(Command::Connect, queues)?;
        // Initiation, response, and the keepalive that confirms the session.
        for message in 0..3 {
            let (from, to) = if message == 1 { (other.source, &mut *self) } else { (self.source, &mut *other) };
            let mut sent = Vec::new();
            queues.send_all(|bytes, segment| sent.extend(bytes.chunks(segment).map(<[u8]>::to_vec)));
            for datagram in sent {
                match to.engine.handle_udp(from, Ecn::NotEct, &datagram, Instant::now(), &mut queues.outputs()) {
                    Verdict::Consumed => {}
                    other => return Err(Failure::failed(format!("the handshake in memory failed: {other:?}"))),
                }
            }
        }
        if self.engine.has_session() && other.engine.has_session() {
            Ok(())
        } else {
            Err(Failure::failed("the handshake in memory made no session"))
        }
    }

    /// Seals a packet of the host, as the pump's engine does.
    #[inline]
    pub(super) fn seal(&mut self, packet: BatchPacket<'_>, now: Instant, queues: &mut Queues) -> Outcome {
        let BatchPacket { buffer, len, offload } = packet;
        let packet = TunPacket::new(buffer, len);
        expect(if offload == VirtioNetHeader::default() {
            self.engine.handle_tun(packet, now, &mut queues.outputs())
        } else {
            self.engine.handle_tun_offload(packet, offload, now, &mut queues.outputs())
        })
    }

    /// Opens a datagram.
    #[inline]
    pub(super) fn open(&mut self, from: Source, datagram: &[u8], now: Instant, queues: &mut Queues) -> Outcome {
        expect(self.engine.handle_udp(from, Ecn::NotEct, datagram, now, &mut queues.outputs()))
    }
}

/// Has a batch receive datagrams of one run, as a socket does with UDP_GRO.
pub(super) fn receive(batch: &mut DatagramBatch, from: Source, bytes: &[u8], stride: usize) {
    let Some(slot) = batch.free().next().and_then(|slot| slot.get_mut(..bytes.len())) else { return };
    slot.copy_from_slice(bytes);
    let Source { remote, local } = from;
    batch.commit(Received { remote, local, ecn: Ecn::NotEct, len: bytes.len(), stride });
}

/// Every packet must go through: one that is dropped would be measured as a fast one.
#[inline]
fn expect(verdict: Verdict) -> Outcome {
    if verdict == Verdict::Forwarded { Ok(()) } else { Err(refused(verdict)) }
}

#[cold]
fn refused(verdict: Verdict) -> Failure {
    Failure::failed(format!("an engine did not forward a packet of the benchmark: {verdict:?}"))
}
