//! The real wg(8) against a device in memory: the proof that the protocol is the one that people use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adit_control::uapi::{SOCKET_DIR, UapiErrno, UapiServer};
use adit_core::{PresharedKey, PrivateKey, PublicKey};
use common::{MemoryDevice, private_dir};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

const PEER_A: [u8; 32] = [0x11; 32];
const PEER_B: [u8; 32] = [0x22; 32];

/// A device where wg(8) finds it, under a name that no other test has; removed when dropped.
struct Interface {
    name: String,
    device: Arc<MemoryDevice>,
    server: Option<JoinHandle<()>>,
    files: tempfile::TempDir,
    _dir: MadeDir,
    /// Dropped last: while one test removes the directory, no other may be about to use it.
    _turn: MutexGuard<'static, ()>,
}

impl Interface {
    async fn new(device: MemoryDevice) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let name = format!("adu{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let made = MadeDir { made: !Path::new(SOCKET_DIR).exists() };
        let server = UapiServer::bind(Path::new(SOCKET_DIR), &name).await.unwrap();
        let device = Arc::new(device);
        let handler = device.clone();
        let server = tokio::spawn(async move {
            server.run(handler).await;
        });
        Self { name, device, server: Some(server), files: private_dir(), _dir: made, _turn: turn }
    }

    /// Stops the server and waits until its socket is gone.
    async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Runs wg(8), where `IF` stands for the interface; it must succeed.
    async fn wg(&self, args: &str) -> String {
        let output = self.try_wg(args).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && stderr.is_empty(), "wg {args}: {stdout}{stderr}");
        stdout
    }

    async fn try_wg(&self, args: &str) -> Output {
        self.try_wg_as(0, args).await
    }

    async fn try_wg_as(&self, uid: u32, args: &str) -> Output {
        let args = args.split(' ').map(|arg| if arg == "IF" { self.name.as_str() } else { arg });
        let mut command = tokio::process::Command::new("wg");
        command.args(args).uid(uid).env("WG_COLOR_MODE", "never").stdin(Stdio::null()).kill_on_drop(true);
        tokio::time::timeout(Duration::from_secs(20), command.output()).await.expect("wg hangs").expect("wg runs")
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn prefixes(&self, peer: [u8; 32]) -> Vec<String> {
        let state = self.device.state.lock().unwrap();
        let peer = state.peers.get(&PublicKey::from_bytes(peer)).expect("the peer is there");
        peer.allowed_ips.iter().map(ToString::to_string).collect()
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        // After a failed test the runtime, which owns the server, is dropped only later.
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = fs::remove_file(Path::new(SOCKET_DIR).join(format!("{}.sock", self.name)));
        }
    }
}

/// Removes the socket directory if it was not there before and is empty again.
struct MadeDir {
    made: bool,
}

