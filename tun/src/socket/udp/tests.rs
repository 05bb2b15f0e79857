use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use adit_core::{Ecn, Reservation, Transmit};
use nix::sched::{CloneFlags, unshare};

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn bind() -> UdpSockets {
    UdpSockets::bind(UdpOptions::default()).unwrap()
}

fn to(ip: IpAddr, socket: &UdpSockets) -> Transmit {
    Transmit { remote: SocketAddr::new(ip, socket.local_port()), local: None, ecn: Ecn::NotEct }
}

fn push(queue: &mut SendQueue, transmit: Transmit, bytes: &[u8]) {
    let mut room = Reservation::new(queue, transmit, bytes.len()).unwrap();
    room.bytes().copy_from_slice(bytes);
    room.commit(bytes.len());
}

type Datagram = (SocketAddr, Option<IpAddr>, Ecn, Vec<u8>);

/// Reads until `count` datagrams are there, for at most five seconds.
fn receive(socket: &mut UdpSockets, count: usize) -> Vec<Datagram> {
    let (mut datagrams, mut batch) = (Vec::new(), DatagramBatch::new());
    let end = Instant::now() + Duration::from_secs(5);
    while datagrams.len() < count && Instant::now() < end {
        batch.clear();
        socket.recv_batch(&mut batch).unwrap();
        for run in batch.runs() {
            let from = run.from;
            datagrams.extend(run.datagrams().map(|bytes| (from.remote, from.local, from.ecn, bytes.to_vec())));
        }
    }
    datagrams
}

#[test]
fn a_shortage_of_memory_is_not_the_end_of_a_socket() {
    let mut failures = 0;
    let mut after = |errno| is_the_end(&io::Error::from_raw_os_error(errno), &mut failures);
    assert!((0..100).all(|_| !after(libc::ENOBUFS) && !after(libc::ENOMEM)));
    assert!((1..RECV_FAILURES).all(|_| !after(libc::ECONNREFUSED)));
    assert!(after(libc::ECONNREFUSED), "one that stays");
    assert!(after(libc::ENOTCONN) && after(libc::EBADF));
}

#[test]
fn elsewhere_than_on_apples_systems_no_interface_can_be_chosen() {
    let index = NonZeroU32::new(1);
    let refused = |error| matches!(error, BindError::Interface { index, .. } if index.get() == 1);
    assert!(refused(UdpSockets::bind(UdpOptions { bind_interface: index, ..UdpOptions::default() }).unwrap_err()));
    let mut sockets = bind();
    assert!(refused(sockets.bind_interface(index).unwrap_err()));
    sockets.bind_interface(None).unwrap();
    let port = sockets.local_port();
    assert_eq!(sockets.rebind(port).unwrap(), port, "what was refused is not remembered");
}

#[test]
fn one_port_is_free_over_both_families() {
    let sockets = bind();
    assert_eq!(sockets.families(), (true, true));
    assert!(sockets.local_port() > 0);
    assert_eq!(sockets.fds().count(), 2);
    for endpoint in sockets.endpoints.iter().flatten() {
        assert_eq!(endpoint.port().unwrap(), sockets.local_port());
    }
}

#[test]
fn a_busy_port_is_named() {
    let first = bind();
    let error = UdpSockets::bind(UdpOptions { port: first.local_port(), ..UdpOptions::default() }).unwrap_err();
    assert!(matches!(error, BindError::PortBusy { family: "IPv4", port } if port == first.local_port()));
    assert!(error.to_string().contains(&format!("UDP port {} is in use", first.local_port())));
}

