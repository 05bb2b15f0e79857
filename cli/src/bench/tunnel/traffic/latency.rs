//! Round trips of one small UDP packet at a time, between two ordinary sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::{RoundTrips, Workers, pause};
use crate::bench::tunnel::hosts::{Host, Hosts};
use crate::failure::{Failure, Kind, Outcome};
use crate::netns::sockets::is_passing;
use crate::watch::{SLICE, Watch};

/// Somebody who answers on host B, until this is dropped, and somebody who asks on host A.
#[derive(Debug)]
pub(in crate::bench::tunnel) struct Echo {
    asking: UdpSocket,
    sequence: u64,
    /// Only held: they end with it.
    _workers: Workers,
}

impl Echo {
    pub(in crate::bench::tunnel) fn start(watch: &Watch, hosts: &Hosts, to: Ipv4Addr) -> Outcome<Self> {
        let to = IpAddr::from(to);
        let answering = hosts.on(Host::B).run(watch, "a UDP socket", move || {
            let socket = UdpSocket::bind((to, 0))?;
            socket.set_read_timeout(Some(SLICE))?;
            Ok(socket)
        })?;
        let port = answering.local_addr()?.port();
        let asking = hosts.on(Host::A).run(watch, "a UDP socket", move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(SLICE))?;
            socket.connect((to, port))?;
            Ok(socket)
        })?;
        let mut workers = Workers::default();
        workers.start("echo", move |shared| {
            let mut buffer = [0; PAYLOAD];
            while shared.goes_on() {
                match answering.recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        answering.send_to(&buffer[..len], from)?;
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })?;
        Ok(Self { asking, sequence: 0, _workers: workers })
    }

    /// Asks again and again for a while.
    pub(in crate::bench::tunnel) fn ask(&mut self, watch: &Watch, time: Duration) -> Outcome<RoundTrips> {
        let end = Instant::now() + time;
        let (mut times, mut lost) = (Vec::new(), 0);
        while Instant::now() < end {
            match self.once(watch)? {
                Some(time) => times.push(time),
                None => lost += 1,
            }
            pause(watch, INTERVAL)?;
        }
        Ok(RoundTrips::new(times, lost))
    }

    fn once(&mut self, watch: &Watch) -> Outcome<Option<Duration>> {
        self.sequence += 1;
        let mut packet = [0; PAYLOAD];
        packet[..8].copy_from_slice(&self.sequence.to_be_bytes());
        let mut answer = [0; PAYLOAD];
        let begun = Instant::now();
        let failed = |error: io::Error| Failure::new(Kind::Network, format!("a round trip: {error}"));
        self.asking.send(&packet).map_err(failed)?;
        while begun.elapsed() < LIMIT {
            watch.check()?;
            match self.asking.recv(&mut answer) {
                Ok(_) if answer == packet => return Ok(Some(begun.elapsed())),
                // An answer that was given up.
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(None)
    }
}

/// Bytes of a request and of its answer.
const PAYLOAD: usize = 64;

/// Between an answer and the next request: long enough for everybody to go to sleep, as in a conversation.
const INTERVAL: Duration = Duration::from_millis(1);

/// An answer that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(1);
