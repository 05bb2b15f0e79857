//! What is known to go wrong on Apple's systems with settings that look right.
//!
//! A finding is no error: the settings can be applied, and do something else than they seem to say. What each finding
//! means is in [`AppleLint::message`], in words for whoever wrote the configuration.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::apple::{
    AppleAssumptions, AppleDns, ApplePacket, ApplePlatform, AppleRule, AppleSettings, AppleWay, MAX_IPV6_PREFIX,
    SystemTable, decide_apple, is_loopback,
};
use super::{complement, trusted_local};

/// What a device's network is like without the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppleUnderlay {
    /// The system.
    pub platform: ApplePlatform,
    /// Whether a physical interface has an IPv6 default route; one with link-local addresses only has none.
    pub has_ipv6_default: bool,
    /// Its routes.
    pub table: SystemTable,
}

/// Something in settings that will not do what it seems to say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppleLint {
    /// A loopback prefix is excluded, and that voids all exclusions.
    LoopbackExcluded {
        /// The prefix.
        net: IpNet,
    },
    /// There are exclusions and `enforceRoutes`.
    ExclusionsWithEnforceRoutes,
    /// There are exclusions and `includeAllNetworks`.
    ExclusionsWithIncludeAllNetworks,
    /// `enforceRoutes` has no effect beside `includeAllNetworks`.
    EnforceRoutesIgnored,
    /// The prefix of an IPv6 address is longer than the system takes.
    PrefixTooLong {
        /// The address with its prefix.
        address: IpNet,
    },
    /// A prefix is included and excluded.
    IncludedAndExcluded {
        /// The prefix.
        net: IpNet,
    },
    /// All of IPv4 is included, and IPv6 is not.
    Ipv6DefaultMissing,
    /// A route of the system takes traffic out of an included prefix.
    SystemRouteWins {
        /// The system's prefix.
        net: IpNet,
    },
    /// Public addresses are said to be on the device's own link, and stay out of the tunnel (TunnelCrack).
    PublicLocalNetwork {
        /// The prefix on the link.
        net: IpNet,
    },
    /// Names that have only IPv6 addresses will not resolve.
    AaaaSuppressed,
    /// There are search or match domains and no servers.
    DnsWithoutServers,
    /// A DNS server is not reached through the tunnel.
    DnsServerOutside {
        /// The server.
        server: IpAddr,
    },
    /// A search domain will not be searched.
    SearchDomainInert {
        /// The domain.
        domain: String,
    },
    /// A match domain will be searched, which nobody asked for.
    MatchDomainSearched {
        /// The domain.
        domain: String,
    },
}

