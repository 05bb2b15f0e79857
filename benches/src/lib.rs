//! Micro benchmarks and the throughput benchmark.
