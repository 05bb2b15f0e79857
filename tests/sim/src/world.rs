//! Engines, the links between them, and the clock that they share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use adit_core::sink::Collector;
use adit_core::{
    Command, CommandError, DropReason, Ecn, Engine, EngineConfig, Event, Outputs, PeerUpdate, PrivateKey, PublicKey,
    Source, Transmit, TunPacket, Update, Verdict,
};
use ipnet::IpNet;
use mock_instant::MockClock;

use crate::Link;

/// One engine with its address on the simulated underlay.
pub struct Node {
    /// The engine under test.
    pub engine: Engine,
    /// Its private key.
    pub private_key: PrivateKey,
    /// Where its datagrams come from.
    pub address: SocketAddr,
    /// IP packets that it gave to its host.
    pub received: VecDeque<Vec<u8>>,
    /// Events, polled after every input.
    pub events: Vec<Event>,
    /// How often `handle_timeout` was called.
    pub timeouts: u64,
    /// Datagrams that it sent, handshakes included.
    pub sent: u64,
    /// Where the last of them went.
    pub last_transmit: Option<Transmit>,
}

impl Node {
    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        self.private_key.public_key()
    }

    /// How often `reason` was counted.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.engine.stats().drops.get(reason)
    }

    /// How many handshakes were completed.
    pub fn handshakes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::HandshakeCompleted { .. })).count()
    }
}

/// A datagram on its way; ordered by arrival, then by when it was sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Instant,
    sequence: u64,
    from: SocketAddr,
    to: SocketAddr,
    ecn: u8,
    bytes: Vec<u8>,
}

/// Everything: nodes, link and clock. Only one may live in a thread at a time, for the mock clock is the thread's.
pub struct World {
    /// The engines.
    pub nodes: Vec<Node>,
    /// How the link treats datagrams from now on.
    pub link: Link,
    /// Datagrams that the link loses whatever its chances say.
    pub lose: fn(&[u8]) -> bool,
    /// Datagrams that the link lost.
    pub lost: u64,
    /// Datagrams that were handed to the link and then dropped because nobody has that address.
    pub undeliverable: u64,
    /// Keeps a copy of every datagram on the link while set: `(from, to, bytes)`.
    pub tap: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    origin: Instant,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    sequence: u64,
    rng: fastrand::Rng,
}

impl World {
    /// An empty world at time zero.
    pub fn new(seed: u64, link: Link) -> Self {
        MockClock::set_time(Duration::ZERO);
        #[allow(clippy::disallowed_methods, reason = "an origin to count from; the world never waits")]
        let origin = Instant::now();
        Self {
            nodes: Vec::new(),
            link,
            lose: |_| false,
            lost: 0,
            undeliverable: 0,
            tap: None,
            origin,
            in_flight: BinaryHeap::new(),
            sequence: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.origin + MockClock::time()
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        MockClock::time()
    }

    /// Adds a node whose keys follow from its number.
    pub fn add(&mut self, address: &str, mut config: EngineConfig) -> usize {
        let number = self.nodes.len();
        let private_key = PrivateKey::from_bytes([number as u8 + 1; 32]);
        config.seed ^= number as u64 + 1;
        self.nodes.push(Node {
            engine: Engine::new(config).expect("a valid configuration"),
            address: address.parse().expect("an address and port"),
            private_key: private_key.clone(),
            received: VecDeque::new(),
            events: Vec::new(),
            timeouts: 0,
            sent: 0,
            last_transmit: None,
        });
        self.update(number, Update { private_key: Some(Some(private_key)), ..Update::default() });
        number
    }

    /// Two nodes that know each other: 0 is 10.0.0.1 and fd00::1 and knows where 1 is; 1 is 10.0.0.2 and fd00::2.
    pub fn pair(seed: u64, link: Link) -> Self {
        Self::pair_with(seed, link, EngineConfig::default())
    }

    /// As [`pair`](Self::pair), with this configuration for both.
    pub fn pair_with(seed: u64, link: Link, mut config: EngineConfig) -> Self {
        config.seed = seed;
        let mut world = Self::new(seed, link);
        let a = world.add("192.0.2.1:51820", config.clone());
        let b = world.add("198.51.100.2:51820", config);
        let (key_a, key_b) = (world.nodes[a].public_key(), world.nodes[b].public_key());
        let address_b = world.nodes[b].address;
        world.set_peer(a, PeerUpdate::new(key_b).allow(nets(&["10.0.0.2/32", "fd00::2/128"])).endpoint(address_b));
        world.set_peer(b, PeerUpdate::new(key_a).allow(nets(&["10.0.0.1/32", "fd00::1/128"])));
        world
    }

    /// Changes one peer of a node.
    pub fn set_peer(&mut self, node: usize, peer: PeerUpdate) {
        self.update(node, Update { peers: vec![peer], ..Update::default() });
    }

    /// Changes a node's configuration.
    pub fn update(&mut self, node: usize, update: Update) {
        self.command(node, Command::Update(Box::new(update)));
    }

    /// Gives a command to a node; it has to be accepted.
    pub fn command(&mut self, node: usize, command: Command) {
        self.try_command(node, command).expect("accepted");
    }

    /// Gives a command to a node, which may refuse it.
    ///
    /// # Errors
    /// What the engine says.
    pub fn try_command(&mut self, node: usize, command: Command) -> Result<(), CommandError> {
        // The real wall clock: boringtun reads it too, whatever time the mock clock shows.
        #[allow(clippy::disallowed_methods, reason = "the wall clock that the library reads as well")]
        let wall = SystemTime::now();
        self.with(node, |engine, now, out| engine.handle_command(command, now, wall, out))
    }

    /// Gives a packet of the host to a node.
    pub fn send(&mut self, node: usize, packet: &[u8]) -> Verdict {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + TunPacket::TAILROOM, 0xa5);
        let len = packet.len();
        let verdict = self.with(node, |engine, now, out| engine.handle_tun(TunPacket::new(&mut buffer, len), now, out));
        assert!(buffer[len..].iter().all(|byte| *byte == 0xa5), "the bytes behind a packet are restored");
        assert_eq!(&buffer[..len], packet, "the packet itself is not touched");
        verdict
    }

