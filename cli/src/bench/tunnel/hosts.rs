//! Two hosts joined by a veth pair, each with a network and a /run of its own.
//!
//! Configurations, logs and control sockets of engines live in that /run, which is memory and goes with the hosts; so
//! whatever an engine leaves behind, and however this process ends, nothing of it is left on the machine.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::failure::{Failure, Kind, Outcome};
use crate::netns::links::Links;
use crate::netns::{self, Namespace};
use crate::watch::Watch;

/// Both hosts, and nothing in them yet.
pub(super) struct Hosts([Namespace; 2]);

/// Which of the two: `A` begins, `B` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    A,
    B,
}

impl Host {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(super) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Its addresses on the veth pair: documentation's, which are nobody's (RFC 5737, RFC 3849).
    pub(super) fn underlay(self) -> Addresses {
        let last = self as u8 + 1;
        Addresses { v4: Ipv4Addr::new(192, 0, 2, last), v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()) }
    }

    /// Its addresses in the tunnel.
    pub(super) fn tunnel(self) -> Addresses {
        let last = self as u8 + 1;
        Addresses { v4: Ipv4Addr::new(10, 77, 0, last), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into()) }
    }
}

/// One address of each family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

impl Addresses {
    /// Both, as networks of one address.
    pub(super) fn nets(self) -> [IpNet; 2] {
        [IpAddr::from(self.v4).into(), IpAddr::from(self.v6).into()]
    }
}

impl Hosts {
    /// Makes the hosts and what joins them.
    pub(super) fn open(watch: &Watch) -> Outcome<Self> {
        let make = |host: Host| {
            let namespace = Namespace::new(host.name(), watch)?;
            namespace.run(watch, "a file system of its own", || private_folders().map_err(no_folders))?;
            Ok::<_, Failure>(namespace)
        };
        let (a, b) = (make(Host::A)?, make(Host::B)?);
        let there = b.run(watch, "its descriptor", netns::descriptor)?;
        a.run(watch, "the veth pair", move || Links::open()?.add_veth(UNDERLAY, there.as_fd()))?;
        let hosts = Self([a, b]);
        for host in Host::BOTH {
            hosts.on(host).run(watch, "its underlay", move || {
                let links = Links::open()?;
                links.set_up("lo")?;
                let own = host.underlay();
                links.add_address(UNDERLAY, IpNet::new_assert(own.v4.into(), 24))?;
                links.add_address(UNDERLAY, IpNet::new_assert(own.v6.into(), 64))?;
                links.set_up(UNDERLAY)
            })?;
        }
        Ok(hosts)
    }

    /// One of the hosts.
    pub(super) fn on(&self, host: Host) -> &Namespace {
        &self.0[host as usize]
    }
}

/// Gives the calling thread, and what it starts, folders for run-time state that nobody else sees.
fn private_folders() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    // Or the mounts below would be everybody's.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let own = |folder: &str| {
        mount(Some("adit-bench"), folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(TMPFS))
    };
    own("/run")?;
    if !Path::new("/var/run").canonicalize().is_ok_and(|path| path == Path::new("/run")) {
        own("/var/run")?;
    }
    // What survives a reboot, such as Adit's handshake timestamps; the folder is missing where Adit never ran.
    let state = ["/var/lib/adit", "/var/lib"].into_iter().find(|folder| Path::new(folder).is_dir());
    state.map_or(Ok(()), own)?;
    DirBuilder::new().mode(0o700).create(FOLDER)
}

fn no_folders(error: io::Error) -> Failure {
    let failure = Failure::from(error);
    Failure { kind: Kind::NotPermitted, ..failure }
}

/// Where this benchmark keeps its own files.
pub(super) const FOLDER: &str = "/run/adit-bench";

/// The veth pair's ends, in both namespaces.
const UNDERLAY: &str = "veth0";

/// Room for logs. What does not fit is the engine's loss.
const TMPFS: &str = "mode=0755,size=64m";
