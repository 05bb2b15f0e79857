//! Underlays: two hosts on one link, and two hosts with a router and a choice of ways between them.
//!
//! Links are made inside the namespaces, so the machine's own namespace never sees them. Addresses are those that RFC
//! 5737 and RFC 3849 reserve for documentation. What is returned is ready: the kernel has noticed that its links are up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;

use crate::netns::Namespace;
use crate::wait::eventually;

/// Two namespaces joined by one link.
#[derive(Debug)]
pub struct Pair {
    /// The host with [`Pair::A4`] and [`Pair::A6`].
    pub a: Namespace,
    /// The host with [`Pair::B4`] and [`Pair::B6`].
    pub b: Namespace,
}

/// What a [`Pair`] may have otherwise.
#[derive(Debug, Clone, Copy)]
pub struct PairOptions {
    /// MTU of the link, in bytes; the kernel takes IPv6 from the link below 1280.
    pub mtu: u32,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self { mtu: 1500 }
    }
}

impl Pair {
    /// IPv4 address of `a`.
    pub const A4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    /// IPv4 address of `b`.
    pub const B4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
    /// IPv6 address of `a`.
    pub const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
    /// IPv6 address of `b`.
    pub const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
    /// Name of the link in both namespaces.
    pub const LINK: &str = "under0";

    /// A pair on an Ethernet-sized link.
    ///
    /// # Errors
    /// Without root or if the kernel refuses.
    pub fn new() -> Result<Self> {
        Self::with(PairOptions::default())
    }

    /// A pair with the given options.
    ///
    /// # Errors
    /// Without root or if the kernel refuses.
    pub fn with(options: PairOptions) -> Result<Self> {
        let pair = Self { a: Namespace::new("a")?, b: Namespace::new("b")? };
        join(&pair.a, Self::LINK, &pair.b, Self::LINK)?;
        for (side, v4, v6) in [(&pair.a, Self::A4, Self::A6), (&pair.b, Self::B4, Self::B6)] {
            side.ip(&format!("link set {} mtu {}", Self::LINK, options.mtu))?;
            address(side, Self::LINK, v4)?;
            if options.mtu >= IPV6_MIN_MTU {
                address(side, Self::LINK, v6)?;
            }
            side.ip(&format!("link set {} up", Self::LINK))?;
        }
        for side in [&pair.a, &pair.b] {
            wait_up(side, Self::LINK)?;
        }
        Ok(pair)
    }
}

/// A host `a` with two ways, over a router, to a host `b`: for endpoints that change their address.
///
/// `a` reaches the router over [`Triple::FIRST`] (addresses `A4`, `A6`) or [`Triple::SECOND`] (`SECOND4`, `SECOND6`);
/// [`Triple::take`] chooses. `b` is behind the router and answers to whatever address it is asked from.
#[derive(Debug)]
pub struct Triple {
    /// The host that moves.
    pub a: Namespace,
    /// Forwards between all links.
    pub router: Namespace,
    /// The host that stays.
    pub b: Namespace,
}

