//! The values of single keys: from a text to a type, or to what is wrong with it.
//!
//! Knows neither files nor formats. A value that is accepted with a remark is returned with that remark.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_core::KeyError;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::endpoint::{Endpoint, is_name};
use super::model::{MAX_MTU, MIN_MTU, Table};
use super::suggest::nearest;

/// What is wrong with a value, or remarkable about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) message: String,
    pub(super) allowed: Option<&'static str>,
    pub(super) suggestion: Option<String>,
}

/// A value, and what is remarkable about it.
pub(super) type Remarked<T> = (T, Option<Remark>);

impl Remark {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    fn allowed(mut self, allowed: &'static str) -> Self {
        self.allowed = Some(allowed);
        self
    }

    fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl From<KeyError> for Remark {
    fn from(error: KeyError) -> Self {
        Self::new(error.to_string())
    }
}

/// An address of the interface, with the prefix of its network; without one it stands alone, as ip-address(8) has it.
pub(super) fn address(text: &str) -> Result<Remarked<IpNet>, Remark> {
    let (net, bare) = prefix(text, "an IP address and its prefix length, such as 10.0.0.2/24 or fd00::2/64")?;
    let length = net.prefix_len();
    let remark = bare.then(|| {
        Remark::new(format!("no prefix length, taken as /{length}: the address alone, without its network"))
            .suggest(net.to_string())
    });
    Ok((net, remark))
}

/// An allowed or excluded prefix; without a length it is one address (wg(8)), and host bits are cleared, as the kernel
/// does.
pub(super) fn listed_prefix(text: &str) -> Result<Remarked<IpNet>, Remark> {
    if text.starts_with(['+', '-']) {
        return Err(Remark::new("changes with + and - are for `wg set` only: a file lists whole prefixes")
            .suggest(text[1..].to_owned()));
    }
    let (net, _) = prefix(text, "IP prefixes separated by commas, such as 10.0.0.0/24 or fd00::/64")?;
    let masked = net.trunc();
    let remark = (masked != net).then(|| {
        Remark::new(format!("bits are set beyond the prefix length, taken as {masked}")).suggest(masked.to_string())
    });
    Ok((masked, remark))
}

/// A DNS server.
pub(super) fn dns_server(text: &str) -> Result<Remarked<IpAddr>, Remark> {
    let error = || Remark::new("this is not an IP address").allowed("IP addresses");
    text.parse().map(plain).map_err(|_| error())
}

/// A search domain; a leading `~` marks a domain that only routes queries (resolvectl(1)).
pub(super) fn search_domain(text: &str) -> Result<Remarked<String>, Remark> {
    let name = text.strip_prefix('~').unwrap_or(text);
    let error = if is_dns_server(text) {
        "a search domain cannot be an IP address"
    } else if is_name(name) || name == "." {
        return Ok(plain(text.to_owned()));
    } else {
        "this is not a domain name"
    };
    Err(Remark::new(error).allowed("names of letters, digits, `-` and `_` with dots between them"))
}

/// Whether wg-quick takes a word of its DNS key for a server instead of a search domain.
pub(super) fn is_dns_server(word: &str) -> bool {
    word.contains(':') || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// A UDP port to listen on.
pub(super) fn listen_port(text: &str) -> Result<Remarked<u16>, Remark> {
    number(text, u64::from(u16::MAX)).map(|port| plain(port as u16)).ok_or_else(|| {
        Remark::new("this is not a port number").allowed("a number from 0 to 65535 (0 lets the system choose)")
    })
}

/// A firewall mark: decimal, hexadecimal after `0x`, or `off`.
pub(super) fn fwmark(text: &str) -> Result<Remarked<u32>, Remark> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(plain(0));
    }
    radix_number(text, u64::from(u32::MAX)).map(|mark| plain(mark as u32)).ok_or_else(|| {
        Remark::new("this is not a firewall mark")
            .allowed("a number from 0 to 0xffffffff, decimal or after 0x, or `off`")
    })
}

