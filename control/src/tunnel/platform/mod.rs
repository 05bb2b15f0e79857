//! What a tunnel does differently from system to system, beside routes: its device, and who is told of DNS servers.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;

#[cfg(target_os = "linux")]
pub(super) use linux::{Dns, HostDevice, PULLED_OUT_HELP, STATE_DIR, before_up, open_device};
#[cfg(target_os = "macos")]
pub(super) use macos::{Dns, HostDevice, PULLED_OUT_HELP, STATE_DIR, before_up, open_device};
