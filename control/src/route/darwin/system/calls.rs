//! The system calls: sysctl(3) for the dumps, ioctl(2) for interfaces, a routing socket. Nothing here decides anything.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Instant;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;
use socket2::{Domain, Socket, Type};

use super::super::message::{Action, Request};
use super::super::request;
use super::super::table::{IFF_UP, Table};
use crate::journal::{Address, Device};

/// The routing table and the interfaces.
///
/// # Errors
/// What sysctl(3) says.
pub(super) fn table() -> io::Result<Table> {
    let control = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let is_direct = |name: &str| is_direct_link(&control, name);
    Ok(Table::parse(&dump(libc::NET_RT_DUMP)?, &dump(libc::NET_RT_IFLIST)?, is_direct))
}

/// A socket that is only written to: errors come with the write, and what others ask for is none of its business.
///
/// # Errors
/// What socket(2) says.
pub(super) fn routing_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::from(libc::PF_ROUTE), Type::RAW, None)?;
    socket.shutdown(Shutdown::Read)?;
    Ok(socket)
}

/// A socket that hears of all changes, non-blocking.
///
/// # Errors
/// What socket(2) says.
pub(super) fn listening_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::from(libc::PF_ROUTE), Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Asks the kernel to do something about a route. It answers before the call returns.
///
/// # Errors
/// What the kernel says: EEXIST, ESRCH, EPERM.
pub(super) fn send(mut socket: &Socket, request: &Request) -> Result<(), Errno> {
    let bytes = request.encode();
    loop {
        match socket.write(&bytes) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
        }
    }
}

/// A request about a route.
pub(super) fn request(
    action: Action,
    destination: IpNet,
    gateway: Option<super::super::message::Gateway>,
    sequence: i32,
) -> Request {
    Request { action, sequence, destination, gateway, scope: 0 }
}

/// Gives an interface an address.
///
/// # Errors
/// What the kernel says.
pub(super) fn add_address(address: &Address) -> Result<(), Errno> {
    let name = &address.device.name;
    match address.address {
        IpNet::V4(net) => {
            let control = control(Domain::IPV4)?;
            let request = request::add_v4(name, net).ok_or(Errno::EINVAL)?;
            // SAFETY: the descriptor is open, and the kernel reads as many bytes as the request's number says, which are
            // those of the array.
            unsafe { ioctl::siocaifaddr(control.as_raw_fd(), &raw const request) }.map(drop)
        }
        IpNet::V6(net) => {
            let control = control(Domain::IPV6)?;
            let request = request::add_v6(name, net).ok_or(Errno::EINVAL)?;
            // SAFETY: as above.
            unsafe { ioctl::siocaifaddr_in6(control.as_raw_fd(), &raw const request) }.map(drop)
        }
    }
}

/// Takes an address away from an interface.
///
/// # Errors
/// What the kernel says: EADDRNOTAVAIL if it has no such address, ENXIO if there is no such interface.
pub(super) fn remove_address(address: &Address) -> Result<(), Errno> {
    let name = &address.device.name;
    match address.address {
        IpNet::V4(net) => {
            let control = control(Domain::IPV4)?;
            let request = request::remove_v4(name, net.addr()).ok_or(Errno::EINVAL)?;
            // SAFETY: as in `add_address`.
            unsafe { ioctl::siocdifaddr(control.as_raw_fd(), &raw const request) }.map(drop)
        }
        IpNet::V6(net) => {
            let control = control(Domain::IPV6)?;
            let request = request::remove_v6(name, net.addr()).ok_or(Errno::EINVAL)?;
            // SAFETY: as in `add_address`.
            unsafe { ioctl::siocdifaddr_in6(control.as_raw_fd(), &raw const request) }.map(drop)
        }
    }
}

/// Sets an interface up.
///
/// # Errors
/// What the kernel says.
pub(super) fn set_up(device: &Device) -> Result<(), Errno> {
    let control = control(Domain::IPV4)?;
    let mut request = request::number(&device.name, 0).ok_or(Errno::EINVAL)?;
    // SAFETY: the descriptor is open, and the kernel reads and writes the bytes of the array, no more.
    unsafe { ioctl::siocgifflags(control.as_raw_fd(), &raw mut request) }?;
    request[FLAGS] |= IFF_UP as u8;
    // SAFETY: as above.
    unsafe { ioctl::siocsifflags(control.as_raw_fd(), &raw const request) }.map(drop)
}

