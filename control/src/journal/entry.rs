//! The kinds of changes that a journal records. Each holds all that is needed to undo exactly that change.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::firewall::Firewall;
use crate::settings::Family;

/// A change in the operating system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Entry {
    /// A network interface was made.
    Link(Device),
    /// An address was given to an interface.
    Address(Address),
    /// An interface's MTU was changed.
    Mtu(Mtu),
    /// An interface was set up.
    Up(Device),
    /// A route was added.
    Route(Route),
    /// A kernel parameter was changed.
    Sysctl(Sysctl),
    /// A policy rule was added.
    Rule(Rule),
    /// The tunnel's firewall table was made, or replaced by this one.
    Firewall(Firewall),
    /// A Unix socket was made.
    Socket {
        /// The socket's file.
        path: PathBuf,
    },
}

impl Entry {
    /// Whether `new` changes the same thing again, so that the journal needs to hold it only.
    #[must_use]
    pub fn is_replaced_by(&self, new: &Self) -> bool {
        match (self, new) {
            (Self::Mtu(old), Self::Mtu(new)) => old.device == new.device,
            (Self::Firewall(old), Self::Firewall(new)) => old.ifname == new.ifname,
            _ => false,
        }
    }

    /// This change with what undoes `old` as well, which it replaces.
    #[must_use]
    pub fn in_place_of(self, old: &Self) -> Self {
        match (self, old) {
            // The journal keeps the value from before the tunnel's first change.
            (Self::Mtu(new), Self::Mtu(old)) => Self::Mtu(Mtu { former: old.former, ..new }),
            (new, _) => new,
        }
    }
}

/// A network interface. Two are equal if their numbers are, since an interface can be renamed.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The name when the change was made, for humans.
    pub name: String,
    /// The kernel's number, which an interface keeps when it is renamed and which the kernel hands out once.
    pub index: u32,
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The interface.
    pub device: Device,
    /// The address with the prefix length of its network.
    pub address: IpNet,
}

/// The MTU of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mtu {
    /// The interface.
    pub device: Device,
    /// The value before, in bytes.
    pub former: u32,
    /// The value that was set, in bytes.
    pub value: u32,
}

/// A route; those of Adit carry its routing protocol number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The destination, host bits cleared.
    pub destination: IpNet,
    /// The table.
    pub table: u32,
    /// Where it leads.
    pub via: Via,
    /// The metric, or `None` for the family's default.
    pub metric: Option<u32>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// Out of an interface.
    Device(Device),
    /// To a router behind an interface.
    Gateway {
        /// The router.
        address: IpAddr,
        /// The interface.
        device: Device,
    },
    /// To an error at once (`unreachable`).
    Unreachable,
    /// Out of the table: the look-up goes on with the next rule (`throw`).
    Throw,
}

/// A kernel parameter. It is restored only if it still has the value that was set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sysctl {
    /// The file below /proc/sys.
    pub path: String,
    /// The value before.
    pub former: String,
    /// The value that was set.
    pub value: String,
}

/// A policy rule that looks up a table; those of Adit carry its routing protocol number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The family: IPv4 and IPv6 have rules of their own.
    pub family: Family,
    /// The priority; lower is looked at earlier.
    pub priority: u32,
    /// The table to look up.
    pub table: u32,
    /// Which packets, and which of the table's routes.
    pub target: Target,
}

/// What a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All packets, but the table's default routes are not taken (`suppress_prefixlength 0`).
    SuppressDefault,
    /// Packets that do not carry this mark.
    NotMarked(u32),
}
