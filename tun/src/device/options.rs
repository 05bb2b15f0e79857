//! What a tun device should be, and why there is none: the same on every system that has such devices.

use std::io;

use thiserror::Error;

/// What a tun device should be.
#[derive(Debug, Clone)]
pub struct TunOptions {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// The MTU in bytes.
    pub mtu: usize,
    /// Take over a persistent tun device of that name, if there is one; this needs no privilege if root made it ours
    /// (`ip tuntap add … user`). Otherwise an interface of that name is an error.
    pub attach: bool,
    /// Use the offloads that the kernel has.
    pub offload: bool,
}

/// Why there is no tun device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TunError {
    /// The kernel takes no such name (dev_valid_name in net/core/dev.c of Linux, utun_ctl_connect of xnu).
    #[error("`{name}` cannot be {}", NAMES)]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The name is taken.
    #[error("there is an interface `{name}` already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Making network devices takes CAP_NET_ADMIN.
    #[error("no permission to make a tun device: this takes {} ({source})", PRIVILEGE)]
    Permission {
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no /dev/net/tun, or nothing behind it.
    #[error("this kernel has no {} ({source})", DRIVER)]
    NoDriver {
        /// What the kernel said.
        source: io::Error,
    },
    /// The MTU is not one for this device.
    #[error("`{name}` does not take an MTU of {mtu} bytes ({source})")]
    Mtu {
        /// The interface.
        name: String,
        /// What was asked for.
        mtu: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("the tun device `{name}` could not be made: {source}")]
    Other {
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the messages above say of each system.
#[cfg(not(target_vendor = "apple"))]
const NAMES: &str =
    "an interface's name: it takes 1 to 15 bytes without spaces, `/`, `:` and `%`, and neither `.` nor `..`";
#[cfg(not(target_vendor = "apple"))]
const PRIVILEGE: &str = "root or CAP_NET_ADMIN";
#[cfg(not(target_vendor = "apple"))]
const DRIVER: &str = "tun driver behind /dev/net/tun: try `modprobe tun`, or allow it in the container";
#[cfg(target_vendor = "apple")]
const NAMES: &str = "a tun device's name here: it is `utun` and a number, or `utun` for any free number";
#[cfg(target_vendor = "apple")]
const PRIVILEGE: &str = "root";
#[cfg(target_vendor = "apple")]
const DRIVER: &str = "utun control";
