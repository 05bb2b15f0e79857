//! A host that a tunnel is tried on: behind a router, with a local network, and the tunnel's far end beyond the router.
//!
//! Each of the host's neighbours answers to addresses that tell by which way they were reached: what is
//! [`BEYOND4`](Site::BEYOND4) is known to the far end alone, [`OPEN4`](Site::OPEN4) to the router and, through the tunnel,
//! to the far end, which forwards. A packet to the former on the router's links is a leak, whatever becomes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::adit::Adit;
use crate::capture::{Capture, Packet};
use crate::netns::Namespace;
use crate::quick::{Ends, Quick};
use crate::tools;
use crate::topology::Triple;

/// The host, its router and the far end, whose `adit` runs.
#[derive(Debug)]
pub struct Site {
    // Dropped before its namespace.
    /// The tunnel's far end.
    pub far: Adit,
    /// The hosts; `a` is the one that the tunnel is tried on.
    pub triple: Triple,
    /// The keys of both ends.
    pub ends: Ends,
}

impl Site {
    /// What only the far end knows, by IPv4.
    pub const BEYOND4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
    /// What only the far end knows, by IPv6.
    pub const BEYOND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
    /// What can be reached without the tunnel as well, by IPv4: the first address of a network for benchmarks (RFC 2544).
    pub const OPEN4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
    /// What can be reached without the tunnel as well, by IPv6.
    pub const OPEN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1));
    /// The router on the host's local network, by IPv4.
    pub const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 50, 254));
    /// The router on the host's local network, by IPv6.
    pub const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 0xfe));
    /// The router as the host's gateway on its first way, by IPv4.
    pub const GATEWAY4: IpAddr = Triple::ROUTER4;
    /// The router as the host's gateway on its first way, by IPv6.
    pub const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe));
    /// Another gateway on the same link, by IPv4.
    pub const OTHER_GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 253));
    /// Another gateway on the same link, by IPv6.
    pub const OTHER_GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfd));
    /// The router's end of the first way.
    pub const ROUTER_FIRST: &str = "toa1";
    /// The router's end of the second way.
    pub const ROUTER_SECOND: &str = "toa2";

    /// The hosts, with the far end up and the tunnel not begun.
    ///
    /// # Errors
    /// Without root, or if something does not come up.
    pub fn new() -> Result<Self> {
        let triple = Triple::new()?;
        let (a, router, b) = (&triple.a, &triple.router, &triple.b);
        for words in ["addr add 192.168.50.1/24 dev first0", "addr add fd50::1/64 dev first0"] {
            a.ip(words)?;
        }
        for words in [
            "addr add 192.168.50.254/24 dev toa1",
            "addr add fd50::fe/64 dev toa1",
            "addr add 198.51.100.253/24 dev toa1",
            "addr add 2001:db8:1::fd/64 dev toa1",
            "addr add 198.18.0.1/32 dev lo",
            "addr add 2001:db8:99::1/128 dev lo",
            // Back into the tunnel, for what comes out of it at the far end and goes on.
            "route add 10.77.0.0/24 via 203.0.113.1",
            "route add fd77::/64 via 2001:db8:3::1",
        ] {
            router.ip(words)?;
        }
        for (address, length) in [(Self::BEYOND4, 32), (Self::BEYOND6, 128)] {
            b.ip(&format!("addr add {address}/{length} dev lo"))?;
        }
        b.sysctl("ipv4/ip_forward", "1")?;
        b.sysctl("ipv6/conf/all/forwarding", "1")?;
        let ends = Ends::new()?;
        let far = Adit::start(b, &ends.config_b(None).allowing(&["10.77.0.1/32", "fd77::1/128"]))?;
        Ok(Self { far, triple, ends })
    }

    /// The host that the tunnel is tried on.
    pub fn a(&self) -> &Namespace {
        &self.triple.a
    }

    /// A tunnel of the host to the far end with the given allowed IPs.
    pub fn config(&self, allowed_ips: &[&str]) -> Quick {
        self.ends.config_a(Some(Triple::B4)).allowing(allowed_ips)
    }

    /// A tunnel of the host that takes everything.
    pub fn full(&self) -> Quick {
        self.config(&["0.0.0.0/0", "::/0"])
    }

    /// Captures what the host lets out, on both ways.
    ///
    /// # Errors
    /// If tcpdump does not begin.
    pub fn capture(&self, phase: &str) -> Result<Capture> {
        Capture::start(&self.triple.router, &[Self::ROUTER_FIRST, Self::ROUTER_SECOND], phase)
    }

    /// Whether a packet of the host is a message of its tunnel to the far end.
    pub fn is_tunnel(packet: &Packet) -> bool {
        packet.is_tunnel(Ends::PORT) && packet.target().is_some_and(|to| to == Triple::B4 || to == Triple::B6)
    }

    /// Whether a packet goes to the host's local network.
    pub fn is_local(packet: &Packet) -> bool {
        match packet.target() {
            Some(IpAddr::V4(to)) => matches!(to.octets(), [192, 168, 50, _]),
            Some(IpAddr::V6(to)) => to.octets().starts_with(&[0xfd, 0x50, 0, 0, 0, 0, 0, 0]),
            None => false,
        }
    }

    /// Gives the host its default routes by the first way again, as its network would.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn route_by(&self, gateway4: IpAddr, gateway6: IpAddr) -> Result<()> {
        self.a().ip(&format!("-4 route replace default via {gateway4} dev {}", Triple::FIRST))?;
        self.a().ip(&format!("-6 route replace default via {gateway6} dev {}", Triple::FIRST))?;
        Ok(())
    }

    /// Takes the host's first link down and up again and gives it back what it has lost by that.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn flap(&self) -> Result<()> {
        let a = self.a();
        a.ip("link set first0 down")?;
        a.ip("link set first0 up")?;
        // IPv6 addresses go with the link; those of IPv4 stay, their routes do not.
        for address in ["2001:db8:1::1/64", "fd50::1/64"] {
            a.ip(&format!("-6 addr replace {address} dev first0"))?;
        }
        self.route_by(Self::GATEWAY4, Self::GATEWAY6)
    }

    /// Fails unless everything beyond is reached, or nothing.
    ///
    /// # Errors
    /// With what was reached and should not be, or the other way round.
    pub fn ensure_beyond(&self, reached: bool) -> Result<()> {
        for target in [Self::BEYOND4, Self::BEYOND6] {
            let (sent, wait) = (3, Duration::from_millis(10));
            match tools::ping(self.a(), target, sent, wait) {
                Ok(pings) => ensure!(pings.received == if reached { sent } else { 0 }, "{target}: {pings:?}"),
                // Without a way ping(8) does not even begin.
                Err(error) => ensure!(!reached, "{target}: {error:#}"),
            }
        }
        Ok(())
    }
}
