//! Every byte of packet memory, in one table per platform.
//!
//! All of it is allocated when a pump starts and none later, so the table is the whole packet memory of a tunnel. The
//! figures follow from each other: whatever one read can bring in, the queue behind it can take, so that a queue that
//! was empty before a read is never full because of it. The assertions below prove that and the budget when this file
//! is compiled. Kernel socket buffers are not part of it; `socket::udp` sets those.

/// Packet memory of one pump: sizes in bytes, everything else in items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryTable {
    /// Receive slots of [`RECEIVE_SLOT`] bytes, each one datagram or one UDP_GRO batch of datagrams.
    pub receive_slots: usize,
    /// Arena that a batch of packets is read into from the device.
    pub packet_bytes: usize,
    /// Most packets of one batch.
    pub packets: usize,
    /// Arena of datagrams on their way to the socket.
    pub send_bytes: usize,
    /// Most runs of datagrams in that arena; datagrams of one size to one peer share a run.
    pub send_runs: usize,
    /// Arena of packets on their way to the device.
    pub write_bytes: usize,
    /// Most packets in that arena.
    pub write_packets: usize,
    /// Each of the two arenas of packets on their way to a host that takes them with calls of its own: one is filled
    /// while the host works on the other. In the other direction there is a second batch of `packet_bytes`.
    pub host_bytes: usize,
    /// Most packets in such an arena.
    pub host_packets: usize,
    /// Commands that may wait for the pump.
    pub commands: usize,
    /// What all of the above may add up to.
    pub budget: usize,
}

impl MemoryTable {
    /// All packet memory, that of a host's calls and the queues' bookkeeping included (an upper bound of it).
    pub const fn total(&self) -> usize {
        let entries = self.receive_slots
            + 2 * self.packets
            + self.send_runs
            + self.write_packets
            + 2 * self.host_packets
            + self.commands;
        self.receive_slots * RECEIVE_SLOT
            + 2 * self.packet_bytes
            + self.send_bytes
            + self.write_bytes
            + 2 * self.host_bytes
            + entries * ENTRY
    }

    const fn holds(&self) -> bool {
        // One read of the device, sealed: each packet grows by a header, a tag and padding.
        let sealed = self.packet_bytes + self.packets * SEALED_GROWTH + RECEIVE_SLOT;
        // One read of the socket, opened: each datagram shrinks by more than the room in front of a packet.
        let opened = self.receive_slots * RECEIVE_SLOT + RECEIVE_SLOT;
        self.total() <= self.budget
            && self.packet_bytes >= crate::batch::MAX_ENTRY
            && self.send_bytes >= sealed
            && self.send_runs >= self.packets
            && self.write_bytes >= opened
            && self.write_packets >= self.receive_slots * GRO_SEGMENTS
            // Any packet fits into an arena that is empty.
            && self.host_bytes >= RECEIVE_SLOT
            && self.host_packets >= 1
    }
}

/// Linux and macOS. A process below 16 MB is the goal (BoringTun needs 4 MB, wireguard-go 335 MB in the same work);
/// pages that were never touched are not resident, so an idle tunnel holds far less than this.
pub const DESKTOP: MemoryTable = MemoryTable {
    // 16 full GRO batches are a megabyte: what a 10 Gbit/s link brings in 0.8 ms.
    receive_slots: 16,
    // About 180 packets of 1420 bytes, or three super-packets of 64 KiB; it stays inside a core's L2 cache.
    packet_bytes: 256 * KIB,
    packets: 128,
    // Three times a device batch, so that packets that waited for a handshake go out together with new ones.
    send_bytes: 1024 * KIB,
    send_runs: 1024,
    write_bytes: 17 * RECEIVE_SLOT,
    write_packets: 16 * GRO_SEGMENTS,
    host_bytes: 512 * KIB,
    host_packets: 512,
    commands: 64,
    budget: 6 * 1024 * KIB,
};

/// iOS, where a packet-tunnel provider is killed at 50 MiB, Swift's runtime and everything else included (15 MiB before
/// iOS 15). 8 MiB are set aside for packets; there is no GRO, so few receive slots do.
pub const IOS: MemoryTable = MemoryTable {
    receive_slots: 4,
    packet_bytes: 128 * KIB,
    packets: 64,
    send_bytes: 512 * KIB,
    send_runs: 512,
    write_bytes: 5 * RECEIVE_SLOT,
    write_packets: 4 * GRO_SEGMENTS,
    // Some 180 packets of 1420 bytes in each: what a gigabit link brings in 2 ms.
    host_bytes: 256 * KIB,
    host_packets: 256,
    commands: 64,
    budget: 8 * 1024 * KIB,
};

/// The table of the platform that this was built for.
pub const TABLE: MemoryTable = if cfg!(target_os = "ios") { IOS } else { DESKTOP };

/// The packet memory of one pump at most, in bytes; what it uses of it is resident.
pub const fn packet_memory() -> usize {
    TABLE.total()
}

/// Bytes of a receive slot: the longest UDP_GRO batch is one IP packet's worth of payload, below 64 KiB.
pub const RECEIVE_SLOT: usize = 64 * KIB;

/// Most datagrams that one UDP_GRO batch holds, and most segments of one UDP_SEGMENT send
/// (UDP_GRO_CNT_MAX in net/ipv4/udp_offload.c; UDP_MAX_SEGMENTS in include/linux/udp.h until Linux 6.8).
pub const GRO_SEGMENTS: usize = 64;

/// What sealing adds to a packet at most: 16 bytes of header, 16 of tag and 15 of padding (whitepaper section 5.4.6).
const SEALED_GROWTH: usize = 16 + 16 + 15;

/// An upper bound on one item's bookkeeping, in bytes; whoever keeps books asserts it.
pub(crate) const ENTRY: usize = 160;

const KIB: usize = 1024;

const _: () = assert!(DESKTOP.holds() && IOS.holds(), "the memory tables contradict themselves or their budget");
