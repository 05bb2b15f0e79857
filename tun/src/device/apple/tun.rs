//! A utun device that is made here.
//!
//! tun-rs makes it, which is what it does on Linux: a control socket, connected to the unit of that name. Its own way of
//! handling packets is not used, for it copies or splits off the protocol family; nor are its routes. The interface lives
//! as long as this object, and is created down, without addresses.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{name, utun};
use crate::batch::PacketBatch;
use crate::device::transfer::Transfer;
use crate::device::{Device, Framing, TunError, TunOptions, WriteProgress};
use crate::queue::WriteQueue;
use crate::reactor::Waker;

/// A utun device, non-blocking.
pub struct AppleTun {
    device: SyncDevice,
    name: String,
    transfer: Transfer,
}

impl AppleTun {
    /// Makes a device: `utun` and a number, or `utun` for a number that the kernel chooses. There are no persistent ones
    /// to attach to, and no offloads.
    ///
    /// # Errors
    /// [`TunError`]; nothing is left behind.
    pub fn open(options: &TunOptions) -> Result<Self, TunError> {
        let asked = &options.name;
        let number = name::parse(asked).ok_or_else(|| TunError::Name { name: asked.clone() })?;
        let mut builder = DeviceBuilder::new().inherit_enable_state().associate_route(false).packet_information(true);
        if number.is_some() {
            builder = builder.name(asked);
        }
        let device = builder.build_sync().map_err(|source| of_open(asked, source))?;
        let other = |source| TunError::Other { name: asked.clone(), source };
        device.set_nonblocking(true).map_err(other)?;
        utun::no_sigpipe(device.as_fd()).map_err(other)?;
        utun::enlarge(device.as_fd());
        let name = utun::name(device.as_fd()).map_err(other)?;
        let mut tun = Self { device, name, transfer: Transfer::new(Framing::Utun) };
        tun.set_mtu(options.mtu).map_err(|source| TunError::Mtu {
            name: tun.name.clone(),
            mtu: options.mtu,
            source,
        })?;
        Ok(tun)
    }

    /// The interface's index.
    ///
    /// # Errors
    /// What the system says when it is asked.
    pub fn index(&self) -> io::Result<u32> {
        self.device.if_index()
    }
}

impl std::fmt::Debug for AppleTun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppleTun").field("name", &self.name).field("fd", &self.device.as_raw_fd()).finish()
    }
}

impl Device for AppleTun {
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
        self.transfer.recv_batch(self.device.as_fd(), batch)
    }

    fn send_batch(&mut self, queue: &mut WriteQueue) -> io::Result<WriteProgress> {
        self.transfer.send_batch(self.device.as_fd(), queue)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn attach(&mut self, _waker: Waker) {}
}

fn of_open(name: &str, source: io::Error) -> TunError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::Permission { source },
        // There is no kernel control of utun's name (ctl_ioctl in bsd/kern/kern_control.c).
        Some(libc::ENOENT) => TunError::NoDriver { source },
        // The unit is connected already (ctl_connect).
        Some(libc::EBUSY | libc::EEXIST | libc::EADDRINUSE) => TunError::Exists { name },
        _ => TunError::Other { name, source },
    }
}
