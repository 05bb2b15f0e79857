//! A tun device by its bare system calls, with the flags that a test asks for and nothing between it and the kernel.
//!
//! For the scenarios that compare what Adit does with packets with what the kernel does. It refuses to know what the
//! bytes mean: with [`VNET_HDR`] they begin with a `virtio_net_hdr`, both ways.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Namespace;

/// A tun device that vanishes with its guard. Reads and writes do not block.
#[derive(Debug)]
pub struct RawTun {
    file: File,
    name: String,
}

impl RawTun {
    /// Makes a device in `namespace`, down and without addresses; `flags` are added to IFF_TUN and IFF_NO_PI.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(namespace: &Namespace, name: &str, flags: libc::c_int) -> Result<Self> {
        ensure!(!name.is_empty() && name.len() < libc::IFNAMSIZ, "{name}: no name for a link");
        let file = namespace.enter(|| -> Result<File> {
            let mut options = File::options();
            let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
            // SAFETY: all zeros is a valid ifreq, a structure of numbers and arrays.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as libc::c_short;
            // SAFETY: the file is open, and the kernel reads and writes no more than the ifreq.
            unsafe { request::tun_set_iff(file.as_raw_fd(), &raw const request) }.context("TUNSETIFF")?;
            Ok(file)
        })?;
        Ok(Self { file: file.with_context(|| name.to_owned())?, name: name.to_owned() })
    }

    /// What the kernel may leave to the reader: a sum of the `TUN_F_` constants.
    ///
    /// # Errors
    /// If the kernel does not know one of them.
    pub fn set_offloads(&self, offloads: u32) -> Result<()> {
        // SAFETY: the file is open, and the argument is a number.
        unsafe { request::tun_set_offload(self.file.as_raw_fd(), offloads.into()) }.context("TUNSETOFFLOAD")?;
        Ok(())
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands a packet to the kernel.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let len =
            (&self.file).write(bytes).with_context(|| format!("a packet of {} bytes to {}", bytes.len(), self.name))?;
        ensure!(len == bytes.len(), "{} took {len} of {} bytes", self.name, bytes.len());
        Ok(())
    }

    /// The next packet, if there is one now.
    ///
    /// # Errors
    /// If the kernel has another reason than that there is none.
    pub fn try_receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a mut [u8]>> {
        match (&self.file).read(buffer) {
            Ok(len) => Ok(Some(&mut buffer[..len])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).with_context(|| self.name.clone()),
        }
    }

    /// The next packet; `None` if none comes within `timeout`.
    ///
    /// # Errors
    /// As [`RawTun::try_receive`].
    pub fn receive<'a>(&self, buffer: &'a mut [u8], timeout: Duration) -> Result<Option<&'a mut [u8]>> {
        Self::wait(&[self], timeout)?;
        self.try_receive(buffer)
    }

    /// Waits until one of `devices` has a packet, but no longer than `timeout`.
    ///
    /// # Errors
    /// If the kernel refuses to wait.
    pub fn wait(devices: &[&Self], timeout: Duration) -> Result<()> {
        let mut fds: Vec<_> =
            devices.iter().map(|device| PollFd::new(device.file.as_fd(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("poll"),
        }
    }
}

/// Every packet begins with a `virtio_net_hdr` (IFF_VNET_HDR).
pub const VNET_HDR: libc::c_int = libc::IFF_VNET_HDR;

/// Packets from the user go through GRO (IFF_NAPI).
pub const NAPI: libc::c_int = libc::IFF_NAPI;

/// All that the reader can take: TUN_F_CSUM, TSO4, TSO6, USO4 and USO6 (include/uapi/linux/if_tun.h).
pub const ALL_OFFLOADS: u32 = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;

#[allow(missing_docs, reason = "the macros of nix take no documentation")]
mod request {
    use nix::libc;

    // _IOW('T', 202, int), which takes a pointer to an ifreq, and _IOW('T', 208, unsigned int), which takes a number.
    nix::ioctl_write_ptr_bad!(tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
}
