//! What it means when the system does not send a datagram.
//!
//! Nothing of it is fatal for a tunnel: firewalls are reloaded, routes and addresses come and go, queues drain. Each kind
//! has a counter, and a log line now and then; addresses are only in lines at DEBUG.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::libc;

/// Declares the kinds once, with the name that counters and log lines use.
macro_rules! kinds {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why the system did not send.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum SendErrorKind {
            $($(#[$doc])+ $variant,)+
        }

        impl SendErrorKind {
            /// Every kind, in the order of the counters.
            pub const ALL: &'static [SendErrorKind] = &[$(SendErrorKind::$variant,)+];

            /// The name in counters and log lines.
            pub const fn name(self) -> &'static str {
                match self {
                    $(SendErrorKind::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A packet filter forbids it, or a privacy setting of the system (EPERM, EACCES).
    Forbidden = "forbidden",
    /// There is no way to the destination now (ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN).
    Unreachable = "unreachable",
    /// The address to send from is not, or no longer, the host's own (EADDRNOTAVAIL).
    NoSource = "no_source",
    /// Queues or memory are full (ENOBUFS, ENOMEM); on Apple's systems this is what a fast sender sees.
    NoBuffers = "no_buffers",
    /// Longer than anything that can be sent there (EMSGSIZE).
    TooBig = "too_big",
    /// The socket is of no use any more (EBADF, ENOTCONN, EPIPE, ENOTSOCK), as after sleep on iOS; it is made anew.
    Broken = "broken",
    /// No socket of the destination's address family exists on this host.
    NoFamily = "no_family",
    /// Anything else.
    Other = "other",
}

impl SendErrorKind {
    /// Classifies an error of sendmsg(2).
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => Self::Unreachable,
            Some(libc::EADDRNOTAVAIL) => Self::NoSource,
            Some(libc::ENOBUFS | libc::ENOMEM) => Self::NoBuffers,
            Some(libc::EMSGSIZE) => Self::TooBig,
            Some(libc::EBADF | libc::ENOTCONN | libc::EPIPE | libc::ENOTSOCK) => Self::Broken,
            Some(libc::EAFNOSUPPORT) => Self::NoFamily,
            _ => Self::Other,
        }
    }
}

/// One counter for each [`SendErrorKind`]: datagrams that were not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendErrors([u64; KINDS]);

impl SendErrors {
    /// How many datagrams were lost to `kind`.
    pub fn get(&self, kind: SendErrorKind) -> u64 {
        self.0[kind as usize]
    }

    /// The kinds that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (SendErrorKind, u64)> + '_ {
        SendErrorKind::ALL.iter().map(|kind| (*kind, self.get(*kind))).filter(|(_, count)| *count > 0)
    }
}

/// Counts, and logs each kind at most once in [`LOG_INTERVAL`].
#[derive(Debug, Default)]
pub(crate) struct SendErrorLog {
    counts: SendErrors,
    logged: [Option<(Instant, u64)>; KINDS],
}

impl SendErrorLog {
    pub(crate) fn counts(&self) -> SendErrors {
        self.counts
    }

    /// Counts `datagrams` datagrams to `remote` that were lost to `kind`.
    pub(crate) fn count(
        &mut self,
        kind: SendErrorKind,
        datagrams: usize,
        remote: SocketAddr,
        error: &dyn fmt::Display,
    ) {
        let count = &mut self.counts.0[kind as usize];
        *count += datagrams as u64;
        tracing::debug!(kind = kind.name(), datagrams, %remote, %error, "not sent");

        // The log's pace is no part of any state machine, so the plain clock does.
        let now = Instant::now();
        let logged = &mut self.logged[kind as usize];
        if logged.is_none_or(|(at, _)| now.duration_since(at) >= LOG_INTERVAL) {
            let before = logged.map_or(0, |(_, count)| count);
            let lost = *count - before;
            tracing::warn!(kind = kind.name(), lost, %error, "datagrams could not be sent; the tunnel goes on trying");
            *logged = Some((now, *count));
        }
    }
}

const KINDS: usize = SendErrorKind::ALL.len();

/// A firewall that forbids everything must not fill the disk with log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_like_the_list() {
        for (index, kind) in SendErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }

    #[test]
    fn errors_are_counted_by_kind_and_logged_seldom() {
        let mut log = SendErrorLog::default();
        let remote = ([192, 0, 2, 1], 51_820).into();
        for (errno, kind) in [
            (libc::EPERM, SendErrorKind::Forbidden),
            (libc::EHOSTUNREACH, SendErrorKind::Unreachable),
            (libc::EADDRNOTAVAIL, SendErrorKind::NoSource),
            (libc::ENOBUFS, SendErrorKind::NoBuffers),
            (libc::EMSGSIZE, SendErrorKind::TooBig),
            (libc::EBADF, SendErrorKind::Broken),
            (libc::EIO, SendErrorKind::Other),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(SendErrorKind::of(&error), kind);
            log.count(kind, 3, remote, &error);
            let first = log.logged[kind as usize].unwrap();
            log.count(kind, 4, remote, &error);
            assert_eq!(log.counts().get(kind), 7);
            assert_eq!(log.logged[kind as usize].unwrap(), first, "one line a minute");
        }
        assert_eq!(log.counts().iter().count(), 7);
    }
}
