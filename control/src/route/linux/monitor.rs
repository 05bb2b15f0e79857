//! Notices that somebody has changed the host's links, addresses, routes, policy rules or nftables.
//!
//! Two netlink sockets join the kernel's multicast groups (rtnetlink(7), linux/rtnetlink.h RTNLGRP_*, nfnetlink.h
//! NFNLGRP_NFTABLES). What a message says is not read, only that one came: messages get lost when a socket's buffer is
//! full, so whoever relies on their contents is wrong sooner or later, and whoever reads the host again is not. A lost
//! message counts as a change. Nothing is kept of a message, so memory does not grow with their number.
//!
//! Changes by this very process are told of as well: a caller that repairs something looks once more and finds nothing.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::debounce::Debouncer;
use crate::route::error::{Reason, RouteError};

/// Tells when the host's routing has changed, in the network namespace of the thread that opened it.
pub struct Monitor {
    routing: TokioSocket,
    /// `None` where the kernel has no nftables.
    filter: Option<TokioSocket>,
    debounce: Debouncer,
}

impl Monitor {
    /// Begins to listen; must be called inside a tokio runtime. What was changed before is not noticed, so the caller
    /// looks at the host once after this.
    ///
    /// A kernel without nftables is no error: nobody changes them there.
    ///
    /// # Errors
    ///
    /// [`RouteError::Kernel`] with [`Reason::NoSocket`]: there is no socket to be had.
    pub fn open() -> Result<Self, RouteError> {
        let routing = listen(NETLINK_ROUTE, ROUTING_GROUPS).map_err(|error| RouteError::Kernel {
            action: "listen to",
            object: "changes of the kernel's routing".into(),
            reason: Reason::NoSocket(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
        })?;
        let filter = listen(NETLINK_NETFILTER, NFTABLES_GROUP)
            .inspect_err(|error| tracing::debug!(%error, "changes of nftables are not noticed"))
            .ok();
        Ok(Self { routing, filter, debounce: Debouncer::new(QUIET, LONGEST) })
    }

    /// Waits until something has changed and then nothing more for 200 ms, or changes have gone on for 2 s. Nothing is
    /// lost if the wait is given up and begun again.
    pub async fn changed(&mut self) {
        let Self { routing, filter, debounce } = self;
        loop {
            let due = debounce.due();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    if debounce.fire(Instant::now()) {
                        return;
                    }
                }
                () = notice(Some(routing)) => debounce.handle_event(Instant::now()),
                () = notice(filter.as_mut()) => debounce.handle_event(Instant::now()),
            }
        }
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("debounce", &self.debounce).finish_non_exhaustive()
    }
}

/// Waits for a message, and throws away what has come meanwhile; never ends without a socket.
async fn notice(socket: Option<&mut TokioSocket>) {
    let Some(socket) = socket else { return std::future::pending().await };
    // The kernel throws away what of a message does not fit (recv(2)).
    let first = socket.recv(&mut &mut [0; SOME][..]).await;
    let outcome = first.or_else(lost).and_then(|()| drain(socket));
    if let Err(error) = outcome {
        // A socket that cannot be read tells nothing any more, so time has to: the caller looks now and then.
        tracing::debug!(%error, "the kernel's messages cannot be read");
        tokio::time::sleep(AFTER_ERROR).await;
    }
}

/// Takes what has come off a socket, a bounded number of messages; the rest is noticed by the next call.
fn drain(socket: &TokioSocket) -> io::Result<()> {
    for _ in 0..MESSAGES_AT_ONCE {
        match socket.socket_ref().recv(&mut &mut [0; SOME][..], 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            result => result.map(drop).or_else(lost)?,
        }
    }
    Ok(())
}

/// That messages were lost is a change as good as any.
fn lost(error: io::Error) -> io::Result<()> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOBUFS | Errno::EINTR) => Ok(()),
        _ => Err(error),
    }
}

fn listen(protocol: isize, groups: u32) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    // Only the kernel and root may send to these groups, so a message needs no look at its sender (netlink(7)).
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// The bit of a multicast group in an address's mask (netlink(7)).
const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, _ROUTE, _RULE, RTNLGRP_IPV6_IFADDR, _ROUTE, _RULE (linux/rtnetlink.h).
///
/// Links and addresses are needed for the routes' sake too: of IPv4 routes that go with their link or address the kernel
/// says nothing (net/ipv4/fib_trie.c, fib_table_flush).
const ROUTING_GROUPS: u32 = group(1) | group(5) | group(7) | group(8) | group(9) | group(11) | group(19);
/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = group(7);

/// A burst of changes is over when nothing was changed for this long; Mullvad's daemon has the same for routes.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that go on and on are looked at after this long.
const LONGEST: Duration = Duration::from_secs(2);
/// The pause after a socket's error, so that an error that stays costs nothing.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// A turn of a busy socket takes well below a millisecond with this many.
const MESSAGES_AT_ONCE: usize = 256;
/// Bytes of a message that are taken off the socket.
const SOME: usize = 16;
