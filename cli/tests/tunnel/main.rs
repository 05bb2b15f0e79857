//! `adit up` and `adit down` at their edges: bad input, crashes, signals, secrets and the keys of wg-quick(8), each in a
//! network namespace of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot do what it needs has failed")]

mod bad_input;
mod crash;
mod daemon;
mod doctor;
mod explain;
mod host;
mod readme;
mod secrets;
mod status;
mod wg_quick;
