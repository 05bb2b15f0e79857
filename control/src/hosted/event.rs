//! What a host is told.

use std::time::Duration;

use adit_core::PublicKey;
use serde::Serialize;

use super::settings::HostSettings;
use crate::session::{Failure, State, StopReason};

/// Something that a host is told. Serialised, it is what the C interface hands out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HostEvent {
    /// The tunnel's state has changed.
    State {
        /// To this one.
        state: State,
    },
    /// A start is done; exactly one for each that was taken.
    Started {
        /// What failed, if it did; everything was let go of then.
        error: Option<Failure>,
    },
    /// The host is to apply these settings and to say whether that went well.
    Settings {
        /// To be named in the answer.
        generation: u64,
        /// What to apply.
        settings: Box<HostSettings>,
    },
    /// A session with a peer is up: the first time, or renewed.
    Handshake {
        /// The peer's public key.
        peer: PublicKey,
        /// From the initiation to the response in milliseconds, if this side began.
        round_trip_ms: Option<f64>,
        /// Whether there was no session before.
        first: bool,
    },
    /// A peer does not answer.
    HandshakeTimedOut {
        /// The peer's public key.
        peer: PublicKey,
        /// When it is tried again without being asked, in milliseconds.
        retry_in_ms: Option<f64>,
    },
    /// A peer is reached at another address now.
    Roamed {
        /// The peer's public key.
        peer: PublicKey,
    },
    /// After packets found no room there is some.
    Room,
    /// Something that the host may want to log or to show.
    Warning {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// An update is done; exactly one for each that was taken.
    Updated {
        /// What failed, if it did; the tunnel goes on as before then.
        error: Option<Failure>,
    },
    /// The machine is awake again, and the tunnel goes on.
    Resumed,
    /// A tunnel that was up has ended; exactly one for each start that succeeded.
    Stopped {
        /// Why.
        reason: StopReason,
        /// What failed, if it ended by itself.
        error: Option<Failure>,
    },
}

impl HostEvent {
    /// Whether a host counts on it. Of the others some may be left out if the host does not keep up.
    pub(super) fn must_arrive(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Settings { .. } | Self::Updated { .. } | Self::Stopped { .. })
    }
}

/// The engine's event in a host's words; `None` for what is only logged.
pub(super) fn of_engine(event: &adit_core::Event) -> Option<HostEvent> {
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
    Some(match event {
        adit_core::Event::HandshakeCompleted { peer, round_trip, first } => {
            HostEvent::Handshake { peer: *peer, round_trip_ms: round_trip.as_ref().map(milliseconds), first: *first }
        }
        adit_core::Event::HandshakeTimedOut { peer, retry_in } => {
            HostEvent::HandshakeTimedOut { peer: *peer, retry_in_ms: retry_in.as_ref().map(milliseconds) }
        }
        adit_core::Event::Roamed { peer, .. } => HostEvent::Roamed { peer: *peer },
        adit_core::Event::EndpointLoop { .. } => warning(
            "endpoint-loop",
            "The tunnel's own datagrams are routed into it, and are dropped there: a socket of the provider is bound to the \
             tunnel, or a route that leads to the peer into it.",
        ),
        adit_core::Event::ClockBehind { by, .. } => warning(
            "clock-behind",
            &format!(
                "The clock stands {:.0} s before an earlier handshake: the peer ignores us until it has caught up.",
                by.as_secs_f64()
            ),
        ),
        _ => return None,
    })
}

fn warning(code: &str, message: &str) -> HostEvent {
    HostEvent::Warning { code: code.to_owned(), message: message.to_owned() }
}
