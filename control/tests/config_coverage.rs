//! What configurations are told about the prefixes that they allow and exclude, and about their kill switch.

#![allow(clippy::unwrap_used, reason = "a test that cannot do what it needs has failed")]

use std::fs;
use std::path::Path;

use adit_control::config::{Config, Format, Severity, parse};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const KEY: &str = "PublicKey = de05oT5hmsMULhLyKYvyGD/Zk8kuFbcVTFeyoLiwfi0=\n";
const PRIVATE: &str = "PrivateKey = aPWQDFmjBm6Lyp5WSSFpu3SHcjzOgXIayedIqWe3p2o=\n";
const BOTH: &str = "Address = 10.9.0.2/24, fd09::2/64\n";

/// A file with these lines in its two sections: the interface's begin in line 3, the peer's three lines after them.
fn file(interface: &str, peer: &str) -> String {
    format!("[Interface]\n{PRIVATE}{interface}\n[Peer]\n{KEY}{peer}\n")
}

/// The findings about a valid file, without its name.
#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    let (_, warnings) = parse(text, Format::Conf, "t").unwrap_or_else(|error| panic!("{error}\n{text}"));
    let lines = warnings.iter().map(ToString::to_string);
    lines.map(|line| line.strip_prefix("t:").unwrap().replacen(" warning: ", " ", 1)).collect()
}

#[track_caller]
fn errors(text: &str, format: Format) -> Vec<String> {
    let error = parse(text, format, "t").unwrap_err();
    let errors = error.diagnostics().iter().filter(|found| found.severity == Severity::Error);
    errors.map(|error| error.to_string().strip_prefix("t:").unwrap().replacen(" error: ", " ", 1)).collect()
}

fn config(text: &str) -> Config {
    parse(text, Format::Conf, "t").unwrap().0
}

mod keys {
    use super::*;

    #[test]
    fn lists_add_up_and_switches_have_words() {
        let text = file(
            "Address = 10.9.0.2/24\nEXCLUDEDIPS = 10.1.0.0/16,10.2.0.0 / 16\nexcludedips = 10.3.0.1\nExcludedIPs =\n\
             excludelocalnetworks = ON\nKILLSWITCH = True",
            "AllowedIPs = 0.0.0.0/0",
        );
        let interface = config(&text).interface;
        let excluded: Vec<_> = interface.excluded_ips.iter().map(ToString::to_string).collect();
        assert_eq!(excluded, ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.1/32"]);
        assert_eq!((interface.exclude_local_networks, interface.kill_switch), (Some(true), true));
        let interface = config(&file("ExcludeLocalNetworks = off\nKillSwitch = false", "")).interface;
        assert_eq!((interface.exclude_local_networks, interface.kill_switch), (Some(false), false));
        let interface = config(&file("", "")).interface;
        assert_eq!(
            (interface.excluded_ips.len(), interface.exclude_local_networks, interface.kill_switch),
            (0, None, false)
        );
    }

    #[test]
    fn what_is_neither_on_nor_off_says_what_was_meant() {
        let text = file("KillSwitch = yes\nExcludeLocalNetworks = dsiabled", "");
        let switch = "allowed `on` or `off`; did you mean";
        let expected = [
            format!("3:14: KillSwitch: this is neither on nor off; found \"yes\", {switch} on?"),
            format!("4:24: ExcludeLocalNetworks: this is neither on nor off; found \"dsiabled\", {switch} off?"),
        ];
        assert_eq!(errors(&text, Format::Conf), expected);
        for text in ["", "maybe", "2", "0.0.0.0/0"] {
            let found = errors(&file(&format!("KillSwitch = {text}"), ""), Format::Conf);
            let expected = format!("found \"{text}\", allowed `on` or `off`");
            assert!(found.len() == 1 && found[0].ends_with(&expected), "{found:?}");
        }
        let toml = "[interface]\nkill_switch = \"on\"\nexclude_local_networks = 0\nexcluded_ips = \"10.0.0.0/8\"\n";
        let expected = [
            "2:15: interface.kill_switch: wrong kind of value; found a string, allowed true or false; did you mean true?",
            "3:26: interface.exclude_local_networks: wrong kind of value; found a number, allowed true or false",
            "4:16: interface.excluded_ips: wrong kind of value; found a string, allowed an array of strings",
        ];
        assert_eq!(errors(toml, Format::Toml), expected);
    }

    #[test]
    fn a_key_that_is_nearly_one_is_told_which() {
        let text = file(
            "ExcludeIPs = 10.0.0.0/8\nExclude_Local_Network = on\nKill Swich = on",
            "ExcludedIPs = ::/1\nDisallowedIPs = ::/1",
        );
        let expected = [
            "3:1: ExcludeIPs: unknown key in [Interface]; did you mean ExcludedIPs?",
            "4:1: Exclude_Local_Network: unknown key in [Interface]; did you mean ExcludeLocalNetworks?",
            "5:1: KillSwich: unknown key in [Interface]; did you mean KillSwitch?",
            "8:1: ExcludedIPs: this key belongs to [Interface], not to [Peer]",
            "9:1: DisallowedIPs: unknown key in [Peer]; did you mean ExcludedIPs in [Interface]?",
        ];
        assert_eq!(errors(&text, Format::Conf), expected);
    }
}

mod prefixes {
    use super::*;

