//! Socket addresses as Darwin's routing messages carry them, one behind another, each rounded up to four bytes.
//!
//! The first byte is the length, the second the family (xnu, bsd/sys/socket.h). A netmask is a socket address too, but the
//! kernel cuts its trailing zeros off and may leave its family 0, so it means something beside its destination only.
//! Everything that is read is checked: what does not fit is no address, and never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A socket address that matters to routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SockAddr {
    /// An IP address; `scope` is the interface of a link-local one, else 0.
    Ip {
        /// The address, without the scope that the kernel hides in it.
        address: IpAddr,
        /// The interface's number.
        scope: u32,
    },
    /// An interface (`sockaddr_dl`).
    Link {
        /// The interface's number; 0 is none.
        index: u32,
    },
    /// One of a family that nothing is known of.
    Other {
        /// The family.
        family: u8,
    },
}

impl SockAddr {
    /// Appends the address, padded.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Ip { address: IpAddr::V4(address), .. } => encode_v4(address, out),
            Self::Ip { address: IpAddr::V6(address), scope } => encode_v6(address, scope, out),
            Self::Link { index } => {
                let start = out.len();
                out.extend([LEN_DL, AF_LINK]);
                // An interface's number is sixteen bits wide in every structure of the kernel that holds one.
                out.extend(u16::try_from(index).unwrap_or(0).to_ne_bytes());
                out.resize(start + usize::from(LEN_DL), 0);
            }
            Self::Other { family } => out.extend([4, family, 0, 0]),
        }
    }

    /// Reads one address, without its padding.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let family = *bytes.get(1)?;
        Some(match family {
            AF_INET => {
                let address = Ipv4Addr::from(padded::<4>(bytes.get(4..)?));
                Self::Ip { address: address.into(), scope: 0 }
            }
            AF_INET6 => {
                let bytes: [u8; 28] = bytes.get(..28)?.try_into().ok()?;
                let mut octets: [u8; 16] = bytes[8..24].try_into().ok()?;
                let mut scope = u32::from_ne_bytes(bytes[24..28].try_into().ok()?);
                if embeds_scope(&octets) {
                    let embedded = u32::from(u16::from_be_bytes([octets[2], octets[3]]));
                    scope = if scope == 0 { embedded } else { scope };
                    octets[2..4].fill(0);
                } else {
                    scope = 0;
                }
                Self::Ip { address: Ipv6Addr::from(octets).into(), scope }
            }
            AF_LINK => Self::Link { index: u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?).into() },
            family => Self::Other { family },
        })
    }
}

/// The name in a `sockaddr_dl`: eight bytes of header, then as many of the name as the sixth byte says.
#[must_use]
pub fn link_name(bytes: &[u8]) -> Option<&str> {
    let length = usize::from(*bytes.get(5)?);
    (bytes.get(1) == Some(&AF_LINK))
        .then(|| bytes.get(8..8 + length).and_then(|name| std::str::from_utf8(name).ok()))?
}

/// Appends the netmask of a prefix, padded and whole.
pub fn encode_mask(net: &IpNet, out: &mut Vec<u8>) {
    match net.netmask() {
        IpAddr::V4(mask) => encode_v4(mask, out),
        IpAddr::V6(mask) => encode_plain_v6(mask.octets(), 0, out),
    }
}

/// The prefix length of a netmask, as cut off as it is, for a destination of a family; `None` if its ones are not in front.
#[must_use]
pub fn prefix_length(mask: &[u8], is_ipv6: bool) -> Option<u8> {
    let (offset, width) = if is_ipv6 { (8, 16) } else { (4, 4) };
    let given = mask.get(offset..).unwrap_or(&[]);
    let bits = given.iter().take(width).fold((0u32, false, true), |(ones, ended, good), byte| {
        let leading = byte.leading_ones();
        let clean = byte.checked_shl(leading).unwrap_or(0) == 0;
        (ones + leading, ended || leading < 8, good && clean && !(ended && *byte != 0))
    });
    bits.2.then(|| u8::try_from(bits.0).ok())?
}

