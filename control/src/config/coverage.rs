//! Rules that hold between keys: what the tunnel carries, what is left outside of it, and what the kill switch blocks.
//!
//! Every prefix was checked by itself before. Here they meet: an exclusion may exclude nothing, a kill switch may block
//! more than its writer thinks. All of it is worked out from sorted lists, so that costs grow as n log n with the file.
//! Nothing is decided here; how packets are routed is the business of the router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Format;
use super::diagnostic::{Finding, Report};
use super::model::{Interface, Table};
use super::schema::{Entry, Key, Section};

/// The values that the rules are about, each with its place.
#[derive(Default)]
pub(super) struct Coverage<'s> {
    pub(super) allowed: Vec<Located<'s, IpNet>>,
    pub(super) excluded: Vec<Located<'s, IpNet>>,
    /// Endpoints given as literal addresses.
    pub(super) endpoints: Vec<Located<'s, IpAddr>>,
}

/// A value and where it is written.
#[derive(Clone, Copy)]
pub(super) struct Located<'s, T> {
    pub(super) value: T,
    pub(super) section: &'s Section<'s>,
    pub(super) entry: &'s Entry<'s>,
}

impl<T> Located<'_, T> {
    fn finding(&self, format: Format, message: impl Into<String>) -> Finding {
        let key = self.section.key_name(format, self.entry.key, self.entry.index);
        Finding::at(self.entry.offset, message).key(key).found(&self.entry.text)
    }
}

impl<'s> Coverage<'s> {
    /// Reports prefixes that are both allowed and excluded, which is no answer to where their packets go.
    pub(super) fn contradictions(&self, format: Format, report: &mut Report) {
        let mut places: Vec<_> = self.allowed.iter().map(|allowed| (allowed.value, allowed.entry.offset)).collect();
        places.sort_unstable();
        for excluded in &self.excluded {
            let at = places.partition_point(|(net, _)| *net < excluded.value);
            if let Some(&(net, offset)) = places.get(at).filter(|(net, _)| *net == excluded.value) {
                let finding = excluded.finding(format, format!("{net} is excluded here and allowed to a peer"));
                let allowed = "one of the two, or prefixes of different lengths, of which the longest decides";
                report.error(finding.related(offset).allowed(allowed));
            }
        }
    }

    /// Reports what has no effect, or one that its writer may not expect. Its claims hold for configurations without
    /// errors only: a prefix that could not be read is missing here.
    pub(super) fn surprises(&self, interface: &Interface, section: &Section<'_>, format: Format, report: &mut Report) {
        self.families(interface, format, report);
        self.own_networks(interface, format, report);
        self.special(format, report);
        let place = |key| section.entries.iter().rfind(|entry| entry.key == key).map(|entry| entry.offset);
        let table = place(Key::Table).filter(|_| interface.table != Table::Auto);
        if interface.kill_switch
            && let Some(at) = place(Key::KillSwitch)
        {
            let key = section.key_name(format, Key::KillSwitch, None);
            self.blocked(interface, report, &|message| Finding::at(at, message).key(key.clone()));
            if let Some(table) = table {
                let message = "Adit makes no rules for a table that is set, so what rules of yours send outside of the \
                               tunnel is blocked; the table is set";
                report.warning(Finding::at(at, message).key(key.clone()).related(table));
            }
        }
        // The kill switch lets exclusions out, whatever the routes are.
        let Some(table) = table.filter(|_| interface.table == Table::Off && !interface.kill_switch) else {
            return self.nesting(interface.kill_switch, format, report);
        };
        let message = "no routes are made, so this has no effect; the table is off";
        if let Some(first) = self.excluded.first() {
            report.warning(first.finding(format, message).related(table));
        }
        if interface.exclude_local_networks == Some(true)
            && let Some(at) = place(Key::ExcludeLocalNetworks)
        {
            let key = section.key_name(format, Key::ExcludeLocalNetworks, None);
            report.warning(Finding::at(at, message).key(key).related(table));
        }
    }

    /// A family that is allowed needs an address, unless somebody else gives the interface all of its addresses.
    fn families(&self, interface: &Interface, format: Format, report: &mut Report) {
        for family in FAMILIES.into_iter().filter(|_| !interface.addresses.is_empty()) {
            if interface.addresses.iter().any(|address| family.holds(address)) {
                continue;
            }
            if let Some(first) = self.allowed.iter().find(|allowed| family.holds(&allowed.value)) {
                let Family { name, .. } = family;
                let message = format!(
                    "{name} is allowed and the interface has no {name} address: packets would carry the address of \
                     another interface, and the peer would drop them"
                );
                report.warning(first.finding(format, message));
            }
        }
    }

    /// An endpoint in a network of the interface itself is looked for behind the tunnel, by whatever mark.
    fn own_networks(&self, interface: &Interface, format: Format, report: &mut Report) {
        for endpoint in &self.endpoints {
            let holds = |net: &&IpNet| net.prefix_len() < net.max_prefix_len() && net.contains(&endpoint.value);
            if let Some(net) = interface.addresses.iter().find(holds) {
                let message = format!(
                    "the endpoint lies in the network of the interface's address {net}: the tunnel's own datagrams \
                     would be routed into the tunnel, and are dropped there"
                );
                report.warning(endpoint.finding(format, message));
            }
        }
    }

    /// Exclusions of what routes do not decide about.
    fn special(&self, format: Format, report: &mut Report) {
        for excluded in &self.excluded {
            let within = |nets: [IpNet; 2]| nets.iter().any(|net| net.contains(&excluded.value));
            if within(LOOPBACK) {
                let message =
                    "loopback never enters a tunnel, and Apple systems discard all exclusions if this is one of them";
                report.warning(excluded.finding(format, message));
            } else if within(MULTICAST) {
                let message = "this is multicast: it holds only for programs that leave the choice of the interface \
                               to routes";
                report.warning(excluded.finding(format, message));
            }
        }
    }

