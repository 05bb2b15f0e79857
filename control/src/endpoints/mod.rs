//! The endpoints of a configuration: from names to addresses, and what they were the last time.
//!
//! It asks the host's own resolver, as every program does, and knows nothing of tunnels.

mod last_addresses;
mod resolve;

pub(crate) use last_addresses::LastAddresses;
pub use resolve::ResolveError;
pub(crate) use resolve::{Resolved, resolve, translate};
