//! Reads the format of wg(8) and wg-quick(8).
//!
//! Lines are taken apart as those two programs do it: `#` starts a comment anywhere, case and blanks around a key do
//! not matter, several `[Interface]` sections are one, and Address and DNS are separated by commas or blanks. What
//! they would pass over silently or misread (text before a section, an unknown key) is an error here. Nothing of a
//! line that cannot be understood is shown: it may be a piece of a key.

use std::borrow::Cow;

use super::Format;
use super::diagnostic::{Finding, Report};
use super::schema::{Entry, Key, Section, SectionKind};
use super::suggest::nearest;
use super::value::{is_blank, is_dns_server};

/// Takes a text apart into sections, reporting what is no section and no key.
pub(super) fn read<'a>(text: &'a str, report: &mut Report) -> Vec<Section<'a>> {
    let mut reader = Reader { report, sections: Vec::new(), interface: None, peers: 0, current: Current::None };
    // Windows editors put a byte order mark in front of UTF-8.
    let mut offset = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    for line in text[offset..].split_inclusive('\n') {
        reader.line(line, offset);
        offset += line.len();
    }
    reader.sections
}

struct Reader<'a, 'r> {
    report: &'r mut Report,
    sections: Vec<Section<'a>>,
    /// Which of the sections is the interface.
    interface: Option<usize>,
    peers: usize,
    current: Current,
}

/// The section that lines belong to.
enum Current {
    /// There was none yet.
    None,
    /// One that is not known; its lines are not looked at.
    Unknown,
    /// One of the sections.
    Known(usize),
}

/// A piece of the text and where it starts.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Piece<'a> {
    fn trim(self) -> Self {
        let start = self.text.trim_start_matches(is_blank);
        let offset = self.offset + (self.text.len() - start.len());
        Self { text: start.trim_end_matches(is_blank), offset }
    }

    fn split(self, at: impl FnMut(char) -> bool) -> impl Iterator<Item = Self> {
        let mut offset = self.offset;
        self.text.split_inclusive(at).map(move |text| {
            let piece = Self { text, offset };
            offset += text.len();
            piece
        })
    }
}

