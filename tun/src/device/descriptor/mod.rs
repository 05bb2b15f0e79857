//! A tun device that somebody else has opened: a VPN provider's host, or a parent process.
//!
//! The descriptor is duplicated, so that both sides may close theirs whenever they like, and it is checked before a
//! packet goes through it: what is no tun device, or frames its packets otherwise, is refused with the reason. It is never
//! configured: addresses, routes and the MTU belong to whoever opened it.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use thiserror::Error;

use crate::batch::PacketBatch;
#[cfg(target_vendor = "apple")]
use crate::device::apple::utun as platform;
use crate::device::transfer::Transfer;
use crate::device::{Framing, WriteProgress};
use crate::queue::WriteQueue;
#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as platform;

/// A checked, non-blocking duplicate of a tun device's descriptor.
#[derive(Debug)]
pub struct Descriptor {
    handle: Handle,
    name: String,
    transfer: Transfer,
    ownership: Ownership,
    /// Whether somebody else expects the descriptor to block.
    restore: bool,
}

/// Whose a descriptor is that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It stays the caller's, who closes it.
    Borrowed,
    /// It was given away: it is closed as soon as it was duplicated and found good. Whoever closes the number later by
    /// mistake closes nothing of ours. On an error it is still the caller's.
    Owned,
}

/// Why a descriptor is of no use as a tun device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// There is no such descriptor.
    #[error("descriptor {fd} is not open")]
    Closed {
        /// The descriptor.
        fd: RawFd,
    },
    /// It is something else.
    #[error("descriptor {fd} is no tun device: it is {found}")]
    NotATun {
        /// The descriptor.
        fd: RawFd,
        /// What it is.
        found: &'static str,
    },
    /// Its packets have other headers than was said.
    #[error("the packets of descriptor {fd} are not framed as expected: {expected}, but {found}")]
    Framing {
        /// The descriptor.
        fd: RawFd,
        /// What would be right.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Anything else, such as too many open files.
    #[error("descriptor {fd} cannot be used: {source}")]
    Other {
        /// The descriptor.
        fd: RawFd,
        /// What the system said.
        source: io::Error,
    },
}

impl Descriptor {
    /// Duplicates and checks `fd`, and makes it non-blocking. That is a property of the open file and not of the number, so
    /// the other side's descriptor does not block any more either; for a borrowed one it is taken back at the end.
    ///
    /// # Errors
    /// [`DescriptorError`]. `fd` is as it was then, whoever it belongs to.
    pub fn open(fd: RawFd, ownership: Ownership, framing: Framing) -> Result<Self, DescriptorError> {
        let handle = Handle::duplicate(fd).map_err(|errno| match errno {
            Errno::EBADF => DescriptorError::Closed { fd },
            errno => DescriptorError::Other { fd, source: errno.into() },
        })?;
        let name = platform::identify(handle.as_fd(), framing).map_err(|refusal| refusal.of(fd))?;
        let mut descriptor = Self::new(handle, name, ownership, framing);
        descriptor.set_nonblocking().map_err(|source| DescriptorError::Other { fd, source })?;
        if ownership == Ownership::Owned {
            #[cfg(target_vendor = "apple")]
            platform::enlarge(descriptor.as_fd());
            drop(Handle(fd));
        }
        tracing::debug!(device = descriptor.name, ?ownership, ?framing, "descriptor");
        Ok(descriptor)
    }

    /// The interface's name when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it non-blocking again, in case that another [`Descriptor`] of the same open file has taken it back.
    ///
    /// # Errors
    /// What the system says, as of a descriptor that was closed.
    pub(crate) fn set_nonblocking(&mut self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&*self, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&*self, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
            self.restore = self.ownership == Ownership::Borrowed;
        }
        Ok(())
    }

    /// Reads packets as [`Device::recv_batch`](crate::device::Device::recv_batch) does.
    pub(crate) fn recv_batch(&mut self, batch: &mut PacketBatch) -> io::Result<usize> {
        self.transfer.recv_batch(self.handle.as_fd(), batch)
    }

    /// Writes packets as [`Device::send_batch`](crate::device::Device::send_batch) does.
    pub(crate) fn send_batch(&mut self, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        self.transfer.send_batch(self.handle.as_fd(), queue)
    }

    /// Writes `packets` one after the other until the device takes no more, and says how many it took or refused.
    pub(crate) fn send_all<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>) -> usize {
        let fd = self.handle.as_fd();
        packets.take_while(|packet| self.transfer.send_one(fd, packet) != Err(Errno::EAGAIN)).count()
    }

    /// Takes a descriptor as it is.
    #[cfg(test)]
    pub(crate) fn unchecked(fd: std::os::fd::OwnedFd, framing: Framing) -> Self {
        let handle = Handle(std::os::fd::IntoRawFd::into_raw_fd(fd));
        let mut descriptor = Self::new(handle, "unchecked".into(), Ownership::Owned, framing);
        descriptor.set_nonblocking().unwrap();
        descriptor
    }

    fn new(handle: Handle, name: String, ownership: Ownership, framing: Framing) -> Self {
        Self { handle, name, transfer: Transfer::new(framing), ownership, restore: false }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.restore
            && let Ok(flags) = fcntl(&*self, FcntlArg::F_GETFL)
        {
            let flags = OFlag::from_bits_retain(flags).difference(OFlag::O_NONBLOCK);
            if let Err(error) = fcntl(&*self, FcntlArg::F_SETFL(flags)) {
                tracing::debug!(%error, device = self.name, "the descriptor stays non-blocking");
            }
        }
    }
}

