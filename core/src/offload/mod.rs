//! Splitting what the system hands over in one piece, and joining what it takes in one.
//!
//! Linux moves up to 64 KiB of one TCP flow, or of equal UDP datagrams, through a tun device at a time, and says with a
//! [`VirtioNetHeader`] what is left to do. [`Split`] does it on the way out, [`Chain`] undoes it on the way in. Both are
//! pure functions over the caller's memory, move no payload, and take whatever bytes there are: what does not fit its
//! header is [`Malformed`], what cannot be joined is left alone.

pub mod checksum;
mod headers;
mod join;
mod split;
mod virtio;

pub use join::{Chain, MAX_CHAIN_HEADERS, Offloads};
pub use split::{Malformed, Split};
pub use virtio::VirtioNetHeader;