impl<'a> Reader<'a, '_> {
    fn line(&mut self, line: &'a str, offset: usize) {
        let text = line.split('#').next().unwrap_or_default();
        let line = Piece { text, offset }.trim();
        if line.text.is_empty() {
            return;
        }
        if line.text.starts_with('[') {
            return self.header(line);
        }
        let section = match self.current {
            Current::Unknown => return,
            Current::None => None,
            Current::Known(index) => Some(index),
        };
        let Some((key, value)) = line.text.split_once('=') else {
            return self.no_assignment(line);
        };
        let value = Piece { text: value, offset: line.offset + key.len() + 1 }.trim();
        let name = squash(key);
        match (Key::from_conf(&name), section) {
            (Some(key), Some(index)) if key.section() == self.sections[index].kind => self.assign(index, key, value),
            (Some(key), Some(index)) => {
                let (here, there) = (self.sections[index].kind, key.section());
                let message =
                    format!("this key belongs to {}, not to {}", there.name(Format::Conf), here.name(Format::Conf));
                self.report.error(Finding::at(line.offset, message).key(key.conf_name()));
            }
            (Some(key), None) => {
                let message =
                    format!("this key stands before any section, write {} above it", key.section().name(Format::Conf));
                self.report.error(Finding::at(line.offset, message).key(key.conf_name()));
            }
            (None, _) => self.unknown_key(line.offset, &name, value, section),
        }
    }

    fn header(&mut self, line: Piece<'a>) {
        let name = squash(line.text);
        let kind = [SectionKind::Interface, SectionKind::Peer]
            .into_iter()
            .find(|kind| kind.name(Format::Conf).eq_ignore_ascii_case(&name));
        let Some(kind) = kind else {
            self.current = Current::Unknown;
            if self.report.omits_error() {
                return;
            }
            let suggestion = nearest(&name, ["[Interface]", "[Peer]"]);
            // `found` stays out: a header that is none may be anything.
            let finding = Finding::at(line.offset, "this is not a section").allowed("[Interface] and [Peer]");
            self.report.error(finding.suggest(suggestion));
            return;
        };
        if let (SectionKind::Interface, Some(index)) = (kind, self.interface) {
            self.current = Current::Known(index);
            return;
        }
        let index = self.sections.len();
        match kind {
            SectionKind::Interface => self.interface = Some(index),
            SectionKind::Peer => self.peers += 1,
        }
        let nth = self.peers.saturating_sub(1);
        self.sections.push(Section::new(kind, nth, line.offset));
        self.current = Current::Known(index);
    }

    fn assign(&mut self, section: usize, key: Key, value: Piece<'a>) {
        let entries = &mut self.sections[section].entries;
        let mut push = |key, text, offset| entries.push(Entry { key, text, offset, index: None });
        match key {
            Key::Address => {
                for piece in words(value) {
                    push(key, Cow::Borrowed(piece.text), piece.offset);
                }
            }
            Key::Dns | Key::DnsSearch => {
                for piece in words(value) {
                    let key = if is_dns_server(piece.text) { Key::Dns } else { Key::DnsSearch };
                    push(key, Cow::Borrowed(piece.text), piece.offset);
                }
            }
            // Empty takes all prefixes away, which is how a peer starts.
            Key::AllowedIps | Key::ExcludedIps if value.text.is_empty() => {}
            Key::AllowedIps | Key::ExcludedIps => {
                for piece in value.split(|char| char == ',') {
                    let piece = Piece { text: piece.text.trim_end_matches(','), ..piece }.trim();
                    push(key, squash_prefix(piece.text), piece.offset);
                }
                if value.text.ends_with(',') {
                    push(key, Cow::Borrowed(""), value.offset + value.text.len());
                }
            }
            // wg-quick takes an empty value of these for an absent one.
            Key::Mtu | Key::Table if value.text.is_empty() => {}
            Key::Mtu | Key::Table | Key::SaveConfig | Key::ExcludeLocalNetworks | Key::KillSwitch => {
                push(key, Cow::Borrowed(value.text), value.offset);
            }
            Key::PreUp | Key::PostUp | Key::PreDown | Key::PostDown => {
                push(key, Cow::Borrowed(value.text), value.offset);
            }
            Key::PrivateKey
            | Key::ListenPort
            | Key::FwMark
            | Key::PublicKey
            | Key::PresharedKey
            | Key::Endpoint
            | Key::PersistentKeepalive => push(key, squash(value.text), value.offset),
        }
    }

    fn no_assignment(&mut self, line: Piece<'_>) {
        let message = match line.text.chars().next() {
            Some(';') => "comments start with `#`, not with `;`",
            _ => "there is no `=` in this line",
        };
        let finding = Finding::at(line.offset, message);
        self.report.error(finding.allowed("`Key = Value`, `[Section]`, or a comment after `#`"));
    }

    fn unknown_key(&mut self, offset: usize, name: &str, value: Piece<'_>, section: Option<usize>) {
        if self.report.omits_error() {
            return;
        }
        let begins = |key: &&Key| {
            name.get(..key.conf_name().len()).is_some_and(|start| start.eq_ignore_ascii_case(key.conf_name()))
        };
        if let (true, Some(key)) = (value.text.is_empty(), Key::ALL.iter().find(begins)) {
            // `PrivateKey AAAA…=`: the only `=` is the end of the base64 text.
            let finding = Finding::at(offset, "there is no `=` after the key").key(key.conf_name());
            return self.report.error(finding.allowed(format!("`{} = Value`", key.conf_name())));
        }
        let kind = section.map(|index| self.sections[index].kind);
        let known = Key::ALL.iter().filter(|key| kind.is_none_or(|kind| key.section() == kind));
        let suggestion = nearest(name, known.map(|key| key.conf_name()));
        let elsewhere = || nearest(name, Key::ALL.iter().map(|key| key.conf_name()));
        // A base64 text ends in `=`: a line without a value and without a likeness may be a piece of a key.
        let shown = name.len() <= LONGEST_KEY && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let message = match kind {
            Some(kind) => format!("unknown key in {}", kind.name(Format::Conf)),
            None => "unknown key, and no section above it".to_owned(),
        };
        let mut finding = Finding::at(offset, message);
        if let Some(other) = suggestion.is_none().then(elsewhere).flatten().and_then(Key::from_conf) {
            let hint = format!("{} in {}", other.conf_name(), other.section().name(Format::Conf));
            finding = finding.suggest(Some(hint));
        } else {
            finding = finding.suggest(suggestion);
        }
        if shown && !value.text.is_empty() {
            finding = finding.key(name);
        }
        self.report.error(finding);
    }
}

