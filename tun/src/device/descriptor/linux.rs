//! What Linux says about a tun descriptor.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::write;

use super::Refusal;
use crate::device::Framing;

/// Finds out which interface `fd` is, and whether its packets come as `framing` says.
pub(super) fn identify(fd: BorrowedFd<'_>, framing: Framing) -> Result<String, Refusal> {
    let stat = fstat(fd).map_err(|errno| Refusal::Other(errno.into()))?;
    // What the question would do to anything but a character device is not known.
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFCHR {
        return Err(Refusal::not_a_tun(fd));
    }
    // SAFETY: all bytes zero are an ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF fills in one ifreq, which lives through the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) } < 0 {
        return Err(Refusal::not_a_tun(fd));
    }
    // SAFETY: the kernel has filled in the flags (tun_get_iff in drivers/net/tun.c), and every bit pattern is an integer.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    check(flags, framing)?;
    if has_information(fd) {
        return Err(Refusal::Framing {
            expected: "IFF_NO_PI",
            found: "it has four bytes of packet information in front of every packet",
        });
    }
    // SAFETY: the name is part of the request, 16 bytes that the kernel has ended with a zero.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    Ok(name.to_string_lossy().into_owned())
}

/// Whether a device with `flags` has packets as `framing` says.
fn check(flags: libc::c_int, framing: Framing) -> Result<(), Refusal> {
    let refuse = |expected, found| Err(Refusal::Framing { expected, found });
    if framing == Framing::Utun {
        return refuse("Apple's utun", "this is a Linux tun device, whose packets are raw");
    }
    if flags & libc::IFF_TAP != 0 {
        return refuse("IFF_TUN, which has IP packets", "it is IFF_TAP, which has Ethernet frames");
    }
    if flags & libc::IFF_VNET_HDR != 0 {
        return refuse("no IFF_VNET_HDR", "it has a virtio_net_hdr in front of every packet");
    }
    Ok(())
}

/// Whether every packet has struct tun_pi in front of it. IFF_NO_PI is not to be told from IFF_NOFILTER in the flags,
/// which are the same bit. But four bytes of zeros are an empty packet with that header, and without it are no packet at
/// all, which is the first thing that is looked at (tun_get_user in drivers/net/tun.c).
fn has_information(fd: BorrowedFd<'_>) -> bool {
    // EIO says that the interface is down.
    matches!(write(fd, &[0; 4]), Ok(_) | Err(Errno::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_packets_are_taken() {
        let plain = libc::IFF_TUN | libc::IFF_NO_PI;
        assert!(check(plain, Framing::Raw).is_ok());
        assert!(check(plain | libc::IFF_MULTI_QUEUE, Framing::Raw).is_ok());
        for (flags, framing, word) in [
            (plain, Framing::Utun, "Linux"),
            (libc::IFF_TAP | libc::IFF_NO_PI, Framing::Raw, "Ethernet"),
            (plain | libc::IFF_VNET_HDR, Framing::Raw, "virtio_net_hdr"),
        ] {
            let error = check(flags, framing).unwrap_err().of(7).to_string();
            assert!(error.contains("descriptor 7") && error.contains(word), "{error}");
        }
    }
}
