//! The keys of a configuration: one list that readers, writers and messages share.
//!
//! Also the form in which every reader hands its findings to the validator: sections of located texts, in which nothing
//! is known yet but which key each text belongs to.

use std::borrow::Cow;

use super::Format;

/// What kind of section a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionKind {
    Interface,
    Peer,
}

/// What TOML and JSON write a key's value as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Texts,
    Number,
    NumberOrText,
    Flag,
}

/// One value as it was written: an element of a list has an entry of its own.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Key,
    pub(super) text: Cow<'a, str>,
    /// Where the value starts, in bytes.
    pub(super) offset: usize,
    /// Its place in a list of TOML or JSON.
    pub(super) index: Option<usize>,
}

/// A section as it was written.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) kind: SectionKind,
    /// Its place among the peers.
    pub(super) index: usize,
    /// Where it starts, in bytes.
    pub(super) offset: usize,
    pub(super) entries: Vec<Entry<'a>>,
    /// Keys that are there with a value that cannot be one: told already, and not missing.
    pub(super) spoilt: Vec<Key>,
    /// The section itself is there and cannot be one: told already.
    pub(super) unreadable: bool,
}

/// Declares the keys once, with the names they have in the two spellings.
macro_rules! keys {
    ($($key:ident: $section:ident $conf:literal $document:literal $shape:ident,)+) => {
        /// A key that a configuration can have.
        #[allow(clippy::enum_variant_names, reason = "some of the keys are keys")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Key {
            $($key,)+
        }

        impl Key {
            pub(super) const ALL: &'static [Self] = &[$(Self::$key,)+];

            pub(super) fn section(self) -> SectionKind {
                match self { $(Self::$key => SectionKind::$section,)+ }
            }

            /// The name in a wg-quick file.
            pub(super) fn conf_name(self) -> &'static str {
                match self { $(Self::$key => $conf,)+ }
            }

            /// The name in TOML and JSON.
            pub(super) fn document_name(self) -> &'static str {
                match self { $(Self::$key => $document,)+ }
            }

            pub(super) fn shape(self) -> Shape {
                match self { $(Self::$key => Shape::$shape,)+ }
            }
        }
    };
}

keys! {
    PrivateKey: Interface "PrivateKey" "private_key" Text,
    ListenPort: Interface "ListenPort" "listen_port" Number,
    FwMark: Interface "FwMark" "fwmark" NumberOrText,
    Address: Interface "Address" "addresses" Texts,
    Dns: Interface "DNS" "dns" Texts,
    // A wg-quick file has both in one key, of which the reader makes two.
    DnsSearch: Interface "DNS" "dns_search" Texts,
    Mtu: Interface "MTU" "mtu" Number,
    Table: Interface "Table" "table" NumberOrText,
    ExcludedIps: Interface "ExcludedIPs" "excluded_ips" Texts,
    ExcludeLocalNetworks: Interface "ExcludeLocalNetworks" "exclude_local_networks" Flag,
    KillSwitch: Interface "KillSwitch" "kill_switch" Flag,
    PreUp: Interface "PreUp" "pre_up" Texts,
    PostUp: Interface "PostUp" "post_up" Texts,
    PreDown: Interface "PreDown" "pre_down" Texts,
    PostDown: Interface "PostDown" "post_down" Texts,
    SaveConfig: Interface "SaveConfig" "save_config" Flag,
    PublicKey: Peer "PublicKey" "public_key" Text,
    PresharedKey: Peer "PresharedKey" "preshared_key" Text,
    AllowedIps: Peer "AllowedIPs" "allowed_ips" Texts,
    Endpoint: Peer "Endpoint" "endpoint" Text,
    PersistentKeepalive: Peer "PersistentKeepalive" "persistent_keepalive" NumberOrText,
}

impl Key {
    /// The key of a wg-quick file; wg(8) and wg-quick(8) do not mind the case.
    pub(super) fn from_conf(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.conf_name().eq_ignore_ascii_case(name))
    }

    /// Whether messages must not show the value.
    pub(super) fn is_secret(self) -> bool {
        // A public key is none, but is where a private key is pasted by mistake.
        matches!(self, Self::PrivateKey | Self::PresharedKey | Self::PublicKey)
    }
}

impl SectionKind {
    /// The section's name as it is written in a format.
    pub(super) fn name(self, format: Format) -> &'static str {
        match (self, format) {
            (Self::Interface, Format::Conf) => "[Interface]",
            (Self::Peer, Format::Conf) => "[Peer]",
            (Self::Interface, Format::Toml | Format::Json) => "interface",
            (Self::Peer, Format::Toml | Format::Json) => "peer",
        }
    }
}

impl Section<'_> {
    pub(super) fn new(kind: SectionKind, index: usize, offset: usize) -> Self {
        Self { kind, index, offset, entries: Vec::new(), spoilt: Vec::new(), unreadable: false }
    }

    /// The name of a key of this section in messages.
    pub(super) fn key_name(&self, format: Format, key: Key, index: Option<usize>) -> String {
        if format == Format::Conf {
            return key.conf_name().to_owned();
        }
        let section = match self.kind {
            SectionKind::Interface => "interface".to_owned(),
            SectionKind::Peer => format!("peer[{}]", self.index),
        };
        match index {
            Some(index) => format!("{section}.{}[{index}]", key.document_name()),
            None => format!("{section}.{}", key.document_name()),
        }
    }
}
