//! When a peer needs attention (whitepaper section 6), as deadlines instead of ticks.
//!
//! The library below has to be asked four times a second whether something is due, which wakes a phone for nothing, and
//! reckons in steps of its last update. So the protocol's clockwork is here, and the library is only told to end sessions.

use std::time::{Duration, Instant};

/// A session may not be used any longer after REJECT_AFTER_TIME, 180 s, by both clocks.
pub(crate) const SESSION_END: Duration = Duration::from_millis(180_000 + SLACK_MS);
/// Who began a session renews it when sending in it after this (REKEY_AFTER_TIME),
pub(crate) const REKEY_ON_SEND: Duration = Duration::from_secs(120);
/// and when receiving in it after this (REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT).
pub(crate) const REKEY_ON_RECEIVE: Duration = Duration::from_secs(165);
/// An attempt to make a handshake is given up after this (REKEY_ATTEMPT_TIME).
pub(crate) const REKEY_ATTEMPT: Duration = Duration::from_secs(90);
/// All key material of an unused peer is wiped after this (3 times REJECT_AFTER_TIME).
pub(crate) const WIPE_AFTER: Duration = Duration::from_millis(540_000 + SLACK_MS);
/// An unanswered initiation is sent again after this, plus jitter (REKEY_TIMEOUT).
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest jitter on top of [`REKEY_TIMEOUT`], in milliseconds (wireguard-go, device/constants.go).
pub(crate) const REKEY_JITTER_MS: u64 = 334;
/// A peer that received data and has nothing to say answers with a keepalive after this (KEEPALIVE_TIMEOUT).
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Data that nothing answered for this long makes a new handshake (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
pub(crate) const NO_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The library's clock is brought forward at least this often while packets flow (semantics of boringtun 0.7).
pub(crate) const UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// Added to every deadline that the library judges by a clock reading of its own, taken a little after ours.
const SLACK_MS: u64 = 2;
/// First and longest pause between attempts to revive a peer that has not answered for 90 s.
const REVIVE_FIRST: Duration = Duration::from_secs(5);
const REVIVE_MAX: Duration = Duration::from_secs(60);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Send the initiation again, or give up.
    Retry,
    /// Answer received data with a keepalive.
    Keepalive,
    /// Nothing answered what was sent: make a new handshake.
    NoAnswer,
    /// The persistent keepalive's interval is over.
    PersistentKeepalive,
    /// Try again after an attempt of 90 s was given up, or once the wall clock allows it.
    Revive,
    /// The session, or all key material, has come to its end.
    Expiry,
}

impl Due {
    /// What a log line calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Retry => "handshake retry",
            Self::Keepalive => "keepalive",
            Self::NoAnswer => "no answer",
            Self::PersistentKeepalive => "persistent keepalive",
            Self::Revive => "revive",
            Self::Expiry => "session expiry",
        }
    }
}

/// The deadlines of one peer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    retry: Option<Instant>,
    /// When the first initiation was sent to which `retry` belongs.
    attempt: Option<Instant>,
    /// When a response was sent last.
    offered: Option<Instant>,
    keepalive: Option<Instant>,
    no_answer: Option<Instant>,
    revive: Option<Instant>,
    session_end: Option<Instant>,
    wipe: Option<Instant>,
    /// Persistent keepalive: its interval, and when it is due if no authenticated packet goes either way until then.
    persistent: Option<Duration>,
    persistent_next: Option<Instant>,
    revive_pause: Duration,
}

