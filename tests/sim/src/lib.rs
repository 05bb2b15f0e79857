//! Simulated pairs of engines.
