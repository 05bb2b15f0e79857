//! Super-packets through two engines: at the other end they are the packets of the model, sealed in place and padded.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use adit_core::offload::VirtioNetHeader;
use adit_core::sink::Collector;
use adit_core::{
    Command, DropReason, Ecn, Engine, EngineConfig, Event, Outputs, PeerUpdate, PrivateKey, Source, Transmit,
    TunPacket, Update, Verdict,
};
use proptest::prelude::*;

use crate::shape::Shape;
use crate::strategy::super_packet;

/// An engine and everything that it put out.
struct End {
    engine: Engine,
    address: SocketAddr,
    network: Collector<Transmit>,
    device: Collector<()>,
}

/// Two of them, and the time.
struct Pair {
    ends: [End; 2],
    now: Instant,
}

impl Pair {
    #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
    fn new() -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        Self { ends: [End::new(1, 2, now, wall), End::new(2, 1, now, wall)], now }
    }

    /// Lets everything that waits for the other end arrive there, until nothing does.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for from in 0..2 {
                let source = Source { remote: self.ends[from].address, local: None };
                while let Some((_, datagram)) = self.ends[from].network.items.pop_front() {
                    quiet = false;
                    let End { engine, network, device, .. } = &mut self.ends[1 - from];
                    engine.handle_udp(source, Ecn::NotEct, &datagram, self.now, &mut Outputs { network, device });
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Gives a super-packet to the first engine.
    fn send(&mut self, shape: &Shape) -> Verdict {
        let packet = shape.packet();
        self.send_bytes(packet.unfinished(), packet.gso(shape.size))
    }

    fn send_bytes(&mut self, mut buffer: Vec<u8>, offload: VirtioNetHeader) -> Verdict {
        let len = buffer.len();
        buffer.resize(len + TunPacket::TAILROOM, 0xa5);
        let End { engine, network, device, .. } = &mut self.ends[0];
        let out = &mut Outputs { network, device };
        engine.handle_tun_offload(TunPacket::new(&mut buffer, len), offload, self.now, out)
    }

    /// What the second engine gave to its host.
    fn received(&mut self) -> Vec<Vec<u8>> {
        self.ends[1].device.items.drain(..).map(|((), bytes)| bytes).collect()
    }
}

impl End {
    fn new(own: u8, other: u8, now: Instant, wall: SystemTime) -> Self {
        let key = |number: u8| PrivateKey::from_bytes([number; 32]);
        let address = |number: u8| SocketAddr::from(([192, 0, 2, number], 51820));
        let peer = PeerUpdate::new(key(other).public_key())
            .allow(["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()))
            .endpoint(address(other));
        let update = Update { private_key: Some(Some(key(own))), peers: vec![peer], ..Update::default() };
        let mut engine = Engine::new(EngineConfig { mtu: MTU, ..EngineConfig::default() }).unwrap();
        let (mut network, mut device) = (Collector::with_capacity(1 << 16), Collector::with_capacity(1 << 16));
        let mut out = Outputs { network: &mut network, device: &mut device };
        engine.handle_command(Command::Update(Box::new(update)), now, wall, &mut out).unwrap();
        Self { engine, address: address(own), network, device }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_other_end_receives_the_segments_of_the_model(shapes in proptest::collection::vec(super_packet(), 1..6)) {
        let mut pair = Pair::new();
        prop_assert_eq!(pair.send(&Shape { payload: 10, ..Shape::default() }), Verdict::Staged);
        pair.settle();
        prop_assert_eq!(pair.received().len(), 1, "a packet that waited for the session");
        for shape in shapes {
            // 20 segments at most, and none above the MTU.
            let size = shape.size.min(1000);
            let shape = Shape { payload: shape.payload.min(20 * usize::from(size)), size, ..shape };
            prop_assert_eq!(pair.send(&shape), Verdict::Forwarded);
            pair.settle();
            // The outer ECN field got lost on the way, so the inner one stays.
            prop_assert_eq!(pair.received(), shape.packet().split(shape.size.into()));
            pair.now += Duration::from_millis(1);
        }
    }
}

#[test]
fn segments_that_wait_for_a_session_arrive_in_order() {
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = Pair::new();
        let shape = Shape { v6, udp, payload: 9_999, ..Shape::default() };
        assert_eq!(pair.send(&shape), Verdict::Staged);
        pair.settle();
        assert_eq!(pair.received(), shape.packet().split(1000));
    }
}

#[test]
fn segments_above_the_mtu_are_dropped_and_counted_one_by_one() {
    let mut pair = Pair::new();
    assert_eq!(
        pair.send(&Shape { payload: 6000, size: 2000, ..Shape::default() }),
        Verdict::Dropped(DropReason::TooBig)
    );
    pair.settle();
    assert!(pair.received().is_empty());
    assert_eq!(pair.ends[0].engine.stats().drops.get(DropReason::TooBig), 3);
}

#[test]
fn segments_for_the_own_endpoint_are_dropped_and_counted_one_by_one() {
    let mut pair = Pair::new();
    assert_eq!(pair.send(&Shape { payload: 10, ..Shape::default() }), Verdict::Staged);
    pair.settle();
    let shape = Shape { udp: true, payload: 6000, size: 1000, ..Shape::default() };
    let mut packet = shape.packet().unfinished();
    packet[16..20].copy_from_slice(&[192, 0, 2, 2]);
    packet[22..24].copy_from_slice(&51820u16.to_be_bytes());
    for event in [true, false] {
        let dropped = Verdict::Dropped(DropReason::EndpointLoop);
        assert_eq!(pair.send_bytes(packet.clone(), shape.packet().gso(shape.size)), dropped);
        let engine = &mut pair.ends[0].engine;
        let reported =
            std::iter::from_fn(|| engine.poll_event()).any(|event| matches!(event, Event::EndpointLoop { .. }));
        assert_eq!(reported, event);
    }
    assert_eq!(pair.ends[0].engine.stats().drops.get(DropReason::EndpointLoop), 12);
}

const MTU: usize = 1420;
