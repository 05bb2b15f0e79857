//! The MTU that an underlay leaves to a tunnel.

/// The MTU that an underlay leaves to the tunnel, both in bytes: less WireGuard's overhead, and never below what the
/// tunnel's families need, for which the outer datagrams are fragmented then. `None` is 1500.
pub(super) fn inner(outer: Option<u32>, carries_ipv6: bool) -> u16 {
    let least = if carries_ipv6 { MIN_IPV6 } else { MIN_IPV4 };
    let inner = outer.unwrap_or(ETHERNET).saturating_sub(OVERHEAD);
    u16::try_from(inner).unwrap_or(u16::MAX).max(least)
}

/// IPv6 header 40, UDP 8, WireGuard 32 (type, index, counter, tag): what the larger of the two outer families costs.
const OVERHEAD: u32 = 80;
const ETHERNET: u32 = 1500;
/// What every IPv4 host must be able to receive (RFC 1122 section 3.3.2).
const MIN_IPV4: u16 = 576;
/// The least MTU of an IPv6 link (RFC 8200 section 5).
pub(super) const MIN_IPV6: u16 = 1280;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnel_gets_what_the_underlay_leaves() {
        for (outer, carries_ipv6, expected) in [
            (None, true, 1420),
            (Some(1500), false, 1420),
            (Some(1492), true, 1412),
            (Some(1280), false, 1200),
            (Some(1280), true, 1280),
            (Some(600), false, 576),
            (Some(68), true, 1280),
            (Some(0), false, 576),
            (Some(65536), true, 65456),
            (Some(u32::MAX), true, 65535),
        ] {
            assert_eq!(inner(outer, carries_ipv6), expected, "{outer:?} {carries_ipv6}");
        }
    }
}
