//! Everything slow of a tunnel: what the host must apply, how it is applied and how it is undone.

pub mod journal;
#[cfg(target_os = "linux")]
pub mod route;
pub mod settings;
