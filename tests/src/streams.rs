//! TCP connections whose every byte is checked, in one direction or in both at once.
//!
//! They run until a number of bytes is sent or until they are told to finish, and they can pause: the connection stays,
//! and nothing is sent. A connection that is dropped breaks off at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};

use crate::netns::Namespace;
use crate::pattern::Pattern;
use crate::wait::{eventually, eventually_some};

/// What connections do.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// How many there are.
    pub streams: usize,
    /// Whether the end that was connected to sends as well.
    pub both_ways: bool,
    /// What each sends in each direction; absent if until [`Streams::finish`].
    pub bytes: Option<u64>,
    /// Sizes of writes, used in turn; what each leaves is pushed out at once (TCP_NODELAY).
    pub writes: &'static [usize],
    /// The maximum segment size that both ends keep to, in bytes; what the route gives if absent.
    pub mss: Option<u32>,
}

impl StreamOptions {
    /// Writes as large as a super-packet: what a download does.
    pub const LARGE: &[usize] = &[Pattern::LONGEST];

    /// Writes of all sorts: single bytes, about a segment, odd ones, and more than a super-packet holds.
    pub const ODD: &[usize] = &[1, 1379, 13, 1381, 4001, 7, 65_535, 1380, 2, 20_011, 536];
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { streams: 1, both_ways: false, bytes: None, writes: Self::LARGE, mss: None }
    }
}

/// Running connections.
#[derive(Debug)]
pub struct Streams {
    control: Arc<Control>,
    flows: Vec<Arc<Flow>>,
    workers: Vec<JoinHandle<Result<()>>>,
    /// Both ends of each connection.
    sockets: Vec<[TcpStream; 2]>,
}

impl Streams {
    /// Connects from `from` to `target` in `to` and begins.
    ///
    /// # Errors
    /// If a connection cannot be made.
    pub fn start(from: &Namespace, to: &Namespace, target: IpAddr, options: &StreamOptions) -> Result<Self> {
        let listener = to.enter(|| TcpListener::bind((target, 0)))?.with_context(|| format!("listen on {target}"))?;
        listener.set_nonblocking(true)?;
        if let Some(mss) = options.mss {
            // Told to the other end, and kept to by the connections that are accepted.
            setsockopt(&listener, TcpMaxSeg, &mss).context("TCP_MAXSEG")?;
        }
        let mut streams = Self { control: Arc::default(), flows: Vec::new(), workers: Vec::new(), sockets: Vec::new() };
        for _ in 0..options.streams {
            let (near, far) = connect(from, &listener)?;
            streams.sockets.push([near, far]);
        }
        for number in 0..options.streams {
            streams.flow(number, Way::There, options)?;
            if options.both_ways {
                streams.flow(number, Way::Back, options)?;
            }
        }
        Ok(streams)
    }

    /// Starts the two threads of one direction of a connection.
    fn flow(&mut self, connection: usize, way: Way, options: &StreamOptions) -> Result<()> {
        let [near, far] = self.sockets.get(connection).context("no such connection")?;
        let (source, sink) = if way == Way::There { (near, far) } else { (far, near) };
        let (mut source, mut sink, options) = (source.try_clone()?, sink.try_clone()?, *options);
        let flow = Arc::new(Flow {
            way,
            pattern: Pattern::new(self.flows.len() as u64),
            name: format!("connection {connection}, {way:?}"),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
        });
        let (control, writes, reads) = (Arc::clone(&self.control), Arc::clone(&flow), Arc::clone(&flow));
        self.workers.push(std::thread::spawn(move || writes.write(&control, &mut source, &options)));
        self.workers.push(std::thread::spawn(move || reads.read(&mut sink)));
        self.flows.push(flow);
        Ok(())
    }

    /// What has arrived on each way of each connection, in bytes.
    pub fn arrived(&self) -> Vec<u64> {
        self.flows.iter().map(|flow| flow.read.load(Ordering::Relaxed)).collect()
    }

    /// What has arrived in all: there, and back.
    pub fn totals(&self) -> [u64; 2] {
        [Way::There, Way::Back].map(|way| {
            self.flows.iter().filter(|flow| flow.way == way).map(|flow| flow.read.load(Ordering::Relaxed)).sum()
        })
    }

    /// Sends nothing more, or goes on.
    pub fn pause(&self, paused: bool) {
        *self.control.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        self.control.resumed.notify_all();
    }

    /// Whether a connection has ended that was to run until [`Streams::finish`], or has failed.
    pub fn has_ended(&self) -> bool {
        self.workers.iter().any(JoinHandle::is_finished)
    }

    /// Sends the rest, or no more, and waits until all of it has arrived; returns [`Streams::totals`].
    ///
    /// # Errors
    /// If a byte was wrong, less or more arrived than was sent, or it takes longer than `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<[u64; 2]> {
        self.control.enough.store(true, Ordering::Relaxed);
        self.pause(false);
        let all = eventually("all bytes to arrive", limit, || self.workers.iter().all(JoinHandle::is_finished));
        self.break_off();
        let mut results: Vec<_> = self.workers.drain(..).rev().map(JoinHandle::join).collect();
        // A wrong byte says more than a connection that broke because of it, and both more than the limit.
        results.sort_by_key(|result| !matches!(result, Ok(Err(error)) if error.is::<Wrong>()));
        for result in results {
            result.map_err(|_| anyhow!("a thread panicked"))?.with_context(|| format!("{:?}", self.progress()))?;
        }
        all.with_context(|| format!("{:?}", self.progress()))?;
        for flow in &self.flows {
            let (written, read) = (flow.written.load(Ordering::Relaxed), flow.read.load(Ordering::Relaxed));
            ensure!(written == read, "{}: {written} bytes were sent and {read} arrived", flow.name);
        }
        Ok(self.totals())
    }

    fn progress(&self) -> Vec<(&str, u64, u64)> {
        let of = |flow: &'_ Arc<Flow>| (flow.written.load(Ordering::Relaxed), flow.read.load(Ordering::Relaxed));
        self.flows.iter().map(|flow| (flow.name.as_str(), of(flow).0, of(flow).1)).collect()
    }

    fn break_off(&self) {
        for socket in self.sockets.iter().flatten() {
            // It may be closed already.
            let _closed = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.control.enough.store(true, Ordering::Relaxed);
        self.pause(false);
        self.break_off();
        for worker in self.workers.drain(..) {
            let _result = worker.join();
        }
    }
}

