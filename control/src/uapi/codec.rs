//! The `set=1` request: text to [`SetRequest`] and back.
//!
//! The parser takes a line at a time, so a request never has to be held as text, and asks the system nothing but, through
//! the function it is given, the index of an interface that scopes a link-local endpoint. Names of hosts are refused:
//! resolving is not this protocol's business.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use adit_core::key::KEY_LEN;
use adit_core::{AllowedIpChange, PeerUpdate, PresharedKey, PrivateKey, PublicKey, Update};
use zeroize::Zeroizing;

use super::errno::{UapiErrno, UapiError};
use super::{ALLOWED_IP_TEXT, NO_KEY, PEER_TEXT, digits, push, push_key};

/// What a `set=1` request asks for; what is not named stays as it is.
///
/// Two blocks for one peer stay two updates, to be applied in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SetRequest {
    /// What concerns the engine.
    pub update: Update,
    /// UDP port to listen on; 0 lets the system choose.
    pub listen_port: Option<u16>,
    /// Mark of outgoing datagrams; 0 turns it off.
    pub fwmark: Option<u32>,
}

impl SetRequest {
    /// Reads a whole request, from its `set=1` to its blank line.
    ///
    /// # Errors
    /// The first line that is not allowed.
    pub fn parse(text: &str, scope: ScopeIndex) -> Result<Self, UapiError> {
        let mut parser = SetParser::new(scope);
        let mut lines = text.split_inclusive('\n');
        if lines.next() != Some("set=1\n") {
            return Err(UapiError::new(UapiErrno::PROTOCOL, 1, "another first line", "«set=1»"));
        }
        while let Some(line) = lines.next().and_then(|line| line.strip_suffix('\n')) {
            if !parser.line(line.as_bytes())? {
                continue;
            }
            return match lines.next() {
                None => Ok(parser.finish()),
                Some(_) => Err(parser.refuse("text after the blank line", "nothing: the blank line ends a request")),
            };
        }
        Err(parser.truncated())
    }

    /// Writes the request, with `set=1` and the blank line. The text holds secrets and is wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        let peers = &self.update.peers;
        let prefixes: usize = peers.iter().map(|peer| peer.allowed_ips.len()).sum();
        let capacity = PEER_TEXT * (peers.len() + 1) + ALLOWED_IP_TEXT * prefixes;
        let mut text = Zeroizing::new(String::with_capacity(capacity));
        text.push_str("set=1\n");
        if let Some(key) = &self.update.private_key {
            push_key(&mut text, "private_key", key.as_ref().map_or(&NO_KEY, PrivateKey::as_bytes));
        }
        if let Some(port) = self.listen_port {
            push(&mut text, "listen_port", port);
        }
        if let Some(mark) = self.fwmark {
            push(&mut text, "fwmark", mark);
        }
        if self.update.replace_peers {
            push(&mut text, "replace_peers", true);
        }
        for peer in peers {
            push_peer(&mut text, peer);
        }
        text.push('\n');
        text
    }
}

/// Looks up the index of an interface by its name, for endpoints such as `[fe80::1%eth0]:51820`.
pub type ScopeIndex = fn(&str) -> Option<u32>;

/// Reads a `set=1` request line by line, beginning with the one after `set=1`.
#[derive(Debug)]
pub struct SetParser {
    request: SetRequest,
    scope: ScopeIndex,
    /// Number of the line read last.
    line: usize,
    /// Where the updates of the current `public_key` block begin in the request.
    block: usize,
}

impl SetParser {
    /// Expects the second line of a request.
    pub fn new(scope: ScopeIndex) -> Self {
        Self { request: SetRequest::default(), scope, line: 1, block: 0 }
    }

