//! Answers wg(8) on `DIR/IF.sock`.
//!
//! A connection may carry any number of requests, one after the other. A refused `set` is read to its end before it is
//! answered, so that the next request on the connection is understood; a `get` that is no `get` is answered and the
//! connection closed, as is one whose request is too long. Everything a client can make the server hold or wait for is
//! bounded by [`UapiLimits`].

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;

use super::codec::{SetParser, SetRequest};
use super::errno::{UapiErrno, UapiError};
use super::interface_index;
use super::reply::GetReply;
use crate::socket::lines::{LineError, LineStream};
use crate::socket::{PrivateListener, SocketError};

/// The device behind a UAPI socket.
///
/// Requests of several connections may overlap; a handler that must not interleave them serialises them itself.
pub trait UapiHandler: Send + Sync + 'static {
    /// Tells the state of the device.
    fn get(&self) -> impl Future<Output = Result<GetReply, UapiErrno>> + Send;

    /// Applies a request as a whole, or refuses it and applies nothing. A peer with the device's own public key is to
    /// be passed over silently, as wireguard-go does.
    fn set(&self, request: SetRequest) -> impl Future<Output = Result<(), UapiErrno>> + Send;
}

/// What clients may make the server hold and wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UapiLimits {
    /// Simultaneous connections; more of them wait in the kernel's queue.
    pub connections: usize,
    /// Longest line in bytes: 64 KiB as in wireguard-go (bufio.MaxScanTokenSize). No line of the protocol needs 200.
    pub line: usize,
    /// Longest request in bytes, and of all requests being read at one time together.
    pub request: usize,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// How long the handler may take.
    pub handler: Duration,
}

impl Default for UapiLimits {
    fn default() -> Self {
        Self {
            connections: 16,
            line: 64 << 10,
            request: 64 << 20,
            idle: Duration::from_secs(60),
            handler: Duration::from_secs(30),
        }
    }
}

/// A bound UAPI socket; the file is removed when this is dropped.
#[derive(Debug)]
pub struct UapiServer {
    listener: PrivateListener,
    limits: UapiLimits,
}

impl UapiServer {
    /// Binds `dir/ifname.sock`, where `dir` is [`super::SOCKET_DIR`] for all but tests.
    ///
    /// # Errors
    /// [`SocketError`], in particular when a running tunnel has the name.
    pub async fn bind(dir: &Path, ifname: &str) -> Result<Self, SocketError> {
        Ok(Self { listener: PrivateListener::bind(dir, ifname).await?, limits: UapiLimits::default() })
    }

    /// Changes the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: UapiLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Where clients connect.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves until dropped; the connections end with it.
    pub async fn run<H: UapiHandler>(&self, handler: Arc<H>) -> Infallible {
        let limits = self.limits;
        let budget = Arc::new(Budget { left: AtomicUsize::new(limits.request) });
        let connection = |stream| {
            let (handler, budget) = (handler.clone(), budget.clone());
            async move {
                match converse(stream, &*handler, limits, &budget).await {
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "a UAPI connection ended early"),
                }
            }
        };
        self.listener.serve(limits.connections, connection).await
    }
}

/// Answers the requests of one connection until it ends.
async fn converse<H: UapiHandler>(
    stream: UnixStream,
    handler: &H,
    limits: UapiLimits,
    budget: &Budget,
) -> Result<(), LineError> {
    let mut lines = LineStream::new(stream, limits.line, limits.idle);
    loop {
        match lines.next().await? {
            None => return Ok(()),
            Some(b"get=1") => match lines.next().await? {
                Some(b"") => match within(limits.handler, handler.get()).await {
                    Ok(reply) => lines.send(reply.to_text().as_bytes()).await?,
                    Err(errno) => answer(&mut lines, errno).await?,
                },
                _ => return answer(&mut lines, UapiErrno::INVALID).await,
            },
            Some(b"set=1") => match read_set(&mut lines, limits, budget).await {
                Ok(request) => match within(limits.handler, handler.set(request)).await {
                    Ok(()) => lines.send(b"errno=0\n\n").await?,
                    Err(errno) => answer(&mut lines, errno).await?,
                },
                Err(Refusal { error, at_end }) => {
                    tracing::warn!(errno = %error.errno, line = error.line, "refused a UAPI request");
                    tracing::debug!(%error, "the UAPI request that was refused");
                    answer(&mut lines, error.errno).await?;
                    if !at_end {
                        return Ok(());
                    }
                }
            },
            Some(_) => {
                tracing::debug!("closing a UAPI connection that asks for neither get=1 nor set=1");
                return Ok(());
            }
        }
    }
}

/// A refused `set`.
struct Refusal {
    error: UapiError,
    /// Whether the request was read to its blank line, so that another may follow.
    at_end: bool,
}

/// Reads the rest of a `set` request, to its blank line even if a line before is refused.
async fn read_set(lines: &mut LineStream, limits: UapiLimits, budget: &Budget) -> Result<SetRequest, Refusal> {
    let mut claim = Claim { budget, bytes: 0 };
    let mut parser = SetParser::new(interface_index);
    let mut refused: Option<UapiError> = None;
    let mut number = 1;
    let give_up = |refused: Option<UapiError>, error| Refusal { error: refused.unwrap_or(error), at_end: false };
    loop {
        number += 1;
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Err(LineError::TooLong { .. }) => {
                let allowed = format!("at most {} bytes in a line", limits.line);
                let error = UapiError::new(UapiErrno::TOO_LONG, number, "a longer line", allowed);
                return Err(give_up(refused, error));
            }
            Err(LineError::Silent(_)) => {
                let error = UapiError::new(UapiErrno::TIMED_OUT, number, "silence", "a blank line to end the request");
                return Err(give_up(refused, error));
            }
            Ok(None) | Err(LineError::Truncated | LineError::Io(_)) => {
                return Err(give_up(refused, parser.truncated()));
            }
        };
        if let Err(errno) = claim.add(line.len() + 1, limits.request) {
            let allowed = format!("{} bytes in a request, and in all that are read at one time", limits.request);
            let error = UapiError::new(errno, number, "more text", allowed);
            return Err(give_up(refused, error));
        }
        let ended = match &refused {
            Some(_) => line.is_empty() || line == b"\r",
            None => parser.line(line).unwrap_or_else(|error| {
                refused = Some(error);
                false
            }),
        };
        match (ended, refused.take()) {
            (true, Some(error)) => return Err(Refusal { error, at_end: true }),
            (true, None) => return Ok(parser.finish()),
            (false, kept) => refused = kept,
        }
    }
}

async fn answer(lines: &mut LineStream, errno: UapiErrno) -> Result<(), LineError> {
    lines.send(format!("errno=-{}\n\n", errno.code()).as_bytes()).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, UapiErrno>>) -> Result<T, UapiErrno> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(UapiErrno::TIMED_OUT))
}

/// Bytes that may still be read by requests that are under way.
#[derive(Debug)]
struct Budget {
    left: AtomicUsize,
}

/// One request's part of the budget; given back when dropped.
struct Claim<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Claim<'_> {
    fn add(&mut self, bytes: usize, limit: usize) -> Result<(), UapiErrno> {
        if self.bytes + bytes > limit {
            return Err(UapiErrno::TOO_LONG);
        }
        let left = &self.budget.left;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .map_err(|_| UapiErrno::NO_BUFFERS)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}
