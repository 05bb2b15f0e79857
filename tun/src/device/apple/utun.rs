//! What can be asked and told of a utun socket (bsd/net/if_utun.h in xnu).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

use crate::device::Framing;
use crate::device::descriptor::Refusal;

/// Finds out which interface `fd` is, and whether its packets come as `framing` says.
pub(in crate::device) fn identify(fd: BorrowedFd<'_>, framing: Framing) -> Result<String, Refusal> {
    let name = name(fd).map_err(|_| Refusal::not_a_tun(fd))?;
    if framing == Framing::Raw {
        let found = "this is a utun, which has the protocol family in front of every packet";
        return Err(Refusal::Framing { expected: "raw packets", found });
    }
    no_sigpipe(fd).map_err(Refusal::Other)?;
    Ok(name)
}

/// The interface's name.
pub(in crate::device) fn name(fd: BorrowedFd<'_>) -> io::Result<String> {
    let mut name = [0_u8; libc::IFNAMSIZ];
    let mut len = name.len() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live through the call, and the length is the buffer's.
    let result = unsafe {
        let name = name.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), SYSPROTO_CONTROL, UTUN_OPT_IFNAME, name, &raw mut len)
    };
    Errno::result(result)?;
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Lets the kernel put more than one packet at a time into the socket's buffer, and makes that larger. Without either the
/// device works, only slower.
pub(in crate::device) fn enlarge(fd: BorrowedFd<'_>) {
    for (level, name, value) in
        [(SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS, MAX_PENDING), (libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER)]
    {
        if let Err(error) = set_option(fd, level, name, value) {
            tracing::debug!(%error, level, name, "the utun's option stays as it is");
        }
    }
}

/// A write to a socket whose kernel side is gone is an error, and not the end of the host's process.
pub(in crate::device) fn no_sigpipe(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, 1)
}

fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: u32) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value lives through the call and has the length that is given.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) })?;
    Ok(())
}

/// Packets that the kernel may put into the socket's buffer before it waits for a read; utun's default is 1.
const MAX_PENDING: u32 = 64;

/// Bytes of that buffer; utun's default is 512 KiB. It is the kernel's memory, and no part of the memory table.
const BUFFER: u32 = 2 << 20;

/// Named here, because libc knows them for macOS only in some of its versions.
const SYSPROTO_CONTROL: libc::c_int = 2;
const UTUN_OPT_IFNAME: libc::c_int = 2;
const UTUN_OPT_MAX_PENDING_PACKETS: libc::c_int = 16;

#[cfg(target_os = "macos")]
const _: () = assert!(SYSPROTO_CONTROL == libc::SYSPROTO_CONTROL && UTUN_OPT_IFNAME == libc::UTUN_OPT_IFNAME);