/// The MTU of the interface.
pub(super) fn mtu(text: &str) -> Result<Remarked<u16>, Remark> {
    let mtu = number(text, u64::from(MAX_MTU)).filter(|&mtu| mtu >= u64::from(MIN_MTU));
    let error = || Remark::new("this is not an MTU that can be carried").allowed("a number of bytes from 576 to 65475");
    mtu.map(|mtu| plain(mtu as u16)).ok_or_else(error)
}

/// A routing table: `auto`, `off`, a number, or one of the three names that every Linux system has.
pub(super) fn table(text: &str) -> Result<Remarked<Table>, Remark> {
    // Numbers of linux/rtnetlink.h; ip-route(8) reads the names from rt_tables, which only this machine knows.
    let names = [("auto", Table::Auto), ("off", Table::Off)].into_iter();
    let names =
        names.chain([("main", 254), ("default", 253), ("local", 255)].map(|(name, id)| (name, Table::Number(id))));
    if let Some((_, table)) = names.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(plain(table));
    }
    let number = radix_number(text, u64::from(u32::MAX)).filter(|&number| number != 0);
    number.map(|number| plain(Table::Number(number as u32))).ok_or_else(|| {
        Remark::new("this is not a routing table")
            .allowed("`auto`, `off`, `main`, `default`, `local` or a number from 1 to 4294967295")
    })
}

/// A hook: one line of shell that a wg-quick file can hold, or nothing.
pub(super) fn hook(text: &str) -> Result<Remarked<String>, Remark> {
    let text = text.trim_matches(is_blank);
    if text.contains('#') {
        return Err(Remark::new("`#` starts a comment in wg-quick files, so a command cannot hold one")
            .allowed("one line of shell without `#`, which may call a script"));
    }
    if text.contains(|char: char| char.is_control() && char != '\t') {
        return Err(Remark::new("a command is one line and holds no control characters")
            .allowed("one line of shell, or several commands as several values"));
    }
    Ok(plain(text.to_owned()))
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Result<Remarked<bool>, Remark> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(plain(true)),
        _ if text.eq_ignore_ascii_case("false") => Ok(plain(false)),
        _ => Err(Remark::new("this is neither true nor false").allowed("`true` or `false`")),
    }
}

/// `on` or `off`; `true` and `false` are understood as well.
pub(super) fn switch(text: &str) -> Result<Remarked<bool>, Remark> {
    let words = [("on", true), ("off", false), ("true", true), ("false", false)];
    if let Some((_, on)) = words.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        return Ok(plain(on));
    }
    let remark = Remark::new("this is neither on nor off").allowed("`on` or `off`");
    Err(match meant_switch(text) {
        Some(on) => remark.suggest(if on { "on" } else { "off" }),
        None => remark,
    })
}

/// Whether a word that is none of the words of a switch was probably meant to turn it on, or off.
pub(super) fn meant_switch(text: &str) -> Option<bool> {
    const ON: [&str; 8] = ["on", "true", "yes", "1", "enable", "enabled", "active", "always"];
    const OFF: [&str; 8] = ["off", "false", "no", "0", "disable", "disabled", "none", "never"];
    nearest(text, ON.into_iter().chain(OFF)).map(|word| ON.contains(&word))
}

/// An endpoint.
pub(super) fn endpoint(text: &str) -> Result<Remarked<Endpoint>, Remark> {
    text.parse().map(plain).map_err(|error: super::EndpointError| Remark {
        message: error.to_string(),
        allowed: Some("name:port, IPv4:port or [IPv6]:port"),
        suggestion: error.suggestion(),
    })
}

