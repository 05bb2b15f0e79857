//! Two engines that talk to each other through memory.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use adit_core::{
    Command, Ecn, Engine, EngineConfig, Outputs, PeerUpdate, PrivateKey, Sink, SinkFull, Source, TunPacket, Update,
    Verdict,
};

use crate::packets;

/// An engine with the one slot that each of its outputs goes to.
#[derive(Debug)]
pub struct Node {
    engine: Engine,
    source: Source,
    now: Instant,
    network: Slot,
    device: Slot,
}

/// A sink of one slot that is overwritten by the next item: memory traffic as in a real queue, and nothing else.
#[derive(Debug)]
pub struct Slot {
    bytes: Vec<u8>,
    reserved: usize,
    committed: usize,
}

/// Two engines that have a session: the first sends from 10.0.0.1, the second is 10.0.0.2. Their clocks stand still.
pub fn pair() -> (Node, Node) {
    let now = Instant::now();
    let (mut a, mut b) = (Node::new(0, now), Node::new(1, now));
    a.tun(&mut packets::udp_v4(64), 64);
    let initiation = a.sent().to_vec();
    assert_eq!(b.udp(&a, &initiation), Verdict::Consumed);
    let response = b.sent().to_vec();
    assert_eq!(a.udp(&b, &response), Verdict::Consumed);
    let first = a.sent().to_vec();
    assert_eq!(b.udp(&a, &first), Verdict::Forwarded);
    (a, b)
}

impl Node {
    fn new(number: u8, now: Instant) -> Self {
        let key = |n: u8| PrivateKey::from_bytes([n + 1; 32]);
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n + 1], 51820));
        let other = 1 - number;
        let peer = PeerUpdate::new(key(other).public_key())
            .allow([format!("10.0.0.{}/32", other + 1).parse().unwrap()])
            .endpoint(address(other));
        let update = Update { private_key: Some(Some(key(number))), peers: vec![peer], ..Update::default() };
        let mut node = Self {
            engine: Engine::new(EngineConfig::default()).unwrap(),
            source: Source { remote: address(number), local: None },
            now,
            network: Slot::new(),
            device: Slot::new(),
        };
        let mut out = Outputs { network: &mut node.network, device: &mut node.device };
        node.engine.handle_command(Command::Update(Box::new(update)), now, SystemTime::now(), &mut out).unwrap();
        node
    }

    /// Hands the first `len` bytes of `buffer` to the engine as a packet of the host.
    #[inline]
    pub fn tun(&mut self, buffer: &mut [u8], len: usize) -> Verdict {
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        self.engine.handle_tun(TunPacket::new(buffer, len), self.now, &mut out)
    }

    /// Hands a datagram of `sender` to the engine.
    #[inline]
    pub fn udp(&mut self, sender: &Self, datagram: &[u8]) -> Verdict {
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        self.engine.handle_udp(sender.source, Ecn::NotEct, datagram, self.now, &mut out)
    }

    /// Seals `packet` so often, each time to another datagram.
    pub fn sealed(&mut self, packet: &mut [u8], len: usize, times: usize) -> Vec<Vec<u8>> {
        let mut seal = || {
            assert_eq!(self.tun(packet, len), Verdict::Forwarded);
            self.sent().to_vec()
        };
        (0..times).map(|_| seal()).collect()
    }

    /// The datagram that was sent last.
    pub fn sent(&self) -> &[u8] {
        &self.network.bytes[..self.network.committed]
    }
}

impl Slot {
    /// Makes a slot for any packet of a tunnel with the default MTU.
    pub fn new() -> Self {
        Self { bytes: vec![0; 2048], reserved: 0, committed: 0 }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Sink<M> for Slot {
    #[inline]
    fn reserve(&mut self, _meta: M, len: usize) -> Result<(), SinkFull> {
        self.reserved = len;
        if len > self.bytes.len() { Err(SinkFull) } else { Ok(()) }
    }

    #[inline]
    fn reserved(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.reserved]
    }

    #[inline]
    fn commit(&mut self, len: usize) {
        self.committed = len;
    }

    #[inline]
    fn rollback(&mut self) {
        self.committed = 0;
    }
}
