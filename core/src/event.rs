//! What the engine tells its shell beside packets.

use std::net::SocketAddr;
use std::time::Duration;

use crate::key::PublicKey;

/// Something that the shell may want to log, to show or to act upon.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session is up: the first time, or a rekey.
    HandshakeCompleted {
        /// The peer's public key.
        peer: PublicKey,
        /// From the initiation that we sent to its response; `None` where the peer began.
        round_trip: Option<Duration>,
        /// Whether there was no usable session before.
        first: bool,
    },
    /// An initiation was sent and nothing has answered for 90 s (REKEY_ATTEMPT_TIME).
    HandshakeTimedOut {
        /// The peer's public key.
        peer: PublicKey,
        /// When the engine tries again by itself; `None` if only new traffic does.
        retry_in: Option<Duration>,
    },
    /// The session ended because nothing was exchanged for 180 s (REJECT_AFTER_TIME).
    SessionExpired {
        /// The peer's public key.
        peer: PublicKey,
    },
    /// An authenticated packet came from another address than before.
    Roamed {
        /// The peer's public key.
        peer: PublicKey,
        /// The endpoint until now.
        from: Option<SocketAddr>,
        /// The endpoint from now on.
        to: SocketAddr,
    },
    /// The tunnel's own datagrams come back into it: something routes UDP to a peer's endpoint into the tunnel. They are
    /// dropped under [`DropReason::EndpointLoop`](crate::DropReason::EndpointLoop); this says so once, until no peer is
    /// reached at that endpoint any more.
    EndpointLoop {
        /// The public key of a peer that is reached there.
        peer: PublicKey,
        /// Its endpoint.
        endpoint: SocketAddr,
    },
    /// The wall clock stands before a timestamp that was sent earlier: the peer would take initiations for replays, so
    /// they are held back until the clock has passed it.
    ClockBehind {
        /// The peer's public key.
        peer: PublicKey,
        /// How long initiations are held back.
        by: Duration,
    },
    /// The system refused an offload that it had offered; from now on packets go one by one, which is right but slower.
    OffloadRefused {
        /// On which side.
        side: OffloadSide,
    },
    /// Events were lost because nobody polled for them.
    EventsLost {
        /// How many.
        count: u64,
    },
}

/// Where an offload was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadSide {
    /// Joined packets, written to the device.
    Device,
    /// Runs of datagrams, sent in one call.
    Socket,
}
