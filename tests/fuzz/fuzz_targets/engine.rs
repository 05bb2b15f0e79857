//! Any sequence of packets, datagrams and timeouts to an engine that has a session with another: no panic, and bounded memory.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use adit_core::offload::VirtioNetHeader;
use adit_core::sink::Collector;
use adit_core::{
    Command, Ecn, Engine, EngineConfig, Outputs, PeerUpdate, PrivateKey, Source, Transmit, TunPacket, Update,
};
use libfuzzer_sys::fuzz_target;

struct Node {
    engine: Engine,
    address: SocketAddr,
    network: Collector<Transmit>,
    device: Collector<()>,
}

impl Node {
    fn new(number: u8, now: Instant) -> Self {
        let key = |n: u8| PrivateKey::from_bytes([n + 1; 32]);
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n + 1], 51820));
        let other = 1 - number;
        let net = format!("10.0.0.{}/32", other + 1).parse().expect("a prefix");
        let mut engine = Engine::new(EngineConfig::default()).expect("a valid configuration");
        let peer = PeerUpdate::new(key(other).public_key()).allow([net]).endpoint(address(other)).keepalive(25);
        let update = Update { private_key: Some(Some(key(number))), peers: vec![peer], ..Update::default() };
        let (mut network, mut device) = (Collector::with_capacity(256), Collector::with_capacity(256));
        let mut out = Outputs { network: &mut network, device: &mut device };
        engine
            .handle_command(Command::Update(Box::new(update)), now, SystemTime::now(), &mut out)
            .expect("a valid update");
        Self { engine, address: address(number), network, device }
    }

    fn datagram(&mut self, from: SocketAddr, ecn: u8, bytes: &[u8], now: Instant) {
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        let source = Source { remote: from, local: None };
        self.engine.handle_udp(source, Ecn::from_bits(ecn), bytes, now, &mut out);
    }

    fn packet(&mut self, bytes: &[u8], now: Instant) {
        let mut buffer = bytes.to_vec();
        buffer.resize(bytes.len() + TunPacket::TAILROOM, 0);
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        self.engine.handle_tun(TunPacket::new(&mut buffer, bytes.len()), now, &mut out);
    }

    fn super_packet(&mut self, header: VirtioNetHeader, bytes: &[u8], now: Instant) {
        let mut buffer = bytes.to_vec();
        buffer.resize(bytes.len() + TunPacket::TAILROOM, 0);
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        self.engine.handle_tun_offload(TunPacket::new(&mut buffer, bytes.len()), header, now, &mut out);
    }
}

/// Lets everything that waits on both sides arrive.
fn exchange(nodes: &mut [Node; 2], now: Instant) {
    for _ in 0..8 {
        for from in 0..2 {
            let address = nodes[from].address;
            while let Some((_, bytes)) = nodes[from].network.items.pop_front() {
                nodes[1 - from].datagram(address, 0, &bytes, now);
            }
        }
    }
}

fn ping(from: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, from + 1, 10, 0, 0, 2 - from];
    packet.extend([8, 0, 0, 0]);
    packet
}

/// TCP with this payload to the other one, and the header to split it into pieces of `size` bytes.
fn stream(from: u8, size: u8, payload: &[u8]) -> (VirtioNetHeader, Vec<u8>) {
    let mut packet = vec![0x45, 0, 0, 40 + payload.len() as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend([10, 0, 0, from + 1, 10, 0, 0, 2 - from]);
    packet.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(payload);
    let header = VirtioNetHeader {
        flags: VirtioNetHeader::NEEDS_CSUM,
        gso_type: VirtioNetHeader::GSO_TCPV4,
        hdr_len: 40,
        gso_size: size.into(),
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet)
}

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let mut nodes = [Node::new(0, now), Node::new(1, now)];
    nodes[0].packet(&ping(0), now);
    exchange(&mut nodes, now);

    let mut rest = data;
    while let [op, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        let node = usize::from(op & 1);
        let peer = nodes[1 - node].address;
        match (op >> 1) % 8 {
            0 => nodes[node].datagram(peer, *op >> 6, bytes, now),
            1 => nodes[node].packet(bytes, now),
            2 => {
                // A real message with some bytes changed.
                nodes[1 - node].packet(&ping(1 - node as u8), now);
                if let Some((_, mut message)) = nodes[1 - node].network.items.pop_back() {
                    for (index, byte) in bytes.iter().enumerate() {
                        let at = (index * 7 + usize::from(*byte)) % message.len();
                        message[at] ^= byte;
                    }
                    nodes[node].datagram(peer, *op >> 6, &message, now);
                }
            }
            3 => {
                now += Duration::from_millis(u64::from(*len) * 97);
                let node = &mut nodes[node];
                let mut out = Outputs { network: &mut node.network, device: &mut node.device };
                node.engine.handle_timeout(now, &mut out);
            }
            4 => exchange(&mut nodes, now),
            5 => {
                let Some((header, bytes)) = bytes.split_first_chunk() else { continue };
                nodes[node].super_packet(VirtioNetHeader::from_bytes(*header), bytes, now);
            }
            6 => {
                let (size, payload) = bytes.split_first().unwrap_or((&0, &[]));
                let payload = &payload[..payload.len().min(200)];
                let (mut header, packet) = stream(node as u8, *size, payload);
                if *op & 0x80 != 0 {
                    header.gso_type = payload.first().map_or(0, |byte| byte & 7);
                    header.csum_start ^= u16::from(*size);
                }
                nodes[node].super_packet(header, &packet, now);
            }
            _ => {
                let mut packet = ping(node as u8);
                packet.extend_from_slice(bytes);
                nodes[node].packet(&packet, now);
            }
        }
        while nodes[node].engine.poll_event().is_some() {}
    }

    exchange(&mut nodes, now);
    for node in &nodes {
        assert!(node.engine.snapshot(now).engine.staged_bytes <= 1 << 20, "staging is bounded");
    }
});