    #[test]
    fn host_bits_are_cleared_in_both_lists_and_the_prefix_is_told() {
        let text = file(&format!("{BOTH}ExcludedIPs = 10.1.2.3/16"), "AllowedIPs = 10.5.5.5/8");
        let expected = [
            "4:15: ExcludedIPs: bits are set beyond the prefix length, taken as 10.1.0.0/16; found \"10.1.2.3/16\"; \
             did you mean 10.1.0.0/16?",
            "7:14: AllowedIPs: bits are set beyond the prefix length, taken as 10.0.0.0/8; found \"10.5.5.5/8\"; \
             did you mean 10.0.0.0/8?",
        ];
        assert_eq!(warnings(&text), expected);
    }

    #[test]
    fn mapped_prefixes_are_refused_wherever_they_stand() {
        let text = file(
            "Address = ::ffff:10.9.0.2/120\nExcludedIPs = ::ffff:10.1.0.0/112",
            "AllowedIPs = ::ffff:10.0.0.0/104, ::ffff:0:0/96",
        );
        let meant = ["10.9.0.2/24", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"];
        let found = errors(&text, Format::Conf);
        assert_eq!(found.len(), meant.len(), "{found:?}");
        for (error, meant) in found.iter().zip(meant) {
            let expected = "write the IPv4 address; found \"::ffff:";
            assert!(error.contains(expected) && error.ends_with(&format!("did you mean {meant}?")), "{error}");
        }
    }

    #[test]
    fn changes_are_no_exclusions() {
        let text = file("ExcludedIPs = -10.1.0.0/16", "AllowedIPs = 10.0.0.0/8");
        let found = errors(&text, Format::Conf);
        assert!(found.len() == 1 && found[0].starts_with("3:15: ExcludedIPs: changes with + and -"), "{found:?}");
    }

    #[test]
    fn the_same_prefix_on_both_lists_is_refused_with_both_places() {
        let text = file("ExcludedIPs = ::/0, 10.1.2.3/16\nMTU = 1", "AllowedIPs = 0.0.0.0/0\nAllowedIPs = 10.1.0.0/16");
        let expected = [
            "3:21: ExcludedIPs: 10.1.0.0/16 is excluded here and allowed to a peer at line 8; found \"10.1.2.3/16\", \
             allowed one of the two, or prefixes of different lengths, of which the longest decides",
            "4:7: MTU: this is not an MTU that can be carried; found \"1\", allowed a number of bytes from 576 to 65475",
        ];
        assert_eq!(errors(&text, Format::Conf), expected);
        // The peer may come first, and every format says it.
        let json = "{\"peer\": [{\"public_key\": \"de05oT5hmsMULhLyKYvyGD/Zk8kuFbcVTFeyoLiwfi0=\",\n\
            \"allowed_ips\": [\"10.0.0.0/8\"]}],\n\"interface\": {\"excluded_ips\": [\"::/1\",\n\"10.0.0.0/8\"]}}";
        let found = errors(json, Format::Json);
        let expected = "4:1: interface.excluded_ips[1]: 10.0.0.0/8 is excluded here and allowed to a peer at line 2;";
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }

    #[test]
    fn listed_twice_is_told() {
        let text =
            file(&format!("{BOTH}ExcludedIPs = 10.1.0.0/16\nExcludedIPs = 10.1.0.0/16"), "AllowedIPs = 10.0.0.0/8");
        let expected = "5:15: ExcludedIPs: listed twice, it is there already at line 4; found \"10.1.0.0/16\"";
        assert_eq!(warnings(&text), [expected]);
        assert_eq!(config(&text).interface.excluded_ips.len(), 1);
    }

    #[test]
    fn exclusions_that_change_nothing_are_told() {
        let text = file(
            &format!(
                "{BOTH}ExcludedIPs = 10.1.0.0/16, 192.168.0.0/16, fd00::/8\nExcludedIPs = 10.1.2.0/24, 10.0.0.0/7"
            ),
            "AllowedIPs = 10.0.0.0/8\nAllowedIPs = fd00::/16",
        );
        let nothing = "this lies in no allowed IP, so it excludes nothing; found";
        let expected = [
            format!("4:28: ExcludedIPs: {nothing} \"192.168.0.0/16\""),
            format!("4:44: ExcludedIPs: {nothing} \"fd00::/8\""),
            "5:15: ExcludedIPs: this lies in the exclusion 10.1.0.0/16 with no allowed IP between them, so it changes \
             nothing; the other is at line 4; found \"10.1.2.0/24\""
                .to_owned(),
            format!("5:28: ExcludedIPs: {nothing} \"10.0.0.0/7\""),
        ];
        assert_eq!(warnings(&text), expected);
        let nested = file(
            &format!("{BOTH}ExcludedIPs = 10.1.0.0/16, 10.1.2.128/25"),
            "AllowedIPs = 10.0.0.0/8, 10.1.2.0/24, 10.1.2.192/26",
        );
        assert_eq!(warnings(&nested), [""; 0], "exclusions in inclusions in exclusions have their effect");
    }

    #[test]
    fn exclusions_that_hold_an_endpoint_are_told() {
        let peer = "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51820";
        let told = |exclusion: &str| {
            format!(
                "4:15: ExcludedIPs: this holds the endpoint 192.0.2.1: the tunnel's own datagrams stay outside in any \
                 case, and whatever else is sent to that address leaves in the clear; the endpoint is at line 8; found \
                 \"{exclusion}\""
            )
        };
        for exclusion in ["192.0.2.0/24", "192.0.2.1"] {
            assert_eq!(warnings(&file(&format!("{BOTH}ExcludedIPs = {exclusion}"), peer)), [told(exclusion)]);
        }
        let other = format!("{BOTH}ExcludedIPs = 192.0.2.2");
        assert_eq!(warnings(&file(&other, peer)), [""; 0]);
        let name = "AllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example.com:51820";
        assert_eq!(warnings(&file(&format!("{BOTH}ExcludedIPs = 192.0.2.0/24"), name)), [""; 0], "names are not known");
        let back = "AllowedIPs = 0.0.0.0/0, 192.0.2.1/32\nEndpoint = 192.0.2.1:51820";
        assert_eq!(warnings(&file(&format!("{BOTH}ExcludedIPs = 192.0.2.0/24"), back)), [""; 0], "the tunnel wins");
    }

    #[test]
    fn an_endpoint_in_the_networks_of_the_interface_is_told() {
        let told = |endpoint: &str| {
            warnings(&file(
                "Address = 10.9.0.2/24, 10.8.0.1/32",
                &format!("AllowedIPs = 10.9.0.0/24\nEndpoint = {endpoint}:1"),
            ))
        };
        let loops = told("10.9.0.1");
        assert!(loops.len() == 1 && loops[0].contains("Endpoint: the endpoint lies in the network"), "{loops:?}");
        assert!(told("10.8.0.1").is_empty() && told("192.0.2.1").is_empty());
    }

    #[test]
    fn loopback_and_multicast_are_told() {
        let peer = "AllowedIPs = 0.0.0.0/0, ::/0";
        for net in ["127.0.0.0/8", "127.0.0.53", "::1"] {
            let found = warnings(&file(&format!("{BOTH}ExcludedIPs = {net}"), peer));
            assert!(found.len() == 1 && found[0].contains("loopback never enters a tunnel"), "{net}: {found:?}");
        }
        for net in ["224.0.0.0/4", "239.255.255.250", "ff02::/16"] {
            let found = warnings(&file(&format!("{BOTH}ExcludedIPs = {net}"), peer));
            assert!(found.len() == 1 && found[0].contains("this is multicast"), "{net}: {found:?}");
        }
        for net in ["0.0.0.0/1", "::/64", "224.0.0.0/3"] {
            assert_eq!(warnings(&file(&format!("{BOTH}ExcludedIPs = {net}"), peer)), [""; 0], "{net}");
        }
    }

    #[test]
    fn a_family_without_an_address_is_told_once() {
        let text = file("Address = 10.9.0.2/24", "AllowedIPs = 10.0.0.0/8, ::/0, fd00::/8");
        let expected = "6:26: AllowedIPs: IPv6 is allowed and the interface has no IPv6 address: packets would carry the \
            address of another interface, and the peer would drop them; found \"::/0\"";
        assert_eq!(warnings(&text), [expected]);
        let text = file("Address = fd09::2/64", "AllowedIPs = 10.0.0.0/8, ::/0");
        let found = warnings(&text);
        assert!(found.len() == 1 && found[0].contains("no IPv4 address"), "{found:?}");
        assert_eq!(warnings(&file("", "AllowedIPs = 10.0.0.0/8, ::/0")), [""; 0], "somebody else gives addresses");
    }
}

mod kill_switch {
    use super::*;

