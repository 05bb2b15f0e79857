//! Descriptors of real tun devices that somebody else has opened.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it in their helpers")]

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adit_core::Reservation;
use adit_tun::batch::PacketBatch;
use adit_tun::device::linux::{LinuxTun, TunOptions};
use adit_tun::device::{Descriptor, DescriptorError, Device, Framing, HostDevice, Ownership, WriteProgress};
use adit_tun::queue::WriteQueue;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use tun_rs::{DeviceBuilder, Layer};

/// Runs `test` in a thread with a network namespace of its own, which is gone with the thread.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The host's own device, whose descriptor blocks, as most hosts' do.
fn host(name: &str) -> LinuxTun {
    let tun = LinuxTun::open(&TunOptions { name: name.into(), mtu: 1420, attach: false, offload: false }).unwrap();
    fcntl(tun.fd().unwrap(), FcntlArg::F_SETFL(OFlag::O_RDWR)).unwrap();
    tun
}

fn blocks(fd: BorrowedFd<'_>) -> bool {
    !OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

fn is_open(fd: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|path| path.ends_with("tun"))
}

/// Sends a datagram through the device, sends it back, and expects it.
fn echo(device: &mut HostDevice, address: &str, other: [u8; 4]) {
    let socket = UdpSocket::bind((address, 700)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(b"hello", (std::net::Ipv4Addr::from(other), 800)).unwrap();
    let (mut batch, end) = (PacketBatch::new(), Instant::now() + Duration::from_secs(5));
    let mut packet = loop {
        batch.clear();
        device.recv_batch(&mut batch).unwrap();
        // The kernel sends router solicitations of its own.
        let mut packets = (0..batch.len()).map(|index| {
            let packet = batch.packet(index).unwrap();
            packet.buffer[..packet.len].to_vec()
        });
        if let Some(packet) = packets.find(|packet| packet[0] >> 4 == 4 && packet[16..20] == other) {
            break packet;
        }
        assert!(Instant::now() < end, "nothing came");
    };
    assert_eq!(packet.len(), 33);
    // Swapping addresses and ports leaves both checksums as they are.
    for (a, b) in [(12, 16), (13, 17), (14, 18), (15, 19), (20, 22), (21, 23)] {
        packet.swap(a, b);
    }
    let mut queue = WriteQueue::new();
    let mut room = Reservation::new(&mut queue, (), packet.len()).unwrap();
    room.bytes().copy_from_slice(&packet);
    room.commit(packet.len());
    assert_eq!(device.send_batch(&mut queue).unwrap(), WriteProgress { written: 1, ..WriteProgress::default() });
    let mut buffer = [0; 100];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer[..5], b"hello");
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_borrowed_descriptor_stays_the_hosts() {
    in_namespace(|| {
        let tun = host("adit-f0");
        ip("addr add 10.9.1.1/24 dev adit-f0");
        ip("link set adit-f0 up");
        let number = tun.fd().unwrap().as_raw_fd();
        let descriptor = Descriptor::open(number, Ownership::Borrowed, Framing::Raw).unwrap();
        assert_eq!(descriptor.name(), "adit-f0");
        assert!(descriptor.as_fd().as_raw_fd() != number && !blocks(tun.fd().unwrap()));
        let mut device = HostDevice::descriptor("tunnel", 1420, descriptor);
        echo(&mut device, "10.9.1.1", [10, 9, 1, 2]);
        assert_eq!((device.name(), device.mtu().unwrap()), ("tunnel", 1420));
        device.set_mtu(1280).unwrap();
        assert_eq!((device.mtu().unwrap(), tun.mtu().unwrap()), (1280, 1420), "the interface is the host's");
        drop(device);
        assert!(is_open(number) && blocks(tun.fd().unwrap()), "as it was before");

        // The host may close its own while we go on.
        let mut device = HostDevice::descriptor(
            "tunnel",
            1420,
            Descriptor::open(number, Ownership::Borrowed, Framing::Raw).unwrap(),
        );
        drop(tun);
        echo(&mut device, "10.9.1.1", [10, 9, 1, 3]);
        ip("link del adit-f0");
        assert!(device.recv_batch(&mut PacketBatch::new()).is_err());
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_owned_descriptor_is_closed_on_success_only() {
    in_namespace(|| {
        let tun = host("adit-f1");
        // It is down, which is no reason to refuse it.
        let given = tun.fd().unwrap().try_clone_to_owned().unwrap().into_raw_fd();
        drop(tun);
        let error = Descriptor::open(given, Ownership::Owned, Framing::Utun).unwrap_err();
        assert!(matches!(error, DescriptorError::Framing { .. }) && error.to_string().contains("Linux"), "{error}");
        assert!(is_open(given) && nix::net::if_::if_nametoindex("adit-f1").is_ok(), "it is still the caller's");

        let descriptor = Descriptor::open(given, Ownership::Owned, Framing::Raw).unwrap();
        assert!(nix::net::if_::if_nametoindex("adit-f1").is_ok());
        drop(descriptor);
        // A process that another test is about to start may hold all descriptors for a moment.
        let end = Instant::now() + Duration::from_secs(5);
        while nix::net::if_::if_nametoindex("adit-f1").is_ok() {
            assert!(Instant::now() < end, "it does not go with the last descriptor");
            thread::yield_now();
        }
    });
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn other_headers_are_refused() {
    in_namespace(|| {
        let refused = |fd: RawFd| Descriptor::open(fd, Ownership::Borrowed, Framing::Raw).unwrap_err();
        let offloading = TunOptions { name: "adit-f2".into(), mtu: 1420, attach: false, offload: true };
        let tun = LinuxTun::open(&offloading).unwrap();
        let error = refused(tun.fd().unwrap().as_raw_fd());
        assert!(matches!(error, DescriptorError::Framing { .. }) && error.to_string().contains("VNET_HDR"), "{error}");

        let tap = DeviceBuilder::new().name("adit-f3").layer(Layer::L2).build_sync().unwrap();
        let error = refused(tap.as_raw_fd());
        assert!(matches!(error, DescriptorError::Framing { .. }) && error.to_string().contains("IFF_TAP"), "{error}");

        let with_information = DeviceBuilder::new().name("adit-f4").packet_information(true).build_sync().unwrap();
        for link in ["down", "up"] {
            ip(&format!("link set adit-f4 {link}"));
            let error = refused(with_information.as_raw_fd());
            assert!(matches!(error, DescriptorError::Framing { .. }) && error.to_string().contains("NO_PI"), "{error}");
        }

        // Opened, and no interface was asked for yet; and one whose interface is gone.
        let bare = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        assert!(matches!(refused(bare.as_raw_fd()), DescriptorError::NotATun { .. }));
        let gone = host("adit-f5");
        ip("link del adit-f5");
        assert!(matches!(refused(gone.fd().unwrap().as_raw_fd()), DescriptorError::NotATun { .. }));
    });
}
