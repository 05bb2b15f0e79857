//! What the shell asks for: a changed configuration, a new socket, a woken machine.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use super::upkeep;
use super::{Engine, Outputs};
use crate::config::{MAX_MTU, MIN_MTU, PeerUpdate, Update};
use crate::error::{CommandError, DropReason};
use crate::key::{PrivateKey, PublicKey};
use crate::sink::{Sink, Transmit};
use crate::wg::peer::{Identity, Tunnel};
use crate::wg::state::{Path, Peer};
use crate::wg::table::PeerId;

/// Something that the shell wants changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Command {
    /// Change the configuration. Sessions of peers whose keys stay the same go on.
    Update(Box<Update>),
    /// Change the tunnel's MTU, in bytes.
    SetMtu(usize),
    /// Begin handshakes now with all peers that have an endpoint and no session, instead of with the first packet.
    Connect,
    /// The socket was replaced: tell all peers that have a session where we are now, and let the routing table choose
    /// the address to send from.
    Rebound,
    /// Begin handshakes now with all peers that have a session, although it is good: whether the way to them still is,
    /// only an answer can tell.
    Reconnect,
    /// The machine is about to sleep: no timer is due until [`Wake`](Self::Wake). Packets go on as ever, and begin
    /// handshakes if they need them.
    Suspend,
    /// The machine slept: look after all timers now, whatever their deadlines were.
    Wake,
}

