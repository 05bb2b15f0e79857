//! Ordinary blocking sockets whose calls end now and then, so that whoever waits in one can look up.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::failure::{Failure, Kind, Outcome};
use crate::watch::{SLICE, Watch};

/// A listener on a free port, in the network namespace of the calling thread.
pub(crate) fn listen(address: IpAddr) -> Outcome<TcpListener> {
    let listener = TcpListener::bind((address, 0))?;
    // It counts for accept(2) too (socket(7), SO_RCVTIMEO).
    SockRef::from(&listener).set_read_timeout(Some(SLICE))?;
    Ok(listener)
}

/// A socket to connect with, in the network namespace of the calling thread.
pub(crate) fn socket(to: SocketAddr) -> Outcome<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    // It counts for connect(2) too (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(SLICE))?;
    socket.set_read_timeout(Some(SLICE))?;
    Ok(socket)
}

/// Connects, however long it takes.
pub(crate) fn connect(watch: &Watch, socket: Socket, to: SocketAddr, what: &str) -> Outcome<TcpStream> {
    patiently(watch, what, || try_connect(&socket, to))?;
    Ok(socket.into())
}

/// Connects, or goes on with it, for as long as the socket's calls may take.
pub(crate) fn try_connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        // The time limit was over; calling it again goes on waiting.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY)) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        // It was over while the connection came about.
        Err(error) if error.raw_os_error() == Some(libc::EISCONN) => Ok(()),
        result => result,
    }
}

/// Accepts a connection, however long it takes; the stream's calls end now and then too.
pub(crate) fn accept(watch: &Watch, listener: &TcpListener, what: &str) -> Outcome<TcpStream> {
    let (stream, _) = patiently(watch, what, || listener.accept())?;
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_write_timeout(Some(SLICE))?;
    Ok(stream)
}

/// Repeats what has ended without a result, as long as there is no reason to stop.
pub(crate) fn patiently<T>(watch: &Watch, what: &str, mut work: impl FnMut() -> io::Result<T>) -> Outcome<T> {
    loop {
        watch.check()?;
        match work() {
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(Failure::new(Kind::Network, format!("{what}: {error}"))),
            Ok(value) => return Ok(value),
        }
    }
}

/// Whether a socket with a time limit had nothing to say before it was over.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
