//! A kernel that forwards from one tun device to another.

use std::time::{Duration, Instant};

use adit_core::offload::VirtioNetHeader;
use adit_tests::raw_tun::{self, RawTun};
use adit_tests::{Namespace, require_root};
use anyhow::{Result, bail};

use crate::packet::{Ip, Packet};
use crate::shape::{DESTINATION4, DESTINATION6, Shape};

/// Everything written to `a` for the far addresses comes out of `b`, one hop older.
pub(crate) struct Router {
    pub(crate) namespace: Namespace,
    pub(crate) a: RawTun,
    pub(crate) b: RawTun,
    buffer: Vec<u8>,
}

impl Router {
    /// A router that has to segment: `b` takes plain packets only.
    pub(crate) fn new() -> Result<Self> {
        Self::with_flags(raw_tun::VNET_HDR, 0)
    }

    /// A router whose devices have these flags. `a` has to have the virtio header.
    pub(crate) fn with_flags(a: nix::libc::c_int, b: nix::libc::c_int) -> Result<Self> {
        require_root()?;
        let namespace = Namespace::new("router")?;
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            namespace.sysctl(key, "1")?;
        }
        for which in ["all", "default"] {
            namespace.sysctl(&format!("ipv4/conf/{which}/rp_filter"), "0")?;
        }
        let (a, b) = (RawTun::open(&namespace, "a", a)?, RawTun::open(&namespace, "b", b)?);
        for (device, net) in [("a", 98), ("b", 99)] {
            // Room for the segments of 64 KiB in pieces of a byte, and no packet is ever too big.
            namespace.ip(&format!("link set dev {device} mtu 65535 txqueuelen 70000 addrgenmode none up"))?;
            namespace.ip(&format!("addr add 10.{net}.0.1/24 dev {device}"))?;
            namespace.ip(&format!("addr add fd{net}::1/64 dev {device} nodad"))?;
        }
        Ok(Self { namespace, a, b, buffer: vec![0; VirtioNetHeader::LEN + 65_600] })
    }

    /// Hands `packets` to the kernel one after the other and returns everything that comes out, as it was read.
    pub(crate) fn forward<'a>(
        &mut self,
        packets: impl IntoIterator<Item = (VirtioNetHeader, &'a [u8])>,
    ) -> Result<Vec<Vec<u8>>> {
        for (header, bytes) in packets {
            let mut message = header.to_bytes().to_vec();
            message.extend(bytes);
            self.a.send(&message)?;
        }
        // The kernel keeps the order, so this comes out last.
        let end = Packet { payload: MARKER.to_vec(), ..Shape { udp: true, ..Shape::default() }.packet() };
        let mut message = VirtioNetHeader::default().to_bytes().to_vec();
        message.extend(end.bytes());
        self.a.send(&message)?;
        let mut received = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let Some(bytes) = self.b.receive(&mut self.buffer, PATIENCE)? else { break };
            if bytes.ends_with(MARKER) {
                return Ok(received);
            }
            // The kernel's own packets, such as reports of multicast groups, are for other addresses.
            let has = |address: &[u8]| bytes.windows(address.len()).take(60).any(|window| window == address);
            if has(&DESTINATION4) || has(&DESTINATION6) {
                received.push(bytes.to_vec());
            }
        }
        bail!("the end did not come out; {} packets did", received.len())
    }
}

/// The packet one hop later.
pub(crate) fn aged(packet: &Packet) -> Packet {
    let mut packet = packet.clone();
    match &mut packet.ip {
        Ip::V4(header) => header.time_to_live -= 1,
        Ip::V6(header, _) => header.hop_limit -= 1,
    }
    packet
}

/// Compares packet by packet, so that a failure names the first that differs and its bytes.
#[track_caller]
pub(crate) fn assert_same(got: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        if got != expected {
            let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
            let head = |bytes: &[u8]| format!("{:02x?}", &bytes[..bytes.len().min(160)]);
            panic!(
                "packet {index} of {what} differs at byte {at}\nthe kernel's: {}\nexpected:     {}",
                head(got),
                head(expected)
            );
        }
    }
    assert_eq!(got.len(), expected.len(), "packets of {what}");
}

const MARKER: &[u8] = b"the-end-of-this-step";

const PATIENCE: Duration = Duration::from_secs(10);
