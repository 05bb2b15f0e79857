//! What a running tunnel has told the host to do with its traffic: the settings in force, whatever its file says by now.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{Interface, Table};
use crate::settings::{Place, RouteTable, Settings, TablePreference};

/// A tunnel's settings that concern the host. Prefixes of peers stand with the peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingReport {
    /// How routes are laid out.
    pub layout: Layout,
    /// Where they are meant to go.
    pub table: RouteTable,
    /// The table of the tunnel's own, if rules lead to one.
    pub own_table: Option<u32>,
    /// The interface's addresses with the prefixes of their networks.
    pub addresses: Vec<IpNet>,
    /// What leaves by the underlay although an allowed IP covers it.
    pub excluded_ips: Vec<IpNet>,
    /// Whether local networks are reached directly; `None` is not said.
    pub exclude_local_networks: Option<bool>,
    /// Whether nothing may leave but by the tunnel.
    pub kill_switch: bool,
    /// Whether the configuration names DNS servers, so that those of the local network have no part in it.
    pub names_dns_servers: bool,
}

/// How a tunnel's routes are laid out; see [`settings`](crate::settings).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// There are no routes.
    Off,
    /// wg-quick's way.
    #[default]
    Plain,
    /// All in a table of the tunnel's own that is asked before main.
    Strict,
    /// All in a table that the user has chosen, and no rules lead there but the user's.
    Table,
    /// One that this program is too old to know.
    #[serde(other)]
    Other,
}

impl RoutingReport {
    /// What a configuration's interface asks for and the settings made of it.
    #[must_use]
    pub fn new(interface: &Interface, settings: &Settings) -> Self {
        let table = interface.table.into();
        Self {
            layout: Layout::of(table, settings),
            table,
            own_table: match (settings.policy, settings.table) {
                (Some(_), TablePreference::Number(number)) => Some(number),
                _ => None,
            },
            addresses: settings.addresses.clone(),
            excluded_ips: interface.excluded_ips.clone(),
            exclude_local_networks: interface.exclude_local_networks,
            kill_switch: interface.kill_switch,
            names_dns_servers: !interface.dns.is_empty(),
        }
    }
}

impl Layout {
    fn of(table: RouteTable, settings: &Settings) -> Self {
        match (table, settings.policy) {
            (RouteTable::Off, _) => Self::Off,
            (RouteTable::Number(_), _) => Self::Table,
            (RouteTable::Auto, Some(policy)) if !policy.main_first => Self::Strict,
            (RouteTable::Auto, None) if settings.routes.iter().any(|route| route.place == Place::Own) => Self::Strict,
            (RouteTable::Auto, _) => Self::Plain,
        }
    }
}

impl From<Table> for RouteTable {
    fn from(table: Table) -> Self {
        match table {
            Table::Auto => Self::Auto,
            Table::Off => Self::Off,
            Table::Number(number) => Self::Number(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Wanted;

    #[test]
    fn the_layout_is_that_of_the_settings() {
        let all = "0.0.0.0/0";
        for (allowed, excluded, table, layout) in [
            (all, None, RouteTable::Auto, Layout::Plain),
            ("10.0.0.0/8", None, RouteTable::Auto, Layout::Plain),
            (all, Some("10.0.0.0/8"), RouteTable::Auto, Layout::Strict),
            (all, Some("10.0.0.0/8"), RouteTable::Number(7), Layout::Table),
            (all, None, RouteTable::Off, Layout::Off),
        ] {
            let settings = Settings::new(&Wanted {
                allowed_ips: vec![allowed.parse().unwrap()],
                excluded_ips: excluded.map(|net| net.parse().unwrap()).into_iter().collect(),
                table,
                ..Wanted::default()
            });
            assert_eq!(Layout::of(table, &settings), layout, "{allowed} {excluded:?} {table:?}");
        }
    }

    #[test]
    fn a_report_of_an_older_or_newer_program_can_be_read() {
        let report: RoutingReport = serde_json::from_str(r#"{"layout":"sideways","kill_switch":true}"#).unwrap();
        assert_eq!((report.layout, report.kill_switch), (Layout::Other, true));
        let report = RoutingReport { table: RouteTable::Number(7), ..RoutingReport::default() };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""layout":"plain","table":{"number":7}"#), "{text}");
        assert_eq!(serde_json::from_str::<RoutingReport>(&text).unwrap(), report);
    }
}
