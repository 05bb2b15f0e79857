//! Why the host's routing could not be set up or undone, in words that name the object and what would help.

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::firewall::FirewallError;
use crate::journal::JournalError;

/// Why the host's routing could not be set up or undone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// There is no such interface.
    #[error("there is no network interface `{name}`")]
    NoDevice {
        /// The name that was looked up.
        name: String,
    },
    /// The kernel refused a change or a question.
    #[error("cannot {action} {object}: {reason}")]
    Kernel {
        /// A verb: "add", "remove", "list".
        action: &'static str,
        /// What, with its values.
        object: String,
        /// The kernel's answer.
        reason: Reason,
    },
    /// Something else holds the place of a route or address.
    #[error("cannot add {object}: another one for the same destination exists already, and is left alone")]
    Conflict {
        /// What was to be added.
        object: String,
    },
    /// IPv6 needs an MTU of 1280 bytes at least (RFC 8200 section 5); below it the kernel drops a device's IPv6 silently.
    #[error("MTU {mtu} is too small for the tunnel's IPv6 addresses and routes: 1280 is the least, or leave IPv6 out")]
    MtuTooSmall {
        /// The configured MTU in bytes.
        mtu: u16,
    },
    /// The settings need something that this system does not have.
    #[error("{key} is not supported on macOS: {reason}")]
    Unsupported {
        /// The key of the configuration.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// No table is free for the default routes of a full tunnel.
    #[error("no routing table from {first} to {last} is free for the tunnel's own routes: set a FwMark, or a Table")]
    NoTable {
        /// The first one that was looked at.
        first: u32,
        /// The last one that was looked at.
        last: u32,
    },
    /// No two neighbouring rule priorities are free before the main table's rule.
    #[error("no pair of {family} rule priorities below 32766 is free for the full tunnel's rules")]
    NoPriority {
        /// "IPv4" or "IPv6".
        family: crate::settings::Family,
    },
    /// A kernel parameter could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Sysctl {
        /// A verb, with the value: "read", "write 1 to".
        action: String,
        /// The file below /proc/sys.
        path: String,
        /// The file system's answer.
        source: io::Error,
    },
    /// A socket's file could not be removed.
    #[error("cannot remove the socket {path}: {source}")]
    Socket {
        /// The file.
        path: String,
        /// The file system's answer.
        source: io::Error,
    },
    /// The firewall could not be set up or taken back.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// The journal could not be written, so nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal speaks of another network namespace, where this process must not touch anything.
    #[error("the changes of tunnel `{name}` were made in another network namespace: undo them from there")]
    OtherNamespace {
        /// The tunnel.
        name: String,
    },
    /// Some changes could not be undone; they are still in the journal.
    #[error("{}{}", before(cause.as_deref()), listed(left))]
    Left {
        /// What failed first, if this happened on the way back from a failure.
        cause: Option<Box<RouteError>>,
        /// What could not be undone, and why.
        left: Vec<RouteError>,
    },
}

/// The kernel's answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It refused with this error number.
    Errno(Errno),
    /// It did not answer in time.
    Timeout,
    /// It answered with something that does not answer the question, or its socket is closed.
    Unexpected,
    /// There is no socket to be had.
    NoSocket(Errno),
}

impl RouteError {
    /// Whether more privileges would help.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Kernel { reason: Reason::Errno(Errno::EPERM), .. } => true,
            Self::Sysctl { source, .. }
            | Self::Socket { source, .. }
            | Self::Journal(JournalError::Io { source, .. }) => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Firewall(error) => error.is_permission(),
            Self::Left { cause: Some(cause), .. } => cause.is_permission(),
            Self::Left { cause: None, left } => left.iter().any(Self::is_permission),
            _ => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "{} ({errno:?})", in_words(*errno)),
            Self::Timeout => f.write_str("the kernel did not answer in time"),
            Self::Unexpected => f.write_str("the kernel's answer could not be understood"),
            Self::NoSocket(errno) => write!(f, "no socket: {}", errno.desc()),
        }
    }
}

#[cfg(target_os = "linux")]
const PERMISSION: &str = "not permitted: this needs root or the capability CAP_NET_ADMIN";
#[cfg(not(target_os = "linux"))]
const PERMISSION: &str = "not permitted: this needs root";

/// What an errno of rtnetlink(7) or route(4) means for routes, rules, addresses and links, where its general text would mislead.
fn in_words(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => PERMISSION,
        #[cfg(target_os = "linux")]
        Errno::EACCES => "IPv6 is switched off on this interface (sysctl net.ipv6.conf.*.disable_ipv6)",
        Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP => {
            "this kernel does not support it (is the address family switched off?)"
        }
        Errno::EEXIST => "it exists already",
        Errno::EINVAL | Errno::ERANGE => "the kernel does not accept these values",
        Errno::ENODEV | Errno::ENXIO => "the interface is gone",
        Errno::ENETDOWN => "the interface is down",
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => "there is no route to it",
        Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL => "it does not exist",
        Errno::ENOBUFS | Errno::ENOMEM => "the kernel is out of memory or at a limit",
        other => other.desc(),
    }
}

fn before(cause: Option<&RouteError>) -> String {
    cause.map(|cause| format!("{cause}; on the way back: ")).unwrap_or_default()
}

fn listed(left: &[RouteError]) -> String {
    left.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_failed_why_and_what_helps() {
        let refused = |errno| RouteError::Kernel {
            action: "add",
            object: "the route 10.0.0.0/8 dev adit0 table 254".into(),
            reason: Reason::Errno(errno),
        };
        let text = refused(Errno::EPERM).to_string();
        assert!(text.starts_with("cannot add the route 10.0.0.0/8 dev adit0 table 254: not permitted"), "{text}");
        assert!(text.contains("CAP_NET_ADMIN") && text.ends_with("(EPERM)"), "{text}");
        assert!(refused(Errno::EPERM).is_permission() && !refused(Errno::EEXIST).is_permission());

        let both =
            RouteError::Left { cause: Some(Box::new(refused(Errno::EPERM))), left: vec![refused(Errno::ENODEV)] };
        assert!(both.is_permission());
        assert!(both.to_string().contains("; on the way back: cannot add"), "{both}");
    }
}
