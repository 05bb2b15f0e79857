//! What really is on the wire: tcpdump(8) on links of a router, read back packet by packet.
//!
//! Only what comes in is captured, so on a router's link it is exactly what the host at the other end has let out, and
//! the capture goes on when that host takes its own end down. What happened meanwhile is told by phases, so that a packet
//! that should not be there is reported with what brought it about.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::signal::Signal;

use crate::netns::Namespace;
use crate::process::Process;
use crate::wait::{eventually, pass};

/// Running captures of one or several links; they end when it is dropped.
#[derive(Debug)]
pub struct Capture {
    links: Vec<Link>,
    phases: Vec<(SystemTime, String)>,
    /// Holds the files; removed last.
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Link {
    name: String,
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures what comes in over `links` of `router`; returns when that has begun. The first phase is `phase`.
    ///
    /// # Errors
    /// If tcpdump does not begin; with what it said.
    pub fn start(router: &Namespace, links: &[&str], phase: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut started = Vec::new();
        for name in links {
            let file = folder.path().join(format!("{name}.pcap"));
            let mut tcpdump = router.command("tcpdump");
            tcpdump.args(["-n", "-i", name, "-Q", "in", "-U", "--immediate-mode", "-s", SNAPLEN, "-B", BUFFER_KIB]);
            // It would give up its privileges, and with them the way to the folder.
            tcpdump.args(["-Z", "root", "-w"]).arg(&file);
            let process = Process::start(&format!("tcpdump -i {name}"), &mut tcpdump)?;
            started.push(Link { name: (*name).to_owned(), process, file });
        }
        for link in &mut started {
            link.process.wait_for_line("listening on", PATIENCE)?;
        }
        let phases = vec![(SystemTime::now(), phase.to_owned())];
        Ok(Self { links: started, phases, _folder: folder })
    }

    /// What is seen from now on belongs to another phase.
    pub fn phase(&mut self, phase: &str) {
        self.phases.push((SystemTime::now(), phase.to_owned()));
    }

    /// What was seen until now.
    ///
    /// # Errors
    /// If a file cannot be read or is no capture.
    pub fn seen(&self) -> Result<Seen> {
        let mut packets = Vec::new();
        for link in &self.links {
            let bytes = std::fs::read(&link.file).with_context(|| link.file.display().to_string())?;
            let found = records(&bytes).with_context(|| format!("capture of {}", link.name))?;
            packets.extend(found.into_iter().map(|(at, frame)| Packet::parse(&link.name, at, frame)));
        }
        packets.sort_by_key(|packet| packet.at);
        Ok(Seen { packets, phases: self.phases.clone() })
    }

    /// Ends the captures and returns what was seen.
    ///
    /// # Errors
    /// If tcpdump failed, or the kernel had no room for a packet.
    pub fn finish(mut self) -> Result<Seen> {
        // What the kernel holds already is written first: until the files stop growing, or for as long as they grow by
        // what the tunnel says of its own accord.
        let sizes = |links: &[Link]| -> u64 {
            links.iter().filter_map(|link| link.file.metadata().ok()).map(|meta| meta.len()).sum()
        };
        let mut size = 0;
        for _ in 0..10 {
            let now = sizes(&self.links);
            if std::mem::replace(&mut size, now) == now {
                break;
            }
            pass(Duration::from_millis(50));
        }
        for link in &mut self.links {
            link.process.signal(Signal::SIGTERM)?;
            let status = link.process.wait_exit(PATIENCE)?;
            ensure!(status.success(), "{status}\n{}", link.process);
            let said = link.process.output();
            let dropped = said.lines().find_map(|line| line.strip_suffix(" packets dropped by kernel"));
            ensure!(dropped == Some("0"), "{} missed packets\n{said}", link.name);
        }
        self.seen()
    }
}

/// Packets in the order in which they were captured.
#[derive(Debug)]
pub struct Seen {
    /// The packets.
    pub packets: Vec<Packet>,
    phases: Vec<(SystemTime, String)>,
}

impl Seen {
    /// The phase in which a packet was seen.
    pub fn phase_of(&self, packet: &Packet) -> &str {
        let index = self.phases.partition_point(|(begun, _)| *begun <= packet.at);
        self.phases.get(index.saturating_sub(1)).map_or("", |(_, name)| name)
    }

