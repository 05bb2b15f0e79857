//! Small IP packets to send through tunnels.

use std::net::IpAddr;

/// A UDP packet from `source` to `destination` that carries `payload`; both addresses are of one family.
pub fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let built = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            etherparse::PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
                .udp(4000, 4001)
                .write(&mut packet, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            etherparse::PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
                .udp(4000, 4001)
                .write(&mut packet, payload)
        }
        _ => panic!("{source} and {destination} are of two families"),
    };
    built.expect("a payload that fits a packet");
    packet
}

/// The payload of a packet made by [`udp`].
pub fn payload(packet: &[u8]) -> &[u8] {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    &packet[header + 8..]
}
