//! Echo requests over raw sockets (RFC 792, RFC 4443): root in a network namespace may have them there.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::demo::PING_LIMIT;
use crate::failure::Outcome;
use crate::netns::sockets::is_passing;
use crate::watch::{SLICE, Watch};

/// A raw ICMP socket of one family.
#[derive(Debug)]
pub(super) struct Echo {
    socket: Socket,
    kind: Kind,
}

/// What differs between the families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
}

impl Echo {
    /// A socket in the network namespace of the calling thread.
    pub(super) fn ipv4() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        Ok(Self { socket, kind: Kind::V4 })
    }

    /// A socket in the network namespace of the calling thread.
    pub(super) fn ipv6() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        Ok(Self { socket, kind: Kind::V6 })
    }

    /// Sends one request and returns the round trip of its answer; `None` if none came in time.
    pub(super) fn ping(&mut self, watch: &Watch, to: IpAddr, sequence: u16) -> Outcome<Option<Duration>> {
        let ident = std::process::id() as u16;
        let begun = Instant::now();
        // Connected, it receives from that address only (raw(7)).
        self.socket.connect(&SocketAddr::new(to, 0).into())?;
        self.socket.send(&request(self.kind, ident, sequence))?;
        let mut buffer = [0; 256];
        while let Some(left) = PING_LIMIT.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            watch.check()?;
            self.socket.set_read_timeout(Some(left.min(SLICE)))?;
            match self.socket.read(&mut buffer) {
                Ok(len) if is_reply(self.kind, &buffer[..len], ident, sequence) => return Ok(Some(begun.elapsed())),
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

fn request(kind: Kind, ident: u16, sequence: u16) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[0] = kind.request();
    packet[4..6].copy_from_slice(&ident.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[8..].copy_from_slice(DATA);
    // The kernel makes ICMPv6's checksum (RFC 3542 section 3.1).
    if kind == Kind::V4 {
        let checksum = checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// Whether these bytes, as a raw socket gives them, answer that request.
fn is_reply(kind: Kind, packet: &[u8], ident: u16, sequence: u16) -> bool {
    // IPv4's come with their header (raw(7)).
    let start = match kind {
        Kind::V4 => packet.first().map_or(0, |first| usize::from(first & 15) * 4),
        Kind::V6 => 0,
    };
    packet.get(start..).is_some_and(|icmp| {
        icmp.len() >= LEN
            && icmp[0] == kind.reply()
            && icmp[4..6] == ident.to_be_bytes()
            && icmp[6..8] == sequence.to_be_bytes()
            && icmp[8..LEN] == *DATA
    })
}

impl Kind {
    const fn request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    const fn reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// The internet checksum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8; LEN]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// What a request carries.
const DATA: &[u8; 8] = b"aditdemo";

/// Bytes of a request, its header of 8 included.
const LEN: usize = 8 + DATA.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_sum_up() {
        for sequence in [0, 1, 0xffff] {
            let packet = request(Kind::V4, 0xfffe, sequence);
            // A sum over a packet with a right checksum is zero (RFC 1071 section 1).
            assert_eq!(checksum(&packet), 0);
            assert_eq!((packet[0], packet[1]), (8, 0));
        }
        assert_eq!(request(Kind::V6, 1, 2)[2..4], [0, 0]);
    }

    #[test]
    fn only_the_answer_to_the_request_counts() {
        let mut reply = request(Kind::V6, 7, 3);
        assert!(!is_reply(Kind::V6, &reply, 7, 3), "the request itself");
        reply[0] = Kind::V6.reply();
        assert!(is_reply(Kind::V6, &reply, 7, 3));
        assert!(!is_reply(Kind::V6, &reply, 8, 3) && !is_reply(Kind::V6, &reply, 7, 4));
        assert!(!is_reply(Kind::V6, &reply[..15], 7, 3));

        let mut packet = vec![0x46; 24];
        packet.extend(request(Kind::V4, 7, 3));
        packet[24] = Kind::V4.reply();
        assert!(is_reply(Kind::V4, &packet, 7, 3));
        for short in [0, 1, 24, 39] {
            assert!(!is_reply(Kind::V4, &packet[..short], 7, 3));
        }
    }
}
