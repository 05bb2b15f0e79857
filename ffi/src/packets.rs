//! Packets on their way between the host and the tunnel.

use std::ffi::c_void;

use crate::result::{ADIT_ERROR_PACKET, Failure, Outcome};
use crate::tunnel::AditTunnel;

/// Packets that one call may inject.
pub const ADIT_MAX_PACKETS: usize = 4096;

/// Bytes that belong to somebody else.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AditSlice {
    /// The first byte.
    pub data: *const u8,
    /// How many there are.
    pub length: usize,
}

/// Takes IP packets that came out of a tunnel: `count` packets, at least one, and as many protocol families (AF_INET or
/// AF_INET6 of the system that the library was built for). The arrays are those of
/// `NEPacketTunnelFlow.writePackets(_:withProtocols:)`.
///
/// Thread: the tunnel's thread "adit-callbacks", as with `AditEventCallback`. Ownership: the arrays and the packets are
/// the library's. Lifetime: until the callback returns; copy what you keep. Errors: none; what the host cannot write is
/// lost, as on any interface.
pub type AditPacketsCallback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        tunnel: AditTunnel,
        packets: *const AditSlice,
        families: *const i32,
        count: usize,
    ),
>;

/// The protocol family that a packet's first byte tells, in the system's numbers; `None` if it is no IP packet.
pub(crate) fn family_of(packet: &[u8]) -> Option<i32> {
    match packet.first()? >> 4 {
        4 => Some(libc::AF_INET),
        6 => Some(libc::AF_INET6),
        _ => None,
    }
}

/// Refuses what cannot be an IP packet, and one whose family, if it is said, is another.
pub(crate) fn check(packet: &[u8], family: Option<i32>) -> Outcome {
    match (family_of(packet), family) {
        (Some(told), Some(family)) if told == family => Ok(()),
        (Some(_), None) => Ok(()),
        _ => Err(Failure::new(ADIT_ERROR_PACKET)),
    }
}

/// The longest IP packet without jumbograms, in bytes.
pub(crate) const LONGEST: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_what_its_first_byte_says() {
        assert_eq!(family_of(&[0x45, 0]), Some(libc::AF_INET));
        assert_eq!(family_of(&[0x60]), Some(libc::AF_INET6));
        assert_eq!(family_of(&[0x50]), None);
        assert_eq!(family_of(&[]), None);
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = Err(Failure::new(ADIT_ERROR_PACKET));
        assert_eq!(check(&[0x45; 20], None), Ok(()));
        assert_eq!(check(&[0x45; 20], Some(libc::AF_INET)), Ok(()));
        assert_eq!(check(&[0x60; 40], Some(libc::AF_INET6)), Ok(()));
        assert_eq!(check(&[0x45; 20], Some(libc::AF_INET6)), refused);
        assert_eq!(check(&[0x45; 20], Some(0)), refused, "0 is no family");
        assert_eq!(check(&[], None), refused);
        assert_eq!(check(&[0x75; 20], None), refused);
    }
}
