//! What lies behind the far end of a tunnel, and the full tunnel that leads there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::{Adit, Ends, Quick, Triple};

/// A host `b` with addresses that nobody but the tunnel's far end knows a way to.
pub fn far_end() -> Result<(Triple, Ends, Adit)> {
    let triple = Triple::new()?;
    for (address, length) in [(BEYOND4, 32), (BEYOND6, 128)] {
        triple.b.ip(&format!("addr add {address}/{length} dev lo"))?;
    }
    let ends = Ends::new()?;
    let b = Adit::start(&triple.b, &ends.config_b(None))?;
    Ok((triple, ends, b))
}

/// The configuration of `a` that sends everything to `b`.
pub fn full_tunnel(ends: &Ends, b: IpAddr) -> Quick {
    let mut config = ends.config_a(Some(b));
    for peer in &mut config.wg.peers {
        peer.allowed_ips = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    }
    config
}

/// An address that is the far end's own.
pub const BEYOND4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
/// An address that is the far end's own.
pub const BEYOND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));