/// Makes `count` connections, one after the other, over each of which a request and an answer of other odd lengths go.
///
/// # Errors
/// If a byte is wrong or missing.
pub fn short_connections(from: &Namespace, to: &Namespace, target: IpAddr, count: u64) -> Result<()> {
    let listener = to.enter(|| TcpListener::bind((target, 0)))?.with_context(|| format!("listen on {target}"))?;
    listener.set_nonblocking(true)?;
    let (question, answer) = (Pattern::new(1), Pattern::new(2));
    // From nothing to some segments, and over the border of a super-packet now and then.
    let length = |number: u64, step: u64| (number * step) % if number % 8 == 7 { 140_001 } else { 9_001 };
    for number in 0..count {
        let (mut near, mut far) = connect(from, &listener)?;
        let asked = length(number, 2_741);
        let answered = length(number, 1_379);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                read_all(&mut far, &question, asked)?;
                write_all(&mut far, &answer, answered)
            });
            write_all(&mut near, &question, asked)?;
            read_all(&mut near, &answer, answered)?;
            server.join().map_err(|_| anyhow!("the server panicked"))?
        })
        .with_context(|| format!("connection {number} to {target}: {asked} bytes there, {answered} back"))?;
    }
    Ok(())
}

fn read_all(socket: &mut TcpStream, pattern: &Pattern, length: u64) -> Result<()> {
    let (mut buffer, mut read) = (vec![0; Pattern::LONGEST], 0);
    socket.set_read_timeout(Some(PATIENCE))?;
    loop {
        match socket.read(&mut buffer).with_context(|| format!("after {read} bytes"))? {
            0 => break,
            count => {
                pattern.check(read, buffer.get(..count).unwrap_or_default())?;
                read += count as u64;
            }
        }
    }
    ensure!(read == length, "{read} bytes arrived instead of {length}");
    Ok(())
}

fn write_all(socket: &mut TcpStream, pattern: &Pattern, length: u64) -> Result<()> {
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut written = 0;
    while written < length {
        // Two writes of odd sizes at least: each ends with a pushed segment.
        let size = usize::try_from((length - written).min(length / 2 + 1)).unwrap_or(usize::MAX);
        let piece = pattern.at(written, size);
        socket.write_all(piece)?;
        written += piece.len() as u64;
    }
    Ok(socket.shutdown(Shutdown::Write)?)
}

/// The two ends of a new connection.
fn connect(from: &Namespace, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let target: SocketAddr = listener.local_addr()?;
    let near = from
        .enter(|| TcpStream::connect_timeout(&target, PATIENCE))?
        .with_context(|| format!("connect to {target}"))?;
    let (far, _) = eventually_some("the connection to be accepted", PATIENCE, || listener.accept().ok())?;
    far.set_nonblocking(false)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// One direction of a connection.
#[derive(Debug)]
struct Flow {
    name: String,
    way: Way,
    pattern: Pattern,
    written: AtomicU64,
    read: AtomicU64,
}

/// A byte that was not the one that was sent.
#[derive(Debug)]
struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// What all flows obey.
#[derive(Debug, Default)]
struct Control {
    enough: AtomicBool,
    paused: Mutex<bool>,
    resumed: Condvar,
}

impl Flow {
    fn write(&self, control: &Control, socket: &mut TcpStream, options: &StreamOptions) -> Result<()> {
        let mut written = 0;
        for size in options.writes.iter().cycle() {
            drop(
                control
                    .resumed
                    .wait_while(control.paused.lock().unwrap_or_else(PoisonError::into_inner), |paused| *paused)
                    .unwrap_or_else(PoisonError::into_inner),
            );
            let left = match options.bytes {
                Some(bytes) => usize::try_from(bytes - written).unwrap_or(usize::MAX),
                None if control.enough.load(Ordering::Relaxed) => 0,
                None => usize::MAX,
            };
            if left == 0 {
                break;
            }
            let piece = self.pattern.at(written, left.min(*size));
            socket.write_all(piece).with_context(|| format!("{}: after {written} bytes", self.name))?;
            written += piece.len() as u64;
            self.written.store(written, Ordering::Relaxed);
        }
        match socket.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn read(&self, socket: &mut TcpStream) -> Result<()> {
        let (mut buffer, mut read) = (vec![0; Pattern::LONGEST], 0);
        loop {
            let count = match socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("{}: after {read} bytes", self.name)),
            };
            let checked = self.pattern.check(read, buffer.get(..count).unwrap_or_default());
            if checked.is_err() {
                // The other end would wait for a reader that is gone.
                let _closed = socket.shutdown(Shutdown::Both);
            }
            checked.map_err(|error| Wrong(format!("{}: {error}", self.name)))?;
            read += count as u64;
            self.read.store(read, Ordering::Relaxed);
        }
    }
}

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(10);
