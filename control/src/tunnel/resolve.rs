//! Endpoint names to addresses, by the host's own resolver, with retries and a deadline.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::TunnelError;
use crate::config::{Config, Endpoint, Host};

/// The pause before the second try of a name; it doubles from then on.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Addresses of the endpoints that are names.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolved(HashMap<Endpoint, SocketAddr>);

impl Resolved {
    /// The address of an endpoint of the configuration that was resolved.
    pub(super) fn address(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        endpoint.socket_addr().or_else(|| self.0.get(endpoint).copied())
    }

    /// The addresses of all endpoints of a configuration.
    pub(super) fn all(&self, config: &Config) -> Vec<SocketAddr> {
        config.peers.iter().filter_map(|peer| self.address(peer.endpoint.as_ref()?)).collect()
    }
}

/// Resolves all names of a configuration side by side, within `patience` for all of them.
///
/// # Errors
/// [`TunnelError::Resolve`] with the first name that has no address when the time is over.
pub(super) async fn resolve(config: &Config, patience: Duration) -> Result<Resolved, TunnelError> {
    let deadline = Instant::now() + patience;
    let mut lookups = tokio::task::JoinSet::new();
    for endpoint in config.named_endpoints() {
        let endpoint = endpoint.clone();
        lookups.spawn(async move { (resolve_one(&endpoint, deadline).await, endpoint) });
    }
    let mut resolved = Resolved::default();
    while let Some(lookup) = lookups.join_next().await {
        let Ok((address, endpoint)) = lookup else { continue };
        match address {
            Ok(address) => resolved.0.insert(endpoint, address),
            Err(reason) => return Err(TunnelError::Resolve { endpoint: endpoint.to_string(), reason }),
        };
    }
    Ok(resolved)
}

/// Asks the host's resolver until it gives an address. The order of its answers is its own (RFC 6724).
async fn resolve_one(endpoint: &Endpoint, deadline: Instant) -> Result<SocketAddr, String> {
    let Host::Name(name) = &endpoint.host else {
        return endpoint.socket_addr().ok_or_else(|| "it is no address".to_owned());
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match timeout_at(deadline, tokio::net::lookup_host((name.as_str(), endpoint.port))).await {
            Ok(Ok(mut addresses)) => match addresses.next() {
                Some(address) => return Ok(address),
                None => "the resolver gave no address".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => return Err("the resolver did not answer in time".to_owned()),
        };
        if Instant::now() + pause >= deadline {
            return Err(reason);
        }
        tracing::debug!(%reason, "an endpoint does not resolve; trying again");
        sleep(pause).await;
        pause *= 2;
    }
}
