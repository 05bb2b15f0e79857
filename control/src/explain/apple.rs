//! What an Apple system would do with a packet, if a packet tunnel provider had this configuration.
//!
//! It is core's model of Apple's rules and its findings, for a device in this host's networks: its connected networks and
//! other routes stand for those that the device would have. No Apple system is asked.

use std::net::IpAddr;

use adit_core::route::{
    AppleAssumptions, AppleDns, AppleLint, ApplePacket, ApplePlatform, AppleRule, AppleSettings, AppleStep,
    AppleUnderlay, AppleWay, SystemTable, decide_apple, lint_apple,
};
use serde::Serialize;

use super::Target;
use super::facts::Facts;
use super::subject::Subject;
use crate::config::Config;

/// What the configuration does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppleOptions {
    /// Which system.
    pub platform: ApplePlatform,
    /// `includeAllNetworks`; a kill switch is it as well.
    pub include_all_networks: bool,
    /// `enforceRoutes`.
    pub enforce_routes: bool,
}

/// What an Apple system would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppleExplanation {
    /// What was asked about.
    pub target: String,
    /// The system.
    pub os: &'static str,
    /// The settings that a provider would make.
    pub settings: AppleSettingsWords,
    /// An answer for every address.
    pub answers: Vec<AppleAnswer>,
    /// What is known not to do what it seems to say.
    pub findings: Vec<AppleFinding>,
    /// What holds for all of it.
    pub notes: Vec<String>,
}

/// The switches of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AppleSettingsWords {
    /// `includeAllNetworks`.
    pub include_all_networks: bool,
    /// `enforceRoutes`.
    pub enforce_routes: bool,
    /// `excludeLocalNetworks`.
    pub exclude_local_networks: bool,
}

/// Where packets to an address would go, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppleAnswer {
    /// The address.
    pub address: IpAddr,
    /// `tunnel`, `physical`, `host` or `dropped`.
    pub way: &'static str,
    /// That, as a sentence.
    pub summary: String,
    /// The rule that decides, and then all others that have something to say.
    pub rules: Vec<AppleStepWords>,
}

/// A rule that has something to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppleStepWords {
    /// What it is, for programs.
    pub kind: &'static str,
    /// What it says.
    pub way: &'static str,
    /// What it is, for people.
    pub text: String,
}

/// Something that is known to go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppleFinding {
    /// What it is, for programs.
    pub kind: &'static str,
    /// What happens, and what to do instead.
    pub text: String,
}

/// Explains where an Apple system would send packets.
#[must_use]
pub fn explain_apple(
    tunnel: &Subject,
    config: &Config,
    facts: &Facts,
    options: AppleOptions,
    target: &Target,
) -> AppleExplanation {
    let settings = settings(tunnel, config, options);
    let inputs = facts.inputs(tunnel);
    let table = SystemTable {
        on_link: inputs.connected,
        routes: inputs.main,
        addresses: inputs.underlay_addresses.iter().map(ipnet::IpNet::addr).collect(),
    };
    let has_ipv6_default = facts
        .ipv6
        .table(crate::settings::TABLE_MAIN)
        .iter()
        .any(|route| route.destination.prefix_len() == 0 && !route.kind.stops());
    let underlay = AppleUnderlay { platform: options.platform, has_ipv6_default, table };
    let mut notes = vec!["as if the device were in this host's networks, with the tunnel connected".to_owned()];
    let addresses = match target {
        Target::Address(ip) => vec![*ip],
        Target::Name(_, list) => list.clone(),
        Target::Prefix(net) => {
            notes.push(format!("of {net} only the first address is looked at"));
            vec![super::inside(*net)]
        }
    };
    let answers = addresses.into_iter().map(|ip| answer(ip, tunnel, &settings, &underlay.table)).collect();
    let findings = lint_apple(&settings, &underlay);
    if tunnel.routing.kill_switch {
        notes.push("KillSwitch = on is includeAllNetworks there".to_owned());
    }
    AppleExplanation {
        target: target.to_string(),
        os: match options.platform {
            ApplePlatform::Ios => "ios",
            ApplePlatform::MacOs => "macos",
        },
        settings: AppleSettingsWords {
            include_all_networks: settings.include_all_networks,
            enforce_routes: settings.enforce_routes,
            exclude_local_networks: settings.exclude_local_networks,
        },
        answers,
        findings: findings.iter().map(finding).collect(),
        notes,
    }
}

/// What a provider would tell the system for this configuration.
fn settings(tunnel: &Subject, config: &Config, options: AppleOptions) -> AppleSettings {
    let interface = &config.interface;
    let dns = AppleDns {
        servers: interface.dns.clone(),
        search_domains: interface.dns_search.clone(),
        ..AppleDns::default()
    };
    let mut settings = AppleSettings::new(options.platform);
    settings.addresses.clone_from(&interface.addresses);
    settings.included = config.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect();
    settings.excluded.clone_from(&interface.excluded_ips);
    settings.tunnel_remote_addresses = tunnel.peers.iter().filter_map(|peer| Some(peer.endpoint?.ip())).collect();
    settings.include_all_networks = options.include_all_networks || interface.kill_switch;
    settings.enforce_routes = options.enforce_routes;
    settings.dns = (!dns.servers.is_empty() || !dns.search_domains.is_empty()).then_some(dns);
    match interface.exclude_local_networks {
        Some(on) => settings.exclude_local_networks = on,
        None if interface.kill_switch => settings.exclude_local_networks = false,
        None => {}
    }
    settings
}

fn answer(ip: IpAddr, tunnel: &Subject, settings: &AppleSettings, table: &SystemTable) -> AppleAnswer {
    let decision = decide_apple(&ApplePacket::new(ip), settings, table, &AppleAssumptions::default());
    let summary = match decision.way {
        AppleWay::Tunnel => format!("{ip} would go through the tunnel {}", tunnel.name),
        AppleWay::Physical => format!("{ip} would leave by the physical interface"),
        AppleWay::Host => format!("{ip} would be the device itself"),
        AppleWay::Dropped => format!("{ip} would be dropped"),
    };
    let rules = decision.steps.iter().map(step).collect();
    AppleAnswer { address: ip, way: decision.way.name(), summary, rules }
}

fn step(step: &AppleStep) -> AppleStepWords {
    let net = step.net.map(|net| format!(" {net}")).unwrap_or_default();
    let text = match step.rule {
        AppleRule::OwnAddress => "an address of the device itself".to_owned(),
        AppleRule::TunnelRemoteAddress => "tunnelRemoteAddress, which is excluded by itself".to_owned(),
        AppleRule::LocalNetwork => format!("excludeLocalNetworks{net}"),
        AppleRule::IncludeAllNetworks => "includeAllNetworks".to_owned(),
        AppleRule::EnforcedExcluded => format!("excludedRoutes{net}, enforced"),
        AppleRule::EnforcedIncluded => format!("includedRoutes{net}, enforced"),
        AppleRule::SystemRoute => format!("the system's own route{net}"),
        AppleRule::Excluded => format!("excludedRoutes{net}"),
        AppleRule::Included => format!("includedRoutes{net}"),
        AppleRule::TunnelSubnet => format!("the network{net} of the tunnel's address"),
        AppleRule::DefaultRoute => "the default route of the physical interface".to_owned(),
        other => other.name().to_owned(),
    };
    AppleStepWords { kind: step.rule.name(), way: step.way.name(), text }
}

fn finding(lint: &AppleLint) -> AppleFinding {
    AppleFinding { kind: lint.name(), text: lint.message() }
}
