//! The packet loop without a kernel: a batch of packets, sealed by one engine into the send queue, and from there opened
//! by another into the write queue.
//!
//! Batches and queues are the product's own. What a kernel would do, filling a batch and carrying datagrams from one
//! socket to the other, is done between the measurements.

use std::time::Instant;

use adit_core::Source;
use adit_tun::batch::{DatagramBatch, PacketBatch};

use super::Subject;
use super::load::Load;
use crate::bench::node::{Queues, receive};
use crate::failure::{Failure, Outcome};

/// An engine at one end of a [`Link`].
pub(super) trait Codec {
    /// Seals a packet of the host.
    fn seal(&mut self, buffer: &mut [u8], len: usize, load: Load, now: Instant, queues: &mut Queues) -> Outcome;

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
        Load::fill(&mut packets, &content);
        let (datagrams, queues) = (DatagramBatch::new(), Queues::default());
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
        Ok(opened)
    }
}

impl<C: Codec> Subject for Link<C> {
    fn refill(&mut self) {
        // Splitting writes headers into the packet; anything else leaves it as it was.
        if self.load == Load::Super {
            Load::fill(&mut self.packets, &self.content);
        }
    }

    fn seal(&mut self, now: Instant) -> Outcome<u64> {
        for index in 0..self.packets.len() {
            let Some((buffer, len)) = self.packets.packet(index) else { break };
            self.sender.seal(buffer, len, self.load, now, &mut self.queues)?;
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
        // Headers of segments differ from those of what they were cut from; payloads must not.
        let header = self.load.offload().map_or(0, |header| usize::from(header.hdr_len));
        let payload = self.load.packet_len() - header;
        let contents = self.content.iter().cycle();
        let mut expected = contents.flat_map(|packet| packet[header..].chunks(payload));
        let mut same = true;
        self.queues.write_all(|packet| {
            same &= packet.get(header..) == expected.next();
        });
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
