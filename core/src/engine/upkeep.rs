//! What time asks for: handshakes begun and repeated, keepalives, sessions that end.

use std::time::{Duration, Instant};

use super::{Engine, Outputs, Shared, count};
use crate::error::DropReason;
use crate::event::Event;
use crate::sink::{Ecn, Reservation, Sink, Transmit};
use crate::wg::peer::CONTROL_LEN;
use crate::wg::ring::Way;
use crate::wg::state::{Path, Peer};
use crate::wg::timers::Due;

/// Longest time for which initiations are held back because of the wall clock. Peers would drop them as replays, unless
/// they have lost their memory as well, so after this long it is worth a try (REKEY_ATTEMPT_TIME).
const MAX_HOLD: Duration = Duration::from_secs(90);

/// Initiations closer than this cannot be told apart by what the engine knows of their timestamps.
const TIMESTAMP_SLACK: Duration = Duration::from_millis(1);

/// More deadlines than a peer can have at one moment.
const MAX_DUE: usize = 16;

impl Engine {
    /// Looks after every deadline that has come.
    pub fn handle_timeout<N: Sink<Transmit>, P: Sink<()>>(&mut self, now: Instant, out: &mut Outputs<'_, N, P>) {
        if self.shared.suspended {
            return;
        }
        let mut due_peers = 0;
        // Each peer is popped once: a deadline that stays in the past is clamped by `look_after` and `schedule` below.
        while let Some(id) = self.peers.pop_due(now) {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            look_after(&mut self.shared, peer, now, out.network);
            self.peers.schedule(id);
            due_peers += 1;
            if due_peers > self.peers.len() {
                break;
            }
        }
        self.shared.stats.timer_runs += u64::from(due_peers > 0);
    }
}

/// Does what is due for one peer. Every deadline is cleared or moved, so that none fires twice.
fn look_after<N: Sink<Transmit>>(shared: &mut Shared, peer: &mut Peer, now: Instant, network: &mut N) {
    update(shared, peer, now);
    for _ in 0..MAX_DUE {
        let Some((_, due)) = peer.timers.next().filter(|(at, _)| *at <= now) else { return };
        peer.timers.clear(due, now);
        match due {
            Due::Retry if peer.timers.attempt_is_over(now) => give_up(shared, peer, now),
            Due::Retry | Due::NoAnswer | Due::Revive => initiate(shared, peer, now, network),
            Due::Keepalive => keepalive(shared, peer, now, network),
            Due::PersistentKeepalive if peer.has_session() => keepalive(shared, peer, now, network),
            Due::PersistentKeepalive if !peer.timers.is_reviving() => initiate(shared, peer, now, network),
            Due::PersistentKeepalive | Due::Expiry => {}
        }
    }
}

/// Ends what has expired, if that was not looked at for a while. Says whether it was time to.
#[inline]
pub(super) fn update_if_due(shared: &mut Shared, peer: &mut Peer, now: Instant) -> bool {
    let due = peer.tunnel.as_ref().is_some_and(|tunnel| tunnel.needs_update(now));
    if due {
        update(shared, peer, now);
    }
    due
}

/// Brings the library's clock forward, and ends what has expired.
#[cold]
pub(super) fn update(shared: &mut Shared, peer: &mut Peer, now: Instant) {
    let Some(tunnel) = peer.tunnel.as_mut() else { return };
    let had_session = tunnel.has_session();
    tunnel.update(now);
    if had_session && !tunnel.has_session() {
        shared.events.push(Event::SessionExpired { peer: peer.public_key });
    }
}

/// Nothing has answered for 90 s: what waited is lost, and only a persistent keepalive makes us try again unasked.
fn give_up(shared: &mut Shared, peer: &mut Peer, now: Instant) {
    let lost = peer.staged.clear(&mut shared.staging);
    shared.dropped_many(peer, DropReason::HandshakeTimedOut, lost);
    let keep_trying = peer.timers.persistent() > 0;
    let retry_in = peer.timers.gave_up(now, keep_trying, shared.rng.f64());
    shared.events.push(Event::HandshakeTimedOut { peer: peer.public_key, retry_in });
}

