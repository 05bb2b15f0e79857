//! adit-control

pub mod config;