    /// How long after the beginning of its phase a packet was seen.
    pub fn since_phase(&self, packet: &Packet) -> Duration {
        let index = self.phases.partition_point(|(begun, _)| *begun <= packet.at);
        let begun = self.phases.get(index.saturating_sub(1)).map_or(UNIX_EPOCH, |(begun, _)| *begun);
        packet.at.duration_since(begun).unwrap_or_default()
    }

    /// The packets of a phase, housekeeping of the link left out.
    pub fn in_phase(&self, phase: &str) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(move |packet| self.phase_of(packet) == phase && !packet.is_housekeeping())
    }

    /// The packets to any of these addresses.
    pub fn to(&self, targets: &[IpAddr]) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(|packet| packet.target().is_some_and(|to| targets.contains(&to)))
    }

    /// Fails if there is a packet that is neither the link's housekeeping nor `allowed` in its phase.
    ///
    /// # Errors
    /// With the first offenders of each phase.
    pub fn only(&self, allowed: impl Fn(&str, &Packet) -> bool) -> Result<()> {
        let mut text = String::new();
        let mut total = 0;
        for (index, (begun, phase)) in self.phases.iter().enumerate() {
            let end = self.phases.get(index + 1).map(|(end, _)| *end);
            let within = |packet: &&Packet| packet.at >= *begun && end.is_none_or(|end| packet.at < end);
            let bad = |packet: &&Packet| !packet.is_housekeeping() && !allowed(phase, packet);
            let bad: Vec<&Packet> = self.packets.iter().filter(within).filter(bad).collect();
            if bad.is_empty() {
                continue;
            }
            total += bad.len();
            text += &format!("«{phase}»: {} packets\n", bad.len());
            let last = bad.len().saturating_sub(1).max(SHOWN);
            for packet in bad.iter().take(SHOWN).chain(bad.get(last)) {
                let after = packet.at.duration_since(*begun).unwrap_or_default();
                text += &format!("    after {:.4} s: {packet}\n", after.as_secs_f64());
            }
        }
        if total > 0 {
            bail!("{total} of {} packets should not be on the wire\n{text}", self.packets.len());
        }
        Ok(())
    }
}

/// One captured packet.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Where it was captured.
    pub link: String,
    /// When.
    pub at: SystemTime,
    /// What it is.
    pub protocol: Protocol,
    /// Source and destination, if it has any.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The first bytes of what UDP carries.
    payload: [u8; 4],
}

/// What a packet is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// ARP.
    Arp,
    /// UDP with its ports: source, destination.
    Udp(u16, u16),
    /// TCP with its ports: source, destination.
    Tcp(u16, u16),
    /// ICMP with its type.
    Icmp4(u8),
    /// ICMPv6 with its type.
    Icmp6(u8),
    /// IGMP.
    Igmp,
    /// Another protocol above IP by its number, or a fragment of a packet.
    Ip(u8),
    /// Another protocol above Ethernet by its number, or a broken packet.
    Ethernet(u16),
}

impl Packet {
    /// Where it goes.
    pub fn target(&self) -> Option<IpAddr> {
        self.addresses.map(|(_, target)| target)
    }

