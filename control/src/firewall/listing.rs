//! Compares what `nft` lists of a tunnel's table with what it should hold.
//!
//! Versions of `nft` print one and the same rule in different ways, so a rule is known by its comment, in which the digest
//! of what it does stands; somebody who forges that is not found out. Everything else is compared for what it means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::expr::{Expression, NamedExpression};
use nftables::schema::{NfListObject, SetType, SetTypeValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Whether the table is there with the wanted objects, neither more nor fewer, and is not switched off.
///
/// # Errors
///
/// It is no listing.
pub(super) fn matches(listing: &[u8], wanted: &[NfListObject<'static>]) -> Result<bool, serde_json::Error> {
    let listing: Listing = serde_json::from_slice(listing)?;
    Ok(Contents::listed(listing).is_some_and(|listed| listed == Contents::wanted(wanted)))
}

/// The names in a list of tables.
///
/// # Errors
///
/// It is no listing.
pub(super) fn names(listing: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let listing: Listing = serde_json::from_slice(listing)?;
    Ok(listing.nftables.into_iter().filter_map(|object| object.table).map(|table| table.name).collect())
}

/// What a table holds, in a form that can be compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    chains: BTreeMap<String, ChainContents>,
    sets: BTreeMap<String, SetContents>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ChainContents {
    /// Type, hook, priority and policy; of a plain chain all are `None`.
    base: (Option<String>, Option<String>, Option<i32>, Option<String>),
    comments: Vec<Option<String>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SetContents {
    kind: String,
    /// First and last address of each run of elements, in order.
    ranges: Vec<(u128, u128)>,
}

impl Contents {
    /// `None` if the table is not there, is switched off, or holds what no tunnel's table holds.
    fn listed(listing: Listing) -> Option<Self> {
        let (mut contents, mut found) = (Self::default(), false);
        for object in listing.nftables {
            match object {
                Listed { metainfo: Some(_), .. } => {}
                Listed { table: Some(table), .. } => {
                    // A flag there is none of, but `dormant` and those of a table that belongs to a process.
                    found = table.flags.is_none();
                }
                Listed { chain: Some(chain), .. } => {
                    let base = (chain.kind, chain.hook, chain.prio, chain.policy);
                    contents.chains.insert(chain.name, ChainContents { base, comments: Vec::new() });
                }
                Listed { rule: Some(rule), .. } => contents.chains.get_mut(&rule.chain)?.comments.push(rule.comment),
                Listed { set: Some(set), .. } => {
                    let ranges = set.elem.iter().map(range_of_value).collect::<Option<Vec<_>>>()?;
                    contents.sets.insert(set.name, SetContents { kind: set.kind, ranges: joined(ranges) });
                }
                _ => return None,
            }
        }
        found.then_some(contents)
    }

    fn wanted(objects: &[NfListObject<'static>]) -> Self {
        let mut contents = Self::default();
        for object in objects {
            match object {
                NfListObject::Chain(chain) => {
                    let base = (word(&chain._type), word(&chain.hook), chain.prio, word(&chain.policy));
                    let chain_contents = ChainContents { base, comments: Vec::new() };
                    contents.chains.insert(chain.name.to_string(), chain_contents);
                }
                NfListObject::Rule(rule) => {
                    let chain = contents.chains.entry(rule.chain.to_string()).or_default();
                    chain.comments.push(rule.comment.as_ref().map(ToString::to_string));
                }
                NfListObject::Set(set) => {
                    let kind = if set.set_type == SetTypeValue::Single(SetType::Ipv6Addr) { V6 } else { V4 };
                    let ranges = set.elem.iter().flat_map(|elements| elements.iter()).filter_map(range_of).collect();
                    let set_contents = SetContents { kind: kind.to_owned(), ranges: joined(ranges) };
                    contents.sets.insert(set.name.to_string(), set_contents);
                }
                _ => {}
            }
        }
        contents
    }
}

/// The output of `nft -j list`; what is not read here may be anything.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Listed>,
}

/// One object: one of these is there, or it is of a kind that no tunnel's table holds.
#[derive(Deserialize)]
struct Listed {
    metainfo: Option<IgnoredAny>,
    table: Option<ListedTable>,
    chain: Option<ListedChain>,
    rule: Option<ListedRule>,
    set: Option<ListedSet>,
}

#[derive(Deserialize)]
struct ListedTable {
    name: String,
    flags: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ListedChain {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    prio: Option<i32>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct ListedRule {
    chain: String,
    comment: Option<String>,
}

#[derive(Deserialize)]
struct ListedSet {
    name: String,
    #[serde(rename = "type", deserialize_with = "text")]
    kind: String,
    #[serde(default)]
    elem: Vec<Value>,
}

/// A set of pairs has a list as its type, and is none of a tunnel's.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        _ => String::new(),
    })
}

/// The word by which JSON has one of the crate's enums.
fn word<T: serde::Serialize>(value: &Option<T>) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(ToOwned::to_owned)
}

/// An element is an address, a prefix or a range of addresses; `None` for anything else.
fn range_of_value(value: &Value) -> Option<(u128, u128)> {
    if let Some(address) = address(value) {
        return Some((address, address));
    }
    if let Some(prefix) = value.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let address: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
        return IpNet::new(address, length).ok().map(range_of_net);
    }
    match value.get("range")?.as_array()?.as_slice() {
        [first, last] => Some((address(first)?, address(last)?)),
        _ => None,
    }
}