    #[test]
    fn what_it_blocks_apart_from_leaks_is_told() {
        let told = |interface: &str, allowed: &str| {
            warnings(&file(&format!("KillSwitch = on\n{interface}"), &format!("AllowedIPs = {allowed}")))
        };
        assert_eq!(told(BOTH, "0.0.0.0/0, ::/0"), [""; 0]);
        assert_eq!(told(BOTH, "0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1"), [""; 0], "halves are a whole");
        let split =
            "3:14: KillSwitch: no default route is allowed: whatever is neither allowed nor excluded is blocked";
        assert_eq!(
            told(BOTH, "10.0.0.0/8"),
            [format!("{split}; 0.0.0.0/0 and ::/0 in the allowed IPs would carry it")]
        );
        let v4 = "Address = 10.9.0.2/24";
        assert_eq!(told(v4, "0.0.0.0/1"), [format!("{split}; 0.0.0.0/0 in the allowed IPs would carry it")]);
        let v6 = "3:14: KillSwitch: IPv6 is blocked altogether, none of it is allowed";
        assert_eq!(told(v4, "0.0.0.0/0"), [v6]);
        assert_eq!(told(BOTH, "0.0.0.0/0"), [format!("{v6}; ::/0 in the allowed IPs would carry it")]);
        let local = "3:14: KillSwitch: IPv6 is blocked but for what is allowed or excluded of it";
        assert_eq!(told(&format!("{v4}\nExcludeLocalNetworks = on"), "0.0.0.0/0"), [local]);
        let partly = "3:14: KillSwitch: IPv4 is blocked but for what is allowed or excluded of it; 0.0.0.0/0 in the \
            allowed IPs would carry it";
        assert_eq!(told(BOTH, "::/0, 10.0.0.0/8"), [partly]);
    }

