//! Adit's own control protocol, for what WireGuard's cannot say: drops by reason, the file behind a tunnel, reload, stop.
//!
//! One JSON object a line each way on `/run/adit/IF.sock`, mode 0600: `{"v":1,"op":"status"}` is answered by
//! `{"v":1,"result":"status",…}` or `{"v":1,"result":"error","code":…,"message":…}`. Unknown members are ignored on both
//! sides, so that either may be newer; `v` changes when that no longer suffices. No secret ever passes here.

mod client;
mod report;
mod routing;
mod server;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::socket::client::ClientError;
pub use client::ApiClient;
pub use report::{EngineCounters, PeerReport, StatusReport, TunnelFacts};
pub use routing::{Layout, RoutingReport};
pub use server::{ApiHandler, ApiLimits, ApiServer};

/// Where the sockets of running tunnels are.
#[cfg(not(target_os = "macos"))]
pub const SOCKET_DIR: &str = "/run/adit";
/// Where the sockets and journals are: macOS empties it at each start too.
#[cfg(target_os = "macos")]
pub const SOCKET_DIR: &str = "/var/run/adit";

/// The version of the protocol, member `v` of every line.
pub const VERSION: u32 = 1;

/// What a tunnel can be asked for; member `op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Tell everything but secrets.
    Status,
    /// Read the configuration file again and apply what changed.
    Reload,
    /// Bring the tunnel down. The connection is closed when all is undone; if something failed on the way, an error is
    /// sent before that.
    Down,
    /// Tell which program answers.
    Version,
}

/// What is answered; member `result` and those of the variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Reload`]: it was applied.
    Reloaded {
        /// What the file asks for and needs a restart, one sentence each.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// To [`Request::Down`]: it was begun.
    Stopping,
    /// To [`Request::Version`].
    Version {
        /// The version of Adit.
        version: String,
        /// Its process.
        pid: u32,
    },
    /// To anything that could not be done.
    Error(ApiError),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what, where, and what would be right.
    pub message: String,
}

impl ApiError {
    /// Makes an error out of its parts.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The kinds of [`ApiError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The line is not an object with `v` and `op`.
    BadRequest,
    /// `v` is not [`VERSION`].
    UnsupportedVersion,
    /// `op` is not one of [`Request`].
    UnknownOperation,
    /// The new configuration is wrong; the old one stays in force.
    BadConfiguration,
    /// The tunnel did not do it in time.
    TimedOut,
    /// The tunnel tried and failed.
    Failed,
    /// A code that this program is too old to know.
    #[serde(other)]
    Unknown,
}

/// A line: the version and what it carries.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    content: T,
}

/// [`Request`] as a member.
#[derive(Debug, Serialize, Deserialize)]
struct Operation {
    op: Request,
}

/// Writes a line with its line feed.
fn to_line(content: impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Envelope { v: VERSION, content })?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a request, telling apart what a caller can do something about.
fn read_request(line: &[u8]) -> Result<Request, ApiError> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
        op: String,
    }
    let Head { v, op } = serde_json::from_slice(line).map_err(|error| {
        let message = format!("not a request: {error}; a request looks like {{\"v\":{VERSION},\"op\":\"status\"}}");
        ApiError::new(ErrorCode::BadRequest, message)
    })?;
    if v != VERSION {
        let message = format!("found version {v} of the protocol; this program speaks version {VERSION}");
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
    }
    serde_json::from_value(serde_json::Value::String(op)).map_err(|_| {
        ApiError::new(ErrorCode::UnknownOperation, "unknown op; allowed are status, reload, down and version")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        for (request, text) in [
            (Request::Status, r#"{"v":1,"op":"status"}"#),
            (Request::Reload, r#"{"v":1,"op":"reload"}"#),
            (Request::Down, r#"{"v":1,"op":"down"}"#),
            (Request::Version, r#"{"v":1,"op":"version"}"#),
        ] {
            let line = to_line(Operation { op: request }).unwrap();
            assert_eq!(line, format!("{text}\n").as_bytes());
            assert_eq!(read_request(text.as_bytes()).unwrap(), request);
        }
        assert_eq!(read_request(br#" {"op":"down","why":"tired","v":1}"#).unwrap(), Request::Down);
    }

    #[test]
    fn wrong_requests_say_what_is_wrong() {
        for (line, code) in [
            ("", ErrorCode::BadRequest),
            ("get=1", ErrorCode::BadRequest),
            (r#"{"v":1}"#, ErrorCode::BadRequest),
            (r#"{"v":1,"op":7}"#, ErrorCode::BadRequest),
            (r#"{"v":2,"op":"fly"}"#, ErrorCode::UnsupportedVersion),
            (r#"{"v":1,"op":"fly"}"#, ErrorCode::UnknownOperation),
        ] {
            assert_eq!(read_request(line.as_bytes()).unwrap_err().code, code, "{line}");
        }
        let bottomless = "[".repeat(60_000);
        assert_eq!(read_request(bottomless.as_bytes()).unwrap_err().code, ErrorCode::BadRequest);
    }

    #[test]
    fn responses_have_the_documented_form() {
        let error = Response::Error(ApiError::new(ErrorCode::TimedOut, "late"));
        let text = br#"{"v":1,"result":"error","code":"timed_out","message":"late"}"#;
        assert_eq!(to_line(&error).unwrap(), [text.as_slice(), b"\n"].concat());
        assert_eq!(serde_json::from_slice::<Envelope<Response>>(text).unwrap().content, error);

        let newer = br#"{"v":1,"result":"error","code":"moon_phase","message":"","since":3}"#;
        let Response::Error(error) = serde_json::from_slice::<Envelope<Response>>(newer).unwrap().content else {
            panic!("not an error");
        };
        assert_eq!(error.code, ErrorCode::Unknown);
    }
}
