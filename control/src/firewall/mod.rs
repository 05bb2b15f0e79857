//! The host's firewall, as far as a tunnel needs it: the kill switch, and the protection of answers that wg-quick(8) sets
//! up for a full tunnel. Everything is in one nftables table, `inet adit-INTERFACE`, which is replaced whole.

mod error;
mod nft;
mod ruleset;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use error::FirewallError;
pub use ruleset::ruleset;

/// What the firewall must do for one tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Firewall {
    /// The tunnel's interface. Rules match it by name, so they hold for a device that is made anew, too.
    pub ifname: String,
    /// The mark of the tunnel's own datagrams. With 0 nothing is let through by its mark.
    pub fwmark: u32,
    /// The interface's own addresses, for the reply protection.
    pub addresses: Vec<IpNet>,
    /// Whether to do what wg-quick does for a full tunnel.
    pub reply_protection: bool,
    /// What may leave outside of the tunnel; `None` is all.
    pub kill_switch: Option<KillSwitch>,
}

/// What may leave outside of the tunnel in spite of the kill switch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KillSwitch {
    /// Destinations that are excluded from the tunnel.
    pub excluded: Vec<IpNet>,
    /// Local networks that stay reachable.
    pub local: Vec<IpNet>,
    /// Whether DNS (ports 53 and 853) to local networks is refused, because the configuration names DNS servers.
    pub no_local_dns: bool,
}

/// Makes the kernel's rules those of `firewall`, in one transaction: before it the old ones hold and after it the new
/// ones, and nothing else is touched.
///
/// # Errors
///
/// Why it could not be done; the old rules hold then.
pub async fn apply(firewall: &Firewall) -> Result<(), FirewallError> {
    nft::check_name(&firewall.ifname)?;
    nft::run(&ruleset(firewall), &format!("set up the firewall of {}", firewall.ifname)).await
}

/// Whether the firewall can be used here, without changing anything.
///
/// # Errors
///
/// What is missing: the program, the permission, or the kernel's support.
pub async fn check() -> Result<(), FirewallError> {
    nft::check().await
}

/// Whether the kernel's rules are those that [`apply`] makes.
///
/// # Errors
///
/// The firewall cannot be read.
pub async fn is_in_force(firewall: &Firewall) -> Result<bool, FirewallError> {
    let _ = firewall;
    exists(&firewall.ifname).await
}

/// Takes the tunnel's table away; that it is gone already is no error.
///
/// # Errors
///
/// Why it could not be done.
pub async fn remove(ifname: &str) -> Result<(), FirewallError> {
    nft::check_name(ifname)?;
    nft::remove(ifname).await
}

/// Whether the tunnel has a table.
///
/// # Errors
///
/// The firewall cannot be read.
pub async fn exists(ifname: &str) -> Result<bool, FirewallError> {
    nft::check_name(ifname)?;
    nft::exists(ifname).await
}

/// The tunnels that have a table, running or not, by their interfaces' names.
///
/// # Errors
///
/// The firewall cannot be read.
pub async fn tunnels() -> Result<Vec<String>, FirewallError> {
    let tables = nft::tables().await?;
    Ok(tables.iter().filter_map(|table| table.strip_prefix(PREFIX)).map(str::to_owned).collect())
}

/// The name of a tunnel's table, of family `inet`.
#[must_use]
pub fn table_name(ifname: &str) -> String {
    format!("{PREFIX}{ifname}")
}

const PREFIX: &str = "adit-";