/// Renews a session that we began and that is old enough for it; called when a message goes out or comes in.
#[inline]
pub(super) fn rekey_after<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    way: Way,
    now: Instant,
    network: &mut N,
) -> bool {
    let session = peer.tunnel.as_ref().and_then(|tunnel| tunnel.session());
    let due = session.is_some_and(|session| session.renews(way, now));
    if due {
        initiate(shared, peer, now, network);
    }
    due
}

/// Begins a handshake, unless one is under way or its timestamp would go backwards.
#[cold]
pub(super) fn initiate<N: Sink<Transmit>>(shared: &mut Shared, peer: &mut Peer, now: Instant, network: &mut N) {
    if peer.path.is_none() || peer.timers.in_flight() {
        return;
    }
    update(shared, peer, now);
    let Some(tunnel) = peer.tunnel.as_mut() else { return };
    if peer.timers.await_confirmation(now, shared.jitter()) {
        return;
    }
    let timestamp = tunnel.timestamp(now);
    if let Some(behind) = peer.timestamp_floor.and_then(|floor| floor.duration_since(timestamp).ok()) {
        let begins = peer.held_since.is_none();
        let since = *peer.held_since.get_or_insert(now);
        let left = MAX_HOLD.saturating_sub(now.saturating_duration_since(since));
        if left > Duration::ZERO {
            let wait = (behind + TIMESTAMP_SLACK).min(left);
            if begins && behind > TIMESTAMP_SLACK {
                shared.events.push(Event::ClockBehind { peer: peer.public_key, by: behind });
            }
            peer.timers.hold_until(now + wait);
            return;
        }
    }
    peer.held_since = None;
    let mut message = [0; CONTROL_LEN];
    if let Some(len) = tunnel.initiate(&mut message) {
        initiation_made(shared, peer, now, timestamp, &message[..len], network);
    }
}

/// Sends an initiation and counts the time until it has to be repeated.
fn initiation_made<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    now: Instant,
    timestamp: std::time::SystemTime,
    message: &[u8],
    network: &mut N,
) {
    let jitter = shared.jitter();
    peer.timers.initiation_sent(now, jitter);
    peer.initiated = Some(now);
    // After a hold the floor goes back with the clock, or each repetition would be held as well; what the next engine is
    // told stays the newest.
    shared.newest_timestamp = shared.newest_timestamp.max(peer.timestamp_floor);
    peer.timestamp_floor = Some(timestamp + TIMESTAMP_SLACK);
    let Some(path) = peer.path else { return };
    if send_control(shared, peer, path, message, network) {
        count!(shared, peer, handshakes_sent, 1);
    }
}

/// Sends an empty packet, which keeps paths open and shows that we are there.
pub(super) fn keepalive<N: Sink<Transmit>>(shared: &mut Shared, peer: &mut Peer, now: Instant, network: &mut N) {
    let Some(tunnel) = peer.tunnel.as_mut() else { return };
    let mut message = [0; CONTROL_LEN];
    if let Some(len) = tunnel.seal(&[], &mut message) {
        keepalive_made(shared, peer, now, &message[..len], network);
        rekey_after(shared, peer, Way::Out, now, network);
    }
}

pub(super) fn keepalive_made<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    now: Instant,
    message: &[u8],
    network: &mut N,
) {
    peer.timers.control_sent(now);
    let Some(path) = peer.path else { return };
    if send_control(shared, peer, path, message, network) {
        count!(shared, peer, keepalives_sent, 1);
    }
}

/// Copies a message of the protocol to the send queue; says whether there was room.
pub(super) fn send_control<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    path: Path,
    message: &[u8],
    network: &mut N,
) -> bool {
    let Ok(mut reservation) = Reservation::new(network, path.transmit(Ecn::NotEct), message.len()) else {
        shared.dropped(peer, DropReason::SendQueueFull);
        return false;
    };
    reservation.bytes().copy_from_slice(message);
    reservation.commit(message.len());
    count!(shared, peer, tx_bytes, message.len());
    true
}
