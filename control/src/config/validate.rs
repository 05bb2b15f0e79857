//! From located texts to a [`Config`]: the rules that all formats share.
//!
//! Every value is looked at, whatever is wrong with the others, so that one run tells everything. What follows from
//! several values together is the business of `coverage`. Costs grow linearly with the file.

use std::collections::HashMap;

use adit_core::PublicKey;
use ipnet::IpNet;

use super::Format;
use super::coverage::{Coverage, Located};
use super::diagnostic::{Finding, Report};
use super::endpoint::{Endpoint, Host};
use super::model::{Config, Interface, Peer};
use super::schema::{Entry, Key, Section, SectionKind};
use super::value::{self, Remark, Remarked};

/// Checks the sections of one file. `None` comes with at least one error in the report.
pub(super) fn validate<'s>(sections: &'s [Section<'s>], format: Format, report: &mut Report) -> Option<Config> {
    let mut validator = Validator { format, report, coverage: Coverage::default() };
    let own_section = sections.iter().find(|section| section.kind == SectionKind::Interface);
    if own_section.is_none() {
        let message = format!("there is no {} section", SectionKind::Interface.name(format));
        validator.report.error(Finding::whole(message));
    }
    let own_section = own_section.filter(|section| !section.unreadable);
    let interface = own_section.and_then(|section| validator.interface(section));
    let own_key = interface.as_ref().and_then(|interface| Some(interface.private_key.as_ref()?.public_key()));
    let mut claims = Claims { own_key, ..Claims::default() };
    let mut peers = Vec::with_capacity(sections.len().saturating_sub(1));
    for section in sections.iter().filter(|section| section.kind == SectionKind::Peer && !section.unreadable) {
        peers.extend(validator.peer(section, &mut claims));
    }
    let Validator { report, coverage, .. } = validator;
    coverage.contradictions(format, report);
    if let (Some(section), Some(interface), false) = (own_section, &interface, report.failed()) {
        coverage.surprises(interface, section, format, report);
    }
    interface.filter(|_| !report.failed()).map(|interface| Config { interface, peers })
}

struct Validator<'s, 'r> {
    format: Format,
    report: &'r mut Report,
    /// What the rules between keys need of the values.
    coverage: Coverage<'s>,
}

/// What peers have claimed, and where.
#[derive(Default)]
struct Claims {
    own_key: Option<PublicKey>,
    keys: HashMap<PublicKey, usize>,
    /// The peer's number and the place of the prefix.
    nets: HashMap<IpNet, (usize, usize)>,
}

/// A value that a section has once.
struct Once<T> {
    value: Option<T>,
    /// Where it stood first, valid or not.
    first: Option<usize>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { value: None, first: None }
    }
}

