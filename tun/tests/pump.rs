//! Two packet loops with real engines: handshakes, packets, pressure, and every way to end.
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it in their helpers")]

mod common;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use adit_core::{Command, CommandError, DropReason, Event};
use adit_tun::batch::DatagramBatch;
use adit_tun::device::Device;
use adit_tun::device::memory::{MemoryDevice, MemoryHost, RingError};
use adit_tun::handle::{MtuError, SendError};
use adit_tun::queue::SendQueue;
use adit_tun::socket::memory::{MemoryNetwork, MemorySocket};
use adit_tun::socket::{BindError, SendProgress, Socket, SocketStats, UdpOptions, UdpSockets};
use adit_tun::{ExitReason, Pump, PumpCommand, Waker};
use common::{MTU, RING, Side, device, key, memory_pair, packet, receive, send};

/// Sends packets of many sizes in both directions at once and expects them in order.
fn exchange(a: &MemoryHost, b: &MemoryHost, count: u32) {
    let size = |number: u32| 24 + (number as usize * 97) % (MTU - 23);
    let (mut received, mut answered) = (0, 0);
    for number in 0..count {
        send(a, &packet(1, 2, number, size(number)));
        send(b, &packet(2, 1, number, size(number + 7)));
        // Both hosts keep reading, so that nobody has to wait for the other.
        if number % 8 == 7 {
            for _ in 0..8 {
                assert_eq!(receive(b), packet(1, 2, received, size(received)));
                assert_eq!(receive(a), packet(2, 1, answered, size(answered + 7)));
                received += 1;
                answered += 1;
            }
        }
    }
}

#[test]
fn a_tunnel_over_memory_carries_packets_both_ways() {
    let [(a, host_a), (b, host_b)] = memory_pair(256);
    exchange(&host_a, &host_b, 800);
    a.expect_event(|event| matches!(event, Event::HandshakeCompleted { peer, .. } if *peer == key(2).public_key()));
    b.expect_event(|event| matches!(event, Event::HandshakeCompleted { peer, .. } if *peer == key(1).public_key()));
    let snapshot = a.handle.snapshot().unwrap();
    assert_eq!(snapshot.engine.engine.drops.total(), 0, "{:?}", snapshot.engine.engine.drops);
    assert!(snapshot.engine.peers[0].traffic.packets_out >= 800 && snapshot.engine.peers[0].traffic.packets_in >= 800);
    assert!(snapshot.pump.packet_batches > 0 && snapshot.pump.datagram_batches > 0);
    assert_eq!(snapshot.port, 51_820);
    let exit = a.exit();
    assert_eq!(exit.device.name(), "mem1");
    assert!(exit.engine.has_session(), "an engine can go on in another pump");
    b.exit();
}

fn udp_pair(ip: IpAddr) -> [(Side<MemoryDevice, UdpSockets>, MemoryHost); 2] {
    let sides = [1, 2].map(|number| {
        let (device, host) = device(number);
        let socket = UdpSockets::bind(UdpOptions::default()).unwrap();
        let endpoint = SocketAddr::new(ip, socket.local_port());
        (Side::start(number, device, socket), host, endpoint)
    });
    let [(a, host_a, _), (b, host_b, endpoint)] = sides;
    a.add_peer(2, Some(endpoint));
    // The answering side learns where its peer is.
    b.add_peer(1, None);
    a.handle.command(Command::Connect).unwrap().unwrap();
    b.expect_event(|event| matches!(event, Event::HandshakeCompleted { .. } | Event::Roamed { .. }));
    a.expect_event(|event| matches!(event, Event::HandshakeCompleted { .. }));
    [(a, host_a), (b, host_b)]
}

#[test]
fn a_tunnel_over_udp_carries_packets_both_ways() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let [(a, host_a), (b, host_b)] = udp_pair(ip);
        // What comes first tells the answering side that the session is confirmed, and where its peer is.
        send(&host_a, &packet(1, 2, 0, 100));
        assert_eq!(receive(&host_b), packet(1, 2, 0, 100));
        exchange(&host_a, &host_b, 800);
        let snapshot = b.handle.snapshot().unwrap();
        assert_eq!(snapshot.engine.peers[0].endpoint.map(|endpoint| endpoint.ip()), Some(ip));
        assert_eq!(snapshot.socket.sockets_created, 2);
        a.exit();
        b.exit();
    }
}