    /// Sends a small UDP packet from one node's tunnel address to another's, over IPv4.
    pub fn send_udp(&mut self, from: usize, to: usize, payload: &[u8]) -> Verdict {
        self.send(from, &crate::packet::udp(tunnel_v4(from), tunnel_v4(to), payload))
    }

    /// Gives a datagram to a node at once, as if it came from `from`.
    pub fn inject(&mut self, node: usize, from: SocketAddr, datagram: &[u8]) -> Verdict {
        self.inject_ecn(node, from, Ecn::NotEct, datagram)
    }

    /// As [`inject`](Self::inject), with the own address on which it arrived.
    pub fn inject_source(&mut self, node: usize, source: Source, datagram: &[u8]) -> Verdict {
        self.with(node, |engine, now, out| engine.handle_udp(source, Ecn::NotEct, datagram, now, out))
    }

    /// As [`inject`](Self::inject), with an outer ECN field.
    pub fn inject_ecn(&mut self, node: usize, from: SocketAddr, ecn: Ecn, datagram: &[u8]) -> Verdict {
        let source = Source { remote: from, local: None };
        self.with(node, |engine, now, out| engine.handle_udp(source, ecn, datagram, now, out))
    }

    /// Runs until `duration` has passed.
    pub fn run_for(&mut self, duration: Duration) {
        let end = MockClock::time() + duration;
        while self.step(end) {}
        MockClock::set_time(end);
    }

    /// Runs until `done`, and says whether that was before `limit` had passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = MockClock::time() + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                MockClock::set_time(end);
                return done(self);
            }
        }
    }

    /// Lets time pass in which nothing runs: the machine of both nodes sleeps, datagrams are lost.
    pub fn sleep_all(&mut self, duration: Duration) {
        self.in_flight.clear();
        MockClock::set_time(MockClock::time() + duration);
    }

    /// Does the next thing that is due before `end`, moving the clock there; `false` if there is none.
    pub fn step(&mut self, end: Duration) -> bool {
        let end = self.origin + end;
        let arrival = self.in_flight.peek().map(|Reverse(datagram)| datagram.at);
        let timeout = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((n.engine.poll_timeout()?.at, i))).min();
        let next = match (arrival, timeout) {
            (Some(arrival), Some((at, _))) => arrival.min(at),
            (Some(arrival), None) => arrival,
            (None, Some((at, _))) => at,
            (None, None) => return false,
        };
        if next > end {
            return false;
        }
        self.set_now(next);
        if arrival == Some(next) {
            self.deliver();
        } else if let Some((_, node)) = timeout {
            self.timeout(node);
        }
        true
    }

    fn set_now(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.origin);
        if elapsed > MockClock::time() {
            MockClock::set_time(elapsed);
        }
    }

    fn deliver(&mut self) {
        let Some(Reverse(datagram)) = self.in_flight.pop() else { return };
        match self.nodes.iter().position(|node| node.address == datagram.to) {
            Some(node) => {
                self.inject_ecn(node, datagram.from, Ecn::from_bits(datagram.ecn), &datagram.bytes);
            }
            None => self.undeliverable += 1,
        }
    }

    fn timeout(&mut self, node: usize) {
        let before = self.nodes[node].engine.poll_timeout();
        self.with(node, Engine::handle_timeout);
        self.nodes[node].timeouts += 1;
        let stuck = self.nodes[node].engine.poll_timeout() == before;
        assert!(!stuck, "a deadline that fired is still there: {before:?}");
    }

    /// Calls an input of a node's engine and puts its outputs where they belong.
    fn with<R>(
        &mut self,
        node: usize,
        call: impl FnOnce(&mut Engine, Instant, &mut Outputs<'_, Collector<Transmit>, Collector<()>>) -> R,
    ) -> R {
        let now = self.now();
        let (mut network, mut device) = (Collector::default(), Collector::default());
        let this = &mut self.nodes[node];
        let result = call(&mut this.engine, now, &mut Outputs { network: &mut network, device: &mut device });
        this.received.extend(device.items.into_iter().map(|(_, packet)| packet));
        while let Some(event) = this.engine.poll_event() {
            this.events.push(event);
        }
        this.sent += network.items.len() as u64;
        this.last_transmit = network.items.back().map(|(transmit, _)| *transmit).or(this.last_transmit);
        let from = this.address;
        for (transmit, bytes) in network.items {
            if let Some(tap) = &mut self.tap {
                tap.push((from, transmit.remote, bytes.clone()));
            }
            let arrivals = if (self.lose)(&bytes) { Vec::new() } else { self.link.arrivals(&mut self.rng) };
            self.lost += u64::from(arrivals.is_empty());
            for delay in arrivals {
                self.sequence += 1;
                self.in_flight.push(Reverse(InFlight {
                    at: now + delay,
                    sequence: self.sequence,
                    from,
                    to: transmit.remote,
                    ecn: transmit.ecn as u8,
                    bytes: bytes.clone(),
                }));
            }
        }
        result
    }
}

/// Parses prefixes.
pub fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// A node's IPv4 address in the tunnel.
pub fn tunnel_v4(node: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, node as u8 + 1])
}

/// A node's IPv6 address in the tunnel.
pub fn tunnel_v6(node: usize) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, node as u16 + 1])
}
