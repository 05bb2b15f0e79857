//! One UDP socket of one address family, and the ways in which the kernel refuses to send.
//!
//! Offloads, the ECN field and source addresses go through quinn-udp. That library is made for QUIC: it forbids
//! fragmentation, asks for a time stamp on every datagram, and turns offloads and the ECN field off for good when a send
//! fails with EINVAL. None of this suits WireGuard, so the first two are undone here, and the third is survived.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use adit_core::{Ecn, Transmit};
use nix::libc;
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::batch::{DatagramBatch, Received};
use crate::queue::SendRun;
use crate::socket::SendErrorKind;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Endpoint {
    socket: UdpSocket,
    state: UdpSocketState,
    family: Family,
    /// Whether runs go out in one call at all.
    segmentation: bool,
    /// Runs of segments this long or longer go out one by one: such a segment once did not fit the path in one piece,
    /// and the kernel fragments single datagrams only.
    unfit: usize,
    /// A source address that was refused; it is not tried again until something arrives on it.
    stale: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// What became of one run.
#[derive(Debug)]
pub(super) enum Sent {
    /// So many datagrams are gone, the whole run or its beginning.
    Datagrams(usize),
    /// The socket takes nothing now.
    Blocked,
    /// The run's first datagrams, so many, cannot be sent.
    Refused(usize, io::Error),
}

impl Endpoint {
    /// Makes a socket and binds it to `port` on every address.
    pub(super) fn bind(family: Family, port: u16) -> Result<Self, (&'static str, io::Error)> {
        let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP)).map_err(|e| ("socket", e))?;
        if family == Family::V6 {
            socket.set_only_v6(true).map_err(|e| ("IPV6_V6ONLY", e))?;
        }
        enlarge_buffers(&socket);
        socket.bind(&SocketAddr::new(family.unspecified(), port).into()).map_err(|e| ("bind", e))?;
        let socket = UdpSocket::from(socket);
        let state = state_for(&socket, family).map_err(|e| ("setsockopt", e))?;
        // Where the library only calls `sendmsg_x` for it, it does not tell how many datagrams went.
        let segmentation = !cfg!(target_vendor = "apple") && state.max_gso_segments() > 1;
        Ok(Self { socket, state, family, segmentation, unfit: usize::MAX, stale: None })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub(super) fn set_mark(&self, mark: u32) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return socket2::SockRef::from(&self.socket).set_mark(mark);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return if mark == 0 { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) };
    }

    /// Sends over the interface with this index only, or over any again.
    pub(super) fn bind_interface(&self, index: Option<NonZeroU32>) -> io::Result<()> {
        #[cfg(target_vendor = "apple")]
        return match self.family {
            Family::V4 => socket2::SockRef::from(&self.socket).bind_device_by_index_v4(index),
            Family::V6 => socket2::SockRef::from(&self.socket).bind_device_by_index_v6(index),
        };
        #[cfg(not(target_vendor = "apple"))]
        return if index.is_none() { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) };
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether several datagrams go out in one call.
    pub(super) fn is_segmenting(&self) -> bool {
        self.segmentation
    }

    /// Reads once into the batch's free slots.
    pub(super) fn recv(&mut self, batch: &mut DatagramBatch) -> io::Result<usize> {
        let mut meta = [RecvMeta::default(); DatagramBatch::SLOTS];
        let count = {
            let mut free = batch.free();
            let slots = free.len();
            let mut buffers: [IoSliceMut<'_>; DatagramBatch::SLOTS] =
                std::array::from_fn(|_| IoSliceMut::new(free.next().unwrap_or_default()));
            self.state.recv((&self.socket).into(), &mut buffers[..slots], &mut meta[..slots])?
        };
        for meta in &meta[..count] {
            let local = meta.dst_ip.filter(|ip| !ip.is_multicast() && *ip != Ipv4Addr::BROADCAST);
            if local.is_some() && local == self.stale {
                self.stale = None;
            }
            let ecn = meta.ecn.map_or(Ecn::NotEct, |ecn| Ecn::from_bits(ecn as u8));
            batch.commit(Received { remote: meta.addr, local, ecn, len: meta.len, stride: meta.stride });
        }
        Ok(count)
    }

    /// Sends a run, or as much of it as the system takes in one call.
    pub(super) fn send(&mut self, run: SendRun<'_>) -> Sent {
        let source = run.transmit.local.filter(|local| Some(*local) != self.stale && self.family.is_of(local));
        if !self.segmentation || run.segment >= self.unfit || run.bytes.len() <= run.segment {
            return self.send_one(run, source);
        }
        let Err(error) = self.transmit(&run.transmit, run.bytes, Some(run.segment), source) else {
            return Sent::Datagrams(run.datagrams());
        };
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => Sent::Blocked,
            // The network card computes no checksums (udp_send_skb in net/ipv4/udp.c).
            Some(libc::EIO) => {
                tracing::info!("the system does not send several datagrams in one call here; they go out one by one");
                self.segmentation = false;
                self.send_one(run, source)
            }
            _ if may_be_of_size(&error) || (source.is_some() && may_be_of_source(&error)) => {
                let sent = self.send_one(run, source);
                // One at a time it works, and not because of another source address: so a segment does not fit.
                let same_source = source.is_none() || source != self.stale;
                if matches!(sent, Sent::Datagrams(_)) && may_be_of_size(&error) && same_source {
                    tracing::debug!(segment = run.segment, "segments of this size do not fit the path in one piece");
                    self.unfit = run.segment;
                }
                sent
            }
            // Whatever it is, it is about the destination, which all of them share.
            _ => Sent::Refused(run.datagrams(), error),
        }
    }

    /// Sends the first datagram of a run, the second time without the source address if that may be at fault.
    fn send_one(&mut self, run: SendRun<'_>, source: Option<IpAddr>) -> Sent {
        let datagram = &run.bytes[..run.segment.min(run.bytes.len())];
        let mut result = self.transmit(&run.transmit, datagram, None, source);
        if source.is_some()
            && let Err(error) = &result
            && may_be_of_source(error)
        {
            result = self.transmit(&run.transmit, datagram, None, None);
            if result.is_ok() {
                tracing::debug!("the address that the peer was answered from is gone; the routing table chooses now");
                self.stale = source;
            }
        }
        match result {
            Ok(()) => Sent::Datagrams(1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Blocked,
            Err(error) => Sent::Refused(1, error),
        }
    }

    fn transmit(
        &mut self,
        to: &Transmit,
        bytes: &[u8],
        segment: Option<usize>,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: to.remote,
            ecn: EcnCodepoint::from_bits(to.ecn as u8),
            contents: bytes,
            segment_size: segment,
            src_ip: source,
        };
        let result = self.state.try_send((&self.socket).into(), &transmit);
        if let Err(error) = &result
            && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO))
        {
            // The library has now given up offloads and the ECN field for this socket. What is wrong is for `send` to
            // find out, so it starts afresh.
            match state_for(&self.socket, self.family) {
                Ok(state) => self.state = state,
                Err(error) => tracing::debug!(%error, "socket options could not be set again"),
            }
        }
        result
    }
}

