//! From the host to the underlay: parse, route, bring the peer's clock forward, seal, or wait for a handshake.

use std::time::Instant;

use super::{Engine, Outputs, Shared, TunPacket, Verdict, count, upkeep};
use crate::error::DropReason;
use crate::ip::IpHeader;
use crate::policy::{self, Disposition};
use crate::sink::{Ecn, Reservation, Sink, Transmit};
use crate::wg::message::padded_len;
use crate::wg::peer::sealed_room;
use crate::wg::state::Peer;
use crate::wg::timers::REKEY_ON_SEND;

impl Engine {
    /// Takes a packet that the host wants to send.
    ///
    /// It is sealed straight into a reservation of `out.network`. Without a session it is copied and waits, and a
    /// handshake begins.
    pub fn handle_tun<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        mut packet: TunPacket<'_>,
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some(header) = IpHeader::parse(packet.bytes()) else {
            return self.dropped(DropReason::NotIp);
        };
        let id = match policy::outbound(&header, self.shared.config.mtu, &self.allowed) {
            Disposition::Tunnel(id) => id,
            Disposition::Drop(reason) => return self.dropped(reason),
        };
        let Some(peer) = self.peers.get_mut(id) else {
            return self.dropped(DropReason::NoRoute);
        };
        let shared = &mut self.shared;
        if peer.path.is_none() {
            return shared.dropped(peer, DropReason::NoEndpoint);
        }
        if peer.tunnel.is_none() {
            return shared.dropped(peer, DropReason::NoPrivateKey);
        }

        let updated = upkeep::update_if_due(shared, peer, now);
        let (verdict, earlier) = if peer.has_session() {
            let padded = padded_len(header.total_len, shared.config.mtu);
            let (verdict, earlier) = packet.with_padding(header.total_len, padded, |plaintext| {
                seal(shared, peer, plaintext, header.ecn, now, out.network)
            });
            (verdict, earlier | upkeep::rekey_after(shared, peer, REKEY_ON_SEND, now, out.network))
        } else {
            stage(shared, peer, &packet.bytes()[..header.total_len], header.ecn);
            upkeep::initiate(shared, peer, now, out.network);
            (Verdict::Staged, true)
        };
        if updated || earlier {
            self.peers.schedule(id);
        }
        verdict
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