/// Words between commas and blanks, empty ones left out: what `${value//,/ }` gives wg-quick's shell.
fn words(value: Piece<'_>) -> impl Iterator<Item = Piece<'_>> {
    let between = |char: char| char == ',' || is_blank(char);
    let words = value.split(between).map(move |piece| Piece { text: piece.text.trim_end_matches(between), ..piece });
    words.filter(|piece| !piece.text.is_empty())
}

/// Removes all blanks, as wg(8) does with its lines.
fn squash(text: &str) -> Cow<'_, str> {
    if text.contains(is_blank) { Cow::Owned(text.replace(is_blank, "")) } else { Cow::Borrowed(text) }
}

/// Removes blanks within one prefix and leaves several prefixes apart, whose missing comma must be told.
fn squash_prefix(text: &str) -> Cow<'_, str> {
    match squash(text) {
        Cow::Owned(squashed) if squashed.parse::<ipnet::IpNet>().is_ok() => Cow::Owned(squashed),
        _ => Cow::Borrowed(text),
    }
}

/// The longest word that a message shows as a key, in bytes.
const LONGEST_KEY: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(Key, String, usize)> {
        let mut report = Report::default();
        let sections = read(text, &mut report);
        assert!(!report.failed(), "{:?}", report.finish("t", text));
        let entries = sections.into_iter().flat_map(|section| section.entries);
        entries.map(|entry| (entry.key, entry.text.into_owned(), entry.offset)).collect()
    }

    fn complaints(text: &str) -> String {
        let mut report = Report::default();
        read(text, &mut report);
        report.finish("t", text).unwrap_err().to_string()
    }

    #[test]
    fn lists_are_split_where_the_programs_split_them() {
        let text = "[Interface]\naddress=10.0.0.1/8,fd00::1/64  10.1.0.1/8,\nDNS = 1.1.1.1, a.example\n";
        let found = entries(text);
        let texts: Vec<_> = found.iter().map(|(key, text, _)| (*key, text.as_str())).collect();
        let expected = [
            (Key::Address, "10.0.0.1/8"),
            (Key::Address, "fd00::1/64"),
            (Key::Address, "10.1.0.1/8"),
            (Key::Dns, "1.1.1.1"),
            (Key::DnsSearch, "a.example"),
        ];
        assert_eq!(texts, expected);
        for (_, value, offset) in found {
            assert!(text[offset..].starts_with(&value), "{value} is at {offset}");
        }
    }

    #[test]
    fn sections_merge_and_blanks_vanish_as_in_wg() {
        let text = "\u{feff}[interface]\r\nListen Port = 51 820 # c\r\n[ PEER ]\r\nAllowedIPs = 10.0.0.0 / 8 , ::/0\r\n[Interface]\r\nMTU=\r\n";
        let found: Vec<_> = entries(text).into_iter().map(|(key, text, _)| (key, text)).collect();
        let expected = [(Key::ListenPort, "51820"), (Key::AllowedIps, "10.0.0.0/8"), (Key::AllowedIps, "::/0")];
        assert_eq!(found, expected.map(|(key, text)| (key, text.to_owned())));
    }

    #[test]
    fn pieces_of_keys_are_never_shown() {
        for text in
            ["bBmk=", "oK56DE9Ue9zK76rAc8pBl6opph", "PrivateKey oK56DE9Ue9zK76=", "[oK56DE9Ue9zK76", "oK56+DE9/Ue9 = a"]
        {
            for prefix in ["", "[Interface]\n", "[Peer]\n"] {
                let complaint = complaints(&format!("{prefix}{text}\n"));
                assert!(!complaint.contains("oK56") && !complaint.contains("bBmk"), "{complaint}");
            }
        }
    }
}
