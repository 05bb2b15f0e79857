use super::*;
use proptest::prelude::*;

const KEY_A: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";
const KEY_B: &str = "58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376";
const SECRET: &str = "e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a";

/// Interface «lan» has index 7, and there is no other.
fn lan(name: &str) -> Option<u32> {
    (name == "lan").then_some(7)
}

fn parse(body: &str) -> Result<SetRequest, UapiError> {
    SetRequest::parse(&format!("set=1\n{body}\n"), lan)
}

fn key(text: &str) -> PublicKey {
    PublicKey::from_hex(text).unwrap()
}

#[test]
fn the_example_of_the_protocol_page_is_understood() {
    // https://www.wireguard.com/xplatform/#example-dialog
    let request = parse(&format!(
        "private_key={SECRET}\nlisten_port=12912\nfwmark=0\nreplace_peers=true\n\
         public_key={KEY_A}\npreshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52\n\
         replace_allowed_ips=true\nallowed_ip=192.168.4.4/32\nendpoint=[abcd:23::33%2]:51820\n\
         public_key={KEY_B}\nreplace_allowed_ips=true\nallowed_ip=192.168.4.6/32\n\
         persistent_keepalive_interval=111\nendpoint=182.122.22.19:3233\n\
         public_key=662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58\nremove=true\n",
    ))
    .unwrap();
    assert_eq!(request.update.private_key, Some(Some(PrivateKey::from_hex(SECRET).unwrap())));
    assert_eq!((request.listen_port, request.fwmark, request.update.replace_peers), (Some(12912), Some(0), true));
    let [a, b, removed] = request.update.peers.as_slice() else { panic!("three peers") };
    assert_eq!(a.public_key, key(KEY_A));
    assert!(matches!(a.preshared_key, Some(Some(_))) && a.replace_allowed_ips);
    assert_eq!(a.endpoint, Some("[abcd:23::33%2]:51820".parse().unwrap()));
    let expected = PeerUpdate { replace_allowed_ips: true, ..PeerUpdate::new(key(KEY_B)) }
        .allow(["192.168.4.6/32".parse().unwrap()])
        .keepalive(111)
        .endpoint("182.122.22.19:3233".parse().unwrap());
    assert_eq!(*b, expected);
    assert!(removed.remove);
}

#[test]
fn zeros_remove_keys() {
    let zeros = "0".repeat(64);
    let request = parse(&format!("private_key={zeros}\npublic_key={KEY_A}\npreshared_key={zeros}\n")).unwrap();
    assert_eq!(request.update.private_key, Some(None));
    assert_eq!(request.update.peers[0].preshared_key, Some(None));
    assert!(request.to_text().contains(&format!("private_key={zeros}\n")));
}

#[test]
fn prefixes_are_given_and_taken_in_order() {
    let request = parse(&format!("public_key={KEY_A}\nallowed_ip=10.0.0.0/8\nallowed_ip=-fd00::/8\n")).unwrap();
    let change = |net: &str, remove| AllowedIpChange { net: net.parse().unwrap(), remove };
    assert_eq!(request.update.peers[0].allowed_ips, [change("10.0.0.0/8", false), change("fd00::/8", true)]);
}

#[test]
fn a_late_replace_takes_effect_where_it_stands() {
    let text = format!(
        "public_key={KEY_A}\nallowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=10.1.0.0/16\nupdate_only=true\n"
    );
    let request = parse(&text).unwrap();
    let [before, after] = request.update.peers.as_slice() else { panic!("two steps") };
    assert_eq!((before.public_key, after.public_key), (key(KEY_A), key(KEY_A)));
    assert!(!before.replace_allowed_ips && after.replace_allowed_ips);
    assert!(before.update_only && after.update_only);
    assert_eq!((before.allowed_ips.len(), after.allowed_ips.len()), (1, 1));
}

#[test]
fn a_removed_peer_does_not_come_back_by_later_lines() {
    let text =
        format!("public_key={KEY_A}\nallowed_ip=10.0.0.0/8\nremove=true\nreplace_allowed_ips=true\nallowed_ip=::/0\n");
    let request = parse(&text).unwrap();
    assert!(request.update.peers.iter().all(|peer| peer.remove));
}

#[test]
fn blocks_for_one_peer_stay_apart() {
    let text = format!("public_key={KEY_A}\nremove=true\npublic_key={KEY_A}\nallowed_ip=10.0.0.0/8\n");
    let request = parse(&text).unwrap();
    let removes: Vec<_> = request.update.peers.iter().map(|peer| peer.remove).collect();
    assert_eq!(removes, [true, false]);
}

