//! Which packets the kernel itself joins: its generic receive offload joins what [`Chain`] joins, if they come in a row.
//!
//! A tun device with IFF_NAPI hands packets to GRO, and what was joined comes out of a second one that takes
//! super-packets. Only TCP: datagrams are joined on their way through a router only if somebody asks for it by ethtool.
//!
//! [`Chain`]: adit_core::offload::Chain

use std::time::{Duration, Instant};

use adit_core::offload::VirtioNetHeader;
use adit_tests::raw_tun;
use anyhow::{Result, ensure};

use crate::ours;
use crate::packet::{Ip, Packet, Transport};
use crate::router::Router;
use crate::shape::Shape;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_kernel_joins_what_we_join() -> Result<()> {
    let mut router = Router::with_flags(raw_tun::VNET_HDR | raw_tun::NAPI, raw_tun::VNET_HDR)?;
    router.b.set_offloads(raw_tun::ALL_OFFLOADS)?;
    // Packets wait this many nanoseconds for others: the test writes them one by one.
    router.namespace.exec("sh", ["-c", "echo 20000000 > /sys/class/net/a/gro_flush_timeout"])?;
    for v6 in [false, true] {
        for (name, change, elsewhere) in CASES {
            let mut packets = parsed(&Shape { v6, payload: 6000, ..Shape::default() });
            change(&mut packets);
            let packets: Vec<Vec<u8>> = packets.iter().map(Packet::bytes).collect();
            let ours: Vec<usize> = ours::join(&packets, ours::ALL).iter().map(|joined| joined.packets).collect();
            let theirs = until_the_same(&mut router, &packets, &ours)?;
            ensure!(
                theirs == ours || elsewhere.contains(&theirs.as_slice()),
                "{name}, IPv{}: the kernel joins {theirs:?}, and we {ours:?}",
                if v6 { 6 } else { 4 },
            );
        }
    }
    Ok(())
}

fn parsed(shape: &Shape) -> Vec<Packet> {
    shape.packet().split(shape.size.into()).iter().map(|bytes| Packet::parse(bytes).unwrap()).collect()
}

/// How the kernel joins `packets`. Between two ticks of its clock it gives out what waits, so it is asked again if that
/// may have been the reason for a difference.
fn until_the_same(router: &mut Router, packets: &[Vec<u8>], ours: &[usize]) -> Result<Vec<usize>> {
    let mut theirs = Vec::new();
    for _ in 0..20 {
        let again = groups(router, packets)?;
        if theirs.is_empty() || again.len() < theirs.len() {
            theirs = again;
        }
        if theirs == ours {
            break;
        }
    }
    Ok(theirs)
}

