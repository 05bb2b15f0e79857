//! `adit bench engine`: what a packet costs in the engine, beside its cipher alone and beside the same loop without
//! cipher.
//!
//! Everything is in memory and in one thread: no kernel, no scheduling, no other end. Sealing and opening are measured
//! apart, batch by batch, with the product's own queues.

mod adit;
mod cipher;
mod link;
mod load;
mod plain;

use std::time::Instant;

use super::Progress;
use super::model::{Axis, Better, Machine, Measure, Report, Subject as Named};
use super::sampling::{Cost, Recorder, Sampling};
use crate::failure::Outcome;
use crate::watch::Watch;
use load::Load;

/// Options of `bench engine`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sampling: Sampling,
}

/// Something that seals and opens batches of packets.
trait Subject {
    /// Makes the next batch ready, as a read of the device would.
    fn refill(&mut self);

    /// Seals the batch and returns its packets.
    fn seal(&mut self, now: Instant) -> Outcome<u64>;

    /// Carries what was sealed to the other side, as sockets would.
    fn carry(&mut self);

    /// Opens what was carried and returns its packets.
    fn open(&mut self, now: Instant) -> Outcome<u64>;

    /// Does all of it once and checks that what comes out is what went in.
    fn verify(&mut self) -> Outcome;
}

/// Measures.
pub(crate) fn run(options: &Options, watch: &Watch, progress: &mut dyn Progress) -> Outcome<Report> {
    let runs = options.sampling.runs();
    let loads: Vec<Load> = SIZES.into_iter().map(Load::Packets).chain([Load::Super]).collect();
    progress.begin(u64::from(runs) * (loads.len() * SUBJECTS.len()) as u64);
    let mut measures = Measures::new();
    for run in 1..=runs {
        for load in &loads {
            let mut times = [0.0; SUBJECTS.len()];
            for (index, subject) in SUBJECTS.into_iter().enumerate() {
                progress.step(&format!("{}, {}, run {run} of {runs}", subject.name(), load.name()));
                let costs = sample(subject.make(*load)?.as_mut(), &options.sampling, watch)?;
                times[index] = costs.iter().map(Cost::nanoseconds).sum();
                measures.add(subject, *load, &costs);
            }
            measures.compare(*load, times);
        }
    }
    let ring = "ring's ChaCha20-Poly1305, in place";
    let plain = "the same parsing, look-up, splitting, copying and queues";
    let subject = |which: Which, version: String| Named { name: which.name().to_owned(), version: Some(version) };
    Ok(Report {
        benchmark: "engine".to_owned(),
        machine: Machine::this(),
        subjects: vec![
            subject(Which::Adit, "two engines with a session".to_owned()),
            subject(Which::Cipher, ring.to_owned()),
            subject(Which::Plain, plain.to_owned()),
        ],
        measures: measures.finish(),
        notes: vec![
            options.sampling.note(),
            "UDP over IPv4; sizes and Gbit/s are of IP packets inside the tunnel. Filling batches and carrying datagrams, \
             a kernel's work, is not measured."
                .to_owned(),
            "Super-packets are 64 KiB of TCP, cut into packets of 1420 B before they are sealed and joined again after they are \
             opened; it is these packets that are counted."
                .to_owned(),
        ],
    })
}

/// Measures a subject for a while: sealing, opening.
fn sample(subject: &mut dyn Subject, options: &Sampling, watch: &Watch) -> Outcome<[Cost; 2]> {
    for _ in 0..WARM_UP {
        subject.verify()?;
    }
    let mut costs = [Cost::default(); 2];
    let begun = Instant::now();
    while begun.elapsed() < options.duration() {
        watch.check()?;
        subject.refill();
        let now = Instant::now();
        costs[0].add(|| subject.seal(now))?;
        subject.carry();
        let now = Instant::now();
        costs[1].add(|| subject.open(now))?;
    }
    Ok(costs)
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Adit,
    Cipher,
    Plain,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Adit => "adit",
            Self::Cipher => "cipher",
            Self::Plain => "no-cipher",
        }
    }

    fn make(self, load: Load) -> Outcome<Box<dyn Subject>> {
        match self {
            Self::Adit => adit::link(load),
            Self::Cipher => Ok(Box::new(cipher::Cipher::new(load)?)),
            Self::Plain => plain::link(load),
        }
    }
}

