//! The way to a control socket from the other side, and what can be wrong with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;

use super::SocketError;
use super::lines::{LineError, LineStream};

/// Why a control socket gave no usable answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The name cannot be an interface's, or the directory is too deep.
    #[error(transparent)]
    Name(#[from] SocketError),
    /// There is no socket, or nobody behind it.
    #[error("{}: no tunnel runs there", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("{}: only its owner and root may connect", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// No answer came in time.
    #[error("{}: no answer within {limit:?}", path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The answer is not one of the protocol.
    #[error("{}: not an answer of the protocol: {reason}", path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong, without any value.
        reason: String,
    },
    /// The device answered that it could or would not.
    #[error("{}: refused: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tunnel answered that its configuration is wrong.
    #[error("{reason}")]
    BadConfiguration {
        /// All that is wrong.
        reason: String,
    },
    /// The tunnel is down, and something failed on the way.
    #[error("{reason}")]
    Stopped {
        /// What failed.
        reason: String,
    },
    /// The socket failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl ClientError {
    /// Whether there simply is no tunnel, as opposed to one that cannot be talked to.
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    pub(crate) fn from_lines(path: &Path, error: LineError) -> Self {
        let path = path.to_owned();
        match error {
            LineError::TooLong { .. } | LineError::Truncated => Self::Malformed { path, reason: error.to_string() },
            LineError::Silent(limit) => Self::TimedOut { path, limit },
            // A process that dies in the middle of a conversation leaves it like this.
            LineError::Io(source)
                if matches!(source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
            {
                Self::NotRunning { path }
            }
            LineError::Io(source) => Self::Io { path, source },
        }
    }
}

/// Connects to a control socket.
pub(crate) async fn connect(path: &Path, patience: Duration, max_line: usize) -> Result<LineStream, ClientError> {
    let owned = || path.to_owned();
    match tokio::time::timeout(patience, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => Ok(LineStream::new(stream, max_line, patience)),
        Err(_) => Err(ClientError::TimedOut { path: owned(), limit: patience }),
        Ok(Err(source)) => Err(match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { path: owned() },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { path: owned() },
            _ => ClientError::Io { path: owned(), source },
        }),
    }
}
