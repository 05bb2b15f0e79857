//! macOS: a utun device, whose name is a number that the kernel gives; DNS servers are a service of the system's store.
//!
//! A tunnel that is called `utun5` gets that device; any other name is the tunnel's own (`adit down wg0`), and the device
//! is the next free one. What other programs know an interface by, its UAPI socket for wg(8) and the `%i` of hooks, is the
//! device's name, as with wg-quick(8) on macOS; `adit status` shows it.

use adit_tun::device::apple::AppleTun;
use adit_tun::device::{TunError, TunOptions};

use crate::config::Interface;
use crate::dns::{Dictionary, DnsError, Published};

/// The device of a tunnel.
pub(in crate::tunnel) type HostDevice = AppleTun;

/// What has to survive a reboot is kept here.
pub(in crate::tunnel) const STATE_DIR: &str = "/var/db/adit";

/// What would keep those in that leave a full tunnel by a route of the system.
pub(in crate::tunnel) const PULLED_OUT_HELP: &str =
    "macOS has one routing table, so AllowedIPs keeps it in that are longer";

/// Makes the device of a tunnel.
///
/// # Errors
/// [`TunError`]; nothing is left behind.
pub(in crate::tunnel) fn open_device(tunnel: &str, mtu: usize, offload: bool) -> Result<HostDevice, TunError> {
    let is_device = tunnel.strip_prefix(UTUN).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let name = if is_device { tunnel } else { UTUN };
    AppleTun::open(&TunOptions { name: name.to_owned(), mtu, attach: false, offload })
}

/// Nothing: utun devices get no link-local address by themselves.
pub(in crate::tunnel) fn before_up(_ifname: &str) {}

/// The DNS settings that are in force.
#[derive(Debug)]
pub(in crate::tunnel) struct Dns {
    published: Option<Published>,
}

impl Dns {
    /// None.
    pub(in crate::tunnel) fn none() -> Self {
        Self { published: None }
    }

    /// Brings a configuration's DNS settings into force; others of this tunnel are gone then.
    pub(in crate::tunnel) async fn apply(&mut self, interface: &Interface, ifname: &str) -> Result<(), DnsError> {
        let wanted = Dictionary::new(&interface.dns, &interface.dns_search, ifname);
        if wanted.as_ref() != self.published.as_ref().map(Published::dictionary) {
            // The new ones are there before the old ones go, so that no name is asked for elsewhere in between.
            self.published = match wanted {
                Some(wanted) => Some(Published::publish(wanted).await?),
                None => None,
            };
        }
        Ok(())
    }

    /// Takes them back.
    pub(in crate::tunnel) fn withdraw(&mut self) {
        self.published = None;
    }
}

const UTUN: &str = "utun";
