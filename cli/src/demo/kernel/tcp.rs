//! The transfer over the kernel's TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::demo::Transferred;
use crate::demo::stream::{DIGEST, Digest, Incoming, Outgoing};
use crate::demo::tunnel::random_seed;
use crate::failure::{Failure, Kind, Outcome};
use crate::netns::sockets::{self, patiently};
use crate::watch::Watch;

/// Sends `size` bytes over the connection, receives them at the listener in another thread, and takes its answer.
pub(super) fn transfer(watch: &Watch, socket: Socket, listener: &TcpListener, size: u64) -> Outcome<Transferred> {
    let to = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| halting(watch, receive(watch, listener)));
        let sent =
            halting(watch, sockets::connect(watch, socket, to, WHAT).and_then(|stream| send(watch, stream, size)));
        let received = receiver.join().map_err(|_| Failure::failed("the receiver's thread has panicked"))?;
        let ((time, sent, answer), received_bytes) = (sent?, received?);
        Ok(Transferred { time, sent, answer, received_bytes })
    })
}

/// Makes everybody stop where one has failed; otherwise the other end would wait for it.
fn halting<T>(watch: &Watch, result: Outcome<T>) -> Outcome<T> {
    result.inspect_err(|failure| watch.halt(failure.clone()))
}

fn send(watch: &Watch, mut stream: TcpStream, size: u64) -> Outcome<(Duration, Digest, Digest)> {
    let mut out = Outgoing::new(size, random_seed()?);
    let begun = Instant::now();
    loop {
        let bytes = out.bytes();
        if bytes.is_empty() {
            break;
        }
        let sent = patiently(watch, WHAT, || stream.write(bytes))?;
        out.advance(sent);
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; DIGEST];
    let mut filled = 0;
    while filled < DIGEST {
        match patiently(watch, WHAT, || stream.read(&mut answer[filled..]))? {
            0 => return Err(Failure::new(Kind::Network, "the connection has ended before the receiver's answer")),
            read => filled += read,
        }
    }
    Ok((begun.elapsed(), out.digest(), Digest(answer)))
}

fn receive(watch: &Watch, listener: &TcpListener) -> Outcome<u64> {
    let mut stream = sockets::accept(watch, listener, WHAT)?;
    let mut incoming = Incoming::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match patiently(watch, WHAT, || stream.read(&mut buffer))? {
            0 => break,
            read => {
                incoming.take(&buffer[..read]);
                watch.arrived(read);
            }
        }
    }
    // So few bytes find room in a send buffer that has been empty so far.
    patiently(watch, WHAT, || stream.write_all(&incoming.digest().0))?;
    Ok(incoming.bytes())
}

/// What has failed, if it fails.
const WHAT: &str = "the transfer";

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
