//! Endpoint names to addresses, by the host's own resolver, with retries and a deadline, or else as they were last.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

use super::last_addresses::LastAddresses;
use crate::config::{Config, Endpoint, Host};

/// The pause before the second try of a name; it doubles from then on.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the endpoint {endpoint} does not resolve: {reason}")]
pub struct ResolveError {
    /// The endpoint as the configuration has it.
    pub endpoint: String,
    /// What the resolver said last.
    pub reason: String,
}

/// Addresses of the endpoints that are names, and of those that are reached at another address than they say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolved(HashMap<Endpoint, SocketAddr>);

impl Resolved {
    /// The address of an endpoint of the configuration that was resolved.
    pub(crate) fn address(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        self.0.get(endpoint).copied().or_else(|| endpoint.socket_addr())
    }

    /// The addresses of all endpoints of a configuration.
    pub(crate) fn all(&self, config: &Config) -> Vec<SocketAddr> {
        config.peers.iter().filter_map(|peer| self.address(peer.endpoint.as_ref()?)).collect()
    }
}

/// Resolves all names of a configuration side by side, within `patience` for all of them. A name that does not resolve has
/// the address that it had last, if that is known; what is resolved now is known the next time.
///
/// # Errors
/// [`ResolveError`] with the first name that has no address when the time is over.
pub(crate) async fn resolve(
    config: &Config,
    patience: Duration,
    last: LastAddresses,
) -> Result<Resolved, ResolveError> {
    let ask = |name: String, port| async move { Ok(tokio::net::lookup_host((name, port)).await?.next()) };
    resolve_by(ask, config, patience, last).await
}

/// Asks the system for the IPv6 addresses by which a network without IPv4 reaches endpoints that are IPv4 addresses.
///
/// Such a network translates (NAT64, RFC 6146), and only the system knows its prefix: on Apple's systems getaddrinfo(3) makes
/// an address with it for one that it is given as a literal. Where a system does not, everything stays as it is.
pub(crate) async fn translate(config: &Config, resolved: Resolved) -> Resolved {
    let endpoints = config.peers.iter().filter_map(|peer| peer.endpoint.as_ref());
    let asked: Vec<_> = endpoints
        .filter_map(|endpoint| match resolved.address(endpoint) {
            Some(SocketAddr::V4(address)) => Some((endpoint.clone(), address)),
            _ => None,
        })
        .collect();
    let ask = move || -> Vec<(Endpoint, SocketAddr)> {
        asked
            .into_iter()
            .filter_map(|(endpoint, address)| {
                let (host, port) = (address.ip().to_string(), address.port());
                // Of any family, and without AI_ADDRCONFIG, which would rule out what is wanted.
                let hints = dns_lookup::AddrInfoHints { socktype: nix::libc::SOCK_DGRAM, ..Default::default() };
                let found = dns_lookup::getaddrinfo(Some(&host), Some(&port.to_string()), Some(hints)).ok()?;
                let ipv6 = found.flatten().map(|info| info.sockaddr).find(SocketAddr::is_ipv6)?;
                Some((endpoint, ipv6))
            })
            .collect()
    };
    let mut resolved = resolved;
    if let Ok(found) = tokio::task::spawn_blocking(ask).await {
        resolved.0.extend(found);
    }
    resolved
}

/// Resolves by a function that gives the first address of a name, if it has any.
async fn resolve_by<A, F>(
    ask: A,
    config: &Config,
    patience: Duration,
    last: LastAddresses,
) -> Result<Resolved, ResolveError>
where
    A: Fn(String, u16) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = io::Result<Option<SocketAddr>>> + Send + 'static,
{
    let start = Instant::now();
    let mut lookups = tokio::task::JoinSet::new();
    for endpoint in config.named_endpoints() {
        let (endpoint, former) = (endpoint.clone(), last.get(endpoint));
        let patience = if former.is_some() { patience.min(PATIENCE_WITH_FORMER) } else { patience };
        lookups.spawn(async move { (resolve_one(ask, &endpoint, start + patience).await, former, endpoint) });
    }
    let mut resolved = Resolved::default();
    while let Some(lookup) = lookups.join_next().await {
        let Ok((address, former, endpoint)) = lookup else { continue };
        match (address, former) {
            (Ok(address), _) => resolved.0.insert(endpoint, address),
            (Err(reason), Some(former)) => {
                tracing::warn!(%reason, "an endpoint's name does not resolve; the address that it had last is used");
                tracing::debug!(%endpoint, address = %former, "last address");
                resolved.0.insert(endpoint, former)
            }
            (Err(reason), None) => return Err(ResolveError { endpoint: endpoint.to_string(), reason }),
        };
    }
    last.store(&resolved.0);
    Ok(resolved)
}

