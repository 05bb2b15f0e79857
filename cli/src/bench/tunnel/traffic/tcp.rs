//! TCP streams that are never idle, and the bytes that arrive at their receivers.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::Workers;
use crate::bench::tunnel::hosts::{Host, Hosts};
use crate::failure::{Failure, Kind, Outcome};
use crate::netns::sockets::{self, is_passing, patiently};
use crate::watch::Watch;

/// Running streams. Dropping it resets the connections.
#[derive(Debug, Default)]
pub(in crate::bench::tunnel) struct Streams {
    received: Arc<AtomicU64>,
    /// Other handles of all ends, to wake up whoever waits for them.
    ends: Vec<TcpStream>,
    workers: Workers,
}

impl Streams {
    /// Adds a stream from one host to the other, which has this address.
    pub(in crate::bench::tunnel) fn add(&mut self, watch: &Watch, hosts: &Hosts, from: Host, to: IpAddr) -> Outcome {
        let listener = hosts.on(from.other()).run(watch, "a TCP listener", move || sockets::listen(to))?;
        let to: SocketAddr = listener.local_addr()?;
        let socket = hosts.on(from).run(watch, "a TCP socket", move || sockets::socket(to))?;
        let begun = Instant::now();
        let in_time = || match begun.elapsed() < CONNECT_LIMIT {
            true => Ok(()),
            false => Err(io::Error::other(format!("no connection within {} s", CONNECT_LIMIT.as_secs()))),
        };
        patiently(watch, WHAT, || in_time().and_then(|()| sockets::try_connect(&socket, to)))?;
        let (receiver, _) = patiently(watch, WHAT, || in_time().and_then(|()| listener.accept()))?;
        receiver.set_read_timeout(Some(crate::watch::SLICE))?;
        let sender: TcpStream = socket.into();
        for end in [&sender, &receiver] {
            // What is under way when a measurement ends must not go on into the next one (socket(7), SO_LINGER).
            SockRef::from(end).set_linger(Some(Duration::ZERO))?;
            self.ends.push(end.try_clone()?);
        }
        self.start(sender, receiver)
    }

    fn start(&mut self, mut sender: TcpStream, mut receiver: TcpStream) -> Outcome {
        let received = Arc::clone(&self.received);
        self.workers.start("tcp-in", move |shared| {
            let mut buffer = vec![0; READ];
            while shared.goes_on() {
                match receiver.read(&mut buffer) {
                    Ok(0) => return Err(failed(&io::ErrorKind::UnexpectedEof.into())),
                    Ok(bytes) => {
                        received.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(failed(&error)),
                }
            }
            Ok(())
        })?;
        self.workers.start("tcp-out", move |shared| {
            let buffer = vec![0; WRITE];
            while shared.goes_on() {
                match sender.write(&buffer) {
                    Ok(_) => {}
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(failed(&error)),
                }
            }
            Ok(())
        })
    }

    /// Bytes that have arrived so far, of all streams.
    pub(in crate::bench::tunnel) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Fails if a stream has.
    pub(in crate::bench::tunnel) fn check(&self) -> Outcome {
        self.workers.check()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.workers.stop();
        for end in &self.ends {
            // It may have been reset already.
            let _gone = end.shutdown(Shutdown::Both);
        }
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(Kind::Network, format!("{WHAT}: {error}"))
}

const WHAT: &str = "a TCP stream";

/// Bytes of a write and of a read. What iperf3 takes, and twice that so that the receiver keeps up.
const WRITE: usize = 128 * 1024;
const READ: usize = 256 * 1024;

/// A connection takes one round trip, and a second for each packet of it that is lost (RFC 6298).
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
