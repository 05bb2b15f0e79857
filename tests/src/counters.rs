//! What the kernel counts: packets of a device, and everything in `/proc/net`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Namespace;

/// What a device has carried; of a tun device, «in» is what its program has written, and «out» what it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Bytes in.
    pub in_bytes: u64,
    /// Packets in; a joined one is one.
    pub in_packets: u64,
    /// Bytes out.
    pub out_bytes: u64,
    /// Packets out; one that is not split yet is one.
    pub out_packets: u64,
    /// Packets that the device had no room for.
    pub out_dropped: u64,
}

impl Link {
    /// Asks the kernel of `at` about the device `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(at: &Namespace, name: &str) -> Result<Self> {
        let text = at.ip(&format!("-s -j link show {name}"))?;
        let json: Value = serde_json::from_str(&text)?;
        let number = |pointer: &str| {
            let number = json.pointer(&format!("/0/stats64/{pointer}")).and_then(Value::as_u64);
            number.with_context(|| format!("no {pointer} in {text}"))
        };
        Ok(Self {
            in_bytes: number("rx/bytes")?,
            in_packets: number("rx/packets")?,
            out_bytes: number("tx/bytes")?,
            out_packets: number("tx/packets")?,
            out_dropped: number("tx/dropped")?,
        })
    }

    /// Bytes of a packet in on the average since `before`; 0 if there was none.
    pub fn mean_in(&self, before: &Self) -> u64 {
        (self.in_bytes - before.in_bytes) / (self.in_packets - before.in_packets).max(1)
    }

    /// Bytes of a packet out on the average since `before`; 0 if there was none.
    pub fn mean_out(&self, before: &Self) -> u64 {
        (self.out_bytes - before.out_bytes) / (self.out_packets - before.out_packets).max(1)
    }
}

/// A counter of the kernel of `at` by its name, such as `InECT0Pkts` or `Ip6InECT0Pkts`.
///
/// # Errors
/// If there is none.
pub fn kernel(at: &Namespace, name: &str) -> Result<u64> {
    let text = at.exec("cat", ["/proc/net/snmp", "/proc/net/netstat", "/proc/net/snmp6"])?;
    find(&text, name).with_context(|| format!("no counter {name} in {text}"))
}

/// IPv4's counters are in two lines, names and numbers, IPv6's have a line each.
fn find(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let in_pairs = lines.windows(2).find_map(|pair| {
        let [names, numbers] = pair else { return None };
        let index = names.iter().position(|found| *found == name)?;
        numbers.get(index).filter(|_| index > 0 && names.first() == numbers.first())
    });
    let alone = lines.iter().find(|line| line.first() == Some(&name)).and_then(|line| line.get(1));
    in_pairs.or(alone)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_in_either_form() {
        let text = "Udp: InDatagrams RcvbufErrors\nUdp: 7 9\nIp6InECT0Pkts      \t5\n";
        assert_eq!(find(text, "RcvbufErrors"), Some(9));
        assert_eq!(find(text, "InDatagrams"), Some(7));
        assert_eq!(find(text, "Ip6InECT0Pkts"), Some(5));
        assert_eq!(find(text, "InECT0Pkts"), None);
        assert_eq!(find(text, "Udp:"), None);
    }
}
