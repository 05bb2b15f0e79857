use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use adit_core::{Command, Engine, EngineConfig, Event, PeerUpdate, PrivateKey, Reservation, Update};
use crossbeam_channel::bounded;

use super::*;
use crate::batch::MAX_PACKET;
use crate::clock::Clock;
use crate::device::Framing;
use crate::device::memory::MemoryDevice;
use crate::reactor::Reactor;
use crate::socket::memory::{MemoryNetwork, MemorySocket};
use crate::{ExitReason, Pump, PumpHandle, PumpThread};

const LIMIT: Duration = Duration::from_secs(10);

fn write(queue: &mut WriteQueue, packet: &[u8]) {
    let mut room = Reservation::new(queue, (), packet.len()).unwrap();
    room.bytes().copy_from_slice(packet);
    room.commit(packet.len());
}

fn lens(batch: &mut PacketBatch) -> Vec<usize> {
    (0..batch.len()).map(|index| batch.packet(index).unwrap().len).collect()
}

/// An IPv4 packet between the hosts of two sides, with a number.
fn packet(from: u8, to: u8, number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; len.max(24)];
    let total = (packet.len() as u16).to_be_bytes();
    packet[..20]
        .copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, from, 1, 10, 0, to, 1]);
    packet[20..24].copy_from_slice(&number.to_be_bytes());
    packet
}

#[test]
fn packets_cross_in_both_directions_and_in_order() {
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let (mut batch, mut out, mut queue) = (PacketBatch::new(), HostBatch::new(), WriteQueue::new());
    for round in 0..50_usize {
        let packets: Vec<Vec<u8>> = (1..20).map(|i| vec![i as u8 ^ round as u8; i * 60 + round]).collect();
        assert_eq!(host.inject(packets.iter().map(Vec::as_slice)), Ok(packets.len()));
        let bytes: usize = packets.iter().map(Vec::len).sum();
        assert_eq!(host.queued(), bytes);
        batch.clear();
        assert_eq!(device.recv_batch(&mut batch).unwrap(), packets.len());
        for (index, expected) in packets.iter().enumerate() {
            let packet = batch.packet(index).unwrap();
            assert_eq!(&packet.buffer[..packet.len], expected);
        }
        batch.clear();
        assert_eq!(device.recv_batch(&mut batch).unwrap(), 0);

        for packet in &packets {
            write(&mut queue, packet);
        }
        let progress = device.send_batch(&mut queue).unwrap();
        assert_eq!(progress, WriteProgress { written: packets.len(), ..WriteProgress::default() });
        assert_eq!(host.queued(), bytes);
        assert_eq!(host.take(&mut out), packets.len());
        assert!(out.iter().eq(packets.iter().map(Vec::as_slice)));
        assert_eq!((host.take(&mut out), out.len(), host.queued()), (0, 0, 0));
    }
}

#[test]
fn a_host_that_is_too_fast_is_held_back_and_told_when_there_is_room() {
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let bell = Arc::new(Bell::new());
    host.set_bell(Arc::clone(&bell));
    assert!(host.room() && !bell.wait(Some(Duration::ZERO)));
    let many = vec![[7_u8; 1280]; TABLE.packets + 1];
    let taken = host.inject(many.iter().map(<[u8; 1280]>::as_slice)).unwrap();
    assert!(taken > 0 && taken < many.len() && !host.room());
    assert_eq!(host.inject(many[taken..].iter().map(<[u8; 1280]>::as_slice)), Ok(0));
    assert!(!bell.wait(Some(Duration::ZERO)));

    let mut batch = PacketBatch::new();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), taken);
    assert!(bell.wait(Some(Duration::ZERO)) && host.room());
    assert_eq!(host.inject(many[taken..].iter().map(<[u8; 1280]>::as_slice)), Ok(many.len() - taken));
    batch.clear();
    device.recv_batch(&mut batch).unwrap();
    assert!(!bell.wait(Some(Duration::ZERO)), "nobody waited for room");
}

