//! Many events in a burst, one answer: a trailing-edge debouncer with a maximum latency.
//!
//! A network that changes tells so in bursts: a link that goes down takes its addresses, routes and rules with it, one
//! message each. What has to be read again is worth reading when the burst is over. A burst that does not end must not put
//! that off for ever, so there is a limit as well.
//!
//! Pure: it reads no clock and starts no timer; the caller says what time it is and asks when to come back.

use std::time::{Duration, Instant};

/// Joins events that come shortly after one another; see the module's documentation.
///
/// [`handle_event`](Self::handle_event) tells of an event. [`due`](Self::due) is when to ask [`fire`](Self::fire), which
/// says whether it is time to act. The memory that it takes does not grow with the number of events.
#[derive(Debug, Clone)]
pub struct Debouncer {
    quiet: Duration,
    longest: Duration,
    burst: Option<Burst>,
}

#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Debouncer {
    /// Fires when no event has come for `quiet`, and at the latest when the first one is `longest` ago.
    #[must_use]
    pub const fn new(quiet: Duration, longest: Duration) -> Self {
        Self { quiet, longest, burst: None }
    }

    /// Notes an event.
    pub fn handle_event(&mut self, now: Instant) {
        let burst = self.burst.get_or_insert(Burst { first: now, last: now });
        burst.last = burst.last.max(now);
    }

    /// When it fires if no further event comes; `None` if there is nothing to fire for.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.burst.map(|burst| (burst.last + self.quiet).min(burst.first + self.longest))
    }

    /// Whether it is time to act on the events so far; if it is, they are done with.
    #[must_use]
    pub fn fire(&mut self, now: Instant) -> bool {
        let fires = self.due().is_some_and(|due| now >= due);
        if fires {
            self.burst = None;
        }
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(2);

    /// When it fires, in milliseconds, if events come at these times and it is asked when it is due, until `end`.
    fn firings(events: &[u64], end: u64) -> Vec<u64> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut debouncer = Debouncer::new(QUIET, LONGEST);
        let mut fired = Vec::new();
        let mut ask = |debouncer: &mut Debouncer, until: Instant| {
            while let Some(due) = debouncer.due().filter(|due| *due <= until) {
                assert!(!debouncer.fire(due - Duration::from_nanos(1)), "it fires before it is due");
                assert!(debouncer.fire(due));
                fired.push(u64::try_from((due - start).as_millis()).unwrap());
            }
        };
        for event in events {
            ask(&mut debouncer, at(*event));
            debouncer.handle_event(at(*event));
        }
        ask(&mut debouncer, at(end));
        fired
    }

    #[test]
    fn a_burst_fires_once_when_it_is_over() {
        let burst: Vec<u64> = (0..50).map(|number| number * 6).collect();
        assert_eq!((burst.len(), burst.last()), (50, Some(&294)));
        assert_eq!(firings(&burst, 60_000), [494]);
    }

    #[test]
    fn events_that_do_not_end_fire_at_the_longest_latency() {
        let events: Vec<u64> = (0..10_000).step_by(10).collect();
        // Each burst begins with the first event after the last firing.
        assert_eq!(firings(&events, 60_000), [2000, 4000, 6000, 8000, 10_000]);
    }

    #[test]
    fn nothing_fires_without_an_event() {
        assert_eq!(firings(&[], 60_000), Vec::<u64>::new());
        assert!(!Debouncer::new(QUIET, LONGEST).fire(Instant::now()));
    }

    #[test]
    fn events_far_apart_fire_one_by_one() {
        assert_eq!(firings(&[0, 1000, 1199, 5000], 60_000), [200, 1399, 5200]);
    }

    #[test]
    fn a_late_question_fires_once() {
        let start = Instant::now();
        let mut debouncer = Debouncer::new(QUIET, LONGEST);
        debouncer.handle_event(start);
        assert!(debouncer.fire(start + Duration::from_secs(3600)));
        assert!(!debouncer.fire(start + Duration::from_secs(3601)));
        assert_eq!(debouncer.due(), None);
    }

    #[test]
    fn an_event_from_before_the_last_one_puts_nothing_forward() {
        let start = Instant::now();
        let mut debouncer = Debouncer::new(QUIET, LONGEST);
        debouncer.handle_event(start + Duration::from_millis(100));
        debouncer.handle_event(start);
        assert_eq!(debouncer.due(), Some(start + Duration::from_millis(300)));
    }
}
