//! From the underlay to the host: shape, peer, authentication, source check, and only then the write.
//!
//! The endpoint follows the peer: data in a confirmed session and handshake responses are both fresh and authentic, and
//! move it. An initiation is authentic too, but one that was recorded may be played to a host that has just started and
//! remembers no timestamps; it is answered where it came from, and moves nothing until the session it offers is used.

use std::time::{Duration, Instant};

use super::outbound::flush_staged;
use super::upkeep::{keepalive_made, rekey_after, send_control, update, update_if_due};
use super::{Engine, Outputs, Shared, Source, Verdict, count};
use crate::config::MAX_MTU;
use crate::error::DropReason;
use crate::event::Event;
use crate::ip::{self, Decapsulated, IpHeader};
use crate::policy;
use crate::sink::{Ecn, Reservation, Sink, Transmit};
use crate::wg::message::{COOKIE_LEN, DATA_HEADER_LEN, DATA_OVERHEAD, Message, TAG_LEN};
use crate::wg::peer::{Admission, CONTROL_LEN, Opened};
use crate::wg::ring::Way;
use crate::wg::state::{Path, Peer};

/// More messages than the library can have queued (its MAX_QUEUE_DEPTH).
const MAX_DRAIN: usize = 256;

impl Engine {
    /// Takes a datagram from the underlay, `ecn` being the outer ECN field, or [`Ecn::NotEct`] if that is not known.
    ///
    /// A packet is opened straight into a reservation of `out.device`, which is rolled back if its source is not the
    /// peer's.
    pub fn handle_udp<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        from: Source,
        ecn: Ecn,
        datagram: &[u8],
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some(message) = Message::parse(datagram) else {
            return self.dropped(DropReason::NotWireGuard);
        };
        if datagram.len() > MAX_MTU + DATA_OVERHEAD {
            return self.dropped(DropReason::Oversize);
        }
        if self.identity.is_none() {
            return self.dropped(DropReason::NoPrivateKey);
        }
        match message {
            Message::Data { receiver } => self.handle_data(from, ecn, receiver, datagram, now, out),
            Message::Initiation => self.handle_initiation(from, datagram, now, out),
            Message::Response { receiver } => self.handle_response(from, receiver, datagram, now, out),
            Message::Cookie { receiver } => self.handle_cookie(receiver, datagram, now),
        }
    }

    #[inline]
    fn handle_data<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        from: Source,
        ecn: Ecn,
        receiver: u32,
        datagram: &[u8],
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        let Some((id, peer)) = self.peers.by_receiver(receiver) else {
            return self.dropped(DropReason::UnknownIndex);
        };
        let shared = &mut self.shared;
        let updated = update_if_due(shared, peer, now);
        let Some(tunnel) = peer.tunnel.as_mut() else {
            return shared.dropped(peer, DropReason::NoPrivateKey);
        };
        let had_session = tunnel.has_session();
        // A keepalive has no packet in it, so it needs no room on the way to the host, and gets through when there is none.
        let mut nothing = [0; TAG_LEN];
        let mut room = None;
        if datagram.len() > DATA_OVERHEAD {
            let Ok(reservation) = Reservation::new(out.device, (), datagram.len() - DATA_HEADER_LEN) else {
                return shared.dropped(peer, DropReason::WriteQueueFull);
            };
            room = Some(reservation);
        }
        let buffer = room.as_mut().map_or(&mut nothing[..], Reservation::bytes);
        let (opened, confirmed) = tunnel.open(receiver, datagram, now, buffer);
        if let Opened::Refused(reason) = opened {
            return shared.dropped(peer, reason);
        }

        count!(shared, peer, rx_bytes, datagram.len());
        roam(shared, peer, from);
        if confirmed {
            session_confirmed(shared, peer, now, had_session, None);
        }
        let (verdict, mut earlier) = match (opened, room) {
            (Opened::Packet(len), Some(mut reservation)) => {
                let verdict = match deliverable(shared, &self.allowed, id, &mut reservation.bytes()[..len], ecn) {
                    Ok(len) => {
                        reservation.commit(len);
                        count!(shared, peer, packets_in, 1);
                        Verdict::Forwarded
                    }
                    Err(reason) => {
                        drop(reservation);
                        shared.dropped(peer, reason)
                    }
                };
                (verdict, peer.timers.data_received(now))
            }
            (Opened::Keepalive, _) => {
                count!(shared, peer, keepalives_received, 1);
                peer.timers.control_received(now);
                (Verdict::Consumed, false)
            }
            _ => {
                peer.timers.control_received(now);
                (shared.dropped(peer, DropReason::InnerNotIp), false)
            }
        };
        if confirmed {
            flush_staged(shared, peer, now, out.network);
        }
        earlier |= rekey_after(shared, peer, Way::In, now, out.network);
        if updated || earlier || confirmed {
            self.peers.schedule(id);
        }
        verdict
    }

    #[cold]
    fn handle_initiation<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        from: Source,
        datagram: &[u8],
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        if let Err(verdict) = self.admit(from, datagram, out.network) {
            return verdict;
        }
        let initiator = match &self.identity {
            Some(identity) => identity.initiator(datagram),
            None => Err(DropReason::NoPrivateKey),
        };
        let id = match initiator.map(|key| self.peers.find(&key)) {
            Ok(Some(id)) => id,
            Ok(None) => return self.dropped(DropReason::UnknownPeer),
            Err(reason) => return self.dropped(reason),
        };
        let Some(peer) = self.peers.get_mut(id) else {
            return self.dropped(DropReason::UnknownPeer);
        };
        let shared = &mut self.shared;
        update(shared, peer, now);
        let Some(tunnel) = peer.tunnel.as_mut() else {
            return shared.dropped(peer, DropReason::NoPrivateKey);
        };
        let mut response = [0; CONTROL_LEN];
        let len = match tunnel.respond(datagram, &mut response) {
            Ok(len) => len,
            Err(reason) => return shared.dropped(peer, reason),
        };
        count!(shared, peer, rx_bytes, datagram.len());
        count!(shared, peer, handshakes_received, 1);
        peer.timers.session_offered(now);
        let back = Path { remote: from.remote, local: from.local };
        if peer.path.is_none() {
            shared.set_path(peer, Some(back));
        }
        if send_control(shared, peer, back, &response[..len], out.network) {
            count!(shared, peer, handshakes_sent, 1);
        }
        self.peers.schedule(id);
        Verdict::Consumed
    }

    #[cold]
    fn handle_response<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        from: Source,
        receiver: u32,
        datagram: &[u8],
        now: Instant,
        out: &mut Outputs<'_, N, P>,
    ) -> Verdict {
        if let Err(verdict) = self.admit(from, datagram, out.network) {
            return verdict;
        }
        let Some((id, peer)) = self.peers.by_receiver(receiver) else {
            return self.dropped(DropReason::UnknownIndex);
        };
        let shared = &mut self.shared;
        update(shared, peer, now);
        let Some(tunnel) = peer.tunnel.as_mut() else {
            return shared.dropped(peer, DropReason::NoPrivateKey);
        };
        let had_session = tunnel.has_session();
        let mut answer = [0; CONTROL_LEN];
        let len = match tunnel.confirm(receiver, datagram, &mut answer) {
            Ok(len) => len,
            Err(reason) => return shared.dropped(peer, reason),
        };
        // The library reckons in whole milliseconds, but knows which initiation was answered.
        let since_last = peer.initiated.map(|at| now.saturating_duration_since(at));
        peer.round_trip = tunnel.round_trip().max(since_last);
        count!(shared, peer, rx_bytes, datagram.len());
        count!(shared, peer, handshakes_received, 1);
        roam(shared, peer, from);
        session_confirmed(shared, peer, now, had_session, peer.round_trip);
        keepalive_made(shared, peer, now, &answer[..len], out.network);
        drain(shared, peer, now, out.network);
        flush_staged(shared, peer, now, out.network);
        self.peers.schedule(id);
        Verdict::Consumed
    }

    #[cold]
    fn handle_cookie(&mut self, receiver: u32, datagram: &[u8], now: Instant) -> Verdict {
        let Some((_, peer)) = self.peers.by_receiver(receiver) else {
            return self.dropped(DropReason::UnknownIndex);
        };
        update(&mut self.shared, peer, now);
        let taken = match peer.tunnel.as_mut() {
            Some(tunnel) => tunnel.take_cookie(datagram),
            None => Err(DropReason::NoPrivateKey),
        };
        match taken {
            Ok(()) => {
                count!(self.shared, peer, rx_bytes, datagram.len());
                Verdict::Consumed
            }
            Err(reason) => self.shared.dropped(peer, reason),
        }
    }

    /// Shows a handshake message to the limiter that stands before all keys; answers with a cookie if it asks for one.
    fn admit<N: Sink<Transmit>>(&mut self, from: Source, datagram: &[u8], network: &mut N) -> Result<(), Verdict> {
        let Some(identity) = &self.identity else {
            return Err(self.dropped(DropReason::NoPrivateKey));
        };
        let mut cookie = [0; COOKIE_LEN];
        match identity.admit(from.remote.ip(), datagram, &mut cookie) {
            Admission::Admitted => Ok(()),
            Admission::Refused(reason) => Err(self.dropped(reason)),
            Admission::Cookie(len) => {
                let to = Path { remote: from.remote, local: from.local }.transmit(Ecn::NotEct);
                if let Ok(mut reservation) = Reservation::new(network, to, len) {
                    reservation.bytes().copy_from_slice(&cookie[..len]);
                    reservation.commit(len);
                    self.shared.stats.traffic.tx_bytes += len as u64;
                    self.shared.stats.cookies_sent += 1;
                }
                Err(self.dropped(DropReason::UnderLoad))
            }
        }
    }
}

