//! The cipher alone, as ring does it: ChaCha20-Poly1305 in place over packets of the same sizes, in as much memory.

use std::time::Instant;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};

use super::Subject;
use super::load::Load;
use crate::failure::{Failure, Outcome};
use crate::keys;

/// Packets of a batch and what they are sealed with.
pub(super) struct Cipher {
    key: LessSafeKey,
    counter: u64,
    packets: Vec<Packet>,
}

struct Packet {
    bytes: Vec<u8>,
    nonce: u64,
    tag: Option<Tag>,
}

impl Cipher {
    pub(super) fn new(load: Load) -> Outcome<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*keys::random()?).map_err(|_| broken())?;
        let packets = std::iter::repeat_with(|| Packet { bytes: vec![0x5a; load.packet_len()], nonce: 0, tag: None });
        Ok(Self { key: LessSafeKey::new(key), counter: 0, packets: packets.take(BATCH).collect() })
    }
}

impl Subject for Cipher {
    fn refill(&mut self) {}

    fn seal(&mut self, _now: Instant) -> Outcome<u64> {
        for packet in &mut self.packets {
            self.counter += 1;
            packet.nonce = self.counter;
            let tag = self.key.seal_in_place_separate_tag(nonce(packet.nonce), Aad::empty(), &mut packet.bytes);
            packet.tag = Some(tag.map_err(|_| broken())?);
        }
        Ok(self.packets.len() as u64)
    }

    fn carry(&mut self) {}

    fn open(&mut self, _now: Instant) -> Outcome<u64> {
        for packet in &mut self.packets {
            let tag = packet.tag.take().ok_or_else(broken)?;
            let opened =
                self.key.open_in_place_separate_tag(nonce(packet.nonce), Aad::empty(), tag, &mut packet.bytes, 0..);
            opened.map_err(|_| broken())?;
        }
        Ok(self.packets.len() as u64)
    }

    fn verify(&mut self) -> Outcome {
        let before: Vec<Vec<u8>> = self.packets.iter().map(|packet| packet.bytes.clone()).collect();
        self.seal(Instant::now())?;
        let changed = self.packets.iter().zip(&before).all(|(packet, before)| packet.bytes != *before);
        self.open(Instant::now())?;
        let same = self.packets.iter().zip(&before).all(|(packet, before)| packet.bytes == *before);
        if changed && same { Ok(()) } else { Err(broken()) }
    }
}

/// WireGuard's nonce: 32 zero bits and the counter (whitepaper section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cold]
fn broken() -> Failure {
    Failure::failed("the cipher does not open what it has sealed")
}

/// As many packets as a read of the device brings at most, so that caches hold as much.
const BATCH: usize = adit_tun::memory::TABLE.packets;
