//! The edge of Adit: devices, UDP sockets, the memory that packets are in, and the only packet loop.
//!
//! Everything here moves bytes between the system and [`adit_core`]'s engine, in batches, on one thread, and decides
//! nothing about them. Linux, Apple's systems and plain memory differ only in their [`device::Device`] and
//! [`socket::Socket`].

pub mod batch;
mod bell;
pub mod clock;
pub mod device;
pub mod engine;
pub mod handle;
pub mod memory;
pub mod pump;
pub mod queue;
mod reactor;
mod ring;
pub mod socket;

pub use bell::Bell;
pub use clock::Clock;
pub use engine::{EngineCounters, PacketEngine, PumpOutputs};
pub use handle::{EventSink, PumpCommand, PumpCounters, PumpHandle, PumpSnapshot, PumpStats};
pub use pump::{ExitReason, Pump, PumpExit, PumpThread};
pub use reactor::Waker;
