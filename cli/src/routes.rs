//! `adit routes`: the host's rules and tables as a tree, for people and as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use adit_control::api::{self, ApiClient};
use adit_control::explain::{Facts, FamilyTree, RouteNode, RuleNode, Subject, TableNode, trees};
use adit_control::route::inspect::{Inspector, Protocol, RouteKind, RuleAction};
use adit_control::socket;
use owo_colors::OwoColorize;

use crate::args::Routes;
use crate::control::{block_on, client_failure};
use crate::failure::{Failure, Outcome, tell};
use crate::locate;

/// Shows rules and routes.
pub(crate) fn run(options: &Routes) -> Outcome {
    block_on(async {
        let tunnels = tunnels(options.tunnel.as_deref()).await?;
        let inspector = Inspector::open().map_err(Failure::failed)?;
        let facts = Facts::gather(&inspector).await.map_err(Failure::failed)?;
        let trees = trees(&facts, &tunnels, (!options.all).then_some(SIDE_BY_SIDE));
        let mut stdout = anstream::stdout();
        if options.json {
            let value = serde_json::to_value(&trees).map_err(Failure::failed)?;
            writeln!(stdout, "{value:#}")?;
        } else {
            let mut text = String::new();
            for tree in &trees {
                // Writing to a String cannot fail.
                let _ = family(&mut text, tree);
            }
            write!(stdout, "{text}")?;
        }
        Ok(stdout.flush()?)
    })
}

/// The tunnels whose peers are named: one that must be up, or all that tell.
async fn tunnels(argument: Option<&str>) -> Outcome<Vec<Subject>> {
    let dir = Path::new(api::SOCKET_DIR);
    let names = match argument {
        Some(argument) => vec![locate::name(argument)?],
        None => socket::list(dir).await.unwrap_or_default(),
    };
    let mut found = Vec::new();
    for name in names {
        let told = async { ApiClient::connect(dir, &name).await?.status().await }.await;
        match told {
            Ok(report) => found.extend(Subject::running(&report)),
            Err(error) if argument.is_some() => return Err(client_failure(&name, &error).await),
            // Its routes are shown all the same.
            Err(error) => tell(format_args!("the peers of {name} are not named: {error}")),
        }
    }
    Ok(found)
}

fn family(out: &mut String, tree: &FamilyTree) -> std::fmt::Result {
    writeln!(out, "{}", tree.family.bold())?;
    for rule in &tree.rules {
        self::rule(out, rule)?;
    }
    for table in &tree.unused {
        writeln!(out, "  {} {}, which no rule looks up", "table".yellow(), table.name)?;
        self::table(out, table)?;
    }
    Ok(())
}

fn rule(out: &mut String, node: &RuleNode) -> std::fmt::Result {
    let rule = &node.rule;
    let text = if rule.is_ours { node.text.green().to_string() } else { node.text.clone() };
    let owner = match rule.protocol {
        Protocol::KERNEL => String::new(),
        Protocol::ADIT => "  (Adit)".into(),
        other => format!("  (proto {other})").yellow().to_string(),
    };
    writeln!(out, "  {text}{owner}")?;
    match (&node.table, rule.action) {
        (Some(table), _) => self::table(out, table),
        (None, RuleAction::Lookup(_)) => writeln!(out, "    {}", "as above".dimmed()),
        (None, _) => Ok(()),
    }
}

fn table(out: &mut String, table: &TableNode) -> std::fmt::Result {
    if table.routes.is_empty() {
        let text = match table.count {
            0 => "no routes".to_owned(),
            1 => "1 route".to_owned(),
            count => format!("{count} routes"),
        };
        return writeln!(out, "    {}", text.dimmed());
    }
    routes(out, &table.routes, table.omitted, "    ")
}

fn routes(out: &mut String, nodes: &[RouteNode], omitted: usize, lead: &str) -> std::fmt::Result {
    for (index, node) in nodes.iter().enumerate() {
        let is_last = index + 1 == nodes.len() && omitted == 0;
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let text = if node.route.is_ours { node.text.green().to_string() } else { node.text.clone() };
        writeln!(out, "{lead}{branch}{text}{}", remark(node).dimmed())?;
        routes(out, &node.inside, node.omitted, &format!("{lead}{below}"))?;
    }
    if omitted > 0 {
        writeln!(out, "{lead}└─ and {omitted} more")?;
    }
    Ok(())
}

/// What a route means that its text does not say.
fn remark(node: &RouteNode) -> String {
    let route = &node.route;
    let mut parts = Vec::new();
    if let Some(key) = node.peer {
        parts.push(format!("peer {}", key.short()));
    }
    match route.kind {
        RouteKind::Throw => parts.push("underlay: the next rule".to_owned()),
        kind if kind.stops() && route.is_ours => parts.push("if the tunnel's is gone".to_owned()),
        _ => {}
    }
    if route.metric != 0 && !route.is_ours {
        parts.push(format!("metric {}", route.metric));
    }
    match route.protocol {
        Protocol::KERNEL | Protocol::ADIT => {}
        other => parts.push(format!("proto {other}")),
    }
    if parts.is_empty() { String::new() } else { format!("  ({})", parts.join(", ")) }
}

/// How many routes are shown side by side.
const SIDE_BY_SIDE: usize = 40;
