//! A device in memory that keeps what the UAPI protocol tells it, by the rules of wireguard-go.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use adit_control::uapi::{GetReply, SetRequest, UapiErrno, UapiHandler};
use adit_core::stats::{Drops, EngineStats, Traffic};
use adit_core::{PeerStats, PeerUpdate, PrivateKey, PublicKey, Snapshot};

/// The device; its peers claim a handshake a minute ago and some traffic.
#[derive(Debug, Default)]
pub(crate) struct MemoryDevice {
    pub(crate) state: Mutex<State>,
    /// What every request is refused with, if anything.
    pub(crate) refusal: Option<UapiErrno>,
    /// How long every request takes.
    pub(crate) delay: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) private_key: Option<PrivateKey>,
    pub(crate) listen_port: u16,
    pub(crate) fwmark: u32,
    pub(crate) peers: BTreeMap<PublicKey, PeerStats>,
    /// How many requests were applied.
    pub(crate) sets: usize,
}

impl UapiHandler for MemoryDevice {
    async fn get(&self) -> Result<GetReply, UapiErrno> {
        tokio::time::sleep(self.delay).await;
        self.refusal.map_or(Ok(()), Err)?;
        let state = self.state.lock().unwrap();
        let snapshot = Snapshot {
            at: now(),
            private_key: state.private_key.clone(),
            newest_timestamp: None,
            mtu: 1420,
            engine: EngineStats::default(),
            peers: state.peers.values().cloned().collect(),
        };
        let listen_port = Some(state.listen_port).filter(|port| *port != 0);
        Ok(GetReply { snapshot, wall: SystemTime::now(), listen_port, fwmark: state.fwmark })
    }

    async fn set(&self, request: SetRequest) -> Result<(), UapiErrno> {
        tokio::time::sleep(self.delay).await;
        self.refusal.map_or(Ok(()), Err)?;
        self.state.lock().unwrap().apply(request);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, request: SetRequest) {
        self.sets += 1;
        if let Some(key) = request.update.private_key {
            self.private_key = key;
        }
        self.listen_port = request.listen_port.unwrap_or(self.listen_port);
        self.fwmark = request.fwmark.unwrap_or(self.fwmark);
        if request.update.replace_peers {
            self.peers.clear();
        }
        for change in request.update.peers {
            self.apply_peer(change);
        }
    }

    fn apply_peer(&mut self, change: PeerUpdate) {
        let key = change.public_key;
        if change.remove || (change.update_only && !self.peers.contains_key(&key)) {
            self.peers.remove(&key);
            return;
        }
        for given in change.allowed_ips.iter().filter(|given| !given.remove) {
            let others = self.peers.iter_mut().filter(|(other, _)| **other != key);
            others.for_each(|(_, peer)| peer.allowed_ips.retain(|net| *net != given.net));
        }
        let peer = self.peers.entry(key).or_insert_with(|| fresh(key));
        if let Some(preshared) = change.preshared_key {
            peer.preshared_key = preshared;
        }
        peer.endpoint = change.endpoint.or(peer.endpoint);
        peer.persistent_keepalive = change.persistent_keepalive.unwrap_or(peer.persistent_keepalive);
        if change.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        for allowed in change.allowed_ips {
            peer.allowed_ips.retain(|net| *net != allowed.net);
            if !allowed.remove {
                peer.allowed_ips.push(allowed.net);
            }
        }
    }
}

/// A moment late enough for others to lie before it.
fn now() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn fresh(public_key: PublicKey) -> PeerStats {
    PeerStats {
        public_key,
        preshared_key: None,
        endpoint: None,
        last_handshake: Some(now() - Duration::from_secs(60)),
        handshake_round_trip: None,
        persistent_keepalive: 0,
        allowed_ips: Vec::new(),
        traffic: Traffic { tx_bytes: 1024, rx_bytes: 2048, ..Traffic::default() },
        drops: Drops::default(),
        has_session: true,
    }
}

/// A directory that only its owner may use whatever the umask, removed at the end.
pub(crate) fn private_dir() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}
