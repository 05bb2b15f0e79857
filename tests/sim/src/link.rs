//! A link that treats datagrams badly, by a seed.

use std::time::Duration;

/// How the link treats each datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time that every datagram takes.
    pub delay: Duration,
    /// Share of datagrams that never arrive.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams that take up to `reorder_by` longer, and are overtaken.
    pub reorder: f64,
    /// The longest extra time of a datagram that is overtaken.
    pub reorder_by: Duration,
}

impl Link {
    /// A link without faults: 10 ms each way.
    pub const GOOD: Self =
        Self { delay: Duration::from_millis(10), loss: 0.0, duplicate: 0.0, reorder: 0.0, reorder_by: Duration::ZERO };

    /// The extra delays with which copies of one datagram arrive: none, one or two of them.
    pub fn arrivals(&self, rng: &mut fastrand::Rng) -> Vec<Duration> {
        let copies = if rng.f64() < self.loss { 0 } else { 1 + usize::from(rng.f64() < self.duplicate) };
        (0..copies)
            .map(|_| {
                let late = rng.f64() < self.reorder;
                self.delay + if late { self.reorder_by.mul_f64(rng.f64()) } else { Duration::ZERO }
            })
            .collect()
    }
}
