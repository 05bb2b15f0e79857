//! Simulated pairs of engines: a virtual clock, and a link that loses, reorders and duplicates by a seed.
//!
//! boringtun reads a clock of its own. In this package it is built with its mock clock, which is thread-local and which
//! [`World`] keeps in step with the `now` that the engines are given; so nothing here waits, and every run with the same
//! seed is the same run. That feature must never reach the real command, so this package is built by itself.

pub mod flow;
pub mod link;
pub mod packet;
pub mod world;

pub use link::Link;
pub use world::{Node, World};
