//! The same work without a cipher, in memory.

use std::net::SocketAddr;
use std::time::Instant;

use adit_core::{Source, TunPacket, Verdict};
use adit_tun::batch::BatchPacket;

use super::Subject;
use super::adit::host;
use super::link::{Codec, Link};
use super::load::{A, B, Load};
use crate::bench::node::Queues;
use crate::bench::plain::Plain;
use crate::failure::{Failure, Outcome};

/// Two of these.
pub(super) fn link(load: Load) -> Outcome<Box<dyn Subject>> {
    let addresses = [SocketAddr::from(([192, 0, 2, 1], 51_820)), SocketAddr::from(([192, 0, 2, 2], 51_820))];
    let source = Source { remote: addresses[0], local: None };
    let (sender, receiver) = (Plain::new(addresses[1], [host(B)]), Plain::new(addresses[0], [host(A)]));
    Ok(Box::new(Link::new(sender, receiver, source, load)?))
}

impl Codec for Plain {
    #[inline]
    fn seal(&mut self, packet: BatchPacket<'_>, _now: Instant, queues: &mut Queues) -> Outcome {
        let BatchPacket { buffer, len, offload } = packet;
        expect(Plain::seal(self, TunPacket::new(buffer, len), offload, &mut queues.outputs()))
    }

    #[inline]
    fn open(&mut self, _from: Source, datagram: &[u8], _now: Instant, queues: &mut Queues) -> Outcome {
        expect(Plain::open(self, datagram, &mut queues.outputs()))
    }
}

#[inline]
fn expect(verdict: Verdict) -> Outcome {
    if verdict == Verdict::Forwarded {
        Ok(())
    } else {
        Err(Failure::failed(format!("the loop without cipher did not forward a packet of the benchmark: {verdict:?}")))
    }
}
