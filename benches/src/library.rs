//! The WireGuard library by itself: two of its tunnels that have a session, without the engine around them.

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

/// Both ends of a session.
pub struct Library {
    sender: Tunn,
    receiver: Tunn,
    out: Vec<u8>,
}

impl Library {
    /// Makes two tunnels and completes their handshake.
    pub fn new() -> Self {
        let key = |n: u8| StaticSecret::from([n; 32]);
        let tunnel =
            |own: u8, other: u8| Tunn::new(key(own), PublicKey::from(&key(other)), None, None, own.into(), None);
        let mut both = Self { sender: tunnel(1, 2), receiver: tunnel(2, 1), out: vec![0; 2048] };
        let initiation = to_network(both.sender.format_handshake_initiation(&mut both.out, false));
        let response = to_network(both.receiver.decapsulate(None, &initiation, &mut both.out));
        let keepalive = to_network(both.sender.decapsulate(None, &response, &mut both.out));
        assert!(matches!(both.receiver.decapsulate(None, &keepalive, &mut both.out), TunnResult::Done));
        both
    }

    /// Seals a packet and returns the message.
    #[inline]
    pub fn seal(&mut self, packet: &[u8]) -> &[u8] {
        match self.sender.encapsulate(packet, &mut self.out) {
            TunnResult::WriteToNetwork(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a message that was sealed here and not yet opened; returns the packet's length in bytes.
    #[inline]
    pub fn open(&mut self, message: &[u8]) -> usize {
        match self.receiver.decapsulate(None, message, &mut self.out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => packet.len(),
            other => panic!("{other:?}"),
        }
    }
}

impl Default for Library {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

fn to_network(result: TunnResult<'_>) -> Vec<u8> {
    match result {
        TunnResult::WriteToNetwork(message) => message.to_vec(),
        other => panic!("{other:?}"),
    }
}
