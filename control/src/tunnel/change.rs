//! Reload: the file is read again and the difference applied; a tunnel that cannot be changed goes on as it was.

use std::sync::atomic::Ordering;

use adit_core::{Command, PeerUpdate, Update};
use adit_tun::handle::PumpCommand;

use super::start::{initial_mark, settings_of};
use super::{Shared, State, TunnelError};
use crate::config::{self, Config, Peer};
use crate::endpoints::{LastAddresses, Resolved, resolve};
use crate::route;
use crate::settings::Settings;

impl Shared {
    /// Reads the file again and applies what changed. Sessions of peers whose keys stay the same go on, and so do the
    /// addresses that peers have roamed to, unless the file names another endpoint than before. Hooks do not run.
    ///
    /// Returns what the file says and what was not applied, a sentence each.
    pub(super) async fn reload(&self) -> Result<Vec<String>, TunnelError> {
        let mut state = self.state.lock().await;
        let state = state.as_mut().ok_or(TunnelError::Stopping)?;
        let loaded = config::load(&self.path)?;
        let mut notes: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        if loaded.config == state.config {
            return Ok(notes);
        }
        // A file that was cut off before its first key is valid, and would leave a tunnel without peers.
        if loaded.config.interface.private_key.is_none() && state.config.interface.private_key.is_some() {
            return Err(TunnelError::KeyGone { path: self.path.display().to_string() });
        }
        if hooks_differ(&state.config, &loaded.config) {
            notes.push("hooks have changed: the new ones run when the tunnel goes down, and at the next start".into());
        }
        let last = LastAddresses::load(&self.directories.state, &self.name);
        let resolved = resolve(&loaded.config, self.resolve_wait, last).await?;
        self.change(state, loaded.config, resolved).await?;
        tracing::info!(tunnel = %self.name, "the configuration was reloaded");
        Ok(notes)
    }

    /// Goes from one configuration to another: the host first, which is the part that can fail, the engine last.
    async fn change(&self, state: &mut State, config: Config, resolved: Resolved) -> Result<(), TunnelError> {
        let mut settings = settings_of(&config, &resolved);
        let pinned = route::pin(&mut settings, &state.journal).await?;
        let mark = initial_mark(&config, pinned);
        let former = Former {
            settings: state.settings.clone(),
            mark: self.fwmark.load(Ordering::Relaxed),
            port: self.snapshot().await?.port,
        };
        let update = difference(&state.config, &config, &state.resolved, &resolved);
        let changed = async {
            self.apply(state, &settings, mark, config.interface.listen_port, former.port).await?;
            state.dns.apply(&config.interface, &self.ifname).await?;
            self.tell_engine(Command::Update(Box::new(update))).await
        };
        match changed.await {
            Ok(()) => {
                state.fwmark_from_user = config.interface.fwmark.is_some_and(|mark| mark != 0);
                (state.config, state.resolved, state.settings) = (config, resolved, settings);
                Ok(())
            }
            Err(error) => {
                self.restore(state, former).await;
                Err(error)
            }
        }
    }

    async fn apply(
        &self,
        state: &mut State,
        settings: &Settings,
        mark: u32,
        port: Option<u16>,
        current_port: u16,
    ) -> Result<(), TunnelError> {
        // Rules that ask for a mark let nothing pass without it. So it is set before they are made, and taken away after
        // they are gone.
        if mark != 0 {
            self.set_mark(mark).await?;
        }
        let wanted = port.filter(|port| *port != 0 && *port != current_port);
        if let Some(port) = wanted.filter(|_| port != state.config.interface.listen_port) {
            self.ask(|reply| PumpCommand::Rebind(port, reply)).await??;
        }
        let applied = route::apply(&self.ifname, settings, &mut state.journal).await?;
        self.bind(applied.binding).await?;
        self.set_mark(mark).await?;
        self.ask(|reply| PumpCommand::SetMtu(applied.mtu.into(), reply)).await??;
        Ok(())
    }

