//! Applies a tunnel's [`Settings`](crate::settings::Settings) to the host, and takes them back: one set of functions, and a
//! folder of its own for each system that has them.
//!
//! What a plan says and what the kernel's bytes mean is pure in `darwin`, so it is built and tested on Linux as well. Which
//! of the systems is meant is decided here and nowhere else.

#[cfg(any(target_os = "linux", target_os = "macos"))]
pub mod darwin;
mod error;
#[cfg(target_os = "linux")]
mod linux;
mod mtu;

use std::num::NonZeroU32;

use ipnet::IpNet;

#[cfg(target_os = "macos")]
pub use darwin::system::{
    Monitor, apply, apply_with, bind_interface, keeps_closed, mark_in_force, pin, pulled_out, set_queue_length, undo,
    undo_but_stay_closed,
};
pub use error::{Reason, RouteError};
#[cfg(target_os = "linux")]
pub use linux::{
    Monitor, apply, apply_with, bind_interface, inspect, keeps_closed, mark_in_force, pin, pulled_out,
    set_queue_length, undo, undo_but_stay_closed,
};

/// What was applied, with the numbers that the settings left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The interface's number.
    pub index: u32,
    /// The interface's MTU in bytes.
    pub mtu: u16,
    /// The mark that the tunnel's own packets must carry, if there are policy rules or a kill switch.
    pub fwmark: Option<u32>,
    /// The tunnel's own table, if there are policy rules.
    pub table: Option<u32>,
    /// The interface that the tunnel's own sockets must be bound to, where that keeps them out of the tunnel.
    pub bind_interface: Option<NonZeroU32>,
    /// How many changes were made: 0 if the host conformed already.
    pub changed: usize,
}

/// A route in the main table that takes traffic out of a full tunnel, as it does with wg-quick.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PulledOut {
    /// The destinations.
    pub net: IpNet,
    /// The interface that they leave by, if there is just one.
    pub interface: Option<u32>,
    /// Whether the kernel made the route for an address of the interface, so that it is a connected network.
    pub connected: bool,
}