    /// What a kill switch blocks apart from leaks.
    fn blocked(&self, interface: &Interface, report: &mut Report, finding: &dyn Fn(String) -> Finding) {
        let local = interface.exclude_local_networks == Some(true);
        let missing: Vec<_> = FAMILIES.into_iter().filter(|family| !self.carries_all(*family)).collect();
        let mut message = match missing.as_slice() {
            [] => return,
            [family @ Family { name, .. }] if local || self.mentions(*family) => {
                format!("{name} is blocked but for what is allowed or excluded of it")
            }
            [Family { name, .. }] => format!("{name} is blocked altogether, none of it is allowed"),
            _ => "no default route is allowed: whatever is neither allowed nor excluded is blocked".to_owned(),
        };
        // Without an address of the family its default route would be no better.
        let could =
            |family: &Family| interface.addresses.is_empty() || interface.addresses.iter().any(|net| family.holds(net));
        let defaults: Vec<_> = missing.into_iter().filter(could).map(|family| family.default).collect();
        if !defaults.is_empty() {
            message.push_str(&format!("; {} in the allowed IPs would carry it", defaults.join(" and ")));
        }
        report.warning(finding(message));
    }

    /// Whether anything of a family is allowed or excluded.
    fn mentions(&self, family: Family) -> bool {
        self.allowed.iter().chain(&self.excluded).any(|net| family.holds(&net.value))
    }

    /// Whether the allowed IPs hold every address of a family, be it as a default route or in parts.
    fn carries_all(&self, family: Family) -> bool {
        let nets: Vec<_> = self.allowed.iter().map(|allowed| allowed.value).filter(|net| family.holds(net)).collect();
        IpNet::aggregate(&nets).iter().any(|net| net.prefix_len() == 0)
    }

    /// Walks through all prefixes from the outside in. The longest one that holds an address decides about it.
    fn nesting(&self, kill_switch: bool, format: Format, report: &mut Report) {
        let allowed = self.allowed.iter().map(|allowed| (allowed.value, Role::Allowed, 0));
        let excluded = self.excluded.iter().enumerate();
        let excluded = excluded.map(|(index, excluded)| (excluded.value, Role::Excluded, index));
        let endpoints = self.endpoints.iter().enumerate();
        let endpoints = endpoints.map(|(index, endpoint)| (IpNet::from(endpoint.value), Role::Endpoint, index));
        let mut all: Vec<_> = allowed.chain(excluded).chain(endpoints).collect();
        // What holds others comes before them, and what is equal in the order of the roles.
        all.sort_unstable();
        let mut around: Vec<Around> = Vec::new();
        for (net, role, index) in all {
            while around.last().is_some_and(|around| !around.net.contains(&net)) {
                around.pop();
            }
            let outer = around.last_mut();
            match role {
                Role::Allowed => around.push(Around { net, exclusion: None, lets_out: false }),
                Role::Excluded => {
                    let here = &self.excluded[index];
                    // With the kill switch, what lies in no allowed IP is blocked unless it is excluded.
                    let mut lets_out = kill_switch;
                    match outer {
                        None if kill_switch => {}
                        None => {
                            report.warning(here.finding(format, "this lies in no allowed IP, so it excludes nothing"));
                        }
                        Some(Around { net: outer, exclusion: Some(other), lets_out: outer_lets_out }) => {
                            lets_out = *outer_lets_out;
                            let message = format!(
                                "this lies in the exclusion {outer} with no allowed IP between them, so it changes \
                                 nothing; the other is"
                            );
                            let other = self.excluded[*other].entry.offset;
                            report.warning(here.finding(format, message).related(other));
                        }
                        Some(_) => lets_out = true,
                    }
                    around.push(Around { net, exclusion: Some(index), lets_out });
                }
                Role::Endpoint => {
                    if let Some(Around { exclusion: Some(exclusion), lets_out, .. }) = outer
                        && *lets_out
                    {
                        // Once for an exclusion, however many endpoints it holds.
                        *lets_out = false;
                        let message = format!(
                            "this holds the endpoint {}: the tunnel's own datagrams stay outside in any case, and \
                             whatever else is sent to that address leaves in the clear; the endpoint is",
                            net.addr()
                        );
                        let endpoint = self.endpoints[index].entry.offset;
                        report.warning(self.excluded[*exclusion].finding(format, message).related(endpoint));
                    }
                }
            }
        }
    }
}

/// What a prefix is to the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Allowed,
    Excluded,
    Endpoint,
}

/// A prefix that holds the one that is looked at.
struct Around {
    net: IpNet,
    /// Its place in the list, if it is an exclusion.
    exclusion: Option<usize>,
    /// It is an exclusion that has an effect, and no endpoint in it was told yet.
    lets_out: bool,
}

/// One of the two families of addresses.
#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    default: &'static str,
    is_v4: bool,
}

impl Family {
    fn holds(self, net: &IpNet) -> bool {
        matches!(net, IpNet::V4(_)) == self.is_v4
    }
}

const FAMILIES: [Family; 2] = [
    Family { name: "IPv4", default: "0.0.0.0/0", is_v4: true },
    Family { name: "IPv6", default: "::/0", is_v4: false },
];

/// RFC 1122 section 3.2.1.3 and RFC 4291 section 2.5.3.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// RFC 5771 section 3 and RFC 4291 section 2.7.
const MULTICAST: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];
