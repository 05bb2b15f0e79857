//! Random sequences of everything that can happen to two nodes, and what has to hold whatever they are.

use std::collections::HashMap;
use std::time::Duration;

use adit_core::{Command, PeerUpdate, PresharedKey, Update, Verdict};
use adit_sim::packet::payload;
use adit_sim::world::nets;
use adit_sim::{Link, World};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    /// Packets from one node to the other.
    Send {
        node: usize,
        count: u8,
    },
    /// Time passes, in milliseconds.
    Wait(u32),
    /// Nothing runs for so many seconds, and what is on the link is lost.
    Sleep(u16),
    /// A node's address changes, and it may be told of it.
    Roam {
        node: usize,
        port: u16,
        told: bool,
    },
    /// The link gets better or worse.
    Link {
        loss: u8,
        duplicate: u8,
        reorder: u8,
    },
    /// Persistent keepalive, in seconds.
    Keepalive {
        node: usize,
        seconds: u16,
    },
    /// A preshared key for both nodes.
    Preshared(Option<u8>),
    /// A node's peer is removed and added again: it forgets everything.
    Forget(usize),
    /// The peers are replaced by the same again.
    Replace(usize),
    /// A node's private key is removed and set again.
    Rekey(usize),
    Connect(usize),
    Wake(usize),
    /// A copy of some datagram of the past arrives at a node from an address of nobody.
    Replay {
        node: usize,
        which: usize,
    },
    /// Bytes arrive.
    Garbage(usize, Vec<u8>),
}

fn action() -> impl Strategy<Value = Action> {
    let node = 0usize..2;
    prop_oneof![
        8 => (node.clone(), 1u8..5).prop_map(|(node, count)| Action::Send { node, count }),
        4 => (0u32..2_000).prop_map(Action::Wait),
        4 => (0u32..200_000).prop_map(Action::Wait),
        1 => (0u16..1000).prop_map(Action::Sleep),
        1 => (node.clone(), 1u16.., any::<bool>()).prop_map(|(node, port, told)| Action::Roam { node, port, told }),
        2 => (0u8..=100, 0u8..50, 0u8..=100).prop_map(|(loss, duplicate, reorder)| Action::Link { loss, duplicate, reorder }),
        1 => (node.clone(), 0u16..60).prop_map(|(node, seconds)| Action::Keepalive { node, seconds }),
        1 => proptest::option::of(any::<u8>()).prop_map(Action::Preshared),
        1 => node.clone().prop_map(Action::Forget),
        1 => node.clone().prop_map(Action::Replace),
        1 => node.clone().prop_map(Action::Rekey),
        1 => node.clone().prop_map(Action::Connect),
        1 => node.clone().prop_map(Action::Wake),
        2 => (node.clone(), any::<usize>()).prop_map(|(node, which)| Action::Replay { node, which }),
        1 => (node, proptest::collection::vec(any::<u8>(), 0..160)).prop_map(|(node, bytes)| Action::Garbage(node, bytes)),
    ]
}

