//! The engine's events as lines of the log.
//!
//! Peers are named by the first characters of their keys; addresses are logged at DEBUG only.

use adit_core::Event;

/// Logs an event.
pub(crate) fn narrate(event: &Event) {
    match event {
        Event::HandshakeCompleted { peer, round_trip, first: true } => {
            let round_trip_ms = round_trip.map(|time| time.as_secs_f64() * 1e3);
            tracing::info!(peer = %peer.short(), round_trip_ms, "session is up");
        }
        Event::HandshakeCompleted { peer, .. } => tracing::debug!(peer = %peer.short(), "session was renewed"),
        Event::HandshakeTimedOut { peer, retry_in } => {
            let retry_in_s = retry_in.map(|time| time.as_secs_f64());
            tracing::warn!(peer = %peer.short(), retry_in_s, "the peer does not answer handshakes");
        }
        Event::SessionExpired { peer } => tracing::info!(peer = %peer.short(), "session has expired"),
        Event::Roamed { peer, from, to } => {
            tracing::info!(peer = %peer.short(), "the peer's endpoint has changed");
            tracing::debug!(peer = %peer.short(), ?from, %to, "endpoint");
        }
        Event::ClockBehind { peer, by } => {
            tracing::warn!(
                peer = %peer.short(),
                behind_s = by.as_secs_f64(),
                "the clock stands before an earlier handshake: the peer ignores us until it has caught up; check the clock"
            );
        }
        Event::EndpointLoop { peer, endpoint } => {
            tracing::warn!(
                peer = %peer.short(),
                "the tunnel's own datagrams are routed into it and are dropped there: a rule or a route of the system sends \
                 marked traffic, or UDP to the peer's endpoint, into the tunnel; `ip rule` and `ip route get` to the endpoint \
                 show which"
            );
            tracing::debug!(peer = %peer.short(), %endpoint, "endpoint");
        }
        Event::EventsLost { count } => tracing::debug!(count, "events were lost"),
        other => tracing::debug!(?other, "event"),
    }
}