/// All measures, in the order of [`DIRECTIONS`] and [`FIGURES`].
struct Measures {
    sizes: Vec<Recorder>,
    supers: Vec<Recorder>,
    /// By size, and of super-packets.
    limits: [Recorder; 2],
}

impl Measures {
    fn new() -> Self {
        let axis = || Axis { title: "packet size".to_owned(), unit: "B".to_owned(), logarithmic: false };
        let recorder = |(direction, figure): (&str, &Figure), of: &str, x| {
            let key =
                format!("{}{}-{}", direction.to_lowercase(), if of.is_empty() { "" } else { "-super" }, figure.key);
            Recorder::new(&key, &format!("{direction}{of}: {}", figure.title), figure.unit, figure.better, x)
        };
        let limit = |key: &str, of: &str, x| {
            let title = format!("Seal and open{of}, as a multiple of cipher and loop without cipher together");
            Recorder::new(&format!("limit{key}"), &title, "×", Better::Lower, x)
        };
        let all = || DIRECTIONS.into_iter().flat_map(|direction| FIGURES.iter().map(move |figure| (direction, figure)));
        Self {
            sizes: all().map(|which| recorder(which, "", Some(axis()))).collect(),
            supers: all().map(|which| recorder(which, " super-packets", None)).collect(),
            limits: [limit("", "", Some(axis())), limit("-super", " super-packets", None)],
        }
    }

    fn add(&mut self, subject: Which, load: Load, costs: &[Cost; 2]) {
        let (recorders, x) = match load {
            Load::Packets(size) => (&mut self.sizes, Some(size as f64)),
            Load::Super => (&mut self.supers, None),
        };
        let values = costs.iter().flat_map(|cost| FIGURES.iter().map(|figure| (figure.of)(cost, load.packet_len())));
        for (recorder, value) in recorders.iter_mut().zip(values) {
            recorder.add(subject.name(), x, value);
        }
    }

    /// Compares the times of all subjects, taken one after the other.
    fn compare(&mut self, load: Load, [adit, cipher, plain]: [f64; 3]) {
        let [by_size, of_supers] = &mut self.limits;
        let (recorder, x) = match load {
            Load::Packets(size) => (by_size, Some(size as f64)),
            Load::Super => (of_supers, None),
        };
        if cipher + plain > 0.0 {
            recorder.add(Which::Adit.name(), x, adit / (cipher + plain));
        }
    }

    fn finish(self) -> Vec<Measure> {
        let all = self.sizes.into_iter().chain(self.supers).chain(self.limits);
        all.map(Recorder::finish).collect()
    }
}

/// A figure that is made of a cost.
struct Figure {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    /// Makes it for packets of so many bytes.
    of: fn(&Cost, usize) -> f64,
}

const FIGURES: [Figure; 4] = [
    Figure { key: "time", title: "time a packet", unit: "ns", better: Better::Lower, of: |cost, _| cost.nanoseconds() },
    Figure {
        key: "throughput",
        title: "throughput",
        unit: "Gbit/s",
        better: Better::Higher,
        of: |cost, len| cost.rate() * len as f64 * 8.0 / 1e9,
    },
    Figure { key: "rate", title: "packet rate", unit: "packets/s", better: Better::Higher, of: |cost, _| cost.rate() },
    Figure {
        key: "allocations",
        title: "allocations a packet",
        unit: "allocations",
        better: Better::Lower,
        of: |cost, _| cost.allocations(),
    },
];

const DIRECTIONS: [&str; 2] = ["Seal", "Open"];

const SUBJECTS: [Which; 3] = [Which::Adit, Which::Cipher, Which::Plain];

/// The smallest packet that carries data, powers of two, IPv6's smallest MTU, and the default MTU.
const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1280, 1420];

/// Batches that are not measured: they fill caches and branch predictors, and show that the work is done.
const WARM_UP: usize = 3;
