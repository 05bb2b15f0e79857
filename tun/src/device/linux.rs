//! A Linux tun device.
//!
//! The device lives as long as this object unless it was made persistent by someone else. It is created down: whoever
//! gives it addresses brings it up. Where the kernel knows them, offloads are on: a read brings up to 64 KiB of one TCP
//! flow, or of equal UDP datagrams since Linux 6.2, behind a virtio_net_hdr, and a write takes as much. It only passes
//! them on; splitting and joining are the engine's and the queue's. Elsewhere packets go one by one.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use adit_core::offload::{Offloads, Split, VirtioNetHeader};
use nix::libc;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::batch::PacketBatch;
pub use crate::device::options::{TunError, TunOptions};
use crate::device::{Device, WriteProgress};
use crate::queue::WriteQueue;
use crate::reactor::Waker;

/// A tun device, non-blocking.
pub struct LinuxTun {
    device: SyncDevice,
    name: String,
    /// Length of the header in front of every packet: of virtio_net_hdr with offloads, none without.
    header: usize,
    /// What may be written in one piece.
    offloads: Offloads,
}

impl LinuxTun {
    /// Makes a device, or takes over a persistent one.
    ///
    /// # Errors
    /// [`TunError`]; nothing is left behind.
    pub fn open(options: &TunOptions) -> Result<Self, TunError> {
        let name = &options.name;
        if !is_valid_name(name) {
            return Err(TunError::Name { name: name.clone() });
        }
        // TUNSETIFF would silently join a persistent device.
        if !options.attach && nix::net::if_::if_nametoindex(name.as_str()).is_ok() {
            return Err(TunError::Exists { name: name.clone() });
        }
        let build = |offload| DeviceBuilder::new().name(name).inherit_enable_state().offload(offload).build_sync();
        let device = match build(options.offload) {
            // The kernel does not know IFF_VNET_HDR or an offload: whatever else is wrong will be so without them, too.
            Err(_) if options.offload => build(false),
            result => result,
        };
        let device = device.map_err(|source| TunError::of_open(name, source))?;
        device.set_nonblocking(true).map_err(|source| TunError::Other { name: name.clone(), source })?;
        let offloads = Offloads { tcp: device.tcp_gso(), udp: device.udp_gso() };
        let header = if offloads.tcp { VirtioNetHeader::LEN } else { 0 };
        tracing::debug!(device = name, tcp = offloads.tcp, udp = offloads.udp, "offloads");
        let mut tun = Self { device, name: name.clone(), header, offloads };
        tun.set_mtu(options.mtu).map_err(|source| TunError::Mtu { name: name.clone(), mtu: options.mtu, source })?;
        Ok(tun)
    }

    /// The interface's index, which stays the same when it is renamed.
    ///
    /// # Errors
    /// What the system says when it is asked.
    pub fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }
}

impl LinuxTun {
    /// Writes the parts of a joined packet that was refused, one by one. If the kernel takes them so, it was the joining
    /// that it did not like, and nothing is joined any more.
    #[cold]
    fn send_apart(
        &mut self,
        packet: &mut [u8],
        offload: VirtioNetHeader,
        progress: &mut WriteProgress,
    ) -> io::Result<()> {
        let len = packet.len();
        let Ok(mut split) = Split::new(packet, len, offload) else {
            progress.dropped += 1;
            return Ok(());
        };
        let header = VirtioNetHeader::default().to_bytes();
        let mut taken = 0;
        while let Some(segment) = split.next() {
            match self.device.send_vectored(&[IoSlice::new(&header), IoSlice::new(segment.bytes())]) {
                Ok(_) => taken += 1,
                Err(error) if is_gone(&error) => return Err(error),
                Err(_) => progress.dropped += 1,
            }
        }
        progress.written += taken;
        // Said once, though there may be more that was joined before.
        if taken > 0 && self.offloads != Offloads::default() {
            progress.offload_refused = true;
            tracing::warn!(device = self.name, "the kernel refuses joined packets; they are written one by one now");
            self.offloads = Offloads::default();
        }
        Ok(())
    }
}

impl std::fmt::Debug for LinuxTun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxTun").field("name", &self.name).field("fd", &self.device.as_raw_fd()).finish()
    }
}

impl TunError {
    fn of_open(name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { source },
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Self::NoDriver { source },
            // Another process holds the tun device of that name, or made an interface of that name a moment ago.
            Some(libc::EBUSY | libc::EEXIST) => Self::Exists { name },
            // The name belongs to an interface that is no tun device (tun_set_iff).
            Some(libc::EINVAL) if nix::net::if_::if_nametoindex(name.as_str()).is_ok() => Self::Exists { name },
            _ => Self::Other { name, source },
        }
    }
}

