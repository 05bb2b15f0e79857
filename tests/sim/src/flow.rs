//! A reliable flow through a tunnel: numbered chunks, cumulative acknowledgements with a list of gaps, and resending.
//!
//! It is as simple as a transport can be that still finds every kind of harm: it sends at a fixed pace, whatever is lost,
//! and compares SHA-256 of what went in with that of what came out. It does no congestion control.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use adit_core::{DropReason, Event, Verdict};
use sha2::{Digest, Sha256};

use crate::World;
use crate::packet::payload;

/// Bytes of the flow in each packet.
pub const CHUNK: usize = 1300;

/// Time between two bursts of the sender, and between two acknowledgements.
const TICK: Duration = Duration::from_millis(10);

/// Chunks on the way at most; more than the library's replay window has to be possible.
const WINDOW: usize = 8192;

/// Gaps that one acknowledgement can name.
const GAPS: usize = 128;

/// A chunk is sent again if it is missing this long after it was sent: longer than a round trip with reordering.
const PATIENCE: Duration = Duration::from_millis(100);

/// A chunk that nobody spoke of is sent again after this: the last ones of a flow leave no gap.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a finished flow can tell.
#[derive(Debug)]
pub struct Report {
    /// Bytes that went in.
    pub bytes: u64,
    /// SHA-256 of the bytes that went in, and of those that came out.
    pub digests: [String; 2],
    /// Simulated time.
    pub time: Duration,
    /// Chunks that were sent more than once.
    pub resent: u64,
    /// Datagrams that the link lost.
    pub lost: u64,
    /// Datagrams that were sent, handshakes and acknowledgements included.
    pub datagrams: u64,
    /// Handshakes after the first.
    pub rekeys: usize,
    /// What both engines dropped, by reason.
    pub drops: Vec<(DropReason, u64)>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, digests, time, resent, lost, datagrams, rekeys, drops } = self;
        writeln!(f, "{bytes} bytes in {:.1} s of simulated time", time.as_secs_f64())?;
        writeln!(f, "sha256 in  {}\nsha256 out {}", digests[0], digests[1])?;
        let share = 100.0 * *lost as f64 / *datagrams as f64;
        writeln!(f, "{datagrams} datagrams, {lost} lost ({share:.2} %), {resent} chunks resent, {rekeys} rekeys")?;
        let drops: Vec<_> = drops.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
        write!(f, "drops: {}", if drops.is_empty() { "none".to_owned() } else { drops.join(", ") })
    }
}

/// Sends `bytes` random bytes from node 0 to node 1, `pace` chunks every hundredth of a second, and calls `progress` with
/// the number of bytes that arrived after each tick. A flow that stands still for a minute is abandoned.
pub fn run(world: &mut World, bytes: u64, pace: usize, seed: u64, mut progress: impl FnMut(u64)) -> Report {
    let mut sender = Sender::new(bytes, seed);
    let mut receiver = Receiver::default();
    let start = world.elapsed();
    let mut moved = start;
    while receiver.bytes < bytes {
        let before = receiver.bytes;
        sender.burst(world, pace);
        world.run_for(TICK);
        receiver.collect(world);
        receiver.acknowledge(world);
        sender.collect(world);
        progress(receiver.bytes);
        if receiver.bytes > before {
            moved = world.elapsed();
        }
        assert!(world.elapsed() - moved < Duration::from_secs(60), "the flow stands still at {before} bytes");
    }
    Report {
        bytes,
        digests: [hex(&sender.digest.finalize()), hex(&receiver.digest.finalize())],
        time: world.elapsed() - start,
        resent: sender.resent,
        lost: world.lost,
        datagrams: world.nodes.iter().map(|node| node.sent).sum(),
        rekeys: rekeys(world),
        drops: DropReason::ALL
            .iter()
            .map(|reason| (*reason, world.nodes.iter().map(|node| node.drops(*reason)).sum()))
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

/// Handshakes of node 0 in which a session was renewed.
fn rekeys(world: &World) -> usize {
    let renewed = |event: &&Event| matches!(event, Event::HandshakeCompleted { first: false, .. });
    world.nodes[0].events.iter().filter(renewed).count()
}

struct Sender {
    rng: fastrand::Rng,
    digest: Sha256,
    left: u64,
    next: u64,
    /// Chunks that are not acknowledged, and when they were sent last.
    open: BTreeMap<u64, (Vec<u8>, Duration)>,
    missing: BTreeSet<u64>,
    resent: u64,
}

impl Sender {
    fn new(bytes: u64, seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            digest: Sha256::new(),
            left: bytes,
            next: 0,
            open: BTreeMap::new(),
            missing: BTreeSet::new(),
            resent: 0,
        }
    }

    fn burst(&mut self, world: &mut World, pace: usize) {
        let now = world.elapsed();
        for number in std::mem::take(&mut self.missing) {
            self.resend(world, number, now, PATIENCE);
        }
        if let Some(oldest) = self.open.keys().next().copied() {
            self.resend(world, oldest, now, TIMEOUT);
        }
        for _ in 0..pace {
            if self.left == 0 || self.open.len() >= WINDOW {
                break;
            }
            let len = self.left.min(CHUNK as u64) as usize;
            let mut packet = vec![0; 8 + len];
            packet[..8].copy_from_slice(&self.next.to_be_bytes());
            self.rng.fill(&mut packet[8..]);
            self.digest.update(&packet[8..]);
            self.left -= len as u64;
            give(world, 0, &packet);
            self.open.insert(self.next, (packet, now));
            self.next += 1;
        }
    }

    fn resend(&mut self, world: &mut World, number: u64, now: Duration, after: Duration) {
        if let Some((packet, sent)) = self.open.get_mut(&number)
            && now - *sent >= after
        {
            *sent = now;
            self.resent += 1;
            give(world, 0, packet);
        }
    }

    fn collect(&mut self, world: &mut World) {
        while let Some(packet) = world.nodes[0].received.pop_front() {
            let mut words = payload(&packet).chunks_exact(8).map(word);
            let Some(next) = words.next() else { continue };
            self.open = self.open.split_off(&next);
            self.missing.extend(words);
        }
    }
}

#[derive(Default)]
struct Receiver {
    digest: Sha256,
    next: u64,
    bytes: u64,
    early: BTreeMap<u64, Vec<u8>>,
}

impl Receiver {
    fn collect(&mut self, world: &mut World) {
        while let Some(packet) = world.nodes[1].received.pop_front() {
            let (number, chunk) = payload(&packet).split_at(8);
            let number = word(number);
            if number < self.next {
                continue;
            }
            self.early.insert(number, chunk.to_vec());
            while let Some(chunk) = self.early.remove(&self.next) {
                self.digest.update(&chunk);
                self.bytes += chunk.len() as u64;
                self.next += 1;
            }
        }
    }

    fn acknowledge(&self, world: &mut World) {
        let mut words = vec![self.next];
        let mut expected = self.next;
        for number in self.early.keys() {
            words.extend((expected..*number).take(1 + GAPS - words.len()));
            expected = number + 1;
        }
        let bytes: Vec<_> = words.into_iter().flat_map(u64::to_be_bytes).collect();
        give(world, 1, &bytes);
    }
}

/// Sends a packet; before the first handshake it waits, and later nothing may.
fn give(world: &mut World, from: usize, bytes: &[u8]) {
    let verdict = world.send_udp(from, 1 - from, bytes);
    let starts = world.nodes[from].handshakes() == 0;
    assert!(verdict == Verdict::Forwarded || starts, "{verdict:?} after {:?}", world.elapsed());
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
