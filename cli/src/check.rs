//! `adit check`: everything that is wrong with a configuration, at once.

use std::io::{self, Write};
use std::path::Path;

use adit_control::config;
use serde_json::json;

use crate::args::Check;
use crate::failure::{Failure, Kind, Outcome};
use crate::locate;

/// Checks a file and prints what was found.
pub(crate) fn run(options: &Check) -> Outcome {
    let (path, name) = locate::file(&options.tunnel)?;
    let result = config::load(&path);
    if options.json {
        let document = match &result {
            Ok(loaded) => json!({ "tunnel": name, "file": path, "valid": true, "diagnostics": loaded.warnings }),
            Err(error) => {
                json!({ "tunnel": name, "file": path, "valid": false, "diagnostics": error.diagnostics(), "omitted": error.omitted() })
            }
        };
        writeln!(io::stdout(), "{document:#}")?;
    }
    match result {
        Ok(loaded) => {
            if !options.json {
                for warning in &loaded.warnings {
                    writeln!(io::stdout(), "{warning}")?;
                }
                writeln!(io::stdout(), "{}: valid; {}", path.display(), summary(&loaded.config))?;
            }
            Ok(())
        }
        Err(error) => {
            if error.io_kind().is_some() {
                return Err(failure(&path, &error));
            }
            if !options.json {
                writeln!(io::stdout(), "{error}")?;
            }
            Err(Failure::new(Kind::Configuration, count(&path, &error)))
        }
    }
}

/// Why a configuration cannot be used, with all that is wrong with it.
pub(crate) fn failure(path: &Path, error: &config::ConfigError) -> Failure {
    let message = match error.io_kind() {
        // It is one sentence, and whoever reads it is told already that it is an error.
        Some(_) => error.to_string().replacen(": error: ", ": ", 1),
        None => format!("{}\n{error}", count(path, error)),
    };
    Failure::new(failure_kind(error), message)
}

/// How many errors a file has.
fn count(path: &Path, error: &config::ConfigError) -> String {
    let errors = error.diagnostics().iter().filter(|d| d.severity == config::Severity::Error).count() + error.omitted();
    format!("{}: {errors} error{}", path.display(), if errors == 1 { "" } else { "s" })
}

/// The exit code's meaning of a configuration that cannot be used.
fn failure_kind(error: &config::ConfigError) -> Kind {
    match error.io_kind() {
        Some(io::ErrorKind::NotFound) => Kind::NotFound,
        Some(io::ErrorKind::PermissionDenied) => Kind::NotPermitted,
        _ => Kind::Configuration,
    }
}

fn summary(config: &config::Config) -> String {
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let prefixes = config.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let interface = &config.interface;
    let mut parts = vec![
        count(config.interface.addresses.len(), "address", "addresses"),
        count(config.peers.len(), "peer", "peers"),
        count(prefixes, "allowed prefix", "allowed prefixes"),
    ];
    if !interface.excluded_ips.is_empty() {
        parts.push(count(interface.excluded_ips.len(), "excluded prefix", "excluded prefixes"));
    }
    if interface.exclude_local_networks == Some(true) {
        parts.push("local networks excluded".to_owned());
    }
    if interface.kill_switch {
        parts.push("kill switch on".to_owned());
    }
    parts.join(", ")
}

/// What stands below the options: examples, and the keys that other programs' manuals do not describe. Lines fit into a
/// manual page of 80 columns, which would fill longer ones anew.
pub(crate) const HELP: &str = "\
Examples:
  adit check ./office.conf
  adit check --json wg0

Keys are those of wg(8) and wg-quick(8), and in [Interface] three
more. The names in brackets are those of TOML and JSON, where on and
off are true and false.
  ExcludedIPs (excluded_ips)
      Prefixes, separated by commas, that stay outside of the tunnel
      though an allowed IP holds them. The longest prefix that holds an
      address decides, allowed or excluded, at any depth.
      ExcludedIPs = 203.0.113.0/24, 2001:db8:113::/48
  ExcludeLocalNetworks (exclude_local_networks)
      on: private and link-local networks that this machine is
      connected to stay outside of the tunnel. Not said is on, and off
      with a kill switch.
      ExcludeLocalNetworks = on
  KillSwitch (kill_switch)
      on: whatever would leave outside of the tunnel is refused, but
      for the tunnel's own datagrams, DHCP, neighbour discovery,
      loopback and what is excluded; also when the tunnel is killed,
      until `adit down` or `adit recover`.
      KillSwitch = on";