impl Device for LinuxTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn mtu(&self) -> io::Result<usize> {
        self.device.mtu().map(usize::from)
    }

    fn set_mtu(&mut self, mtu: usize) -> io::Result<()> {
        let mtu = u16::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        self.device.set_mtu(mtu)
    }

    fn recv_batch(&mut self, batch: &mut PacketBatch) -> io::Result<usize> {
        let before = batch.len();
        while let Some(slot) = batch.slot_with_header(self.header) {
            match self.device.recv(slot) {
                Ok(len) => {
                    let offload = match slot.first_chunk() {
                        Some(header) if self.header > 0 => VirtioNetHeader::from_bytes(*header),
                        _ => VirtioNetHeader::default(),
                    };
                    batch.commit_offload(len.saturating_sub(self.header), offload);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_passing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(batch.len() - before)
    }

    fn send_batch(&mut self, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        let mut progress = WriteProgress::default();
        loop {
            let offload = queue.front_offload();
            let Some(packet) = queue.front_with_header(self.header) else { break };
            if self.header > 0 {
                packet[..self.header].copy_from_slice(&offload.to_bytes());
            }
            match self.device.send(packet) {
                Ok(_) => progress.written += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    progress.blocked = true;
                    break;
                }
                Err(error) if is_gone(&error) => return Err(error),
                Err(error) if offload.gso_type != VirtioNetHeader::GSO_NONE && may_be_of_offload(&error) => {
                    let header = self.header;
                    self.send_apart(&mut packet[header..], offload, &mut progress)?;
                }
                // EIO says that the interface is down (tun_get_user in drivers/net/tun.c), EINVAL that the packet is
                // none, ENOMEM and ENOBUFS that memory is short: the packet is lost, the device is not.
                Err(_) => progress.dropped += 1,
            }
            queue.advance();
        }
        Ok(progress)
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn attach(&mut self, _waker: Waker) {}
}

/// Whether the descriptor is of no use any more: EBADFD is what a tun descriptor returns once its interface was deleted.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EBADFD | libc::ENODEV | libc::ENXIO | libc::EFAULT))
}

/// Whether a write may have been refused because of its offload, rather than because of the packet or the moment.
fn may_be_of_offload(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP))
}

/// Whether reading may work again without anything being done about it.
fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