#[test]
fn a_run_goes_out_in_one_call_and_arrives_whole() {
    for ip in [V4, V6] {
        let (mut a, mut b) = (bind(), bind());
        let mut queue = SendQueue::new();
        let payloads: Vec<Vec<u8>> =
            (0..20_u8).map(|i| vec![i; if i == 19 { 700 } else { 1200 }]).chain([vec![7; 1400]]).collect();
        for payload in &payloads {
            push(&mut queue, to(ip, &b), payload);
        }
        assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 21, ..SendProgress::default() });
        assert!(queue.is_empty());
        assert_eq!(a.stats().sends, 2, "20 datagrams in one call, and one in another");
        let got = receive(&mut b, payloads.len());
        assert_eq!(got.iter().map(|datagram| &datagram.3).collect::<Vec<_>>(), payloads.iter().collect::<Vec<_>>());
        assert!(got.iter().all(|datagram| datagram.0 == SocketAddr::new(ip, a.local_port())));
        assert!(b.stats().receives < 21, "they arrive in fewer calls than datagrams");
    }
}

#[test]
fn ecn_and_addresses_are_seen() {
    for ip in [V4, V6] {
        let (mut a, mut b) = (bind(), bind());
        for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let mut queue = SendQueue::new();
            push(&mut queue, Transmit { ecn, ..to(ip, &b) }, b"x");
            a.send_batch(&mut queue);
            let got = receive(&mut b, 1);
            assert_eq!(got, [(SocketAddr::new(ip, a.local_port()), Some(ip), ecn, b"x".to_vec())]);
        }
    }
}

#[test]
fn datagrams_leave_from_the_address_that_was_asked() {
    let (mut a, mut b) = (bind(), bind());
    let other: IpAddr = Ipv4Addr::new(127, 0, 0, 9).into();
    let mut queue = SendQueue::new();
    push(&mut queue, Transmit { local: Some(other), ..to(V4, &b) }, b"from 127.0.0.9");
    a.send_batch(&mut queue);
    assert_eq!(receive(&mut b, 1)[0].0, SocketAddr::new(other, a.local_port()));

    push(&mut queue, Transmit { remote: SocketAddr::new(other, a.local_port()), ..to(V4, &a) }, b"answer");
    b.send_batch(&mut queue);
    assert_eq!(receive(&mut a, 1)[0].1, Some(other));
}

#[test]
fn an_address_that_is_gone_costs_neither_datagrams_nor_offloads() {
    let gone: [(IpAddr, IpAddr); 2] = [(V4, Ipv4Addr::new(192, 0, 2, 1).into()), (V6, "2001:db8::1".parse().unwrap())];
    for (ip, local) in gone {
        let (mut a, mut b) = (bind(), bind());
        let mut queue = SendQueue::new();
        for _ in 0..5 {
            push(&mut queue, Transmit { local: Some(local), ecn: Ecn::Ect0, ..to(ip, &b) }, &[1; 1000]);
        }
        assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 5, ..SendProgress::default() });
        let got = receive(&mut b, 5);
        assert_eq!(got.len(), 5);
        assert!(got.iter().all(|datagram| datagram.0.ip() == ip && datagram.2 == Ecn::Ect0), "{got:?}");

        let calls = a.stats().sends;
        for _ in 0..5 {
            push(&mut queue, Transmit { local: Some(local), ecn: Ecn::Ce, ..to(ip, &b) }, &[2; 1000]);
        }
        a.send_batch(&mut queue);
        assert_eq!(a.stats().sends, calls + 1, "segmentation is as it was");
        assert!(receive(&mut b, 5).iter().all(|datagram| datagram.2 == Ecn::Ce));
        assert_eq!(a.stats().send_errors.iter().count(), 0);
    }
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted_and_the_rest_goes_on() {
    let (mut a, mut b) = (bind(), bind());
    let mut queue = SendQueue::new();
    push(&mut queue, to(V4, &b), &vec![0; 65_508]);
    push(&mut queue, Transmit { remote: SocketAddr::new(V4, 0), ..to(V4, &b) }, b"no port");
    // Sending to everybody takes an option that the socket does not have.
    let everybody = Transmit { remote: (Ipv4Addr::BROADCAST, 9).into(), ..to(V4, &b) };
    push(&mut queue, everybody, b"one");
    push(&mut queue, everybody, b"two");
    push(&mut queue, to(V4, &b), b"fine");
    assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 1, dropped: 4, ..SendProgress::default() });
    assert_eq!(receive(&mut b, 1)[0].3, b"fine");
    let errors = a.stats().send_errors;
    assert_eq!((errors.get(SendErrorKind::TooBig), errors.get(SendErrorKind::Other)), (1, 1));
    assert_eq!(errors.get(SendErrorKind::Forbidden) + errors.get(SendErrorKind::Unreachable), 2);
}

