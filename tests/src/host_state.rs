//! Everything of a host that a tunnel may change, as text, to be compared byte for byte.
//!
//! It is what a person would look at: `ip`, `nft` and `sysctl`. Left out is only what the kernel counts by itself.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::netns::Namespace;
use crate::process;

/// A snapshot of a host's network settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    sections: Vec<(&'static str, String)>,
}

impl HostState {
    /// Takes a snapshot of rules, routes of all tables, addresses, links, nftables and sysctls below `net.`.
    ///
    /// # Errors
    /// If one of the programs fails.
    pub fn of(host: &Namespace) -> Result<Self> {
        let mut sections = Vec::new();
        for words in ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "addr", "link"] {
            sections.push((words, without_lifetimes(&host.ip(words)?)));
        }
        sections.push(("nft list ruleset", host.exec("nft", ["list", "ruleset"])?));
        // Some parameters can only be written; sysctl(8) tells so and fails.
        let all = process::finish(host.command("sysctl").args(["-a", "-r", r"^net\."]), "", process::RUN_LIMIT)?.stdout;
        let counted = |line: &&str| !COUNTERS.iter().any(|counter| line.starts_with(counter));
        let kept: String = all.lines().filter(counted).fold(String::new(), |text, line| text + line + "\n");
        ensure!(kept.contains("net.ipv4.conf.all.src_valid_mark"), "`sysctl -a` printed no parameters: {all}");
        sections.push(("sysctl -a", kept));
        Ok(Self { sections })
    }

    /// The sections in which the two differ, each line that is gone after a `-` and each that is new after a `+`; empty
    /// if they are equal.
    pub fn difference(&self, later: &Self) -> String {
        let mut text = String::new();
        for ((title, before), (_, after)) in self.sections.iter().zip(&later.sections) {
            if before == after {
                continue;
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {title}");
            let (gone, new) = (only(before, after), only(after, before));
            if gone.is_empty() && new.is_empty() {
                let _ = writeln!(text, "the same lines in another order, before:\n{before}after:\n{after}");
            }
            for (sign, lines) in [('-', gone), ('+', new)] {
                for line in lines {
                    let _ = writeln!(text, "{sign} {line}");
                }
            }
        }
        text
    }

    /// Fails unless the host is as it was, byte for byte.
    ///
    /// # Errors
    /// With the difference.
    pub fn ensure_unchanged(&self, host: &Namespace) -> Result<()> {
        let difference = self.difference(&Self::of(host)?);
        ensure!(difference.is_empty(), "{} is not as it was:\n{difference}", host.name());
        Ok(())
    }
}

/// The text without the seconds for which an address or a route is still valid.
fn without_lifetimes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let mut drop_next = false;
        let mut words = line.split(' ').filter(|word| {
            let lifetime = matches!(*word, "expires" | "valid_lft" | "preferred_lft");
            !std::mem::replace(&mut drop_next, lifetime) || *word == "forever"
        });
        if let Some(first) = words.next() {
            kept.push_str(first);
        }
        for word in words {
            kept.push(' ');
            kept.push_str(word);
        }
        kept.push('\n');
    }
    kept
}

/// The lines of `one` that `other` has not, or fewer times.
fn only<'a>(one: &'a str, other: &str) -> Vec<&'a str> {
    let mut others: Vec<&str> = other.lines().collect();
    let mut left = Vec::new();
    for line in one.lines() {
        match others.iter().position(|found| *found == line) {
            Some(index) => drop(others.swap_remove(index)),
            None => left.push(line),
        }
    }
    left
}

/// Parameters that the kernel changes by itself.
const COUNTERS: [&str; 1] = ["net.netfilter.nf_conntrack_count"];

#[cfg(test)]
mod tests {
    use super::*;

    fn state(rules: &str) -> HostState {
        HostState { sections: vec![("-4 rule", rules.to_owned()), ("addr", "same\n".to_owned())] }
    }

    #[test]
    fn a_difference_names_section_and_lines() {
        let before = state("0: local\n5: mine\n5: mine\n");
        assert_eq!(before.difference(&before.clone()), "");
        let text = before.difference(&state("0: local\n5: mine\n9: theirs\n"));
        assert_eq!(text, "# -4 rule\n- 5: mine\n+ 9: theirs\n");
        assert!(before.difference(&state("5: mine\n5: mine\n0: local\n")).contains("another order"));
    }

    #[test]
    fn lifetimes_are_left_out_and_nothing_else() {
        let route = "default via fe80::1 dev x proto ra metric 1024 expires 1799sec hoplimit 64 pref medium\n";
        let expected = "default via fe80::1 dev x proto ra metric 1024 expires hoplimit 64 pref medium\n";
        assert_eq!(without_lifetimes(route), expected);
        let address = "       valid_lft forever preferred_lft forever\n";
        assert_eq!(without_lifetimes(address), address);
        assert_eq!(without_lifetimes("  a  b\n"), "  a  b\n");
    }
}