/// Seconds between keepalives, or `off`.
pub(super) fn keepalive(text: &str) -> Result<Remarked<u16>, Remark> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(plain(0));
    }
    number(text, u64::from(u16::MAX)).map(|seconds| plain(seconds as u16)).ok_or_else(|| {
        Remark::new("this is not a number of seconds").allowed("a number of seconds from 1 to 65535, or 0 or `off`")
    })
}

/// A key of WireGuard, none of which is all zeros: that is how its protocols write that there is no key.
pub(super) fn key<K: std::str::FromStr<Err = KeyError>>(text: &str) -> Result<Remarked<K>, Remark> {
    if is_zero_key(text) {
        return Err(Remark::new("a key of zeros is no key"));
    }
    Ok(plain(text.parse()?))
}

/// A preshared key, or `None` for the key of zeros, which means that there is none (whitepaper section 5.2).
pub(super) fn preshared_key<K: std::str::FromStr<Err = KeyError>>(text: &str) -> Result<Remarked<Option<K>>, Remark> {
    if is_zero_key(text) {
        return Ok((None, Some(Remark::new("a key of zeros means that there is no preshared key"))));
    }
    Ok(plain(Some(text.parse()?)))
}

/// The blanks of wg(8) and of `[[:space:]]` in wg-quick's C locale.
pub(super) fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

fn plain<T>(value: T) -> Remarked<T> {
    (value, None)
}

fn is_zero_key(text: &str) -> bool {
    text.len() == 44 && text.ends_with('=') && text[..43].bytes().all(|byte| byte == b'A')
}

fn number(text: &str, max: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number <= max)
}

fn radix_number(text: &str, max: u64) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.starts_with('+') => None,
        Some(hex) => u64::from_str_radix(hex, 16).ok().filter(|&number| number <= max),
        None => number(text, max),
    }
}

/// An address with or without a length; the flag says that there was none.
fn prefix(text: &str, allowed: &'static str) -> Result<(IpNet, bool), Remark> {
    if text.is_empty() {
        return Err(Remark::new("an element of the list is empty").allowed(allowed));
    }
    if text.contains(is_blank) {
        return Err(Remark::new("this is not an IP prefix").allowed(allowed));
    }
    let (host, length) = match text.split_once('/') {
        Some((host, length)) => (host, Some(length)),
        None => (text, None),
    };
    let Ok(ip) = host.parse::<IpAddr>() else {
        let zone = host.contains('%') && host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        let message = if zone { "an address with a zone is not allowed here" } else { "this is not an IP address" };
        return Err(Remark::new(message).allowed(allowed));
    };
    if let IpAddr::V6(ip) = ip
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        // Lengths below 96 cut into the part that marks the address as mapped; the address is all that can be meant.
        let length =
            length.and_then(|length| number(length, 128)).and_then(|length| length.checked_sub(96)).unwrap_or(32);
        let meant = if text.contains('/') { format!("{ip}/{length}") } else { ip.to_string() };
        return Err(
            Remark::new("an IPv4-mapped IPv6 address is never in a packet: write the IPv4 address").suggest(meant)
        );
    }
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else {
        return Ok((net(ip, max), true));
    };
    match number(length, u64::from(max)) {
        Some(length) => Ok((net(ip, length as u8), false)),
        None => Err(bad_length(ip, length)),
    }
}

fn bad_length(ip: IpAddr, length: &str) -> Remark {
    if let (IpAddr::V4(_), Ok(mask)) = (ip, length.parse::<Ipv4Addr>()) {
        let remark = Remark::new("a netmask is not supported, the prefix length is");
        return match ipnet::ipv4_mask_to_prefix(mask) {
            Ok(length) => remark.suggest(format!("{ip}/{length}")),
            Err(_) => remark,
        };
    }
    let allowed = if ip.is_ipv4() { "a length from 0 to 32" } else { "a length from 0 to 128" };
    Remark::new("the prefix length is wrong").allowed(allowed)
}