#[test]
fn equal_packets_leave_in_fewer_calls_than_packets() {
    let [(a, host_a), (b, host_b)] = udp_pair(Ipv4Addr::LOCALHOST.into());
    let before = a.handle.snapshot().unwrap();
    for round in 0..200_u32 {
        for number in 0..32 {
            send(&host_a, &packet(1, 2, round * 32 + number, MTU));
        }
        for number in 0..32 {
            assert_eq!(receive(&host_b), packet(1, 2, round * 32 + number, MTU));
        }
    }
    let after = a.handle.snapshot().unwrap();
    let calls = after.socket.sends - before.socket.sends;
    assert!(calls < 200 * 32 / 2, "{calls} calls for {} packets", 200 * 32);
    a.exit();
    b.exit();
}

/// Sends packets, numbered from 1, until the tunnel has taken none for a while, and returns how many it took.
fn fill(host: &MemoryHost, len: usize) -> u32 {
    for sent in 0..10_000 {
        let packet = packet(1, 2, sent + 1, len);
        while let Err(error) = host.send(&packet) {
            assert_eq!(error, RingError::Full);
            if !host.wait(Duration::from_millis(200)) {
                return sent;
            }
        }
    }
    panic!("nothing holds the host back");
}

#[test]
fn a_full_socket_stops_the_host_and_loses_nothing() {
    let [(a, host_a), (b, host_b)] = memory_pair(16);
    send(&host_a, &packet(1, 2, 0, 100));
    assert_eq!(receive(&host_b), packet(1, 2, 0, 100));

    // The other side stops reading, but its socket stays bound.
    let exit = b.exit();
    let sent = fill(&host_a, 900);
    let blocked = a.handle.snapshot().unwrap();
    assert!(sent as usize > 16 + RING, "both queues are full");
    assert_eq!(blocked.engine.engine.drops.total(), 0, "{:?}", blocked.engine.engine.drops);
    assert!(blocked.pump.socket_blocked > 0);

    let (device, host_b) = device(2);
    let b = Side::with_engine(2, exit.engine, device, exit.socket);
    for number in 1..=sent {
        assert_eq!(receive(&host_b), packet(1, 2, number, 900));
    }
    a.exit();
    b.exit();
}

#[test]
fn a_slow_host_stops_the_peer_and_loses_nothing() {
    let [(a, host_a), (b, host_b)] = memory_pair(16);
    send(&host_a, &packet(1, 2, 0, 100));
    assert_eq!(receive(&host_b), packet(1, 2, 0, 100));
    let sent = fill(&host_a, 1000);
    for number in 1..=sent {
        assert_eq!(receive(&host_b), packet(1, 2, number, 1000));
    }
    let stats = b.exit().stats;
    assert!(stats.device_blocked > 0);
    assert_eq!(a.exit().engine.stats().drops.total(), 0);
}

#[test]
fn a_device_that_is_gone_ends_the_loop() {
    let [(a, host_a), (b, _host_b)] = memory_pair(16);
    drop(host_a);
    let exit = a.thread.join().unwrap();
    assert!(matches!(exit.reason, ExitReason::DeviceGone(_)), "{}", exit.reason);
    assert_eq!(a.handle.send(PumpCommand::Snapshot(Box::new(|_| {}))), Err(SendError::Gone));
    assert!(a.handle.snapshot().is_err());
    a.handle.stop();
    b.exit();
}

#[test]
fn a_pump_without_handles_ends() {
    let [(a, _host_a), (b, _host_b)] = memory_pair(16);
    let second = a.handle.clone();
    drop(a.handle);
    second.snapshot().unwrap();
    drop(second);
    assert!(matches!(a.thread.join().unwrap().reason, ExitReason::Stopped));
    b.exit();
}

#[test]
fn a_stop_needs_no_answer_from_anyone() {
    let [(a, host_a), (b, host_b)] = memory_pair(4);
    send(&host_a, &packet(1, 2, 0, 100));
    receive(&host_b);
    // From here on nobody empties its socket, so its device is full soon, too.
    let _bound = b.exit().socket;
    fill(&host_a, 1400);
    // More commands than its queue holds, and nobody waits for the replies.
    for _ in 0..1000 {
        let _maybe_busy = a.handle.send(PumpCommand::Snapshot(Box::new(|_| {})));
    }
    a.handle.stop();
    a.handle.stop();
    a.exit();
}