    /// Takes one line without its line feed; a carriage return before it is ignored, as wireguard-go does. Returns
    /// whether this was the blank line that ends the request.
    ///
    /// # Errors
    /// The line is not allowed here. The parser is of no further use then.
    pub fn line(&mut self, line: &[u8]) -> Result<bool, UapiError> {
        self.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Ok(true);
        }
        // Such lines are not shown: they may be a key that was pasted alone.
        let Ok(line) = str::from_utf8(line) else {
            return Err(self.refuse("bytes that are not UTF-8", "«key=value»"));
        };
        let Some((key, value)) = line.split_once('=') else {
            return Err(self.refuse(format!("{} characters without «=»", line.chars().count()), "«key=value»"));
        };
        self.pair(key, value).map_err(|wrong| match wrong {
            Wrong::Key(allowed) => UapiError::new(UapiErrno::INVALID, self.line, shown_key(key), allowed),
            Wrong::Value(allowed) => UapiError::new(UapiErrno::INVALID, self.line, shown_pair(key, value), allowed),
        })?;
        Ok(false)
    }

    /// What was read up to here.
    pub fn finish(self) -> SetRequest {
        self.request
    }

    /// The error for a request that stops before its blank line.
    pub fn truncated(&self) -> UapiError {
        UapiError::new(UapiErrno::PROTOCOL, self.line + 1, "the end of the text", "a blank line to end the request")
    }

    fn refuse(&self, found: impl Into<String>, allowed: &'static str) -> UapiError {
        UapiError::new(UapiErrno::PROTOCOL, self.line, found, allowed)
    }

    fn pair(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        if key == "public_key" {
            let peer = PublicKey::from_hex(value).map_err(|_| Wrong::Value(HEX_KEY))?;
            self.block = self.request.update.peers.len();
            self.request.update.peers.push(PeerUpdate::new(peer));
            return Ok(());
        }
        if self.request.update.peers.is_empty() { self.device(key, value) } else { self.peer(key, value) }
    }

    fn device(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        let request = &mut self.request;
        match key {
            "private_key" => {
                let bytes = secret(value)?;
                request.update.private_key = Some((*bytes != NO_KEY).then(|| PrivateKey::from_bytes(*bytes)));
            }
            "listen_port" => request.listen_port = Some(digits(value).ok_or(Wrong::Value(U16))?),
            "fwmark" => request.fwmark = Some(digits(value).ok_or(Wrong::Value(U32))?),
            "replace_peers" => {
                expect_true(value)?;
                request.update.replace_peers = true;
            }
            _ if PEER_KEYS.contains(&key) => return Err(Wrong::Key("a public_key line before the lines about a peer")),
            _ => return Err(Wrong::Key("private_key, listen_port, fwmark, replace_peers or public_key")),
        }
        Ok(())
    }

    fn peer(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        let block = self.block;
        let peers = &mut self.request.update.peers;
        let Some(peer) = peers.last_mut() else { return Err(Wrong::Key("public_key")) };
        match key {
            "remove" => {
                expect_true(value)?;
                peer.remove = true;
            }
            "update_only" => {
                expect_true(value)?;
                peers[block..].iter_mut().for_each(|part| part.update_only = true);
            }
            "preshared_key" => {
                let bytes = secret(value)?;
                peer.preshared_key = Some((*bytes != NO_KEY).then(|| PresharedKey::from_bytes(*bytes)));
            }
            "endpoint" => peer.endpoint = Some(endpoint(value, self.scope).ok_or(Wrong::Value(ENDPOINT))?),
            "persistent_keepalive_interval" => {
                peer.persistent_keepalive = Some(digits(value).ok_or(Wrong::Value(U16))?);
            }
            "replace_allowed_ips" => {
                expect_true(value)?;
                if peer.remove || peer.allowed_ips.is_empty() {
                    peer.replace_allowed_ips = true;
                } else {
                    // Prefixes named before this line are taken from other peers and then forgotten.
                    let (public_key, update_only) = (peer.public_key, peer.update_only);
                    let rest = PeerUpdate { update_only, replace_allowed_ips: true, ..PeerUpdate::new(public_key) };
                    peers.push(rest);
                }
            }
            "allowed_ip" => {
                let (net, remove) = value.strip_prefix('-').map_or((value, false), |net| (net, true));
                let net = net.parse().map_err(|_| Wrong::Value(PREFIX))?;
                peer.allowed_ips.push(AllowedIpChange { net, remove });
            }
            "protocol_version" if value == "1" => {}
            "protocol_version" => return Err(Wrong::Value("«1»")),
            _ if DEVICE_KEYS.contains(&key) => {
                return Err(Wrong::Key("only lines about peers after the first public_key"));
            }
            _ => {
                return Err(Wrong::Key(
                    "public_key, remove, update_only, preshared_key, endpoint, persistent_keepalive_interval, \
                     replace_allowed_ips, allowed_ip or protocol_version",
                ));
            }
        }
        Ok(())
    }
}

