//! What the host is like: everything about its routing that an explanation may need, read at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use adit_core::route::RouteInputs;
use ipnet::IpNet;

use super::subject::Subject;
use crate::route::RouteError;
use crate::route::inspect::{Inspector, KernelAddress, KernelLink, KernelRoute, KernelRule, RouteKind};
use crate::settings::{Family, TABLE_LOCAL, TABLE_MAIN};

/// The host's routing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its interfaces.
    pub links: Vec<KernelLink>,
    /// Their addresses.
    pub addresses: Vec<KernelAddress>,
    /// IPv4.
    pub ipv4: FamilyFacts,
    /// IPv6.
    pub ipv6: FamilyFacts,
}

/// The rules and tables of a family.
#[derive(Debug, Clone, Default)]
pub struct FamilyFacts {
    /// The rules, in the order in which they are asked.
    pub rules: Vec<KernelRule>,
    /// The routes by their tables.
    pub tables: BTreeMap<u32, Vec<KernelRoute>>,
}

impl Facts {
    /// Asks the kernel for all of it.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn gather(inspector: &Inspector) -> Result<Self, RouteError> {
        Ok(Self {
            links: inspector.links().await?,
            addresses: inspector.addresses().await?,
            ipv4: FamilyFacts::gather(inspector, Family::Ipv4).await?,
            ipv6: FamilyFacts::gather(inspector, Family::Ipv6).await?,
        })
    }

    /// Rules and tables of the family of an address.
    #[must_use]
    pub fn family_of(&self, ip: IpAddr) -> &FamilyFacts {
        if ip.is_ipv4() { &self.ipv4 } else { &self.ipv6 }
    }

    /// The interface with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&KernelLink> {
        self.links.iter().find(|link| link.device.name == name)
    }

    /// Whether an address is one of the host's, or a loopback one.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addresses.iter().any(|own| own.address.addr() == ip)
    }

    /// What core's model is made of for a tunnel on this host.
    #[must_use]
    pub fn inputs(&self, tunnel: &Subject) -> RouteInputs {
        let index = self.link(&tunnel.name).map(|link| link.device.index);
        let is_tunnels = |route: &KernelRoute| index.is_some_and(|index| route.leads_to(index));
        let (mut connected, mut main) = (BTreeSet::new(), BTreeSet::new());
        for route in self.ipv4.main().chain(self.ipv6.main()) {
            if route.kind == RouteKind::Unicast && route.destination.prefix_len() > 0 && !is_tunnels(route) {
                if route.is_connected() {
                    connected.insert(route.destination)
                } else {
                    main.insert(route.destination)
                };
            }
        }
        let own =
            |address: &&KernelAddress| Some(address.device.index) != index && !address.address.addr().is_loopback();
        let allowed = tunnel.peers.iter().enumerate();
        RouteInputs {
            allowed: allowed.flat_map(|(at, peer)| peer.allowed_ips.iter().map(move |net| (*net, at))).collect(),
            excluded: tunnel.routing.excluded_ips.clone(),
            exclude_local_networks: tunnel.routing.exclude_local_networks,
            kill_switch: tunnel.routing.kill_switch,
            connected: connected.into_iter().collect(),
            main: main.into_iter().collect(),
            tunnel_addresses: tunnel.routing.addresses.clone(),
            underlay_addresses: self.addresses.iter().filter(own).map(|own| own.address).collect(),
            endpoints: tunnel.peers.iter().filter_map(|peer| Some(peer.endpoint?.ip().to_canonical())).collect(),
        }
    }

    /// The route in main to exactly this prefix that is not the tunnel's.
    #[must_use]
    pub fn in_main(&self, net: IpNet, tunnel: &str) -> Option<&KernelRoute> {
        let index = self.link(tunnel).map(|link| link.device.index);
        let mut routes = self.family_of(net.addr()).main();
        routes.find(|route| route.destination == net && !index.is_some_and(|index| route.leads_to(index)))
    }
}

impl FamilyFacts {
    async fn gather(inspector: &Inspector, family: Family) -> Result<Self, RouteError> {
        let rules = inspector.rules(family).await?;
        let mut tables: BTreeMap<u32, Vec<KernelRoute>> = BTreeMap::new();
        for route in inspector.routes(family, None).await? {
            tables.entry(route.table).or_default().push(route);
        }
        Ok(Self { rules, tables })
    }

    /// The routes of a table.
    #[must_use]
    pub fn table(&self, number: u32) -> &[KernelRoute] {
        self.tables.get(&number).map_or(&[], Vec::as_slice)
    }

    /// Addresses of a prefix for which the kernel may say something else than for the first one: where a route or a rule of
    /// its own begins, and the last one.
    #[must_use]
    pub fn landmarks(&self, net: IpNet, limit: usize) -> Vec<IpAddr> {
        let routes = self.tables.iter().filter(|(number, _)| **number != TABLE_LOCAL);
        let routes = routes.flat_map(|(_, routes)| routes).map(|route| route.destination);
        let inside = routes.chain(self.rules.iter().filter_map(|rule| rule.to)).filter(|inner| net.contains(inner));
        let mut found: BTreeSet<IpAddr> = inside.map(|inner| inner.network()).take(limit).collect();
        found.insert(net.broadcast());
        found.remove(&net.network());
        found.into_iter().collect()
    }

    fn main(&self) -> impl Iterator<Item = &KernelRoute> {
        self.table(TABLE_MAIN).iter()
    }
}