    #[test]
    fn it_gives_exclusions_outside_of_all_allowed_ips_an_effect() {
        let peer = "AllowedIPs = 10.0.0.0/8\nEndpoint = 192.0.2.1:51820";
        let text = |switch| file(&format!("{BOTH}ExcludedIPs = 192.0.2.0/24\nKillSwitch = {switch}"), peer);
        let (on, off) = (warnings(&text("on")), warnings(&text("off")));
        assert!(on.len() == 2 && on[0].contains("this holds the endpoint") && on[1].contains("no default"), "{on:?}");
        assert!(off.len() == 1 && off[0].contains("it excludes nothing"), "{off:?}");
    }

    #[test]
    fn it_does_not_know_the_rules_of_others() {
        let text = |table| file(&format!("{BOTH}Table = {table}\nKillSwitch = on"), "AllowedIPs = 0.0.0.0/0, ::/0");
        let expected = "5:14: KillSwitch: Adit makes no rules for a table that is set, so what rules of yours send outside \
            of the tunnel is blocked; the table is set at line 4";
        assert_eq!(warnings(&text("off")), [expected]);
        assert_eq!(warnings(&text("1000")), [expected]);
        assert_eq!(warnings(&text("auto")), [""; 0]);
    }
}

#[test]
fn without_routes_exclusions_have_no_effect() {
    let peer = "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.1:51820";
    let exclusions = "ExcludedIPs = 192.0.2.0/24, 10.0.0.0/8\nExcludeLocalNetworks = on";
    let text = file(&format!("{BOTH}{exclusions}\nTable = off"), peer);
    let nothing = "no routes are made, so this has no effect; the table is off at line 6";
    let expected = [
        format!("4:15: ExcludedIPs: {nothing}; found \"192.0.2.0/24\""),
        format!("5:24: ExcludeLocalNetworks: {nothing}"),
    ];
    assert_eq!(warnings(&text), expected);
    let number = file(&format!("{BOTH}ExcludedIPs = 10.0.0.0/8\nExcludeLocalNetworks = on\nTable = 7"), peer);
    assert_eq!(warnings(&number), [""; 0]);
    let off = file(&format!("{BOTH}ExcludeLocalNetworks = off\nTable = off"), peer);
    assert_eq!(warnings(&off), [""; 0], "what is not asked for is not missing");
}

#[test]
fn the_examples_are_clean_and_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut configs = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "md") {
            let (config, warnings) = parse(&fs::read_to_string(&path).unwrap(), Format::from_path(&path), "t").unwrap();
            assert_eq!(warnings, [], "{}", path.display());
            configs.push((path.file_stem().unwrap().to_owned(), config));
        }
    }
    let named =
        |name: &str| configs.iter().filter(|(stem, _)| stem == name).map(|(_, config)| config).collect::<Vec<_>>();
    assert_eq!((configs.len(), named("full").len(), named("split-include").len()), (5, 1, 1));
    let [one, two, three] = named("split-exclude").try_into().unwrap();
    assert!(one == two && two == three);
    assert_eq!(one.interface.excluded_ips.len(), 3);
    assert!(named("full")[0].interface.kill_switch);
    assert_eq!(named("full")[0].interface.exclude_local_networks, Some(true));
}

