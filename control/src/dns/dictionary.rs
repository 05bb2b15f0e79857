//! The DNS settings of a tunnel as macOS's configuration store has them, as a pure function of the configuration.
//!
//! The tunnel is a service of its own with supplemental match domains and nothing else: it has no addresses and no
//! router, so it takes part in no election of a primary service, which an unreachable probe server could make it lose.
//! What configd does with such a service (Plugins/IPMonitor/dns-configuration.c) decides what must be in it:
//!
//! - the empty match domain makes the servers a default resolver, asked before the others as long as its order is lower;
//! - `SearchDomains` of a supplemental resolver are dropped, and match domains are searched instead unless that is
//!   switched off; so search domains are match domains as well. Else a single label would be searched nowhere;
//! - without servers, or with another number of orders than of domains, all of it is ignored without a word.

use std::net::IpAddr;

/// The settings of one service, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary {
    /// Keys and values.
    pub entries: Vec<(&'static str, Value)>,
}

/// A value in a [`Dictionary`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of numbers.
    Numbers(Vec<i32>),
}

impl Dictionary {
    /// The settings for these servers, to which all names go, and these search domains. `None` without servers: there is
    /// nobody to ask then, and search domains alone would have no effect.
    #[must_use]
    pub fn new(servers: &[IpAddr], search: &[String], ifname: &str) -> Option<Self> {
        if servers.is_empty() {
            return None;
        }
        let texts = |items: &mut dyn Iterator<Item = String>| Value::Texts(items.collect());
        let mut domains = vec![String::new()];
        for domain in search {
            let domain = domain.trim_end_matches('.').to_ascii_lowercase();
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let orders = (FIRST_ORDER..).take(domains.len()).collect();
        let mut entries = vec![
            ("ServerAddresses", texts(&mut servers.iter().map(ToString::to_string))),
            ("SupplementalMatchDomains", Value::Texts(domains.clone())),
            ("SupplementalMatchOrders", Value::Numbers(orders)),
            ("InterfaceName", Value::Text(ifname.to_owned())),
        ];
        if domains.len() > 1 {
            entries.insert(1, ("SearchDomains", texts(&mut domains.into_iter().skip(1))));
        }
        Some(Self { entries })
    }
}

/// The key under which a service's DNS settings are in the store; `id` is random, and told apart by it.
#[must_use]
pub fn service_key(id: u128) -> String {
    // Version 4, variant 1 (RFC 9562 section 5.4), which is what other services' names are.
    let id = id & !(0xf << 76 | 0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{id:032X}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("State:/Network/Service/{a}-{b}-{c}-{d}-{e}/DNS")
}

/// configd numbers the domains of a service of its own from here on; the default resolver has 200000, and the lower
/// number is asked first and searched first.
const FIRST_ORDER: i32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The global search list that configd makes of a default resolver's and one supplemental service's domains
    /// (`extract_search_domains`): match domains of a lower order come before the default ones, and `SearchDomains` of a
    /// supplemental service have no part in it.
    fn search_list(default: &[&str], service: Option<&Dictionary>) -> Vec<String> {
        let mut list: Vec<String> = default.iter().map(|&domain| domain.to_owned()).collect();
        let Some(service) = service else { return list };
        let (Some(Value::Texts(servers)), Some(Value::Texts(domains)), Some(Value::Numbers(orders))) = (
            get(service, "ServerAddresses"),
            get(service, "SupplementalMatchDomains"),
            get(service, "SupplementalMatchOrders"),
        ) else {
            return list;
        };
        if servers.is_empty() || domains.len() != orders.len() {
            return list;
        }
        let mut before = 0;
        for (domain, order) in domains.iter().zip(orders).filter(|(domain, _)| !domain.is_empty()) {
            if *order < DEFAULT_ORDER {
                list.retain(|other| other != domain);
                list.insert(before, domain.clone());
                before += 1;
            } else if !list.contains(domain) {
                list.push(domain.clone());
            }
        }
        list
    }

    fn get<'a>(dictionary: &'a Dictionary, key: &str) -> Option<&'a Value> {
        dictionary.entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn dictionary(servers: &[&str], search: &[&str]) -> Option<Dictionary> {
        let servers: Vec<IpAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        let search: Vec<String> = search.iter().map(|&domain| domain.to_owned()).collect();
        Dictionary::new(&servers, &search, "utun4")
    }

    #[test]
    fn all_names_go_to_the_tunnels_servers() {
        let texts = |items: &[&str]| Value::Texts(items.iter().map(|&item| item.to_owned()).collect());
        let found = dictionary(&["10.0.0.1", "fd00::1"], &["corp.example", "Test.Example.", "corp.example"]).unwrap();
        let expected = vec![
            ("ServerAddresses", texts(&["10.0.0.1", "fd00::1"])),
            ("SearchDomains", texts(&["corp.example", "test.example"])),
            ("SupplementalMatchDomains", texts(&["", "corp.example", "test.example"])),
            ("SupplementalMatchOrders", Value::Numbers(vec![100_000, 100_001, 100_002])),
            ("InterfaceName", Value::Text("utun4".into())),
        ];
        assert_eq!(found.entries, expected);
    }

    #[test]
    fn search_domains_are_searched_and_before_the_networks_own() {
        let service = dictionary(&["10.0.0.1"], &["test.com", "abc.com"]);
        assert_eq!(search_list(&["lan"], service.as_ref()), ["test.com", "abc.com", "lan"]);
        assert_eq!(search_list(&["abc.com", "lan"], service.as_ref()), ["test.com", "abc.com", "lan"]);
        let without = dictionary(&["10.0.0.1"], &[]).unwrap();
        assert_eq!(get(&without, "SearchDomains"), None);
        assert_eq!(search_list(&["lan"], Some(&without)), ["lan"]);
    }

    #[test]
    fn as_many_orders_as_domains_or_all_is_ignored() {
        for number in 0..5 {
            let search: Vec<String> = (0..number).map(|at| format!("d{at}.example")).collect();
            let found = Dictionary::new(&["10.0.0.1".parse().unwrap()], &search, "utun4").unwrap();
            let (Some(Value::Texts(domains)), Some(Value::Numbers(orders))) =
                (get(&found, "SupplementalMatchDomains"), get(&found, "SupplementalMatchOrders"))
            else {
                panic!("{found:?}")
            };
            assert_eq!((domains.len(), orders.len()), (number + 1, number + 1));
            assert!(orders.iter().all(|order| *order < DEFAULT_ORDER));
        }
    }

    #[test]
    fn without_servers_there_is_nothing_to_publish() {
        assert_eq!(dictionary(&[], &["corp.example"]), None);
    }

    #[test]
    fn a_services_key_is_a_random_uuid() {
        assert_eq!(service_key(0), "State:/Network/Service/00000000-0000-4000-8000-000000000000/DNS");
        assert_eq!(service_key(u128::MAX), "State:/Network/Service/FFFFFFFF-FFFF-4FFF-BFFF-FFFFFFFFFFFF/DNS");
    }

    const DEFAULT_ORDER: i32 = 200_000;
}