/// Cuts a list of padded socket addresses into `(bit, address)`, in the order of the bits of `mask` (RTA_DST is bit 0).
/// Ends where the bytes do, whatever the lengths claim.
pub fn split(mask: u32, mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (0..u32::BITS).filter(move |bit| mask & (1 << bit) != 0).map_while(move |bit| {
        let length = usize::from(*bytes.first()?);
        let address = bytes.get(..length)?;
        // The last one may come without its padding.
        bytes = bytes.get(rounded(length)..).unwrap_or(&[]);
        Some((bit, address))
    })
}

/// How many bytes an address of this length takes: a multiple of four, and four for none (xnu, bsd/net/rtsock.c, ROUNDUP32).
#[must_use]
pub const fn rounded(length: usize) -> usize {
    if length == 0 { 4 } else { length.div_ceil(4) * 4 }
}

/// `sockaddr_in`: length, family, port, address, eight bytes of nothing.
fn encode_v4(address: Ipv4Addr, out: &mut Vec<u8>) {
    out.extend([LEN_IN, AF_INET, 0, 0]);
    out.extend(address.octets());
    out.extend([0; 8]);
}

fn encode_v6(address: Ipv6Addr, scope: u32, out: &mut Vec<u8>) {
    let mut octets = address.octets();
    if let (true, Ok(scope)) = (embeds_scope(&octets), u16::try_from(scope)) {
        octets[2..4].copy_from_slice(&scope.to_be_bytes());
    }
    encode_plain_v6(octets, 0, out);
}

/// `sockaddr_in6`: length, family, port, flow, address, scope.
pub(super) fn encode_plain_v6(octets: [u8; 16], scope: u32, out: &mut Vec<u8>) {
    out.extend([LEN_IN6, AF_INET6, 0, 0, 0, 0, 0, 0]);
    out.extend(octets);
    out.extend(scope.to_ne_bytes());
}

/// Whether the kernel keeps the interface's number in bytes 2 and 3 of the address, as KAME's IPv6 does: link-local
/// addresses, and multicast ones of interface-local and link-local scope (xnu, bsd/netinet6/scope6.c).
fn embeds_scope(octets: &[u8; 16]) -> bool {
    (octets[0] == 0xfe && octets[1] & 0xc0 == 0x80) || (octets[0] == 0xff && matches!(octets[1] & 0x0f, 1 | 2))
}

/// The first bytes, with zeros for those that are cut off.
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    whole
}

/// AF_INET, bsd/sys/socket.h.
pub const AF_INET: u8 = 2;
/// AF_LINK, bsd/sys/socket.h.
pub const AF_LINK: u8 = 18;
/// AF_INET6, bsd/sys/socket.h.
pub const AF_INET6: u8 = 30;