#[test]
fn an_idle_tunnel_sleeps() {
    let [(a, host_a), (b, host_b)] = memory_pair(16);
    send(&host_a, &packet(1, 2, 1, 100));
    receive(&host_b);
    // Whatever the handshake left behind is over by then.
    host_a.wait(Duration::from_millis(50));
    let before = a.handle.snapshot().unwrap().pump.wakeups;
    assert!(!host_a.wait(Duration::from_millis(300)));
    let after = a.handle.snapshot().unwrap().pump.wakeups;
    // Only the questions themselves woke it.
    assert!(after - before <= 3, "{} wake-ups", after - before);
    a.exit();
    b.exit();
}

#[test]
fn the_port_can_be_changed_and_the_peer_follows() {
    let [(a, host_a), (b, host_b)] = udp_pair(Ipv4Addr::LOCALHOST.into());
    let taken = b.handle.snapshot().unwrap().port;
    let error = a.handle.rebind(taken).unwrap().unwrap_err();
    assert!(matches!(error, BindError::PortBusy { port, .. } if port == taken));
    send(&host_a, &packet(1, 2, 1, 100));
    assert_eq!(receive(&host_b), packet(1, 2, 1, 100));

    let before = a.handle.snapshot().unwrap().port;
    assert_eq!(a.handle.rebind(before).unwrap().unwrap(), before);
    let port = a.handle.rebind(0).unwrap().unwrap();
    assert_ne!(port, before);
    b.expect_event(|event| matches!(event, Event::Roamed { to, .. } if to.port() == port));
    send(&host_b, &packet(2, 1, 2, 100));
    assert_eq!(receive(&host_a), packet(2, 1, 2, 100));
    assert_eq!(a.handle.snapshot().unwrap().pump.rebinds, 2);
    a.exit();
    b.exit();
}

#[test]
fn the_mtu_is_the_tunnels_and_the_devices() {
    let [(a, host_a), (b, host_b)] = memory_pair(16);
    let set = |mtu| a.handle.call(|reply| PumpCommand::SetMtu(mtu, reply)).unwrap();
    assert!(matches!(set(10), Err(MtuError::Tunnel(CommandError::Mtu { found: 10, .. }))));
    assert_eq!(a.handle.snapshot().unwrap().engine.mtu, MTU);
    set(9000).unwrap();
    send(&host_a, &packet(1, 2, 1, 9000));
    assert_eq!(receive(&host_b), packet(1, 2, 1, 9000));
    let exit = a.exit();
    assert_eq!((exit.device.mtu().unwrap(), exit.engine.mtu()), (9000, 9000));
    b.exit();
}

#[test]
fn events_that_nobody_takes_are_counted() {
    let network = MemoryNetwork::new(64);
    let endpoint = |number: u8| SocketAddr::from(([192, 0, 2, number], 51_820));
    let (device_a, host_a) = device(1);
    let (device_b, host_b) = device(2);
    let b = Side::start(2, device_b, network.bind(endpoint(2)).unwrap());
    let engine = Side::start(1, device_a, network.bind(endpoint(1)).unwrap()).exit();
    let refuse: Box<dyn FnMut(Event) -> bool + Send> = Box::new(|_| false);
    let (handle, thread) = Pump::spawn(engine.engine, engine.device, engine.socket, refuse).unwrap();
    let a = Side { number: 1, handle, thread, events: crossbeam_channel::never() };
    a.add_peer(2, Some(endpoint(2)));
    b.add_peer(1, Some(endpoint(1)));
    send(&host_a, &packet(1, 2, 1, 100));
    receive(&host_b);
    assert!(a.exit().stats.events_lost >= 1);
    b.exit();
}

