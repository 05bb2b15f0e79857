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
    Monitor, apply, apply_with, binding, keeps_closed, mark_in_force, pin, pulled_out, set_queue_length, undo,
    undo_but_stay_closed,
};
pub use error::{Reason, RouteError};
#[cfg(target_os = "linux")]
pub use linux::{
    Monitor, apply, apply_with, binding, inspect, keeps_closed, mark_in_force, pin, pulled_out, set_queue_length, undo,
    undo_but_stay_closed,
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
    /// What the tunnel's own sockets must be bound to.
    pub binding: Binding,
    /// How many changes were made: 0 if the host conformed already.
    pub changed: usize,
}

/// What a tunnel's own sockets must be bound to, where that keeps their datagrams out of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nothing.
    Free,
    /// The interface with this number.
    To(NonZeroU32),
    /// A physical interface, and there is none with a network at the moment: they stay as they are until there is.
    Unchanged,
}

impl Binding {
    /// The interface's number.
    #[must_use]
    pub fn interface(self) -> Option<NonZeroU32> {
        match self {
            Self::To(index) => Some(index),
            Self::Free | Self::Unchanged => None,
        }
    }
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