impl Timers {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<(Instant, Due)> {
        [
            self.retry.map(|at| (at, Due::Retry)),
            self.keepalive.map(|at| (at, Due::Keepalive)),
            self.no_answer.map(|at| (at, Due::NoAnswer)),
            self.persistent_next.map(|at| (at, Due::PersistentKeepalive)),
            self.revive.map(|at| (at, Due::Revive)),
            self.session_end.into_iter().chain(self.wipe).min().map(|at| (at, Due::Expiry)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether another attempt is due after a pause.
    pub(crate) fn is_reviving(&self) -> bool {
        self.revive.is_some()
    }

    /// Whether an initiation is out that nothing answered yet.
    pub(crate) fn in_flight(&self) -> bool {
        self.retry.is_some()
    }

    /// Whether the attempt that is under way has lasted too long.
    pub(crate) fn attempt_is_over(&self, now: Instant) -> bool {
        self.attempt.is_some_and(|start| now.saturating_duration_since(start) >= REKEY_ATTEMPT)
    }

    /// Whether a response has just been sent whose session the peer is about to confirm. An initiation of our own would
    /// only cross that, so it is put off; the kernel counts REKEY_TIMEOUT from responses as well
    /// (wg_packet_send_handshake_response).
    pub(crate) fn await_confirmation(&mut self, now: Instant, jitter: Duration) -> bool {
        let until = self.offered.map(|offered| offered + REKEY_TIMEOUT).filter(|until| now < *until);
        if let Some(until) = until {
            self.attempt.get_or_insert(now);
            self.retry = Some(until + jitter);
            self.revive = None;
        }
        until.is_some()
    }

    /// An initiation was sent.
    pub(crate) fn initiation_sent(&mut self, now: Instant, jitter: Duration) {
        self.attempt.get_or_insert(now);
        self.retry = Some(now + REKEY_TIMEOUT + jitter);
        self.no_answer = None;
        self.revive = None;
        self.wipe = Some(now + WIPE_AFTER);
        self.traversed(now);
    }

    /// A response was sent: there is a session, but the peer has not yet shown that it has it too.
    pub(crate) fn session_offered(&mut self, now: Instant) {
        self.offered = Some(now);
        self.keepalive = None;
        self.no_answer = None;
        self.wipe = Some(now + WIPE_AFTER);
        self.traversed(now);
    }

    /// A session that ends at `end` can be used: its response arrived, or the first packet in a session that was
    /// offered. While another initiation `is_out` the attempt goes on, but leaves an answer more time than a retry does:
    /// the one that came took longer than that.
    pub(crate) fn session_confirmed(&mut self, now: Instant, end: Instant, is_out: bool) {
        self.retry = is_out.then(|| now + NO_ANSWER_TIMEOUT);
        if !is_out {
            self.attempt = None;
        }
        self.offered = None;
        self.no_answer = None;
        self.revive = None;
        self.revive_pause = Duration::ZERO;
        self.session_end = Some(end);
        self.wipe = Some(now + WIPE_AFTER);
        self.traversed(now);
    }

    /// An IP packet was sealed and sent. Says whether the next deadline may have come nearer.
    pub(crate) fn data_sent(&mut self, now: Instant) -> bool {
        self.keepalive = None;
        self.traversed(now);
        if self.no_answer.is_some() || self.retry.is_some() {
            return false;
        }
        self.no_answer = Some(now + NO_ANSWER_TIMEOUT);
        true
    }

    /// A keepalive or handshake message was sent.
    pub(crate) fn control_sent(&mut self, now: Instant) {
        self.keepalive = None;
        self.traversed(now);
    }

    /// An authentic IP packet was received. Says whether the next deadline may have come nearer.
    pub(crate) fn data_received(&mut self, now: Instant) -> bool {
        self.no_answer = None;
        self.traversed(now);
        if self.keepalive.is_some() {
            return false;
        }
        self.keepalive = Some(now + KEEPALIVE_TIMEOUT);
        true
    }

    /// An authentic message without data was received.
    pub(crate) fn control_received(&mut self, now: Instant) {
        self.no_answer = None;
        self.traversed(now);
    }

    /// The persistent keepalive was changed; when it is turned on, the first one is due at once, as in the kernel.
    pub(crate) fn set_persistent(&mut self, seconds: u16, now: Instant) {
        let interval = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        if interval != self.persistent {
            self.persistent = interval;
            self.persistent_next = interval.map(|_| now);
        }
    }

    /// The persistent keepalive, in seconds; 0 is off.
    pub(crate) fn persistent(&self) -> u16 {
        self.persistent.map_or(0, |interval| interval.as_secs() as u16)
    }

    /// A deadline was looked after, whatever came of it: it does not fire again by itself.
    pub(crate) fn clear(&mut self, due: Due, now: Instant) {
        match due {
            Due::Retry => self.retry = None,
            Due::Keepalive => self.keepalive = None,
            Due::NoAnswer => self.no_answer = None,
            Due::PersistentKeepalive => self.traversed(now),
            Due::Revive => self.revive = None,
            Due::Expiry if self.session_end.is_some_and(|at| at <= now) => self.session_end = None,
            Due::Expiry => self.wipe = None,
        }
    }

    /// An attempt was given up. With `keep_trying` another one is due after a jittered pause that doubles from 5 s to a
    /// minute; returns that pause.
    pub(crate) fn gave_up(&mut self, now: Instant, keep_trying: bool, jitter: f64) -> Option<Duration> {
        self.retry = None;
        self.attempt = None;
        if !keep_trying {
            return None;
        }
        self.revive_pause = (self.revive_pause * 2).clamp(REVIVE_FIRST, REVIVE_MAX);
        // Half of the pause is fixed and half is random, so that many peers of one server do not come back in step.
        let pause = self.revive_pause.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        self.revive = Some(now + pause);
        Some(pause)
    }

    /// Initiations are held back until `at`.
    pub(crate) fn hold_until(&mut self, at: Instant) {
        self.attempt = None;
        self.revive = Some(at);
    }

    /// The session is gone, and what waited on it.
    pub(crate) fn forget_session(&mut self) {
        let kept = (self.persistent, self.persistent_next, self.revive_pause);
        *self = Self::default();
        (self.persistent, self.persistent_next, self.revive_pause) = kept;
    }

    /// An authenticated packet went one way or the other, which puts the persistent keepalive off.
    fn traversed(&mut self, now: Instant) {
        if let Some(interval) = self.persistent {
            self.persistent_next = Some(now + interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[allow(clippy::disallowed_methods, reason = "an origin to count from; the tests never wait")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_quiet_peer_has_no_deadline() {
        assert_eq!(Timers::default().next(), None);
    }

    #[test]
    fn data_received_asks_for_one_keepalive_that_sending_cancels() {
        let (mut timers, t) = (Timers::default(), origin());
        assert!(timers.data_received(t));
        assert!(!timers.data_received(t + SECOND), "the first one counts");
        assert_eq!(timers.next(), Some((t + KEEPALIVE_TIMEOUT, Due::Keepalive)));
        timers.data_sent(t + 2 * SECOND);
        assert_eq!(timers.next(), Some((t + 17 * SECOND, Due::NoAnswer)));
        timers.control_received(t + 3 * SECOND);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn persistent_keepalives_start_at_once_and_count_from_the_last_packet() {
        let (mut timers, t) = (Timers::default(), origin());
        timers.set_persistent(25, t);
        assert_eq!(timers.next(), Some((t, Due::PersistentKeepalive)));
        timers.control_sent(t);
        assert_eq!(timers.next(), Some((t + 25 * SECOND, Due::PersistentKeepalive)));
        timers.set_persistent(25, t + SECOND);
        assert_eq!(timers.next(), Some((t + 25 * SECOND, Due::PersistentKeepalive)), "the same again changes nothing");
        timers.set_persistent(0, t);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_session_ends_and_is_wiped_later() {
        let (mut timers, t) = (Timers::default(), origin());
        timers.session_confirmed(t, t + SESSION_END, false);
        assert_eq!(timers.next(), Some((t + SESSION_END, Due::Expiry)));
        timers.clear(Due::Expiry, t + SESSION_END);
        assert_eq!(timers.next(), Some((t + WIPE_AFTER, Due::Expiry)));
        timers.clear(Due::Expiry, t + WIPE_AFTER);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_attempt_lasts_90_seconds_from_its_first_initiation() {
        let (mut timers, t) = (Timers::default(), origin());
        timers.initiation_sent(t, Duration::ZERO);
        timers.initiation_sent(t + 5 * SECOND, SECOND / 10);
        assert_eq!(timers.next(), Some((t + 10 * SECOND + SECOND / 10, Due::Retry)));
        assert!(!timers.attempt_is_over(t + 89 * SECOND));
        assert!(timers.attempt_is_over(t + 90 * SECOND));
        timers.gave_up(t + 90 * SECOND, false, 0.0);
        assert!(!timers.in_flight() && !timers.attempt_is_over(t + 200 * SECOND));
    }

    #[test]
    fn revival_backs_off_with_jitter_and_starts_over_after_success() {
        let (mut timers, t) = (Timers::default(), origin());
        assert_eq!(timers.gave_up(t, false, 0.0), None);
        let pauses: Vec<_> = (0..6).map(|_| timers.gave_up(t, true, 1.0).unwrap().as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        assert_eq!(timers.gave_up(t, true, 0.0).unwrap().as_secs(), 30, "half is jitter");
        timers.session_confirmed(t, t + SESSION_END, false);
        assert_eq!(timers.gave_up(t, true, 1.0).unwrap().as_secs(), 5);
    }

    #[test]
    fn a_session_that_is_only_offered_does_not_stop_retries() {
        let (mut timers, t) = (Timers::default(), origin());
        timers.initiation_sent(t, Duration::ZERO);
        timers.session_offered(t + SECOND);
        assert_eq!(timers.next().unwrap().1, Due::Retry);
        timers.session_confirmed(t + SECOND, t + SESSION_END, true);
        assert_eq!(timers.next().unwrap().1, Due::Retry, "another initiation is out");
        timers.session_confirmed(t + SECOND, t + SESSION_END, false);
        assert_eq!(timers.next().unwrap().1, Due::Expiry);
    }
}
