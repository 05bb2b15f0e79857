//! `adit_core::offload` against a slow model of what it has to do: splitting byte for byte, joining packet for packet.
//!
//! `packet` and `shape` make packets and super-packets and hold the model, `strategy` draws them at random, `ours` drives
//! the code under test as the packet loop does. The model is written from the kernel's rules and with etherparse; it is
//! held against a kernel by the scenarios of the `tests` package, which use the same two modules.
#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod engine;
mod join;
mod join_cases;
mod lies;
mod ours;
mod packet;
mod shape;
mod split;
mod strategy;