impl AppleLint {
    /// The name in JSON, which stays the same.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LoopbackExcluded { .. } => "loopback-excluded",
            Self::ExclusionsWithEnforceRoutes => "exclusions-with-enforce-routes",
            Self::ExclusionsWithIncludeAllNetworks => "exclusions-with-include-all-networks",
            Self::EnforceRoutesIgnored => "enforce-routes-ignored",
            Self::PrefixTooLong { .. } => "prefix-too-long",
            Self::IncludedAndExcluded { .. } => "included-and-excluded",
            Self::Ipv6DefaultMissing => "ipv6-default-missing",
            Self::SystemRouteWins { .. } => "system-route-wins",
            Self::PublicLocalNetwork { .. } => "public-local-network",
            Self::AaaaSuppressed => "aaaa-suppressed",
            Self::DnsWithoutServers => "dns-without-servers",
            Self::DnsServerOutside { .. } => "dns-server-outside",
            Self::SearchDomainInert { .. } => "search-domain-inert",
            Self::MatchDomainSearched { .. } => "match-domain-searched",
        }
    }

    /// What will happen, and what to do instead.
    pub fn message(&self) -> String {
        match self {
            Self::LoopbackExcluded { net } => format!(
                "{net} is a loopback prefix: with one among the exclusions, the system ignores all of them. It never enters \
                 a tunnel, so leave it out."
            ),
            Self::ExclusionsWithEnforceRoutes => "Exclusions together with enforceRoutes are ignored by some versions, and \
                 others drop all included traffic. Use one of the two, or include only what is to be left after the \
                 exclusions."
                .to_owned(),
            Self::ExclusionsWithIncludeAllNetworks => "With includeAllNetworks exclusions are ignored: what they name goes \
                 into the tunnel. Only local networks can be left out, by excludeLocalNetworks."
                .to_owned(),
            Self::EnforceRoutesIgnored => {
                "enforceRoutes has no effect beside includeAllNetworks; leave one of them out.".to_owned()
            }
            Self::PrefixTooLong { address } => format!(
                "{address}: an IPv6 prefix longer than /{MAX_IPV6_PREFIX} has no effect on a tunnel's address. \
                 /{MAX_IPV6_PREFIX} is what to give to the system."
            ),
            Self::IncludedAndExcluded { net } => {
                format!("{net} is both included and excluded; which one wins is not documented. Leave it in one list.")
            }
            Self::Ipv6DefaultMissing => "All of IPv4 goes into the tunnel, and IPv6 goes past it. Include ::/0 as well, even \
                 if the other end does not carry IPv6."
                .to_owned(),
            Self::SystemRouteWins { net } => format!(
                "The system has a route to {net} that wins over the tunnel's shorter one, so this traffic goes past the \
                 tunnel. Whoever runs the network may have put it there; enforceRoutes or includeAllNetworks would stop it."
            ),
            Self::PublicLocalNetwork { net } => format!(
                "This network claims the public addresses {net} for itself, and what is sent to them goes past the tunnel. A \
                 hostile network does that on purpose; enforceRoutes or includeAllNetworks with excludeLocalNetworks off \
                 would stop it."
            ),
            Self::AaaaSuppressed => "This network has no IPv6 and the tunnel carries only some of it: macOS will not ask for \
                 IPv6 addresses of names, and those that have no others cannot be reached by name. Include ::/0, or reach \
                 them by address."
                .to_owned(),
            Self::DnsWithoutServers => {
                "There are search or match domains and no DNS server: the system ignores all of it. Name a server.".to_owned()
            }
            Self::DnsServerOutside { server } => format!(
                "The DNS server {server} is not reached through the tunnel, so questions for it leave in the clear or get \
                 lost. Include its address."
            ),
            Self::SearchDomainInert { domain } => format!(
                "The search domain {domain} will not be searched, because the tunnel is not the default route. It would have \
                 to be a match domain as well, with matchDomainsNoSearch off; then all other match domains are searched too."
            ),
            Self::MatchDomainSearched { domain } => format!(
                "The match domain {domain} is searched as well: a name without dots is looked up in it, which tells its \
                 servers what is looked for. matchDomainsNoSearch stops that, for search domains too."
            ),
        }
    }
}

impl std::fmt::Display for AppleLint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message())
    }
}

/// Looks for what is known to go wrong; in the order of the settings, and each finding once.
pub fn lint_apple(settings: &AppleSettings, underlay: &AppleUnderlay) -> Vec<AppleLint> {
    let mut found = exclusions(settings);
    let too_long =
        settings.addresses.iter().filter(|own| matches!(own, IpNet::V6(_)) && own.prefix_len() > MAX_IPV6_PREFIX);
    found.extend(too_long.map(|&address| AppleLint::PrefixTooLong { address }));
    let covers = |net: IpNet| settings.include_all_networks || covers(&settings.included, net);
    if covers(IpNet::V4(ipnet::Ipv4Net::default())) && !covers(GLOBAL_IPV6) {
        found.push(AppleLint::Ipv6DefaultMissing);
    }
    found.extend(system_routes(settings, underlay));
    let is_v6 = |net: &IpNet| matches!(net, IpNet::V6(_));
    let has_v6 = settings.addresses.iter().chain(&settings.included).any(is_v6);
    let default_v6 =
        settings.include_all_networks || settings.included.iter().any(|net| is_v6(net) && net.prefix_len() == 0);
    if underlay.platform == ApplePlatform::MacOs && has_v6 && !default_v6 && !underlay.has_ipv6_default {
        found.push(AppleLint::AaaaSuppressed);
    }
    if let Some(dns) = &settings.dns {
        found.extend(names(dns, settings, underlay));
    }
    found
}

/// The domains in which the system looks for a name without dots, once the tunnel is up, in its order. `default` are those
/// of the resolver that is the default one without the tunnel.
///
/// That is how configd makes the list (IPMonitor's `dns-configuration.c`): a resolver for match domains loses its search
/// domains, and gives its match domains instead unless told not to; they come before those of the default resolver.
pub fn search_list(dns: &AppleDns, is_default: bool, default: &[String]) -> Vec<String> {
    if dns.servers.is_empty() {
        return default.to_vec();
    }
    if is_default {
        return dns.search_domains.clone();
    }
    let mut list: Vec<String> = Vec::new();
    let searched =
        dns.match_domains.iter().flatten().filter(|domain| !dns.match_domains_no_search && is_searchable(domain));
    for domain in searched.chain(default) {
        if !list.iter().any(|other| is_same(other, domain)) {
            list.push(domain.clone());
        }
    }
    list
}

