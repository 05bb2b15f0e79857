//! Packets with valid headers and room for padding behind them.

use adit_core::TunPacket;

/// A UDP packet of `len` bytes from 10.0.0.1 to 10.0.0.2.
pub fn udp_v4(len: usize) -> Vec<u8> {
    let mut packet = vec![0u8; len + TunPacket::TAILROOM];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet
}

/// A UDP packet of `len` bytes between two addresses of the documentation's prefix.
pub fn udp_v6(len: usize) -> Vec<u8> {
    let mut packet = vec![0u8; len + TunPacket::TAILROOM];
    packet[0] = 0x60;
    packet[4..8].copy_from_slice(&[0, 0, 17, 64]);
    packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    for (at, host) in [(8, 1), (24, 2)] {
        packet[at..at + 4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        packet[at + 15] = host;
    }
    packet
}

/// A packet for a place that no peer of [`crate::engines::pair`] has.
pub fn stray() -> Vec<u8> {
    let mut packet = udp_v4(64);
    packet[16..20].copy_from_slice(&[203, 0, 113, 1]);
    packet
}
