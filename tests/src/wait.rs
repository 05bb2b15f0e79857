//! The only place in the tests that sleeps: real programs cannot be told to hurry, only asked whether they are done.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `condition` again and again until it holds.
///
/// # Errors
/// When it does not hold within `timeout`; `what` says what was waited for.
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually_some(what, timeout, || condition().then_some(()))
}

/// Asks `question` again and again until it has an answer.
///
/// # Errors
/// When it has none within `timeout`; `what` says what was waited for.
pub fn eventually_some<T>(what: &str, timeout: Duration, mut question: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        // Asked once more after the deadline, so that a machine that stood still does not fail the test.
        let late = Instant::now() >= deadline;
        if let Some(answer) = question() {
            return Ok(answer);
        }
        if late {
            bail!("waited {timeout:?} in vain: {what}");
        }
        sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Lets time pass: for what has no sign by which its end could be seen, such as that nothing happens.
pub fn pass(time: Duration) {
    sleep(time);
}

#[allow(clippy::disallowed_methods, reason = "a real wait with a deadline and a condition")]
fn sleep(pause: Duration) {
    std::thread::sleep(pause);
}

/// Most things are done at once.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// What is not shall not cost a processor that the thing itself needs.
const LAST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_enough() {
        let mut asked = 0;
        eventually("third time", Duration::from_secs(10), || {
            asked += 1;
            asked == 3
        })
        .unwrap();
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_condition_that_stays_false_fails_with_its_name() {
        let error = eventually("the sea to be empty", Duration::from_millis(5), || false).unwrap_err();
        assert!(error.to_string().contains("the sea to be empty"), "{error}");
    }
}
