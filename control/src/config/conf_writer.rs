//! Writes a configuration as wg(8) and wg-quick(8) read it.

use std::fmt::{self, Display, Write};

use zeroize::Zeroizing;

use super::model::{Config, Interface, Peer, Table};

/// The configuration as a wg-quick file; the text holds its secrets and is wiped when dropped.
pub(super) fn write(config: &Config) -> Zeroizing<String> {
    // Room for everything but long lists, so that growing seldom leaves copies of keys behind.
    let mut out = Zeroizing::new(String::with_capacity(512 + 256 * config.peers.len()));
    // Writing into a String never fails.
    let _ = interface(&mut out, &config.interface);
    for one in &config.peers {
        let _ = peer(&mut out, one);
    }
    out
}

fn interface(out: &mut String, interface: &Interface) -> fmt::Result {
    writeln!(out, "[Interface]")?;
    if let Some(key) = &interface.private_key {
        writeln!(out, "PrivateKey = {}", &*Zeroizing::new(key.to_base64()))?;
    }
    option(out, "ListenPort", interface.listen_port)?;
    mark(out, "FwMark", interface.fwmark)?;
    list(out, "Address", &interface.addresses)?;
    list(out, "DNS", &interface.dns)?;
    list(out, "DNS", &interface.dns_search)?;
    option(out, "MTU", interface.mtu)?;
    match interface.table {
        Table::Auto => {}
        Table::Off => writeln!(out, "Table = off")?,
        Table::Number(number) => writeln!(out, "Table = {number}")?,
    }
    list(out, "ExcludedIPs", &interface.excluded_ips)?;
    option(out, "ExcludeLocalNetworks", interface.exclude_local_networks.map(switch))?;
    option(out, "KillSwitch", interface.kill_switch.then_some(switch(true)))?;
    let hooks = [
        ("PreUp", &interface.pre_up),
        ("PostUp", &interface.post_up),
        ("PreDown", &interface.pre_down),
        ("PostDown", &interface.post_down),
    ];
    for (key, commands) in hooks {
        for command in commands {
            writeln!(out, "{key} = {command}")?;
        }
    }
    if interface.save_config {
        writeln!(out, "SaveConfig = true")?;
    }
    Ok(())
}

fn peer(out: &mut String, peer: &Peer) -> fmt::Result {
    writeln!(out, "\n[Peer]\nPublicKey = {}", peer.public_key)?;
    if let Some(key) = &peer.preshared_key {
        writeln!(out, "PresharedKey = {}", &*Zeroizing::new(key.to_base64()))?;
    }
    list(out, "AllowedIPs", &peer.allowed_ips)?;
    option(out, "Endpoint", peer.endpoint.as_ref())?;
    mark(out, "PersistentKeepalive", peer.persistent_keepalive.map(u32::from))
}

fn option(out: &mut String, key: &str, value: Option<impl Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| writeln!(out, "{key} = {value}"))
}

/// Zero is `off` for these.
fn mark(out: &mut String, key: &str, value: Option<u32>) -> fmt::Result {
    match value {
        Some(0) => writeln!(out, "{key} = off"),
        value => option(out, key, value),
    }
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn list(out: &mut String, key: &str, values: &[impl Display]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        if index == 0 { write!(out, "{key} = {value}")? } else { write!(out, ", {value}")? }
    }
    if values.is_empty() { Ok(()) } else { out.write_str("\n") }
}
