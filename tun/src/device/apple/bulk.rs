//! Many packets of a utun in one system call, with `recvmsg_x` and `sendmsg_x`.
//!
//! Both are private to Apple, which may take them away or refuse apps that use them: hence the cargo feature, off by
//! default. Where they are missing or do not work on this socket, packets go one by one from then on. An error of
//! `sendmsg_x` does not tell how many packets went before it, so the packets of such a call are given up: to send them
//! again would send some of them twice.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

use super::msghdr_x::MsghdrX;
use crate::batch::{MAX_PACKET, PacketBatch};
use crate::device::transfer::{is_gone, is_passing};
use crate::device::{Framing, WriteProgress};
use crate::queue::WriteQueue;

/// The system calls for one descriptor.
#[derive(Debug)]
pub(in crate::device) struct Bulk {
    functions: Functions,
    /// Room for a packet. The interface's MTU is its owner's and can change, so this grows when a packet was cut off.
    room: usize,
}

impl Bulk {
    pub(in crate::device) fn new(functions: Functions) -> Self {
        Self { functions, room: ROOM }
    }

    /// Reads packets until `batch` is full or nothing is left; `None` if they have to be read one by one.
    pub(in crate::device) fn recv(
        &mut self,
        framing: Framing,
        fd: BorrowedFd<'_>,
        batch: &mut PacketBatch,
    ) -> Option<io::Result<usize>> {
        let recvmsg_x = self.functions.recv?;
        let (before, header) = (batch.len(), framing.header_len());
        while !batch.is_full() {
            let (mut iovs, mut messages) = arrays();
            let slots = batch.spare(header, self.room).take(BULK);
            let count = slots.zip(&mut iovs).map(|(slot, iov)| *iov = iovec(slot.as_mut_ptr(), slot.len())).count();
            point(&mut messages[..count], &mut iovs);
            // SAFETY: the messages point to as many slots, which nobody else has until the call has returned.
            let result = unsafe { recvmsg_x(fd.as_raw_fd(), messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
            let received = match Errno::result(result) {
                // Packets have bytes, or the other end is gone.
                Ok(received) if received > 0 && messages[0].datalen > 0 => (received as usize).min(count),
                Ok(_) => return Some(Err(Errno::ENODEV.into())),
                Err(Errno::EINTR) => continue,
                Err(errno) if is_passing(errno) => break,
                Err(errno) if is_unsupported(errno) => {
                    self.refuse(errno);
                    return None;
                }
                Err(errno) => return Some(Err(errno.into())),
            };
            let room = self.room;
            let lens = messages[..received].iter().map(|message| {
                let is_cut_off = message.flags & libc::MSG_TRUNC != 0;
                if is_cut_off {
                    self.room = (self.room * 2).min(MAX_PACKET);
                }
                if is_cut_off { 0 } else { message.datalen }
            });
            batch.commit_spare(header, room, lens, |framed| framing.decode(framed));
            if received < count {
                break;
            }
        }
        Some(Ok(batch.len() - before))
    }

    /// Writes packets until `queue` is empty or the device takes no more; `false` if the rest has to be written one by
    /// one.
    pub(in crate::device) fn send(
        &mut self,
        framing: Framing,
        fd: BorrowedFd<'_>,
        queue: &mut WriteQueue,
        progress: &mut WriteProgress,
    ) -> io::Result<bool> {
        let Some(sendmsg_x) = self.functions.send else { return Ok(false) };
        let header = framing.header_len();
        while queue.has_ended() {
            // Headers first: the pointers are taken when nothing is written any more.
            let encoded = (0..BULK)
                .take_while(|&index| queue.nth_with_header(index, header).is_some_and(|framed| framing.encode(framed)));
            let count = encoded.count();
            if count == 0 {
                progress.dropped += 1;
                queue.advance();
                continue;
            }
            let (mut iovs, mut messages) = arrays();
            for (index, iov) in iovs[..count].iter_mut().enumerate() {
                let framed = queue.nth_framed(index, header).unwrap_or_default();
                *iov = iovec(framed.as_ptr().cast_mut(), framed.len());
            }
            point(&mut messages[..count], &mut iovs);
            // SAFETY: the messages point to as many packets, which stay where they are, and which the call only reads.
            let result = unsafe { sendmsg_x(fd.as_raw_fd(), messages.as_ptr(), count as u32, libc::MSG_DONTWAIT) };
            let done = match Errno::result(result) {
                Ok(sent) if sent > 0 => {
                    let sent = (sent as usize).min(count);
                    progress.written += sent;
                    sent
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    progress.blocked = true;
                    break;
                }
                Err(errno) if is_gone(errno) => return Err(errno.into()),
                Err(errno) if is_unsupported(errno) => {
                    self.refuse(errno);
                    return Ok(false);
                }
                Ok(_) | Err(_) => {
                    progress.dropped += count;
                    count
                }
            };
            for _ in 0..done {
                queue.advance();
            }
        }
        Ok(true)
    }

    #[cold]
    fn refuse(&mut self, errno: Errno) {
        tracing::info!(error = %errno, "the system does not take several packets in one call; they go one by one");
        self.functions = Functions::NONE;
    }
}

fn is_unsupported(errno: Errno) -> bool {
    // The last two are one on some systems.
    [Errno::ENOSYS, Errno::ENOTSUP, Errno::EOPNOTSUPP].contains(&errno)
}

fn arrays() -> ([libc::iovec; BULK], [MsghdrX; BULK]) {
    ([iovec(std::ptr::null_mut(), 0); BULK], [MsghdrX::EMPTY; BULK])
}

fn iovec(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: len }
}

/// Gives each message one piece.
fn point(messages: &mut [MsghdrX], iovs: &mut [libc::iovec; BULK]) {
    for (message, iov) in messages.iter_mut().zip(iovs) {
        message.datalen = iov.iov_len;
        message.iov = iov;
        message.iovlen = 1;
    }
}

type RecvmsgX = unsafe extern "C" fn(libc::c_int, *mut MsghdrX, libc::c_uint, libc::c_int) -> isize;
type SendmsgX = unsafe extern "C" fn(libc::c_int, *const MsghdrX, libc::c_uint, libc::c_int) -> isize;

/// The functions, where there are any.
#[derive(Debug, Clone, Copy)]
pub(in crate::device) struct Functions {
    recv: Option<RecvmsgX>,
    send: Option<SendmsgX>,
}

impl Functions {
    const NONE: Self = Self { recv: None, send: None };

    /// Those of this system.
    #[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
    pub(in crate::device) fn of_system() -> Self {
        static FUNCTIONS: std::sync::OnceLock<Functions> = std::sync::OnceLock::new();
        *FUNCTIONS.get_or_init(|| {
            // SAFETY: the name ends with a zero; the look-up touches nothing else.
            let find = |name: &std::ffi::CStr| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            let (recv, send) = (find(c"recvmsg_x"), find(c"sendmsg_x"));
            // SAFETY: a function of that name has this signature (bsd/sys/socket_private.h), and a null pointer is `None`.
            unsafe {
                Self {
                    recv: std::mem::transmute::<*mut libc::c_void, Option<RecvmsgX>>(recv),
                    send: std::mem::transmute::<*mut libc::c_void, Option<SendmsgX>>(send),
                }
            }
        })
    }
}

/// Packets of one call; the kernel takes up to 256 (kern.ipc.somaxrecvmsgx), and their headers are on the stack.
const BULK: usize = 32;

/// Room for a packet in the beginning: more than every usual MTU.
const ROOM: usize = 2048;

#[cfg(test)]
mod tests;