impl Family {
    pub(super) fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn is_of(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Whether a run may have been refused because a segment does not fit the path in one piece: EMSGSIZE, or
/// EINVAL, depending on the kernel (udp_send_skb in net/ipv4/udp.c).
fn may_be_of_size(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL))
}

/// Whether the system may have refused because of the source address: it is not the host's own any more, or there is no
/// route from there. Which of these errors it is depends on the address family and the kernel.
fn may_be_of_source(error: &io::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EINVAL | ENETUNREACH | EHOSTUNREACH | ENETDOWN))
}

/// Makes the library's state, which sets its socket options, and takes back those that do not suit a tunnel.
fn state_for(socket: &UdpSocket, family: Family) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // A tunnel's datagrams may be fragmented like anyone's: WireGuard has no path MTU discovery of its own, and what
        // an on-path ICMP message claims must not decide what gets through (the kernel's module sends with DF clear).
        match family {
            Family::V4 => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?,
            Family::V6 => {
                set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
                set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
            }
        }
        // Nobody reads the time stamps, and asking for them makes the kernel read a clock for every packet it receives.
        set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
        if !kernel_forwards_gro() {
            set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 0)?;
        }
    }
    #[cfg(target_vendor = "apple")]
    match family {
        Family::V4 => set_option(socket, libc::IPPROTO_IP, libc::IP_DONTFRAG, 0)?,
        Family::V6 => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?,
    }
    // Several datagrams are received in one call with it.
    // SAFETY: the library looks the private functions up by name, and does without where there are none; the feature is
    // what whoever builds this has decided on knowing that.
    #[cfg(all(target_vendor = "apple", feature = "apple-batch"))]
    unsafe {
        state.set_apple_fast_path();
    }
    Ok(state)
}

