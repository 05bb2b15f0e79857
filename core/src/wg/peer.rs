//! The fence around boringtun: no other file names it.
//!
//! What is closed here, so that no caller has to know (boringtun 0.7.1):
//! - It panics on short buffers: every call checks its buffer first and refuses instead.
//! - It queues up to 256 heap copies of packets while there is no session: [`Tunnel::seal`] is refused without one, and
//!   packets wait in the engine's own bounded queue. What it may still queue (an empty keepalive) is drained after each
//!   handshake.
//! - Its rate limiter counts a message each time that it is shown one: the interface's limiter looks at every handshake
//!   message once, and the peers are given one that never limits.
//! - Its timers reckon in steps of its last update, begin a handshake when a slow answer follows a silence, and stop
//!   for good after an expiry. `timers` decides instead: [`Tunnel::update`] gives the library no room for an initiation,
//!   which it then refuses before it changes anything, and its keepalives are thrown away.
//! - It does not show its sessions: `ring` mirrors them.
//! - Its timestamps come from the wall clock at the time a tunnel is made: [`Tunnel::new`] is told that time, and the
//!   engine holds initiations back that would go backwards.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;

use super::message::{COOKIE_LEN, DATA_HEADER_LEN, DATA_OVERHEAD, INITIATION_LEN};
use super::ring::{Ring, Session};
use super::timers::UPDATE_INTERVAL;
use crate::error::DropReason;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// Room for whatever the library may write that is not a packet of the host: an initiation is the longest.
pub(crate) const CONTROL_LEN: usize = INITIATION_LEN;

/// Number of bits of a receiver index that name the peer; the other eight count its sessions.
const PEER_INDEX_BITS: u32 = 24;

/// The interface's own keys, with the limiter that stands before all handshake messages.
pub(crate) struct Identity {
    private: x25519::StaticSecret,
    public: x25519::PublicKey,
    limiter: RateLimiter,
    unlimited: Arc<RateLimiter>,
}

/// What the limiter made of a handshake message.
pub(crate) enum Admission {
    /// `mac1` is right and the load is bearable, or `mac2` shows that the sender owns its address.
    Admitted,
    /// Answer with this many bytes of cookie reply.
    Cookie(usize),
    /// Not for us.
    Refused(DropReason),
}

impl Identity {
    pub(crate) fn new(private: &PrivateKey, handshakes_per_second: u64) -> Self {
        let private = x25519::StaticSecret::from(*private.as_bytes());
        let public = x25519::PublicKey::from(&private);
        Self {
            limiter: RateLimiter::new(&public, handshakes_per_second),
            unlimited: Arc::new(RateLimiter::new(&public, u64::MAX)),
            private,
            public,
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.public.to_bytes())
    }

    pub(crate) fn private_key(&self) -> PrivateKey {
        PrivateKey::from_bytes(self.private.to_bytes())
    }

    /// Shows a handshake message to the limiter; `cookie` has room for a cookie reply.
    pub(crate) fn admit(&self, from: IpAddr, datagram: &[u8], cookie: &mut [u8; COOKIE_LEN]) -> Admission {
        self.limiter.reset_count();
        match self.limiter.verify_packet(Some(from), datagram, cookie) {
            Ok(_) => Admission::Admitted,
            Err(TunnResult::WriteToNetwork(reply)) => Admission::Cookie(reply.len()),
            Err(TunnResult::Err(error)) => Admission::Refused(reason(&error)),
            Err(_) => Admission::Refused(DropReason::NotWireGuard),
        }
    }

    /// Who sent an initiation. Costs one Diffie-Hellman, so it comes after [`admit`](Self::admit).
    pub(crate) fn initiator(&self, datagram: &[u8]) -> Result<PublicKey, DropReason> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(datagram) else {
            return Err(DropReason::NotWireGuard);
        };
        parse_handshake_anon(&self.private, &self.public, &initiation)
            .map(|half| PublicKey::from_bytes(half.peer_static_public))
            .map_err(|error| reason(&error))
    }
}

