//! How often a running tunnel's settings are looked after.
//!
//! A change by somebody else is repaired at once. Somebody who undoes the repair at once is another program that wants
//! something else of the same rule or route, and against that there is no winning: after [`TRIES`] repairs within
//! [`WINDOW`] there is one in [`TRUCE`], until a look finds nothing to repair. A repair that fails is tried again after a
//! pause that grows. Pure: the caller says what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When the next look may be, and when it must be; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The last repairs, at most [`TRIES`].
    repairs: VecDeque<Instant>,
    fight: bool,
    failures: u32,
    not_before: Option<Instant>,
    retry_at: Option<Instant>,
}

/// What a repair says about the other program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rivalry {
    /// There is none.
    None,
    /// It has just shown.
    Begins,
    /// It goes on.
    GoesOn,
}

impl Pace {
    /// The earliest moment of the next look, whatever happens until then.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// When to look even if nothing happens.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// A look found nothing to repair; true if that ends a fight.
    pub(super) fn found_nothing(&mut self) -> bool {
        std::mem::take(self).fight
    }

    /// A look found something and has repaired it.
    pub(super) fn repaired(&mut self, now: Instant) -> Rivalry {
        (self.failures, self.retry_at, self.not_before) = (0, None, None);
        self.repairs.retain(|repair| now.saturating_duration_since(*repair) < WINDOW);
        self.repairs.push_back(now);
        let begins = !self.fight && self.repairs.len() >= TRIES;
        if self.fight || begins {
            self.fight = true;
            self.repairs.clear();
            self.not_before = Some(now + TRUCE);
        }
        match (begins, self.fight) {
            (true, _) => Rivalry::Begins,
            (false, true) => Rivalry::GoesOn,
            (false, false) => Rivalry::None,
        }
    }

    /// A look has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + FIRST_PAUSE);
        self.retry_at = Some(now + pause.min(LAST_PAUSE));
    }
}

/// So many repairs within [`WINDOW`] are a fight.
const TRIES: usize = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// The pause between repairs in a fight.
const TRUCE: Duration = Duration::from_secs(10);
/// The least pause after a look that failed; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(from: Instant, to: Option<Instant>) -> Option<u64> {
        to.map(|to| (to - from).as_secs())
    }

    #[test]
    fn a_fight_is_slowed_down_until_it_is_over() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        for repair in 0..4 {
            assert_eq!(pace.repaired(at(repair * 300)), Rivalry::None);
            assert_eq!(pace.not_before(), None);
        }
        assert_eq!(pace.repaired(at(2000)), Rivalry::Begins);
        assert_eq!(pace.not_before(), Some(at(12_000)));
        assert_eq!(pace.repaired(at(12_000)), Rivalry::GoesOn);
        assert_eq!(pace.not_before(), Some(at(22_000)));
        assert!(pace.found_nothing() && !pace.found_nothing());
        assert_eq!((pace.not_before(), pace.repaired(at(22_500))), (None, Rivalry::None));
    }

    #[test]
    fn repairs_now_and_then_are_no_fight() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for repair in 0..1000 {
            let now = start + Duration::from_millis(2600) * repair;
            assert_eq!((pace.repaired(now), pace.not_before()), (Rivalry::None, None), "{repair}");
            assert!(pace.repairs.len() < TRIES);
        }
    }

    #[test]
    fn failures_are_tried_again_with_pauses_that_grow_to_a_limit() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..40)
            .map(|_| {
                pace.failed(start);
                assert_eq!(seconds(start, pace.not_before()), Some(2));
                seconds(start, pace.retry_at()).unwrap()
            })
            .collect();
        assert_eq!(pauses[..6], [2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses[39], 30);
        assert_eq!(pace.repaired(start), Rivalry::None);
        assert_eq!((pace.not_before(), pace.retry_at()), (None, None));
    }
}