/// What dev_valid_name in net/core/dev.c takes, and no `%`, with which the kernel numbers names by itself.
fn is_valid_name(name: &str) -> bool {
    let fine = |byte: u8| !byte.is_ascii_whitespace() && byte != 0x0b && !matches!(byte, b'/' | b':' | b'%' | 0);
    (1..libc::IFNAMSIZ).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use adit_core::Reservation;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes() {
        for good in ["a", "adit0", "fifteen-bytes-x", "wg.1", "...", "ä"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a:1", "tun%d", "a\n", "a\0"] {
            assert!(!is_valid_name(bad), "{bad}");
            let options = TunOptions { name: bad.into(), mtu: 1420, attach: false, offload: true };
            assert!(matches!(LinuxTun::open(&options), Err(TunError::Name { name }) if name == bad));
        }
    }

    #[test]
    fn an_interface_that_exists_is_an_error_before_anything_is_opened() {
        let options = TunOptions { name: "lo".into(), mtu: 1420, attach: false, offload: true };
        let error = LinuxTun::open(&options).unwrap_err();
        assert_eq!(error.to_string(), "there is an interface `lo` already");
    }

    #[test]
    fn errors_say_what_to_do() {
        let of = |errno| TunError::of_open("adit-none", io::Error::from_raw_os_error(errno)).to_string();
        assert!(of(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(of(libc::ENOENT).contains("modprobe tun"));
        assert!(of(libc::EBUSY).contains("there is an interface `adit-none` already"));
        assert!(of(libc::EIO).contains("could not be made"));
    }

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

    fn tun(name: &str) -> LinuxTun {
        LinuxTun::open(&TunOptions { name: name.into(), mtu: 1420, attach: false, offload: true }).unwrap()
    }

    /// Reads until `wanted` packets for 10.9.0.2 are there; the kernel sends router solicitations of its own.
    fn read(tun: &mut LinuxTun, wanted: usize) -> Vec<Vec<u8>> {
        let (mut packets, mut batch) = (Vec::new(), PacketBatch::new());
        let end = Instant::now() + Duration::from_secs(5);
        while packets.len() < wanted && Instant::now() < end {
            batch.clear();
            for index in 0..tun.recv_batch(&mut batch).unwrap() {
                let packet = batch.packet(index).unwrap();
                let mut split = Split::new(packet.buffer, packet.len, packet.offload).unwrap();
                while let Some(packet) = split.next() {
                    let packet = packet.bytes();
                    if packet[0] >> 4 == 4 && packet[16..20] == [10, 9, 0, 2] {
                        packets.push(packet.to_vec());
                    }
                }
            }
        }
        packets
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn packets_cross_the_device() {
        in_namespace(|| {
            let mut tun = tun("adit-t0");
            assert_eq!((tun.name(), tun.mtu().unwrap()), ("adit-t0", 1420));
            assert!(tun.index().unwrap() > 0);
            let mut queue = WriteQueue::new();
            let answer = |queue: &mut WriteQueue, packet: &[u8]| {
                let mut room = Reservation::new(queue, (), packet.len()).unwrap();
                room.bytes().copy_from_slice(packet);
                room.commit(packet.len());
            };
            answer(&mut queue, &[0x45; 20]);
            let down = WriteProgress { dropped: 1, ..WriteProgress::default() };
            assert_eq!(tun.send_batch(&mut queue).unwrap(), down, "an interface that is down is not gone");

            ip("addr add 10.9.0.1/24 dev adit-t0");
            ip("link set adit-t0 up");
            let socket = UdpSocket::bind("10.9.0.1:700").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            for payload in [&b"first"[..], &[7; 1392]] {
                socket.send_to(payload, "10.9.0.2:800").unwrap();
            }
            let packets = read(&mut tun, 2);
            assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [33, 1420]);

            for packet in &packets {
                // Swapping addresses and ports leaves both checksums as they are.
                let mut reply = packet.clone();
                for (a, b) in [(12, 16), (13, 17), (14, 18), (15, 19), (20, 22), (21, 23)] {
                    reply.swap(a, b);
                }
                answer(&mut queue, &reply);
            }
            answer(&mut queue, &[]);
            let progress = tun.send_batch(&mut queue).unwrap();
            assert_eq!(progress, WriteProgress { written: 2, dropped: 1, ..WriteProgress::default() });
            let mut buffer = [0; 2000];
            assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
            assert_eq!(socket.recv(&mut buffer).unwrap(), 1392);

            tun.set_mtu(1280).unwrap();
            assert_eq!(tun.mtu().unwrap(), 1280);
            assert!(tun.set_mtu(65_536).is_err() && tun.set_mtu(10).is_err());
        });
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn a_deleted_device_is_gone() {
        in_namespace(|| {
            let mut tun = tun("adit-t1");
            ip("link del adit-t1");
            let error = tun.recv_batch(&mut PacketBatch::new()).unwrap_err();
            assert!(is_gone(&error), "{error:?}");
            let mut queue = WriteQueue::new();
            Reservation::new(&mut queue, (), 20).unwrap().commit(20);
            assert!(is_gone(&tun.send_batch(&mut queue).unwrap_err()));
        });
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn a_name_in_use_is_an_error_and_a_persistent_device_can_be_taken_over() {
        in_namespace(|| {
            let first = tun("adit-t2");
            let again = TunOptions { name: "adit-t2".into(), mtu: 1420, attach: false, offload: true };
            assert!(matches!(LinuxTun::open(&again), Err(TunError::Exists { .. })));
            let attach = TunOptions { attach: true, ..again };
            assert!(matches!(LinuxTun::open(&attach), Err(TunError::Exists { .. })), "another descriptor holds it");
            drop(first);
            assert!(nix::net::if_::if_nametoindex("adit-t2").is_err(), "it went with its descriptor");

            ip("tuntap add dev adit-t2 mode tun");
            assert_eq!(LinuxTun::open(&attach).unwrap().mtu().unwrap(), 1420);
            let lo = TunOptions { name: "lo".into(), ..attach };
            assert!(matches!(LinuxTun::open(&lo), Err(TunError::Exists { .. })));
            let huge = TunOptions { name: "adit-t3".into(), mtu: 70_000, attach: false, offload: true };
            assert!(matches!(LinuxTun::open(&huge), Err(TunError::Mtu { mtu: 70_000, .. })));
            assert!(nix::net::if_::if_nametoindex("adit-t3").is_err(), "nothing is left behind");
        });
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn without_privilege_the_error_says_which_is_missing() {
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // Only this thread: the raw call, unlike libc's, changes no other one.
            // SAFETY: the call takes three integers and touches no memory.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
            LinuxTun::open(&TunOptions { name: "adit-t4".into(), mtu: 1420, attach: false, offload: true })
        });
        let error = thread.join().unwrap().unwrap_err();
        assert!(matches!(error, TunError::Permission { .. }), "{error}");
    }
}
