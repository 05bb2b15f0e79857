//! The sans-IO engine of Adit: packets and datagrams in, datagrams and packets out.
//!
//! Nothing here reads a clock, opens a socket, starts a thread or touches a file: the shell passes `now` into every
//! input and owns the memory that every output is written to. Start at [`Engine`], whose documentation is the contract;
//! the way of a packet is told in `engine/outbound.rs` and `engine/inbound.rs`.
//!
//! Only `wg/peer.rs` knows the library that does WireGuard's cryptography. That library does read a clock and a random
//! number generator of its own (its keys are ephemeral); the engine keeps both in step with the `now` that it is given.
#![forbid(unsafe_code)]

pub mod config;
pub mod engine;
pub mod error;
pub mod event;
pub mod ip;
pub mod key;
#[cfg(feature = "netstack")]
pub mod netstack;
pub mod offload;
mod packet;
pub mod policy;
pub mod route;
pub mod sink;
pub mod stats;
pub mod wg;

pub use config::{AllowedIpChange, EngineConfig, Limits, PeerUpdate, Update};
pub use engine::{Command, Deadline, Engine, Outputs, Source, Verdict};
pub use error::{CommandError, DropReason, KeyError};
pub use event::{Event, OffloadSide};
pub use key::{PresharedKey, PrivateKey, PublicKey};
pub use packet::TunPacket;
pub use sink::{Ecn, Reservation, Sink, SinkFull, Transmit};
pub use stats::{EngineStats, PeerStats, Snapshot};