/// Whether an interface is a cable to a device that is being developed for (Apple's TN3158); not, if it cannot be told.
fn is_direct_link(control: &Socket, name: &str) -> bool {
    let Some(mut request) = request::number(name, 0) else { return false };
    // SAFETY: the descriptor is open, and the kernel reads and writes the bytes of the array, no more.
    let told = unsafe { ioctl::siocgifdirectlink(control.as_raw_fd(), &raw mut request) };
    told.is_ok() && request[FLAGS..FLAGS + 4] != [0; 4]
}

/// What sysctl(3) has below net.route.0.0.
fn dump(what: libc::c_int) -> io::Result<Vec<u8>> {
    let mut path = [libc::CTL_NET, libc::PF_ROUTE, 0, 0, what, 0];
    let begun = Instant::now();
    let mut bytes: Vec<u8> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut length = bytes.capacity();
        let into = if length == 0 { std::ptr::null_mut() } else { bytes.as_mut_ptr().cast() };
        // SAFETY: the path has as many numbers as is said; the kernel writes at most `length` bytes to `into`, which has
        // room for them or is null, and then says in `length` how many it has written, or would have.
        let result =
            unsafe { libc::sysctl(path.as_mut_ptr(), PATH_LENGTH, into, &raw mut length, std::ptr::null_mut(), 0) };
        let error = (result != 0).then(io::Error::last_os_error);
        match error {
            None if !into.is_null() => {
                // SAFETY: the kernel has written so many bytes, and not more than there was room for.
                unsafe { bytes.set_len(length.min(bytes.capacity())) };
                tracing::trace!(what, length, elapsed_us = begun.elapsed().as_micros(), "the kernel's tables are read");
                return Ok(bytes);
            }
            None if length == 0 => return Ok(bytes),
            // It has told how much room it takes, or that it was not enough: the tables grow meanwhile.
            None => bytes.reserve(length + length / 4),
            Some(error) if error.raw_os_error() == Some(libc::ENOMEM) => bytes.reserve(bytes.capacity() * 2),
            Some(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOMEM))
}

fn control(domain: Domain) -> Result<Socket, Errno> {
    Socket::new(domain, Type::DGRAM, None).map_err(|error| errno(&error))
}

/// The error number of an error of the system.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Requests whose numbers say how many bytes they carry (bsd/sys/sockio.h, bsd/netinet6/in6_var.h).
mod ioctl {
    use super::request::{ALIAS_V4, ALIAS_V6, IFREQ, IFREQ_V6};

    nix::ioctl_write_ptr!(siocsifflags, b'i', 16, [u8; IFREQ]);
    nix::ioctl_readwrite!(siocgifflags, b'i', 17, [u8; IFREQ]);
    nix::ioctl_write_ptr!(siocdifaddr, b'i', 25, [u8; IFREQ]);
    nix::ioctl_write_ptr!(siocdifaddr_in6, b'i', 25, [u8; IFREQ_V6]);
    nix::ioctl_write_ptr!(siocaifaddr, b'i', 26, [u8; ALIAS_V4]);
    nix::ioctl_write_ptr!(siocaifaddr_in6, b'i', 26, [u8; ALIAS_V6]);
    nix::ioctl_readwrite!(siocgifdirectlink, b'i', 222, [u8; IFREQ]);
}

/// Where an `ifreq` has its number.
const FLAGS: usize = 16;
const PATH_LENGTH: libc::c_uint = 6;
/// Tables that grow faster than they are read are somebody's mistake.
const ATTEMPTS: usize = 8;

/// The layouts that the pure half believes in are those of the system's headers.
const _: () = {
    use super::super::message::{ADDRESS_HEADER, LINK_HEADER, LINK_MTU, METRIC_MTU, ROUTE_HEADER};
    assert!(size_of::<libc::rt_msghdr>() == ROUTE_HEADER);
    assert!(std::mem::offset_of!(libc::rt_msghdr, rtm_rmx.rmx_mtu) == METRIC_MTU);
    assert!(std::mem::offset_of!(libc::rt_msghdr, rtm_errno) == 24);
    assert!(size_of::<libc::if_msghdr>() == LINK_HEADER);
    assert!(std::mem::offset_of!(libc::if_msghdr, ifm_data.ifi_mtu) == LINK_MTU);
    assert!(size_of::<libc::ifa_msghdr>() == ADDRESS_HEADER);
    assert!(size_of::<libc::ifreq>() == request::IFREQ);
    assert!(size_of::<libc::in6_ifreq>() == request::IFREQ_V6);
};