    /// Whether it serves the link itself: ARP, neighbour and router discovery, multicast listeners, DHCP, and whatever
    /// goes to an address that means nothing beyond the link.
    pub fn is_housekeeping(&self) -> bool {
        if let Some(IpAddr::V6(to)) = self.target()
            && to.is_unicast_link_local()
        {
            return true;
        }
        match self.protocol {
            Protocol::Arp | Protocol::Igmp => true,
            // RFC 2710 and RFC 3810, RFC 4861 section 4.
            Protocol::Icmp6(kind) => matches!(kind, 130..=137 | 143),
            Protocol::Udp(68, 67) | Protocol::Udp(546, 547) => true,
            _ => false,
        }
    }

    /// Whether it is a WireGuard message between two ends that both use `port`.
    pub fn is_tunnel(&self, port: u16) -> bool {
        // A type of 1 to 4, and three reserved zeros (whitepaper, section 5.4).
        self.protocol == Protocol::Udp(port, port) && matches!(self.payload, [1..=4, 0, 0, 0])
    }

    fn parse(link: &str, at: SystemTime, frame: &[u8]) -> Self {
        let ethernet = frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let mut packet = Self {
            link: link.to_owned(),
            at,
            protocol: if ethernet == ARP { Protocol::Arp } else { Protocol::Ethernet(ethernet) },
            addresses: None,
            payload: [0; 4],
        };
        // What the snapshot length has cut is still told by its headers.
        let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return packet.by_ip_header(frame) };
        match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                packet.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                packet.protocol = Protocol::Ip(header.protocol().0);
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                packet.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                packet.protocol = Protocol::Ip(ip.payload().ip_number.0);
            }
            _ => return packet,
        }
        match &sliced.transport {
            Some(TransportSlice::Udp(udp)) => {
                packet.protocol = Protocol::Udp(udp.source_port(), udp.destination_port());
                packet.payload = udp.payload().first_chunk().copied().unwrap_or_default();
            }
            Some(TransportSlice::Tcp(tcp)) => {
                packet.protocol = Protocol::Tcp(tcp.source_port(), tcp.destination_port());
            }
            Some(TransportSlice::Icmpv4(icmp)) => packet.protocol = Protocol::Icmp4(icmp.type_u8()),
            Some(TransportSlice::Icmpv6(icmp)) => packet.protocol = Protocol::Icmp6(icmp.type_u8()),
            _ if packet.protocol == Protocol::Ip(IGMP) => packet.protocol = Protocol::Igmp,
            _ => {}
        }
        packet
    }

    /// UDP and addresses of a frame that was cut: its lengths do not fit, but the headers are there.
    fn by_ip_header(mut self, frame: &[u8]) -> Self {
        let octets = |at: usize| frame.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()).copied();
        let long = |at: usize| frame.get(at..at + 16).and_then(|bytes| bytes.first_chunk::<16>()).copied();
        let port = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let (number, transport) = match self.protocol {
            Protocol::Ethernet(IPV4) => {
                self.addresses = octets(26).zip(octets(30)).map(|(from, to)| (from.into(), to.into()));
                let length = usize::from(frame.get(14).copied().unwrap_or_default() & 15) * 4;
                (frame.get(23).copied(), 14 + length)
            }
            Protocol::Ethernet(IPV6) => {
                self.addresses = long(22).zip(long(38)).map(|(from, to)| (from.into(), to.into()));
                (frame.get(20).copied(), 54)
            }
            _ => return self,
        };
        self.protocol = Protocol::Ip(number.unwrap_or_default());
        if let (Protocol::Ip(17), Some(from), Some(to)) = (self.protocol, port(transport), port(transport + 2)) {
            self.protocol = Protocol::Udp(from, to);
            self.payload = octets(transport + 8).unwrap_or_default();
        }
        if let (Protocol::Ip(6), Some(from), Some(to)) = (self.protocol, port(transport), port(transport + 2)) {
            self.protocol = Protocol::Tcp(from, to);
        }
        self
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.link, self.protocol)?;
        if let Some((from, to)) = self.addresses {
            write!(f, " {from} > {to}")?;
        }
        Ok(())
    }
}

