//! Answers `adit status`, `adit down` and the like on `DIR/IF.sock`.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::{ApiError, ErrorCode, Request, Response, StatusReport, read_request, to_line};
use crate::socket::lines::{LineError, LineStream};
use crate::socket::{PrivateListener, SocketError};

/// The tunnel behind a control socket.
pub trait ApiHandler: Send + Sync + 'static {
    /// Tells the state of the tunnel.
    fn status(&self) -> impl Future<Output = Result<StatusReport, ApiError>> + Send;

    /// Reads the configuration again and applies what changed. Returns what could not be applied to a running tunnel.
    fn reload(&self) -> impl Future<Output = Result<Vec<String>, ApiError>> + Send;

    /// Begins to bring the tunnel down and returns without waiting for the end: whoever owns the server drops it when
    /// all is undone, and the client takes the closed connection for the sign.
    fn down(&self) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Waits until the tunnel is down, and tells what failed on the way. It may never return: see [`Self::down`].
    fn stopped(&self) -> impl Future<Output = Result<(), ApiError>> + Send {
        std::future::pending()
    }
}

/// What clients may make the server hold and wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Simultaneous connections; more of them wait in the kernel's queue.
    pub connections: usize,
    /// Longest request in bytes.
    pub line: usize,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// How long the handler may take; a reload resolves names.
    pub handler: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self { connections: 16, line: 4 << 10, idle: Duration::from_secs(60), handler: Duration::from_secs(60) }
    }
}

/// A bound control socket; the file is removed when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    listener: PrivateListener,
    limits: ApiLimits,
}

impl ApiServer {
    /// Binds `dir/ifname.sock`, where `dir` is [`super::SOCKET_DIR`] for all but tests.
    ///
    /// # Errors
    /// [`SocketError`], in particular when a running tunnel has the name.
    pub async fn bind(dir: &Path, ifname: &str) -> Result<Self, SocketError> {
        Ok(Self { listener: PrivateListener::bind(dir, ifname).await?, limits: ApiLimits::default() })
    }

    /// Changes the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: ApiLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Where clients connect.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves until dropped; the connections end with it.
    pub async fn run<H: ApiHandler>(&self, handler: Arc<H>) -> Infallible {
        let limits = self.limits;
        let connection = |stream| {
            let handler = handler.clone();
            async move {
                if let Err(error) = converse(stream, &*handler, limits).await {
                    tracing::debug!(%error, "a control connection ended early");
                }
            }
        };
        self.listener.serve(limits.connections, connection).await
    }
}

/// Answers the requests of one connection until it ends.
async fn converse<H: ApiHandler>(stream: UnixStream, handler: &H, limits: ApiLimits) -> Result<(), LineError> {
    let mut lines = LineStream::new(stream, limits.line, limits.idle);
    loop {
        let request = match lines.next().await {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => read_request(line),
            Err(LineError::TooLong { limit }) => {
                let message = format!("a request has at most {limit} bytes");
                let error = ApiError::new(ErrorCode::BadRequest, message);
                return lines.send(&encode(&Response::Error(error))).await;
            }
            Err(error) => return Err(error),
        };
        let response = match request {
            Err(error) => Response::Error(error),
            Ok(request) => tokio::time::timeout(limits.handler, perform(handler, request)).await.unwrap_or_else(|_| {
                let message = format!("the tunnel did not answer within {:?}", limits.handler);
                Response::Error(ApiError::new(ErrorCode::TimedOut, message))
            }),
        };
        let stopping = response == Response::Stopping;
        lines.send(&encode(&response)).await?;
        if stopping {
            let failed = tokio::select! {
                () = lines.closed() => None,
                stopped = handler.stopped() => stopped.err(),
            };
            return match failed {
                Some(error) => lines.send(&encode(&Response::Error(error))).await,
                None => Ok(()),
            };
        }
    }
}

async fn perform<H: ApiHandler>(handler: &H, request: Request) -> Response {
    let done = match request {
        Request::Status => handler.status().await.map(|report| Response::Status(Box::new(report))),
        Request::Reload => handler.reload().await.map(|warnings| Response::Reloaded { warnings }),
        Request::Down => handler.down().await.map(|()| Response::Stopping),
        Request::Version => {
            Ok(Response::Version { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() })
        }
    };
    done.unwrap_or_else(Response::Error)
}

fn encode(response: &Response) -> Vec<u8> {
    to_line(response).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot write an answer as JSON");
        let error = ApiError::new(ErrorCode::Failed, format!("cannot write the answer as JSON: {error}"));
        to_line(Response::Error(error)).unwrap_or_default()
    })
}
