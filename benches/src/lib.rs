//! What the benchmarks in `benches/` work on: engines that have a session, packets, prefixes, the bare cipher.
//!
//! The benchmarks that take the time and those that count instructions do the same work on the same input, so the input
//! is made here, once. All of it comes from fixed seeds and keys but for the ephemeral keys of a handshake, which are the
//! WireGuard library's own. Nothing here measures. A set-up that fails panics: there is no benchmark without it.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has to stop")]

pub mod cipher;
pub mod engines;
pub mod flows;
pub mod library;
pub mod packets;
pub mod prefixes;

/// Packet lengths, in bytes: the smallest that carries data, a small datagram, and a full one at the default MTU.
pub const SIZES: [usize; 3] = [64, 512, 1420];

/// What WireGuard makes of a packet of `len` bytes before it seals it: a multiple of 16, but no more than the MTU.
pub const fn padded(len: usize) -> usize {
    let padded = len.next_multiple_of(16);
    if padded > MTU { MTU } else { padded }
}

/// The MTU of the tunnels here, which is the default: 1500 less the outer headers over IPv6.
const MTU: usize = 1420;