#[test]
fn rebinding_changes_the_port_or_nothing() {
    let (mut a, mut b, c) = (bind(), bind(), bind());
    let first = a.local_port();
    assert!(matches!(a.rebind(c.local_port()), Err(BindError::PortBusy { .. })));
    assert_eq!((a.local_port(), a.families()), (first, (true, true)), "as it was");

    assert_eq!(a.rebind(first).unwrap(), first);
    let second = a.rebind(0).unwrap();
    assert_eq!(second, a.local_port());
    let mut queue = SendQueue::new();
    push(&mut queue, to(V6, &b), b"hello");
    a.send_batch(&mut queue);
    assert_eq!(receive(&mut b, 1)[0].0.port(), second);
    assert!(a.stats().sockets_created >= 7 && b.stats().sockets_created >= 2);
}

/// Runs `test` in a thread with a network namespace of its own, where loopback has an Ethernet's MTU.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let status = Command::new("ip").args(["link", "set", "lo", "mtu", "1500", "up"]).status().unwrap();
        assert!(status.success());
        test();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn datagrams_longer_than_the_path_are_fragmented() {
    in_namespace(|| {
        for ip in [V4, V6] {
            let (mut a, mut b) = (bind(), bind());
            let mut queue = SendQueue::new();
            for i in 0..8 {
                push(&mut queue, to(ip, &b), &[i; 4000]);
            }
            assert_eq!(a.send_batch(&mut queue), SendProgress { sent: 8, ..SendProgress::default() });
            let got = receive(&mut b, 8);
            assert_eq!(got.iter().map(|datagram| datagram.3[0]).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());

            // Those that fit still go out together.
            let calls = a.stats().sends;
            for i in 0..8 {
                push(&mut queue, to(ip, &b), &[i; 1000]);
            }
            a.send_batch(&mut queue);
            assert_eq!(a.stats().sends, calls + 1);
            assert_eq!(receive(&mut b, 8).len(), 8);
        }
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn marks_are_set_now_and_on_every_later_socket() {
    in_namespace(|| {
        let mut sockets = UdpSockets::bind(UdpOptions { mark: 0x1234, ..UdpOptions::default() }).unwrap();
        let marks = |sockets: &UdpSockets| -> Vec<u32> {
            sockets.fds().map(|fd| socket2::SockRef::from(&fd).mark().unwrap()).collect()
        };
        assert_eq!(marks(&sockets), [0x1234, 0x1234]);
        sockets.set_mark(0x99).unwrap();
        assert_eq!(marks(&sockets), [0x99, 0x99]);
        sockets.rebind(0).unwrap();
        assert_eq!(marks(&sockets), [0x99, 0x99]);
        // SAFETY: the call takes three integers and touches no memory; it changes this thread only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
        assert!(matches!(sockets.set_mark(7), Err(BindError::Mark { mark: 7, .. })));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_routes_datagrams_are_counted_as_unreachable() {
    in_namespace(|| {
        let mut a = bind();
        let mut queue = SendQueue::new();
        for remote in ["192.0.2.1:9", "[2001:db8::1]:9"] {
            let transmit = Transmit { remote: remote.parse().unwrap(), local: None, ecn: Ecn::NotEct };
            for _ in 0..3 {
                push(&mut queue, transmit, &[0; 100]);
            }
        }
        assert_eq!(a.send_batch(&mut queue), SendProgress { dropped: 6, ..SendProgress::default() });
        assert_eq!(a.stats().send_errors.get(SendErrorKind::Unreachable), 6);
    });
}
