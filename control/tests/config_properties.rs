//! What holds for every configuration and for every text.

#![allow(clippy::unwrap_used, reason = "a test that cannot do what it needs has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use adit_control::config::{Config, Endpoint, Format, Host, Interface, MAX_LENGTH, MAX_MTU, MIN_MTU, Peer, Table};
use adit_control::config::{parse, parse_bytes};
use adit_core::{PresharedKey, PrivateKey, PublicKey};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const FORMATS: [Format; 3] = [Format::Conf, Format::Toml, Format::Json];

fn ip() -> impl Strategy<Value = IpAddr> {
    let v6 = any::<Ipv6Addr>().prop_filter("no file holds mapped addresses", |ip| ip.to_ipv4_mapped().is_none());
    prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), v6.prop_map(IpAddr::V6)]
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip(), 0u8..=128).prop_map(|(ip, length)| match ip {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::new(ip, length % 33).unwrap()),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::new(ip, length).unwrap()),
    })
}

fn masked() -> impl Strategy<Value = IpNet> {
    let mapped = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some());
    net().prop_map(|net| net.trunc()).prop_filter("no file holds mapped prefixes", move |net| !mapped(net))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let name = "[a-zA-Z0-9_-]{1,20}(\\.[a-zA-Z0-9-]{1,10}){0,3}\\.[a-z]{2,5}\\.?".prop_map(Host::Name);
    (prop_oneof![ip().prop_map(Host::Ip), name], 1u16..).prop_map(|(host, port)| Endpoint { host, port })
}

fn hooks() -> impl Strategy<Value = Vec<String>> {
    // Everything that prints except `#`, which begins a comment; blanks only inside.
    vec("[!-\"$-~äß→]([ -\"$-~äß→\\t]{0,40}[!-\"$-~äß→])?", 0..3)
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Auto), Just(Table::Off), (1u32..).prop_map(Table::Number)]
}

fn without_repeats(mut nets: Vec<IpNet>) -> Vec<IpNet> {
    let mut seen = std::collections::HashSet::new();
    nets.retain(|net| seen.insert(*net));
    nets
}

fn interface() -> impl Strategy<Value = Interface> {
    let numbers =
        (of(any::<[u8; 32]>()), of(any::<u16>()), of(any::<u32>()), of(MIN_MTU..=MAX_MTU), table(), any::<bool>());
    let search = "~?[a-z][a-z0-9_-]{0,10}(\\.[a-z0-9-]{1,10}){0,3}\\.?";
    let lists = (vec(net(), 0..5), vec(ip(), 0..3), vec(search, 0..3));
    let switches = (of(any::<bool>()), any::<bool>(), vec(masked(), 0..5));
    let hooks = [hooks(), hooks(), hooks(), hooks()];
    (numbers, lists, switches, hooks).prop_map(|(numbers, lists, switches, hooks)| {
        let (private_key, listen_port, fwmark, mtu, table, save_config) = numbers;
        let (addresses, dns, dns_search) = lists;
        let (exclude_local_networks, kill_switch, excluded_ips) = switches;
        let [pre_up, post_up, pre_down, post_down] = hooks;
        Interface {
            private_key: private_key.map(PrivateKey::from_bytes),
            listen_port,
            fwmark,
            addresses: without_repeats(addresses),
            dns,
            dns_search,
            mtu,
            table,
            excluded_ips,
            exclude_local_networks,
            kill_switch,
            pre_up,
            post_up,
            pre_down,
            post_down,
            save_config,
        }
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let key = || any::<[u8; 32]>().prop_filter("a key of zeros is none", |bytes| *bytes != [0; 32]);
    let keys = (key().prop_map(PublicKey::from_bytes), of(key().prop_map(PresharedKey::from_bytes)));
    (keys, vec(masked(), 0..6), of(endpoint()), of(any::<u16>())).prop_map(|(keys, nets, endpoint, keepalive)| Peer {
        public_key: keys.0,
        preshared_key: keys.1,
        allowed_ips: without_repeats(nets),
        endpoint,
        persistent_keepalive: keepalive,
    })
}

fn configuration() -> impl Strategy<Value = Config> {
    let inside = vec((any::<prop::sample::Index>(), 1u8..=16), 0..4);
    (interface(), vec(peer(), 0..5), inside).prop_map(|(mut interface, peers, inside)| {
        let peers: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer.public_key, peer)).collect();
        let allowed: Vec<_> = peers.values().flat_map(|peer| peer.allowed_ips.iter().copied()).collect();
        for (outer, longer) in inside.into_iter().filter(|_| !allowed.is_empty()) {
            let outer = outer.get(&allowed);
            let length = outer.prefix_len().saturating_add(longer).min(outer.max_prefix_len());
            interface.excluded_ips.push(IpNet::new(outer.addr(), length).unwrap());
        }
        interface.excluded_ips = without_repeats(interface.excluded_ips);
        // No file holds what is both allowed and excluded.
        interface.excluded_ips.retain(|net| !allowed.contains(net));
        Config { interface, peers: peers.into_values().collect() }
    })
}

