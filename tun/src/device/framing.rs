//! What stands in front of a packet on a descriptor.
//!
//! Linux's tun devices carry packets as they are; Apple's utun puts the protocol family in front of each, in four bytes
//! (utun_ctl_send and utun_output in xnu's bsd/net/if_utun.c). Nothing here reads or writes anything: the header goes into
//! the headroom that every packet has, so no packet is copied for it.

use crate::batch::HEADROOM;

/// How packets lie on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The packet and nothing else, as on a Linux tun device with IFF_NO_PI.
    Raw,
    /// Four bytes of protocol family in network byte order in front of the packet, as on Apple's utun.
    Utun,
}

impl Framing {
    /// Bytes in front of a packet.
    pub const fn header_len(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::Utun => FAMILY,
        }
    }

    /// Fills in the header of `framed`, which is a packet with room for the header in front of it. `false` if there is no
    /// header for it, because it is neither IPv4 nor IPv6.
    #[inline]
    pub(crate) fn encode(self, framed: &mut [u8]) -> bool {
        match self {
            Self::Raw => true,
            Self::Utun => {
                let Some((header, packet)) = framed.split_first_chunk_mut::<FAMILY>() else { return false };
                let Some(family) = protocol_family(packet) else { return false };
                *header = family.to_be_bytes();
                true
            }
        }
    }

    /// The header of a packet that lies elsewhere; `None` if there is none for it.
    pub(crate) fn header(self, packet: &[u8]) -> Option<([u8; FAMILY], usize)> {
        match self {
            Self::Raw => Some(([0; FAMILY], 0)),
            Self::Utun => protocol_family(packet).map(|family| (family.to_be_bytes(), FAMILY)),
        }
    }

    /// Length of the packet behind the header of `framed`; 0 if the header is not complete or contradicts the packet.
    #[inline]
    pub(crate) fn decode(self, framed: &[u8]) -> usize {
        match self {
            Self::Raw => framed.len(),
            Self::Utun => match framed.split_first_chunk::<FAMILY>() {
                Some((header, packet)) if protocol_family(packet) == Some(u32::from_be_bytes(*header)) => packet.len(),
                _ => 0,
            },
        }
    }
}

/// The protocol family of a packet as Apple's systems number it, 2 or 30, by its version field (section 3 of RFC 791 and
/// of RFC 8200): what stands in front of it on a utun, and what packetFlow calls its protocol. `None` if it is no packet.
pub fn protocol_family(packet: &[u8]) -> Option<u32> {
    match packet.first()? >> 4 {
        4 => Some(AF_INET),
        6 => Some(AF_INET6),
        _ => None,
    }
}

/// Bytes of a protocol family.
const FAMILY: usize = size_of::<u32>();

/// The families as Apple's systems number them (bsd/sys/socket.h): AF_INET6 is 10 on Linux and 30 there.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 30;

const _: () = assert!(FAMILY <= HEADROOM, "the header has to fit in front of a packet");

#[cfg(target_vendor = "apple")]
const _: () = assert!(AF_INET == nix::libc::AF_INET as u32 && AF_INET6 == nix::libc::AF_INET6 as u32);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_family_is_in_network_order() {
        for (version, family) in [(0x45, 2), (0x60, 30)] {
            let mut framed = [9, 9, 9, 9, version, 1, 2];
            assert!(Framing::Utun.encode(&mut framed));
            assert_eq!(framed, [0, 0, 0, family, version, 1, 2]);
            assert_eq!(Framing::Utun.decode(&framed), 3);
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_packet() {
        for framed in [
            &[0, 0, 0, 2, 0x60][..],
            &[0, 0, 0, 30, 0x45],
            &[0, 0, 0, 10, 0x60],
            // The host's order, which is a mistake that others made.
            &[2, 0, 0, 0, 0x45],
            &[0, 0, 0, 2, 0x50],
            &[0, 0, 0, 2],
            &[0, 0, 0],
            &[],
        ] {
            assert_eq!(Framing::Utun.decode(framed), 0, "{framed:?}");
        }
        for packet in [&[9, 9, 9, 9, 0x55][..], &[9, 9, 9, 9], &[9, 9], &[]] {
            assert!(!Framing::Utun.encode(&mut packet.to_vec()), "{packet:?}");
        }
    }

    #[test]
    fn raw_packets_are_left_alone() {
        let mut packet = [0x55, 1];
        assert!(Framing::Raw.encode(&mut packet));
        assert_eq!((packet, Framing::Raw.decode(&packet), Framing::Raw.header_len()), ([0x55, 1], 2, 0));
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_is_decoded(mut framed in proptest::collection::vec(any::<u8>(), 0..100)) {
            let packet = framed.get(FAMILY..).unwrap_or_default().to_vec();
            let encoded = Framing::Utun.encode(&mut framed);
            prop_assert_eq!(encoded, matches!(packet.first().map(|byte| byte >> 4), Some(4 | 6)));
            let header = Framing::Utun.header(&packet);
            prop_assert_eq!(header.is_some(), encoded);
            if let Some((header, len)) = header {
                prop_assert_eq!(&header[..len], &framed[..FAMILY]);
                prop_assert_eq!(Framing::Utun.decode(&framed), packet.len());
                prop_assert_eq!(&framed[FAMILY..], &packet[..]);
            }
        }
    }
}
