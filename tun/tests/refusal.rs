//! A kernel that refuses joined packets though it has offered to take them: its parts are written instead, it is said
//! once, and traffic goes on.
//!
//! No kernel at hand does that by itself, so a seccomp filter on the thread of the packet loop makes this one: a write to
//! the device that is longer than a packet may be fails with EINVAL, as with one that does not know the type of offload
//! (virtio_net_hdr_to_skb in include/linux/virtio_net.h). Everything behind the system call is the real thing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it in their helpers")]

mod common;

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use adit_core::offload::Offloads;
use adit_core::{Event, OffloadSide, Reservation};
use adit_tun::device::linux::{LinuxTun, TunOptions};
use adit_tun::device::{Device as _, WriteProgress};
use adit_tun::queue::WriteQueue;
use common::{LIMIT, MTU, Side, memory_pair, packet, receive, send};
use nix::libc;
use nix::sched::{CloneFlags, unshare};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn refused_packets_are_written_in_parts_and_it_is_said_once() {
    in_namespace(|| {
        let (mut tun, socket) = tun("adit-r0", true);
        assert_eq!(tun.offloads(), Offloads { tcp: true, udp: true });
        refuse_joined(&tun);
        let mut queue = WriteQueue::new();
        queue.set_offloads(tun.offloads());
        let datagrams = datagrams(0..40);
        datagrams.iter().for_each(|datagram| queued(&mut queue, datagram));
        queue.close();
        assert_eq!(queue.len(), 4, "four joined packets");
        let progress = tun.send_batch(&mut queue).unwrap();
        let expected = WriteProgress { written: 40, offload_refused: true, ..WriteProgress::default() };
        assert_eq!(progress, expected);
        assert_eq!(tun.offloads(), Offloads::default());
        expect(&socket, 0..40);

        // What was joined before the loop knew is written in parts as well, and is no news.
        datagrams.iter().for_each(|datagram| queued(&mut queue, datagram));
        queue.close();
        assert_eq!(tun.send_batch(&mut queue).unwrap(), WriteProgress { written: 40, ..WriteProgress::default() });
        expect(&socket, 0..40);
        assert_eq!(warnings("adit-r0").len(), 1, "{:?}", warnings("adit-r0"));
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn what_is_refused_in_parts_too_is_not_the_offloads_fault() {
    in_namespace(|| {
        let (mut tun, socket) = tun("adit-r1", true);
        ip("link set adit-r1 down");
        let mut queue = WriteQueue::new();
        queue.set_offloads(tun.offloads());
        datagrams(0..20).iter().for_each(|datagram| queued(&mut queue, datagram));
        queue.close();
        assert_eq!(tun.send_batch(&mut queue).unwrap(), WriteProgress { dropped: 20, ..WriteProgress::default() });
        assert_eq!(tun.offloads(), Offloads { tcp: true, udp: true });

        ip("link set adit-r1 up");
        datagrams(0..20).iter().for_each(|datagram| queued(&mut queue, datagram));
        queue.close();
        assert_eq!(tun.send_batch(&mut queue).unwrap(), WriteProgress { written: 2, ..WriteProgress::default() });
        expect(&socket, 0..20);
        assert_eq!(warnings("adit-r1").len(), 0);
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_loop_goes_on_without_the_offload_and_tells_once() {
    in_namespace(|| {
        let (tun, socket) = tun("adit-r2", true);
        refuse_joined(&tun);
        let (b, events) = carries_through(tun, &socket);
        assert_eq!(events, 1);
        assert_eq!(warnings("adit-r2").len(), 1, "{:?}", warnings("adit-r2"));
        assert_eq!(b.offloads(), Offloads::default());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn without_offloads_nothing_is_joined() {
    in_namespace(|| {
        let (tun, socket) = tun("adit-r3", false);
        assert_eq!(tun.offloads(), Offloads::default());
        // Whatever is joined is refused, and would be told.
        refuse_joined(&tun);
        let (_, events) = carries_through(tun, &socket);
        assert_eq!((events, warnings("adit-r3").len()), (0, 0));
    });
}

/// Sends datagrams through a tunnel to `tun`, many at once and one by one, and returns how many events told of a refusal.
fn carries_through(tun: LinuxTun, socket: &UdpSocket) -> (LinuxTun, usize) {
    let [(a, host_a), (b, host_b)] = memory_pair(256);
    send(&host_a, &packet(1, 2, 0, 100));
    assert_eq!(receive(&host_b), packet(1, 2, 0, 100));
    // They wait for the side that is not there, so that it finds all of them at once.
    let exit = b.exit();
    datagrams(0..60).iter().for_each(|datagram| send(&host_a, datagram));
    while a.handle.snapshot().unwrap().engine.peers[0].traffic.packets_out < 61 {
        std::thread::yield_now();
    }
    let b = Side::with_engine(2, exit.engine, tun, exit.socket);
    expect(socket, 0..60);
    for round in 0..30 {
        let numbers = 100 + round * 40..100 + (round + 1) * 40;
        datagrams(numbers.clone()).iter().for_each(|datagram| send(&host_a, datagram));
        expect(socket, numbers);
    }
    let snapshot = b.handle.snapshot().unwrap();
    assert_eq!(snapshot.engine.engine.drops.total(), 0, "{:?}", snapshot.engine.engine.drops);
    let refused = Event::OffloadRefused { side: OffloadSide::Device };
    let events = b.events.try_iter().filter(|event| *event == refused).count();
    a.exit();
    (b.exit().device, events)
}

/// Datagrams that can be joined ten by ten: after so many another flow begins.
fn datagrams(numbers: std::ops::Range<u16>) -> Vec<Vec<u8>> {
    let datagram = |number: u16| {
        let builder = etherparse::PacketBuilder::ipv4([10, 0, 1, 1], [10, 0, 2, 1], 64).udp(1000 + number / 10, 700);
        let mut packet = Vec::new();
        builder.write(&mut packet, &[number.to_be_bytes(); 300].concat()).unwrap();
        packet
    };
    numbers.map(datagram).collect()
}

fn queued(queue: &mut WriteQueue, packet: &[u8]) {
    let mut room = Reservation::new(queue, (), packet.len()).unwrap();
    room.bytes().copy_from_slice(packet);
    room.commit(packet.len());
}

/// Each of the datagrams arrives, once and in its place.
fn expect(socket: &UdpSocket, numbers: std::ops::Range<u16>) {
    let mut buffer = [0; 2000];
    for number in numbers {
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], [number.to_be_bytes(); 300].concat(), "datagram {number}");
    }
}

/// A device with an address, and a socket behind it.
fn tun(name: &str, offload: bool) -> (LinuxTun, UdpSocket) {
    logs();
    let tun = LinuxTun::open(&TunOptions { name: name.into(), mtu: MTU, attach: false, offload }).unwrap();
    // Without an address of its own over IPv6 the kernel sends nothing by itself.
    ip(&format!("link set {name} addrgenmode none"));
    ip(&format!("addr add 10.0.2.1/16 dev {name}"));
    ip(&format!("link set {name} up"));
    let socket = UdpSocket::bind("10.0.2.1:700").unwrap();
    socket.set_read_timeout(Some(LIMIT.max(Duration::from_secs(1)))).unwrap();
    (tun, socket)
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Runs `test` in a thread with a network namespace of its own, which is gone with the thread.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Lets writes to the device fail that are longer than a packet with its header; on this thread, and on those that it
/// starts from now on (seccomp(2)).
fn refuse_joined(tun: &LinuxTun) {
    let fd = u32::try_from(tun.fd().unwrap().as_raw_fd()).unwrap();
    let load = |offset| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let unless = |test: u32, k: u32, skip: u8| libc::sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt: 0,
        jf: skip,
        k,
    };
    let give = |k: u32| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    // The lower halves of the first and the third argument (struct seccomp_data in linux/seccomp.h, little endian).
    let (number, descriptor, length) = (0, 16, 32);
    let mut filter = [
        load(number),
        unless(libc::BPF_JEQ, libc::SYS_write as u32, 5),
        load(descriptor),
        unless(libc::BPF_JEQ, fd, 3),
        load(length),
        unless(libc::BPF_JGT, MTU as u32 + 12, 1),
        give(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        give(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take integers, and the second one a program that outlives it, of which the kernel makes a copy.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// Lines of level WARN with the name of the device.
fn warnings(device: &str) -> Vec<String> {
    let lines = LINES.lock().unwrap();
    lines.iter().filter(|line| line.contains(device)).cloned().collect()
}

/// Keeps what is logged, of all threads, from now on.
fn logs() {
    let _set_by_another_test = tracing::subscriber::set_global_default(Lines);
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let _ = write!(line, "{field}={value:?} ");
        });
        LINES.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
