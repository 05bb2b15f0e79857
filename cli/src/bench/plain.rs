//! The loop without a cipher: parse, look up, split, copy into the queue with room for header and tag, and back.
//!
//! It stands where the engine stands and shows what remains when the cipher costs nothing: in memory beside the engine, or
//! as a process of its own in a tunnel. It protects nothing, so it lives here, and no engine can be told to do this.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use adit_core::ip::IpHeader;
use adit_core::offload::{Split, VirtioNetHeader};
use adit_core::policy::{self, Disposition};
use adit_core::route::AllowedIps;
use adit_core::wg::message::{DATA_HEADER_LEN, DATA_OVERHEAD, Message, padded_len};
use adit_core::{
    Command, CommandError, Deadline, DropReason, Ecn, EngineStats, Event, Outputs, Reservation, Sink, Snapshot, Source,
    Transmit, TunPacket, Verdict,
};
use adit_tun::{PacketEngine, PumpOutputs};
use ipnet::IpNet;

/// One end, with one peer.
#[derive(Debug)]
pub(super) struct Plain {
    peer: SocketAddr,
    allowed: AllowedIps<u32>,
    counter: u64,
    packets: u64,
    bytes: u64,
    drops: u64,
}

impl Plain {
    /// An end whose peer is at `peer` and has these addresses.
    pub(super) fn new(peer: SocketAddr, allowed: impl IntoIterator<Item = IpNet>) -> Self {
        let mut table = AllowedIps::new();
        for net in allowed {
            table.insert(net, PEER);
        }
        Self { peer, allowed: table, counter: 0, packets: 0, bytes: 0, drops: 0 }
    }

    /// Does what `Engine::handle_tun` and `Engine::handle_tun_offload` do, without sealing.
    #[inline]
    pub(super) fn seal<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        packet: TunPacket<'_>,
        offload: VirtioNetHeader,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some(header) = IpHeader::parse(packet.bytes()) else { return self.dropped(DropReason::NotIp) };
        let route = |longest| policy::outbound(&header, longest, MTU, &self.allowed) == Disposition::Tunnel(PEER);
        if offload == VirtioNetHeader::default() {
            if !route(header.total_len) {
                return self.dropped(DropReason::NoRoute);
            }
            return self.send(&packet.bytes()[..header.total_len], header.ecn, out.network);
        }
        let Ok(mut split) = Split::new(packet.into_buffer(), header.total_len, offload) else {
            return self.dropped(DropReason::MalformedOffload);
        };
        if !route(split.longest()) {
            return self.dropped(DropReason::NoRoute);
        }
        let mut verdict = Verdict::Forwarded;
        while let Some(packet) = split.next() {
            verdict = self.send(packet.bytes(), header.ecn, out.network);
        }
        verdict
    }

    /// Does what `Engine::handle_udp` does, without opening.
    #[inline]
    pub(super) fn open<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        datagram: &[u8],
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some(Message::Data { receiver }) = Message::parse(datagram) else {
            return self.dropped(DropReason::NotWireGuard);
        };
        let Ok(mut room) = Reservation::new(out.device, (), datagram.len() - DATA_HEADER_LEN) else {
            return self.dropped(DropReason::WriteQueueFull);
        };
        let payload = &datagram[DATA_HEADER_LEN..datagram.len() - (DATA_OVERHEAD - DATA_HEADER_LEN)];
        let packet = &mut room.bytes()[..payload.len()];
        packet.copy_from_slice(payload);
        let header = IpHeader::parse(packet).filter(|header| policy::inbound(header, receiver, &self.allowed).is_ok());
        let Some(header) = header else {
            drop(room);
            return self.dropped(DropReason::SpoofedSource);
        };
        room.commit(header.total_len);
        self.packets += 1;
        self.bytes += datagram.len() as u64;
        Verdict::Forwarded
    }

    /// Copies one packet into the send queue as a transport message would be.
    #[inline]
    fn send<N: Sink<Transmit>>(&mut self, packet: &[u8], ecn: Ecn, network: &mut N) -> Verdict {
        let padded = padded_len(packet.len(), MTU);
        let transmit = Transmit { remote: self.peer, local: None, ecn };
        let Ok(mut room) = Reservation::new(network, transmit, padded + DATA_OVERHEAD) else {
            return self.dropped(DropReason::SendQueueFull);
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
        Verdict::Forwarded
    }

    #[cold]
    fn dropped(&mut self, reason: DropReason) -> Verdict {
        self.drops += 1;
        Verdict::Dropped(reason)
    }
}

impl PacketEngine for Plain {
    #[inline]
    fn handle_tun(
        &mut self,
        packet: TunPacket<'_>,
        offload: VirtioNetHeader,
        _now: Instant,
        out: &mut PumpOutputs<'_>,
    ) {
        let _counted = self.seal(packet, offload, out);
    }

    #[inline]
    fn handle_udp(&mut self, _: Source, _: Ecn, datagram: &[u8], _now: Instant, out: &mut PumpOutputs<'_>) {
        let _counted = self.open(datagram, out);
    }

    fn handle_timeout(&mut self, _now: Instant, _out: &mut PumpOutputs<'_>) {}

    fn handle_command(
        &mut self,
        _command: Command,
        _now: Instant,
        _wall: SystemTime,
        _out: &mut PumpOutputs<'_>,
    ) -> Result<(), CommandError> {
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn count_drops(&mut self, _reason: DropReason, count: u64) {
        self.drops += count;
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let engine = EngineStats::default();
        Snapshot { at: now, private_key: None, mtu: MTU, engine, newest_timestamp: None, peers: Vec::new() }
    }
}

/// The only peer, which is also its index in messages.
const PEER: u32 = 1;

/// The engine's default.
const MTU: usize = 1420;
