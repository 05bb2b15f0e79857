//! A host that closes the packet loop's own descriptor by mistake. Alone in its program, where nobody else opens a file
//! under the same number.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot see it in their helpers")]

mod common;

use std::os::fd::AsRawFd;

use adit_tun::device::linux::{LinuxTun, TunOptions};
use adit_tun::device::{Descriptor, Device, Framing, HostDevice, Ownership};
use adit_tun::socket::{UdpOptions, UdpSockets};
use adit_tun::{ExitReason, PumpHandle};
use common::{MTU, Side};
use nix::libc;
use nix::sched::{CloneFlags, unshare};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_closed_descriptor_ends_the_loop_and_keeps_nobody_busy() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let tun = TunOptions { name: "adit-c0".into(), mtu: MTU, attach: false, offload: false };
    let tun = LinuxTun::open(&tun).unwrap();
    let open = || Descriptor::open(tun.fd().unwrap().as_raw_fd(), Ownership::Borrowed, Framing::Raw).unwrap();
    let (device, host) = HostDevice::callbacks("host", MTU);
    let side = Side::start(1, device, UdpSockets::bind(UdpOptions::default()).unwrap());
    // The number comes back with the first descriptor, so that the second one's is known.
    let first = open();
    let number = std::os::fd::AsFd::as_fd(&first).as_raw_fd();
    drop(first);
    side.handle.attach(open()).unwrap().unwrap();
    assert!(host.is_unplugged());
    let busy = |handle: &PumpHandle| handle.counters().map(|counters| counters.pump.wakeups);
    busy(&side.handle).unwrap();
    // SAFETY: that the number is the packet loop's is the test.
    assert_eq!(unsafe { libc::close(number) }, 0);
    // poll(2) says at once that there is no such descriptor, when the loop comes to it.
    let _gone_already = busy(&side.handle);
    let exit = side.thread.join().unwrap();
    assert!(matches!(&exit.reason, ExitReason::DeviceGone(error) if error.raw_os_error() == Some(libc::EBADF)));
    assert!(exit.stats.wakeups < 20, "{} wake-ups", exit.stats.wakeups);
}
