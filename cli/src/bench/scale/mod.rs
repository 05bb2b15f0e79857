//! `adit bench scale`: what a packet and a peer cost as peers and routes become many.

mod hub;
mod routes;

use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::Ipv4Net;

use super::Progress;
use super::model::{Axis, Better, Machine, Report, Subject};
use super::sampling::{Cost, Recorder, Sampling};
use crate::failure::Outcome;
use crate::watch::Watch;
use hub::Hub;
use routes::Table;

/// Options of `bench scale`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sampling: Sampling,
    /// Length of the packets, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = clap::value_parser!(u16).range(28..=1420))]
    size: u16,
}

/// Measures.
pub(crate) fn run(options: &Options, watch: &Watch, progress: &mut dyn Progress) -> Outcome<Report> {
    let runs = options.sampling.runs();
    let size = usize::from(options.size);
    progress.begin(u64::from(runs) * (PEERS.len() + 2 * ROUTES.len()) as u64);
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut measures = Measures::new(size);
    for run in 1..=runs {
        for count in PEERS {
            progress.step(&format!("peers: {count}, run {run} of {runs}"));
            let mut hub = Hub::new(&one_each(count), size, &mut rng, watch)?;
            hub.verify()?;
            let costs = sample(&mut hub, &options.sampling, watch)?;
            add(&mut measures.peers_time, count, time(&costs));
            hub.set_run(RUN);
            let runs = sample(&mut hub, &options.sampling, watch)?;
            add(&mut measures.peers_runs, count, time(&runs));
            add(&mut measures.peers_allocations, count, costs.iter().map(Cost::allocations).sum());
            add(&mut measures.peers_memory, count, hub.memory() as f64 / count as f64);
        }
        for count in ROUTES {
            progress.step(&format!("routes: {count}, run {run} of {runs}"));
            let mut hub = Hub::new(&[routes::ipv4(count, &mut rng)?], size, &mut rng, watch)?;
            hub.verify()?;
            add(&mut measures.routes_time, count, time(&sample(&mut hub, &options.sampling, watch)?));
        }
        for count in ROUTES {
            progress.step(&format!("look-ups, routes: {count}, run {run} of {runs}"));
            let duration = options.sampling.duration() / 2;
            let table = Table::with_ipv4(count, &mut rng)?;
            add(&mut measures.lookup_ipv4, count, table.look_up(duration, watch)?.nanoseconds());
            add(&mut measures.routes_memory, count, table.memory as f64 / count as f64);
            let table = Table::with_ipv6(count, &mut rng)?;
            add(&mut measures.lookup_ipv6, count, table.look_up(duration, watch)?.nanoseconds());
        }
    }
    let notes = vec![
        options.sampling.note(),
        format!(
            "Packets are {size} B of UDP over IPv4, to all peers and routes in turn, in random order: every packet to another \
             peer than the one before, which no cache helps with, or in runs of {RUN}, as flows come. Times are those of the engine with \
             these peers; the other ends are engines with sessions too, and their work is not measured."
        ),
        "By peers each of them has one route; by routes there is one peer, and prefixes of random lengths as in the \
         Internet's routing table."
            .to_owned(),
        "Memory is what the engine has allocated, sessions included, divided by the number of peers.".to_owned(),
    ];
    Ok(Report {
        benchmark: "scale".to_owned(),
        machine: Machine::this(),
        subjects: vec![Subject { name: SUBJECT.to_owned(), version: None }],
        measures: measures.finish(),
        notes,
    })
}

/// Measures a hub for a while: sealing, opening.
fn sample(hub: &mut Hub, options: &Sampling, watch: &Watch) -> Outcome<[Cost; 2]> {
    let mut costs = [Cost::default(); 2];
    let begun = Instant::now();
    while begun.elapsed() < options.duration() || costs[1].packets == 0 {
        watch.check()?;
        let [sealing, opening] = &mut costs;
        hub.round(sealing, opening)?;
    }
    Ok(costs)
}

/// Of a packet that is sealed and one that is opened.
fn time(costs: &[Cost; 2]) -> f64 {
    costs.iter().map(Cost::nanoseconds).sum()
}

fn add(recorder: &mut Recorder, count: usize, sample: f64) {
    recorder.add(SUBJECT, Some(count as f64), sample);
}

/// One address for each of so many peers.
fn one_each(peers: usize) -> Vec<Vec<Ipv4Net>> {
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 1));
    (first..).take(peers).map(|address| vec![Ipv4Net::from(Ipv4Addr::from(address))]).collect()
}

struct Measures {
    peers_time: Recorder,
    peers_runs: Recorder,
    peers_allocations: Recorder,
    peers_memory: Recorder,
    routes_time: Recorder,
    lookup_ipv4: Recorder,
    lookup_ipv6: Recorder,
    routes_memory: Recorder,
}

impl Measures {
    fn new(size: usize) -> Self {
        let axis = |of: &str| Some(Axis { title: of.to_owned(), unit: of.to_owned(), logarithmic: true });
        let new = |key, title: &str, unit, of| Recorder::new(key, title, unit, Better::Lower, axis(of));
        Self {
            peers_time: new("peers-time", &format!("Seal and open a packet of {size} B, by peers"), "ns", "peers"),
            peers_runs: new("peers-runs", &format!("The same in runs of {RUN} packets a peer"), "ns", "peers"),
            peers_allocations: new("peers-allocations", "Allocations a packet, by peers", "allocations", "peers"),
            peers_memory: new("peers-memory", "Memory a peer", "B", "peers"),
            routes_time: new("routes-time", &format!("Seal and open a packet of {size} B, by routes"), "ns", "routes"),
            lookup_ipv4: new("lookup-ipv4", "Route look-up, IPv4", "ns", "routes"),
            lookup_ipv6: new("lookup-ipv6", "Route look-up, IPv6", "ns", "routes"),
            routes_memory: new("routes-memory", "Memory a route, IPv4", "B", "routes"),
        }
    }

    fn finish(self) -> Vec<super::model::Measure> {
        let Self { peers_time, peers_runs, peers_allocations, peers_memory, .. } = self;
        let peers = [peers_time, peers_runs, peers_memory, peers_allocations];
        let routes = [self.routes_time, self.lookup_ipv4, self.lookup_ipv6, self.routes_memory];
        peers.into_iter().chain(routes).map(Recorder::finish).collect()
    }
}

const SUBJECT: &str = "adit";

/// Packets of a run: what the kernel joins of one small flow, and a receive batch of the packet loop.
const RUN: usize = 16;

const PEERS: [usize; 4] = [1, 10, 100, 1000];

const ROUTES: [usize; 4] = [1, 100, 10_000, 100_000];

const SEED: u64 = 0x0ad1_7001;
