//! Where peers are reached, for the guard against loops: the tunnel's own datagrams must not come back into it.
//!
//! Each of them that does would be sealed, sent, and come back again, until queues are full. Only routes outside the
//! engine can lead them here, and only UDP to an address and port that a peer is reached at is one of them. So the guard
//! looks at the protocol, at one bit for the port, and seldom at more.

use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;

use crate::ip::IpHeader;

/// Counts how many peers are reached at each address and port.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// A bit for each bucket of ports that is not empty.
    ports: u64,
    /// How many endpoints have a port of each bucket.
    buckets: [u32; u64::BITS as usize],
    /// Endpoints come from the configuration and from authenticated peers, one for each: nobody can fill this.
    known: FxHashMap<Key, Known>,
}

/// An address in its own family, and a port.
type Key = (IpAddr, u16);

#[derive(Debug, Default)]
struct Known {
    peers: u32,
    is_reported: bool,
}

impl Endpoints {
    pub(super) fn new() -> Self {
        Self { ports: 0, buckets: [0; u64::BITS as usize], known: FxHashMap::default() }
    }

    /// One more peer is reached at `endpoint`.
    pub(super) fn add(&mut self, endpoint: SocketAddr) {
        let Some(key) = key(endpoint) else { return };
        let known = self.known.entry(key).or_default();
        known.peers += 1;
        if known.peers == 1 {
            let bucket = bucket(key.1);
            self.buckets[bucket as usize] += 1;
            self.ports |= 1 << bucket;
        }
    }

    /// One peer less is reached at `endpoint`. After the last one, it has never been reported.
    pub(super) fn remove(&mut self, endpoint: SocketAddr) {
        let Some(key) = key(endpoint) else { return };
        let Some(known) = self.known.get_mut(&key) else { return };
        known.peers -= 1;
        if known.peers == 0 {
            self.known.remove(&key);
            let bucket = bucket(key.1);
            self.buckets[bucket as usize] -= 1;
            if self.buckets[bucket as usize] == 0 {
                self.ports &= !(1 << bucket);
            }
        }
    }

    /// Whether a packet is UDP to an endpoint. Of fragments, only the first one has a port.
    #[inline]
    pub(super) fn is_destination(&self, header: &IpHeader, packet: &[u8]) -> bool {
        match udp_port(header, packet) {
            Some(port) if self.ports >> bucket(port) & 1 == 1 => self.has(header.destination, port),
            _ => false,
        }
    }

    #[inline(never)]
    fn has(&self, address: IpAddr, port: u16) -> bool {
        self.known.contains_key(&(address, port))
    }

    /// Says which endpoint a packet that [`is_destination`](Self::is_destination) is sent to, if that was not said before.
    pub(super) fn report(&mut self, header: &IpHeader, packet: &[u8]) -> Option<(IpAddr, u16)> {
        let key = (header.destination, udp_port(header, packet)?);
        let known = self.known.get_mut(&key)?;
        (!std::mem::replace(&mut known.is_reported, true)).then_some(key)
    }

    /// Whether `endpoint` is one that [`report`](Self::report) names so.
    pub(super) fn is(endpoint: SocketAddr, reported: (IpAddr, u16)) -> bool {
        key(endpoint) == Some(reported)
    }
}