/// Asks until there is an address. The order of the resolver's answers is its own (RFC 6724).
async fn resolve_one<A, F>(ask: A, endpoint: &Endpoint, deadline: Instant) -> Result<SocketAddr, String>
where
    A: Fn(String, u16) -> F,
    F: Future<Output = io::Result<Option<SocketAddr>>>,
{
    let Host::Name(name) = &endpoint.host else {
        return endpoint.socket_addr().ok_or_else(|| "it is no address".to_owned());
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match timeout_at(deadline, ask(name.clone(), endpoint.port)).await {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Ok(None)) => "the resolver gave no address".to_owned(),
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

/// How long a name is asked for at most if its last address is known: as long as resolv.conf(5) waits for one server.
const PATIENCE_WITH_FORMER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use adit_core::{PrivateKey, PublicKey};

    use super::*;
    use crate::config::{Interface, Peer};

    fn config(endpoints: &[&str]) -> Config {
        let peers = (2..).zip(endpoints).map(|(number, endpoint)| {
            let mut peer = Peer::new(PublicKey::from_bytes([number; 32]));
            peer.endpoint = Some(endpoint.parse().unwrap());
            peer
        });
        Config { interface: Interface::new(PrivateKey::from_bytes([1; 32])), peers: peers.collect() }
    }

    async fn answers(name: String, port: u16) -> io::Result<Option<SocketAddr>> {
        Ok((name != "unknown.example").then(|| SocketAddr::from(([203, 0, 113, 9], port))))
    }

    async fn fails(_: String, _: u16) -> io::Result<Option<SocketAddr>> {
        Err(io::Error::other("no server can be reached"))
    }

    async fn is_silent(_: String, _: u16) -> io::Result<Option<SocketAddr>> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_name_that_resolved_once_has_its_last_address_when_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let last = || LastAddresses::load(folder.path(), "adt0");
        let (config, at_once) = (config(&["vpn.example:51820", "192.0.2.1:7"]), Duration::ZERO);
        let error = resolve_by(fails, &config, at_once, last()).await.unwrap_err();
        assert!(error.to_string().contains("no server can be reached"), "{error}");

        let first = resolve_by(answers, &config, at_once, last()).await.unwrap().all(&config);
        assert_eq!(first, ["203.0.113.9:51820".parse().unwrap(), "192.0.2.1:7".parse().unwrap()]);
        assert_eq!(resolve_by(fails, &config, at_once, last()).await.unwrap().all(&config), first);
        assert_eq!(resolve_by(is_silent, &config, at_once, last()).await.unwrap().all(&config), first);
        assert_eq!(resolve_by(fails, &config, at_once, last()).await.unwrap().all(&config), first, "it stays known");
    }

    #[tokio::test]
    async fn an_address_stays_as_it_is_where_nothing_translates_and_what_is_translated_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&["192.0.2.1:7", "[2001:db8::1]:8"]);
        let plain =
            resolve_by(fails, &config, Duration::ZERO, LastAddresses::load(folder.path(), "adt0")).await.unwrap();
        let before = plain.all(&config);
        let mut translated = translate(&config, plain).await;
        assert_eq!(translated.all(&config), before);

        let ipv6 = "[64:ff9b::c000:201]:7".parse().unwrap();
        translated.0.insert("192.0.2.1:7".parse().unwrap(), ipv6);
        assert_eq!(translated.all(&config), [ipv6, before[1]]);
    }

    #[tokio::test]
    async fn a_name_that_never_resolved_is_an_error_whatever_is_known_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let last = || LastAddresses::load(folder.path(), "adt0");
        resolve_by(answers, &config(&["vpn.example:1"]), Duration::ZERO, last()).await.unwrap();
        let both = config(&["vpn.example:1", "unknown.example:1"]);
        let error = resolve_by(answers, &both, Duration::ZERO, last()).await.unwrap_err();
        assert!(error.to_string().contains("unknown.example:1"), "{error}");
    }

    #[tokio::test]
    async fn the_resolver_comes_before_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&["vpn.example:1"]);
        let old = HashMap::from([("vpn.example:1".parse().unwrap(), "198.51.100.1:1".parse().unwrap())]);
        LastAddresses::load(folder.path(), "adt0").store(&old);
        let last = LastAddresses::load(folder.path(), "adt0");
        let resolved = resolve_by(answers, &config, Duration::ZERO, last).await.unwrap();
        assert_eq!(resolved.all(&config), ["203.0.113.9:1".parse().unwrap()]);
    }
}
