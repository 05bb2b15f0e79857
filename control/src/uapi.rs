//! WireGuard's cross-platform userspace configuration protocol, which wg(8) speaks
//! (<https://www.wireguard.com/xplatform/#configuration-protocol>).
//!
//! `codec` and `reply` turn text into types and back and touch nothing else; `server` answers on
//! `/var/run/wireguard/IF.sock`; `client` asks such a socket, whoever serves it. Behaviour follows wireguard-go, with
//! two differences that both protect a running tunnel: a `set` request is applied as a whole or not at all, and one
//! that ends without its blank line is refused instead of being taken for complete.

pub mod client;
pub mod codec;
mod errno;
pub mod reply;
pub mod server;

pub use crate::socket::client::ClientError;
pub use client::UapiClient;
pub use codec::{ScopeIndex, SetParser, SetRequest};
pub use errno::{UapiErrno, UapiError};
pub use reply::{DeviceState, GetReply, PeerState, ReplyParser};
pub use server::{UapiHandler, UapiLimits, UapiServer};

/// Where wg(8) looks for userspace interfaces: RUNSTATEDIR of wireguard-tools' Makefile, with `/wireguard`.
pub const SOCKET_DIR: &str = "/var/run/wireguard";

/// All zeros stand for «no key» in the protocol.
const NO_KEY: [u8; adit_core::key::KEY_LEN] = [0; adit_core::key::KEY_LEN];

/// Appends `name=` and 64 lower-case hexadecimal digits, without making a copy of the key anywhere else.
fn push_key(text: &mut String, name: &str, key: &[u8; adit_core::key::KEY_LEN]) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    text.push_str(name);
    text.push('=');
    for byte in key {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text.push('\n');
}

/// Appends `name=value`.
fn push(text: &mut String, name: &str, value: impl std::fmt::Display) {
    use std::fmt::Write;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name}={value}");
}

/// Reads an unsigned decimal number as strconv.ParseUint does: digits only, so no sign.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The index of a network interface of this machine.
pub fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

/// Bytes that the lines about one peer take at most, its allowed IPs aside: room for every key of the protocol. Text
/// that holds keys is reserved up front, because growing would leave copies that nobody wipes.
const PEER_TEXT: usize = 640;

/// Bytes of the longest `allowed_ip=` line: an IPv6 prefix that is taken away.
const ALLOWED_IP_TEXT: usize = 64;