fn write(config: &Config, format: Format) -> String {
    match format {
        Format::Conf => config.to_conf(),
        Format::Toml => config.to_toml(),
        Format::Json => config.to_json(),
    }
    .to_string()
}

/// Text that looks like a configuration from afar.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop_oneof![
        Just("[Interface]\n".to_owned()),
        Just("[Peer]\n".to_owned()),
        Just("[interface]\n".to_owned()),
        Just("[[peer]]\n".to_owned()),
        Just("{\"interface\": {".to_owned()),
        Just("\"peer\": [{".to_owned()),
        "(PrivateKey|PublicKey|Address|DNS|AllowedIPs|Endpoint|MTU|Table|FwMark) *= *[ -~]{0,30}\n",
        "(private_key|addresses|allowed_ips|endpoint|mtu|table) *= *[\\[\"0-9.:/a-z\\],]{0,30}\n",
        "\"(private_key|addresses|allowed_ips|endpoint|mtu)\": [\\[{\"0-9.:/a-z\\]},]{0,20}",
        "\\PC{0,20}",
        "[\\[\\]{}\",=:#\\n\\r\\\\ ]{0,8}",
    ];
    vec(scrap, 0..30).prop_map(|scraps| scraps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(51820), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_as_the_same(config in configuration()) {
        for format in FORMATS {
            let text = write(&config, format);
            let (again, _) = parse(&text, format, "t").map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(&again, &config, "{:?}\n{}", format, text);
            prop_assert_eq!(write(&again, format), text);
        }
    }

    #[test]
    fn the_formats_agree_on_warnings(config in configuration()) {
        let messages = FORMATS.map(|format| {
            let (_, warnings) = parse(&write(&config, format), format, "t").unwrap();
            let mut messages: Vec<_> = warnings.into_iter().map(|warning| warning.message).collect();
            // Lines differ between the formats.
            messages.iter_mut().for_each(|message| message.truncate(message.find(" at line").unwrap_or(message.len())));
            messages.sort();
            messages
        });
        prop_assert_eq!(&messages[0], &messages[1]);
        prop_assert_eq!(&messages[1], &messages[2]);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..2000)) {
        for format in FORMATS {
            let _ = parse_bytes(&bytes, format, "t");
        }
    }

    #[test]
    fn no_text_is_a_panic(text in scraps()) {
        for format in FORMATS {
            if let Ok((config, _)) = parse(&text, format, "t") {
                prop_assert_eq!(parse(&write(&config, format), format, "t").unwrap().0, config);
            }
        }
    }

    #[test]
    fn no_broken_file_is_a_panic(
        file in any::<prop::sample::Index>(),
        edits in vec((any::<prop::sample::Index>(), 0u8..6, any::<prop::sample::Index>(), any::<char>()), 1..6),
    ) {
        let corpus = corpus();
        let (path, bytes) = file.get(&corpus);
        let text = String::from_utf8_lossy(bytes);
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        for (line, edit, place, char) in edits {
            if lines.is_empty() {
                break;
            }
            let at = line.index(lines.len());
            let places: Vec<_> = lines[at].char_indices().map(|(place, _)| place).chain([lines[at].len()]).collect();
            let place = *place.get(&places);
            match edit {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                2 => lines[at].truncate(place),
                3 => lines[at].insert(place, char),
                4 => drop(lines[at].drain(..place)),
                _ => {
                    let other = (at * 7 + 3) % lines.len();
                    lines.swap(at, other);
                }
            }
        }
        let text = lines.concat();
        for format in FORMATS {
            match parse(&text, format, path) {
                Ok((config, _)) => prop_assert_eq!(parse(&write(&config, format), format, "t").unwrap().0, config),
                Err(error) => prop_assert!(!error.diagnostics().is_empty()),
            }
        }
    }
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = Vec::new();
    for folder in [folder.join("bad"), folder] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| ["conf", "toml", "json"].iter().any(|wanted| extension == *wanted))
            {
                files.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

fn numbered_key(number: u32) -> PublicKey {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    PublicKey::from_bytes(bytes)
}

/// Far above what a linear reader needs on a busy machine, far below what a quadratic one takes.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_hundred_thousand_peers_are_read_in_linear_time() {
    let peers = (0..100_000u32).map(|number| {
        let mut peer = Peer::new(numbered_key(number));
        peer.allowed_ips = vec![IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + number), 32).unwrap())];
        peer
    });
    let config = Config { interface: Interface::new(PrivateKey::from_bytes([1; 32])), peers: peers.collect() };
    for format in FORMATS {
        let text = write(&config, format);
        let start = Instant::now();
        assert!(parse(&text, format, "t").unwrap().0 == config, "{format:?}");
        assert!(start.elapsed() < LIMIT, "{format:?} took {:?}", start.elapsed());
    }
}

