//! `adit_core::offload` against the kernel: what one splits the other would have split the same, byte for byte.
//!
//! A namespace of its own forwards from a tun device with offloads to one without, so the kernel has to segment in
//! software whatever is written to the first. Packets and super-packets come from the model in core's own tests, which is
//! thereby held against the kernel, too. `stream` has real sockets at both ends instead, `gro` asks which packets the
//! kernel itself would have joined.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot do what it needs has failed")]

mod gro;
mod join;
#[allow(dead_code, reason = "shared with core's tests, which use all of it")]
#[path = "../../../core/tests/offload/ours.rs"]
mod ours;
#[allow(dead_code, reason = "shared with core's tests, which use all of it")]
#[path = "../../../core/tests/offload/packet.rs"]
mod packet;
mod random;
mod router;
#[allow(dead_code, reason = "shared with core's tests, which use all of it")]
#[path = "../../../core/tests/offload/shape.rs"]
mod shape;
mod split;
mod stream;
