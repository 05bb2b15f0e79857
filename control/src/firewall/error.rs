//! Why the host's firewall could not be used, in words that say what would help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the host's firewall could not be read or changed. Nothing was changed then, but for [`FirewallError::Timeout`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// The program `nft` is in no folder of PATH, and in none where distributions keep it.
    #[error(
        "the program `nft` is not installed: install the package `nftables` (Debian, Ubuntu, Fedora, Arch, Alpine), or \
         leave the kill switch off"
    )]
    NoProgram,
    /// The program `nft` is there and could not be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program's file.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program `nft` was built without JSON.
    #[error("{program} was built without JSON support: install a full `nftables` (Alpine, OpenWrt: `nftables-json`)")]
    NoJson {
        /// The program's file.
        program: PathBuf,
    },
    /// The process may not change the firewall.
    #[error("cannot {action}: not permitted: this needs root or the capability CAP_NET_ADMIN")]
    Permission {
        /// What was to be done.
        action: String,
    },
    /// The kernel has no nf_tables, or lacks a part that the rules need.
    #[error(
        "cannot {action}: this kernel does not support it: {message}. Load the modules `nf_tables`, `nft_ct`, \
         `nft_fib_inet` and `nft_reject_inet`, or start a kernel that has them"
    )]
    Kernel {
        /// What was to be done.
        action: String,
        /// What `nft` said.
        message: String,
    },
    /// `nft` gave no answer in time, so what was asked for may have been done or not.
    #[error("cannot {action}: `nft` did not end within {} s", .limit.as_secs())]
    Timeout {
        /// What was to be done.
        action: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// `nft` refused for another reason.
    #[error("cannot {action}: {message}")]
    Refused {
        /// What was to be done.
        action: String,
        /// What `nft` said.
        message: String,
    },
    /// What goes to or comes from `nft` is not the JSON that it should be.
    #[error("cannot {action}: `nft` and this program do not understand each other: {message}")]
    Answer {
        /// What was to be done.
        action: String,
        /// What is wrong with it.
        message: String,
    },
    /// The interface's name has a character that means something else to the firewall, or is empty or too long.
    #[error("`{name}` cannot be the name of a tunnel: it has to be 1 to 15 letters, digits and `_=+.-`")]
    Name {
        /// The name.
        name: String,
    },
}

impl FirewallError {
    /// Whether more privileges would help.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Permission { .. } => true,
            Self::Run { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// Whether the host has no firewall that could be used, whatever the rules: no program, or nothing in the kernel.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::NoProgram | Self::NoJson { .. } | Self::Kernel { .. })
    }
}