#[test]
fn a_host_that_is_too_slow_holds_back_the_pump() {
    let mut reactor = Reactor::new(Clock::new()).unwrap();
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    device.attach(reactor.waker());
    let bell = Arc::new(Bell::new());
    host.set_bell(Arc::clone(&bell));
    let (mut queue, mut out) = (WriteQueue::with_capacity(4 << 20, 10_000), HostBatch::new());
    for _ in 0..2 * TABLE.host_packets {
        write(&mut queue, &[0x45; 1280]);
    }
    let progress = device.send_batch(&mut queue).unwrap();
    assert!(progress.blocked && progress.written > 0 && progress.dropped == 0);
    assert!(bell.wait(Some(Duration::ZERO)));
    let again = device.send_batch(&mut queue).unwrap();
    assert_eq!(again, WriteProgress { blocked: true, ..WriteProgress::default() });
    assert!(!bell.wait(Some(Duration::ZERO)), "the host knows already");
    assert!(!reactor.woken());
    let mut total = 0;
    loop {
        total += host.take(&mut out);
        if queue.is_empty() {
            break;
        }
        assert!(reactor.woken(), "there is room again");
        device.send_batch(&mut queue).unwrap();
    }
    assert_eq!(total, 2 * TABLE.host_packets);
    host.take(&mut out);
    assert!(!reactor.woken());

    host.inject([&[1_u8][..]].into_iter()).unwrap();
    assert!(reactor.woken());
    host.inject([&[2_u8][..]].into_iter()).unwrap();
    assert!(!reactor.woken(), "the pump knows already");
    host.inject(std::iter::empty()).unwrap();
    assert!(reactor.poll().is_ok());
}

#[test]
fn no_ring_is_lost_to_a_bell_that_comes_late() {
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let mut queue = WriteQueue::new();
    write(&mut queue, &[0x45; 20]);
    device.send_batch(&mut queue).unwrap();
    let bell = Arc::new(Bell::new());
    host.set_bell(Arc::clone(&bell));
    assert!(bell.wait(Some(Duration::ZERO)), "there is a packet");
    host.take(&mut HostBatch::new());
    drop(device);
    assert!(bell.wait(Some(Duration::ZERO)), "it is unplugged");
    let late = Arc::new(Bell::new());
    host.set_bell(Arc::clone(&late));
    assert!(late.wait(Some(Duration::ZERO)), "it still is");
}

#[test]
fn what_is_no_packet_is_taken_and_left_to_the_engine() {
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let huge = vec![0x45; MAX_PACKET + 1];
    let packets = [&[][..], &huge, &huge[..MAX_PACKET], &[1]];
    assert_eq!(host.inject(packets.into_iter()), Ok(4));
    let mut batch = PacketBatch::new();
    device.recv_batch(&mut batch).unwrap();
    assert_eq!(lens(&mut batch), [0, 0, MAX_PACKET, 1]);
}

#[test]
fn either_side_can_unplug_it() {
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let (mut queue, mut out) = (WriteQueue::new(), HostBatch::new());
    write(&mut queue, &[0x45; 30]);
    device.send_batch(&mut queue).unwrap();
    drop(device);
    assert!(host.is_unplugged());
    assert_eq!(host.inject([&[1_u8][..]].into_iter()), Err(Unplugged));
    assert_eq!((host.take(&mut out), out.iter().next().map(<[u8]>::len)), (1, Some(30)));

    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let clone = host.clone();
    drop(host);
    clone.inject([&[1_u8, 2][..]].into_iter()).unwrap();
    drop(clone);
    let mut batch = PacketBatch::new();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 1, "what was given before arrives");
    batch.clear();
    assert_eq!(device.recv_batch(&mut batch).unwrap_err().raw_os_error(), Some(Errno::ENODEV as i32));
    write(&mut queue, &[0x45; 30]);
    assert!(device.send_batch(&mut queue).is_err());
}

#[test]
fn the_mtu_is_the_hosts_and_only_remembered() {
    let (mut device, _host) = HostDevice::callbacks("host0", 1280);
    device.set_mtu(9000).unwrap();
    assert_eq!((device.name(), device.mtu().unwrap()), ("host0", 9000));
    assert!(device.fd().is_none());
}