/// Before Linux 5.12, UDP_GRO on one socket also joined datagrams that the host only forwards, and cut them wrongly.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn kernel_forwards_gro() -> bool {
    static FORWARDS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FORWARDS.get_or_init(|| {
        let release = nix::sys::utsname::uname().ok().and_then(|name| kernel_version(name.release().to_str()?));
        release.is_none_or(|version| version >= (5, 12))
    })
}

/// The first two numbers of a kernel release such as `6.1.0-13-amd64`.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Asks for big buffers, so that a burst, or a loop that is late by some milliseconds, loses nothing. Without privilege
/// the system's maximum (net.core.rmem_max) has to do; Apple's systems refuse what is more than theirs
/// (kern.ipc.maxsockbuf), so they are asked for less until they agree.
fn enlarge_buffers(socket: &Socket) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use nix::sys::socket::{setsockopt, sockopt};
        let forced = setsockopt(socket, sockopt::RcvBufForce, &BUFFER)
            .and_then(|()| setsockopt(socket, sockopt::SndBufForce, &BUFFER));
        if forced.is_ok() {
            return;
        }
    }
    for set in [Socket::set_recv_buffer_size, Socket::set_send_buffer_size] {
        if let Err(error) = most_that_works(BUFFER, |bytes| set(socket, bytes)) {
            tracing::debug!(%error, "a buffer of the socket stays as it is");
        }
    }
}

/// Tries `bytes`, and half of it as long as that is refused for want of memory.
fn most_that_works(mut bytes: usize, set: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
    loop {
        match set(bytes) {
            Err(error) if SendErrorKind::of(&error) == SendErrorKind::NoBuffers && bytes / 2 >= LEAST_BUFFER => {
                bytes /= 2;
            }
            result => return result,
        }
    }
}

fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the value lives through the call and has the
    // length that is given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes of the kernel's buffers in each direction: 7 MiB, as wireguard-go asks for (conn/controlfns.go), which holds
/// what a 10 Gbit/s link brings in 5 ms, the kernel's own overhead of about a third included.
const BUFFER: usize = 7 << 20;

/// What every system has anyway.
const LEAST_BUFFER: usize = 128 << 10;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(kernel_version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.12-rc3"), Some((5, 12)));
        assert_eq!(kernel_version("5"), None);
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn buffers_are_as_large_as_the_system_allows() {
        let limit = |limit: usize| {
            let tried = std::cell::Cell::new(0);
            let result = most_that_works(BUFFER, |bytes| {
                tried.set(bytes);
                if bytes > limit { Err(io::Error::from_raw_os_error(libc::ENOBUFS)) } else { Ok(()) }
            });
            (result.is_ok(), tried.get())
        };
        assert_eq!(limit(BUFFER), (true, BUFFER));
        assert_eq!(limit(2 << 20), (true, BUFFER / 4));
        let (worked, least) = limit(0);
        assert!(!worked && (LEAST_BUFFER..2 * LEAST_BUFFER).contains(&least));
    }

    fn option(endpoint: &Endpoint, level: libc::c_int, name: libc::c_int) -> libc::c_int {
        let (mut value, mut len) = (-1, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: both pointers are to locals that live through the call, and the length is the value's.
        let result = unsafe {
            libc::getsockopt(endpoint.socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        value
    }

    #[test]
    fn datagrams_may_be_fragmented_and_carry_no_time_stamps() {
        let v4 = Endpoint::bind(Family::V4, 0).unwrap();
        assert_eq!(option(&v4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DONT);
        assert_eq!(option(&v4, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), 0);
        let v6 = Endpoint::bind(Family::V6, 0).unwrap();
        assert_eq!(option(&v6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), libc::IPV6_PMTUDISC_DONT);
        assert_eq!(option(&v6, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG), 0);
        assert_eq!(option(&v6, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
    }
}
