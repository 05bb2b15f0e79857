//! Peers that are not Adit: wireguard-go, run in the foreground and configured through wg(8).

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::Namespace;
use crate::process::Process;
use crate::wait::eventually;
use crate::{names, wg};

/// A running wireguard-go with its interface; ended on drop, which takes the interface and the socket along.
#[derive(Debug)]
pub struct WireGuardGo {
    link: String,
    process: Process,
}

impl WireGuardGo {
    /// Starts it in `namespace` with a name that no other interface has, and waits until its control socket answers.
    ///
    /// # Errors
    /// If it is not installed or does not come up; with what it said.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_named(namespace, &names::link("wgo"))
    }

    /// Like [`WireGuardGo::start`] with a given name: for a peer that is restarted.
    ///
    /// # Errors
    /// As there.
    pub fn start_named(namespace: &Namespace, link: &str) -> Result<Self> {
        let mut command = namespace.command("wireguard-go");
        command.args(["--foreground", link]).env("LOG_LEVEL", "verbose");
        let process = Process::start("wireguard-go", &mut command)?;
        let mut this = Self { link: link.to_owned(), process };
        let mut ended = None;
        let answers = eventually("its control socket to answer", Duration::from_secs(10), || {
            ended = this.process.try_wait().ok().flatten();
            ended.is_some() || (wg::socket(link).exists() && wg::show(namespace, link).is_ok())
        });
        match ended {
            Some(status) => anyhow::bail!("wireguard-go {link}: {status}\n{}", this.process),
            None => answers.with_context(|| this.process.to_string())?,
        }
        Ok(this)
    }

    /// Brings its interface up: `config` through `wg setconf`, `addresses` in CIDR notation, `mtu` in bytes, and a route
    /// for every allowed prefix, as wg-quick(8) does with `Table = main`.
    ///
    /// # Errors
    /// If wg(8) or `ip` refuses.
    pub fn configure(&self, namespace: &Namespace, config: &wg::Config, addresses: &[&str], mtu: u32) -> Result<()> {
        let link = self.link();
        wg::set_config(namespace, link, config)?;
        for address in addresses {
            namespace.ip(&format!("addr add {address} dev {link}"))?;
        }
        namespace.ip(&format!("link set {link} mtu {mtu} up"))?;
        for prefix in config.peers.iter().flat_map(|peer| &peer.allowed_ips) {
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            namespace.ip(&format!("{family} route replace {prefix} dev {link}"))?;
        }
        Ok(())
    }

    /// Name of the interface and of the control socket.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// The process, for its output and for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
