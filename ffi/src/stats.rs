//! The numbers of a tunnel, in a struct that can grow.

use crate::caller::Plain;

/// Numbers of a tunnel. Counters begin at zero with each start.
///
/// Set `size` to `sizeof(AditStats)` before the call: a library that knows fewer fields than your header sets the others
/// to zero, one that knows more leaves them out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AditStats {
    /// `sizeof(AditStats)`, set by you; not changed.
    pub size: usize,
    /// One of `ADIT_STATE_…`.
    pub state: u32,
    /// Always 0.
    pub reserved: u32,
    /// Milliseconds since the tunnel came up; 0 if it is not up.
    pub uptime_ms: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// IP packets taken from the host and sent encrypted.
    pub packets_out: u64,
    /// IP packets received, decrypted and given to the host.
    pub packets_in: u64,
    /// Packets and datagrams that went nowhere, for whatever reason.
    pub drops: u64,
    /// Calls of `adit_tunnel_inject` that were refused with `ADIT_ERROR_PACKET`; of the tunnel's whole life.
    pub inject_refused: u64,
    /// Injected packets that found no room.
    pub inject_no_room: u64,
    /// Packets for the host that found no room because it did not keep up.
    pub output_dropped: u64,
    /// Times that the host was called; of the tunnel's whole life.
    pub callbacks: u64,
    /// Handshake messages sent.
    pub handshakes: u64,
    /// Milliseconds since the newest handshake; UINT64_MAX if there was none.
    pub last_handshake_age_ms: u64,
    /// Round trip of the newest handshake in microseconds; UINT64_MAX if it is not known.
    pub handshake_rtt_us: u64,
    /// Bytes that are allocated for packets.
    pub packet_memory_bytes: u64,
    /// The most that may be allocated for packets.
    pub packet_memory_budget: u64,
    /// Bytes of packets that wait: for a handshake, for the tunnel, or for the host.
    pub queued_bytes: u64,
    /// Sockets made.
    pub sockets_created: u64,
    /// Sockets made anew because the network changed or they were broken.
    pub rebinds: u64,
    /// How often the packet loop slept and was woken.
    pub wakeups: u64,
}

// SAFETY: integers have no invalid pattern, and there is no padding between them.
unsafe impl Plain for AditStats {}

impl AditStats {
    /// The size of the first version's struct, which every caller knows at least.
    pub(crate) const SMALLEST: usize = 2 * size_of::<usize>();
}
