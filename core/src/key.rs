//! Curve25519 keys as WireGuard writes them: base64 in files, lower-case hexadecimal on the UAPI socket.
//!
//! Private and preshared keys are wiped when dropped and never appear in `Debug` output.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::KeyError;

/// Length of every WireGuard key, in bytes.
pub const KEY_LEN: usize = 32;

/// Length of a key in base64 with its padding, in characters.
const BASE64_LEN: usize = 44;

/// A Curve25519 private key; wiped on drop, redacted in `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

/// A Curve25519 public key; the name of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

/// A symmetric key mixed into the handshake (Noise `psk2`); wiped on drop, redacted in `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Clamps 32 random bytes into a private key (RFC 7748 section 5).
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// The public key that belongs to this private key.
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// Whether the key is all zeros, which the UAPI protocol uses for «no key».
    pub fn is_zero(bytes: &[u8; KEY_LEN]) -> bool {
        bytes.iter().fold(0, |sum, byte| sum | byte) == 0
    }
}

impl PublicKey {
    /// Wraps 32 bytes; every value is a valid Curve25519 public key.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// A short form for log lines: the first four characters of the base64 form, as wireguard-go prints peers.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(4);
        text.push('…');
        text
    }
}

impl PresharedKey {
    /// Wraps 32 bytes; all of them zero means «no preshared key» to WireGuard.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }
}

fn decode_base64(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let text = text.trim();
    if text.len() != BASE64_LEN {
        return Err(KeyError::Length { found: text.chars().count() });
    }
    let mut out = [0u8; KEY_LEN + 1];
    let written = STANDARD.decode_slice(text, &mut out).map_err(|_| KeyError::NotBase64);
    let mut key = [0u8; KEY_LEN];
    key.copy_from_slice(&out[..KEY_LEN]);
    out.zeroize();
    match written {
        Ok(KEY_LEN) => Ok(key),
        Ok(_) => Err(KeyError::NotBase64),
        Err(error) => Err(error),
    }
}

fn decode_hex(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let mut key = [0u8; KEY_LEN];
    hex::decode_to_slice(text, &mut key).map_err(|_| KeyError::NotHex { found: text.chars().count() })?;
    Ok(key)
}

/// Conversions that all three kinds of keys share.
macro_rules! key_text {
    ($name:ident, $wrap:expr) => {
        impl $name {
            /// The 32 bytes of the key.
            pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// Reads the 64 hexadecimal digits of the UAPI protocol.
            ///
            /// # Errors
            /// [`KeyError::NotHex`] for anything else.
            pub fn from_hex(text: &str) -> Result<Self, KeyError> {
                decode_hex(text).map($wrap)
            }

            /// The 64 lower-case hexadecimal digits of the UAPI protocol.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }

            /// The 44 characters of base64 of wg(8) files.
            pub fn to_base64(&self) -> String {
                STANDARD.encode(self.0)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                decode_base64(text).map($wrap)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_base64())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

key_text!(PrivateKey, PrivateKey::from_bytes);
key_text!(PublicKey, PublicKey);
key_text!(PresharedKey, PresharedKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_key_matches_rfc_7748() {
        // Alice's pair, RFC 7748 section 6.1.
        let private = PrivateKey::from_hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a").unwrap();
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(private.public_key().to_hex(), public);
        assert_eq!(private, PrivateKey::from_bytes(*private.as_bytes()), "clamping is idempotent");
    }

    #[test]
    fn text_forms_round_trip() {
        let key = PublicKey::from_bytes(std::array::from_fn(|i| i as u8));
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        assert_eq!(PublicKey::from_hex(&key.to_hex()).unwrap(), key);
    }

    #[test]
    fn wrong_lengths_and_alphabets_are_told_apart() {
        assert_eq!("AAAA".parse::<PublicKey>(), Err(KeyError::Length { found: 4 }));
        assert_eq!("*".repeat(44).parse::<PublicKey>(), Err(KeyError::NotBase64));
        assert_eq!("A".repeat(44).parse::<PublicKey>(), Err(KeyError::NotBase64), "33 bytes are no key");
        assert_eq!(PublicKey::from_hex("zz"), Err(KeyError::NotHex { found: 2 }));
    }

    #[test]
    fn secrets_do_not_print() {
        let private = PrivateKey::from_bytes([7; 32]);
        assert!(!format!("{private:?}").contains(&private.to_base64()));
        assert_eq!(format!("{:?}", PresharedKey::from_bytes([7; 32])), "PresharedKey(redacted)");
    }
}
