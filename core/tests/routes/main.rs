//! The route model against slow oracles, and against tables that a person can check.
//!
//! `oracle` does what the kernel does, over lists; `strategy` draws prefixes that nest and touch.
#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

mod apple;
mod complement;
mod model;
mod oracle;
mod strategy;

use std::net::IpAddr;

use ipnet::IpNet;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