const LEN_IN: u8 = 16;
const LEN_IN6: u8 = 28;
const LEN_DL: u8 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(address: SockAddr) -> Vec<u8> {
        let mut out = Vec::new();
        address.encode(&mut out);
        out
    }

    #[test]
    fn a_link_local_address_carries_its_interface_in_bytes_two_and_three() {
        let address = SockAddr::Ip { address: "fe80::1".parse().unwrap(), scope: 0x0104 };
        let bytes = encoded(address);
        assert_eq!(bytes[..12], [28, 30, 0, 0, 0, 0, 0, 0, 0xfe, 0x80, 0x01, 0x04]);
        assert_eq!(bytes[23..], [1, 0, 0, 0, 0]);
        assert_eq!(SockAddr::decode(&bytes), Some(address));

        let global = SockAddr::Ip { address: "2001:db8::1".parse().unwrap(), scope: 7 };
        assert_eq!(
            SockAddr::decode(&encoded(global)),
            Some(SockAddr::Ip { address: "2001:db8::1".parse().unwrap(), scope: 0 })
        );
    }

    #[test]
    fn a_link_is_its_number() {
        let bytes = encoded(SockAddr::Link { index: 5 });
        let mut expected = vec![20, 18];
        expected.extend(5u16.to_ne_bytes());
        expected.extend([0; 16]);
        assert_eq!(bytes, expected);
        // As the kernel names it: index 5, type 6 (Ethernet), a name of three bytes, no address.
        let mut named = vec![20, 18];
        named.extend(5u16.to_ne_bytes());
        named.extend([6, 3, 0, 0, b'e', b'n', b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(link_name(&named), Some("en0"));
        assert_eq!(SockAddr::decode(&named), Some(SockAddr::Link { index: 5 }));
    }

    #[test]
    fn masks_are_read_as_the_kernel_cuts_them() {
        // netstat's examples: a default route's mask has length 0, a /8's five bytes, and the family may be 0 or 255.
        assert_eq!(prefix_length(&[], false), Some(0));
        assert_eq!(prefix_length(&[5, 0, 0, 0, 255], false), Some(8));
        assert_eq!(prefix_length(&[7, 255, 255, 255, 255, 255, 0x80], false), Some(17));
        assert_eq!(prefix_length(&[8, 0, 0, 0, 255, 255, 255, 255], false), Some(32));
        assert_eq!(prefix_length(&[16, 30, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255], true), Some(64));
        for holes in [&[8, 0, 0, 0, 255, 0, 255][..], &[5, 0, 0, 0, 0b1010_0000], &[6, 0, 0, 0, 0xf0, 0x80]] {
            assert_eq!(prefix_length(holes, false), None, "{holes:?}");
        }
    }

    #[test]
    fn an_address_without_length_takes_four_bytes() {
        let bytes = [0, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 16, 2];
        let parts: Vec<_> = split(0b111, &bytes).collect();
        assert_eq!(parts[0], (0, &[][..]));
        assert_eq!(parts[1], (1, &[5, 0, 0, 0, 9][..]));
        // The third claims more than there is.
        assert_eq!(parts.len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(address: IpAddr, index in 1u32..=0xffff) {
            for address in [SockAddr::Ip { address, scope: 0 }, SockAddr::Link { index }] {
                let bytes = encoded(address);
                prop_assert_eq!(bytes.len() % 4, 0);
                let decoded = SockAddr::decode(&bytes);
                if let (SockAddr::Ip { address: IpAddr::V6(ip), .. }, Some(SockAddr::Ip { address: IpAddr::V6(back), .. })) = (address, decoded)
                    && embeds_scope(&ip.octets()) {
                    // Bytes 2 and 3 are the kernel's there.
                    prop_assert_eq!(&back.octets()[4..], &ip.octets()[4..]);
                } else {
                    prop_assert_eq!(decoded, Some(address));
                }
            }
        }

        #[test]
        fn masks_are_read_again(address: IpAddr, length in 0u8..=128, cut in 0usize..32) {
            let width = if address.is_ipv4() { 32 } else { 128 };
            let net = IpNet::new(address, length.min(width)).unwrap();
            let mut bytes = Vec::new();
            encode_mask(&net, &mut bytes);
            // Zeros at the end may be missing.
            let keep = bytes.len().saturating_sub(cut);
            if bytes[keep..].iter().all(|byte| *byte == 0) {
                bytes.truncate(keep);
            }
            prop_assert_eq!(prefix_length(&bytes, net.addr().is_ipv6()), Some(net.prefix_len()));
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>, mask: u32, v6: bool) {
            let _any = SockAddr::decode(&bytes);
            let _any = prefix_length(&bytes, v6);
            let _any = link_name(&bytes);
            let parts: Vec<_> = split(mask, &bytes).collect();
            prop_assert!(parts.len() <= 32 && parts.iter().map(|(_, part)| part.len()).sum::<usize>() <= bytes.len());
        }
    }
}
