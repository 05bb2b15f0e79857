//! wg(8) as scenarios use it: writing a configuration, and reading what `wg show` prints.
//!
//! It works the same on wireguard-go and on `adit`, for both speak the UAPI socket; that is the point of using it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adit_core::{PresharedKey, PrivateKey, PublicKey};
use anyhow::{Context as _, Result, anyhow};

use crate::netns::Namespace;
use crate::process;

/// A fresh private key from the system's random numbers.
///
/// # Errors
/// If the system has none.
pub fn private_key() -> Result<PrivateKey> {
    random().map(PrivateKey::from_bytes)
}

/// A fresh preshared key from the system's random numbers.
///
/// # Errors
/// If the system has none.
pub fn preshared_key() -> Result<PresharedKey> {
    random().map(PresharedKey::from_bytes)
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("random numbers: {error}"))?;
    Ok(bytes)
}

/// What wg(8) can configure of an interface.
#[derive(Debug, Clone)]
pub struct Config {
    /// The interface's key.
    pub private_key: PrivateKey,
    /// The UDP port; the system chooses if absent.
    pub listen_port: Option<u16>,
    /// The peers.
    pub peers: Vec<Peer>,
}

/// A peer in a [`Config`].
#[derive(Debug, Clone)]
pub struct Peer {
    /// The peer's key.
    pub public_key: PublicKey,
    /// A key mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Prefixes in CIDR notation.
    pub allowed_ips: Vec<String>,
    /// Where the peer is, if this side may begin.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives.
    pub persistent_keepalive: Option<u16>,
}

impl Config {
    /// The text that `wg setconf` reads.
    pub fn to_text(&self) -> String {
        let mut text = format!("[Interface]\nPrivateKey = {}\n", self.private_key.to_base64());
        // Writing to a String cannot fail.
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{key} = {value}");
        };
        if let Some(port) = self.listen_port {
            line("ListenPort", &port);
        }
        for peer in &self.peers {
            line("\n[Peer]\nPublicKey", &peer.public_key);
            if let Some(key) = &peer.preshared_key {
                line("PresharedKey", &key.to_base64());
            }
            line("AllowedIPs", &peer.allowed_ips.join(", "));
            if let Some(endpoint) = peer.endpoint {
                line("Endpoint", &endpoint);
            }
            if let Some(seconds) = peer.persistent_keepalive {
                line("PersistentKeepalive", &seconds);
            }
        }
        text
    }
}

/// The control socket of `link`; all namespaces share the folder, so names of links must be unique.
pub fn socket(link: &str) -> PathBuf {
    Path::new(SOCKET_FOLDER).join(format!("{link}.sock"))
}

/// `wg setconf LINK` with `config`, in `namespace`.
///
/// # Errors
/// If wg(8) fails; with what it wrote.
pub fn set_config(namespace: &Namespace, link: &str, config: &Config) -> Result<()> {
    with_config(namespace, "setconf", link, config)
}

/// `wg syncconf LINK` with `config`, in `namespace`: sessions of peers that did not change go on.
///
/// # Errors
/// If wg(8) fails; with what it wrote.
pub fn sync_config(namespace: &Namespace, link: &str, config: &Config) -> Result<()> {
    with_config(namespace, "syncconf", link, config)
}

/// `wg addconf LINK` with `config`, in `namespace`: what is there already stays.
///
/// # Errors
/// If wg(8) fails; with what it wrote.
pub fn add_config(namespace: &Namespace, link: &str, config: &Config) -> Result<()> {
    with_config(namespace, "addconf", link, config)
}

fn with_config(namespace: &Namespace, verb: &str, link: &str, config: &Config) -> Result<()> {
    let mut wg = namespace.command("wg");
    process::finish(wg.args([verb, link, "/dev/stdin"]), &config.to_text(), process::RUN_LIMIT)?.success()?;
    Ok(())
}

/// `wg set LINK WORDS` in `namespace`; the words are split at white space.
///
/// # Errors
/// If wg(8) fails; with what it wrote.
pub fn set(namespace: &Namespace, link: &str, words: &str) -> Result<()> {
    namespace.exec("wg", ["set", link].into_iter().chain(words.split_whitespace()))?;
    Ok(())
}

/// `wg show LINK dump` in `namespace`.
///
/// # Errors
/// If wg(8) fails or prints something of another form.
pub fn show(namespace: &Namespace, link: &str) -> Result<Dump> {
    let text = namespace.exec("wg", ["show", link, "dump"])?;
    Dump::parse(&text).with_context(|| format!("`wg show {link} dump`"))
}

/// What `wg show LINK dump` prints (wg(8), «show»).
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    /// The interface's private key; absent if none is set.
    pub private_key: Option<PrivateKey>,
    /// The public key that belongs to it.
    pub public_key: Option<PublicKey>,
    /// The UDP port.
    pub listen_port: u16,
    /// The mark of outgoing datagrams; absent if off.
    pub fwmark: Option<u32>,
    /// The peers, in the order of the program.
    pub peers: Vec<DumpPeer>,
}

