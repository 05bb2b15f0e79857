//! The transfer over the kernel's TCP: ordinary blocking sockets whose calls end now and then, to look up.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ping::is_passing;
use crate::demo::Transferred;
use crate::demo::stream::{DIGEST, Digest, Incoming, Outgoing};
use crate::demo::tunnel::random_seed;
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::{SLICE, Watch};

/// A listener on a free port, in the network namespace of the calling thread.
pub(super) fn listen(address: IpAddr) -> Outcome<TcpListener> {
    let listener = TcpListener::bind((address, 0))?;
    // It counts for accept(2) too (socket(7), SO_RCVTIMEO).
    SockRef::from(&listener).set_read_timeout(Some(SLICE))?;
    Ok(listener)
}

/// A socket to connect with, in the network namespace of the calling thread.
pub(super) fn socket(to: SocketAddr) -> Outcome<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    // It counts for connect(2) too (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(SLICE))?;
    socket.set_read_timeout(Some(SLICE))?;
    Ok(socket)
}

/// Sends `size` bytes over the connection, receives them at the listener in another thread, and takes its answer.
pub(super) fn transfer(watch: &Watch, socket: Socket, listener: &TcpListener, size: u64) -> Outcome<Transferred> {
    let to = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| halting(watch, receive(watch, listener)));
        let sent = halting(watch, connect(watch, socket, to).and_then(|stream| send(watch, stream, size)));
        let received = receiver.join().map_err(|_| Failure::failed("the receiver's thread has panicked"))?;
        let ((time, sent, answer), received_bytes) = (sent?, received?);
        Ok(Transferred { time, sent, answer, received_bytes })
    })
}

/// Makes everybody stop where one has failed; otherwise the other end would wait for it.
fn halting<T>(watch: &Watch, result: Outcome<T>) -> Outcome<T> {
    result.inspect_err(|failure| watch.halt(failure.clone()))
}

fn connect(watch: &Watch, socket: Socket, to: SocketAddr) -> Outcome<TcpStream> {
    patiently(watch, || match socket.connect(&to.into()) {
        // The time limit was over; calling it again goes on waiting.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY)) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        result => result,
    })?;
    Ok(socket.into())
}

fn send(watch: &Watch, mut stream: TcpStream, size: u64) -> Outcome<(Duration, Digest, Digest)> {
    let mut out = Outgoing::new(size, random_seed()?);
    let begun = Instant::now();
    loop {
        let bytes = out.bytes();
        if bytes.is_empty() {
            break;
        }
        let sent = patiently(watch, || stream.write(bytes))?;
        out.advance(sent);
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; DIGEST];
    let mut filled = 0;
    while filled < DIGEST {
        match patiently(watch, || stream.read(&mut answer[filled..]))? {
            0 => return Err(Failure::new(Kind::Network, "the connection has ended before the receiver's answer")),
            read => filled += read,
        }
    }
    Ok((begun.elapsed(), out.digest(), Digest(answer)))
}

fn receive(watch: &Watch, listener: &TcpListener) -> Outcome<u64> {
    let (mut stream, _) = patiently(watch, || listener.accept())?;
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_write_timeout(Some(SLICE))?;
    let mut incoming = Incoming::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match patiently(watch, || stream.read(&mut buffer))? {
            0 => break,
            read => {
                incoming.take(&buffer[..read]);
                watch.arrived(read);
            }
        }
    }
    // So few bytes find room in a send buffer that has been empty so far.
    patiently(watch, || stream.write_all(&incoming.digest().0))?;
    Ok(incoming.bytes())
}

/// Repeats what has ended without a result, as long as there is no reason to stop.
fn patiently<T>(watch: &Watch, mut work: impl FnMut() -> io::Result<T>) -> Outcome<T> {
    loop {
        watch.check()?;
        match work() {
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(Failure::new(Kind::Network, format!("the transfer: {error}"))),
            Ok(value) => return Ok(value),
        }
    }
}

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