#[test]
fn garbage_is_counted_and_harms_nobody() {
    let [(a, host_a), (b, host_b)] = udp_pair(Ipv4Addr::LOCALHOST.into());
    let port = b.handle.snapshot().unwrap().port;
    let attacker = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 1, 31, 32, 92, 148, 1500, 65_507] {
        for byte in [0, 1, 2, 3, 4, 255] {
            let mut datagram = vec![0; len];
            if let Some(first) = datagram.first_mut() {
                *first = byte;
            }
            attacker.send_to(&datagram, ("127.0.0.1", port)).unwrap();
        }
    }
    for len in [0, 1, 19, 20, 1421, 65_535] {
        send(&host_a, &vec![0x45; len]);
    }
    exchange(&host_a, &host_b, 80);
    assert!(b.exit().engine.stats().drops.total() >= 48 - 6, "the empty datagrams are counted too");
    assert!(a.exit().engine.stats().drops.total() >= 6);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_tun_device_that_is_deleted_ends_the_loop() {
    use adit_tun::device::linux::{LinuxTun, TunOptions};
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command as Process;

    let test = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let ip = |arguments: &str| {
            assert!(Process::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
        };
        let tun =
            LinuxTun::open(&TunOptions { name: "adit-p0".into(), mtu: MTU, attach: false, offload: true }).unwrap();
        let side = Side::start(1, tun, UdpSockets::bind(UdpOptions::default()).unwrap());
        ip("addr add 10.0.1.1/24 dev adit-p0");
        ip("link set adit-p0 up");
        side.handle.call(|reply| PumpCommand::SetMtu(1280, reply)).unwrap().unwrap();
        let probe = std::net::UdpSocket::bind("10.0.1.1:0").unwrap();
        probe.send_to(b"nobody is there", "10.0.1.2:9").unwrap();
        let mut drops = 0;
        for _ in 0..1000 {
            drops = side.handle.snapshot().unwrap().engine.engine.drops.total();
            if drops > 0 {
                break;
            }
        }
        assert!(drops > 0, "the packet came to the engine");
        ip("link del adit-p0");
        side.thread.join().unwrap().reason
    });
    let reason = test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(matches!(reason, ExitReason::DeviceGone(_)), "{reason}");
}

/// A socket that the system has broken, as iOS does in sleep: it works again once it was bound anew, at the second try.
struct Broken {
    inner: MemorySocket,
    broken: bool,
    rebinds: u32,
}

impl Socket for Broken {
    fn recv_batch(&mut self, batch: &mut DatagramBatch) -> io::Result<usize> {
        if self.broken { Err(io::ErrorKind::NotConnected.into()) } else { self.inner.recv_batch(batch) }
    }

    fn send_batch(&mut self, queue: &mut SendQueue) -> SendProgress {
        if !self.broken {
            return self.inner.send_batch(queue);
        }
        let mut progress = SendProgress { broken: true, ..SendProgress::default() };
        while let Some(run) = queue.front() {
            let count = run.datagrams();
            progress.dropped += count;
            queue.advance(count);
        }
        progress
    }

    fn rebind(&mut self, port: u16) -> Result<u16, BindError> {
        self.rebinds += 1;
        if self.rebinds == 1 {
            let source = io::ErrorKind::OutOfMemory.into();
            return Err(BindError::Other { action: "socket", family: "IPv4", source });
        }
        self.broken = false;
        self.inner.rebind(port)
    }

    fn set_mark(&mut self, mark: u32) -> Result<(), BindError> {
        self.inner.set_mark(mark)
    }

    fn local_port(&self) -> u16 {
        self.inner.local_port()
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.inner.fds()
    }

    fn attach(&mut self, waker: Waker) {
        self.inner.attach(waker);
    }

    fn stats(&self) -> SocketStats {
        self.inner.stats()
    }
}

#[test]
fn a_broken_socket_is_made_anew() {
    let network = MemoryNetwork::new(64);
    let endpoint = |number: u8| SocketAddr::from(([192, 0, 2, number], 51_820));
    let ((device_a, host_a), (device_b, host_b)) = (device(1), device(2));
    let b = Side::start(2, device_b, network.bind(endpoint(2)).unwrap());
    b.add_peer(1, Some(endpoint(1)));
    let socket = Broken { inner: network.bind(endpoint(1)).unwrap(), broken: true, rebinds: 0 };
    let a = Side::start(1, device_a, socket);
    a.add_peer(2, Some(endpoint(2)));

    // Its handshake goes nowhere; the other side's gets through once the socket works again.
    send(&host_a, &packet(1, 2, 1, 100));
    while a.handle.snapshot().unwrap().pump.rebinds == 0 {
        assert!(!host_a.wait(Duration::from_millis(50)));
    }
    send(&host_b, &packet(2, 1, 2, 100));
    assert_eq!(receive(&host_a), packet(2, 1, 2, 100));
    assert_eq!(receive(&host_b), packet(1, 2, 1, 100), "what waited for the session is not lost");
    let exit = a.exit();
    assert_eq!((exit.socket.rebinds, exit.stats.rebinds), (2, 1));
    assert!(exit.engine.stats().drops.get(DropReason::SendFailed) >= 1);
    assert!(exit.stats.wakeups < 200, "{} wake-ups: a broken socket must not keep the loop busy", exit.stats.wakeups);
    b.exit();
}
