//! Asks the UAPI socket of an interface, whether Adit or another implementation serves it.
//!
//! Every wait is bounded: a socket that does not answer costs two seconds, one that never stops talking ten.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::codec::SetRequest;
use super::errno::UapiErrno;
use super::interface_index;
use super::reply::{DeviceState, ReplyParser};
use crate::socket::client::{ClientError, connect};
use crate::socket::socket_path;

pub use crate::socket::list;

/// A device that can be asked; every request makes a connection of its own.
#[derive(Debug, Clone)]
pub struct UapiClient {
    path: PathBuf,
    silence: Duration,
}

impl UapiClient {
    /// Names the socket `dir/ifname.sock`; nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError::Name`].
    pub fn new(dir: &Path, ifname: &str) -> Result<Self, ClientError> {
        Ok(Self { path: socket_path(dir, ifname)?, silence: SILENCE })
    }

    /// Changes how long the socket may be silent after a `get`; two seconds if not called.
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Asks for the device's state.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self) -> Result<DeviceState, ClientError> {
        let mut parser = ReplyParser::new(|name| Some(interface_index(name).unwrap_or(0)));
        self.converse(GET, self.silence, |line| match parser.line(line) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(state))) => Ok(Some(state)),
            Ok(Some(Err(errno))) => Err(self.refused(errno)),
            Err(reason) => Err(self.malformed(reason)),
        })
        .await
    }

    /// Asks for the device's state as text: the lines as they came, with the `errno` line and the blank line.
    ///
    /// # Errors
    /// [`ClientError`]; whether the lines make sense is not looked at.
    pub async fn get_text(&self) -> Result<Zeroizing<String>, ClientError> {
        let mut text = Zeroizing::new(String::new());
        self.converse(GET, self.silence, |line| {
            let line = str::from_utf8(line).map_err(|_| self.malformed("a line is not UTF-8"))?;
            push_wiped(&mut text, line);
            Ok(line.is_empty().then_some(()))
        })
        .await?;
        Ok(text)
    }

    /// Changes the device.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] if the device would not.
    pub async fn set(&self, request: &SetRequest) -> Result<(), ClientError> {
        let mut parser = ReplyParser::new(|_| None);
        self.converse(request.to_text().as_bytes(), SET_PATIENCE, |line| match parser.line(line) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(_))) => Ok(Some(())),
            Ok(Some(Err(errno))) => Err(self.refused(errno)),
            Err(reason) => Err(self.malformed(reason)),
        })
        .await
    }

    /// Sends a request and gives the lines of the answer to `take` until it has what it wants.
    async fn converse<T>(
        &self,
        request: &[u8],
        silence: Duration,
        take: impl FnMut(&[u8]) -> Result<Option<T>, ClientError>,
    ) -> Result<T, ClientError> {
        let limit = silence + TALK;
        let timed_out = || ClientError::TimedOut { path: self.path.clone(), limit };
        tokio::time::timeout(limit, self.exchange(request, silence, take)).await.map_err(|_| timed_out())?
    }

    async fn exchange<T>(
        &self,
        request: &[u8],
        silence: Duration,
        mut take: impl FnMut(&[u8]) -> Result<Option<T>, ClientError>,
    ) -> Result<T, ClientError> {
        let lost = |error| ClientError::from_lines(&self.path, error);
        let mut lines = connect(&self.path, silence.min(SILENCE), MAX_LINE).await?;
        lines.set_patience(silence);
        lines.send(request).await.map_err(lost)?;
        let mut received = 0;
        while let Some(line) = lines.next().await.map_err(lost)? {
            received += line.len() + 1;
            if received > MAX_ANSWER {
                return Err(self.malformed(format!("it is longer than {MAX_ANSWER} bytes")));
            }
            if let Some(done) = take(line)? {
                return Ok(done);
            }
        }
        Err(self.malformed("it ends without a blank line"))
    }

    fn malformed(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Malformed { path: self.path.clone(), reason: reason.into() }
    }

    fn refused(&self, errno: UapiErrno) -> ClientError {
        ClientError::Refused { path: self.path.clone(), reason: errno.to_string() }
    }
}

/// Appends a line; a text that must grow moves into a larger one and the old one is wiped.
fn push_wiped(text: &mut Zeroizing<String>, line: &str) {
    let needed = text.len() + line.len() + 1;
    if needed > text.capacity() {
        let mut larger = Zeroizing::new(String::with_capacity(needed.max(text.capacity() * 2).max(4096)));
        larger.push_str(text);
        *text = larger;
    }
    text.push_str(line);
    text.push('\n');
}

const GET: &[u8] = b"get=1\n\n";

/// How long a socket may be silent.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a device may take to apply a request: a little more than [`super::UapiLimits`] gives to Adit's own.
const SET_PATIENCE: Duration = Duration::from_secs(35);

/// How long an answer may take beyond the silence before it.
const TALK: Duration = Duration::from_secs(8);

/// Longest line of an answer in bytes, as the server's.
const MAX_LINE: usize = 64 << 10;

/// Longest answer in bytes.
const MAX_ANSWER: usize = 64 << 20;
