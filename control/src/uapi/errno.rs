//! How a refused request is told: a number for the client, a sentence for the log.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;
use thiserror::Error;

/// The reason for a refusal as the protocol carries it. On the wire it is negative, as wireguard-go and the kernel
/// write it; wg(8) prints the message of the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UapiErrno(i32);

impl UapiErrno {
    /// The device could not be asked: EIO.
    pub const IO: Self = Self(Errno::EIO as i32);
    /// The text is not made of `key=value` lines and an empty one at the end: EPROTO.
    pub const PROTOCOL: Self = Self(Errno::EPROTO as i32);
    /// A key or a value that is not allowed: EINVAL.
    pub const INVALID: Self = Self(Errno::EINVAL as i32);
    /// The listen port or the mark could not be had: EADDRINUSE.
    pub const PORT_IN_USE: Self = Self(Errno::EADDRINUSE as i32);
    /// The request is longer than the server takes: EMSGSIZE.
    pub const TOO_LONG: Self = Self(Errno::EMSGSIZE as i32);
    /// Requests that come in at the same time are too large together: ENOBUFS.
    pub const NO_BUFFERS: Self = Self(Errno::ENOBUFS as i32);
    /// There are too many peers: ENOSPC.
    pub const NO_SPACE: Self = Self(Errno::ENOSPC as i32);
    /// The device did not answer in time: ETIMEDOUT.
    pub const TIMED_OUT: Self = Self(Errno::ETIMEDOUT as i32);

    /// Takes an errno value of this operating system in either sign; both occur in implementations of the protocol.
    pub const fn from_code(code: i32) -> Self {
        Self(code.saturating_abs())
    }

    /// The positive errno value.
    pub const fn code(self) -> i32 {
        self.0
    }
}

impl fmt::Display for UapiErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Errno::from_raw(self.0).desc())
    }
}

impl std::error::Error for UapiErrno {}

/// A line that was refused. No value of a secret key is in it, nor text that might be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: found {found}; allowed is {allowed}")]
pub struct UapiError {
    /// What the client is told.
    pub errno: UapiErrno,
    /// Which line, where the line that names the operation is 1.
    pub line: usize,
    /// What was there.
    pub found: String,
    /// What may be there.
    pub allowed: Cow<'static, str>,
}

impl UapiError {
    pub(super) fn new(
        errno: UapiErrno,
        line: usize,
        found: impl Into<String>,
        allowed: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { errno, line, found: found.into(), allowed: allowed.into() }
    }
}
