//! Why a tunnel in a host's hands was refused something, did not come up or ended.
//!
//! One code for programs and one sentence for people. The codes' names are part of the JSON and of the C interface, so they
//! are only ever added to.

use serde::Serialize;
use thiserror::Error;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people: what, where, and what would help.
    pub message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The call does not fit the tunnel's state.
    InvalidState,
    /// The tunnel was started already.
    AlreadyRunning,
    /// The answer is to a question that nobody waits for any more.
    Stale,
    /// Another change is still under way, or too much waits to be done.
    Busy,
    /// The configuration cannot be used.
    Configuration,
    /// An endpoint's name has no address.
    Resolve,
    /// There is no UDP socket.
    Socket,
    /// The descriptor is no tun device, or not one that can be used.
    Device,
    /// No peer answered.
    PeerTimeout,
    /// The host did not say in time that the settings are applied.
    SettingsTimeout,
    /// The host could not apply the settings.
    SettingsRejected,
    /// The start as a whole took too long.
    StartTimeout,
    /// It was stopped before it was done.
    Stopped,
    /// The device was closed or removed under the tunnel.
    DeviceLost,
    /// What was asked for is not done yet.
    Timeout,
    /// The system gives no threads, descriptors, memory or random numbers.
    System,
    /// An earlier failure of Adit itself; only a stop is possible.
    Poisoned,
    /// A bug in Adit.
    Internal,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
