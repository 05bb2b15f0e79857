//! The bare cipher: what any WireGuard has to spend, and so the floor under every figure for sealing and opening.
//!
//! It copies the message once before it works in place, as the WireGuard library does. So what that library takes more
//! does not depend on how the C library copies on the processor at hand, nor on the cipher's code for it.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// ChaCha20-Poly1305 with one key, on one buffer of a fixed length.
#[derive(Debug)]
pub struct Cipher {
    key: LessSafeKey,
    counter: u64,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    buffer: Vec<u8>,
}

impl Cipher {
    /// Makes one for plaintexts of `len` bytes.
    pub fn new(len: usize) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).unwrap());
        let plain = vec![0; len];
        let mut sealed = plain.clone();
        key.seal_in_place_append_tag(nonce(0), Aad::empty(), &mut sealed).unwrap();
        Self { key, counter: 0, plain, buffer: sealed.clone(), sealed }
    }

    /// Seals a copy of the plaintext under a fresh nonce.
    #[inline]
    pub fn seal(&mut self) {
        self.counter += 1;
        let (text, room) = self.buffer.split_at_mut(self.plain.len());
        text.copy_from_slice(&self.plain);
        let tag = self.key.seal_in_place_separate_tag(nonce(self.counter), Aad::empty(), text).unwrap();
        room.copy_from_slice(tag.as_ref());
    }

    /// Opens a copy of the same message.
    #[inline]
    pub fn open(&mut self) {
        self.buffer.copy_from_slice(&self.sealed);
        self.key.open_in_place(nonce(0), Aad::empty(), &mut self.buffer).unwrap();
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
