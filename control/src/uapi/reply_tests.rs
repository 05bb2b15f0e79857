use super::*;
use adit_core::EngineStats;
use adit_core::stats::{Drops, Traffic};
use proptest::prelude::*;

fn no_interface(_: &str) -> Option<u32> {
    None
}

fn peer(public_key: PublicKey) -> PeerStats {
    PeerStats {
        public_key,
        preshared_key: None,
        endpoint: None,
        last_handshake: None,
        handshake_round_trip: None,
        persistent_keepalive: 0,
        allowed_ips: Vec::new(),
        traffic: Traffic::default(),
        drops: Drops::default(),
        has_session: false,
    }
}

fn example() -> GetReply {
    let at = Instant::now() + Duration::from_secs(1000);
    let busy = PeerStats {
        preshared_key: Some(PresharedKey::from_bytes([0xab; 32])),
        endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
        last_handshake: Some(at - Duration::from_millis(1500)),
        persistent_keepalive: 25,
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        traffic: Traffic { tx_bytes: 38333, rx_bytes: 2224, ..Traffic::default() },
        ..peer(PublicKey::from_bytes([0x22; 32]))
    };
    GetReply {
        snapshot: Snapshot {
            at,
            private_key: Some(PrivateKey::from_bytes([0x40; 32])),
            mtu: 1420,
            engine: EngineStats::default(),
            newest_timestamp: None,
            peers: vec![peer(PublicKey::from_bytes([0x11; 32])), busy],
        },
        wall: UNIX_EPOCH + Duration::from_secs(1_700_000_001),
        listen_port: Some(51820),
        fwmark: 0xca6c,
    }
}

fn read(text: &str) -> Result<Result<DeviceState, UapiErrno>, String> {
    let mut parser = ReplyParser::new(no_interface);
    for line in text.split_terminator('\n') {
        if let Some(done) = parser.line(line.as_bytes())? {
            return Ok(done);
        }
    }
    Err("no blank line".into())
}

#[test]
fn the_answer_has_wireguard_go_s_form() {
    let expected = "\
private_key=4040404040404040404040404040404040404040404040404040404040404040
listen_port=51820
fwmark=51820
public_key=1111111111111111111111111111111111111111111111111111111111111111
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
protocol_version=1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
public_key=2222222222222222222222222222222222222222222222222222222222222222
preshared_key=abababababababababababababababababababababababababababababababab
protocol_version=1
endpoint=[2001:db8::1]:51820
last_handshake_time_sec=1699999999
last_handshake_time_nsec=500000000
tx_bytes=38333
rx_bytes=2224
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/8
allowed_ip=fd00::/8
errno=0

";
    assert_eq!(example().to_text().as_str(), expected);
}

#[test]
fn an_empty_device_has_nothing_but_errno() {
    let mut reply = example();
    reply.snapshot.private_key = None;
    reply.snapshot.peers.clear();
    (reply.listen_port, reply.fwmark) = (None, 0);
    assert_eq!(reply.to_text().as_str(), "errno=0\n\n");
    assert_eq!(read(&reply.to_text()), Ok(Ok(DeviceState::default())));
}

#[test]
fn a_wall_clock_before_1970_reads_as_never() {
    let mut reply = example();
    reply.wall = UNIX_EPOCH - Duration::from_secs(5);
    assert_eq!(read(&reply.to_text()).unwrap().unwrap().peers[1].last_handshake, None);
}

#[test]
fn the_answer_is_read_back() {
    let reply = example();
    let state = read(&reply.to_text()).unwrap().unwrap();
    assert_eq!(state.private_key, reply.snapshot.private_key);
    assert_eq!((state.listen_port, state.fwmark), (Some(51820), 0xca6c));
    let [idle, busy] = state.peers.as_slice() else { panic!("two peers") };
    assert_eq!((idle.preshared_key.as_ref(), idle.last_handshake, idle.endpoint), (None, None, None));
    assert_eq!(busy.last_handshake, Some(UNIX_EPOCH + Duration::from_millis(1_699_999_999_500)));
    assert_eq!((busy.tx_bytes, busy.rx_bytes, busy.persistent_keepalive), (38333, 2224, 25));
    assert_eq!(busy.allowed_ips, reply.snapshot.peers[1].allowed_ips);
    assert_eq!(busy.preshared_key, reply.snapshot.peers[1].preshared_key);
}

#[test]
fn answers_of_other_implementations_are_read() {
    assert_eq!(read("colour=blue\nerrno=0\n\n"), Ok(Ok(DeviceState::default())));
    for errno in ["errno=22\n\n", "errno=-22\n\n"] {
        assert_eq!(read(errno), Ok(Err(UapiErrno::INVALID)));
    }
    let huge = format!("public_key={}\nlast_handshake_time_sec={}\nerrno=0\n\n", "1".repeat(64), u64::MAX);
    assert_eq!(read(&huge), Err("the value of last_handshake_time_sec cannot be read".into()));
    for (text, reason) in [
        ("\n", "the answer has no errno line"),
        ("hello\n", "a line is not «key=value»"),
        ("private_key=12\n", "the value of private_key cannot be read"),
        ("errno=x\n", "the value of errno cannot be read"),
    ] {
        assert_eq!(read(text), Err(reason.into()));
    }
}

proptest! {
    #[test]
    fn answers_of_any_kind_are_taken_or_refused(
        pairs in prop::collection::vec((
            prop::sample::select(vec![
                "public_key", "private_key", "endpoint", "last_handshake_time_sec", "last_handshake_time_nsec",
                "tx_bytes", "allowed_ip", "errno", "other",
            ]),
            prop_oneof![Just("1".repeat(64)), "[0-9]{0,21}", "\\PC{0,12}"],
        ), 0..12),
    ) {
        let mut parser = ReplyParser::new(no_interface);
        for (key, value) in pairs {
            if parser.line(format!("{key}={value}").as_bytes()).is_err() {
                return Ok(());
            }
        }
        let _ = parser.line(b"");
    }

    #[test]
    fn the_text_never_outgrows_its_reservation(peers in 0usize..40, prefixes in 0usize..40) {
        let mut reply = example();
        let mut widest = reply.snapshot.peers[1].clone();
        widest.endpoint = Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap());
        widest.traffic = Traffic { tx_bytes: u64::MAX, rx_bytes: u64::MAX, ..Traffic::default() };
        widest.allowed_ips = vec!["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128".parse().unwrap(); prefixes];
        reply.snapshot.peers = vec![widest; peers];
        let reserved = PEER_TEXT * (peers + 1) + ALLOWED_IP_TEXT * prefixes * peers;
        prop_assert!(reply.to_text().len() <= reserved);
    }
}
