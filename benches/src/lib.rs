//! Benchmarks of Adit. `cargo bench -p adit-benches` runs the micro benchmarks in `benches/`: each names beside the
//! engine's cost that of the bare cipher in the same run, for only ratios mean something on a shared machine.