/// A descriptor that is closed at the end. Unlike the standard library's it does not abort the process if somebody else
/// has closed it by mistake: a host's mistake must not be its end.
#[derive(Debug)]
struct Handle(RawFd);

impl Handle {
    fn duplicate(fd: RawFd) -> Result<Self, Errno> {
        // SAFETY: the call takes three integers and touches no memory; it fails if there is no such descriptor.
        Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FIRST) }).map(Self)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open as long as `self` lives, and never -1. If somebody closes it by mistake, calls fail with
        // EBADF, which is the end of the device.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the number is this object's own, or was given to it.
        unsafe { libc::close(self.0) };
    }
}

/// A [`DescriptorError`] that does not know the number yet.
#[derive(Debug)]
pub(in crate::device) enum Refusal {
    NotATun(&'static str),
    Framing { expected: &'static str, found: &'static str },
    Other(io::Error),
}

impl Refusal {
    fn of(self, fd: RawFd) -> DescriptorError {
        match self {
            Self::NotATun(found) => DescriptorError::NotATun { fd, found },
            Self::Framing { expected, found } => DescriptorError::Framing { fd, expected, found },
            Self::Other(source) => DescriptorError::Other { fd, source },
        }
    }

    /// What a descriptor is that a tun device's question was of no use on.
    pub(in crate::device) fn not_a_tun(fd: BorrowedFd<'_>) -> Self {
        use nix::sys::stat::{SFlag, fstat};
        let kind = match fstat(fd) {
            Ok(stat) => SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT,
            Err(errno) => return Self::Other(errno.into()),
        };
        Self::NotATun(match kind {
            SFlag::S_IFREG => "a file",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFIFO => "a pipe",
            SFlag::S_IFSOCK => "another kind of socket",
            SFlag::S_IFCHR => "another kind of device, or has no interface (any more)",
            _ => "something else",
        })
    }
}

/// Duplicates get numbers above those of the standard streams.
const FIRST: RawFd = 3;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, pipe};
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: the call takes two integers and touches no memory.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    #[test]
    fn what_is_no_tun_device_is_named_and_stays_the_callers() {
        let (reader, _writer) = pipe().unwrap();
        let cases = [
            (File::open("/dev/null").unwrap().into_raw_fd(), "another kind of device"),
            (File::open("/").unwrap().into_raw_fd(), "a directory"),
            (File::open(std::env::current_exe().unwrap()).unwrap().into_raw_fd(), "a file"),
            (PipeReader::into_raw_fd(reader), "a pipe"),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into_raw_fd(), "another kind of socket"),
        ];
        for (fd, what) in cases {
            for ownership in [Ownership::Owned, Ownership::Borrowed] {
                let error = Descriptor::open(fd, ownership, Framing::Raw).unwrap_err();
                assert!(matches!(error, DescriptorError::NotATun { fd: named, .. } if named == fd), "{error}");
                assert!(error.to_string().contains(what), "{error}");
                assert!(is_open(fd));
                // SAFETY: it is open, as was just seen, and borrowed for this line only.
                let flags = fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFL).unwrap();
                assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK), "{what}");
            }
            drop(Handle(fd));
        }
    }

    #[test]
    fn what_is_not_open_is_said_to_be_closed() {
        // Above every limit, so that no other test opens it meanwhile.
        for fd in [-1, RawFd::MIN, RawFd::MAX] {
            let error = Descriptor::open(fd, Ownership::Owned, Framing::Raw).unwrap_err();
            assert!(matches!(error, DescriptorError::Closed { fd: named } if named == fd), "{error}");
            assert_eq!(error.to_string(), format!("descriptor {fd} is not open"));
        }
    }

    #[test]
    fn blocking_is_taken_back_once() {
        let (socket, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let blocks = |fd: BorrowedFd<'_>| {
            !OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
        };
        let borrow = |socket: &UdpSocket| {
            let handle = Handle::duplicate(socket.as_raw_fd()).unwrap();
            let mut descriptor = Descriptor::new(handle, "test".into(), Ownership::Borrowed, Framing::Raw);
            descriptor.set_nonblocking().unwrap();
            descriptor
        };
        let first = borrow(&socket);
        assert!(!blocks(socket.as_fd()));
        // The same open file again, as when a host attaches it anew.
        let mut second = borrow(&socket);
        drop(first);
        assert!(blocks(socket.as_fd()));
        second.set_nonblocking().unwrap();
        assert!(!blocks(socket.as_fd()));
        drop(second);
        assert!(blocks(socket.as_fd()));

        other.set_nonblocking(true).unwrap();
        drop(borrow(&other));
        assert!(!blocks(other.as_fd()), "it did not block before");
    }
}
