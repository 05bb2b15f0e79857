//! The product: two engines with a session.

use std::time::Instant;

use adit_core::Source;
use adit_tun::batch::BatchPacket;
use ipnet::IpNet;

use super::Subject;
use super::link::{Codec, Link};
use super::load::{A, B, Load};
use crate::bench::node::{Node, Queues};
use crate::failure::Outcome;

/// Two engines between which so many packets can go.
pub(super) fn link(load: Load) -> Outcome<Box<dyn Subject>> {
    let mut queues = Queues::default();
    let mut sender = Node::new(([192, 0, 2, 1], 51_820).into())?;
    let mut receiver = Node::new(([192, 0, 2, 2], 51_820).into())?;
    sender.add(vec![receiver.as_peer().allow([host(B)])], &mut queues)?;
    receiver.add(vec![sender.as_peer().allow([host(A)])], &mut queues)?;
    sender.connect(&mut receiver, &mut queues)?;
    let source = sender.source;
    Ok(Box::new(Link::new(sender, receiver, source, load)?))
}

/// The prefix of one address.
pub(super) fn host(address: [u8; 4]) -> IpNet {
    std::net::IpAddr::from(address).into()
}

impl Codec for Node {
    #[inline]
    fn seal(&mut self, packet: BatchPacket<'_>, now: Instant, queues: &mut Queues) -> Outcome {
        Node::seal(self, packet, now, queues)
    }

    #[inline]
    fn open(&mut self, from: Source, datagram: &[u8], now: Instant, queues: &mut Queues) -> Outcome {
        Node::open(self, from, datagram, now, queues)
    }
}
