//! What becomes of a packet that the host sends: which peer carries it, or why none does.
//!
//! Pure, and the only place on the way out that looks at the routing table.

use crate::error::DropReason;
use crate::ip::IpHeader;
use crate::route::AllowedIps;

/// The decision for one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition<P> {
    /// This peer carries it.
    Tunnel(P),
    /// It goes nowhere.
    Drop(DropReason),
}

/// Decides on packets of `len` bytes at most from the host by WireGuard's cryptokey routing.
#[inline]
pub fn outbound<P: Copy + PartialEq>(
    header: &IpHeader,
    len: usize,
    mtu: usize,
    allowed: &AllowedIps<P>,
) -> Disposition<P> {
    if len > mtu {
        return Disposition::Drop(DropReason::TooBig);
    }
    match allowed.lookup(header.destination) {
        Some(peer) => Disposition::Tunnel(peer),
        None => Disposition::Drop(DropReason::NoRoute),
    }
}

/// Whether a decrypted packet may come from `peer`: its source must be routed to that same peer (whitepaper section 3).
#[inline]
pub fn inbound<P: Copy + PartialEq>(header: &IpHeader, peer: P, allowed: &AllowedIps<P>) -> Result<(), DropReason> {
    if allowed.lookup(header.source) == Some(peer) { Ok(()) } else { Err(DropReason::SpoofedSource) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Ecn;

    fn header(source: &str, destination: &str, total_len: usize) -> IpHeader {
        IpHeader {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            total_len,
            ecn: Ecn::NotEct,
        }
    }

    #[test]
    fn the_longest_prefix_carries_and_only_its_peer_may_answer() {
        let mut allowed = AllowedIps::new();
        allowed.insert("10.0.0.0/8".parse().unwrap(), 'a');
        allowed.insert("10.1.0.0/16".parse().unwrap(), 'b');

        let out = |to, len| outbound(&header("192.0.2.1", to, len), len, 1420, &allowed);
        assert_eq!(out("10.2.0.1", 1420), Disposition::Tunnel('a'));
        assert_eq!(out("10.1.0.1", 1420), Disposition::Tunnel('b'));
        assert_eq!(out("10.1.0.1", 1421), Disposition::Drop(DropReason::TooBig));
        assert_eq!(out("11.0.0.1", 100), Disposition::Drop(DropReason::NoRoute));

        let back = |from, peer| inbound(&header(from, "192.0.2.1", 100), peer, &allowed);
        assert_eq!(back("10.1.0.1", 'b'), Ok(()));
        assert_eq!(back("10.1.0.1", 'a'), Err(DropReason::SpoofedSource), "a's /8 covers it, b's /16 owns it");
        assert_eq!(back("203.0.113.9", 'a'), Err(DropReason::SpoofedSource));
    }
}