impl Triple {
    /// IPv4 address of `a` on its first way.
    pub const A4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    /// IPv6 address of `a` on its first way.
    pub const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
    /// IPv4 address of `a` on its second way.
    pub const SECOND4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    /// IPv6 address of `a` on its second way.
    pub const SECOND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));
    /// IPv4 address of `b`.
    pub const B4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    /// IPv6 address of `b`.
    pub const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1));
    /// IPv4 address of the router on the first way of `a`.
    pub const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
    /// IPv6 address of the router on the link of `b`.
    pub const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0xfe));
    /// Name of the first way in `a`.
    pub const FIRST: &str = "first0";
    /// Name of the second way in `a`.
    pub const SECOND: &str = "second0";
    /// Name of the link in `b`.
    pub const LINK: &str = "under0";

    /// The three hosts, with `a` on its first way.
    ///
    /// # Errors
    /// Without root or if the kernel refuses.
    pub fn new() -> Result<Self> {
        let triple = Self { a: Namespace::new("a")?, router: Namespace::new("router")?, b: Namespace::new("b")? };
        let ways = [
            (&triple.a, Self::FIRST, "toa1", Self::A4, Self::A6),
            (&triple.a, Self::SECOND, "toa2", Self::SECOND4, Self::SECOND6),
            (&triple.b, Self::LINK, "tob", Self::B4, Self::B6),
        ];
        for (host, link, at_router, v4, v6) in ways {
            join(host, link, &triple.router, at_router)?;
            for own in [v4, v6] {
                address(host, link, own)?;
                address(&triple.router, at_router, gateway(own))?;
            }
            host.ip(&format!("link set {link} up"))?;
            triple.router.ip(&format!("link set {at_router} up"))?;
        }
        for (host, link, at_router, ..) in ways {
            wait_up(host, link)?;
            wait_up(&triple.router, at_router)?;
        }
        triple.router.sysctl("ipv4/ip_forward", "1")?;
        triple.router.sysctl("ipv6/conf/all/forwarding", "1")?;
        // An answer may come over another link than the one that leads back to the asker.
        for host in [&triple.a, &triple.router] {
            host.sysctl("ipv4/conf/all/rp_filter", "0")?;
        }
        for own in [Self::B4, Self::B6] {
            triple.b.ip(&format!("route add default via {} dev {}", gateway(own), Self::LINK))?;
        }
        triple.take(Self::FIRST)?;
        Ok(triple)
    }

    /// Sends `a`'s traffic over the way `link` from now on; its addresses on the other way are gone.
    ///
    /// Both links stay up, for the kernel takes up to a second to notice that one came back.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn take(&self, link: &str) -> Result<()> {
        let (other, own) = if link == Self::FIRST {
            (Self::SECOND, [Self::A4, Self::A6])
        } else {
            (Self::FIRST, [Self::SECOND4, Self::SECOND6])
        };
        self.a.ip(&format!("addr flush dev {other} scope global"))?;
        for own in own {
            let prefix = if own.is_ipv4() { 24 } else { 64 };
            self.a.ip(&format!("addr replace {own}/{prefix} dev {link}"))?;
            self.a.ip(&format!("{} route replace default via {} dev {link}", family(own), gateway(own)))?;
        }
        Ok(())
    }
}

/// Joins two namespaces with a veth pair; both ends are still down.
fn join(a: &Namespace, a_link: &str, b: &Namespace, b_link: &str) -> Result<()> {
    a.ip(&format!("link add {a_link} type veth peer name {b_link} netns {}", b.name()))?;
    Ok(())
}

/// Waits until the kernel has noticed that a link is up, which it does once a second for all namespaces together.
fn wait_up(host: &Namespace, link: &str) -> Result<()> {
    let up = || host.ip(&format!("-o link show {link}")).is_ok_and(|text| text.contains("state UP"));
    eventually(&format!("{link} to be up"), Duration::from_secs(10), up)
}

/// Gives a link an address of a /24 or a /64.
fn address(host: &Namespace, link: &str, address: IpAddr) -> Result<()> {
    let prefix = if address.is_ipv4() { 24 } else { 64 };
    host.ip(&format!("addr add {address}/{prefix} dev {link}"))?;
    Ok(())
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6" } else { "-4" }
}

/// The router's address on the link where a host has `own`: the same with 254 (0xfe) at the end.
fn gateway(own: IpAddr) -> IpAddr {
    match own {
        IpAddr::V4(own) => {
            let [a, b, c, _] = own.octets();
            Ipv4Addr::new(a, b, c, 254).into()
        }
        IpAddr::V6(own) => {
            let mut octets = own.octets();
            octets[15] = 254;
            Ipv6Addr::from(octets).into()
        }
    }
}

/// RFC 8200 section 5.
const IPV6_MIN_MTU: u32 = 1280;
