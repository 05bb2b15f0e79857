//! What time asks for: handshakes begun and repeated, keepalives, sessions that end.

use std::time::{Duration, Instant};

use super::{Engine, Outputs, Shared, count};
use crate::error::DropReason;
use crate::event::Event;
use crate::sink::{Ecn, Reservation, Sink, Transmit};
use crate::wg::peer::{CONTROL_LEN, Updated};
use crate::wg::state::{Path, Peer};
use crate::wg::timers::Due;

/// Longest time for which initiations are held back because of the wall clock. Peers would drop them as replays, unless
/// they have lost their memory as well, so after this long it is worth a try (REKEY_ATTEMPT_TIME).
const MAX_HOLD: Duration = Duration::from_secs(90);

/// Initiations closer than this cannot be told apart by what the engine knows of their timestamps.
const TIMESTAMP_SLACK: Duration = Duration::from_millis(1);

/// More deadlines than a peer can have at one moment.
const MAX_DUE: usize = 16;

/// Why the library's timers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A packet is about to be handled.
    Activity,
    /// A deadline has come.
    Deadline,
    /// A session has come to its end. Nobody wants to send, so a handshake that the library would like is not begun.
    Expiry,
}

impl Engine {
    /// Looks after every deadline that has come.
    pub fn handle_timeout<N: Sink<Transmit>, P: Sink<()>>(&mut self, now: Instant, out: &mut Outputs<'_, N, P>) {
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
    for _ in 0..MAX_DUE {
        let Some((at, due)) = peer.timers.next().filter(|(at, _)| *at <= now) else { return };
        let cause = if due == Due::Expiry { Cause::Expiry } else { Cause::Deadline };
        if due != Due::Revive {
            update(shared, peer, now, cause, network);
        }
        if peer.timers.next() != Some((at, due)) {
            continue;
        }
        peer.timers.clear(due, now);
        match due {
            Due::Retry | Due::NoAnswer | Due::Revive => initiate(shared, peer, now, network),
            Due::Keepalive => keepalive(shared, peer, now, network),
            Due::PersistentKeepalive if peer.has_session() => keepalive(shared, peer, now, network),
            Due::PersistentKeepalive if !peer.timers.is_reviving() => initiate(shared, peer, now, network),
            Due::PersistentKeepalive | Due::Expiry => {}
        }
    }
}

/// Brings the library's clock forward if packets have not done so for a while. Says whether it did.
#[inline]
pub(super) fn update_if_due<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    now: Instant,
    cause: Cause,
    network: &mut N,
) -> bool {
    let due = peer.tunnel.as_ref().is_some_and(|tunnel| tunnel.needs_update(now));
    if due && !peer.timers.in_jitter(now) {
        update(shared, peer, now, cause, network);
    }
    due
}

/// Brings the library's clock forward, ends what has expired and sends what it asks for.
#[cold]
pub(super) fn update<N: Sink<Transmit>>(
    shared: &mut Shared,
    peer: &mut Peer,
    now: Instant,
    cause: Cause,
    network: &mut N,
) {
    let Some(tunnel) = peer.tunnel.as_mut() else { return };
    let had_session = tunnel.has_session();
    let timestamp = tunnel.timestamp(now);
    let mut message = [0; CONTROL_LEN];
    let updated = tunnel.update(now, &mut message);
    if had_session && !tunnel.has_session() {
        shared.events.push(Event::SessionExpired { peer: peer.public_key });
    }
    match updated {
        Updated::Nothing => {}
        Updated::Initiation(_) if cause == Cause::Expiry => {}
        Updated::Initiation(len) => initiation_made(shared, peer, now, timestamp, &message[..len], network),
        Updated::Keepalive(len) => keepalive_made(shared, peer, now, &message[..len], network),
        Updated::Expired => expired(shared, peer, now, had_session),
    }
}

/// The library has given up: 90 s without an answer, or 540 s without a session. It says so again at every update.
fn expired(shared: &mut Shared, peer: &mut Peer, now: Instant, had_session: bool) {
    let attempting = peer.timers.in_flight();
    if !attempting && !had_session {
        return;
    }
    let lost = peer.staged.clear(&mut shared.staging);
    shared.dropped_many(peer, DropReason::HandshakeTimedOut, lost);
    let keep_trying = attempting && peer.timers.persistent() > 0 && peer.path.is_some();
    let retry_in = peer.timers.expired(now, keep_trying, shared.rng.f64());
    if attempting {
        shared.events.push(Event::HandshakeTimedOut { peer: peer.public_key, retry_in });
    }
}

/// Begins a handshake, unless one is under way or its timestamp would go backwards.
pub(super) fn initiate<N: Sink<Transmit>>(shared: &mut Shared, peer: &mut Peer, now: Instant, network: &mut N) {
    if peer.path.is_none() || peer.timers.in_flight() {
        return;
    }
    let Some(tunnel) = peer.tunnel.as_mut() else { return };
    let timestamp = tunnel.timestamp(now);
    if let Some(behind) = peer.timestamp_floor.and_then(|floor| floor.duration_since(timestamp).ok()) {
        let since = *peer.held_since.get_or_insert(now);
        let left = MAX_HOLD.saturating_sub(now.saturating_duration_since(since));
        if left > Duration::ZERO {
            let wait = (behind + TIMESTAMP_SLACK).min(left);
            if behind > TIMESTAMP_SLACK {
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
