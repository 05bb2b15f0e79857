//! WireGuard, one peer at a time and all of them together.
//!
//! `peer` fences the cryptographic library in; `ring` mirrors its sessions, which it does not show; `timers` knows when a
//! peer needs attention; `state` joins them with what the protocol leaves to its host (endpoint, staging, keepalive,
//! counters); `table` finds peers by key, by receiver index and by deadline; `message` and `staged` are small parts of
//! these.

pub mod message;
pub(crate) mod peer;
pub(crate) mod ring;
pub(crate) mod staged;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod timers;
