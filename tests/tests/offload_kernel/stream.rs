//! Real sockets at both ends: super-packets of one kernel reach another as plain packets, and come back joined.
//!
//! One namespace has a tun device with all offloads, the other a plain one. Between them the packets go through
//! [`Split`](adit_core::offload::Split) one way and [`Chain`](adit_core::offload::Chain) the other, without a cipher.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_core::TunPacket;
use adit_core::offload::{Split, VirtioNetHeader};
use adit_tests::raw_tun::{self, RawTun};
use adit_tests::{Namespace, require_root};
use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::ours;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tcp_stream_survives_splitting_and_joining_over_ipv4() -> Result<()> {
    tcp_both_ways(NEAR4, FAR4)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tcp_stream_survives_splitting_and_joining_over_ipv6() -> Result<()> {
    tcp_both_ways(NEAR6, FAR6)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn datagrams_survive_splitting_and_joining_over_ipv4() -> Result<()> {
    udp_both_ways(NEAR4, FAR4)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn datagrams_survive_splitting_and_joining_over_ipv6() -> Result<()> {
    udp_both_ways(NEAR6, FAR6)
}

/// Sends a stream from the offloading end to the plain one, and one back, both at once.
fn tcp_both_ways(near: IpAddr, far: IpAddr) -> Result<()> {
    let wire = Wire::new()?;
    let listener = wire.far.enter(|| TcpListener::bind((far, 0)))??;
    let target = listener.local_addr()?;
    let client = wire.near.enter(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    ensure!(client.local_addr()?.ip() == near, "a connection from {}", client.local_addr()?);
    let (server, _) = listener.accept()?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
    }
    std::thread::scope(|scope| -> Result<()> {
        let work = [
            scope.spawn(|| send_stream(&client, 1)),
            scope.spawn(|| send_stream(&server, 2)),
            scope.spawn(|| receive_stream(&client, 2)),
            scope.spawn(|| receive_stream(&server, 1)),
        ];
        work.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    let counted = wire.finish()?;
    eprintln!("{counted:?}");
    // A stream that never came as a super-packet, or was never joined, shows nothing.
    ensure!(counted.split * 4 < counted.segments, "hardly anything was split: {counted:?}");
    ensure!(counted.joined > 0 && counted.packets > counted.joined * 2, "hardly anything was joined: {counted:?}");
    Ok(())
}

fn send_stream(mut socket: &TcpStream, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut left = STREAM;
    let mut chunk = vec![0; 256 * 1024];
    while left > 0 {
        let part = &mut chunk[..left.min(rng.usize(1..=256 * 1024))];
        rng.fill(part);
        socket.write_all(part).context("write")?;
        left -= part.len();
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(())
}

fn receive_stream(mut socket: &TcpStream, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut left = STREAM;
    let (mut expected, mut got) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
    while left > 0 {
        let len = left.min(rng.usize(1..=256 * 1024));
        rng.fill(&mut expected[..len]);
        socket.read_exact(&mut got[..len]).with_context(|| format!("{left} bytes were still to come"))?;
        ensure!(got[..len] == expected[..len], "the stream has other bytes, {left} before its end");
        left -= len;
    }
    ensure!(socket.read(&mut got)? == 0, "more than was sent");
    Ok(())
}

/// Sends batches of datagrams from the offloading end, which come back from the plain one.
fn udp_both_ways(near: IpAddr, far: IpAddr) -> Result<()> {
    let wire = Wire::new()?;
    let server = wire.far.enter(|| UdpSocket::bind((far, 0)))??;
    let client = wire.near.enter(|| UdpSocket::bind((near, 0)))??;
    client.connect(server.local_addr()?)?;
    server.connect(client.local_addr()?)?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let mut rng = fastrand::Rng::with_seed(3);
    let mut super_packets = 0;
    for (size, len) in
        [(1000, 20_000), (1000, 20_001), (1000, 19_999), (1, 60), (100, 6400), (1452, 60_000), (500, 500), (7, 8)]
    {
        setsockopt(&client, sockopt::UdpGsoSegment, &i32::try_from(size)?).context("UDP_SEGMENT")?;
        let batch: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
        super_packets += u64::from(len > size);
        client.send(&batch)?;
        for socket in [&server, &client] {
            let mut buffer = vec![0; 2000];
            for (index, expected) in batch.chunks(size).enumerate() {
                let len =
                    socket.recv(&mut buffer).with_context(|| format!("datagram {index} of {len} bytes in {size}"))?;
                ensure!(&buffer[..len] == expected, "datagram {index} of {len} bytes in {size} is another");
            }
            if std::ptr::eq(socket, &server) {
                batch.chunks(size).try_for_each(|datagram| server.send(datagram).map(drop))?;
            }
        }
    }
    let counted = wire.finish()?;
    eprintln!("{counted:?}");
    ensure!(
        counted.types[usize::from(VirtioNetHeader::GSO_UDP_L4)] == super_packets,
        "{super_packets} super-packets: {counted:?}"
    );
    ensure!(counted.joined > 0, "nothing was joined: {counted:?}");
    Ok(())
}

/// Two namespaces and what carries packets between their devices.
struct Wire {
    near: Namespace,
    far: Namespace,
    carrier: JoinHandle<Result<Counted>>,
    stop: Arc<AtomicBool>,
}

/// What went over the wire.
#[derive(Debug, Default)]
struct Counted {
    /// What was read from the offloading device, and the packets it was split into.
    split: u64,
    segments: u64,
    /// By type of the virtio header.
    types: [u64; 6],
    /// What was written to it that holds more than one packet, and how many those were.
    joined: u64,
    packets: u64,
}

impl Wire {
    fn new() -> Result<Self> {
        require_root()?;
        let (near, far) = (Namespace::new("near")?, Namespace::new("far")?);
        let offloading = RawTun::open(&near, "tun", raw_tun::VNET_HDR)?;
        offloading.set_offloads(raw_tun::ALL_OFFLOADS)?;
        let plain = RawTun::open(&far, "tun", 0)?;
        for (namespace, four, six) in [(&near, NEAR4, NEAR6), (&far, FAR4, FAR6)] {
            namespace.ip("link set dev tun mtu 1500 txqueuelen 10000 addrgenmode none up")?;
            namespace.ip(&format!("addr add {four}/24 dev tun"))?;
            // Even where duplicates are not looked for, an address is tentative until a worker of the kernel has said so.
            namespace.ip(&format!("addr add {six}/64 dev tun nodad"))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let carrier = std::thread::spawn(move || carry(&offloading, &plain, &stopped));
        Ok(Self { near, far, carrier, stop })
    }

    fn finish(self) -> Result<Counted> {
        self.stop.store(true, Ordering::Relaxed);
        self.carrier.join().unwrap()
    }
}

/// Splits one way and joins the other until it is told to stop.
fn carry(offloading: &RawTun, plain: &RawTun, stop: &AtomicBool) -> Result<Counted> {
    let mut counted = Counted::default();
    let mut buffer = vec![0; VirtioNetHeader::LEN + 65_535 + TunPacket::TAILROOM];
    while !stop.load(Ordering::Relaxed) {
        RawTun::wait(&[offloading, plain], Duration::from_millis(100))?;
        for _ in 0..BATCH {
            let most = buffer.len() - TunPacket::TAILROOM;
            let Some(len) = offloading.try_receive(&mut buffer[..most])?.map(|message| message.len()) else { break };
            let (header, packet) = buffer.split_first_chunk_mut().context("a message without header")?;
            let header = VirtioNetHeader::from_bytes(*header);
            counted.types[usize::from(header.gso_type & !VirtioNetHeader::GSO_ECN)] += 1;
            let mut split = Split::new(packet, len - VirtioNetHeader::LEN, header)
                .with_context(|| format!("{header:?} of {} bytes from the kernel", len - VirtioNetHeader::LEN))?;
            ensure!(split.longest() <= 1500, "a segment of {} bytes", split.longest());
            counted.split += 1;
            counted.segments += split.segments() as u64;
            while let Some(segment) = split.next() {
                plain.send(segment.bytes())?;
            }
        }
        let mut packets = Vec::new();
        while packets.len() < BATCH
            && let Some(packet) = plain.try_receive(&mut buffer)?
        {
            packets.push(packet.to_vec());
        }
        for joined in ours::join(&packets, ours::ALL) {
            let mut message = joined.header.to_bytes().to_vec();
            message.extend(&joined.bytes);
            offloading.send(&message)?;
            if joined.packets > 1 {
                counted.joined += 1;
                counted.packets += joined.packets as u64;
            }
        }
    }
    Ok(counted)
}

const NEAR4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 97, 0, 1));
const FAR4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 97, 0, 2));
const NEAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, 1));
const FAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, 0, 2));

/// Bytes of a stream, enough for windows of hundreds of kilobytes.
const STREAM: usize = 24 << 20;

/// Packets in a row from one side, so that the other has its turn.
const BATCH: usize = 128;

const PATIENCE: Duration = Duration::from_secs(20);
