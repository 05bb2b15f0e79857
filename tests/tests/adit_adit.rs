//! `adit` against `adit`: everything that a tunnel has to carry arrives, and what both say about it is true.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_tests::traffic::carries_everything;
use adit_tests::{Adit, Ends, Pair, PairOptions, Quick, Triple, tools, wg};
use anyhow::Result;

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn everything_is_carried_over_ipv4() -> Result<()> {
    everything_is_carried(Pair::A4, Pair::B4)
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn everything_is_carried_over_ipv6() -> Result<()> {
    everything_is_carried(Pair::A6, Pair::B6)
}

fn everything_is_carried(underlay_a: IpAddr, underlay_b: IpAddr) -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?.with_psk()?;
    // Both know the other, so both begin: one of the two handshakes wins.
    let mut b = Adit::launch(&pair.b, &ends.config_b(Some(underlay_a)))?;
    let mut a = Adit::launch(&pair.a, &ends.config_a(Some(underlay_b)))?;
    a.wait_up()?;
    b.wait_up()?;

    // 1500 less 40 of IPv6, 8 of UDP and 32 of WireGuard, whatever the outer family is.
    let mtu = 1420;
    assert_eq!((a.status()?.number("/mtu")?, b.status()?.number("/mtu")?), (mtu, mtu));
    let carried = carries_everything(&pair.a, &pair.b, usize::try_from(mtu)?)?;
    eprintln!("{:?}", carried.flows);
    let [there, back] = carried.bytes;

    for (adit, namespace, other, endpoint, sent, received) in
        [(&a, &pair.a, &ends.b, underlay_b, there, back), (&b, &pair.b, &ends.a, underlay_a, back, there)]
    {
        let key = other.public_key();
        let endpoint = SocketAddr::new(endpoint, Ends::PORT);
        let dump = wg::show(namespace, adit.name())?;
        assert_eq!((dump.peers.len(), dump.listen_port), (1, Ends::PORT));
        let shown = dump.peer(&key)?;
        assert_eq!(shown.endpoint, Some(endpoint));
        assert_eq!(shown.preshared_key, ends.psk);
        assert!(shown.latest_handshake.is_some(), "{shown:?}");
        assert!(shown.sent > sent && shown.received > received, "{shown:?}, of which payload {sent} and {received}");

        let status = adit.status()?;
        status.no_drops()?;
        let peer = status.peer(&key)?;
        assert_eq!(peer.endpoint(), endpoint.to_string());
        assert!(peer.handshake_age().is_some_and(|age| age < 115.0), "{peer:?}");
        // Headers, acknowledgements and retransmissions come on top, but not more than the payload itself; the other
        // way's acknowledgements are part of it.
        for (way, payload) in [("/tx_bytes", sent), ("/rx_bytes", received)] {
            let bytes = peer.number(way)?;
            assert!(bytes > payload && bytes < 2 * payload + (sent + received) / 4, "{way}: {bytes} of {payload}");
        }
        // One each way began, and no third was needed within the test's time.
        assert!((1..=3).contains(&status.number("/engine/handshakes_sent")?), "{:#}", status.json);
        let packets = status.number("/engine/packets_out")?;
        assert!(packets > sent / mtu, "{packets} packets for {sent} bytes");
    }
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn an_end_that_knows_no_endpoint_answers_and_learns_it() -> Result<()> {
    let pair = Pair::new()?;
    let ends = Ends::new()?;
    let mut b = Adit::start(&pair.b, &ends.config_b(None))?;
    assert_eq!(b.status()?.peer(&ends.a.public_key())?.endpoint(), "");
    let mut a = Adit::start(&pair.a, &ends.config_a(Some(Pair::B6)))?;
    for (from, target) in [(&pair.b, Ends::A4), (&pair.b, Ends::A6), (&pair.a, Ends::B4), (&pair.a, Ends::B6)] {
        assert_eq!(tools::ping(from, target, 5, SOON)?.received, 5, "{target}");
    }
    let endpoint = SocketAddr::new(Pair::A6, Ends::PORT).to_string();
    assert_eq!(b.status()?.peer(&ends.a.public_key())?.endpoint(), endpoint);
    a.status()?.no_drops()?;
    b.status()?.no_drops()?;
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn daemons_come_up_on_a_narrow_link_and_go_down() -> Result<()> {
    let pair = Pair::with(PairOptions { mtu: 1380 })?;
    let ends = Ends::new()?;
    let mut b = Adit::daemon(&pair.b, &ends.config_b(None))?;
    let mut a = Adit::daemon(&pair.a, &ends.config_a(Some(Pair::B4)))?;
    assert_eq!(a.status()?.number("/mtu")?, 1300);
    for (target, headers) in [(Ends::B4, 28), (Ends::B6, 48)] {
        assert_eq!(tools::ping_sized(&pair.a, target, 3, SOON, 1300 - headers)?.received, 3, "{target}");
        assert_eq!(tools::ping_in_fragments(&pair.a, target, 3, SOON, 4000)?.received, 3, "{target}");
    }
    a.status()?.no_drops()?;
    b.status()?.no_drops()?;
    a.stop()?;
    b.stop()
}

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn a_hub_carries_packets_from_one_peer_to_another() -> Result<()> {
    let triple = Triple::new()?;
    // Two tunnels that share the hub's end: `first` is that of `a`, `second` that of `b`, and the hub is in between.
    let hub = wg::private_key()?;
    let first = Ends { b: hub.clone(), ..Ends::new()? };
    let second = Ends { a: hub, ..Ends::new()? };
    let mut config = first.config_b(None);
    config.wg.peers.extend(second.config_a(None).wg.peers);
    config.addresses = vec!["10.77.0.254/32".to_owned(), "fd77::fe/128".to_owned()];
    for (peer, prefixes) in
        config.wg.peers.iter_mut().zip([["10.77.0.1/32", "fd77::1/128"], ["10.77.0.2/32", "fd77::2/128"]])
    {
        peer.allowed_ips = prefixes.map(str::to_owned).to_vec();
    }
    let mut hub = Adit::start(&triple.router, &config)?;
    let spoke = |mut config: Quick| {
        config.wg.peers[0].allowed_ips = vec!["10.77.0.0/24".to_owned(), "fd77::/64".to_owned()];
        config.wg.peers[0].persistent_keepalive = Some(25);
        config
    };
    let mut a = Adit::start(&triple.a, &spoke(first.config_a(Some(Triple::ROUTER4))))?;
    let mut b = Adit::start(&triple.b, &spoke(second.config_b(Some(Triple::ROUTER6))))?;
    for (from, targets) in
        [(&triple.a, ["10.77.0.2", "fd77::2", "10.77.0.254"]), (&triple.b, ["10.77.0.1", "fd77::1", "fd77::fe"])]
    {
        for target in targets {
            assert_eq!(tools::ping(from, target.parse()?, 5, SOON)?.received, 5, "{target} from {}", from.name());
        }
    }
    // Whoever is behind the hub cannot send from the other's address.
    triple.a.ip(&format!("addr add 10.77.0.3/32 dev {}", a.name()))?;
    triple.a.ip(&format!("route replace 10.77.0.254 dev {} src 10.77.0.3", a.name()))?;
    assert_eq!(tools::ping(&triple.a, "10.77.0.254".parse()?, 1, SOON)?.received, 0);
    let drops = hub.status()?.peer(&first.a.public_key())?.number("/drops/spoofed_source");
    assert_eq!(drops.ok(), Some(1), "{:#}", hub.status()?.json);
    a.stop()?;
    b.stop()?;
    hub.stop()
}

const SOON: Duration = Duration::from_millis(20);
