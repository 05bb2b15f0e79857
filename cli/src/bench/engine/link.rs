//! The packet loop without a kernel: a batch of packets, sealed by one engine into the send queue, and from there opened
//! by another into the write queue.
//!
//! Batches and queues are the product's own. What a kernel would do, filling a batch and carrying datagrams from one
//! socket to the other, is done between the measurements.

use std::time::Instant;

use adit_core::Source;
use adit_tun::batch::{BatchPacket, DatagramBatch, PacketBatch};

use super::Subject;
use super::load::Load;
use crate::bench::node::{Queues, receive};
use crate::failure::{Failure, Outcome};

/// An engine at one end of a [`Link`].
pub(super) trait Codec {
    /// Seals a packet of the host.
    fn seal(&mut self, packet: BatchPacket<'_>, now: Instant, queues: &mut Queues) -> Outcome;

    /// Opens a datagram.
    fn open(&mut self, from: Source, datagram: &[u8], now: Instant, queues: &mut Queues) -> Outcome;
}

/// Two engines of a kind, joined.
pub(super) struct Link<C> {
    sender: C,
    receiver: C,
    source: Source,
    load: Load,
    /// What is in each batch, in turn.
    content: Vec<Vec<u8>>,
    packets: PacketBatch,
    datagrams: DatagramBatch,
    queues: Queues,
}

impl<C: Codec> Link<C> {
    /// Joins engines that have a session; datagrams come from `source`.
    pub(super) fn new(sender: C, receiver: C, source: Source, load: Load) -> Outcome<Self> {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let content = (0..CONTENT).map(|_| load.packet(&mut rng)).collect::<Outcome<Vec<_>>>()?;
        let mut packets = PacketBatch::new();
        load.fill(&mut packets, &content);
        let (datagrams, mut queues) = (DatagramBatch::new(), Queues::default());
        queues.device.set_offloads(load.joined());
        Ok(Self { sender, receiver, source, load, content, packets, datagrams, queues })
    }

    /// Packets of a batch after they were cut.
    fn batch(&self) -> u64 {
        (self.packets.len() * self.load.segments()) as u64
    }

    fn open_all(&mut self, now: Instant) -> Outcome<u64> {
        let mut opened = 0;
        for run in self.datagrams.runs() {
            let from = Source { remote: run.from.remote, local: run.from.local };
            for datagram in run.datagrams() {
                self.receiver.open(from, datagram, now, &mut self.queues)?;
                opened += 1;
            }
        }
        self.queues.device.close();
        Ok(opened)
    }
}

impl<C: Codec> Subject for Link<C> {
    fn refill(&mut self) {
        // Splitting writes headers into the packet; anything else leaves it as it was.
        if self.load == Load::Super {
            self.load.fill(&mut self.packets, &self.content);
        }
    }

    fn seal(&mut self, now: Instant) -> Outcome<u64> {
        for index in 0..self.packets.len() {
            let Some(packet) = self.packets.packet(index) else { break };
            self.sender.seal(packet, now, &mut self.queues)?;
        }
        Ok(self.batch())
    }

    fn carry(&mut self) {
        self.datagrams.clear();
        let (source, datagrams) = (self.source, &mut self.datagrams);
        self.queues.send_all(|bytes, stride| receive(datagrams, source, bytes, stride));
    }

    fn open(&mut self, now: Instant) -> Outcome<u64> {
        let opened = self.open_all(now)?;
        self.queues.write_all(|packet| {
            std::hint::black_box(packet);
        });
        Ok(opened)
    }

    fn verify(&mut self) -> Outcome {
        self.refill();
        self.seal(Instant::now())?;
        self.carry();
        let opened = self.open_all(Instant::now())?;
        let load = self.load;
        let mut expected = self.content.iter().cycle().take(self.packets.len());
        let mut same = true;
        self.queues.write_all(|packet| {
            same &= expected.next().is_some_and(|sealed| load.lasting(packet) == load.lasting(sealed));
        });
        same &= expected.next().is_none();
        if same && opened == self.batch() {
            Ok(())
        } else {
            Err(Failure::failed("what was opened is not what was sealed"))
        }
    }
}

/// Different packets, so that no branch or checksum is learnt by heart.
const CONTENT: usize = 16;

const SEED: u64 = 0x0ad1_7000;