/// A descriptor that has packets with boundaries, and the other end of it.
fn utun() -> (Descriptor, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    theirs.set_write_timeout(Some(LIMIT)).unwrap();
    (Descriptor::unchecked(ours.into(), Framing::Utun), theirs)
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let family = if packet[0] >> 4 == 4 { 2 } else { 30 };
    [&[0, 0, 0, family][..], packet].concat()
}

#[test]
fn packets_of_a_utun_carry_their_family() {
    let (descriptor, other) = utun();
    let mut device = HostDevice::descriptor("utun7", 1280, descriptor);
    assert!(device.fd().is_some());
    let (v4, v6) = ([0x45; 40], [0x60; 1280]);
    for framed in [framed(&v4), framed(&v6), [&[0, 0, 0, 2][..], &v6].concat(), vec![0, 0, 0], vec![0, 0, 0, 30]] {
        other.send(&framed).unwrap();
    }
    let mut batch = PacketBatch::new();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 5);
    assert_eq!(lens(&mut batch), [40, 1280, 0, 0, 0], "what contradicts itself is no packet");
    assert_eq!(&batch.packet(1).unwrap().buffer[..1280], v6);

    let mut queue = WriteQueue::new();
    for packet in [&v4[..], &[0x50; 20], &v6] {
        write(&mut queue, packet);
    }
    let progress = device.send_batch(&mut queue).unwrap();
    assert_eq!(progress, WriteProgress { written: 2, dropped: 1, ..WriteProgress::default() });
    let mut buffer = [0; 2000];
    for packet in [&v4[..], &v6] {
        let len = other.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], framed(packet));
    }
}

#[test]
fn a_full_descriptor_holds_back_and_loses_nothing() {
    let (descriptor, other) = utun();
    let mut device = HostDevice::descriptor("utun7", 1280, descriptor);
    let mut queue = WriteQueue::with_capacity(8 << 20, 4000);
    for number in 0..2000 {
        write(&mut queue, &packet(1, 2, number, 1280));
    }
    let (mut received, mut buffer, mut blocked) = (0, [0; 2000], false);
    while received < 2000 {
        blocked |= device.send_batch(&mut queue).unwrap().blocked;
        let len = other.recv(&mut buffer).unwrap();
        assert_eq!(buffer[4..len], packet(1, 2, received, 1280));
        received += 1;
    }
    assert!(blocked && queue.is_empty());
}

