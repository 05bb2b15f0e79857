//! What a packet costs in the engine, beside what its cipher alone costs: the difference is Adit's.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up has to stop")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use adit_core::{
    Command, Ecn, Engine, EngineConfig, Outputs, PeerUpdate, PrivateKey, Reservation, Sink, SinkFull, Source,
    TunPacket, Update, Verdict,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Packet lengths: the smallest that carries data, a small datagram, and a full one at the default MTU.
const SIZES: [usize; 3] = [64, 512, 1420];

/// A sink of one slot that is overwritten by the next item: memory traffic as in a real queue, and nothing else.
struct Slot {
    bytes: Vec<u8>,
    reserved: usize,
    committed: usize,
}

impl Slot {
    fn new() -> Self {
        Self { bytes: vec![0; 2048], reserved: 0, committed: 0 }
    }

    fn item(&self) -> &[u8] {
        &self.bytes[..self.committed]
    }
}

impl<M> Sink<M> for Slot {
    fn reserve(&mut self, _meta: M, len: usize) -> Result<(), SinkFull> {
        self.reserved = len;
        if len > self.bytes.len() { Err(SinkFull) } else { Ok(()) }
    }

    fn reserved(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.reserved]
    }

    fn commit(&mut self, len: usize) {
        self.committed = len;
    }

    fn rollback(&mut self) {
        self.committed = 0;
    }
}

struct Node {
    engine: Engine,
    source: Source,
    network: Slot,
    device: Slot,
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
            network: Slot::new(),
            device: Slot::new(),
        };
        let mut out = Outputs { network: &mut node.network, device: &mut node.device };
        node.engine.handle_command(Command::Update(Box::new(update)), now, SystemTime::now(), &mut out).unwrap();
        node
    }

    fn tun(&mut self, buffer: &mut [u8], len: usize, now: Instant) -> Verdict {
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        self.engine.handle_tun(TunPacket::new(buffer, len), now, &mut out)
    }

    fn udp(&mut self, from: Source, datagram: &[u8], now: Instant) -> Verdict {
        let mut out = Outputs { network: &mut self.network, device: &mut self.device };
        self.engine.handle_udp(from, Ecn::NotEct, datagram, now, &mut out)
    }
}

/// Two engines that have a session.
fn pair(now: Instant) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(0, now), Node::new(1, now));
    a.tun(&mut packet(64), 64, now);
    let initiation = a.network.item().to_vec();
    assert_eq!(b.udp(a.source, &initiation, now), Verdict::Consumed);
    let response = b.network.item().to_vec();
    assert_eq!(a.udp(b.source, &response, now), Verdict::Consumed);
    let first = a.network.item().to_vec();
    assert_eq!(b.udp(a.source, &first, now), Verdict::Forwarded);
    (a, b)
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2 with room for padding behind it.
fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0u8; len + TunPacket::TAILROOM];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let now = Instant::now();
        let (mut a, _b) = pair(now);
        let mut buffer = packet(size);
        group.bench_function(format!("engine/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(a.tun(black_box(&mut buffer), size, now), Verdict::Forwarded));
        });
        let (cipher, mut out, mut counter) = (cipher(), vec![0; size + 16], 0u64);
        group.bench_function(format!("cipher/{size}"), |bencher| {
            bencher.iter(|| {
                counter += 1;
                out[..size].copy_from_slice(black_box(&buffer[..size]));
                cipher.seal_in_place_separate_tag(nonce(counter), Aad::empty(), &mut out[..size]).unwrap()
            });
        });
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let now = Instant::now();
        let (mut a, mut b) = pair(now);
        let from = a.source;
        let mut buffer = packet(size);
        group.bench_function(format!("engine/{size}"), |bencher| {
            bencher.iter_batched(
                || {
                    a.tun(&mut buffer, size, now);
                    a.network.item().to_vec()
                },
                |datagram| assert_eq!(b.udp(from, black_box(&datagram), now), Verdict::Forwarded),
                BatchSize::SmallInput,
            );
        });
        let (cipher, mut sealed) = (cipher(), vec![0; size]);
        cipher.seal_in_place_append_tag(nonce(1), Aad::empty(), &mut sealed).unwrap();
        let mut out = sealed.clone();
        group.bench_function(format!("cipher/{size}"), |bencher| {
            bencher.iter(|| {
                out.copy_from_slice(black_box(&sealed));
                cipher.open_in_place(nonce(1), Aad::empty(), &mut out).unwrap().len()
            });
        });
    }
    group.finish();
}

/// What an engine does with a packet that goes nowhere: parsing and one look into the table.
fn drop_early(c: &mut Criterion) {
    let now = Instant::now();
    let (mut a, _b) = pair(now);
    let mut stray = packet(64);
    stray[16..20].copy_from_slice(&[203, 0, 113, 1]);
    c.bench_function("no_route", |bencher| {
        bencher.iter(|| assert!(matches!(a.tun(black_box(&mut stray), 64, now), Verdict::Dropped(_))));
    });
    let mut slot = Slot::new();
    c.bench_function("reservation", |bencher| {
        bencher.iter(|| Reservation::<(), _>::new(black_box(&mut slot), (), 1452).unwrap().commit(1452));
    });
}

fn cipher() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).unwrap())
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = seal, open, drop_early
}
criterion_main!(benches);
