//! Adit's own control protocol over a real socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use adit_control::api::{
    ApiClient, ApiError, ApiHandler, ApiLimits, ApiServer, ClientError, ErrorCode, StatusReport, TunnelFacts,
};
use adit_control::uapi::UapiHandler;
use common::{MemoryDevice, private_dir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;

#[derive(Default)]
struct Tunnel {
    device: MemoryDevice,
    stop: Notify,
    hangs: bool,
    /// What goes wrong on the way down.
    fails: Option<&'static str>,
}

impl ApiHandler for Tunnel {
    async fn status(&self) -> Result<StatusReport, ApiError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let reply = self.device.get().await.map_err(|errno| ApiError::new(ErrorCode::Failed, errno.to_string()))?;
        let facts = TunnelFacts {
            name: "adit0".into(),
            ifname: "adit0".into(),
            pid: std::process::id(),
            uptime: Duration::from_secs(5),
            listen_port: reply.listen_port,
            fwmark: reply.fwmark,
            config: None,
            repairs: 0,
            routing: None,
        };
        Ok((&reply.snapshot, facts).into())
    }

    async fn reload(&self) -> Result<Vec<String>, ApiError> {
        Err(ApiError::new(ErrorCode::BadConfiguration, "adit0.conf line 3: no such key"))
    }

    async fn down(&self) -> Result<(), ApiError> {
        self.stop.notify_one();
        Ok(())
    }

    async fn stopped(&self) -> Result<(), ApiError> {
        match self.fails {
            Some(reason) => Err(ApiError::new(ErrorCode::Failed, reason)),
            None => std::future::pending().await,
        }
    }
}

/// Runs a tunnel that lives until it is asked to stop; resolves when all is undone.
async fn serve(dir: &std::path::Path, tunnel: Tunnel, limits: ApiLimits) -> tokio::task::JoinHandle<()> {
    let server = ApiServer::bind(dir, "adit0").await.unwrap().with_limits(limits);
    let tunnel = Arc::new(tunnel);
    tokio::spawn(async move {
        tokio::select! {
            _ = server.run(tunnel.clone()) => {}
            () = async { tunnel.stop.notified().await; tokio::time::sleep(Duration::from_millis(20)).await } => {}
        }
    })
}

/// Sends bytes, ends the sending side and returns all that comes back until the server closes.
async fn talk(dir: &std::path::Path, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.join("adit0.sock")).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A server that closes before it has read everything resets the connection, after what it had to say.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("no answer");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_tunnel_tells_its_status_and_goes_down_once() {
    let root = private_dir();
    let dir = root.path();
    let task = serve(dir, Tunnel::default(), ApiLimits::default()).await;
    let mut client = ApiClient::connect(dir, "adit0").await.unwrap();
    let report = client.status().await.unwrap();
    assert_eq!((report.name.as_str(), report.pid, report.uptime_s), ("adit0", std::process::id(), 5.0));
    assert_eq!(client.version().await.unwrap(), (env!("CARGO_PKG_VERSION").to_owned(), std::process::id()));

    let refused = client.reload().await.unwrap_err();
    assert!(matches!(refused, ClientError::BadConfiguration { .. }), "{refused:?}");
    assert_eq!(refused.to_string(), "adit0.conf line 3: no such key");

    client.down(Duration::from_secs(20)).await.unwrap();
    task.await.unwrap();
    assert!(!dir.join("adit0.sock").exists());
    assert!(ApiClient::connect(dir, "adit0").await.unwrap_err().is_not_running());
}

#[tokio::test]
async fn what_fails_on_the_way_down_is_told_to_whoever_asked_for_it() {
    let root = private_dir();
    let dir = root.path();
    let tunnel = Tunnel { fails: Some("PostDown `false` ended with exit status: 1"), ..Tunnel::default() };
    let task = serve(dir, tunnel, ApiLimits::default()).await;
    let error = ApiClient::connect(dir, "adit0").await.unwrap().down(Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(error, ClientError::Stopped { .. }), "{error:?}");
    assert_eq!(error.to_string(), "PostDown `false` ended with exit status: 1");
    task.await.unwrap();
}

#[tokio::test]
async fn bad_lines_are_answered_and_the_next_is_heard() {
    let root = private_dir();
    let dir = root.path();
    let task = serve(dir, Tunnel::default(), ApiLimits::default()).await;
    let answer = talk(
        dir,
        b"\xff\xfe\nget=1\n{\"v\":1,\"op\":\"fly\"}\n{\"v\":9,\"op\":\"status\"}\n{\"v\":1,\"op\":\"version\"}\n",
    )
    .await;
    let answers: Vec<serde_json::Value> = answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<_> = answers.iter().map(|answer| answer["code"].as_str().unwrap_or("none")).collect();
    assert_eq!(codes, ["bad_request", "bad_request", "unknown_operation", "unsupported_version", "none"]);
    assert_eq!(answers[4]["result"], "version");

    let long = [b"{\"v\":1,\"op\":\"".as_slice(), &[b'x'; 5000]].concat();
    assert!(talk(dir, &long).await.contains("a request has at most 4096 bytes"));
    task.abort();
}

#[tokio::test]
async fn a_tunnel_that_hangs_says_so() {
    let root = private_dir();
    let dir = root.path();
    let limits = ApiLimits { handler: Duration::from_millis(20), ..ApiLimits::default() };
    let task = serve(dir, Tunnel { hangs: true, ..Tunnel::default() }, limits).await;
    let error = ApiClient::connect(dir, "adit0").await.unwrap().status().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }) && error.to_string().contains("within 20ms"), "{error}");
    task.abort();
}

#[tokio::test]
async fn a_second_tunnel_of_the_same_name_is_refused() {
    let root = private_dir();
    let dir = root.path();
    let task = serve(dir, Tunnel::default(), ApiLimits::default()).await;
    let error = ApiServer::bind(dir, "adit0").await.unwrap_err();
    assert!(error.to_string().contains("already in use by a running tunnel"));
    task.abort();
}
