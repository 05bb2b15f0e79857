//! Configuration files in the form of wg-quick(8), which is what a user of `adit up` writes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_core::{PresharedKey, PrivateKey};
use anyhow::Result;

use crate::wg;

/// What a file for `adit up` says.
#[derive(Debug, Clone)]
pub struct Quick {
    /// What wg(8) knows as well.
    pub wg: wg::Config,
    /// Addresses of the interface in CIDR notation.
    pub addresses: Vec<String>,
    /// MTU of the interface in bytes; derived from the underlay's if absent.
    pub mtu: Option<u32>,
    /// Further lines of the section `[Interface]`.
    pub lines: Vec<String>,
}

impl Quick {
    /// The same with `KEY = VALUE` in the section `[Interface]`, instead of what it said on that key before.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self = self.without(key);
        self.lines.push(format!("{key} = {value}"));
        self
    }

    /// The same without `KEY` in the section `[Interface]`, as far as [`Quick::with`] has set it.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.lines.retain(|line| line.split_once(" = ").is_none_or(|(found, _)| found != key));
        self
    }

    /// The same with other allowed IPs for its only peer, or its first.
    #[must_use]
    pub fn allowing(mut self, prefixes: &[&str]) -> Self {
        if let Some(peer) = self.wg.peers.first_mut() {
            peer.allowed_ips = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        }
        self
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut own = vec![format!("Address = {}", self.addresses.join(", "))];
        own.extend(self.mtu.map(|mtu| format!("MTU = {mtu}")));
        own.extend(self.lines.iter().cloned());
        self.wg.to_text().replacen("[Interface]\n", &format!("[Interface]\n{}\n", own.join("\n")), 1)
    }
}

/// Two ends of a tunnel that know each other: `a` with [`Ends::A4`] and [`Ends::A6`], `b` with [`Ends::B4`] and
/// [`Ends::B6`], each allowed to send from just these.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The key of `a`.
    pub a: PrivateKey,
    /// The key of `b`.
    pub b: PrivateKey,
    /// The key that both mix into the handshake.
    pub psk: Option<PresharedKey>,
    /// Seconds between persistent keepalives of both.
    pub keepalive: Option<u16>,
}

impl Ends {
    /// Inner IPv4 address of `a`.
    pub const A4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
    /// Inner IPv4 address of `b`.
    pub const B4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
    /// Inner IPv6 address of `a`.
    pub const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
    /// Inner IPv6 address of `b`.
    pub const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
    /// UDP port of both ends.
    pub const PORT: u16 = 51820;

    /// Two ends with fresh keys and without a preshared one.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new() -> Result<Self> {
        Ok(Self { a: wg::private_key()?, b: wg::private_key()?, psk: None, keepalive: None })
    }

    /// The same with a fresh preshared key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn with_psk(mut self) -> Result<Self> {
        self.psk = Some(wg::preshared_key()?);
        Ok(self)
    }

    /// The same with a persistent keepalive each `seconds`.
    #[must_use]
    pub fn with_keepalive(mut self, seconds: u16) -> Self {
        self.keepalive = Some(seconds);
        self
    }

    /// What `a` is told; it can begin if it knows where `b` is.
    pub fn config_a(&self, b_is_at: Option<IpAddr>) -> Quick {
        self.config(&self.a, &self.b, [Self::A4, Self::A6], [Self::B4, Self::B6], b_is_at)
    }

    /// What `b` is told; it can begin if it knows where `a` is.
    pub fn config_b(&self, a_is_at: Option<IpAddr>) -> Quick {
        self.config(&self.b, &self.a, [Self::B4, Self::B6], [Self::A4, Self::A6], a_is_at)
    }

    fn config(
        &self,
        own: &PrivateKey,
        other: &PrivateKey,
        [own4, own6]: [IpAddr; 2],
        [other4, other6]: [IpAddr; 2],
        endpoint: Option<IpAddr>,
    ) -> Quick {
        Quick {
            wg: wg::Config {
                private_key: own.clone(),
                listen_port: Some(Self::PORT),
                peers: vec![wg::Peer {
                    public_key: other.public_key(),
                    preshared_key: self.psk.clone(),
                    allowed_ips: vec![format!("{other4}/32"), format!("{other6}/128")],
                    endpoint: endpoint.map(|address| SocketAddr::new(address, Self::PORT)),
                    persistent_keepalive: self.keepalive,
                }],
            },
            addresses: vec![format!("{own4}/24"), format!("{own6}/64")],
            mtu: None,
            lines: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_lines_of_both_sections() {
        let ends = Ends::new().unwrap().with_psk().unwrap().with_keepalive(25);
        let mut quick = ends.config_a(Some(Ends::B4));
        quick.mtu = Some(1300);
        let quick = quick.with("KillSwitch", "on").with("Table", 1).with("Table", "off").without("KillSwitch");
        assert_eq!(quick.lines, ["Table = off"]);
        assert_eq!(quick.clone().allowing(&["::/0"]).wg.peers[0].allowed_ips, ["::/0"]);
        let text = quick.to_text();
        let (interface, peer) = text.split_once("[Peer]").unwrap();
        for line in ["Address = 10.77.0.1/24, fd77::1/64", "MTU = 1300", "Table = off", "ListenPort = 51820"] {
            assert!(interface.lines().any(|found| found == line), "{line}: {text}");
        }
        for key in ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive = 25"] {
            assert!(peer.contains(key), "{key}: {text}");
        }
    }
}
