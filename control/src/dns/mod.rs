//! What a tunnel changes about how the host looks names up: on macOS, so far.
//!
//! What is published is computed by a pure function, built and tested everywhere; only the store itself is macOS's.

mod dictionary;
#[cfg(target_os = "macos")]
mod store;

pub use dictionary::{Dictionary, Value, service_key};
#[cfg(target_os = "macos")]
pub use store::Published;

/// Why the host does not look names up as the configuration has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The system's configuration store is not to be had.
    #[error("the system's configuration daemon (configd) does not answer, so that DNS cannot be set")]
    NoStore,
    /// The store does not take the settings.
    #[error("the system's configuration daemon (configd) refuses DNS settings: this takes root")]
    Refused,
    /// The system gives no thread or random number.
    #[error("DNS cannot be set: {0}")]
    System(#[from] std::io::Error),
}