#[test]
fn endpoints_have_addresses() {
    for (text, expected) in [
        ("192.0.2.1:51820", "192.0.2.1:51820"),
        ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ("[fe80::1%3]:1", "[fe80::1%3]:1"),
        ("[fe80::1%lan]:1", "[fe80::1%7]:1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1:1"),
    ] {
        assert_eq!(endpoint(text, lan), Some(expected.parse().unwrap()), "{text}");
    }
    for text in ["", "vpn.example.com:51820", "192.0.2.1", "2001:db8::1:51820", "[fe80::1%wan]:1", "[fe80::1%lan]:+1"] {
        assert_eq!(endpoint(text, lan), None, "{text}");
    }
}

#[test]
fn refusals_name_line_finding_and_remedy() {
    let peer = format!("public_key={KEY_A}\n");
    for (body, errno, message) in [
        (
            "listen_port=65536\n".into(),
            UapiErrno::INVALID,
            "line 2: found listen_port «65536»; allowed is a decimal number from 0 to 65535",
        ),
        (
            "fwmark=+1\n".into(),
            UapiErrno::INVALID,
            "line 2: found fwmark «+1»; allowed is a decimal number from 0 to 4294967295",
        ),
        ("replace_peers=yes\n".into(), UapiErrno::INVALID, "line 2: found replace_peers «yes»; allowed is «true»"),
        ("fwmark 1\n".into(), UapiErrno::PROTOCOL, "line 2: found 8 characters without «=»; allowed is «key=value»"),
        (
            "mtu=1420\n".into(),
            UapiErrno::INVALID,
            "line 2: found the key «mtu»; allowed is private_key, listen_port, fwmark, replace_peers or public_key",
        ),
        (
            "endpoint=192.0.2.1:1\n".into(),
            UapiErrno::INVALID,
            "line 2: found the key «endpoint»; allowed is a public_key line before the lines about a peer",
        ),
        (
            format!("{peer}listen_port=1\n"),
            UapiErrno::INVALID,
            "line 3: found the key «listen_port»; allowed is only lines about peers after the first public_key",
        ),
        (
            format!("{peer}protocol_version=2\n"),
            UapiErrno::INVALID,
            "line 3: found protocol_version «2»; allowed is «1»",
        ),
        (
            "public_key=abcd\n".into(),
            UapiErrno::INVALID,
            "line 2: found public_key with 4 characters (not shown); allowed is 64 hexadecimal digits",
        ),
    ] {
        let error = parse(&body).unwrap_err();
        assert_eq!((error.errno, error.to_string().as_str()), (errno, message), "{body}");
    }
    let host = parse(&format!("{peer}endpoint=vpn.example.com:51820\n")).unwrap_err().to_string();
    assert!(host.starts_with("line 3: found endpoint «vpn.example.com:51820»; allowed is an IP address"), "{host}");
    let prefix = parse(&format!("{peer}allowed_ip=10.0.0.1\n")).unwrap_err().to_string();
    assert!(prefix.starts_with("line 3: found allowed_ip «10.0.0.1»; allowed is an IP prefix"), "{prefix}");
}

#[test]
fn frames_that_are_no_requests_are_refused() {
    for text in ["", "get=1\n\n", "set=1", "set=1\n", "set=1\nfwmark=1\n", "set=1\n\nset=1\n\n", "set=1\r\n\n"] {
        assert_eq!(SetRequest::parse(text, lan).unwrap_err().errno, UapiErrno::PROTOCOL, "{text:?}");
    }
    assert_eq!(SetRequest::parse("set=1\n\n", lan).unwrap(), SetRequest::default());
    assert_eq!(SetRequest::parse("set=1\nfwmark=1\r\n\r\n", lan).unwrap().fwmark, Some(1));
}

#[test]
fn refusals_never_repeat_a_secret() {
    let base64 = "6EtabScXwQA6E7QxVwNT26ypFGzxUMX4V1aA/rpSAno=";
    for body in [
        format!("private_key={SECRET}0\n"),
        format!("private_key={base64}\n"),
        format!("public_key={KEY_A}\npreshared_key={base64}\n"),
        format!("public_key={base64}\n"),
        format!("{SECRET}\n"),
        format!("{base64}\n"),
        format!("{SECRET}=1\n"),
        format!("PrivateKey = {base64}\n"),
        format!("privatekey={SECRET}\n"),
        format!("private_key {SECRET}=\n"),
    ] {
        let error = parse(&body).unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains(&SECRET[..16]) && !text.contains(&base64[..12]), "{text}");
        }
    }
    let request = parse(&format!("private_key={SECRET}\n")).unwrap();
    assert!(!format!("{request:?}").contains(&SECRET[2..60]));
}