fn range_of(element: &Expression<'static>) -> Option<(u128, u128)> {
    let Expression::Named(NamedExpression::Prefix(prefix)) = element else { return None };
    let Expression::String(address) = prefix.addr.as_ref() else { return None };
    IpNet::new(address.parse().ok()?, u8::try_from(prefix.len).ok()?).ok().map(range_of_net)
}

fn address(value: &Value) -> Option<u128> {
    value.as_str()?.parse().ok().map(number)
}

fn range_of_net(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Neighbouring prefixes may be listed as one range.
fn joined(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

const V4: &str = "ipv4_addr";
const V6: &str = "ipv6_addr";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::super::{Firewall, KillSwitch, ruleset};
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn firewall() -> Firewall {
        Firewall {
            ifname: "adt0".into(),
            fwmark: 51820,
            addresses: nets(&["10.9.0.2/24", "fd09::2/64"]),
            reply_protection: true,
            kill_switch: Some(KillSwitch {
                excluded: nets(&["192.0.2.0/25", "192.0.2.128/26", "2001:db8::/32"]),
                local: nets(&["192.168.1.0/24"]),
                no_local_dns: true,
            }),
        }
    }

    /// The table as `nft` would list it.
    fn listing() -> Value {
        let mut objects = vec![
            json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}}),
            json!({"table": {"family": "inet", "name": "adit-adt0", "handle": 7}}),
        ];
        objects.extend(ruleset::contents(&firewall()).iter().map(|object| serde_json::to_value(object).unwrap()));
        json!({ "nftables": objects })
    }

    fn in_force(listing: &Value) -> bool {
        matches(listing.to_string().as_bytes(), &ruleset::contents(&firewall())).unwrap()
    }

    /// Changes the first object of a kind for which the change returns true.
    fn changed(kind: &str, change: impl Fn(&mut Value) -> bool) -> Value {
        let mut listing = listing();
        let objects = listing["nftables"].as_array_mut().unwrap();
        assert!(objects.iter_mut().filter_map(|object| object.get_mut(kind)).any(change), "no such {kind}");
        listing
    }

    #[test]
    fn the_same_in_other_words_is_the_same() {
        assert!(in_force(&listing()));
        let excluded = |set: &mut Value, elements: Value| {
            let found = set["name"] == "excluded4";
            if found {
                set["elem"] = elements;
            }
            found
        };
        for elements in [
            json!([{"range": ["192.0.2.0", "192.0.2.191"]}]),
            json!([{"prefix": {"addr": "192.0.2.128", "len": 26}}, {"range": ["192.0.2.0", "192.0.2.127"]}]),
        ] {
            assert!(in_force(&changed("set", |set| excluded(set, elements.clone()))), "{elements}");
        }
        for elements in [
            json!([]),
            json!([{"range": ["192.0.2.0", "192.0.2.192"]}]),
            json!([{"range": ["192.0.2.0", "192.0.2.190"]}]),
            json!([{"range": ["192.0.2.0", "192.0.2.191"]}, "198.51.100.1"]),
            json!([{"concat": ["192.0.2.0", 1]}]),
        ] {
            assert!(!in_force(&changed("set", |set| excluded(set, elements.clone()))), "{elements}");
        }
    }

    #[test]
    fn whatever_is_missing_more_or_different_is_noticed() {
        let objects = listing()["nftables"].as_array().unwrap().len();
        for index in 1..objects {
            let mut listing = listing();
            let removed = listing["nftables"].as_array_mut().unwrap().remove(index);
            assert!(!in_force(&listing), "without {removed}");
        }
        let output = |chain: &Value| chain["name"] == "output";
        for (key, value) in [("policy", json!("accept")), ("hook", json!("input")), ("prio", json!(5))] {
            let listing = changed("chain", |chain| {
                chain[key] = value.clone();
                output(chain)
            });
            assert!(!in_force(&listing), "{key}");
        }
        let set = |kind: &str, key: &str, value: Value| {
            changed(kind, |object| {
                object[key] = value.clone();
                true
            })
        };
        assert!(!in_force(&set("table", "flags", json!(["dormant"]))));
        assert!(!in_force(&set("rule", "comment", json!("something else"))));
        assert!(!in_force(&set("rule", "comment", Value::Null)));
        assert!(
            !in_force(&set("set", "type", json!("ipv6_addr"))) && !in_force(&set("set", "type", json!(["a", "b"])))
        );
        for more in [
            json!({"rule": {"family": "inet", "table": "adit-adt0", "chain": "output", "expr": [{"accept": null}]}}),
            json!({"chain": {"family": "inet", "table": "adit-adt0", "name": "more"}}),
            json!({"set": {"family": "inet", "table": "adit-adt0", "name": "more", "type": "ipv4_addr"}}),
            json!({"counter": {"family": "inet", "table": "adit-adt0", "name": "more"}}),
        ] {
            let mut listing = listing();
            listing["nftables"].as_array_mut().unwrap().push(more.clone());
            assert!(!in_force(&listing), "with {more}");
        }
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        for text in ["", "{}", "[]", "{\"nftables\": 1}", "{\"nftables\": [{\"chain\": 5}]}"] {
            assert!(matches(text.as_bytes(), &[]).is_err() && names(text.as_bytes()).is_err(), "{text}");
        }
        assert!(!matches(b"{\"nftables\": []}", &[]).unwrap(), "no table");
        let tables = br#"{"nftables": [{"metainfo": {}}, {"table": {"family": "inet", "name": "adit-a"}}]}"#;
        assert_eq!(names(tables).unwrap(), ["adit-a"]);
    }
}