/// What is wrong with a pair, and what would be right.
enum Wrong {
    Key(&'static str),
    Value(&'static str),
}

fn push_peer(text: &mut String, peer: &PeerUpdate) {
    push_key(text, "public_key", peer.public_key.as_bytes());
    if peer.update_only {
        push(text, "update_only", true);
    }
    if peer.remove {
        push(text, "remove", true);
    }
    if let Some(key) = &peer.preshared_key {
        push_key(text, "preshared_key", key.as_ref().map_or(&NO_KEY, PresharedKey::as_bytes));
    }
    if let Some(endpoint) = peer.endpoint {
        push(text, "endpoint", endpoint);
    }
    if let Some(seconds) = peer.persistent_keepalive {
        push(text, "persistent_keepalive_interval", seconds);
    }
    if peer.replace_allowed_ips {
        push(text, "replace_allowed_ips", true);
    }
    for AllowedIpChange { net, remove } in &peer.allowed_ips {
        push(text, "allowed_ip", format_args!("{}{net}", if *remove { "-" } else { "" }));
    }
}

fn secret(value: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, Wrong> {
    // Read as a preshared key, because a private key is clamped and can no longer be told from «no key».
    let key = PresharedKey::from_hex(value).map_err(|_| Wrong::Value(HEX_KEY))?;
    Ok(Zeroizing::new(*key.as_bytes()))
}

fn expect_true(value: &str) -> Result<(), Wrong> {
    if value == "true" { Ok(()) } else { Err(Wrong::Value("«true»")) }
}

/// Reads `ip:port` and `[ipv6%scope]:port`, where the scope is a number or an interface's name. An IPv4 address in IPv6
/// clothes becomes the IPv4 address that the datagrams really go to.
pub(super) fn endpoint(text: &str, scope: ScopeIndex) -> Option<SocketAddr> {
    if let Ok(mut endpoint) = text.parse::<SocketAddr>() {
        endpoint.set_ip(endpoint.ip().to_canonical());
        return Some(endpoint);
    }
    let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (ip, interface) = host.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    Some(SocketAddrV6::new(ip, digits(port)?, 0, scope(interface)?).into())
}

/// A key of the protocol's kind; anything else might be a secret that lost its place.
fn shown_key(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if key.len() <= SHOWN_KEY && key.bytes().all(plain) {
        format!("the key «{key}»")
    } else {
        format!("an unknown key of {} characters", key.chars().count())
    }
}

fn shown_pair(key: &str, value: &str) -> String {
    let length = value.chars().count();
    // A public key is not secret, but what stands in its place may be.
    if key.ends_with("_key") {
        return format!("{key} with {length} characters (not shown)");
    }
    let shown: String = value.chars().take(SHOWN_VALUE).flat_map(char::escape_debug).collect();
    let more = if length > SHOWN_VALUE { "…" } else { "" };
    format!("{key} «{shown}{more}»")
}

const HEX_KEY: &str = "64 hexadecimal digits";
const U16: &str = "a decimal number from 0 to 65535";
const U32: &str = "a decimal number from 0 to 4294967295";
const ENDPOINT: &str =
    "an IP address and a port such as 192.0.2.1:51820, [2001:db8::1]:51820 or [fe80::1%eth0]:51820, and no host name";
const PREFIX: &str = "an IP prefix such as 192.0.2.0/24 or 2001:db8::/32, with «-» before it to take it away";

/// Keys of a device, for telling a wrong place from a wrong word.
const DEVICE_KEYS: [&str; 4] = ["private_key", "listen_port", "fwmark", "replace_peers"];

/// Keys of a peer, likewise.
const PEER_KEYS: [&str; 8] = [
    "remove",
    "update_only",
    "preshared_key",
    "endpoint",
    "persistent_keepalive_interval",
    "replace_allowed_ips",
    "allowed_ip",
    "protocol_version",
];

/// Longest unknown key that is shown, in bytes: shorter than any form of a WireGuard key (43 characters at least).
const SHOWN_KEY: usize = 32;

/// Longest part of a wrong value that is shown, in characters.
const SHOWN_VALUE: usize = 80;

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