/// The complete records of a capture file (pcap-savefile(5)) in this machine's byte order, Ethernet, microseconds.
fn records(bytes: &[u8]) -> Result<Vec<(SystemTime, &[u8])>> {
    let number =
        |at: usize| bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).copied().map(u32::from_ne_bytes);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    ensure!(number(0) == Some(0xa1b2_c3d4) && number(20) == Some(1), "no capture of Ethernet in microseconds");
    let (mut at, mut found) = (24, Vec::new());
    while let (Some(seconds), Some(micros), Some(length)) = (number(at), number(at + 4), number(at + 8)) {
        let Some(frame) = bytes.get(at + 16..at + 16 + length as usize) else { break };
        let time = UNIX_EPOCH + Duration::from_secs(seconds.into()) + Duration::from_micros(micros.into());
        found.push((time, frame));
        at += 16 + length as usize;
    }
    Ok(found)
}

/// Waits until `capture` has seen a packet for which `wanted` holds.
///
/// # Errors
/// If it does not within `timeout`.
pub fn sees(capture: &Capture, what: &str, timeout: Duration, wanted: impl Fn(&Packet) -> bool) -> Result<()> {
    eventually(what, timeout, || capture.seen().is_ok_and(|seen| seen.packets.iter().any(&wanted)))
}

/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// Protocol number (RFC 3376 section 4).
const IGMP: u8 = 2;

/// Bytes of each packet that are kept: all headers, and the beginning of what they carry.
const SNAPLEN: &str = "192";

/// Packets wait here while the machine does something else.
const BUFFER_KIB: &str = "16384";

/// Offenders of each phase that are shown, besides the last one.
const SHOWN: usize = 6;

const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8], ports: (u16, u16)) -> Packet {
        let builder = etherparse::PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([198, 51, 100, 1], [203, 0, 113, 1], 64)
            .udp(ports.0, ports.1);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        let mut file = Vec::new();
        for number in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 192, 1, 1000, 7, bytes.len() as u32, bytes.len() as u32] {
            file.extend(number.to_ne_bytes());
        }
        file.extend(&bytes);
        // A record that is still being written.
        file.extend([0; 9]);
        let records = records(&file).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].0, UNIX_EPOCH + Duration::from_secs(1000) + Duration::from_micros(7));
        let cut = Packet::parse("x", records[0].0, &records[0].1[..50]);
        let whole = Packet::parse("x", records[0].0, records[0].1);
        assert_eq!((cut.protocol, cut.addresses, cut.payload), (whole.protocol, whole.addresses, whole.payload));
        whole
    }

    #[test]
    fn messages_of_the_tunnel_are_told_from_everything_else() {
        let data = [4, 0, 0, 0, 9, 9, 9, 9, 9];
        assert!(frame(&data, (51820, 51820)).is_tunnel(51820));
        assert!(!frame(&data, (40000, 51820)).is_tunnel(51820), "another socket");
        assert!(!frame(b"plain text", (51820, 51820)).is_tunnel(51820), "not WireGuard");
        let dhcp = frame(&data, (68, 67));
        assert!(dhcp.is_housekeeping() && !dhcp.is_tunnel(51820));
        assert_eq!(dhcp.target(), Some("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn offenders_are_reported_with_their_phase() {
        let mut packet = frame(b"plain text", (1, 2));
        let begun = packet.at;
        packet.at += Duration::from_secs(2);
        let phases = vec![(begun, "calm".to_owned()), (begun + Duration::from_secs(1), "storm".to_owned())];
        let seen = Seen { packets: vec![packet], phases };
        let error = seen.only(|_, _| false).unwrap_err().to_string();
        assert!(error.contains("«storm»: 1 packets") && error.contains("Udp(1, 2)"), "{error}");
        seen.only(|phase, _| phase == "storm").unwrap();
        assert_eq!((seen.in_phase("storm").count(), seen.in_phase("calm").count()), (1, 0));
    }
}