/// What is said about each exclusion, found by comparing every prefix with every other.
fn oracle(allowed: &[IpNet], excluded: &[IpNet], endpoint: IpNet, kill_switch: bool) -> Vec<Vec<&'static str>> {
    let around = |inner: &IpNet| {
        let outer = allowed.iter().map(|net| (net, false)).chain(excluded.iter().map(|net| (net, true)));
        outer.filter(|(net, _)| *net != inner && net.contains(inner)).max_by_key(|(net, _)| net.prefix_len())
    };
    let has_effect = |exclusion: &IpNet| {
        let mut inner = *exclusion;
        loop {
            match around(&inner) {
                None => return kill_switch,
                Some((_, false)) => return true,
                Some((outer, true)) => inner = *outer,
            }
        }
    };
    let holder =
        allowed.iter().chain(excluded).filter(|net| net.contains(&endpoint)).max_by_key(|net| net.prefix_len());
    excluded
        .iter()
        .map(|exclusion| {
            let mut said = Vec::new();
            match around(exclusion) {
                None if !kill_switch => said.push("it excludes nothing"),
                Some((_, true)) => said.push("it changes nothing"),
                _ => {}
            }
            if holder == Some(exclusion) && has_effect(exclusion) {
                said.push("this holds the endpoint");
            }
            said
        })
        .collect()
}

/// Prefixes of few bits, so that they nest.
fn nested() -> impl Strategy<Value = Vec<IpNet>> {
    let net = (0u32..64, 0u8..=6).prop_map(|(bits, length)| {
        IpNet::new(std::net::Ipv4Addr::from(10 << 24 | bits << 18).into(), 8 + length).unwrap().trunc()
    });
    proptest::collection::btree_set(net, 0..12).prop_map(|nets| nets.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(51820), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exclusions_are_judged_as_by_comparing_all_with_all(
        allowed in nested(), mut excluded in nested(), endpoint in 0u32..64, kill_switch: bool,
    ) {
        excluded.retain(|net| !allowed.contains(net));
        let endpoint = std::net::Ipv4Addr::from(10 << 24 | endpoint << 18 | 1);
        // One exclusion a line, so that findings are told apart by their lines.
        let mut lines: Vec<_> = excluded.iter().map(|net| format!("ExcludedIPs = {net}")).collect();
        lines.push(format!("KillSwitch = {}", if kill_switch { "on" } else { "off" }));
        let allow: Vec<_> = allowed.iter().map(|net| format!("AllowedIPs = {net}")).collect();
        let text = file(&lines.join("\n"), &format!("{}\nEndpoint = {endpoint}:1", allow.join("\n")));
        let (_, warnings) = parse(&text, Format::Conf, "t").map_err(|error| TestCaseError::fail(error.to_string()))?;
        let expected = oracle(&allowed, &excluded, IpNet::from(std::net::IpAddr::from(endpoint)), kill_switch);
        let kinds = ["it excludes nothing", "it changes nothing", "this holds the endpoint"];
        for (index, expected) in expected.into_iter().enumerate() {
            let here = warnings.iter().filter(|warning| warning.line == Some(index as u32 + 3));
            let mut found: Vec<_> =
                here.map(|warning| *kinds.iter().find(|kind| warning.message.contains(**kind)).unwrap()).collect();
            found.sort_by_key(|kind| kinds.iter().position(|known| known == kind));
            prop_assert_eq!(found, expected, "{}\n{}", excluded[index], text);
        }
    }
}