/// The cryptographic state of one peer: handshakes, sessions, replay windows.
pub(crate) struct Tunnel {
    tunn: Tunn,
    index: u32,
    updated: Instant,
    /// When the library's clock has to be brought forward again.
    next_update: Instant,
    ring: Ring,
    born: Instant,
    born_wall: SystemTime,
}

/// What opening a transport message gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// An IP packet (by its version and length) at the start of the buffer, of this many bytes.
    Packet(usize),
    /// An authentic message without a packet.
    Keepalive,
    /// Authentic, but what it holds is no IP packet.
    NoPacket,
    /// Not authentic, or not usable any more.
    Refused(DropReason),
}

impl Tunnel {
    /// Makes the state of a peer without a session. `index` names it in the receiver indices of all its sessions.
    pub(crate) fn new(
        identity: &Identity,
        peer: PublicKey,
        preshared: Option<&PresharedKey>,
        index: u32,
        now: Instant,
        wall: SystemTime,
    ) -> Self {
        debug_assert!(index < 1 << PEER_INDEX_BITS);
        let tunn = Tunn::new(
            identity.private.clone(),
            x25519::PublicKey::from(*peer.as_bytes()),
            preshared.map(|key| *key.as_bytes()),
            None,
            index,
            Some(Arc::clone(&identity.unlimited)),
        );
        Self {
            tunn,
            index,
            updated: now,
            next_update: now + UPDATE_INTERVAL,
            ring: Ring::default(),
            born: now,
            born_wall: wall,
        }
    }

    /// The part of receiver indices that names this peer.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The peer's part of a receiver index.
    pub(crate) fn peer_index(receiver: u32) -> u32 {
        receiver >> (u32::BITS - PEER_INDEX_BITS)
    }

    /// The timestamp that an initiation sent now would carry, within a millisecond.
    pub(crate) fn timestamp(&self, now: Instant) -> SystemTime {
        self.born_wall + now.saturating_duration_since(self.born)
    }

    /// Whether packets can be sealed now.
    #[inline]
    pub(crate) fn has_session(&self) -> bool {
        self.ring.in_use().is_some()
    }

    /// The session that packets are sealed with.
    #[inline]
    pub(crate) fn session(&self) -> Option<&Session> {
        self.ring.in_use()
    }

    /// Whether [`update`](Self::update) should be called before the next packet.
    #[inline]
    pub(crate) fn needs_update(&self, now: Instant) -> bool {
        now >= self.next_update || self.ring.in_use().is_some_and(|session| now >= session.end())
    }

