//! The message header of Apple's `recvmsg_x` and `sendmsg_x` (bsd/sys/socket_private.h in xnu).
//!
//! Both are system calls without a promise: their numbers, 480 and 481, and this layout may change, so the functions are
//! looked up by name, and whoever calls them can do without.

use std::ffi::c_void;
use std::ptr::null_mut;

use nix::libc;

/// One message; what a read has filled in is `datalen`, and the flags.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(in crate::device) struct MsghdrX {
    name: *mut c_void,
    namelen: libc::socklen_t,
    pub(super) iov: *mut libc::iovec,
    pub(super) iovlen: libc::c_int,
    control: *mut c_void,
    controllen: libc::socklen_t,
    pub(super) flags: libc::c_int,
    pub(super) datalen: usize,
}

impl MsghdrX {
    /// A message of nothing.
    pub(super) const EMPTY: Self = Self {
        name: null_mut(),
        namelen: 0,
        iov: null_mut(),
        iovlen: 0,
        control: null_mut(),
        controllen: 0,
        flags: 0,
        datalen: 0,
    };
}

/// The layout on every 64-bit system, which all of Apple's are now: 4-byte members are padded in front of pointers.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<MsghdrX>() == 56 && align_of::<MsghdrX>() == 8);
    assert!(offset_of!(MsghdrX, name) == 0 && offset_of!(MsghdrX, namelen) == 8);
    assert!(offset_of!(MsghdrX, iov) == 16 && offset_of!(MsghdrX, iovlen) == 24);
    assert!(offset_of!(MsghdrX, control) == 32 && offset_of!(MsghdrX, controllen) == 40);
    assert!(offset_of!(MsghdrX, flags) == 44 && offset_of!(MsghdrX, datalen) == 48);
};
