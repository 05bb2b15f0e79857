//! One tunnel in one mode, with traffic and capture, through all events.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_tests::capture::{self, Packet, Protocol, Seen};
use adit_tests::wait::pass;
use adit_tests::{Adit, Capture, Noise, NoiseOptions, Probe, Quick, Site, Triple, eventually, tools};
use anyhow::{Context as _, Result, anyhow, ensure};

use crate::events;

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    /// `ExcludeLocalNetworks`; absent if nothing is said.
    pub(crate) local: Option<bool>,
    /// `KillSwitch`.
    pub(crate) kill_switch: bool,
}

impl Mode {
    /// Whether it routes as wg-quick does.
    pub(crate) fn is_plain(self) -> bool {
        self.local.is_none() && !self.kill_switch
    }

    pub(crate) fn config(self, site: &Site) -> Quick {
        let mut config = site.full();
        if let Some(on) = self.local {
            config = config.with("ExcludeLocalNetworks", if on { "on" } else { "off" });
        }
        if self.kill_switch { config.with("KillSwitch", "on") } else { config }
    }

    /// Where `a` sends to: what the tunnel takes, the endpoint's own address among it, and the local network.
    fn targets(self) -> Vec<IpAddr> {
        let mut targets = vec![Site::BEYOND4, Site::BEYOND6, Site::OPEN4, Site::OPEN6, Triple::B4, Triple::B6];
        if !self.is_plain() {
            // On the host's own link: public, so not local, and private.
            targets.extend([Site::GATEWAY4, Site::GATEWAY6, Site::LOCAL4, Site::LOCAL6]);
        }
        targets
    }
}

/// What an event has to do with.
pub(crate) struct Run {
    pub(crate) mode: Mode,
    pub(crate) site: Site,
    pub(crate) tunnel: Adit,
    pub(crate) config: Quick,
    pub(crate) capture: Capture,
    /// Phases in which something is let out by this mode, and for how long after they begin.
    open: Vec<(String, Duration)>,
    /// Phases in which marked datagrams are sent by others.
    pub(crate) marked: Vec<String>,
    /// Traffic that wants to leave by the underlay, which only a kill switch keeps from it.
    pub(crate) bound: Option<Noise>,
    probe: Probe,
}

impl Run {
    /// Goes through all events.
    pub(crate) fn all(mode: Mode) -> Result<()> {
        let site = Site::new()?;
        let noise = Noise::start(site.a(), &mode.targets(), &NoiseOptions::default())?;
        everything_is_seen(&site, &mode.targets())?;
        let config = mode.config(&site);
        let tunnel = Adit::start_quietly(site.a(), &config)?;
        let bound = bound(mode, &site)?;
        let probe = Probe::start(site.a(), &site.triple.b, Site::BEYOND4, Duration::from_millis(10))?;
        let capture = site.capture(STEADY)?;
        let (open, marked) = (Vec::new(), Vec::new());
        let mut run = Self { mode, site, tunnel, config, capture, open, marked, bound, probe };
        run.carries().context(STEADY)?;
        for event in events::ALL {
            if let Err(error) = run.happens(event) {
                // What was on the wire until then tells more than that something did not work.
                let seen = check(mode, &run.capture.seen()?, &run.open, &run.marked);
                return Err(match seen {
                    Ok(()) => error,
                    Err(leak) => anyhow!("{error:#}\n{leak:#}"),
                });
            }
        }
        let Self { mut tunnel, capture, open, marked, site, bound, .. } = run;
        let (accepted, refused) = noise.counts();
        drop((noise, bound));
        let seen = capture.finish()?;
        check(mode, &seen, &open, &marked)?;
        eprintln!("{} packets on the wire, of {accepted} sent and {refused} refused", seen.packets.len());
        tunnel.stop()?;
        drop(site);
        Ok(())
    }

