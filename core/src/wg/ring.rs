//! A mirror of the library's ring of sessions, which the library does not show.
//!
//! It answers what the engine has to know and the library does not tell: which session packets are sealed with, how old
//! it is, who began it, and whether the peer has shown yet that it has it too (whitepaper section 5.4.4: the responder
//! may not send before that). It follows the library's rules to the letter, with the moment of the library's last update
//! for a clock, and refuses to know keys.

use std::time::Instant;

use super::timers::{REKEY_ON_RECEIVE, REKEY_ON_SEND, SESSION_END};

/// Sessions that the library keeps for each peer (its N_SESSIONS).
const SLOTS: usize = 8;

/// What is known of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// Our receiver index.
    pub(crate) receiver: u32,
    /// When its handshake was answered.
    made: Instant,
    /// When it may not be used any longer. Moments are kept rather than ages: every packet is compared with them.
    end: Instant,
    /// When who began it renews it, on sending and on receiving; never for who answered.
    renewal: Option<[Instant; 2]>,
    confirmed: bool,
}

impl Session {
    fn new(receiver: u32, made: Instant, initiated: bool) -> Self {
        let renewal = initiated.then(|| [made + REKEY_ON_SEND, made + REKEY_ON_RECEIVE]);
        Self { receiver, made, end: made + SESSION_END, renewal, confirmed: initiated }
    }

    /// When it may not be used any longer.
    #[inline]
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// Whether it should be renewed, as a packet goes this way now.
    #[inline]
    pub(crate) fn renews(&self, way: Way, now: Instant) -> bool {
        self.renewal.is_some_and(|renewal| now >= renewal[way as usize])
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

/// The sessions of one peer.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    slots: [Option<Session>; SLOTS],
    /// The receiver index that the library last switched to; its slot may hold another session by now, or none.
    current: u32,
}

impl Ring {
    /// We answered an initiation. The session cannot be sealed with until something arrives in it.
    pub(crate) fn offered(&mut self, receiver: u32, now: Instant) {
        self.put(Session::new(receiver, now, false));
    }

    /// Our initiation was answered.
    pub(crate) fn established(&mut self, receiver: u32, now: Instant) {
        self.put(Session::new(receiver, now, true));
        self.switch(receiver);
    }

    /// Something authentic arrived in a session; says whether that confirmed it.
    #[inline]
    pub(crate) fn received(&mut self, receiver: u32) -> bool {
        if receiver == self.current && self.in_use().is_some() {
            return false;
        }
        self.switch(receiver);
        match &mut self.slots[slot(receiver)] {
            Some(session) if session.receiver == receiver => !std::mem::replace(&mut session.confirmed, true),
            _ => false,
        }
    }

    /// Whether messages may be opened in a session.
    #[inline]
    pub(crate) fn accepts(&self, receiver: u32, now: Instant) -> bool {
        self.slots[slot(receiver)].is_some_and(|session| session.receiver == receiver && now < session.end())
    }

    /// The session that packets are sealed with.
    #[inline]
    pub(crate) fn in_use(&self) -> Option<&Session> {
        self.slots[slot(self.current)].as_ref().filter(|session| session.confirmed && session.receiver == self.current)
    }

    /// Forgets the session that is in use.
    pub(crate) fn forget_current(&mut self) {
        self.slots[slot(self.current)] = None;
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        for entry in &mut self.slots {
            entry.take_if(|session| now >= session.end());
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.slots = Default::default();
    }

    fn put(&mut self, session: Session) {
        self.slots[slot(session.receiver)] = Some(session);
    }

    /// Switches unless that would go back to an older session, as packets do that were overtaken.
    fn switch(&mut self, receiver: u32) {
        let made = |index| self.slots[slot(index)].map(|session: Session| session.made);
        if made(self.current).is_none() || made(receiver) >= made(self.current) {
            self.current = receiver;
        }
    }
}

fn slot(receiver: u32) -> usize {
    receiver as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[allow(clippy::disallowed_methods, reason = "an origin to count from; the tests never wait")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn an_offered_session_is_used_once_something_arrives_in_it() {
        let (mut ring, t) = (Ring::default(), origin());
        ring.offered(0x101, t);
        assert_eq!(ring.in_use(), None);
        assert!(ring.accepts(0x101, t) && !ring.accepts(0x109, t));
        assert!(ring.received(0x101));
        assert!(!ring.received(0x101), "confirmed once");
        assert_eq!(ring.in_use().map(|session| session.receiver), Some(0x101));
    }

    #[test]
    fn an_overtaken_packet_does_not_bring_the_old_session_back() {
        let (mut ring, t) = (Ring::default(), origin());
        ring.established(0x101, t);
        ring.established(0x102, t + SECOND);
        assert!(!ring.received(0x101));
        assert_eq!(ring.in_use().map(|session| session.receiver), Some(0x102));
    }

    #[test]
    fn an_offer_in_the_place_of_the_session_in_use_is_not_used_unconfirmed() {
        let (mut ring, t) = (Ring::default(), origin());
        ring.established(0x101, t);
        ring.offered(0x109, t + SECOND);
        assert_eq!(ring.in_use(), None);
        assert!(ring.received(0x109));
        assert_eq!(ring.in_use().map(|session| session.receiver), Some(0x109));
    }

    #[test]
    fn a_session_ends_at_its_own_time() {
        let (mut ring, t) = (Ring::default(), origin());
        ring.established(0x101, t);
        ring.offered(0x102, t + 100 * SECOND);
        ring.expire(t + 180 * SECOND);
        assert!(ring.in_use().is_some());
        ring.expire(t + SESSION_END);
        assert_eq!(ring.in_use(), None);
        assert!(ring.accepts(0x102, t + SESSION_END));
    }
}