/// A peer in a [`Dump`].
#[derive(Debug, Clone, PartialEq)]
pub struct DumpPeer {
    /// The peer's key.
    pub public_key: PublicKey,
    /// The key mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Where datagrams go.
    pub endpoint: Option<SocketAddr>,
    /// Prefixes in CIDR notation.
    pub allowed_ips: Vec<String>,
    /// When the last handshake was completed, in seconds since 1970; absent if never.
    pub latest_handshake: Option<u64>,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Seconds between persistent keepalives; absent if off.
    pub persistent_keepalive: Option<u16>,
}

impl Dump {
    /// The peer with `key`.
    ///
    /// # Errors
    /// If there is none.
    pub fn peer(&self, key: &PublicKey) -> Result<&DumpPeer> {
        self.peers.iter().find(|peer| peer.public_key == *key).with_context(|| format!("no peer {key} in {self:?}"))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let first: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
        let [private_key, public_key, listen_port, fwmark] = first[..] else {
            return Err(anyhow!("4 fields expected, found {}: {first:?}", first.len()));
        };
        Ok(Self {
            private_key: field("private key", private_key, "(none)")?,
            public_key: field("public key", public_key, "(none)")?,
            listen_port: listen_port.parse().with_context(|| format!("port: {listen_port}"))?,
            fwmark: match fwmark {
                "off" => None,
                mark => Some(
                    u32::from_str_radix(mark.trim_start_matches("0x"), 16).with_context(|| format!("mark: {mark}"))?,
                ),
            },
            peers: lines.map(DumpPeer::parse).collect::<Result<_>>()?,
        })
    }
}

impl DumpPeer {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [public_key, preshared_key, endpoint, allowed_ips, handshake, received, sent, keepalive] = fields[..]
        else {
            return Err(anyhow!("8 fields expected, found {}: {line}", fields.len()));
        };
        Ok(Self {
            public_key: public_key.parse().with_context(|| format!("public key: {public_key}"))?,
            preshared_key: field("preshared key", preshared_key, "(none)")?,
            endpoint: field("endpoint", endpoint, "(none)")?,
            allowed_ips: match allowed_ips {
                "(none)" => Vec::new(),
                list => list.split(',').map(str::to_owned).collect(),
            },
            latest_handshake: field("handshake", handshake, "0")?,
            received: received.parse().with_context(|| format!("received: {received}"))?,
            sent: sent.parse().with_context(|| format!("sent: {sent}"))?,
            persistent_keepalive: field("keepalive", keepalive, "off")?,
        })
    }
}

/// Parses a field that is absent if it reads `absent`.
fn field<T>(name: &str, text: &str, absent: &str) -> Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    if text == absent {
        return Ok(None);
    }
    text.parse().map(Some).with_context(|| format!("{name}: {text}"))
}

/// Where userspace implementations keep their control sockets (wg(8), «cross-platform userspace implementation»).
pub const SOCKET_FOLDER: &str = "/var/run/wireguard";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read_with_and_without_its_optional_parts() {
        let private = private_key().unwrap();
        let psk = preshared_key().unwrap();
        let (first, second) = (private_key().unwrap().public_key(), private_key().unwrap().public_key());
        let text = format!(
            "{}\t{}\t51820\t0x2a\n\
             {first}\t{}\t[2001:db8::1]:51820\t10.0.0.1/32,fd00::/64\t1700000000\t92\t148\t25\n\
             {second}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n",
            private.to_base64(),
            private.public_key(),
            psk.to_base64(),
        );
        let dump = Dump::parse(&text).unwrap();
        assert_eq!((dump.listen_port, dump.fwmark, dump.peers.len()), (51820, Some(42), 2));
        assert_eq!(dump.public_key, Some(private.public_key()));
        let peer = dump.peer(&first).unwrap();
        assert_eq!(peer.preshared_key, Some(psk));
        assert_eq!(peer.endpoint, Some("[2001:db8::1]:51820".parse().unwrap()));
        assert_eq!(peer.allowed_ips, ["10.0.0.1/32", "fd00::/64"]);
        assert_eq!((peer.latest_handshake, peer.received, peer.sent), (Some(1_700_000_000), 92, 148));
        assert_eq!(peer.persistent_keepalive, Some(25));
        let peer = dump.peer(&second).unwrap();
        assert_eq!((peer.latest_handshake, peer.persistent_keepalive), (None, None));
        assert!(peer.endpoint.is_none() && peer.allowed_ips.is_empty() && peer.preshared_key.is_none());
    }

    #[test]
    fn a_dump_of_another_form_is_an_error_that_says_where() {
        assert!(Dump::parse("").unwrap_err().to_string().contains("4 fields"));
        assert!(Dump::parse("(none)\t(none)\tport\toff\n").unwrap_err().to_string().contains("port"));
        assert!(Dump::parse("(none)\t(none)\t1\toff\nx\ty\n").unwrap_err().to_string().contains("8 fields"));
    }
}
