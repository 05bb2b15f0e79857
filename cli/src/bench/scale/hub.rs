//! An engine with many peers, each of them a real engine with a session: what a packet costs at the hub.
//!
//! Traffic goes to all routes in turn, in random order, so that no cache keeps what a machine with so many peers would
//! not keep. Only the hub's work is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use adit_core::Source;
use adit_core::offload::VirtioNetHeader;
use adit_tun::batch::{BatchPacket, DatagramBatch, PacketBatch};
use etherparse::PacketBuilder;
use ipnet::Ipv4Net;

use crate::bench::allocations::Allocations;
use crate::bench::node::{Node, Queues, receive};
use crate::bench::sampling::Cost;
use crate::failure::{Failure, Outcome};
use crate::watch::Watch;

/// A hub, its spokes and the traffic between them.
pub(super) struct Hub {
    hub: Node,
    spokes: Vec<Node>,
    /// Where packets go in turn: a spoke, and an address behind it.
    targets: Vec<(usize, Ipv4Addr)>,
    next: usize,
    /// Packets to or from one target before the next has its turn.
    run: usize,
    /// A packet from the hub, whose destination is replaced, and one to it, whose source is.
    outbound: Vec<u8>,
    inbound: Vec<u8>,
    packets: PacketBatch,
    datagrams: DatagramBatch,
    queues: Queues,
}

impl Hub {
    /// Makes a hub with a peer for each list of routes, and a session with each.
    pub(super) fn new(routes: &[Vec<Ipv4Net>], size: usize, rng: &mut fastrand::Rng, watch: &Watch) -> Outcome<Self> {
        let mut queues = Queues::default();
        let mut hub = Node::new(([192, 0, 2, 1], PORT).into())?;
        let mut spokes = Vec::with_capacity(routes.len());
        let mut peers = Vec::with_capacity(routes.len());
        for (index, routes) in routes.iter().enumerate() {
            let mut spoke = Node::new(address_of(index))?;
            spoke.add(vec![hub.as_peer().allow([Ipv4Net::from(HUB).into()])], &mut queues)?;
            peers.push(spoke.as_peer().allow(routes.iter().map(|net| (*net).into())));
            spokes.push(spoke);
        }
        hub.add(peers, &mut queues)?;
        for spoke in &mut spokes {
            watch.check()?;
            spoke.connect(&mut hub, &mut queues)?;
        }
        let mut targets = Vec::new();
        for (spoke, routes) in routes.iter().enumerate() {
            let mut inside = |net: &Ipv4Net| u32::from(net.network()) | rng.u32(..) & u32::from(net.hostmask());
            targets.extend(routes.iter().map(|net| (spoke, Ipv4Addr::from(inside(net)))));
        }
        rng.shuffle(&mut targets);
        targets.truncate(TARGETS);
        let (outbound, inbound) =
            (packet(HUB, Ipv4Addr::UNSPECIFIED, size)?, packet(Ipv4Addr::UNSPECIFIED, HUB, size)?);
        let (packets, datagrams) = (PacketBatch::new(), DatagramBatch::new());
        Ok(Self { hub, spokes, targets, next: 0, run: 1, outbound, inbound, packets, datagrams, queues })
    }

    /// Has each target have so many packets in a row from now on; one at the beginning.
    pub(super) fn set_run(&mut self, packets: usize) {
        self.run = packets.max(1);
    }

    fn target(&self, index: usize) -> (usize, Ipv4Addr) {
        self.targets[index / self.run % self.targets.len()]
    }

    /// Sends a packet to every target and gets one from each, and checks that they arrive.
    pub(super) fn verify(&mut self) -> Outcome {
        let mut unused = Cost::default();
        let mut left = self.targets.len();
        while left > 0 {
            let before = self.next;
            let sealed = self.seal(&mut unused)?;
            let mut datagrams = Vec::new();
            self.queues.send_all(|bytes, segment| datagrams.extend(bytes.chunks(segment).map(<[u8]>::to_vec)));
            for (index, datagram) in (before..).zip(&datagrams) {
                let (spoke, address) = self.target(index);
                self.spokes[spoke].open(self.hub.source, datagram, Instant::now(), &mut self.queues)?;
                let mut arrived = false;
                self.queues.write_all(|packet| arrived = packet.get(DESTINATION) == Some(&address.octets()));
                if !arrived {
                    return Err(Failure::failed("a packet did not arrive where it was sent to"));
                }
            }
            if datagrams.len() != sealed {
                return Err(Failure::failed("not every packet was sent"));
            }
            left = left.saturating_sub(sealed);
        }
        let mut left = self.targets.len() as u64;
        while left > 0 {
            let mut opened = Cost::default();
            self.open(&mut opened)?;
            left = left.saturating_sub(opened.packets);
        }
        Ok(())
    }

