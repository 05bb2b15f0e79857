//! The same work without a cipher: parse, look up, split, copy into the queue with room for header and tag, and back.
//!
//! It shows what remains of the loop when the cipher costs nothing. It protects nothing, so it lives here and no engine
//! can be told to do this.

use std::net::SocketAddr;
use std::time::Instant;

use adit_core::ip::IpHeader;
use adit_core::offload::{Split, VirtioNetHeader};
use adit_core::policy::{self, Disposition};
use adit_core::route::AllowedIps;
use adit_core::wg::message::{DATA_HEADER_LEN, DATA_OVERHEAD, Message, padded_len};
use adit_core::{Ecn, Reservation, Source, Transmit};
use adit_tun::batch::BatchPacket;

use super::Subject;
use super::adit::host;
use super::link::{Codec, Link};
use super::load::{A, B, Load};
use crate::bench::node::Queues;
use crate::failure::{Failure, Outcome};

/// Two of these.
pub(super) fn link(load: Load) -> Outcome<Box<dyn Subject>> {
    let addresses = [SocketAddr::from(([192, 0, 2, 1], 51_820)), SocketAddr::from(([192, 0, 2, 2], 51_820))];
    let source = Source { remote: addresses[0], local: None };
    Ok(Box::new(Link::new(Plain::new(addresses[1], B), Plain::new(addresses[0], A), source, load)?))
}

/// One end, with one peer.
struct Plain {
    peer: SocketAddr,
    allowed: AllowedIps<u32>,
    counter: u64,
    packets: u64,
    bytes: u64,
}

impl Plain {
    fn new(peer: SocketAddr, address: [u8; 4]) -> Self {
        let mut allowed = AllowedIps::new();
        allowed.insert(host(address), PEER);
        Self { peer, allowed, counter: 0, packets: 0, bytes: 0 }
    }

    /// Copies one packet into the send queue as a transport message would be.
    #[inline]
    fn send(&mut self, packet: &[u8], ecn: Ecn, queues: &mut Queues) -> Outcome {
        let padded = padded_len(packet.len(), MTU);
        let transmit = Transmit { remote: self.peer, local: None, ecn };
        let Ok(mut room) = Reservation::new(&mut queues.network, transmit, padded + DATA_OVERHEAD) else {
            return Err(refused());
        };
        let (header, payload) = room.bytes().split_at_mut(DATA_HEADER_LEN);
        header[..4].copy_from_slice(&4_u32.to_le_bytes());
        header[4..8].copy_from_slice(&PEER.to_le_bytes());
        header[8..].copy_from_slice(&self.counter.to_le_bytes());
        payload[..packet.len()].copy_from_slice(packet);
        payload[packet.len()..].fill(0);
        room.commit(padded + DATA_OVERHEAD);
        self.counter += 1;
        self.packets += 1;
        self.bytes += padded as u64;
        Ok(())
    }
}

impl Codec for Plain {
    #[inline]
    fn seal(&mut self, packet: BatchPacket<'_>, _now: Instant, queues: &mut Queues) -> Outcome {
        let BatchPacket { buffer, len, offload } = packet;
        let header = IpHeader::parse(&buffer[..len]).ok_or_else(refused)?;
        let route = |longest| policy::outbound(&header, longest, MTU, &self.allowed);
        if offload == VirtioNetHeader::default() {
            if route(header.total_len) != Disposition::Tunnel(PEER) {
                return Err(refused());
            }
            return self.send(&buffer[..header.total_len], header.ecn, queues);
        }
        let mut split = Split::new(buffer, header.total_len, offload).map_err(|_| refused())?;
        if route(split.longest()) != Disposition::Tunnel(PEER) {
            return Err(refused());
        }
        while let Some(packet) = split.next() {
            self.send(packet.bytes(), header.ecn, queues)?;
        }
        Ok(())
    }

    #[inline]
    fn open(&mut self, _from: Source, datagram: &[u8], _now: Instant, queues: &mut Queues) -> Outcome {
        let Some(Message::Data { receiver }) = Message::parse(datagram) else { return Err(refused()) };
        let room = Reservation::new(&mut queues.device, (), datagram.len() - DATA_HEADER_LEN);
        let Ok(mut room) = room else { return Err(refused()) };
        let payload = &datagram[DATA_HEADER_LEN..datagram.len() - (DATA_OVERHEAD - DATA_HEADER_LEN)];
        let packet = &mut room.bytes()[..payload.len()];
        packet.copy_from_slice(payload);
        let header = IpHeader::parse(packet).ok_or_else(refused)?;
        policy::inbound(&header, receiver, &self.allowed).map_err(|_| refused())?;
        room.commit(header.total_len);
        self.packets += 1;
        self.bytes += datagram.len() as u64;
        Ok(())
    }
}

#[cold]
fn refused() -> Failure {
    Failure::failed("the loop without cipher did not forward a packet of the benchmark")
}

/// The only peer, which is also its index in messages.
const PEER: u32 = 1;

/// The engine's default.
const MTU: usize = 1420;
