//! Harness for scenarios in network namespaces, with real devices, real sockets and real peers.
//!
//! Everything that a scenario makes is a guard: dropped at the end or by a panic, it ends its processes and removes its
//! namespaces. What a killed run could not remove, the next one does ([`netns`] tells by the process id in the name).
//! Every wait has a deadline, and a wait that fails prints what the process said until then.
//!
//! Scenarios need root and Linux, so they are `#[ignore]`d and run by `cargo xtask test`. This crate refuses to look
//! inside Adit: it knows the command, its files and its sockets, as a user does. On other systems it is empty.
#![cfg(target_os = "linux")]

pub mod adit;
pub mod beyond;
pub mod capture;
pub mod counters;
pub mod datagrams;
pub mod flood;
pub mod host_state;
pub mod names;
pub mod netns;
pub mod noise;
pub mod pattern;
pub mod peers;
pub mod probe;
pub mod process;
pub mod quick;
pub mod raw_tun;
pub mod relay;
pub mod site;
pub mod status;
pub mod streams;
pub mod tools;
pub mod topology;
pub mod traffic;
pub mod usage;
pub mod wait;
pub mod wg;

pub use adit::Adit;
pub use capture::Capture;
pub use datagrams::Datagrams;
pub use flood::Flood;
pub use host_state::HostState;
pub use netns::Namespace;
pub use noise::{Noise, NoiseOptions};
pub use probe::Probe;
pub use process::Process;
pub use quick::{Ends, Quick};
pub use raw_tun::RawTun;
pub use site::Site;
pub use streams::{StreamOptions, Streams};
pub use tools::require_root;
pub use topology::{Pair, PairOptions, Triple};
pub use wait::eventually;