fn groups(router: &mut Router, packets: &[Vec<u8>]) -> Result<Vec<usize>> {
    for packet in packets {
        let mut message = VirtioNetHeader::default().to_bytes().to_vec();
        message.extend(packet);
        router.a.send(&message)?;
    }
    let (mut groups, mut buffer) = (Vec::new(), vec![0; 70_000]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while groups.iter().sum::<usize>() < packets.len() {
        ensure!(Instant::now() < deadline, "{groups:?} of {} packets came out", packets.len());
        let Some(message) = router.b.receive(&mut buffer, Duration::from_secs(1))? else { continue };
        let (header, packet) = message.split_first_chunk().unwrap();
        let header = VirtioNetHeader::from_bytes(*header);
        // The kernel's own are not TCP.
        let Some(Packet { transport: Transport::Tcp(_), payload, .. }) = Packet::parse(packet) else { continue };
        groups.push(match header.gso_type {
            VirtioNetHeader::GSO_NONE => 1,
            _ => payload.len().div_ceil(header.gso_size.into()),
        });
    }
    Ok(groups)
}

/// What it is, what is done to six packets of a flow, and what else a kernel may make of it.
type Case = (&'static str, fn(&mut Vec<Packet>), &'static [&'static [usize]]);

const CASES: &[Case] = &[
    ("a flow", |_| (), &[]),
    ("PSH in the middle", |packets| tcp(&mut packets[2]).psh = true, &[]),
    ("PSH at the front", |packets| tcp(&mut packets[0]).psh = true, &[]),
    ("FIN in the middle", |packets| tcp(&mut packets[2]).fin = true, &[]),
    // Before accurate ECN, a kernel joined what followed CWR.
    ("CWR at the front", |packets| tcp(&mut packets[0]).cwr = true, &[&[6]]),
    ("CWR in the middle", |packets| tcp(&mut packets[2]).cwr = true, &[&[2, 4]]),
    ("CWR everywhere", |packets| packets.iter_mut().for_each(|packet| tcp(packet).cwr = true), &[]),
    ("ECE in the middle", |packets| tcp(&mut packets[2]).ece = true, &[]),
    ("NS in the middle", |packets| tcp(&mut packets[2]).ns = true, &[]),
    ("NS at the front", |packets| tcp(&mut packets[0]).ns = true, &[]),
    ("URG in the middle", |packets| tcp(&mut packets[2]).urg = true, &[]),
    ("RST at the end", |packets| tcp(&mut packets[5]).rst = true, &[]),
    ("another window", |packets| tcp(&mut packets[2]).window_size += 1, &[]),
    ("another acknowledgment", |packets| tcp(&mut packets[2]).acknowledgment_number += 1, &[]),
    ("a gap", |packets| drop(packets.remove(2)), &[]),
    ("a packet twice", |packets| packets.insert(2, packets[2].clone()), &[]),
    ("two packets swapped", |packets| packets.swap(2, 3), &[]),
    ("a short one in the middle", |packets| packets[2].payload.truncate(999), &[]),
    ("a longer one in the middle", |packets| packets[2].payload.push(1), &[]),
    ("an empty one in the middle", |packets| packets[2].payload.clear(), &[]),
    // The kernel joins these, too, but a virtio header cannot say that the identification stays, so it splits them again
    // before they are read. We do not mind that it will count: the packets must not be fragmented (RFC 6864).
    ("a constant identification", |packets| each_id(packets, |_, id| *id = 9), &[&[1; 6]]),
    ("identifications by two", |packets| each_id(packets, |index, id| *id = 2 * index), &[]),
    ("an identification twice", |packets| each_id(packets, |index, id| *id -= u16::from(index > 2)), &[]),
    ("a constant identification without DF", without_df, &[]),
    ("another time to live", |packets| other_ttl(packets), &[]),
    ("congestion experienced", |packets| congested(packets), &[]),
    ("another flow label or DF", |packets| other_label(packets), &[]),
];

fn without_df(packets: &mut Vec<Packet>) {
    each_id(packets, |_, id| *id = 9);
    for packet in packets {
        if let Ip::V4(header) = &mut packet.ip {
            header.dont_fragment = false;
        }
    }
}

fn other_ttl(packets: &mut [Packet]) {
    match &mut packets[2].ip {
        Ip::V4(header) => header.time_to_live -= 1,
        Ip::V6(header, _) => header.hop_limit -= 1,
    }
}

fn congested(packets: &mut [Packet]) {
    match &mut packets[2].ip {
        Ip::V4(header) => header.ecn = 3.try_into().unwrap(),
        Ip::V6(header, _) => header.traffic_class = 3,
    }
}

fn other_label(packets: &mut [Packet]) {
    match &mut packets[2].ip {
        Ip::V4(header) => header.dont_fragment = false,
        Ip::V6(header, _) => header.flow_label = 1.try_into().unwrap(),
    }
}

fn tcp(packet: &mut Packet) -> &mut etherparse::TcpHeader {
    let Transport::Tcp(header) = &mut packet.transport else { panic!("a TCP packet") };
    header
}

fn each_id(packets: &mut [Packet], change: impl Fn(u16, &mut u16)) {
    for (index, packet) in packets.iter_mut().enumerate() {
        if let Ip::V4(header) = &mut packet.ip {
            change(index as u16, &mut header.identification);
        }
    }
}