prop_compose! {
    fn change()(v4: bool, bits: u128, len in 0u8..=128, remove: bool) -> AllowedIpChange {
        let net = if v4 {
            ipnet::Ipv4Net::new((bits as u32).into(), len % 33).unwrap().into()
        } else {
            ipnet::Ipv6Net::new(bits.into(), len).unwrap().into()
        };
        AllowedIpChange { net, remove }
    }
}

prop_compose! {
    fn address()(v4: bool, bits: u128, port: u16, scope in prop_oneof![Just(0u32), any::<u32>()]) -> SocketAddr {
        let v6 = SocketAddr::V6(SocketAddrV6::new(bits.into(), port, 0, scope));
        if v4 || v6.ip().to_canonical().is_ipv4() { SocketAddr::from(((bits as u32).to_be_bytes(), port)) } else { v6 }
    }
}

/// A key, `Some(None)` for its removal, `None` for no change.
fn maybe_key<K: std::fmt::Debug + Clone>(wrap: fn([u8; KEY_LEN]) -> K) -> impl Strategy<Value = Option<Option<K>>> {
    let real = any::<[u8; KEY_LEN]>().prop_filter("zeros are no key", |bytes| *bytes != NO_KEY);
    prop::option::of(prop::option::of(real)).prop_map(move |key| key.map(|key| key.map(wrap)))
}

prop_compose! {
    fn peer()(
        public_key: [u8; KEY_LEN],
        flags: [bool; 3],
        preshared_key in maybe_key(PresharedKey::from_bytes),
        endpoint in prop::option::of(address()),
        persistent_keepalive: Option<u16>,
        allowed_ips in prop::collection::vec(change(), 0..5),
    ) -> PeerUpdate {
        let [remove, update_only, replace_allowed_ips] = flags;
        let public_key = PublicKey::from_bytes(public_key);
        PeerUpdate {
            public_key, remove, update_only, preshared_key, endpoint, persistent_keepalive, replace_allowed_ips, allowed_ips,
        }
    }
}

prop_compose! {
    fn request()(
        private_key in maybe_key(PrivateKey::from_bytes),
        replace_peers: bool,
        listen_port: Option<u16>,
        fwmark: Option<u32>,
        peers in prop::collection::vec(peer(), 0..5),
    ) -> SetRequest {
        SetRequest { update: Update { private_key, replace_peers, peers }, listen_port, fwmark }
    }
}

/// Lines that come close to valid ones.
fn near_line() -> impl Strategy<Value = String> {
    let key = prop::sample::select([DEVICE_KEYS.as_slice(), &PEER_KEYS, &["public_key", "x", ""]].concat());
    let value = prop_oneof![
        "\\PC{0,20}",
        Just("true".to_owned()),
        Just(KEY_A.to_owned()),
        "-?[0-9a-f.:%\\[\\]/]{0,30}",
        "[0-9]{0,12}",
    ];
    (key, value, prop::bool::weighted(0.9))
        .prop_map(|(key, value, is)| format!("{key}{}{value}", if is { "=" } else { "" }))
}

proptest! {
    #[test]
    fn every_request_survives_its_text(request in request()) {
        let text = request.to_text();
        prop_assert!(text.capacity() >= text.len());
        let prefixes: usize = request.update.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
        let reserved = PEER_TEXT * (request.update.peers.len() + 1) + ALLOWED_IP_TEXT * prefixes;
        prop_assert!(text.len() <= reserved, "the text outgrew what was reserved and left copies of keys behind");
        prop_assert_eq!(SetRequest::parse(&text, lan).unwrap(), request);
    }

    #[test]
    fn lines_of_any_kind_are_taken_or_refused(lines in prop::collection::vec(near_line(), 0..12)) {
        let mut parser = SetParser::new(lan);
        for line in &lines {
            match parser.line(line.as_bytes()) {
                Ok(ended) => prop_assert_eq!(ended, line.is_empty()),
                Err(error) => {
                    prop_assert!(error.errno == UapiErrno::INVALID || error.errno == UapiErrno::PROTOCOL);
                    return Ok(());
                }
            }
        }
        let request = parser.finish();
        prop_assert_eq!(SetRequest::parse(&request.to_text(), lan).unwrap(), request);
    }

    #[test]
    fn bytes_of_any_kind_are_taken_or_refused(lines in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let mut parser = SetParser::new(lan);
        for line in &lines {
            if parser.line(line).is_err() {
                break;
            }
        }
    }
}
