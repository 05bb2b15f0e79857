//! All peers: found by public key, by receiver index and by deadline.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::peer::Tunnel;
use super::state::Peer;
use crate::key::PublicKey;

/// A peer's place in the table; it may be used again after the peer was removed.
pub(crate) type PeerId = u32;

/// Receiver indices leave 24 bits for the peer.
const INDEX_LIMIT: u32 = 1 << 24;

/// The peers of an engine.
#[derive(Default)]
pub(crate) struct PeerTable {
    slots: Vec<Option<Peer>>,
    free: Vec<PeerId>,
    by_key: HashMap<PublicKey, PeerId>,
    /// The indices are our own random numbers, so nobody else can choose colliding keys for this fast hash.
    by_index: FxHashMap<u32, PeerId>,
    deadlines: BTreeSet<(Instant, PeerId)>,
}

impl PeerTable {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(crate) fn find(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// The peer that a message's receiver index names.
    #[inline]
    pub(crate) fn by_receiver(&mut self, receiver: u32) -> Option<(PeerId, &mut Peer)> {
        let id = *self.by_index.get(&Tunnel::peer_index(receiver))?;
        Some((id, self.get_mut(id)?))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.slots.iter().enumerate().filter_map(|(id, slot)| Some((id as PeerId, slot.as_ref()?)))
    }

    /// All places that hold a peer now.
    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.iter().map(|(id, _)| id).collect()
    }

    /// Adds a peer that is not there yet.
    pub(crate) fn insert(&mut self, peer: Peer) -> PeerId {
        let key = peer.public_key;
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = Some(peer);
                id
            }
            None => {
                self.slots.push(Some(peer));
                (self.slots.len() - 1) as PeerId
            }
        };
        self.by_key.insert(key, id);
        id
    }

    /// Removes a peer with everything that leads to it.
    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        self.by_key.remove(&peer.public_key);
        if let Some(tunnel) = &peer.tunnel {
            self.by_index.remove(&tunnel.index());
        }
        if let Some(at) = peer.scheduled {
            self.deadlines.remove(&(at, id));
        }
        Some(peer)
    }

    /// Finds an unused random index and points it to `id`; the peer's old index is released.
    pub(crate) fn assign_index(&mut self, id: PeerId, old: Option<u32>, rng: &mut fastrand::Rng) -> u32 {
        if let Some(old) = old {
            self.release_index(old);
        }
        loop {
            let index = rng.u32(..INDEX_LIMIT);
            if let std::collections::hash_map::Entry::Vacant(entry) = self.by_index.entry(index) {
                entry.insert(id);
                return index;
            }
        }
    }

    /// Forgets an index that no session uses any more.
    pub(crate) fn release_index(&mut self, index: u32) {
        self.by_index.remove(&index);
    }

    /// Puts the peer's next deadline into the queue if it is earlier than what stands there. A later one is not moved:
    /// the earlier entry then fires for nothing, once, which is cheaper than moving it with every packet.
    pub(crate) fn schedule(&mut self, id: PeerId) {
        let Some(peer) = self.slots.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let Some((at, _)) = peer.timers.next() else { return };
        match peer.scheduled {
            Some(scheduled) if scheduled <= at => {}
            scheduled => {
                if let Some(scheduled) = scheduled {
                    self.deadlines.remove(&(scheduled, id));
                }
                self.deadlines.insert((at, id));
                peer.scheduled = Some(at);
            }
        }
    }

    /// The earliest deadline and whose it is.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, PeerId)> {
        self.deadlines.first().copied()
    }

    /// Takes a peer out of the queue whose deadline has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        let (at, id) = self.next_deadline().filter(|(at, _)| *at <= now)?;
        self.deadlines.remove(&(at, id));
        if let Some(peer) = self.get_mut(id) {
            peer.scheduled = None;
        }
        Some(id)
    }
}
