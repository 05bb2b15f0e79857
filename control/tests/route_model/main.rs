//! Three answers to one question, which way a packet goes: the model's, a slow oracle's, and the kernel's with the routes
//! that were applied. For random hosts and configurations and destinations at the edges of their prefixes, both families.
//!
//! The seed is printed, and `ADIT_SEED` repeats it. The short form tries some configurations; `cargo xtask routing` more.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod case;
mod kernel;
mod oracle;

use std::collections::BTreeMap;
use std::net::IpAddr;

use adit_control::journal::Journal;
use adit_control::route::{self, RouteError};
use adit_control::settings::{RouteTable, Settings, Wanted};
use adit_core::route::{RouteInputs, RouteModel, Routing, Way};

use case::Case;
use kernel::{Answer, Host, TUN};

#[test]
#[ignore = "needs root: run by cargo xtask test"]
fn the_model_is_the_oracle_is_the_kernel() {
    let seed = number("ADIT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let configurations = number("ADIT_CONFIGURATIONS").unwrap_or(60);
    eprintln!("{configurations} configurations, ADIT_SEED={seed}");
    kernel::in_namespace(move |host| async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut seen = BTreeMap::<String, usize>::new();
        let mut conflicts = 0;
        for number in 0..configurations {
            let case = Case::random(&mut random);
            if !agree(&host, &case, &mut random, &mut seen).await {
                conflicts += 1;
            }
            assert_eq!(host.tables(), host.fresh, "configuration {number} has left something behind: {case:#?}");
        }
        eprintln!("answers: {seen:?}; {conflicts} configurations in conflict with a route that was there");
        // A test that asks only one kind of question proves little.
        for way in ["Tunnel", "Underlay", "Host", "Blocked"] {
            assert!(seen.iter().any(|(name, count)| name.starts_with(way) && *count > 50), "{way}: {seen:?}");
        }
        assert!(conflicts * 4 < configurations, "{conflicts} of {configurations}");
    });
}

/// Applies a case, compares, and takes it back. Says whether it could be applied.
async fn agree(host: &Host, case: &Case, random: &mut fastrand::Rng, seen: &mut BTreeMap<String, usize>) -> bool {
    host.prepare(case);
    let settings = Settings::new(&wanted(case));
    let mut journal = Journal::create(host.dir.path(), TUN).unwrap();
    let mut pinned = settings.clone();
    let mark = route::pin(&mut pinned, &journal).await.unwrap();
    match route::apply(TUN, &pinned, &mut journal).await {
        Ok(_) => {}
        Err(RouteError::Conflict { .. }) => {
            assert!(journal.entries().is_empty(), "a conflict has left changes: {case:#?}");
            journal.remove().unwrap();
            host.restore(case);
            return false;
        }
        Err(error) => panic!("{error}\n{case:#?}"),
    }

    host.settle(case);
    let inputs = inputs(case);
    let model = match case.table {
        None => RouteModel::new(&inputs),
        Some(_) => RouteModel::with_routing(&inputs, Routing::Strict),
    };
    let model = model.unwrap();
    let destinations = case.destinations(random, 200);
    let unmarked = host.ways(&destinations, 0);
    let marked = mark.map(|mark| host.ways(&destinations, mark));
    for (index, destination) in destinations.iter().enumerate() {
        let said = model.decide(*destination).way;
        let expected = oracle::way(case, *destination);
        let context = || format!("{destination}: {:#?}\n{}\n{case:#?}", model.decide(*destination), host.tables());
        assert_eq!(said, expected, "model and oracle differ on {}", context());
        check(case, said, &unmarked[index], &context);
        *seen.entry(format!("{said:?}").split(' ').next().unwrap().to_owned()).or_default() += 1;
        // A rule of the user's own, for a table of the user's own, may know the mark or not.
        if let (Some(marked), None) = (&marked, case.table) {
            let said = model.decide_datagram(*destination).way;
            let expected = oracle::datagram(case, *destination);
            assert_eq!(said, expected, "model and oracle differ on marked datagrams to {}", context());
            check(case, said, &marked[index], &|| format!("marked: {}", context()));
        }
    }
    // Whatever else: a tunnel that sends its datagrams into itself carries nothing.
    // Only who says that the endpoint is a neighbour inside the tunnel gets that.
    if case.table.is_none() {
        let inside = |endpoint: &&IpAddr| case.tunnel.iter().any(|own| own.contains(*endpoint));
        for endpoint in case.endpoints.iter().filter(|endpoint| !inside(endpoint)) {
            let way = host.ways(&[*endpoint], mark.unwrap_or(0));
            assert_ne!(way, [Answer::Device(TUN.to_owned())], "the tunnel loops: {endpoint}\n{case:#?}");
        }
    }
    route::undo(&mut journal).await.unwrap();
    journal.remove().unwrap();
    host.restore(case);
    true
}

/// What the kernel says is what was said; what is blocked by the firewall is not blocked by routes, or is as well.
fn check(case: &Case, said: Way, kernel: &Answer, context: &dyn Fn() -> String) {
    let into_tunnel = *kernel == Answer::Device(TUN.to_owned());
    let agree = match said {
        Way::Tunnel { .. } | Way::NoPeer => into_tunnel,
        Way::Underlay => matches!(kernel, Answer::Device(_)) && !into_tunnel,
        Way::Host => *kernel == Answer::Local,
        Way::Blocked => case.kill_switch && !into_tunnel && *kernel != Answer::Local,
        other => panic!("{other:?} is new"),
    };
    assert!(agree, "the model says {said:?}, and the kernel {kernel:?} on {}", context());
}

fn wanted(case: &Case) -> Wanted {
    Wanted {
        addresses: case.tunnel.clone(),
        allowed_ips: case.allowed.iter().map(|(net, _)| *net).collect(),
        excluded_ips: case.excluded.clone(),
        exclude_local_networks: case.local,
        kill_switch: case.kill_switch,
        mtu: Some(1400),
        table: case.table.map_or(RouteTable::Auto, RouteTable::Number),
        endpoints: case.endpoints.iter().map(|endpoint| (*endpoint, 51820).into()).collect(),
        ..Wanted::default()
    }
}

fn inputs(case: &Case) -> RouteInputs {
    RouteInputs {
        allowed: case.allowed.clone(),
        excluded: case.excluded.clone(),
        // In a table that the user chose there are exceptions only if one of Adit's own keys asks for them.
        exclude_local_networks: case.local.or((case.table.is_some() && !case.is_asked()).then_some(false)),
        kill_switch: case.kill_switch,
        connected: case.underlay.iter().filter(|own| own.prefix_len() < own.max_prefix_len()).copied().collect(),
        main: case.main.clone(),
        tunnel_addresses: case.tunnel.clone(),
        underlay_addresses: case.underlay.clone(),
        endpoints: case.endpoints.iter().map(IpAddr::to_canonical).collect(),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text} is no number")))
}