/// The destination port of a packet that `header` was read from, if it is UDP and the port is in it.
#[inline]
fn udp_port(header: &IpHeader, packet: &[u8]) -> Option<u16> {
    let at = match header.destination {
        IpAddr::V4(_) => {
            let fixed = packet.first_chunk::<20>()?;
            let is_later_fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff != 0;
            if fixed[9] != UDP || is_later_fragment {
                return None;
            }
            usize::from(fixed[0] & 0x0f) * 4
        }
        IpAddr::V6(_) => {
            let fixed = packet.first_chunk::<40>()?;
            match fixed[6] {
                UDP => 40,
                FRAGMENT => udp_in_first_fragment(packet)?,
                _ => return None,
            }
        }
    };
    let port = packet.get(at + 2..at + 4)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

/// Where the UDP header is behind a fragment header (RFC 8200 section 4.5): the one extension header that a system puts
/// before a datagram of its own accord, for it is longer than the tunnel's MTU if what it carries is as long.
#[cold]
fn udp_in_first_fragment(packet: &[u8]) -> Option<usize> {
    let fragment = packet.get(40..48)?;
    let is_first = u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 == 0;
    (fragment[0] == UDP && is_first).then_some(48)
}

/// `None` for link-local addresses: on the tunnel's link the same one is somebody else.
fn key(endpoint: SocketAddr) -> Option<Key> {
    match endpoint.ip().to_canonical() {
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        address => Some((address, endpoint.port())),
    }
}

#[inline]
fn bucket(port: u16) -> u32 {
    u32::from(port) % u64::BITS
}

const UDP: u8 = 17;
const FRAGMENT: u8 = 44;

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpFragOffset, IpNumber, Ipv4Options, PacketBuilder};
    use proptest::prelude::*;

    const V4: [u8; 4] = [192, 0, 2, 1];
    const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const PORT: u16 = 51820;

    fn endpoints() -> Endpoints {
        let mut endpoints = Endpoints::new();
        endpoints.add((V4, PORT).into());
        endpoints.add((V6, PORT).into());
        endpoints
    }

    fn is_loop(packet: &[u8]) -> bool {
        endpoints().is_destination(&IpHeader::parse(packet).unwrap(), packet)
    }

    fn v4(to: [u8; 4], port: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], to, 64).udp(1, port).write(&mut packet, b"payload").unwrap();
        packet
    }

    fn v6(to: [u8; 16], port: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], to, 64).udp(1, port).write(&mut packet, b"payload").unwrap();
        packet
    }

    #[test]
    fn address_port_and_protocol_all_count() {
        assert!(is_loop(&v4(V4, PORT)) && is_loop(&v6(V6, PORT)));
        assert!(!is_loop(&v4(V4, PORT + 1)) && !is_loop(&v6(V6, PORT - 1)));
        assert!(!is_loop(&v4(V4, PORT - 64)) && !is_loop(&v6(V6, PORT - 64)), "a port of the same bucket");
        assert!(!is_loop(&v4([192, 0, 2, 2], PORT)) && !is_loop(&v6([0xfd; 16], PORT)));
        let mut tcp = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], V4, 64).tcp(1, PORT, 0, 0).write(&mut tcp, b"").unwrap();
        assert!(!is_loop(&tcp));
    }

    #[test]
    fn options_stand_before_the_port() {
        let mut header = etherparse::Ipv4Header::new(15, 64, IpNumber::UDP, [10, 0, 0, 1], V4).unwrap();
        header.options = Ipv4Options::try_from(&[1u8; 12][..]).unwrap();
        let mut packet = header.to_bytes().to_vec();
        packet.extend([0, 1, 0xca, 0x6c, 0, 15, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
        packet[3] = packet.len() as u8;
        assert!(is_loop(&packet));
    }

    #[test]
    fn only_the_first_fragment_has_a_port() {
        let mut packet = v4(V4, PORT);
        packet[6] = 0x20;
        assert!(is_loop(&packet), "more fragments follow");
        packet[7] = 1;
        assert!(!is_loop(&packet));

        for (offset, expected) in [(0, true), (1, false)] {
            let offset = IpFragOffset::try_new(offset).unwrap();
            let fragment = etherparse::Ipv6FragmentHeader::new(IpNumber::UDP, offset, true, 7);
            let mut packet = v6(V6, PORT);
            packet.splice(40..40, fragment.to_bytes());
            packet[6] = FRAGMENT;
            packet[5] += 8;
            assert_eq!(is_loop(&packet), expected, "{offset:?}");
        }
    }

    #[test]
    fn headers_that_end_too_early_have_no_port() {
        let mut packet = v4(V4, PORT);
        packet.truncate(23);
        packet[3] = 23;
        assert!(!is_loop(&packet));
        let mut packet = v6(V6, PORT);
        packet.truncate(43);
        packet[5] = 3;
        assert!(!is_loop(&packet));
        packet[6] = FRAGMENT;
        assert!(!is_loop(&packet));
    }

    #[test]
    fn an_endpoint_is_reported_again_only_after_it_was_left() {
        let (mut endpoints, packet) = (endpoints(), v4(V4, PORT));
        let header = IpHeader::parse(&packet).unwrap();
        endpoints.add((V4, PORT).into());
        assert_eq!(endpoints.report(&header, &packet), Some((V4.into(), PORT)));
        assert_eq!(endpoints.report(&header, &packet), None);
        endpoints.remove((V4, PORT).into());
        assert!(endpoints.is_destination(&header, &packet), "the other peer is still there");
        assert_eq!(endpoints.report(&header, &packet), None);
        endpoints.remove((V4, PORT).into());
        assert!(!endpoints.is_destination(&header, &packet));
        endpoints.add((V4, PORT).into());
        assert_eq!(endpoints.report(&header, &packet), Some((V4.into(), PORT)));
    }

    #[test]
    fn addresses_are_those_on_the_wire() {
        let mut endpoints = Endpoints::new();
        endpoints.add(format!("[::ffff:192.0.2.1]:{PORT}").parse().unwrap());
        let packet = v4(V4, PORT);
        assert!(endpoints.is_destination(&IpHeader::parse(&packet).unwrap(), &packet));

        let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        endpoints.add((link_local, PORT).into());
        let packet = v6(link_local, PORT);
        assert!(!endpoints.is_destination(&IpHeader::parse(&packet).unwrap(), &packet), "it is on another link");
        endpoints.remove((link_local, PORT).into());
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(steps in proptest::collection::vec((any::<bool>(), 1u8..4, 0u16..130), 0..100)) {
            let (mut endpoints, mut list) = (Endpoints::new(), Vec::new());
            for (add, host, port) in steps {
                let endpoint = SocketAddr::from(([192, 0, 2, host], port));
                if add {
                    endpoints.add(endpoint);
                    list.push(endpoint);
                } else {
                    endpoints.remove(endpoint);
                    if let Some(at) = list.iter().position(|other| *other == endpoint) {
                        list.swap_remove(at);
                    }
                }
            }
            for (host, port) in (1..4).flat_map(|host| (0..130).map(move |port| (host, port))) {
                let packet = v4([192, 0, 2, host], port);
                let found = endpoints.is_destination(&IpHeader::parse(&packet).unwrap(), &packet);
                prop_assert_eq!(found, list.contains(&SocketAddr::from(([192, 0, 2, host], port))));
            }
            for endpoint in list {
                endpoints.remove(endpoint);
            }
            prop_assert_eq!((endpoints.ports, endpoints.known.len()), (0, 0));
        }
    }
}
