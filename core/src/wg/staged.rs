//! Packets that wait for a handshake: few, bounded in number and in bytes, oldest dropped first as the kernel does.
//!
//! This is the one place of the engine that copies packets to the heap, and it does so only while there is no session.

use std::collections::VecDeque;

use crate::sink::Ecn;

/// A packet that waits.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) packet: Box<[u8]>,
    pub(crate) ecn: Ecn,
}

/// The packets that wait for one peer.
#[derive(Debug, Default)]
pub(crate) struct StagedQueue {
    packets: VecDeque<Staged>,
}

/// Bytes that wait, over all peers, and their limit.
#[derive(Debug)]
pub(crate) struct StagingBudget {
    pub(crate) used: usize,
    pub(crate) limit: usize,
}

impl StagedQueue {
    /// Appends a copy of `packet`, dropping the oldest while there are too many or too many bytes; says how many were
    /// dropped, the packet itself among them if it does not fit at all.
    pub(crate) fn push(&mut self, packet: &[u8], ecn: Ecn, max_packets: usize, budget: &mut StagingBudget) -> u64 {
        if packet.len() > budget.limit {
            return 1;
        }
        let mut dropped = 0;
        while self.packets.len() >= max_packets || budget.used + packet.len() > budget.limit {
            if self.pop(budget).is_none() {
                return dropped + 1;
            }
            dropped += 1;
        }
        budget.used += packet.len();
        self.packets.push_back(Staged { packet: packet.into(), ecn });
        dropped
    }

    /// Takes the oldest packet.
    pub(crate) fn pop(&mut self, budget: &mut StagingBudget) -> Option<Staged> {
        let staged = self.packets.pop_front()?;
        budget.used -= staged.packet.len();
        if self.packets.is_empty() {
            self.packets.shrink_to_fit();
        }
        Some(staged)
    }

    /// Forgets all packets; says how many there were.
    pub(crate) fn clear(&mut self, budget: &mut StagingBudget) -> u64 {
        let mut dropped = 0;
        while self.pop(budget).is_some() {
            dropped += 1;
        }
        dropped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_give_way_and_the_budget_is_kept() {
        let mut budget = StagingBudget { used: 0, limit: 250 };
        let mut queue = StagedQueue::default();
        assert_eq!(queue.push(&[1; 100], Ecn::NotEct, 3, &mut budget), 0);
        assert_eq!(queue.push(&[2; 100], Ecn::NotEct, 3, &mut budget), 0);
        assert_eq!(queue.push(&[3; 100], Ecn::NotEct, 3, &mut budget), 1, "bytes");
        assert_eq!(queue.push(&[4; 1], Ecn::NotEct, 3, &mut budget), 0);
        assert_eq!(queue.push(&[5; 1], Ecn::NotEct, 3, &mut budget), 1, "packets");
        assert_eq!(budget.used, 102);
        assert_eq!(queue.push(&[6; 300], Ecn::NotEct, 3, &mut budget), 1, "one that never fits drops only itself");
        assert_eq!(queue.clear(&mut budget), 3);
        assert_eq!(budget.used, 0);

        assert_eq!(queue.push(&[7; 10], Ecn::Ect0, 3, &mut budget), 0);
        assert_eq!(queue.pop(&mut budget).unwrap().ecn, Ecn::Ect0);
        assert!(queue.is_empty() && budget.used == 0);
    }
}