    /// Measures a batch in each direction.
    pub(super) fn round(&mut self, sealing: &mut Cost, opening: &mut Cost) -> Outcome {
        let mut left = self.seal(sealing)?;
        self.queues.send_all(|_, _| {});
        while left > 0 {
            let before = opening.packets;
            self.open(opening)?;
            left = left.saturating_sub((opening.packets - before) as usize);
        }
        Ok(())
    }

    /// Drops the hub's engine and says how many bytes it has held.
    pub(super) fn memory(self) -> u64 {
        let before = Allocations::now().held;
        drop(self.hub);
        u64::try_from(before - Allocations::now().held).unwrap_or(0)
    }

    /// Seals a batch into the send queue.
    fn seal(&mut self, cost: &mut Cost) -> Outcome<usize> {
        self.packets.clear();
        while !self.packets.is_full() {
            let (_, address) = self.target(self.next);
            let Some(slot) = self.packets.slot() else { break };
            self.next += 1;
            slot[..self.outbound.len()].copy_from_slice(&self.outbound);
            slot[DESTINATION].copy_from_slice(&address.octets());
            self.packets.commit(self.outbound.len());
        }
        let now = Instant::now();
        cost.add(|| {
            for index in 0..self.packets.len() {
                let Some(packet) = self.packets.packet(index) else { break };
                self.hub.seal(packet, now, &mut self.queues)?;
            }
            Ok(self.packets.len() as u64)
        })?;
        Ok(self.packets.len())
    }

    /// Has spokes send a batch and opens it.
    fn open(&mut self, cost: &mut Cost) -> Outcome {
        self.datagrams.clear();
        while !self.datagrams.is_full() {
            let (spoke, address) = self.target(self.next);
            self.next += 1;
            let len = self.inbound.len();
            self.inbound[SOURCE].copy_from_slice(&address.octets());
            let spoke = &mut self.spokes[spoke];
            let packet = BatchPacket { buffer: &mut self.inbound, len, offload: VirtioNetHeader::default() };
            spoke.seal(packet, Instant::now(), &mut self.queues)?;
            let (source, datagrams) = (spoke.source, &mut self.datagrams);
            self.queues.send_all(|bytes, stride| receive(datagrams, source, bytes, stride));
        }
        let now = Instant::now();
        cost.add(|| {
            let mut opened = 0;
            for run in self.datagrams.runs() {
                let from = Source { remote: run.from.remote, local: run.from.local };
                for datagram in run.datagrams() {
                    self.hub.open(from, datagram, now, &mut self.queues)?;
                    opened += 1;
                }
            }
            self.queues.write_all(|packet| {
                std::hint::black_box(packet);
            });
            Ok(opened)
        })
    }
}

/// A spoke's address in the underlay, of the block for benchmarks (RFC 2544, appendix C.2.2).
fn address_of(index: usize) -> SocketAddr {
    let host = (index % (1 << 17)) as u32;
    (Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + host), PORT).into()
}

/// A UDP packet of `size` bytes. The addresses are replaced later, and with them the checksum is wrong, which an engine
/// neither knows nor changes.
fn packet(from: Ipv4Addr, to: Ipv4Addr, size: usize) -> Outcome<Vec<u8>> {
    let mut packet = Vec::with_capacity(size);
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(4096, 4097);
    let payload = size.saturating_sub(builder.size(0));
    builder.write(&mut packet, &vec![0x5a; payload]).map_err(Failure::failed)?;
    Ok(packet)
}

/// The hub's address in the tunnel, which no route contains.
const HUB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

const PORT: u16 = 51_820;

/// Where IPv4's addresses are (RFC 791 section 3.1).
const SOURCE: std::ops::Range<usize> = 12..16;
const DESTINATION: std::ops::Range<usize> = 16..20;

/// More targets than this are not visited, which is enough for any cache to forget the first before it comes again.
const TARGETS: usize = 1 << 15;
