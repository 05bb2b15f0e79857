//! The tunnel that is asked about: a running one as it tells itself, or what a file would make.

use std::net::SocketAddr;
use std::path::PathBuf;

use adit_core::PublicKey;
use ipnet::IpNet;

use crate::api::{RoutingReport, StatusReport};
use crate::config::{Config, Endpoint};
use crate::settings::Settings;

/// A tunnel to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The interface's name.
    pub name: String,
    /// Its file, if that is known.
    pub file: Option<PathBuf>,
    /// Whether the tunnel itself has told all this.
    pub is_told: bool,
    /// The peers.
    pub peers: Vec<SubjectPeer>,
    /// The mark of the tunnel's own datagrams; `None` is none, or not chosen yet.
    pub fwmark: Option<u32>,
    /// The MTU in bytes, if it is known already.
    pub mtu: Option<u32>,
    /// What concerns the host.
    pub routing: RoutingReport,
}

/// A peer of a tunnel to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPeer {
    /// Its name and key.
    pub public_key: PublicKey,
    /// Where it is reached, if that is known.
    pub endpoint: Option<SocketAddr>,
    /// Where it is reached as a file says it.
    pub endpoint_name: Option<String>,
    /// What goes to it.
    pub allowed_ips: Vec<IpNet>,
}

impl Subject {
    /// A running tunnel, as it tells itself. `None` if it does not tell its settings: it is about to end, or older.
    #[must_use]
    pub fn running(report: &StatusReport) -> Option<Self> {
        Some(Self {
            name: report.name.clone(),
            file: report.config.clone(),
            is_told: true,
            peers: report
                .peers
                .iter()
                .map(|peer| SubjectPeer {
                    public_key: peer.public_key,
                    endpoint: peer.endpoint,
                    endpoint_name: None,
                    allowed_ips: peer.allowed_ips.clone(),
                })
                .collect(),
            fwmark: Some(report.fwmark).filter(|&mark| mark != 0),
            mtu: u32::try_from(report.mtu).ok(),
            routing: report.routing.clone()?,
        })
    }

    /// What a configuration would make; `resolve` gives the addresses of endpoints, so far as they are known.
    #[must_use]
    pub fn of_file(
        name: String,
        file: PathBuf,
        config: &Config,
        resolve: impl Fn(&Endpoint) -> Option<SocketAddr>,
    ) -> Self {
        let peers: Vec<_> = config
            .peers
            .iter()
            .map(|peer| SubjectPeer {
                public_key: peer.public_key,
                endpoint: peer.endpoint.as_ref().and_then(&resolve),
                endpoint_name: peer.endpoint.as_ref().map(ToString::to_string),
                allowed_ips: peer.allowed_ips.clone(),
            })
            .collect();
        let settings = Settings::new(&config.wanted(peers.iter().filter_map(|peer| peer.endpoint).collect()));
        Self {
            name,
            file: Some(file),
            is_told: false,
            peers,
            fwmark: settings.fwmark,
            mtu: config.interface.mtu.map(u32::from),
            routing: RoutingReport::new(&config.interface, &settings),
        }
    }
}

impl SubjectPeer {
    /// The peer and where it is, as a person reads it.
    #[must_use]
    pub fn describe(&self) -> String {
        let key = self.public_key.short();
        match (&self.endpoint_name, self.endpoint) {
            (Some(name), _) => format!("{key} at {name}"),
            (None, Some(address)) => format!("{key} at {address}"),
            (None, None) => format!("{key}, which is nowhere yet"),
        }
    }
}