#[test]
fn a_descriptor_takes_over_from_the_calls() {
    let (mut device, host) = HostDevice::callbacks("host0", 1280);
    let bell = Arc::new(Bell::new());
    host.set_bell(Arc::clone(&bell));
    let mut queue = WriteQueue::new();
    write(&mut queue, &packet(2, 1, 1, 100));
    device.send_batch(&mut queue).unwrap();
    bell.wait(Some(Duration::ZERO));
    host.inject([&packet(1, 2, 1, 60)[..]].into_iter()).unwrap();

    let (descriptor, other) = utun();
    other.send(&framed(&packet(1, 2, 2, 70))).unwrap();
    device.attach_descriptor(descriptor).unwrap();
    assert!(bell.wait(Some(Duration::ZERO)) && host.is_unplugged());
    assert_eq!(host.inject([&[0x45_u8; 20][..]].into_iter()), Err(Unplugged));
    assert_eq!(host.take(&mut HostBatch::new()), 0, "what the host had not taken goes through the descriptor");
    let mut buffer = [0; 2000];
    let len = other.recv(&mut buffer).unwrap();
    assert_eq!(buffer[4..len], packet(2, 1, 1, 100));

    let mut batch = PacketBatch::new();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 1);
    assert_eq!(lens(&mut batch), [60], "what the host gave before comes first");
    batch.clear();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 1);
    assert_eq!(lens(&mut batch), [70]);
    batch.clear();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 0);

    drop(host);
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 0, "the host's calls are no part of it any more");
    let (another, _) = utun();
    device.attach_descriptor(another).unwrap();
    drop(other);

    let (mut memory, _host) = MemoryDevice::new("mem0", 1280, 4);
    let error = memory.attach_descriptor(utun().0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_descriptor_without_another_end_is_gone() {
    // A stream's end is what the end of a control socket looks like.
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut device = HostDevice::descriptor("utun7", 1280, Descriptor::unchecked(ours.into(), Framing::Utun));
    theirs.write_all(&framed(&[0x45; 20])).unwrap();
    let mut batch = PacketBatch::new();
    assert_eq!(device.recv_batch(&mut batch).unwrap(), 1);
    theirs.set_nonblocking(true).unwrap();
    assert!(theirs.read(&mut [0; 9]).is_err());
    drop(theirs);
    assert!(device.recv_batch(&mut batch).is_err());
    let mut queue = WriteQueue::new();
    write(&mut queue, &[0x45; 20]);
    assert!(device.send_batch(&mut queue).is_err());
}

/// One end of a tunnel over memory, with a device of the host's.
struct Side {
    handle: PumpHandle,
    thread: PumpThread<HostDevice, MemorySocket>,
}

/// Two ends that know each other, and what is in front of them.
fn pair(devices: [HostDevice; 2]) -> [Side; 2] {
    let network = MemoryNetwork::new(256);
    let endpoint = |number: u8| SocketAddr::from(([192, 0, 2, number], 51_820));
    let key = |number: u8| PrivateKey::from_bytes([number; 32]);
    let mut devices = devices.into_iter();
    [1, 2].map(|number| {
        let engine = Engine::new(EngineConfig { seed: u64::from(number), ..EngineConfig::default() }).unwrap();
        let (events, _) = bounded::<Event>(1);
        let socket = network.bind(endpoint(number)).unwrap();
        let (handle, thread) = Pump::spawn(engine, devices.next().unwrap(), socket, events).unwrap();
        let other = 3 - number;
        let net = format!("10.0.{other}.0/24").parse().unwrap();
        let peer = PeerUpdate::new(key(other).public_key()).allow([net]).endpoint(endpoint(other));
        let update = Update { private_key: Some(Some(key(number))), peers: vec![peer], ..Update::default() };
        handle.command(Command::Update(Box::new(update))).unwrap().unwrap();
        Side { handle, thread }
    })
}

/// Gives all packets, waiting for room.
fn inject(host: &HostPackets, bell: &Bell, mut packets: &[Vec<u8>]) -> Result<(), Unplugged> {
    let end = Instant::now() + LIMIT;
    while !packets.is_empty() {
        let taken = host.inject(packets.iter().map(Vec::as_slice))?;
        packets = &packets[taken..];
        if !packets.is_empty() {
            assert!(Instant::now() < end, "the tunnel took nothing for {LIMIT:?}");
            bell.wait(Some(LIMIT));
        }
    }
    Ok(())
}

/// Expects packets from the other side numbered from `first` on.
fn expect(host: &HostPackets, bell: &Bell, from: u8, to: u8, first: u32, count: u32) {
    let (mut out, mut next) = (HostBatch::new(), first);
    while next < first + count {
        if host.take(&mut out) == 0 {
            assert!(bell.wait(Some(LIMIT)), "packet {next} did not come");
        }
        for found in out.iter() {
            assert!(found == packet(from, to, next, found.len()), "packet {next} is another one");
            next += 1;
        }
    }
}

#[test]
fn a_tunnel_between_two_hosts_loses_nothing_at_any_speed() {
    let ((device_a, host_a), (device_b, host_b)) = (HostDevice::callbacks("a", 1420), HostDevice::callbacks("b", 1420));
    let [a, b] = pair([device_a, device_b]);
    let bells = [Arc::new(Bell::new()), Arc::new(Bell::new())];
    host_a.set_bell(Arc::clone(&bells[0]));
    host_b.set_bell(Arc::clone(&bells[1]));
    let packets: Vec<_> = (0..20_000).map(|n| packet(1, 2, n, 24 + (n as usize * 97) % 1300)).collect();
    // What comes during the handshake is kept, but not without bound.
    inject(&host_a, &bells[0], &packets[..1]).unwrap();
    expect(&host_b, &bells[1], 1, 2, 0, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| expect(&host_b, &bells[1], 1, 2, 1, 19_999));
        for chunk in packets[1..].chunks(100) {
            inject(&host_a, &bells[0], chunk).unwrap();
        }
    });
    let counters = b.handle.counters().unwrap();
    let snapshot = b.handle.snapshot().unwrap();
    assert_eq!(counters.engine.stats.traffic.packets_in, 20_000);
    assert_eq!(counters.engine.stats.drops.total(), 0);
    assert_eq!(counters.engine.last_handshake, snapshot.engine.peers[0].last_handshake);
    assert!(counters.engine.last_handshake.is_some_and(|at| at <= counters.at));
    assert_eq!((counters.port, counters.socket.sockets_created), (51_820, snapshot.socket.sockets_created));
    let round_trips = [&a, &b].map(|side| side.handle.counters().unwrap().engine.handshake_round_trip);
    assert!(round_trips[0].is_some() && round_trips[1].is_none(), "the round trip is known to who began");
    drop((host_a, host_b));
    for side in [a, b] {
        assert!(matches!(side.thread.join().unwrap().reason, ExitReason::DeviceGone(_)));
    }
}

