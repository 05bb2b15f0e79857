//! `SaveConfig`: the running configuration written back to its file on the way down, as wg-quick(8) does.

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use adit_tun::handle::PumpSnapshot;

use super::{State, TunnelError};
use crate::config::{Config, Format, Peer};
use crate::scratch;

/// Replaces the file with what the tunnel is now. Comments are lost, as with wg-quick; permissions stay.
pub(super) fn save(path: &Path, state: &State, fwmark: u32, snapshot: &PumpSnapshot) -> Result<(), TunnelError> {
    let config = running(state, fwmark, snapshot);
    let text = match Format::from_path(path) {
        Format::Conf => config.to_conf(),
        Format::Toml => config.to_toml(),
        Format::Json => config.to_json(),
    };
    let write = || -> std::io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = std::fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode());
        scratch::sweep(dir);
        let mut file = scratch::file_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| TunnelError::Save { path: path.display().to_string(), source })
}

/// The configuration that would bring this tunnel up as it is.
fn running(state: &State, fwmark: u32, snapshot: &PumpSnapshot) -> Config {
    let mut config = state.config.clone();
    config.interface.private_key.clone_from(&snapshot.engine.private_key);
    config.interface.listen_port = Some(snapshot.port);
    if state.fwmark_from_user {
        config.interface.fwmark = Some(fwmark);
    }
    config.peers = snapshot
        .engine
        .peers
        .iter()
        .map(|peer| Peer {
            public_key: peer.public_key,
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.clone(),
            endpoint: peer.endpoint.map(Into::into),
            persistent_keepalive: (peer.persistent_keepalive > 0).then_some(peer.persistent_keepalive),
        })
        .collect();
    // What wg(8) has allowed meanwhile is no exception any more, and a file that says both would be refused.
    let allowed: HashSet<_> = config.peers.iter().flat_map(|peer| &peer.allowed_ips).collect();
    config.interface.excluded_ips.retain(|net| !allowed.contains(net));
    config
}
