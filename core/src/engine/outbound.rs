//! From the host to the underlay: parse, refuse what has been here before, route, bring the peer's clock forward, seal, or wait for a handshake.

use std::time::Instant;

use super::endpoints::Endpoints;
use super::{Engine, Outputs, Shared, Verdict, count, upkeep};
use crate::error::DropReason;
use crate::event::Event;
use crate::ip::IpHeader;
use crate::offload::{Split, VirtioNetHeader};
use crate::packet::TunPacket;
use crate::policy::{self, Disposition};
use crate::sink::{Ecn, Reservation, Sink, Transmit};
use crate::wg::message::padded_len;
use crate::wg::peer::sealed_room;
use crate::wg::ring::Way;
use crate::wg::state::Peer;

impl Engine {
    /// Takes a packet that the host wants to send.
    ///
    /// It is sealed straight into a reservation of `out.network`. Without a session it is copied and waits, and a
    /// handshake begins.
    #[inline]
    pub fn handle_tun<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        mut packet: TunPacket<'_>,
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some(header) = IpHeader::parse(packet.bytes()) else {
            return self.dropped(DropReason::NotIp);
        };
        packet.shorten(header.total_len);
        if self.shared.endpoints.is_destination(&header, packet.bytes()) {
            return self.looped(&header, packet.bytes(), 1);
        }
        self.send(&header, header.total_len, Once(Some(packet)), now, out)
    }

    /// Takes a packet to which something is still to be done: to split it, or to complete its checksum. Everything that
    /// [`handle_tun`](Self::handle_tun) does for a packet is done for each of its segments, but for the look-up of the
    /// peer, which all of them share. The verdict is that on the last one.
    #[inline]
    pub fn handle_tun_offload<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        packet: TunPacket<'_>,
        offload: VirtioNetHeader,
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some(header) = IpHeader::parse(packet.bytes()) else {
            return self.dropped(DropReason::NotIp);
        };
        let Ok(split) = Split::new(packet.into_buffer(), header.total_len, offload) else {
            return self.dropped(DropReason::MalformedOffload);
        };
        if self.shared.endpoints.is_destination(&header, split.first()) {
            return self.looped(&header, split.first(), split.segments() as u64);
        }
        self.send(&header, split.longest(), split, now, out)
    }

    /// Sends packets that have the header's addresses and ECN field, the longest of which has `longest` bytes.
    #[inline]
    fn send<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        header: &IpHeader,
        longest: usize,
        mut packets: impl Packets,
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let count = packets.count();
        let id = match policy::outbound(header, longest, self.shared.config.mtu, &self.allowed) {
            Disposition::Tunnel(id) => id,
            Disposition::Drop(reason) => return self.dropped_many(reason, count),
        };
        let Some(peer) = self.peers.get_mut(id) else {
            return self.dropped_many(DropReason::NoRoute, count);
        };
        let shared = &mut self.shared;
        let reason = match (&peer.path, &peer.tunnel) {
            (None, _) => Some(DropReason::NoEndpoint),
            (_, None) => Some(DropReason::NoPrivateKey),
            _ => None,
        };
        if let Some(reason) = reason {
            shared.dropped_many(peer, reason, count);
            return Verdict::Dropped(reason);
        }

        let mut earlier = upkeep::update_if_due(shared, peer, now);
        let mut verdict = Verdict::Dropped(DropReason::NotIp);
        while let Some(mut packet) = packets.next() {
            let len = packet.bytes().len();
            if peer.has_session() {
                let padded = padded_len(len, shared.config.mtu);
                let (sealed, sooner) = packet
                    .with_padding(len, padded, |plaintext| seal(shared, peer, plaintext, header.ecn, now, out.network));
                verdict = sealed;
                earlier |= sooner;
            } else {
                stage(shared, peer, packet.bytes(), header.ecn);
                verdict = Verdict::Staged;
            }
        }
        if verdict == Verdict::Staged {
            upkeep::initiate(shared, peer, now, out.network);
            earlier = true;
        } else {
            earlier |= upkeep::rekey_after(shared, peer, Way::Out, now, out.network);
        }
        if earlier {
            self.peers.schedule(id);
        }
        verdict
    }

    /// Drops packets of the tunnel itself that came back into it.
    #[cold]
    fn looped(&mut self, header: &IpHeader, packet: &[u8], count: u64) -> Verdict {
        if let Some(reported) = self.shared.endpoints.report(header, packet) {
            let path_of = |peer: &Peer| peer.path.filter(|path| Endpoints::is(path.remote, reported));
            let found = self.peers.iter().find_map(|(_, peer)| Some((peer.public_key, path_of(peer)?.remote)));
            if let Some((peer, endpoint)) = found {
                self.shared.events.push(Event::EndpointLoop { peer, endpoint });
            }
        }
        self.dropped_many(DropReason::EndpointLoop, count)
    }
}

/// Packets of one flow, lent out one at a time.
trait Packets {
    fn count(&self) -> u64;

    fn next(&mut self) -> Option<TunPacket<'_>>;
}

/// The only packet.
struct Once<'a>(Option<TunPacket<'a>>);

impl Packets for Once<'_> {
    fn count(&self) -> u64 {
        1
    }

    #[inline]
    fn next(&mut self) -> Option<TunPacket<'_>> {
        self.0.take()
    }
}

impl Packets for Split<'_> {
    fn count(&self) -> u64 {
        self.segments() as u64
    }

    #[inline]
    fn next(&mut self) -> Option<TunPacket<'_>> {
        Split::next(self)
    }
}

/// Seals one padded packet for a peer that has a session and a path. The flag says whether a deadline came nearer.
#[inline]
fn seal<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    plaintext: &[u8],
    ecn: Ecn,
    now: Instant,
    network: &mut N,
) -> (Verdict, bool) {
    let (Some(path), Some(tunnel)) = (peer.path, peer.tunnel.as_mut()) else {
        return (shared.dropped(peer, DropReason::NoEndpoint), false);
    };
    let Ok(mut reservation) = Reservation::new(network, path.transmit(ecn), sealed_room(plaintext.len())) else {
        return (shared.dropped(peer, DropReason::SendQueueFull), false);
    };
    let Some(len) = tunnel.seal(plaintext, reservation.bytes()) else {
        return (shared.dropped(peer, DropReason::NoSession), false);
    };
    reservation.commit(len);
    count!(shared, peer, packets_out, 1);
    count!(shared, peer, tx_bytes, len);
    (Verdict::Forwarded, peer.timers.data_sent(now))
}

/// Copies a packet to the peer's staging queue.
fn stage(shared: &mut Shared, peer: &mut Peer, packet: &[u8], ecn: Ecn) {
    let limit = shared.config.limits.staged_packets;
    let dropped = peer.staged.push(packet, ecn, limit, &mut shared.staging);
    shared.dropped_many(peer, DropReason::StagingFull, dropped);
}

/// Sends everything that waited for the session which there is now.
pub(super) fn flush_staged<N: Sink<Transmit>>(shared: &mut Shared, peer: &mut Peer, now: Instant, network: &mut N) {
    while peer.has_session() {
        let Some(staged) = peer.staged.pop(&mut shared.staging) else { return };
        let padded = padded_len(staged.packet.len(), shared.config.mtu);
        let mut bytes = staged.packet.into_vec();
        bytes.resize(padded, 0);
        let _ = seal(shared, peer, &bytes, staged.ecn, now, network);
    }
}
