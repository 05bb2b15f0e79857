//! A subject at work: two fresh hosts, an engine in each, and packets that get through.
//!
//! Every run has hosts of its own, so that peak memory, the kernel's memory of TCP connections and whatever an engine
//! leaves behind are one run's.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use adit_core::PrivateKey;
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::hosts::{Addresses, FOLDER, Host, Hosts};
use super::options::{Candidate, CandidateKind, INTERFACE};
use super::process::Process;
use super::traffic::pause;
use super::uapi::Setup;
use crate::failure::{Failure, Kind, Outcome};
use crate::keys;
use crate::netns::links::Links;
use crate::netns::sockets::is_passing;
use crate::watch::Watch;

/// A subject that carries packets. Dropping it ends the engines, then the hosts.
pub(super) struct Running {
    engines: Vec<Process>,
    hosts: Hosts,
    addresses: fn(Host) -> Addresses,
}

impl Running {
    /// Starts a subject and waits until packets of both families get through.
    pub(super) fn start(watch: &Watch, candidate: &Candidate) -> Outcome<Self> {
        let hosts = Hosts::open(watch)?;
        let mut running = Self { engines: Vec::new(), hosts, addresses: Host::tunnel };
        let started = match &candidate.kind {
            CandidateKind::Bare => {
                running.addresses = Host::underlay;
                Ok(())
            }
            CandidateKind::Adit => running.start_adit(watch),
            CandidateKind::Foreign(command) => running.start_foreign(watch, command),
            CandidateKind::Ceiling => running.start_ceiling(watch),
        };
        let joined = started.and_then(|()| running.wait_until_joined(watch));
        // What was interrupted is nobody's fault.
        let blame = |failure: Failure| match watch.check() {
            Ok(()) => Failure { message: format!("{}: {}", candidate.name, failure.message), ..failure },
            Err(interrupted) => interrupted,
        };
        joined.map_err(blame)?;
        Ok(running)
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The addresses behind which a host is reached by way of the subject.
    pub(super) fn addresses(&self, host: Host) -> Addresses {
        (self.addresses)(host)
    }

    /// Fails if an engine has ended.
    pub(super) fn check(&self) -> Outcome {
        for (engine, host) in self.engines.iter().zip(Host::BOTH) {
            engine.check().map_err(|failure| of_host(host, failure))?;
        }
        Ok(())
    }

    /// Processor time of both engines so far; nothing where there are none.
    pub(super) fn cpu(&self) -> Outcome<Option<Duration>> {
        if self.engines.is_empty() {
            return Ok(None);
        }
        self.engines.iter().map(Process::cpu).sum::<Outcome<Duration>>().map(Some)
    }

    /// The most memory that the larger of the engines has had so far, in bytes.
    pub(super) fn peak_memory(&self) -> Outcome<Option<u64>> {
        let peaks = self.engines.iter().map(Process::peak_memory).collect::<Outcome<Vec<_>>>()?;
        Ok(peaks.into_iter().max())
    }

    /// The very program that is running, as its users run it: with a configuration file.
    fn start_adit(&mut self, watch: &Watch) -> Outcome {
        let program = this_program()?;
        let ends = ends()?;
        for host in Host::BOTH {
            let interface = interface();
            let path = format!("{FOLDER}/{interface}.conf");
            let text = configuration(host, &ends);
            let to = path.clone();
            self.hosts.on(host).run(watch, "its configuration", move || {
                let mut create = std::fs::OpenOptions::new();
                let mut file = create.write(true).create_new(true).mode(0o600).open(to)?;
                Ok(io::Write::write_all(&mut file, text.as_bytes())?)
            })?;
            let command = [program.as_str(), "up", "--foreground", &path].map(str::to_owned);
            self.engines.push(Process::start(self.hosts.on(host), watch, &command, &interface)?);
        }
        Ok(())
    }

    fn start_foreign(&mut self, watch: &Watch, command: &[String]) -> Outcome {
        let names = [interface(), interface()];
        for (host, name) in Host::BOTH.into_iter().zip(&names) {
            let command: Vec<String> = command.iter().map(|word| word.replace(INTERFACE, name)).collect();
            self.engines.push(Process::start(self.hosts.on(host), watch, &command, name)?);
        }
        let ends = ends()?;
        for (host, name) in Host::BOTH.into_iter().zip(&names) {
            self.configure(watch, host, name, &ends)?;
        }
        Ok(())
    }

    /// The loop of the very program that is running, with nothing in place of the engine.
    fn start_ceiling(&mut self, watch: &Watch) -> Outcome {
        let program = this_program()?;
        for host in Host::BOTH {
            let name = interface();
            let (port, remote) = (PORT.to_string(), SocketAddr::from((host.other().underlay().v4, PORT)).to_string());
            let command =
                [&program, "bench", "carrier", "--port", &port, "--remote", &remote, &name].map(str::to_owned);
            self.engines.push(Process::start(self.hosts.on(host), watch, &command, &name)?);
            let end = Instant::now() + SOCKET_LIMIT;
            while let Err(failure) = self.set_up_device(watch, host, &name) {
                self.check()?;
                if Instant::now() >= end {
                    return Err(of_host(host, failure));
                }
                pause(watch, POLL)?;
            }
        }
        Ok(())
    }

    /// Waits for an engine's socket and configures engine and device.
    fn configure(&self, watch: &Watch, host: Host, name: &str, ends: &[PrivateKey; 2]) -> Outcome {
        let end = Instant::now() + SOCKET_LIMIT;
        let paths = ["/var/run/wireguard", "/run/wireguard"].map(|folder| format!("{folder}/{name}.sock"));
        loop {
            self.check()?;
            let (setup, tried) = (setup(host, ends), paths.clone());
            let told = self.hosts.on(host).run(watch, "its UAPI socket", move || {
                let path = tried.iter().find(|path| Path::new(path).exists());
                Ok(path.map_or_else(|| Err(io::ErrorKind::NotFound.into()), |path| setup.tell(path.as_ref())))
            })?;
            match told {
                Ok(()) => break,
                // It has made the file and does not listen yet.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    if Instant::now() >= end {
                        let told = self.engines[host as usize].told();
                        let (wanted, limit) = (&paths[0], SOCKET_LIMIT.as_secs());
                        return Err(of_host(host, format!("it does not listen on {wanted} within {limit} s{told}")));
                    }
                    pause(watch, POLL)?;
                }
                Err(error) => {
                    let told = self.engines[host as usize].told();
                    return Err(of_host(host, format!("{error}{told}")));
                }
            }
        }
        self.set_up_device(watch, host, name)
    }

    /// Gives a device its MTU, addresses and routes, and brings it up.
    fn set_up_device(&self, watch: &Watch, host: Host, name: &str) -> Outcome {
        let name = name.to_owned();
        self.hosts.on(host).run(watch, "its device", move || {
            let links = Links::open()?;
            links.set_mtu(&name, MTU)?;
            for own in host.tunnel().nets() {
                links.add_address(&name, own)?;
            }
            links.set_up(&name)?;
            host.other().tunnel().nets().into_iter().try_for_each(|other| links.add_route(other, &name))
        })
    }

    /// Sends packets until they are answered.
    fn wait_until_joined(&self, watch: &Watch) -> Outcome {
        let end = Instant::now() + HANDSHAKE_LIMIT;
        for any in ["0.0.0.0:0", "[::]:0"] {
            let bind = |host: Host| {
                self.hosts.on(host).run(watch, "a socket", move || {
                    let socket = UdpSocket::bind(any)?;
                    socket.set_read_timeout(Some(POLL))?;
                    Ok(socket)
                })
            };
            let (here, there) = (bind(Host::A)?, bind(Host::B)?);
            let port = there.local_addr()?.port();
            let b = self.addresses(Host::B);
            let to: SocketAddr = if here.local_addr()?.is_ipv4() { (b.v4, port).into() } else { (b.v6, port).into() };
            while !is_answered(&here, &there, to)? {
                watch.check()?;
                self.check()?;
                if Instant::now() >= end {
                    let told: Vec<String> = Host::BOTH
                        .into_iter()
                        .zip(&self.engines)
                        .map(|(host, engine)| format!("; host {}{}", host.name(), engine.told()))
                        .collect();
                    let limit = HANDSHAKE_LIMIT.as_secs();
                    let text = format!("no packet to {} got through within {limit} s{}", to.ip(), told.concat());
                    return Err(Failure::new(Kind::Network, text));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both, so that they end at the same time.
        self.engines.iter().for_each(Process::ask_to_end);
    }
}

/// The path of the program that is running.
fn this_program() -> Outcome<String> {
    let program = std::env::current_exe()?.to_str().map(str::to_owned);
    program.ok_or_else(|| Failure::failed("the path of this program is not UTF-8"))
}

/// Sends one packet there and one back.
fn is_answered(here: &UdpSocket, there: &UdpSocket, to: SocketAddr) -> Outcome<bool> {
    // Until routes are set it has nowhere to go, and until both engines run it may be refused.
    if here.send_to(b"?", to).is_err() {
        std::thread::park_timeout(POLL);
        return Ok(false);
    }
    let mut buffer = [0; 8];
    let from = match there.recv_from(&mut buffer) {
        Ok((_, from)) => from,
        Err(error) if is_passing(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(there.send_to(b"!", from).is_ok() && here.recv(&mut buffer).is_ok())
}

fn of_host(host: Host, what: impl Describe) -> Failure {
    what.in_front(&format!("host {}: ", host.name()))
}

/// What a host's name can be put in front of.
trait Describe {
    fn in_front(self, text: &str) -> Failure;
}

impl Describe for Failure {
    fn in_front(self, text: &str) -> Failure {
        Failure { message: format!("{text}{}", self.message), ..self }
    }
}

impl Describe for String {
    fn in_front(self, text: &str) -> Failure {
        Failure::failed(self).in_front(text)
    }
}

/// Keys for both ends of one tunnel.
fn ends() -> Outcome<[PrivateKey; 2]> {
    Ok([PrivateKey::from_bytes(*keys::random()?), PrivateKey::from_bytes(*keys::random()?)])
}

fn setup(host: Host, ends: &[PrivateKey; 2]) -> Setup {
    Setup {
        private_key: ends[host as usize].clone(),
        listen_port: PORT,
        peer: ends[host.other() as usize].public_key(),
        endpoint: (host.other().underlay().v4, PORT).into(),
        allowed: host.other().tunnel().nets().to_vec(),
    }
}

/// The file of `adit up`.
fn configuration(host: Host, ends: &[PrivateKey; 2]) -> Zeroizing<String> {
    let setup = setup(host, ends);
    let list = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let key = Zeroizing::new(setup.private_key.to_base64());
    // With room for all of it, so that no copy of the key stays where it grew out of.
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str("[Interface]\nPrivateKey = ");
    text.push_str(&key);
    let own = list(&host.tunnel().nets());
    text.push_str(&format!("\nListenPort = {PORT}\nAddress = {own}\nMTU = {MTU}\n\n[Peer]\n"));
    let (peer, endpoint, allowed) = (setup.peer.to_base64(), setup.endpoint, list(&setup.allowed));
    text.push_str(&format!("PublicKey = {peer}\nEndpoint = {endpoint}\nAllowedIPs = {allowed}\n"));
    text
}

/// The name of a tun device that nobody else uses, of at most 15 bytes (IFNAMSIZ).
fn interface() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed) % 100_000;
    // A process id has at most 7 digits (proc_sys_kernel(5), pid_max).
    format!("ab{}x{number}", std::process::id())
}

/// Of all tunnels, in bytes: Ethernet's 1500 less what WireGuard adds over IPv6.
const MTU: u32 = 1420;

/// UDP port of both engines; each has a network of its own.
const PORT: u16 = 51820;

/// How long an engine may take to make its socket. All known ones take milliseconds.
const SOCKET_LIMIT: Duration = Duration::from_secs(10);

/// A handshake takes milliseconds; its first message may be lost, and is repeated after 5 s (REKEY_TIMEOUT) by each end.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_fit_and_differ() {
        let (a, b) = (interface(), interface());
        assert_ne!(a, b);
        assert!(a.len() <= 15 && "ab4194304x99999".len() == 15, "{a}");
    }

    #[test]
    fn a_configuration_is_one_that_adit_takes() {
        let ends = [PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32])];
        let text = configuration(Host::B, &ends);
        for line in [
            "Address = 10.77.0.2/32, fd77::2/128",
            "AllowedIPs = 10.77.0.1/32, fd77::1/128",
            "Endpoint = 192.0.2.1:51820",
            "MTU = 1420",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.conf");
        std::fs::write(&path, &*text).unwrap();
        let loaded = adit_control::config::load(&path).unwrap();
        assert_eq!(loaded.config.interface.mtu.map(u32::from), Some(MTU));
    }
}
