//! What every tunnel has to carry, whoever its ends are.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::netns::Namespace;
use crate::quick::Ends;
use crate::tools::{self, Flow, IperfServer, Pings};

/// Sends packets of all sizes, TCP and UDP between the [`Ends`] that run in `a` and `b`, over both inner families and
/// both ways.
///
/// # Errors
/// If anything is missing at the other end; with what it was.
pub fn carries_everything(a: &Namespace, b: &Namespace, mtu: usize) -> Result<Carried> {
    let mut carried = Carried { bytes: [0; 2], flows: Vec::new() };
    for (own, target, headers) in [(Ends::A4, Ends::B4, IPV4_ICMP), (Ends::A6, Ends::B6, IPV6_ICMP)] {
        for (from, to) in [(a, target), (b, own)] {
            pings(from, to, mtu - headers).with_context(|| format!("ping from {} to {to}", from.name()))?;
        }
        let server = IperfServer::start(b, target)?;
        for (way, sum) in carried.bytes.iter_mut().enumerate() {
            let reverse = way == 1;
            let flow = server.measure(a, SECOND, reverse)?;
            // A tenth of what a slow machine does in a debug build.
            ensure!(flow.bytes > 1_000_000, "{target}, reverse {reverse}: {flow:?}");
            let length = u16::try_from(mtu - headers)?;
            let udp = server.measure_udp(a, SECOND, reverse, UDP_RATE, length)?;
            ensure!(udp.packets > 100 && udp.lost == 0, "{target}, reverse {reverse}: {udp:?}");
            *sum += flow.bytes + udp.packets * u64::from(length);
            carried.flows.push(flow);
        }
    }
    Ok(carried)
}

/// What [`carries_everything`] has carried.
#[derive(Debug, Clone)]
pub struct Carried {
    /// Payload of TCP and UDP in bytes, from `a` to `b` and from `b` to `a`.
    pub bytes: [u64; 2],
    /// The flows of TCP: over IPv4 there and back, and over IPv6 there and back.
    pub flows: Vec<Flow>,
}

/// Pings of which none may be lost: small, as large as the MTU allows, too large, and in fragments.
fn pings(from: &Namespace, to: IpAddr, largest: usize) -> Result<()> {
    let all = |pings: Pings| {
        ensure!(pings.received == pings.sent, "{pings:?}");
        Ok(())
    };
    all(tools::ping(from, to, 20, SOON)?)?;
    for size in [0, 1, 15, 16, 17, 1000, largest - 1, largest] {
        all(tools::ping_sized(from, to, 1, SOON, size)?).with_context(|| format!("{size} bytes"))?;
    }
    let too_large = tools::ping_sized(from, to, 1, SOON, largest + 1)?;
    ensure!(too_large.received == 0, "{} bytes fit: {too_large:?}", largest + 1);
    for size in [largest + 1, 4000, 20_000] {
        all(tools::ping_in_fragments(from, to, 2, SOON, size)?).with_context(|| format!("{size} bytes, fragments"))?;
    }
    Ok(())
}

/// Bytes of the headers of IPv4 (RFC 791) and of an ICMP echo (RFC 792); UDP's has as many.
const IPV4_ICMP: usize = 20 + 8;

/// Bytes of the headers of IPv6 (RFC 8200) and of an ICMPv6 echo (RFC 4443); UDP's has as many.
const IPV6_ICMP: usize = 40 + 8;

/// Bits per second: some 180 packets, of which the default receive buffer of a socket (net.core.rmem_default, 208 KiB)
/// holds half a second's, so that none is lost when a program has to wait for a processor.
const UDP_RATE: u32 = 2_000_000;

const SOON: Duration = Duration::from_millis(10);

const SECOND: Duration = Duration::from_secs(1);