    /// The round trip of the last handshake that this side began.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.tunn.stats().4.map(|millis| Duration::from_millis(millis.into()))
    }

    /// Brings the library's clock forward, and ends what has expired.
    pub(crate) fn update(&mut self, now: Instant) {
        if now <= self.updated {
            return;
        }
        self.updated = now;
        self.next_update = now + UPDATE_INTERVAL;
        // Room for the keepalive that it may write, which would panic with less, and too little for an initiation.
        let mut unwanted = [0; DATA_OVERHEAD];
        if let TunnResult::Err(WireGuardError::ConnectionExpired) = self.tunn.update_timers(&mut unwanted) {
            self.ring.clear();
        }
        self.ring.expire(now);
        // The library's clock may be ahead by what lies between its reading and ours.
        if self.tunn.time_since_last_handshake().is_none() {
            self.ring.forget_current();
        }
    }

    /// Whether the library still waits for an answer to an initiation.
    pub(crate) fn is_initiating(&mut self) -> bool {
        // Without room and without force this changes nothing; it is refused for want of room if nothing is under way.
        !self.tunn.is_expired() && matches!(self.tunn.format_handshake_initiation(&mut [], false), TunnResult::Done)
    }

    /// Writes a handshake initiation, whatever attempt is under way.
    pub(crate) fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        if out.len() < CONTROL_LEN {
            return None;
        }
        match self.tunn.format_handshake_initiation(out, true) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Seals a packet, or an empty keepalive, into `out`, which has room for [`DATA_OVERHEAD`] bytes more and no less
    /// than [`CONTROL_LEN`]. `None` without a session.
    #[inline]
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if !self.has_session() || out.len() < sealed_room(packet.len()) {
            return None;
        }
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) if !is_initiation(message) => Some(message.len()),
            _ => {
                self.ring.forget_current();
                None
            }
        }
    }

    /// Opens a transport message into `out`, which is as long as the datagram without its header. Says also whether this
    /// was the first message in its session, which confirms that the peer has it.
    #[inline]
    pub(crate) fn open(&mut self, receiver: u32, datagram: &[u8], now: Instant, out: &mut [u8]) -> (Opened, bool) {
        if out.len() + DATA_HEADER_LEN < datagram.len() || datagram.len() < DATA_OVERHEAD {
            return (Opened::Refused(DropReason::Oversize), false);
        }
        if !self.ring.accepts(receiver, now) {
            return (Opened::Refused(DropReason::NoSession), false);
        }
        let opened = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => Opened::Keepalive,
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            // The only errors after authentication are those of the packet inside.
            TunnResult::Err(WireGuardError::InvalidPacket) => Opened::NoPacket,
            TunnResult::Err(error) => return (Opened::Refused(reason(&error)), false),
            TunnResult::WriteToNetwork(_) => return (Opened::Refused(DropReason::Unexpected), false),
        };
        (opened, self.ring.received(receiver))
    }

    /// Answers an initiation with a response that offers a session. Like all handshake messages it dates what it makes
    /// by the last [`update`](Self::update).
    pub(crate) fn respond(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let length = self.handshake(datagram, out)?.ok_or(DropReason::Unexpected)?;
        if let Some(sender) = out.get(4..8).and_then(|bytes| bytes.try_into().ok()) {
            self.ring.offered(u32::from_le_bytes(sender), self.updated);
        }
        Ok(length)
    }

    /// Takes a response to our initiation, which carried the index `receiver`; the answer is a keepalive, which shows
    /// the peer that the session is good.
    pub(crate) fn confirm(&mut self, receiver: u32, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let length = self.handshake(datagram, out)?.ok_or(DropReason::Unexpected)?;
        self.ring.established(receiver, self.updated);
        Ok(length)
    }

    /// Takes a cookie for our next handshake message.
    pub(crate) fn take_cookie(&mut self, datagram: &[u8]) -> Result<(), DropReason> {
        self.handshake(datagram, &mut [0; CONTROL_LEN]).map(drop)
    }

    /// The next message that the library queued for itself; to be called after each handshake until `None`.
    pub(crate) fn drain(&mut self, out: &mut [u8]) -> Option<usize> {
        // Without a session the library would begin a handshake instead.
        if out.len() < CONTROL_LEN || !self.has_session() {
            return None;
        }
        match self.tunn.decapsulate(None, &[], out) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    fn handshake(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        if out.len() < CONTROL_LEN || datagram.is_empty() {
            return Err(DropReason::SendQueueFull);
        }
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToNetwork(message) => Ok(Some(message.len())),
            TunnResult::Err(error) => Err(reason(&error)),
            _ => Ok(None),
        }
    }
}

/// Room that sealing `len` bytes needs.
#[inline]
pub(crate) const fn sealed_room(len: usize) -> usize {
    let room = len + DATA_OVERHEAD;
    if room < CONTROL_LEN { CONTROL_LEN } else { room }
}

#[inline]
fn is_initiation(message: &[u8]) -> bool {
    message.first() == Some(&1)
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::WrongKey => DropReason::UnknownPeer,
        WireGuardError::WrongTai64nTimestamp | WireGuardError::InvalidTai64nTimestamp => DropReason::StaleHandshake,
        WireGuardError::InvalidMac => DropReason::InvalidMac,
        WireGuardError::InvalidAeadTag => DropReason::InvalidTag,
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => DropReason::Replayed,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex | WireGuardError::ConnectionExpired => {
            DropReason::NoSession
        }
        WireGuardError::UnexpectedPacket => DropReason::Unexpected,
        WireGuardError::UnderLoad => DropReason::UnderLoad,
        _ => DropReason::NotWireGuard,
    }
}
