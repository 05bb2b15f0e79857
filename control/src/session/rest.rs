//! Sleeping and waking: when a machine that woke is awake.
//!
//! A sleeping machine wakes every quarter of an hour for some seconds (dark wake), and nothing tells a provider that its
//! user is not there. To look after every timer and every change of the network then is what makes a tunnel reconnect all
//! night. So a wake counts only when it has lasted; until then the engine's timers rest. A packet that somebody sends
//! meanwhile begins its handshake all the same.

use std::time::{Duration, Instant};

/// Whether the machine is awake, as far as the tunnel is concerned.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest {
    state: Phase,
    /// Wakes in a row that were over before they counted.
    short_wakes: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Awake,
    Asleep,
    /// Woken, and awake from then on.
    Settling(Instant),
}

impl Rest {
    /// The machine goes to sleep; says whether the tunnel was awake until now.
    pub(super) fn sleep(&mut self) -> bool {
        if let Phase::Settling(_) = self.state {
            self.short_wakes = self.short_wakes.saturating_add(1);
        }
        std::mem::replace(&mut self.state, Phase::Asleep) == Phase::Awake
    }

    /// The machine woke, for a moment or for good.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.state == Phase::Asleep {
            let settle = if self.short_wakes < MANY_SHORT_WAKES { SETTLE } else { SETTLE_AT_NIGHT };
            self.state = Phase::Settling(now + settle);
        }
    }

    /// When the wake counts.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            Phase::Settling(at) => Some(at),
            Phase::Awake | Phase::Asleep => None,
        }
    }

    /// Whether the wake counts from now on; says so once.
    pub(super) fn settles(&mut self, now: Instant) -> bool {
        let settled = self.due().is_some_and(|at| at <= now);
        if settled {
            *self = Self::default();
        }
        settled
    }

    pub(super) fn is_awake(&self) -> bool {
        self.state == Phase::Awake
    }
}

/// How long a wake has to last to count: Apple's dark wakes are shorter than this or last for some 20 to 60 seconds.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// The same once there were [`MANY_SHORT_WAKES`]: the machine's lid is closed.
pub(super) const SETTLE_AT_NIGHT: Duration = Duration::from_secs(30);

/// So many wakes in a row that did not last are a pattern.
pub(super) const MANY_SHORT_WAKES: u32 = 3;
