//! Linux: a tun device of the tunnel's name. DNS servers are nobody's yet.

use adit_tun::device::linux::LinuxTun;
use adit_tun::device::{TunError, TunOptions};

use crate::config::Interface;
use crate::dns::DnsError;

/// The device of a tunnel.
pub(in crate::tunnel) type HostDevice = LinuxTun;

/// What has to survive a reboot is kept here.
pub(in crate::tunnel) const STATE_DIR: &str = "/var/lib/adit";

/// What would keep those in that leave a full tunnel by a route of the system.
pub(in crate::tunnel) const PULLED_OUT_HELP: &str = "`ExcludeLocalNetworks = off` or a list of ExcludedIPs keeps it in";

/// Makes the device of a tunnel, which has the tunnel's name.
///
/// # Errors
/// [`TunError`]; nothing is left behind.
pub(in crate::tunnel) fn open_device(tunnel: &str, mtu: usize, offload: bool) -> Result<HostDevice, TunError> {
    LinuxTun::open(&TunOptions { name: tunnel.to_owned(), mtu, attach: false, offload })
}

/// Keeps the kernel from giving the device an fe80 address and soliciting routers through the tunnel when it comes up, as
/// it does for its own WireGuard devices (drivers/net/wireguard/device.c, addr_gen_mode). The device is ours and takes
/// the setting with it; where there is no IPv6 there is nothing to set.
pub(in crate::tunnel) fn before_up(ifname: &str) {
    const NONE: &str = "1";
    if let Err(error) = std::fs::write(format!("/proc/sys/net/ipv6/conf/{ifname}/addr_gen_mode"), NONE) {
        tracing::debug!(%error, "the device may get a link-local address");
    }
}

/// The DNS settings that are in force: none, on Linux.
#[derive(Debug)]
pub(in crate::tunnel) struct Dns;

impl Dns {
    /// None.
    pub(in crate::tunnel) fn none() -> Self {
        Self
    }

    /// Brings a configuration's DNS settings into force.
    pub(in crate::tunnel) async fn apply(&mut self, _interface: &Interface, _ifname: &str) -> Result<(), DnsError> {
        Ok(())
    }

    /// Takes them back.
    pub(in crate::tunnel) fn withdraw(&mut self) {}
}
