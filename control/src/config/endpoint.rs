//! `host:port` as wg(8) writes it: a name, an IPv4 address, or an IPv6 address in brackets.
//!
//! Nothing is looked up here. Ambiguous forms (an IPv6 address without brackets, four numbers that are no address) are
//! refused with what was probably meant, instead of being sent to the resolver as names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// Where a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address, or a name that has one.
    pub host: Host,
    /// The UDP port, 1 to 65535.
    pub port: u16,
}

/// The host of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, as written.
    Name(String),
}

/// A text that is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is nothing.
    #[error("an endpoint cannot be empty")]
    Empty,
    /// There is a host and no port.
    #[error("the port is missing")]
    MissingPort {
        /// The host that was found, as it would be written before a port.
        host: String,
    },
    /// The port is no number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Colons without brackets: no telling where the address ends.
    #[error("an IPv6 address needs brackets before the port")]
    Brackets {
        /// The same with brackets, where the text can be read that way.
        meant: Option<String>,
    },
    /// The brackets do not hold an IPv6 address.
    #[error("the brackets must hold an IPv6 address")]
    NotIpv6,
    /// An address with a zone, such as `fe80::1%eth0`.
    #[error("IPv6 addresses with a zone are not supported in an endpoint")]
    Zone,
    /// `::ffff:a.b.c.d`, which names an IPv4 host.
    #[error("an IPv4-mapped IPv6 address names an IPv4 host")]
    Mapped {
        /// The endpoint in its IPv4 form.
        meant: String,
    },
    /// Digits and dots that are no IPv4 address.
    #[error("this is not an IPv4 address")]
    NotIpv4,
    /// The host has characters, or a length, that no name has.
    #[error("this is neither an address nor a host name")]
    NotAName,
}

impl Endpoint {
    /// The socket address, if the host is an address.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl EndpointError {
    /// What the writer probably meant.
    #[must_use]
    pub fn suggestion(&self) -> Option<String> {
        match self {
            // 51820 is the port of WireGuard's own examples and of most providers.
            Self::MissingPort { host } => Some(format!("{host}:51820")),
            Self::Brackets { meant } => meant.clone(),
            Self::Mapped { meant } => Some(meant.clone()),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    /// The form that a port can follow: IPv6 addresses have their brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(rest);
        }
        // Hexadecimal digits, colons and a dotted tail are an attempt at an IPv6 address; all else is one at a name.
        let ipv6 = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
        let address = text.split('%').next().unwrap_or_default();
        if address.matches(':').nth(1).is_some() && address.bytes().all(ipv6) {
            return Err(without_brackets(text));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let host = host_without_brackets(host)?;
        if port.is_empty() {
            return Err(EndpointError::MissingPort { host: host.to_string() });
        }
        Ok(Self { host, port: read_port(port)? })
    }
}

/// Reads what follows the opening bracket.
fn bracketed(rest: &str) -> Result<Endpoint, EndpointError> {
    let (inside, after) = rest.split_once(']').ok_or(EndpointError::NotIpv6)?;
    if inside.contains('%') {
        return Err(EndpointError::Zone);
    }
    let ip: Ipv6Addr = inside.parse().map_err(|_| EndpointError::NotIpv6)?;
    let port = match after.strip_prefix(':') {
        Some(port) if !port.is_empty() => read_port(port)?,
        _ if after.is_empty() || after == ":" => return Err(EndpointError::MissingPort { host: format!("[{ip}]") }),
        _ => return Err(EndpointError::Port),
    };
    match ip.to_ipv4_mapped() {
        Some(ip) => Err(EndpointError::Mapped { meant: format!("{ip}:{port}") }),
        None => Ok(Endpoint { host: Host::Ip(ip.into()), port }),
    }
}

/// Says what is wrong with several colons and no bracket. wg(8) splits at the last colon; whether the writer meant a
/// port there is a guess that routes traffic, so it is left to the writer.
fn without_brackets(text: &str) -> EndpointError {
    let split = text.rsplit_once(':').and_then(|(host, port)| {
        let ip: Ipv6Addr = host.parse().ok()?;
        Some(format!("[{ip}]:{}", read_port(port).ok()?))
    });
    let whole = || text.parse::<Ipv6Addr>().ok().map(|ip| format!("[{ip}]:51820"));
    match split.or_else(whole) {
        None if text.contains('%') => EndpointError::Zone,
        meant => EndpointError::Brackets { meant },
    }
}

fn host_without_brackets(text: &str) -> Result<Host, EndpointError> {
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    // A name whose last label is a number is an IPv4 address gone wrong (the rule of the WHATWG URL standard).
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EndpointError::NotIpv4);
    }
    if is_name(text) { Ok(Host::Name(text.to_owned())) } else { Err(EndpointError::NotAName) }
}

/// Whether a text has the shape of a DNS name: labels of 1 to 63 letters, digits, `-` and `_`, 253 characters in all
/// (RFC 1035 section 2.3.4), with or without the final dot.
pub(super) fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() <= 253 && text.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(letter))
}

fn read_port(text: &str) -> Result<u16, EndpointError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0).ok_or(EndpointError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints() {
        for text in
            ["192.0.2.1:1", "[2001:db8::1]:51820", "vpn.example.com:65535", "vpn.example.com.:1", "host_1:51820"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("[2001:DB8:0::1]:2".parse::<Endpoint>().unwrap().to_string(), "[2001:db8::1]:2");
        assert_eq!("192.0.2.1:1".parse::<Endpoint>().unwrap().socket_addr(), Some("192.0.2.1:1".parse().unwrap()));
        assert_eq!("a.example:1".parse::<Endpoint>().unwrap().socket_addr(), None);
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let error = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert_eq!(error(""), EndpointError::Empty);
        assert_eq!(error("vpn.example.com").suggestion().as_deref(), Some("vpn.example.com:51820"));
        assert_eq!(error("[2001:db8::1]").suggestion().as_deref(), Some("[2001:db8::1]:51820"));
        assert_eq!(error("2001:db8::1:51820").suggestion().as_deref(), Some("[2001:db8::1]:51820"));
        assert_eq!(error("2001:db8::1").suggestion().as_deref(), Some("[2001:db8::1]:51820"));
        assert_eq!(error("2001:db8::99999"), EndpointError::Brackets { meant: None });
        assert_eq!(error("[::ffff:192.0.2.1]:51820").suggestion().as_deref(), Some("192.0.2.1:51820"));
        for text in ["a.example:0", "a.example:65536", "a.example:+1", "a.example:http", "[::1]:0", "[::1]51820"] {
            assert_eq!(error(text), EndpointError::Port, "{text}");
        }
        for text in ["192.0.2.256:1", "192.0.2:1", "10:1", "a.example.1:2"] {
            assert_eq!(error(text), EndpointError::NotIpv4, "{text}");
        }
        for text in [":51820", "a..example:1", "ä.example:1", "a b:1", "https://a.example:1"] {
            assert_eq!(error(text), EndpointError::NotAName, "{text}");
        }
        assert_eq!(error(&format!("{}:1", "a".repeat(64))), EndpointError::NotAName);
        assert_eq!(error("[fe80::1%eth0]:1"), EndpointError::Zone);
        assert_eq!(error("[192.0.2.1]:1"), EndpointError::NotIpv6);
        assert_eq!(error("[::1"), EndpointError::NotIpv6);
    }
}