fn exclusions(settings: &AppleSettings) -> Vec<AppleLint> {
    let mut found: Vec<_> = settings
        .excluded
        .iter()
        .filter(|net| is_loopback(net))
        .map(|&net| AppleLint::LoopbackExcluded { net })
        .collect();
    if !settings.excluded.is_empty() && settings.include_all_networks {
        found.push(AppleLint::ExclusionsWithIncludeAllNetworks);
    } else if !settings.excluded.is_empty() && settings.enforce_routes {
        found.push(AppleLint::ExclusionsWithEnforceRoutes);
    }
    if settings.include_all_networks && settings.enforce_routes {
        found.push(AppleLint::EnforceRoutesIgnored);
    }
    let mut both: Vec<_> = settings.excluded.iter().map(IpNet::trunc).collect();
    let included: std::collections::HashSet<_> = settings.included.iter().map(IpNet::trunc).collect();
    both.retain(|net| included.contains(net));
    both.sort_unstable();
    both.dedup();
    found.extend(both.into_iter().map(|net| AppleLint::IncludedAndExcluded { net }));
    found
}

/// Prefixes of the system that win over an included one, but for those on the link that are for private use.
fn system_routes(settings: &AppleSettings, underlay: &AppleUnderlay) -> Vec<AppleLint> {
    let table = &underlay.table;
    let wins = |net: &IpNet| {
        let packet = ApplePacket::new(net.network());
        let steps = decide_apple(&packet, settings, table, &AppleAssumptions::default()).steps;
        let is_system = |rule| matches!(rule, AppleRule::SystemRoute | AppleRule::LocalNetwork);
        // Without it an exclusion may send the traffic the same way.
        let next = steps.iter().find(|step| !is_system(step.rule));
        is_system(steps[0].rule) && next.is_some_and(|step| step.way == AppleWay::Tunnel)
    };
    let routes = table.routes.iter().filter(|net| net.prefix_len() > 0 && wins(net));
    let on_link = table.on_link.iter().filter(|net| !trusted_local(net) && wins(net));
    routes
        .map(|&net| AppleLint::SystemRouteWins { net })
        .chain(on_link.map(|&net| AppleLint::PublicLocalNetwork { net }))
        .collect()
}

fn names(dns: &AppleDns, settings: &AppleSettings, underlay: &AppleUnderlay) -> Vec<AppleLint> {
    let match_domains = dns.match_domains.as_deref().unwrap_or_default();
    if dns.servers.is_empty() {
        let has_domains = !dns.search_domains.is_empty() || !match_domains.is_empty();
        return if has_domains { vec![AppleLint::DnsWithoutServers] } else { Vec::new() };
    }
    let outside = dns.servers.iter().filter(|server| {
        let packet = ApplePacket::new(**server);
        let way = decide_apple(&packet, settings, &underlay.table, &AppleAssumptions::default()).way;
        !matches!(way, AppleWay::Tunnel | AppleWay::Host)
    });
    let mut found: Vec<_> = outside.map(|&server| AppleLint::DnsServerOutside { server }).collect();
    let searched = search_list(dns, settings.is_default(), &[]);
    let has = |list: &[String], domain: &str| list.iter().any(|other| is_same(other, domain));
    let inert = dns.search_domains.iter().filter(|domain| !has(&searched, domain));
    found.extend(inert.map(|domain| AppleLint::SearchDomainInert { domain: domain.clone() }));
    let leaks = searched.iter().filter(|domain| !has(&dns.search_domains, domain));
    found.extend(leaks.map(|domain| AppleLint::MatchDomainSearched { domain: domain.clone() }));
    found
}

/// Whether prefixes together contain all of `net`.
fn covers(prefixes: &[IpNet], net: IpNet) -> bool {
    complement(prefixes, &[]).is_ok_and(|all| all.iter().any(|found| found.contains(&net)))
}

fn is_searchable(domain: &str) -> bool {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    let is_reverse = ["in-addr.arpa", "ip6.arpa"]
        .iter()
        .any(|suffix| domain.strip_suffix(suffix).is_some_and(|labels| labels.is_empty() || labels.ends_with('.')));
    !domain.is_empty() && !is_reverse
}

fn is_same(a: &str, b: &str) -> bool {
    a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.'))
}

/// All of IPv6 that is routed in the Internet (RFC 4291 section 2.4, IANA's registry).
const GLOBAL_IPV6: IpNet = IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3));
