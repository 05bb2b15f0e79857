//! Installs what the tests and the demo need from the operating system: only what is missing, only from the
//! distribution, and with every command printed first.
//!
//! It never touches the machine's own name resolution: a package that replaces /etc/resolv.conf when it is installed
//! (systemd-resolved does) has no place in the list. Without apt or without root it says what is missing and how to
//! get it, and changes nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command;

/// How the machine stands after [`run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything is there.
    Ready,
    /// These Debian packages are missing and could not be installed; the text says how to.
    Missing { packages: Vec<&'static str>, how: String },
}

impl Outcome {
    /// Turns missing packages into an error.
    pub(crate) fn required(self) -> Result<()> {
        match self {
            Self::Ready => Ok(()),
            Self::Missing { packages, how } => bail!("missing: {}\n{how}", packages.join(" ")),
        }
    }
}

/// Looks what is missing and installs it where that is possible.
pub(crate) fn run() -> Result<Outcome> {
    rust_components()?;
    if !cfg!(target_os = "linux") {
        println!("    nothing to install: the tests that need other programs run on Linux only");
        return Ok(Outcome::Ready);
    }
    let missing = missing();
    if missing.is_empty() {
        println!("    all {} programs are there", NEEDS.len());
        return Ok(Outcome::Ready);
    }
    for need in &missing {
        println!("    missing: {} (package {}), {}", need.program, need.package, need.purpose);
    }
    let packages: Vec<&'static str> = missing.iter().map(|need| need.package).collect();
    let install = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if let Some(how) = why_not(&packages) {
        return Ok(Outcome::Missing { packages, how });
    }
    install_with_apt(&packages)?;
    match self::missing().as_slice() {
        [] => Ok(Outcome::Ready),
        rest => {
            let packages = rest.iter().map(|need| need.package).collect();
            Ok(Outcome::Missing {
                packages,
                how: format!("apt-get succeeded, yet they are not there: try `{install}`"),
            })
        }
    }
}

/// One program that tests or demo call.
#[derive(Debug)]
struct Need {
    package: &'static str,
    program: &'static str,
    purpose: &'static str,
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| command::find(need.program).is_none()).collect()
}

/// Installs packages of Debian.
///
/// # Errors
/// There is no apt, no right to use it, or no such package; the text says what to do.
pub(crate) fn install_packages(packages: &[&str]) -> Result<()> {
    match why_not(packages) {
        Some(how) => bail!(how),
        None => install_with_apt(packages),
    }
}

/// Why packages cannot be installed here, and what to do about it.
fn why_not(packages: &[&str]) -> Option<String> {
    let wanted = packages.join(" ");
    if command::find("apt-get").is_none() {
        return Some(format!("this machine has no apt-get: install what Debian calls {wanted} another way"));
    }
    let root = nix::unistd::geteuid().is_root();
    (!root).then(|| format!("not root: run `sudo apt-get install --no-install-recommends {wanted}`"))
}

fn install_with_apt(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-oDPkg::Lock::Timeout=120");
        apt
    };
    if let Err(error) = command::run(apt().args(["-qq", "update"]), APT_LIMIT) {
        // One unreachable source of several is no reason to give up: the lists of yesterday may do.
        println!("    {error:#}; going on with the package lists that are there");
    }
    command::run(apt().args(["-qq", "install", "-y", "--no-install-recommends"]).args(packages), APT_LIMIT)
}

/// Adds rustfmt and clippy, which rustup's minimal profile leaves out.
fn rust_components() -> Result<()> {
    let absent =
        |name: &&str| !Command::new("cargo").args([name, "--version"]).output().is_ok_and(|o| o.status.success());
    let wanted: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .iter()
        .filter(|(sub, _)| absent(sub))
        .map(|(_, name)| *name)
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if command::find("rustup").is_none() {
        bail!("the Rust toolchain lacks {}: install them the way Rust was installed", wanted.join(" and "));
    }
    command::run(Command::new("rustup").args(["component", "add"]).args(wanted), APT_LIMIT)
}

/// What is needed, and why.
const NEEDS: &[Need] = &[
    Need { package: "iproute2", program: "ip", purpose: "network namespaces and links of the scenario tests" },
    Need { package: "iputils-ping", program: "ping", purpose: "round trips through a tunnel" },
    Need { package: "iperf3", program: "iperf3", purpose: "TCP flows through a tunnel" },
    Need { package: "nftables", program: "nft", purpose: "underlays that block or count" },
    Need { package: "wireguard-tools", program: "wg", purpose: "configuration of peers over the UAPI socket" },
    Need { package: "wireguard-go", program: "wireguard-go", purpose: "a peer that is not Adit" },
    Need { package: "tcpdump", program: "tcpdump", purpose: "what really is on the wire" },
    Need { package: "gcc", program: "cc", purpose: "programs in C that link the library" },
    Need { package: "binutils", program: "objcopy", purpose: "a C library that shows only its own functions" },
    Need { package: "valgrind", program: "valgrind", purpose: "instruction counts" },
];

/// Slow mirrors exist; this is for one that never answers.
const APT_LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packages_are_an_error_that_says_how() {
        let outcome = Outcome::Missing { packages: vec!["iperf3"], how: "run `apt`".into() };
        assert_eq!(outcome.required().unwrap_err().to_string(), "missing: iperf3\nrun `apt`");
        Outcome::Ready.required().unwrap();
    }

    #[test]
    fn no_package_takes_over_the_name_resolution_of_the_machine() {
        assert!(NEEDS.iter().all(|need| !need.package.contains("resolv")));
    }
}
