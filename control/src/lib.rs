//! Everything slow: configuration, what the operating system is told, and the handle of a running tunnel.
//!
//! `config` turns text into types, `settings` derives from them what the host must apply, `route` and `firewall` apply it
//! and `journal` remembers how to undo it. `tunnel` joins these with the packet loop of adit-tun; `uapi` and `api` are the
//! two sockets through which others talk to it.

pub mod api;
pub mod config;
pub mod debounce;
#[cfg(target_os = "linux")]
pub mod doctor;
pub mod endpoints;
#[cfg(target_os = "linux")]
pub mod explain;
pub mod firewall;
pub mod hosted;
pub mod journal;
mod narrate;
#[cfg(target_os = "linux")]
pub mod recover;
pub mod redact;
#[cfg(target_os = "linux")]
pub mod route;
mod scratch;
pub mod session;
pub mod settings;
pub mod socket;
mod timestamp;
#[cfg(target_os = "linux")]
pub mod tunnel;
pub mod uapi;
