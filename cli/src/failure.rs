//! Why a command failed, as an exit code and a sentence.

use std::io::Write as _;
use std::process::ExitCode;

/// The exit codes of `adit`, as its help lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// 0: nobody reads what is printed any more, as in `adit man | head`.
    NobodyReads,
    /// 1: it failed.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: the configuration is wrong.
    Configuration,
    /// 4: not permitted.
    NotPermitted,
    /// 5: it is there already.
    Exists,
    /// 6: no such tunnel.
    NotFound,
    /// 7: a name does not resolve, or the network does not answer.
    Network,
    /// 130: interrupted before it was done, and undone.
    Interrupted,
}

impl Kind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::NobodyReads => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::NotPermitted => 4,
            Self::Exists => 5,
            Self::NotFound => 6,
            Self::Network => 7,
            Self::Interrupted => 130,
        }
    }
}

/// A failure to tell a person about.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl std::fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// A failure of the plain kind.
    pub(crate) fn failed(message: impl std::fmt::Display) -> Self {
        Self::new(Kind::Failed, message)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Kind::NotPermitted,
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AlreadyExists => Kind::Exists,
            std::io::ErrorKind::NotFound => Kind::NotFound,
            // Only standard output is written to without an error type of its own.
            std::io::ErrorKind::BrokenPipe => Kind::NobodyReads,
            _ => Kind::Failed,
        };
        Self::new(kind, error)
    }
}

/// Prints a line to standard error; that nobody reads it is no reason to fail, or to panic as `eprintln!` does.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _unread = writeln!(anstream::stderr(), "{line}");
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;
