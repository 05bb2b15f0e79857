//! The UAPI server and client over a real socket, with a device in memory behind it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use adit_control::uapi::client::list;
use adit_control::uapi::{ClientError, SetRequest, UapiClient, UapiErrno, UapiLimits, UapiServer};
use adit_core::{PeerUpdate, PresharedKey, PrivateKey, PublicKey, Update};
use common::{MemoryDevice, private_dir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// A served device; dropping it ends the server.
struct Served {
    device: Arc<MemoryDevice>,
    path: std::path::PathBuf,
    task: JoinHandle<()>,
    root: tempfile::TempDir,
}

impl Served {
    async fn new(device: MemoryDevice, limits: UapiLimits) -> Self {
        let root = private_dir();
        let server = UapiServer::bind(root.path(), "adit0").await.unwrap().with_limits(limits);
        let (device, path) = (Arc::new(device), server.path().to_owned());
        let handler = device.clone();
        let task = tokio::spawn(async move {
            server.run(handler).await;
        });
        Self { device, path, task, root }
    }

    async fn plain() -> Self {
        Self::new(MemoryDevice::default(), UapiLimits::default()).await
    }

    fn client(&self) -> UapiClient {
        UapiClient::new(self.root.path(), "adit0").unwrap()
    }

    /// Sends text, ends the sending side and returns all that comes back.
    async fn talk(&self, text: impl AsRef<[u8]>) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let (mut from, mut to) = stream.split();
        let mut answer = Vec::new();
        let send = async {
            // The server may have hung up on purpose.
            let _ = to.write_all(text.as_ref()).await;
            let _ = to.shutdown().await;
        };
        let receive = async {
            let _ = from.read_to_end(&mut answer).await;
        };
        let both = async { tokio::join!(send, receive) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("the server hangs");
        String::from_utf8(answer).unwrap()
    }

    fn sets(&self) -> usize {
        self.device.state.lock().unwrap().sets
    }
}

fn errno(errno: UapiErrno) -> String {
    format!("errno=-{}\n\n", errno.code())
}

#[tokio::test]
async fn what_is_set_is_got() {
    let served = Served::plain().await;
    let peer = PeerUpdate::new(PublicKey::from_bytes([3; 32]))
        .allow(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
        .endpoint("192.0.2.1:51820".parse().unwrap())
        .preshared(PresharedKey::from_bytes([9; 32]))
        .keepalive(25);
    let private_key = PrivateKey::from_bytes([7; 32]);
    let request = SetRequest {
        update: Update { private_key: Some(Some(private_key.clone())), replace_peers: true, peers: vec![peer.clone()] },
        listen_port: Some(51820),
        fwmark: Some(7),
    };
    served.client().set(&request).await.unwrap();

    let state = served.client().get().await.unwrap();
    assert_eq!((state.private_key, state.listen_port, state.fwmark), (Some(private_key), Some(51820), 7));
    let [told] = state.peers.as_slice() else { panic!("one peer") };
    assert_eq!((told.public_key, told.endpoint, told.persistent_keepalive), (peer.public_key, peer.endpoint, 25));
    assert_eq!(Some(told.preshared_key.clone()), peer.preshared_key);
    assert_eq!(told.allowed_ips, peer.allowed_ips.iter().map(|allowed| allowed.net).collect::<Vec<_>>());
    let age = told.last_handshake.unwrap().elapsed().unwrap().as_secs();
    assert!((59..70).contains(&age), "{age}");

    let text = served.client().get_text().await.unwrap();
    assert!(text.starts_with("private_key=") && text.ends_with("\nerrno=0\n\n"));
}

#[tokio::test]
async fn a_connection_carries_several_requests_even_after_a_refusal() {
    let served = Served::plain().await;
    let answer =
        served.talk("set=1\nfwmark=1\n\nset=1\nfwmark=x\nlisten_port=9\n\nset=1\nlisten_port=7\n\nget=1\n\n").await;
    let refused = errno(UapiErrno::INVALID);
    assert_eq!(answer, format!("errno=0\n\n{refused}errno=0\n\nlisten_port=7\nfwmark=1\nerrno=0\n\n"));
}

#[tokio::test]
async fn a_refused_or_torn_request_changes_nothing() {
    let served = Served::plain().await;
    let key = "11".repeat(32);
    assert_eq!(served.talk(format!("set=1\npublic_key={key}\nendpoint=host:1\n\n")).await, errno(UapiErrno::INVALID));
    assert_eq!(served.talk(format!("set=1\npublic_key={key}\n")).await, errno(UapiErrno::PROTOCOL));
    assert_eq!(served.talk(format!("set=1\npublic_key={key}")).await, errno(UapiErrno::PROTOCOL));
    assert_eq!(served.sets(), 0);
}

#[tokio::test]
async fn what_is_no_request_ends_the_connection() {
    let served = Served::plain().await;
    for text in ["", "\n", "hello\n", "GET / HTTP/1.1\r\n\r\n", "set=1\r\n\n", "get=1", "\0\u{fffd}\n"] {
        assert_eq!(served.talk(text).await, "", "{text:?}");
    }
    assert_eq!(served.talk("get=1\nfwmark=1\n\nget=1\n\n").await, errno(UapiErrno::INVALID));
    assert_eq!(served.talk(b"set=1\n\xff\xfe=\x00\n\n").await, errno(UapiErrno::PROTOCOL));
    served.client().get().await.expect("the server lives on");
}

#[tokio::test]
async fn long_lines_and_long_requests_are_cut_short() {
    let limits = UapiLimits { line: 256, request: 4096, ..UapiLimits::default() };
    let served = Served::new(MemoryDevice::default(), limits).await;
    assert_eq!(served.talk(format!("set=1\nfwmark={}\n\n", "1".repeat(256))).await, errno(UapiErrno::TOO_LONG));
    assert_eq!(served.talk(format!("set=1\n{}\n", "fwmark=1\n".repeat(460))).await, errno(UapiErrno::TOO_LONG));
    assert_eq!(served.talk(format!("set=1\n{}\n", "fwmark=1\n".repeat(450))).await, "errno=0\n\n");
    assert_eq!(served.talk("x".repeat(100_000)).await, "");
    // A refusal does not lift the bound on what is read after it.
    let endless = format!("set=1\nfwmark=x\n{}", "fwmark=1\n".repeat(100_000));
    assert_eq!(served.talk(endless).await, errno(UapiErrno::INVALID));
    assert_eq!(served.sets(), 1);
}

#[tokio::test]
async fn requests_under_way_share_one_budget_and_give_it_back() {
    let limits = UapiLimits { request: 4096, ..UapiLimits::default() };
    let served = Served::new(MemoryDevice::default(), limits).await;
    let mut slow = UnixStream::connect(&served.path).await.unwrap();
    slow.write_all(format!("set=1\n{}", "fwmark=1\n".repeat(400)).as_bytes()).await.unwrap();
    let half = format!("set=1\n{}\n", "fwmark=2\n".repeat(300));
    // The slow request's lines are read at a time of the server's choosing.
    let refused = async {
        while served.talk(&half).await == "errno=0\n\n" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("the budget is not shared");
    assert_eq!(served.talk(&half).await, errno(UapiErrno::NO_BUFFERS));
    slow.write_all(b"\n").await.unwrap();
    let mut answer = [0; 9];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"errno=0\n\n");
    assert_eq!(served.talk(&half).await, "errno=0\n\n");
}

#[tokio::test]
async fn silent_clients_make_room_for_others() {
    let limits = UapiLimits { connections: 2, idle: Duration::from_millis(50), ..UapiLimits::default() };
    let served = Served::new(MemoryDevice::default(), limits).await;
    let mut silent = Vec::new();
    for text in ["", "set=1\nfwmark=1\n", "get=1\n", "se"] {
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    served.client().get().await.unwrap();
    assert_eq!(served.sets(), 0);
}

#[tokio::test]
async fn probes_that_only_connect_cost_nothing() {
    let served = Served::plain().await;
    for _ in 0..1000 {
        drop(UnixStream::connect(&served.path).await.unwrap());
    }
    served.client().get().await.unwrap();
}

#[tokio::test]
async fn the_device_s_refusal_reaches_the_client() {
    let device = MemoryDevice { refusal: Some(UapiErrno::PORT_IN_USE), ..MemoryDevice::default() };
    let served = Served::new(device, UapiLimits::default()).await;
    let error = served.client().set(&SetRequest::default()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { reason, .. } if reason == "Address already in use"), "{error}");
    assert!(matches!(served.client().get().await, Err(ClientError::Refused { .. })));
}

#[tokio::test]
async fn a_device_that_hangs_is_not_waited_for() {
    let device = MemoryDevice { delay: Duration::from_secs(3600), ..MemoryDevice::default() };
    let limits = UapiLimits { handler: Duration::from_millis(20), ..UapiLimits::default() };
    let served = Served::new(device, limits).await;
    assert_eq!(served.talk("get=1\n\n").await, errno(UapiErrno::TIMED_OUT));
    assert_eq!(served.talk("set=1\n\n").await, errno(UapiErrno::TIMED_OUT));
}

#[tokio::test]
async fn a_socket_that_does_not_answer_times_out() {
    let device = MemoryDevice { delay: Duration::from_secs(3600), ..MemoryDevice::default() };
    let served = Served::new(device, UapiLimits::default()).await;
    let client = served.client().with_silence(Duration::from_millis(30));
    let error = client.get().await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_stopped_server_is_told_from_a_living_one() {
    let served = Served::plain().await;
    assert_eq!(list(served.root.path()).await.unwrap(), ["adit0"]);
    let mut open = UnixStream::connect(&served.path).await.unwrap();
    served.task.abort();
    assert_eq!(open.read(&mut [0; 1]).await.unwrap(), 0, "connections end with the server");
    let gone = served.client().get().await.unwrap_err();
    assert!(gone.is_not_running(), "{gone}");
    assert!(!served.path.exists());
    assert!(list(served.root.path()).await.unwrap().is_empty());
    assert!(list(&served.root.path().join("missing")).await.unwrap().is_empty());
}

#[tokio::test]
async fn answers_that_are_none_are_errors() {
    let dir = private_dir();
    let listener = tokio::net::UnixListener::bind(dir.path().join("odd.sock")).unwrap();
    let client = UapiClient::new(dir.path(), "odd").unwrap();
    for (answer, reason) in [
        ("errno=0\n", "it ends without a blank line"),
        ("\n", "the answer has no errno line"),
        ("fwmark=red\n\n", "the value of fwmark cannot be read"),
        ("errno=0", "the other side left in the middle of a line"),
    ] {
        let answer_once = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 7]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let ((), got) = tokio::join!(answer_once, client.get());
        assert!(
            matches!(got.unwrap_err(), ClientError::Malformed { reason: found, .. } if found == reason),
            "{reason}"
        );
    }
}