/// Joins an address and a length that was checked.
fn net(ip: IpAddr, length: u8) -> IpNet {
    match ip {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::new_assert(ip, length)),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::new_assert(ip, length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_host_bits_and_prefixes_do_not() {
        assert_eq!(address("10.0.0.2/24").unwrap(), ("10.0.0.2/24".parse().unwrap(), None));
        let (bare, remark) = address("fd00::2").unwrap();
        assert_eq!(bare.to_string(), "fd00::2/128");
        assert_eq!(remark.unwrap().suggestion.as_deref(), Some("fd00::2/128"));
        let (masked, remark) = listed_prefix("10.0.0.2/24").unwrap();
        assert_eq!(masked.to_string(), "10.0.0.0/24");
        assert_eq!(remark.unwrap().suggestion.as_deref(), Some("10.0.0.0/24"));
        assert_eq!(listed_prefix("192.0.2.1").unwrap(), ("192.0.2.1/32".parse().unwrap(), None));
        assert_eq!(listed_prefix("::/0").unwrap(), ("::/0".parse().unwrap(), None));
    }

    #[test]
    fn wrong_prefixes_say_what_was_meant() {
        let meant = |text: &str| listed_prefix(text).unwrap_err().suggestion;
        assert_eq!(meant("10.0.0.0/255.255.255.0").as_deref(), Some("10.0.0.0/24"));
        assert_eq!(meant("10.0.0.0/255.0.255.0"), None);
        assert_eq!(meant("::ffff:10.0.0.0/104").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(meant("::ffff:10.0.0.0/64").as_deref(), Some("10.0.0.0/32"));
        assert_eq!(meant("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(meant("+10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        for text in
            ["", "/", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0/8", "010.0.0.1", "fe80::1%e/64"]
        {
            assert!(listed_prefix(text).is_err() && address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_their_words_and_bounds() {
        assert_eq!(fwmark("0xCA6C").unwrap().0, 0xca6c);
        assert_eq!(fwmark("4294967295").unwrap().0, u32::MAX);
        assert_eq!(fwmark("Off").unwrap().0, 0);
        for text in ["", "0x", "-1", "+1", "0x+1", "4294967296", "0x100000000", "on"] {
            assert!(fwmark(text).is_err(), "{text}");
        }
        assert_eq!(table("main").unwrap().0, Table::Number(254));
        assert_eq!(table("0x10").unwrap().0, Table::Number(16));
        assert_eq!(table("OFF").unwrap().0, Table::Off);
        assert!(table("0").is_err() && table("vpn").is_err() && table("4294967296").is_err());
        assert_eq!((mtu("576").unwrap().0, mtu("65475").unwrap().0), (576, 65475));
        assert!(mtu("575").is_err() && mtu("65476").is_err() && mtu("auto").is_err());
        assert_eq!((keepalive("off").unwrap().0, keepalive("65535").unwrap().0), (0, 65535));
        assert!(keepalive("65536").is_err() && keepalive("25s").is_err());
        assert!(listen_port("65536").is_err() && listen_port("-1").is_err() && listen_port("").is_err());
    }

    #[test]
    fn dns_words_are_sorted_as_wg_quick_does() {
        assert!(is_dns_server("1.1.1.1") && is_dns_server("fd00::1") && is_dns_server("1.2"));
        assert!(!is_dns_server("example.com") && !is_dns_server("1.2.example"));
        assert_eq!(search_domain("~corp.example.").unwrap().0, "~corp.example.");
        assert_eq!(search_domain("~.").unwrap().0, "~.");
        assert!(search_domain("1.2.3").is_err() && search_domain("a b").is_err() && search_domain("").is_err());
        assert!(dns_server("1.2").is_err());
    }

    #[test]
    fn hooks_are_lines_that_every_format_can_hold() {
        assert_eq!(hook(" ip route\tadd %i ").unwrap().0, "ip route\tadd %i");
        assert!(hook("echo # hi").is_err() && hook("a\nb").is_err() && hook("a\0b").is_err());
    }
}
