//! What can be wrong with a key, a command or a packet.

use thiserror::Error;

/// A key that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A base64 key is 44 characters long.
    #[error("a key is 44 characters of base64 (32 bytes), this has {found}")]
    Length {
        /// Characters found.
        found: usize,
    },
    /// The text has the right length and is not base64 of 32 bytes.
    #[error("a key is 44 characters of base64 (32 bytes), this is not base64 of 32 bytes")]
    NotBase64,
    /// The UAPI protocol writes keys as 64 hexadecimal digits.
    #[error("a key is 64 hexadecimal digits here, this has {found} characters or a character that is no such digit")]
    NotHex {
        /// Characters found.
        found: usize,
    },
}

/// A command that the engine refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The peer table is full (`Limits::max_peers`).
    #[error("there are {limit} peers already, which is the limit")]
    TooManyPeers {
        /// The configured limit.
        limit: usize,
    },
    /// A command named a peer that the engine does not have.
    #[error("there is no peer {peer}")]
    UnknownPeer {
        /// The public key in base64.
        peer: String,
    },
    /// The tunnel MTU is out of range.
    #[error("an MTU of {found} bytes cannot be carried: {min} to {max} can")]
    Mtu {
        /// What was asked for, in bytes.
        found: usize,
        /// The smallest MTU that is accepted.
        min: usize,
        /// The largest MTU that is accepted.
        max: usize,
    },
}

/// Declares the reasons once, with the name that counters, JSON and log lines use.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet or a datagram went nowhere. Every drop in Adit is one of these, and is counted under its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The name in counters, JSON and log lines.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// From the host: not an IP packet, or shorter than its own header says.
    NotIp = "not_ip",
    /// From the host: its offload header contradicts the packet.
    MalformedOffload = "malformed_offload",
    /// From the host: no peer's allowed IPs contain the destination.
    NoRoute = "no_route",
    /// From the host: the peer has no endpoint yet, so nothing can be sent to it.
    NoEndpoint = "no_endpoint",
    /// From the host: longer than the tunnel's MTU.
    TooBig = "too_big",
    /// From the host: a datagram of the tunnel itself, on its way to a peer's endpoint, that was routed back into it.
    EndpointLoop = "endpoint_loop",
    /// From the host: waiting for a handshake, pushed out by newer packets or by the memory limit.
    StagingFull = "staging_full",
    /// From the host: waited for a handshake that did not come within 90 s (REKEY_ATTEMPT_TIME).
    HandshakeTimedOut = "handshake_timed_out",
    /// The peer was removed, or its keys were replaced, while the packet waited.
    PeerRemoved = "peer_removed",
    /// To the underlay: the send queue had no room.
    SendQueueFull = "send_queue_full",
    /// To the underlay: the socket refused the datagram.
    SendFailed = "send_failed",
    /// To the host: the write queue had no room.
    WriteQueueFull = "write_queue_full",
    /// To the host: the device refused the packet.
    WriteFailed = "write_failed",
    /// From the underlay: no WireGuard message (wrong type, reserved bytes or length).
    NotWireGuard = "not_wireguard",
    /// From the underlay: longer than any message that this tunnel can receive.
    Oversize = "oversize",
    /// From the underlay: the receiver index belongs to no peer.
    UnknownIndex = "unknown_index",
    /// From the underlay: a handshake initiation of a key that is no peer's.
    UnknownPeer = "unknown_peer",
    /// From the underlay: `mac1` is not made with this interface's public key.
    InvalidMac = "invalid_mac",
    /// From the underlay: authentication failed.
    InvalidTag = "invalid_tag",
    /// From the underlay: a transport message whose counter was seen before or is too old.
    Replayed = "replayed",
    /// From the underlay: a handshake initiation whose timestamp is not newer than the last one.
    StaleHandshake = "stale_handshake",
    /// From the underlay: a handshake response or cookie that nothing waits for.
    Unexpected = "unexpected",
    /// From the underlay: a transport message of a session that has ended.
    NoSession = "no_session",
    /// From the underlay: a handshake message answered with a cookie, because there are too many of them.
    UnderLoad = "under_load",
    /// From the underlay: no private key is configured.
    NoPrivateKey = "no_private_key",
    /// Decrypted, but not an IP packet, or longer than the datagram.
    InnerNotIp = "inner_not_ip",
    /// Decrypted, but the source address is not among the peer's allowed IPs.
    SpoofedSource = "spoofed_source",
    /// Decrypted, but congestion was marked on a flow that does not know ECN (RFC 6040 section 4.2; only if asked for).
    EcnNotCapable = "ecn_not_capable",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_are_numbered_like_the_list_and_named_once() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