/// Checks a decrypted packet: an IP packet, from an address that is the peer's. This is the one place where cryptokey
/// routing is enforced inbound. Returns the packet's length.
#[inline]
fn deliverable(
    shared: &Shared,
    allowed: &crate::route::AllowedIps<u32>,
    id: u32,
    packet: &mut [u8],
    outer: Ecn,
) -> Result<usize, DropReason> {
    let header = IpHeader::parse(packet).ok_or(DropReason::InnerNotIp)?;
    policy::inbound(&header, id, allowed)?;
    match ip::decapsulate_ecn(header.ecn, outer) {
        Decapsulated::Drop if shared.config.strict_ecn => return Err(DropReason::EcnNotCapable),
        Decapsulated::Mark(ecn) => ip::set_ecn(packet, ecn),
        Decapsulated::Drop | Decapsulated::Unchanged => {}
    }
    Ok(header.total_len)
}

/// A session can be used from now on.
fn session_confirmed(
    shared: &mut Shared,
    peer: &mut Peer,
    now: Instant,
    had_session: bool,
    round_trip: Option<Duration>,
) {
    let Some(tunnel) = peer.tunnel.as_mut() else { return };
    let is_out = tunnel.is_initiating();
    if let Some(session) = tunnel.session() {
        peer.timers.session_confirmed(now, session.end(), is_out);
    }
    peer.last_handshake = Some(now);
    peer.held_since = None;
    shared.events.push(Event::HandshakeCompleted { peer: peer.public_key, round_trip, first: !had_session });
}

/// Follows the peer to the address that a fresh authentic message came from.
#[inline]
fn roam(shared: &mut Shared, peer: &mut Peer, from: Source) {
    if peer.path.is_some_and(|path| path.remote == from.remote && path.local == from.local) {
        return;
    }
    move_to(shared, peer, Path { remote: from.remote, local: from.local });
}

#[cold]
fn move_to(shared: &mut Shared, peer: &mut Peer, path: Path) {
    let before = shared.set_path(peer, Some(path)).map(|path| path.remote);
    if before != Some(path.remote) {
        shared.events.push(Event::Roamed { peer: peer.public_key, from: before, to: path.remote });
    }
}

/// Sends what the library had queued for itself until there was a session.
fn drain<N: Sink<Transmit>>(shared: &mut Shared, peer: &mut Peer, now: Instant, network: &mut N) {
    let mut message = [0; CONTROL_LEN];
    for _ in 0..MAX_DRAIN {
        let Some(len) = peer.tunnel.as_mut().and_then(|tunnel| tunnel.drain(&mut message)) else { return };
        keepalive_made(shared, peer, now, &message[..len], network);
    }
}