impl Drop for MadeDir {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_dir(SOCKET_DIR);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn base64(key: [u8; 32]) -> String {
    PublicKey::from_bytes(key).to_base64()
}

#[tokio::test]
#[ignore = "needs root: run by cargo xtask test"]
async fn wg_shows_and_changes_a_device() {
    let mut interface = Interface::new(MemoryDevice::default()).await;
    let (a, b) = (base64(PEER_A), base64(PEER_B));
    let private = PrivateKey::from_bytes([0x33; 32]);
    let preshared = PresharedKey::from_bytes([0x44; 32]);
    let key_file = interface.file("key", &private.to_base64());
    let psk_file = interface.file("psk", &preshared.to_base64());

    interface.wg(&format!("set IF private-key {key_file} listen-port 51899 fwmark 0x2a")).await;
    interface
        .wg(&format!(
            "set IF peer {a} preshared-key {psk_file} endpoint [2001:db8::1]:51820 persistent-keepalive 25 \
             allowed-ips 10.1.0.0/16,fd00:1::/64 peer {b} endpoint 192.0.2.2:7 allowed-ips 10.2.0.0/16"
        ))
        .await;

    let dump = interface.wg("show IF dump").await;
    let rows: Vec<Vec<&str>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    let (own, public) = (private.to_base64(), private.public_key().to_base64());
    assert_eq!(rows[0], [own.as_str(), &public, "51899", "0x2a"]);
    let psk = preshared.to_base64();
    let before = [a.as_str(), &psk, "[2001:db8::1]:51820", "10.1.0.0/16,fd00:1::/64"];
    assert_eq!(rows[1][..4], before);
    assert_eq!(rows[1][5..], ["2048", "1024", "25"]);
    assert_eq!(rows[2][..4], [b.as_str(), "(none)", "192.0.2.2:7", "10.2.0.0/16"]);
    let shown = interface.wg("show IF").await;
    assert!(shown.contains("latest handshake: 1 minute") && shown.contains("2.00 KiB received"), "{shown}");
    assert!(interface.wg("show interfaces").await.split_whitespace().any(|name| name == interface.name));

    interface.wg(&format!("set IF peer {b} allowed-ips 10.1.0.0/16,10.3.0.0/16")).await;
    assert_eq!(interface.prefixes(PEER_A), ["fd00:1::/64"], "the last to claim a prefix has it");
    assert_eq!(interface.prefixes(PEER_B), ["10.1.0.0/16", "10.3.0.0/16"]);

    interface.wg(&format!("set IF peer {a} preshared-key /dev/null persistent-keepalive off peer {b} remove")).await;
    {
        let state = interface.device.state.lock().unwrap();
        let [peer] = state.peers.values().collect::<Vec<_>>()[..] else { panic!("one peer") };
        assert_eq!((peer.preshared_key.as_ref(), peer.persistent_keepalive), (None, 0));
    }
    interface.wg("set IF private-key /dev/null listen-port 0 fwmark off").await;
    assert!(interface.wg("show IF dump").await.starts_with("(none)\t(none)\t0\toff\n"));
    interface.stop().await;
    assert!(!interface.wg("show interfaces").await.contains(&interface.name));
}

#[tokio::test]
#[ignore = "needs root: run by cargo xtask test"]
async fn wg_reads_and_writes_whole_configurations() {
    let mut interface = Interface::new(MemoryDevice::default()).await;
    let (a, b) = (base64(PEER_A), base64(PEER_B));
    let private = PrivateKey::from_bytes([0x33; 32]).to_base64();
    let peer_a = format!(
        "[Peer]\nPublicKey = {a}\nAllowedIPs = 10.1.0.0/16, fd00:1::/64\nEndpoint = 192.0.2.1:51820\nPersistentKeepalive = 25\n"
    );
    let head = format!("[Interface]\nListenPort = 51899\nFwMark = 0x2a\nPrivateKey = {private}\n");

    let first = interface.file("first", &format!("{head}\n{peer_a}"));
    interface.wg(&format!("setconf IF {first}")).await;
    let shown = interface.wg("showconf IF").await;
    assert_eq!(shown.trim_end(), format!("{head}\n{peer_a}").trim_end());

    let addition = interface.file("addition", &format!("[Peer]\nPublicKey = {b}\nAllowedIPs = 10.2.0.0/16\n"));
    interface.wg(&format!("addconf IF {addition}")).await;
    assert_eq!(interface.prefixes(PEER_A).len(), 2);
    assert_eq!(interface.prefixes(PEER_B), ["10.2.0.0/16"]);

    // syncconf leaves out what the file does not have and keeps the sessions of the others.
    let second = interface.file("second", &format!("{head}[Peer]\nPublicKey = {b}\nAllowedIPs = 10.9.0.0/16\n"));
    interface.wg(&format!("syncconf IF {second}")).await;
    assert_eq!(interface.prefixes(PEER_B), ["10.9.0.0/16"]);
    assert_eq!(interface.device.state.lock().unwrap().peers.len(), 1);

    let empty = interface.file("empty", "[Interface]\n");
    interface.wg(&format!("setconf IF {empty}")).await;
    assert_eq!(interface.wg("showconf IF").await.trim(), "[Interface]");
    assert!(interface.device.state.lock().unwrap().private_key.is_none());
    interface.stop().await;
}

#[tokio::test]
#[ignore = "needs root: run by cargo xtask test"]
async fn wg_carries_a_thousand_peers() {
    let mut interface = Interface::new(MemoryDevice::default()).await;
    let mut conf = String::from("[Interface]\nListenPort = 51899\n");
    for number in 0..1000u32 {
        let mut key = [0x55; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let [.., high, low] = number.to_be_bytes();
        conf +=
            &format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.{high}.{low}.0/24, fd00:{number:x}::/64\n", base64(key));
    }
    let file = interface.file("many", &conf);
    interface.wg(&format!("setconf IF {file}")).await;
    assert_eq!(interface.wg("show IF peers").await.lines().count(), 1000);
    interface.wg(&format!("syncconf IF {file}")).await;
    assert_eq!(interface.device.state.lock().unwrap().peers.len(), 1000);
    interface.stop().await;
}

#[tokio::test]
#[ignore = "needs root: run by cargo xtask test"]
async fn wg_prints_the_reason_of_a_refusal() {
    let device = MemoryDevice { refusal: Some(UapiErrno::PORT_IN_USE), ..MemoryDevice::default() };
    let mut interface = Interface::new(device).await;
    let output = interface.try_wg("set IF listen-port 53").await;
    assert!(!output.status.success());
    let reason = text(&output.stderr);
    assert_eq!(reason.trim_end(), "Unable to modify interface: Address already in use");
    interface.stop().await;
}

#[tokio::test]
#[ignore = "needs root: run by cargo xtask test"]
async fn another_user_gets_nothing_whatever_the_mode() {
    const NOBODY: u32 = 65_534;
    let mut interface = Interface::new(MemoryDevice::default()).await;
    let socket = Path::new(SOCKET_DIR).join(format!("{}.sock", interface.name));
    let private = interface.try_wg_as(NOBODY, "show IF dump").await;
    assert_eq!(text(&private.stderr).trim_end(), "Unable to access interface: Permission denied");

    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let turned_away = interface.try_wg_as(NOBODY, "show IF dump").await;
    assert!(!turned_away.status.success() && turned_away.stdout.is_empty());
    interface.try_wg_as(NOBODY, "set IF listen-port 1").await;
    assert_eq!(interface.device.state.lock().unwrap().sets, 0);
    assert_eq!(interface.wg("show IF dump").await, "(none)\t(none)\t0\toff\n", "root is still served");
    interface.stop().await;
}
