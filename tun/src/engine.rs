//! What the packet loop drives.
//!
//! That is [`Engine`], except where somebody wants to know what the loop costs by itself: a benchmark puts something in
//! its place that moves the same bytes and has no cipher. The trait has the engine's own methods, and none of its own.

use std::time::{Duration, Instant, SystemTime};

use adit_core::offload::VirtioNetHeader;
use adit_core::{
    Command, CommandError, Deadline, DropReason, Ecn, Engine, EngineStats, Event, Outputs, Snapshot, Source, TunPacket,
};

use crate::queue::{SendQueue, WriteQueue};

/// Where the pump's engine puts what it makes.
pub type PumpOutputs<'a> = Outputs<'a, SendQueue, WriteQueue>;

/// A state machine between packets and datagrams; see the methods of [`Engine`] with the same names.
pub trait PacketEngine: Send + 'static {
    /// Takes a packet from the host, to which `offload` is still to be done.
    fn handle_tun(&mut self, packet: TunPacket<'_>, offload: VirtioNetHeader, now: Instant, out: &mut PumpOutputs<'_>);

    /// Takes a datagram from the underlay.
    fn handle_udp(&mut self, from: Source, ecn: Ecn, datagram: &[u8], now: Instant, out: &mut PumpOutputs<'_>);

    /// Looks after deadlines that have come.
    fn handle_timeout(&mut self, now: Instant, out: &mut PumpOutputs<'_>);

    /// Takes a command.
    ///
    /// # Errors
    /// Those of [`Engine::handle_command`].
    fn handle_command(
        &mut self,
        command: Command,
        now: Instant,
        wall: SystemTime,
        out: &mut PumpOutputs<'_>,
    ) -> Result<(), CommandError>;

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    fn poll_timeout(&self) -> Option<Deadline>;

    /// The oldest event that was not polled yet.
    fn poll_event(&mut self) -> Option<Event>;

    /// The tunnel's MTU, in bytes.
    fn mtu(&self) -> usize;

    /// Counts drops that the loop made.
    fn count_drops(&mut self, reason: DropReason, count: u64);

    /// Everything that can be told.
    fn snapshot(&self, now: Instant) -> Snapshot;

    /// What can be asked often. An engine that knows a cheaper way than its [`snapshot`](Self::snapshot) takes that.
    fn counters(&self, now: Instant) -> EngineCounters {
        let snapshot = self.snapshot(now);
        let newest = snapshot.peers.iter().filter_map(|peer| Some((peer.last_handshake?, peer.handshake_round_trip)));
        EngineCounters::new(snapshot.engine, newest.max_by_key(|(at, _)| *at))
    }
}

/// The numbers of an engine that are worth showing all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineCounters {
    /// Counters of the engine.
    pub stats: EngineStats,
    /// When the newest handshake of any peer was completed.
    pub last_handshake: Option<Instant>,
    /// The round trip of that handshake, if this side began it.
    pub handshake_round_trip: Option<Duration>,
}

impl EngineCounters {
    fn new(stats: EngineStats, newest: Option<(Instant, Option<Duration>)>) -> Self {
        let (last_handshake, round_trip) = newest.unzip();
        Self { stats, last_handshake, handshake_round_trip: round_trip.flatten() }
    }
}

impl PacketEngine for Engine {
    #[inline]
    fn handle_tun(&mut self, packet: TunPacket<'_>, offload: VirtioNetHeader, now: Instant, out: &mut PumpOutputs<'_>) {
        // What becomes of a packet is counted.
        let _verdict = if offload == VirtioNetHeader::default() {
            Self::handle_tun(self, packet, now, out)
        } else {
            self.handle_tun_offload(packet, offload, now, out)
        };
    }

    #[inline]
    fn handle_udp(&mut self, from: Source, ecn: Ecn, datagram: &[u8], now: Instant, out: &mut PumpOutputs<'_>) {
        let _verdict = Self::handle_udp(self, from, ecn, datagram, now, out);
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut PumpOutputs<'_>) {
        Self::handle_timeout(self, now, out);
    }

    fn handle_command(
        &mut self,
        command: Command,
        now: Instant,
        wall: SystemTime,
        out: &mut PumpOutputs<'_>,
    ) -> Result<(), CommandError> {
        Self::handle_command(self, command, now, wall, out)
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        Self::poll_timeout(self)
    }

    fn poll_event(&mut self) -> Option<Event> {
        Self::poll_event(self)
    }

    fn mtu(&self) -> usize {
        Self::mtu(self)
    }

    fn count_drops(&mut self, reason: DropReason, count: u64) {
        Self::count_drops(self, reason, count);
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        Self::snapshot(self, now)
    }

    fn counters(&self, _now: Instant) -> EngineCounters {
        EngineCounters::new(self.stats(), self.newest_handshake())
    }
}