    fn happens(&mut self, event: &events::Event) -> Result<()> {
        let begun = Instant::now();
        self.phase(event.name);
        (event.happens)(self).with_context(|| format!("«{}»", event.name))?;
        eprintln!("{}: {:.2} s", event.name, begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// What happens from now on has another name in the report.
    pub(crate) fn phase(&mut self, name: &str) {
        self.capture.phase(name);
    }

    /// In the phase of this name this mode lets packets out, for at most `time`.
    pub(crate) fn may_leak(&mut self, phase: &str, time: Duration) {
        self.open.push((phase.to_owned(), time));
    }

    /// Fails unless the tunnel carries packets of both families again.
    pub(crate) fn carries(&self) -> Result<()> {
        self.probe.resumes(SOON)?;
        // Amid all that noise one of them may be lost.
        let answered = || tools::ping(self.site.a(), Site::BEYOND6, 1, Duration::ZERO).is_ok_and(|it| it.received == 1);
        eventually("a ping over IPv6 to be answered", SOON, answered)
    }

    /// Fails if the tunnel carries anything.
    pub(crate) fn is_silent(&self) -> Result<()> {
        self.probe.stays_silent(DWELL)
    }

    /// Has the tunnel read another configuration.
    pub(crate) fn reload(&mut self, config: &Quick) -> Result<()> {
        self.tunnel.write(config)?;
        self.tunnel.reload()?;
        self.carries()
    }
}

/// Traffic that is bound to the underlay's device, if the mode holds even that back.
pub(crate) fn bound(mode: Mode, site: &Site) -> Result<Option<Noise>> {
    let options = NoiseOptions { device: Some(Triple::FIRST.to_owned()), ..NoiseOptions::default() };
    mode.kill_switch.then(|| Noise::start(site.a(), &mode.targets(), &options)).transpose()
}

/// Makes sure that what is sent can be seen: without a tunnel all of it is on the wire.
fn everything_is_seen(site: &Site, targets: &[IpAddr]) -> Result<()> {
    let capture = site.capture("no tunnel")?;
    for target in targets {
        let kind_of = |packet: &Packet| match packet.protocol {
            Protocol::Udp(_, Noise::UDP) => "UDP",
            Protocol::Tcp(_, Noise::TCP) => "TCP",
            Protocol::Icmp4(8) | Protocol::Icmp6(128) => "ping",
            _ => "nothing that was sent",
        };
        for kind in ["UDP", "TCP", "ping"] {
            capture::sees(&capture, &format!("{kind} to {target} on the wire"), SOON, |packet| {
                packet.target() == Some(*target) && kind_of(packet) == kind
            })?;
        }
    }
    Ok(())
}

fn check(mode: Mode, seen: &Seen, open: &[(String, Duration)], marked: &[String]) -> Result<()> {
    let allowed = |phase: &str, packet: &Packet| {
        Site::is_tunnel(packet)
            || (mode.local == Some(true) && Site::is_local(packet))
            || open.iter().any(|(name, time)| name == phase && seen.since_phase(packet) <= *time)
            || (marked.iter().any(|name| name == phase) && matches!(packet.protocol, Protocol::Udp(_, Noise::UDP)))
    };
    seen.only(allowed)?;
    // What is not seen because nothing was sent, or nothing captured, proves nothing.
    let steady = seen.in_phase(STEADY).filter(|packet| Site::is_tunnel(packet)).count();
    ensure!(steady > 20, "only {steady} packets of the tunnel were seen while it was up");
    if mode.local == Some(true) {
        ensure!(seen.in_phase(STEADY).any(Site::is_local), "the local network was not reached");
    }
    Ok(())
}

/// Lets the traffic go on for a while.
pub(crate) fn dwell() {
    pass(DWELL);
}

const STEADY: &str = "steady";

/// Some hundred packets of each kind, and more than a first packet of TCP is sent again after.
const DWELL: Duration = Duration::from_millis(300);

/// For a handshake that has to be sent again, after 5 s.
pub(crate) const SOON: Duration = Duration::from_secs(8);