#[test]
fn a_hundred_thousand_prefixes_on_both_lists_are_compared_in_linear_time() {
    let pick = |base: u32, length: u8| {
        move |number: u32| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(base + number * 256), length).unwrap())
    };
    let mut peer = Peer::new(numbered_key(1));
    peer.allowed_ips = (0..100_000).map(pick(0x0a00_0000, 24)).collect();
    peer.endpoint = Some("10.0.0.1:51820".parse().unwrap());
    let mut interface = Interface::new(PrivateKey::from_bytes([1; 32]));
    interface.addresses = vec!["10.0.0.2/32".parse().unwrap()];
    interface.kill_switch = true;
    // Half of them inside of allowed ones, half in none.
    let inside = (0..50_000).map(pick(0x0a00_0000, 25));
    interface.excluded_ips = inside.chain((0..50_000).map(pick(0x2a00_0000, 25))).collect();
    let config = Config { interface, peers: vec![peer] };
    for format in FORMATS {
        let text = write(&config, format);
        let start = Instant::now();
        let (again, warnings) = parse(&text, format, "t").unwrap();
        assert!(start.elapsed() < LIMIT, "{format:?} took {:?}", start.elapsed());
        assert!(again == config, "{format:?}");
        assert_eq!(warnings.len(), 2, "the endpoint, and what the kill switch blocks: {warnings:?}");
    }
}

#[test]
fn a_file_of_errors_is_read_in_linear_time_and_told_in_bounded_space() {
    let one_line = format!("[Interface]\nAddress = {}\n", "x,".repeat(1 << 20));
    let many_lines = "[Interface]\nAddres = x\n".repeat(100_000);
    let mut claims = "[Interface]\n".to_owned();
    for number in 0..60_000 {
        // The same key and prefix in every section, and none of the sections complete.
        writeln!(claims, "[Peer]\nPublicKey = {}\nAllowedIPs = 10.0.0.1/8\nMTU = {number}", numbered_key(7)).unwrap();
    }
    let nets: Vec<_> = (0..100_000u32).map(|number| Ipv4Addr::from(number << 8).to_string()).collect();
    let nets = nets.join(",");
    for (name, text, format) in [
        ("one line", one_line, Format::Conf),
        ("many lines", many_lines, Format::Conf),
        ("claims", claims, Format::Conf),
        ("brackets", "[".repeat(8 << 20), Format::Toml),
        ("dotted", format!("{}a = 1", "a.".repeat(1 << 20)), Format::Toml),
        ("no TOML", "= ]\n".repeat(1 << 20), Format::Toml),
        ("short and no TOML", "= ]\n".repeat(1 << 15), Format::Toml),
        ("list", format!("{{\"peer\": [{}0]}}", "0,".repeat(1 << 20)), Format::Json),
        ("both", format!("[Interface]\nExcludedIPs={nets}\n[Peer]\nAllowedIPs={nets}\n"), Format::Conf),
        ("braces", "{\"a\":".repeat(2 << 20), Format::Json),
        ("keys", format!("{{\"interface\": {{{}\"a\": 1}}}}", "\"mtu\": 1,".repeat(1 << 18)), Format::Json),
    ] {
        let start = Instant::now();
        let error = parse(&text, format, "t").unwrap_err();
        assert!(start.elapsed() < LIMIT, "{name} took {:?}", start.elapsed());
        assert!(error.diagnostics().len() <= 2000, "{name} has {} diagnostics", error.diagnostics().len());
        assert!(error.to_string().len() < 1 << 20, "{name}");
    }
}

#[test]
fn longer_texts_than_allowed_are_refused() {
    let text = "#".repeat(MAX_LENGTH + 1);
    for format in FORMATS {
        for error in [parse(&text, format, "t").unwrap_err(), parse_bytes(text.as_bytes(), format, "t").unwrap_err()] {
            assert_eq!(error.to_string(), "t: error: longer than 16 MiB");
        }
    }
}