#[test]
fn a_descriptor_takes_over_while_packets_flow() {
    let ((device_a, host_a), (device_b, host_b)) = (HostDevice::callbacks("a", 1420), HostDevice::callbacks("b", 1420));
    let [a, b] = pair([device_a, device_b]);
    let bells = [Arc::new(Bell::new()), Arc::new(Bell::new())];
    host_a.set_bell(Arc::clone(&bells[0]));
    host_b.set_bell(Arc::clone(&bells[1]));
    let (descriptor, other) = utun();
    let packets = |numbers: std::ops::Range<u32>| -> Vec<_> { numbers.map(|n| packet(1, 2, n, 500)).collect() };
    inject(&host_a, &bells[0], &packets(0..1)).unwrap();
    expect(&host_b, &bells[1], 1, 2, 0, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| expect(&host_b, &bells[1], 1, 2, 1, 999));
        inject(&host_a, &bells[0], &packets(1..1000)).unwrap();
    });
    // Not waited for: the packets go on while it happens, until nobody takes them off the other end.
    let reply = Box::new(|result: io::Result<()>| result.unwrap());
    a.handle.send(crate::PumpCommand::Attach(descriptor, reply)).unwrap();
    let mut number = 1000;
    while let Ok(taken) = host_a.inject(packets(number..number + 10).iter().map(Vec::as_slice)) {
        number += taken as u32;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| expect(&host_b, &bells[1], 1, 2, 1000, number + 500 - 1000));
        for packet in packets(number..number + 500) {
            other.send(&framed(&packet)).unwrap();
        }
    });
    let back: Vec<_> = (0..500).map(|n| packet(2, 1, n, 700)).collect();
    let mut buffer = [0; 2000];
    std::thread::scope(|scope| {
        scope.spawn(|| inject(&host_b, &bells[1], &back).unwrap());
        for packet in &back {
            let len = other.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], framed(packet));
        }
    });
    a.handle.stop();
    b.handle.stop();
    assert!(matches!(a.thread.join().unwrap().reason, ExitReason::Stopped));
    b.thread.join().unwrap();
}

#[test]
fn a_descriptor_that_is_another_file_all_of_a_sudden_ends_the_loop() {
    let (descriptor, _other) = utun();
    let number = descriptor.as_fd().as_raw_fd();
    let (device_b, _host_b) = HostDevice::callbacks("b", 1420);
    let [a, b] = pair([HostDevice::descriptor("utun7", 1420, descriptor), device_b]);
    // Other tests would get the number at once if it were only closed. The loop sleeps now, as likely as not; the next
    // thing that wakes it is a question.
    let null = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: the call takes two integers and touches no memory; that the number is the pump's is the test.
    assert!(unsafe { nix::libc::dup2(null.as_raw_fd(), number) } >= 0);
    let _woken = a.handle.counters();
    let exit = a.thread.join().unwrap();
    assert!(matches!(exit.reason, ExitReason::DeviceGone(_)), "{}", exit.reason);
    assert!(exit.stats.wakeups < 50, "{} wake-ups", exit.stats.wakeups);
    b.handle.stop();
    b.thread.join().unwrap();
}