    /// Puts back what a failed change has touched; what does not go back is logged, and the tunnel goes on.
    async fn restore(&self, state: &mut State, former: Former) {
        match route::apply(&self.ifname, &former.settings, &mut state.journal).await {
            Ok(applied) => {
                if let Err(error) = self.bind(applied.binding).await {
                    tracing::error!(%error, "the former interface could not be put back");
                }
            }
            Err(error) => tracing::error!(%error, "the former settings could not be put back"),
        }
        let State { config, dns, .. } = state;
        if let Err(error) = dns.apply(&config.interface, &self.ifname).await {
            tracing::error!(%error, "the former DNS settings could not be put back");
        }
        let mark = self.set_mark(former.mark).await;
        let port = match self.snapshot().await {
            Ok(now) if now.port != former.port => {
                self.ask(|reply| PumpCommand::Rebind(former.port, reply)).await.and_then(|done| Ok(done.map(drop)?))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = mark.and(port) {
            tracing::error!(%error, "the former socket could not be put back");
        }
    }

    /// Marks the tunnel's own datagrams.
    pub(super) async fn set_mark(&self, mark: u32) -> Result<(), TunnelError> {
        if self.fwmark.load(Ordering::Relaxed) != mark {
            self.ask(|reply| PumpCommand::SetMark(mark, reply)).await??;
            self.fwmark.store(mark, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What a change may have to go back to.
struct Former {
    settings: Settings,
    mark: u32,
    port: u16,
}

fn hooks_differ(old: &Config, new: &Config) -> bool {
    let hooks = |config: &Config| {
        let interface = config.interface.clone();
        (interface.pre_up, interface.post_up, interface.pre_down, interface.post_down)
    };
    hooks(old) != hooks(new)
}

/// What the engine has to be told to get from one configuration to another.
fn difference(old: &Config, new: &Config, old_names: &Resolved, new_names: &Resolved) -> Update {
    let find = |config: &'_ Config, key| config.peers.iter().find(|peer| peer.public_key == key).cloned();
    let gone = old.peers.iter().filter(|peer| find(new, peer.public_key).is_none()).map(|peer| {
        let mut update = PeerUpdate::new(peer.public_key);
        update.remove = true;
        update
    });
    // A prefix may move from one peer to another, and the last one in the file has it: so if any peer's have changed,
    // all are told theirs again, in order.
    let prefixes_changed = old.peers.len() != new.peers.len()
        || old
            .peers
            .iter()
            .zip(&new.peers)
            .any(|(a, b)| (a.public_key, &a.allowed_ips) != (b.public_key, &b.allowed_ips));
    let changed = new.peers.iter().filter_map(|peer| {
        let before = find(old, peer.public_key);
        let endpoint = |peer: &Peer, names: &Resolved| peer.endpoint.as_ref().and_then(|e| names.address(e));
        let mut update = PeerUpdate::new(peer.public_key);
        if prefixes_changed {
            update.replace_allowed_ips = true;
            update = update.allow(peer.allowed_ips.iter().copied());
        }
        if before.as_ref().is_none_or(|before| before.preshared_key != peer.preshared_key) {
            update.preshared_key = Some(peer.preshared_key.clone());
        }
        let address = endpoint(peer, new_names);
        if before.as_ref().is_none_or(|before| endpoint(before, old_names) != address) {
            update.endpoint = address;
        }
        if before.as_ref().is_none_or(|before| before.persistent_keepalive != peer.persistent_keepalive) {
            update.persistent_keepalive = Some(peer.persistent_keepalive.unwrap_or(0));
        }
        (before.is_none() || update != PeerUpdate::new(peer.public_key)).then_some(update)
    });
    Update {
        // A file without a key leaves it to others, who may have set one meanwhile.
        private_key: new
            .interface
            .private_key
            .clone()
            .filter(|key| old.interface.private_key.as_ref() != Some(key))
            .map(Some),
        replace_peers: false,
        peers: gone.chain(changed).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Interface;
    use adit_core::{PrivateKey, PublicKey};

    fn config(peers: &[(u8, &[&str])]) -> Config {
        let peers = peers.iter().map(|(number, nets)| {
            let mut peer = Peer::new(PublicKey::from_bytes([*number; 32]));
            peer.allowed_ips = nets.iter().map(|net| net.parse().unwrap()).collect();
            peer
        });
        Config { interface: Interface::new(PrivateKey::from_bytes([1; 32])), peers: peers.collect() }
    }

    fn between(old: &Config, new: &Config) -> Update {
        difference(old, new, &Resolved::default(), &Resolved::default())
    }

    #[test]
    fn nothing_is_told_when_nothing_changed() {
        let config = config(&[(2, &["10.0.0.0/24"]), (3, &[])]);
        assert_eq!(between(&config, &config), Update::default());
    }

    #[test]
    fn only_the_changed_peer_is_named() {
        let old = config(&[(2, &["10.0.0.0/24"]), (3, &["10.1.0.0/24"])]);
        let mut new = old.clone();
        new.peers[1].persistent_keepalive = Some(25);
        let update = between(&old, &new);
        assert_eq!(update.peers, [PeerUpdate::new(PublicKey::from_bytes([3; 32])).keepalive(25)]);
        assert_eq!(update.private_key, None);
    }

    #[test]
    fn moved_prefixes_are_told_in_the_order_of_the_file() {
        let old = config(&[(2, &["10.0.0.0/24"]), (3, &[])]);
        let new = config(&[(2, &[]), (3, &["10.0.0.0/24"])]);
        let update = between(&old, &new);
        assert_eq!(update.peers.len(), 2);
        assert!(update.peers.iter().all(|peer| peer.replace_allowed_ips));
        assert_eq!(update.peers[1].allowed_ips.len(), 1);
    }

    #[test]
    fn peers_that_are_gone_are_removed_and_new_ones_added() {
        let update = between(&config(&[(2, &[])]), &config(&[(3, &[])]));
        assert!(update.peers[0].remove && update.peers[0].public_key == PublicKey::from_bytes([2; 32]));
        assert!(!update.peers[1].remove && update.peers[1].preshared_key == Some(None));
    }
}