impl<'s> Validator<'s, '_> {
    fn interface(&mut self, section: &'s Section<'s>) -> Option<Interface> {
        let mut private_key = Once::default();
        let (mut listen_port, mut fwmark, mut mtu) = (Once::default(), Once::default(), Once::default());
        let (mut table, mut save_config) = (Once::default(), Once::default());
        let (mut exclude_local, mut kill_switch) = (Once::default(), Once::default());
        let mut addresses: HashMap<IpNet, usize> = HashMap::new();
        let mut excluded: HashMap<IpNet, usize> = HashMap::new();
        let mut interface = Interface::new(None);
        let mut dns_at = None;
        for entry in &section.entries {
            let text = entry.text.as_ref();
            match entry.key {
                Key::PrivateKey => self.once(&mut private_key, section, entry, value::key(text)),
                Key::ListenPort => self.once(&mut listen_port, section, entry, value::listen_port(text)),
                Key::FwMark => self.once(&mut fwmark, section, entry, value::fwmark(text)),
                Key::Mtu => self.once(&mut mtu, section, entry, value::mtu(text)),
                Key::Table => self.once(&mut table, section, entry, value::table(text)),
                Key::SaveConfig => self.once(&mut save_config, section, entry, value::flag(text)),
                Key::ExcludeLocalNetworks => self.once(&mut exclude_local, section, entry, value::switch(text)),
                Key::KillSwitch => self.once(&mut kill_switch, section, entry, value::switch(text)),
                Key::Address => {
                    let address = self.checked(section, entry, value::address(text));
                    interface.addresses.extend(address.filter(|net| self.is_new(section, entry, *net, &mut addresses)));
                }
                Key::ExcludedIps => {
                    if let Some(net) = self.checked(section, entry, value::listed_prefix(text))
                        && self.is_new(section, entry, net, &mut excluded)
                    {
                        interface.excluded_ips.push(net);
                        self.coverage.excluded.push(Located { value: net, section, entry });
                    }
                }
                Key::Dns => {
                    dns_at.get_or_insert(entry);
                    interface.dns.extend(self.checked(section, entry, value::dns_server(text)));
                }
                Key::DnsSearch => {
                    dns_at.get_or_insert(entry);
                    interface.dns_search.extend(self.checked(section, entry, value::search_domain(text)));
                }
                Key::PreUp => self.hook(&mut interface.pre_up, section, entry),
                Key::PostUp => self.hook(&mut interface.post_up, section, entry),
                Key::PreDown => self.hook(&mut interface.pre_down, section, entry),
                Key::PostDown => self.hook(&mut interface.post_down, section, entry),
                // Readers put the keys of a peer into a peer's section only.
                Key::PublicKey | Key::PresharedKey | Key::AllowedIps | Key::Endpoint | Key::PersistentKeepalive => {}
            }
        }
        // A host that embeds the engine applies them, and so does the command on macOS.
        if let Some(entry) = dns_at.filter(|_| cfg!(target_os = "linux")) {
            let message = "the `adit` command does not apply DNS settings on Linux yet, the system keeps its resolvers";
            self.report.warning(self.finding(section, entry, message));
        }
        if let (Some(bytes @ ..1280), Some(at)) = (mtu.value, mtu.first)
            && interface.addresses.iter().any(|address| address.addr().is_ipv6())
        {
            let message =
                format!("IPv6 needs an MTU of at least 1280 bytes, with {bytes} the system drops its IPv6 addresses");
            let key = section.key_name(self.format, Key::Mtu, None);
            self.report.warning(Finding::at(at, message).key(key));
        }
        if private_key.first.is_none() && !section.spoilt.contains(&Key::PrivateKey) {
            // wg-quick(8) suggests `PostUp = wg set %i private-key FILE` for keys that are not to be in the file.
            let set_by_hook = |hook: &String| hook.contains("private-key");
            if ![&interface.pre_up, &interface.post_up].into_iter().flatten().any(set_by_hook) {
                let message =
                    "the private key is missing: no peer is reached until `wg set` gives one to the interface";
                let name = section.key_name(self.format, Key::PrivateKey, None);
                self.report.warning(Finding::at(section.offset, message).key(name));
            }
        }
        interface.private_key = private_key.value;
        interface.listen_port = listen_port.value;
        interface.fwmark = fwmark.value;
        interface.mtu = mtu.value;
        interface.table = table.value.unwrap_or_default();
        interface.exclude_local_networks = exclude_local.value;
        interface.kill_switch = kill_switch.value.unwrap_or_default();
        interface.save_config = save_config.value.unwrap_or_default();
        Some(interface)
    }

    fn peer(&mut self, section: &'s Section<'s>, claims: &mut Claims) -> Option<Peer> {
        let mut public_key = Once::default();
        let (mut named_by, mut reached_at) = (None, None);
        let mut preshared_key = Once::default();
        let (mut endpoint, mut keepalive) = (Once::default(), Once::default());
        let mut allowed_ips = Vec::new();
        for entry in &section.entries {
            let text = entry.text.as_ref();
            match entry.key {
                Key::PublicKey => {
                    named_by = Some(entry);
                    self.once(&mut public_key, section, entry, value::key(text));
                }
                Key::PresharedKey => self.once(&mut preshared_key, section, entry, value::preshared_key(text)),
                Key::Endpoint => {
                    reached_at = Some(entry);
                    self.once(&mut endpoint, section, entry, value::endpoint(text));
                }
                Key::PersistentKeepalive => self.once(&mut keepalive, section, entry, value::keepalive(text)),
                Key::AllowedIps => {
                    if let Some(net) = self.checked(section, entry, value::listed_prefix(text))
                        && self.claim_net(section, entry, net, claims)
                    {
                        allowed_ips.push(net);
                        self.coverage.allowed.push(Located { value: net, section, entry });
                    }
                }
                // Readers put the keys of an interface into the interface's section only.
                _ => {}
            }
        }
        if public_key.first.is_none() && !section.spoilt.contains(&Key::PublicKey) {
            self.missing(section, Key::PublicKey, "the public key of this peer is missing");
        }
        if let (Some(entry), Some(Endpoint { host: Host::Ip(ip), .. })) = (reached_at, &endpoint.value) {
            self.coverage.endpoints.push(Located { value: *ip, section, entry });
        }
        let public_key = public_key.value?;
        if let Some(entry) = named_by {
            self.claim_key(section, entry, public_key, claims);
        }
        Some(Peer {
            public_key,
            preshared_key: preshared_key.value.flatten(),
            allowed_ips,
            endpoint: endpoint.value,
            persistent_keepalive: keepalive.value,
        })
    }

    fn claim_key(&mut self, section: &Section<'_>, entry: &Entry<'_>, key: PublicKey, claims: &mut Claims) {
        if claims.own_key == Some(key) {
            let message = "this is the interface's own key, with which no handshake succeeds";
            self.report.warning(self.finding(section, entry, message));
        }
        match claims.keys.get(&key) {
            Some(&first) => {
                let message = format!("a peer is listed twice: the key {} has its section already,", key.short());
                self.report.error(self.finding(section, entry, message).related(first));
            }
            None => {
                claims.keys.insert(key, entry.offset);
            }
        }
    }

    /// Whether the prefix is new to this peer.
    fn claim_net(&mut self, section: &Section<'_>, entry: &Entry<'_>, net: IpNet, claims: &mut Claims) -> bool {
        match claims.nets.insert(net, (section.index, entry.offset)) {
            None => true,
            Some((peer, first)) if peer == section.index => {
                self.repeated(section, entry, first);
                false
            }
            Some((_, first)) => {
                let message = format!("{net} is allowed to two peers and goes to this one, the last; the other has it");
                self.report.warning(self.finding(section, entry, message).related(first));
                true
            }
        }
    }

    /// Whether the prefix is new to the interface's list.
    fn is_new(
        &mut self,
        section: &Section<'_>,
        entry: &Entry<'_>,
        net: IpNet,
        listed: &mut HashMap<IpNet, usize>,
    ) -> bool {
        if let Some(&first) = listed.get(&net) {
            self.repeated(section, entry, first);
            return false;
        }
        listed.insert(net, entry.offset);
        true
    }

    fn hook(&mut self, hooks: &mut Vec<String>, section: &Section<'_>, entry: &Entry<'_>) {
        let hook = self.checked(section, entry, value::hook(&entry.text));
        hooks.extend(hook.filter(|hook| !hook.is_empty()));
    }

    fn once<T>(
        &mut self,
        slot: &mut Once<T>,
        section: &Section<'_>,
        entry: &Entry<'_>,
        parsed: Result<Remarked<T>, Remark>,
    ) {
        match slot.first {
            // wg(8) and wg-quick(8) take the last one without a word.
            Some(first) => {
                let message = "set more than once, the last one counts; it was set";
                self.report.warning(self.finding(section, entry, message).related(first));
            }
            None => slot.first = Some(entry.offset),
        }
        if let Some(value) = self.checked(section, entry, parsed) {
            slot.value = Some(value);
        }
    }

    fn checked<T>(
        &mut self,
        section: &Section<'_>,
        entry: &Entry<'_>,
        parsed: Result<Remarked<T>, Remark>,
    ) -> Option<T> {
        match parsed {
            Ok((value, None)) => Some(value),
            Ok((value, Some(remark))) => {
                self.report.warning(self.remark(section, entry, remark));
                Some(value)
            }
            Err(remark) => {
                self.report.error(self.remark(section, entry, remark));
                None
            }
        }
    }

    fn repeated(&mut self, section: &Section<'_>, entry: &Entry<'_>, first: usize) {
        self.report.warning(
            self.finding(section, entry, "listed twice, it is there already").found(&entry.text).related(first),
        );
    }

    fn missing(&mut self, section: &Section<'_>, key: Key, message: &str) {
        let name = section.key_name(self.format, key, None);
        self.report.error(Finding::at(section.offset, message).key(name));
    }

    fn remark(&self, section: &Section<'_>, entry: &Entry<'_>, remark: Remark) -> Finding {
        let mut finding = self.finding(section, entry, remark.message).suggest(remark.suggestion);
        if !entry.key.is_secret() {
            finding = finding.found(&entry.text);
        }
        match remark.allowed {
            Some(allowed) => finding.allowed(allowed),
            None => finding,
        }
    }

    fn finding(&self, section: &Section<'_>, entry: &Entry<'_>, message: impl Into<String>) -> Finding {
        Finding::at(entry.offset, message).key(section.key_name(self.format, entry.key, entry.index))
    }
}
