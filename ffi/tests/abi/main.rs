//! The ABI as a host meets it: every function through its C symbol, with what it should be given and with what it should not.
#![allow(
    clippy::unwrap_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a test fails by panicking, and passes pointers to what it has just made"
)]

mod arguments;
mod harness;
mod keys;
mod life;
mod logging;
mod options;
#[cfg(feature = "test-symbols")]
mod panics;