/// The world, and what is known of every packet that was sent in it.
struct Model {
    world: World,
    next: u32,
    /// Packet number to its sender and how often it was delivered.
    packets: HashMap<u32, (usize, u32)>,
    /// A node made new cryptographic state. The library then dates it by the real clock, which stands still here: to the
    /// peers, the wall clock went back by all of the simulated time.
    clock_went_back: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut world = World::pair(seed, Link::GOOD);
        world.tap = Some(Vec::new());
        let mut this = Self { world, next: 0, packets: HashMap::new(), clock_went_back: false };
        this.configure(1);
        this
    }

    /// Tells a node where its peer is and what is the peer's.
    fn configure(&mut self, node: usize) {
        let peer = self.peer(node);
        self.world.set_peer(node, peer);
    }

    fn peer(&self, node: usize) -> PeerUpdate {
        let other = &self.world.nodes[1 - node];
        let own = format!("10.0.0.{}/32", 2 - node);
        PeerUpdate::new(other.public_key()).endpoint(other.address).allow(nets(&[&own]))
    }

    fn send(&mut self, node: usize) -> (u32, Verdict) {
        let number = self.next;
        self.next += 1;
        self.packets.insert(number, (node, 0));
        let verdict = self.world.send_udp(node, 1 - node, &number.to_be_bytes());
        (number, verdict)
    }

    fn apply(&mut self, action: Action) {
        self.clock_went_back |= matches!(action, Action::Preshared(_) | Action::Forget(_) | Action::Rekey(_));
        let world = &mut self.world;
        match action {
            Action::Send { node, count } => {
                for _ in 0..count {
                    self.send(node);
                }
            }
            Action::Wait(millis) => world.run_for(Duration::from_millis(millis.into())),
            Action::Sleep(seconds) => world.sleep_all(Duration::from_secs(seconds.into())),
            Action::Roam { node, port, told } => {
                world.nodes[node].address.set_port(port);
                if told {
                    world.command(node, Command::Rebound);
                }
            }
            Action::Link { loss, duplicate, reorder } => {
                let share = |percent: u8| f64::from(percent) / 100.0;
                world.link.loss = share(loss);
                world.link.duplicate = share(duplicate);
                world.link.reorder = share(reorder);
                world.link.reorder_by = Duration::from_millis(500);
            }
            Action::Keepalive { node, seconds } => {
                let key = world.nodes[1 - node].public_key();
                world.set_peer(node, PeerUpdate::new(key).keepalive(seconds));
            }
            Action::Preshared(key) => {
                for node in [0, 1] {
                    let public_key = world.nodes[1 - node].public_key();
                    let preshared_key = Some(key.map(|byte| PresharedKey::from_bytes([byte; 32])));
                    world.set_peer(node, PeerUpdate { preshared_key, ..PeerUpdate::new(public_key) });
                }
            }
            Action::Forget(node) => {
                let psk = world.nodes[node].engine.snapshot(world.now()).peers[0].preshared_key.clone();
                let key = world.nodes[1 - node].public_key();
                world.set_peer(node, PeerUpdate { remove: true, ..PeerUpdate::new(key) });
                let peer = PeerUpdate { preshared_key: Some(psk), ..self.peer(node) };
                self.world.set_peer(node, peer);
            }
            Action::Replace(node) => {
                let psk = world.nodes[node].engine.snapshot(world.now()).peers[0].preshared_key.clone();
                let peers = vec![PeerUpdate { preshared_key: Some(psk), ..self.peer(node) }];
                self.world.update(node, Update { replace_peers: true, peers, ..Update::default() });
            }
            Action::Rekey(node) => {
                let key = world.nodes[node].private_key.clone();
                world.update(node, Update { private_key: Some(None), ..Update::default() });
                world.update(node, Update { private_key: Some(Some(key)), ..Update::default() });
            }
            Action::Connect(node) => world.command(node, Command::Connect),
            Action::Wake(node) => world.command(node, Command::Wake),
            Action::Replay { node, which } => {
                let tape = world.tap.as_ref().expect("a tap");
                if let Some((_, _, bytes)) = tape.get(which % tape.len().max(1)).cloned() {
                    let before = self.endpoint(node);
                    let nobody = "203.0.113.66:66".parse().expect("an address");
                    let verdict = self.world.inject(node, nobody, &bytes);
                    // A datagram that was lost may be genuine news, wherever it comes from.
                    if !matches!(verdict, Verdict::Forwarded | Verdict::Consumed) {
                        assert_eq!(self.endpoint(node), before, "{verdict:?} moved the endpoint");
                    }
                }
            }
            Action::Garbage(node, bytes) => {
                let verdict = world.inject(node, "203.0.113.66:66".parse().expect("an address"), &bytes);
                assert!(matches!(verdict, Verdict::Dropped(_)), "{verdict:?}");
            }
        }
        self.check();
    }

    fn endpoint(&self, node: usize) -> Option<std::net::SocketAddr> {
        self.world.nodes[node].engine.snapshot(self.world.now()).peers[0].endpoint
    }

    /// Looks at everything that was delivered, and at what must never be.
    fn check(&mut self) {
        for node in [0, 1] {
            while let Some(packet) = self.world.nodes[node].received.pop_front() {
                let number = u32::from_be_bytes(payload(&packet).try_into().expect("four bytes"));
                let (sender, delivered) = self.packets.get_mut(&number).expect("a packet that was sent");
                assert_eq!(*sender, 1 - node, "packet {number} came back");
                assert_eq!(packet[12..16], [10, 0, 0, *sender as u8 + 1], "from the sender's address");
                *delivered += 1;
                assert_eq!(*delivered, 1, "packet {number} was delivered twice");
            }
            let snapshot = self.world.nodes[node].engine.snapshot(self.world.now());
            assert!(snapshot.engine.staged_bytes <= 1 << 20);
            assert_eq!(snapshot.peers.len(), 1);
            if snapshot.engine.staged_bytes > 0 {
                let deadline = self.world.nodes[node].engine.poll_timeout();
                assert!(deadline.is_some(), "packets of node {node} wait for nothing");
            }
        }
    }

    /// Repairs the link, and demands that packets get through both ways within half a minute.
    fn heal(&mut self) {
        self.world.link = Link::GOOD;
        for node in [0, 1] {
            self.configure(node);
        }
        if self.clock_went_back {
            // Initiations are held back for up to 90 s then, and taken only by a peer that has forgotten as well, and that
            // no initiation of the past reaches any more.
            self.world.sleep_all(Duration::ZERO);
            for node in [0, 1] {
                self.apply(Action::Forget(node));
            }
            for node in [0, 1] {
                self.send(node);
            }
            self.world.run_for(Duration::from_secs(91));
        }
        // Sessions of one side only are found out by the traffic of the other: data that nothing answers for 15 s.
        for _ in 0..30 {
            for node in [0, 1] {
                self.send(node);
            }
            self.world.run_for(Duration::from_secs(1));
        }
        self.check();
        for node in [0, 1] {
            let (number, verdict) = self.send(node);
            assert_eq!(verdict, Verdict::Forwarded, "node {node} after the link was repaired");
            self.world.run_for(Duration::from_millis(20));
            self.check();
            assert_eq!(self.packets[&number].1, 1, "the packet of node {node} did not arrive");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_packets_arrive_once_or_not_and_a_repaired_link_carries_again(
        seed: u64,
        actions in proptest::collection::vec(action(), 1..60),
    ) {
        let mut model = Model::new(seed);
        for action in actions {
            model.apply(action);
        }
        model.heal();
    }
}
