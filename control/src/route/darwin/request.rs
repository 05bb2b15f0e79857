//! What the ioctls for an interface's addresses and flags take, byte by byte.
//!
//! `struct ifaliasreq` and `struct ifreq` (xnu, bsd/net/if.h), `struct in6_aliasreq` and `struct in6_ifreq`
//! (bsd/netinet6/in6_var.h), as a 64-bit kernel has them. A name that does not fit gives none.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::sockaddr::{SockAddr, encode_plain_v6};

/// What SIOCAIFADDR takes: an address of a point-to-point interface, which is its own other end.
#[must_use]
pub fn add_v4(ifname: &str, address: Ipv4Net) -> Option<[u8; ALIAS_V4]> {
    let mut out = named(ifname)?;
    for part in [address.addr(), address.addr(), address.netmask()] {
        socket_address(part, &mut out);
    }
    out.try_into().ok()
}

/// What SIOCAIFADDR_IN6 takes: an address for good, which nobody else is asked about first.
#[must_use]
pub fn add_v6(ifname: &str, address: Ipv6Net) -> Option<[u8; ALIAS_V6]> {
    let mut out = named(ifname)?;
    encode_plain_v6(address.addr().octets(), 0, &mut out);
    // The other end: none, which a prefix shorter than the whole address has to have.
    out.extend([0; 28]);
    encode_plain_v6(address.netmask().octets(), 0, &mut out);
    out.extend(NO_DUPLICATE_DETECTION.to_ne_bytes());
    // Two times at which it ends, which the kernel fills in, and two lifetimes.
    out.extend([0; 16]);
    out.extend([0xff; 8]);
    out.try_into().ok()
}

/// What SIOCDIFADDR takes.
#[must_use]
pub fn remove_v4(ifname: &str, address: Ipv4Addr) -> Option<[u8; IFREQ]> {
    let mut out = named(ifname)?;
    socket_address(address, &mut out);
    out.try_into().ok()
}

/// What SIOCDIFADDR_IN6 takes.
#[must_use]
pub fn remove_v6(ifname: &str, address: Ipv6Addr) -> Option<[u8; IFREQ_V6]> {
    let mut out = named(ifname)?;
    encode_plain_v6(address.octets(), 0, &mut out);
    out.resize(IFREQ_V6, 0);
    out.try_into().ok()
}

/// What SIOCGIFFLAGS, SIOCSIFFLAGS and SIOCGIFDIRECTLINK take: a name, and a number behind it.
#[must_use]
pub fn number(ifname: &str, number: i16) -> Option<[u8; IFREQ]> {
    let mut out = named(ifname)?;
    out.extend(number.to_ne_bytes());
    out.resize(IFREQ, 0);
    out.try_into().ok()
}

fn named(ifname: &str) -> Option<Vec<u8>> {
    // The last byte ends the name.
    (!ifname.is_empty() && ifname.len() < NAME).then(|| {
        let mut out = ifname.as_bytes().to_vec();
        out.resize(NAME, 0);
        out
    })
}

fn socket_address(address: Ipv4Addr, out: &mut Vec<u8>) {
    SockAddr::Ip { address: address.into(), scope: 0 }.encode(out);
}

/// `IFNAMSIZ`.
const NAME: usize = 16;
/// `sizeof (struct ifaliasreq)`.
pub const ALIAS_V4: usize = 64;
/// `sizeof (struct in6_aliasreq)`.
pub const ALIAS_V6: usize = 128;
/// `sizeof (struct ifreq)`.
pub const IFREQ: usize = 32;
/// `sizeof (struct in6_ifreq)`.
pub const IFREQ_V6: usize = 288;
/// `IN6_IFF_NODAD`.
const NO_DUPLICATE_DETECTION: i32 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_three_socket_addresses_behind_a_name() {
        let mut expected = b"utun4\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        for part in [[10, 9, 0, 2], [10, 9, 0, 2], [255, 255, 255, 0]] {
            expected.extend([16, 2, 0, 0]);
            expected.extend(part);
            expected.extend([0; 8]);
        }
        assert_eq!(add_v4("utun4", "10.9.0.2/24".parse().unwrap()).unwrap()[..], expected);
        assert_eq!(remove_v4("utun4", "10.9.0.2".parse().unwrap()).unwrap()[..], expected[..32]);
    }

    #[test]
    fn an_ipv6_address_has_no_other_end_and_no_end() {
        let bytes = add_v6("utun4", "fd00::2/64".parse().unwrap()).unwrap();
        let mut expected = b"utun4\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        expected.extend([28, 30, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        expected.extend([0; 28]);
        expected.extend([28, 30, 0, 0, 0, 0, 0, 0]);
        expected.extend([255; 8]);
        expected.extend([0; 12]);
        // Flags at 100, times at 104 and 112, lifetimes at 120 and 124.
        expected.extend(0x20i32.to_ne_bytes());
        expected.extend([0; 16]);
        expected.extend([255; 8]);
        assert_eq!(bytes[..], expected);
        let removed = remove_v6("utun4", "fd00::2".parse().unwrap()).unwrap();
        assert_eq!(removed[..44], expected[..44]);
        assert_eq!(removed[44..], [0; 288 - 44]);
    }

    #[test]
    fn names_that_do_not_fit_give_nothing() {
        assert_eq!(number("", 1), None);
        assert_eq!(number("sixteen-letters-", 1), None);
        let bytes = number("fifteen-letters", 0x8863u16 as i16).unwrap();
        assert_eq!(bytes[15..18], [0, 0x8863u16.to_ne_bytes()[0], 0x8863u16.to_ne_bytes()[1]]);
    }
}
