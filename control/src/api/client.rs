//! Talks to the control socket of a running tunnel, with a bound on every wait.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ApiError, Envelope, ErrorCode, Operation, Request, Response, StatusReport, to_line};
use crate::socket::client::{ClientError, connect};
use crate::socket::lines::{LineError, LineStream};
use crate::socket::socket_path;

/// A connection to a running tunnel.
#[derive(Debug)]
pub struct ApiClient {
    path: PathBuf,
    lines: LineStream,
}

impl ApiClient {
    /// Connects to `dir/ifname.sock`, where `dir` is [`super::SOCKET_DIR`] for all but tests.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NotRunning`] if there is no tunnel.
    pub async fn connect(dir: &Path, ifname: &str) -> Result<Self, ClientError> {
        let path = socket_path(dir, ifname)?;
        let lines = connect(&path, SILENCE, MAX_ANSWER).await?;
        Ok(Self { path, lines })
    }

    /// Asks for everything but secrets.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&mut self) -> Result<StatusReport, ClientError> {
        match self.request(Request::Status, SILENCE).await? {
            Response::Status(report) => Ok(*report),
            other => Err(self.unexpected(other)),
        }
    }

    /// Has the configuration read again. Returns what needs a restart to take effect.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::BadConfiguration`] or [`ClientError::Refused`] with the reason if the new configuration is not in force.
    pub async fn reload(&mut self) -> Result<Vec<String>, ClientError> {
        match self.request(Request::Reload, RELOAD).await? {
            Response::Reloaded { warnings } => Ok(warnings),
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks for the version of Adit and the process that answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn version(&mut self) -> Result<(String, u32), ClientError> {
        match self.request(Request::Version, SILENCE).await? {
            Response::Version { version, pid } => Ok((version, pid)),
            other => Err(self.unexpected(other)),
        }
    }

    /// Brings the tunnel down and waits, at most `limit`, until it has undone everything.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::TimedOut`] if it is still at it, [`ClientError::Stopped`] if it is down and
    /// something failed on the way.
    pub async fn down(mut self, limit: Duration) -> Result<(), ClientError> {
        match self.request(Request::Down, SILENCE).await? {
            Response::Stopping => {}
            other => return Err(self.unexpected(other)),
        }
        self.lines.set_patience(limit);
        match self.lines.next().await {
            Ok(Some(line)) => match serde_json::from_slice::<Envelope<Response>>(line).map(|line| line.content) {
                Ok(Response::Error(error)) => Err(ClientError::Stopped { reason: error.message }),
                _ => Err(self.malformed("something else than the end of the connection or an error")),
            },
            Err(LineError::Silent(limit)) => Err(ClientError::TimedOut { path: self.path, limit }),
            // However the connection ended, the tunnel has.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Sends a request and reads its answer, which may take `patience` to begin.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal is [`Response::Error`] here.
    pub async fn request(&mut self, request: Request, patience: Duration) -> Result<Response, ClientError> {
        let line = to_line(Operation { op: request }).map_err(|error| self.malformed(error.to_string()))?;
        self.lines.set_patience(patience);
        let limit = patience + TALK;
        let exchange = async {
            self.lines.send(&line).await?;
            Ok(self.lines.next().await?.map(serde_json::from_slice::<Envelope<Response>>))
        };
        let answer: Result<_, LineError> = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| ClientError::TimedOut { path: self.path.clone(), limit })?;
        match answer.map_err(|error| ClientError::from_lines(&self.path, error))? {
            Some(Ok(envelope)) => Ok(envelope.content),
            Some(Err(error)) => Err(self.malformed(error.to_string())),
            None => Err(self.malformed("the connection was closed without an answer")),
        }
    }

    fn unexpected(&self, response: Response) -> ClientError {
        match response {
            Response::Error(ApiError { code: ErrorCode::BadConfiguration, message }) => {
                ClientError::BadConfiguration { reason: message }
            }
            Response::Error(error) => ClientError::Refused { path: self.path.clone(), reason: error.message },
            _ => self.malformed("it answers another request"),
        }
    }

    fn malformed(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Malformed { path: self.path.clone(), reason: reason.into() }
    }
}

/// How long a tunnel may be silent.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a reload may take: a little more than [`super::ApiLimits`] gives to it.
const RELOAD: Duration = Duration::from_secs(65);

/// How long an answer may take from its first byte on.
const TALK: Duration = Duration::from_secs(8);

/// Longest answer in bytes: 2^16 peers with 1 KiB each.
const MAX_ANSWER: usize = 64 << 20;