impl Engine {
    /// Does what the shell asks for, or refuses it and changes nothing.
    ///
    /// `wall` is the wall clock at `now`; initiations carry it as their timestamp.
    ///
    /// # Errors
    /// [`CommandError`] says what was refused and what would be accepted.
    pub fn handle_command<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        command: Command,
        now: Instant,
        wall: SystemTime,
        out: &mut Outputs<'_, N, P>,
    ) -> Result<(), CommandError> {
        match command {
            Command::Update(update) => self.update(*update, now, wall, out),
            Command::SetMtu(mtu) => {
                check_mtu(mtu)?;
                self.shared.config.mtu = mtu;
                Ok(())
            }
            Command::Connect => {
                self.for_each_peer(|shared, peer| {
                    upkeep::update(shared, peer, now);
                    if !peer.has_session() {
                        upkeep::initiate(shared, peer, now, out.network);
                    }
                });
                Ok(())
            }
            Command::Rebound => {
                self.for_each_peer(|shared, peer| {
                    upkeep::update(shared, peer, now);
                    if let Some(path) = peer.path.as_mut() {
                        path.local = None;
                        upkeep::keepalive(shared, peer, now, out.network);
                    }
                });
                Ok(())
            }
            Command::Reconnect => {
                self.for_each_peer(|shared, peer| {
                    upkeep::update(shared, peer, now);
                    if peer.has_session() {
                        upkeep::initiate(shared, peer, now, out.network);
                    }
                });
                Ok(())
            }
            Command::Suspend => {
                self.shared.suspended = true;
                Ok(())
            }
            Command::Wake => {
                self.shared.suspended = false;
                self.for_each_peer(|shared, peer| upkeep::update(shared, peer, now));
                Ok(())
            }
        }
    }

    fn for_each_peer(&mut self, mut work: impl FnMut(&mut super::Shared, &mut Peer)) {
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.get_mut(id) {
                work(&mut self.shared, peer);
            }
            self.peers.schedule(id);
        }
    }

    fn update<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        update: Update,
        now: Instant,
        wall: SystemTime,
        out: &mut Outputs<'_, N, P>,
    ) -> Result<(), CommandError> {
        self.check_peer_count(&update)?;
        if let Some(private_key) = update.private_key {
            self.set_private_key(private_key, now, wall, out);
        }
        if update.replace_peers {
            let named: HashSet<PublicKey> =
                update.peers.iter().filter(|peer| !peer.remove).map(|peer| peer.public_key).collect();
            for id in self.peers.ids() {
                match self.peers.get(id) {
                    Some(peer) if named.contains(&peer.public_key) => self.allowed.remove_owner(id),
                    _ => self.remove_peer(id),
                }
            }
        }
        // What the first mention of a replaced peer does not name returns to its default, as if the peer were new; what it
        // does name keeps the session if the keys are the same.
        let mut mentioned = HashSet::new();
        for mut peer in update.peers {
            if update.replace_peers && !peer.update_only && mentioned.insert(peer.public_key) {
                peer.preshared_key.get_or_insert(None);
                peer.persistent_keepalive.get_or_insert(0);
            }
            self.update_peer(peer, now, wall, out);
        }
        Ok(())
    }

    /// Refuses an update in which there would be too many peers at any moment.
    fn check_peer_count(&self, update: &Update) -> Result<(), CommandError> {
        let limit = self.shared.config.limits.max_peers;
        let named: HashSet<_> = update.peers.iter().filter(|peer| !peer.remove).map(|peer| peer.public_key).collect();
        let mut present: HashSet<PublicKey> = if update.replace_peers {
            named.into_iter().filter(|key| self.peers.find(key).is_some()).collect()
        } else {
            update.peers.iter().map(|peer| peer.public_key).filter(|key| self.peers.find(key).is_some()).collect()
        };
        let others = if update.replace_peers { 0 } else { self.peers.len() - present.len() };
        for peer in &update.peers {
            if peer.remove {
                present.remove(&peer.public_key);
            } else if !peer.update_only && present.insert(peer.public_key) && others + present.len() > limit {
                return Err(CommandError::TooManyPeers { limit });
            }
        }
        Ok(())
    }

    fn set_private_key<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        key: Option<PrivateKey>,
        now: Instant,
        wall: SystemTime,
        out: &mut Outputs<'_, N, P>,
    ) {
        let old = self.identity.as_ref().map(Identity::private_key);
        if key == old {
            return;
        }
        // Timestamps count for each pair of static keys, and ours is new. Without a key before, it may be the one that the
        // configured floor is about.
        if key.is_some() && old.is_some() {
            (self.shared.timestamp_floor, self.shared.newest_timestamp) = (None, None);
            self.for_each_peer(|_, peer| peer.timestamp_floor = None);
        }
        let limit = self.shared.config.limits.handshakes_per_second;
        self.identity = key.map(|key| Identity::new(&key, limit));
        // A peer with our own key would be a tunnel to ourselves; the kernel removes it as well.
        if let Some(own) = self.identity.as_ref().map(Identity::public_key).and_then(|own| self.peers.find(&own)) {
            self.remove_peer(own);
        }
        for id in self.peers.ids() {
            self.make_tunnel(id, now, wall);
        }
        self.for_each_peer(|shared, peer| {
            if !peer.staged.is_empty() {
                upkeep::initiate(shared, peer, now, out.network);
            }
        });
    }

    /// Gives a peer fresh cryptographic state, or none without a private key. What waited keeps waiting.
    fn make_tunnel(&mut self, id: PeerId, now: Instant, wall: SystemTime) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let old = peer.tunnel.take().map(|tunnel| tunnel.index());
        peer.timers.forget_session();
        let Some(identity) = &self.identity else {
            if let Some(old) = old {
                self.peers.release_index(old);
            }
            let Some(peer) = self.peers.get_mut(id) else { return };
            let lost = peer.staged.clear(&mut self.shared.staging);
            self.shared.dropped_many(peer, DropReason::PeerRemoved, lost);
            return;
        };
        let index = self.peers.assign_index(id, old, &mut self.shared.rng);
        if let Some(peer) = self.peers.get_mut(id) {
            let preshared = peer.preshared_key.as_ref();
            peer.tunnel = Some(Tunnel::new(identity, peer.public_key, preshared, index, now, wall));
        }
    }

    fn remove_peer(&mut self, id: PeerId) {
        self.allowed.remove_owner(id);
        if let Some(mut peer) = self.peers.remove(id) {
            self.shared.set_path(&mut peer, None);
            let lost = peer.staged.clear(&mut self.shared.staging);
            self.shared.stats.drops.add(DropReason::PeerRemoved, lost);
            self.shared.timestamp_floor = self.shared.timestamp_floor.max(peer.timestamp_floor);
            self.shared.newest_timestamp = self.shared.newest_timestamp.max(peer.timestamp_floor);
        }
    }

    fn update_peer<N: Sink<Transmit>, P: Sink<()>>(
        &mut self,
        update: PeerUpdate,
        now: Instant,
        wall: SystemTime,
        out: &mut Outputs<'_, N, P>,
    ) {
        let found = self.peers.find(&update.public_key);
        let id = match found {
            Some(id) if update.remove => return self.remove_peer(id),
            Some(id) => id,
            None if update.remove || update.update_only => return,
            None if self.identity.as_ref().is_some_and(|own| own.public_key() == update.public_key) => return,
            None => {
                let mut peer = Peer::new(update.public_key);
                peer.timestamp_floor = self.shared.timestamp_floor;
                self.peers.insert(peer)
            }
        };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let mut new_keys = found.is_none();
        if let Some(preshared) = update.preshared_key {
            let preshared = preshared.filter(|key| !PrivateKey::is_zero(key.as_bytes()));
            new_keys |= peer.preshared_key != preshared;
            peer.preshared_key = preshared;
        }
        let moved = update.endpoint.filter(|remote| peer.path.is_none_or(|path| path.remote != *remote));
        if let Some(remote) = moved {
            self.shared.set_path(peer, Some(Path { remote, local: None }));
        }
        if let Some(seconds) = update.persistent_keepalive {
            peer.timers.set_persistent(seconds, now);
        }
        if new_keys {
            self.make_tunnel(id, now, wall);
        }
        if update.replace_allowed_ips {
            self.allowed.remove_owner(id);
        }
        for change in update.allowed_ips {
            if change.remove {
                self.allowed.remove(change.net, id);
            } else {
                self.allowed.insert(change.net, id);
            }
        }
        // Whoever waits for a pause to end waits no longer when told where else to try.
        if let Some(peer) = self.peers.get_mut(id)
            && (!peer.staged.is_empty() || moved.is_some() && peer.timers.is_reviving())
        {
            upkeep::initiate(&mut self.shared, peer, now, out.network);
        }
        self.peers.schedule(id);
    }
}

/// Checks a tunnel MTU, in bytes.
pub(super) fn check_mtu(found: usize) -> Result<(), CommandError> {
    if (MIN_MTU..=MAX_MTU).contains(&found) {
        Ok(())
    } else {
        Err(CommandError::Mtu { found, min: MIN_MTU, max: MAX_MTU })
    }
}
