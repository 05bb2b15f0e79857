//! What the kernel has and what it answers, to read: policy rules, routes of every table, interfaces, addresses, and the
//! way that a packet would take.
//!
//! It asks rtnetlink(7) as ip(8) does, needs no privileges, changes nothing and interprets nothing: routes and rules of
//! others are shown like those of ours, which are only marked. It works in the network namespace of the thread that
//! opened it, inside a tokio runtime.

mod host;
mod route;
mod rule;
mod way;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::RuleMessage;

pub use host::{KernelAddress, KernelLink};
pub use route::{Hop, KernelRoute, Protocol, RouteKind, RouteScope};
pub use rule::{KernelRule, Mark, Range, RuleAction, table_name};
pub use way::{KernelWay, Query};

use super::netlink::Netlink;
use super::routes::address_family;
use crate::route::error::{Reason, RouteError};
use crate::settings::Family;

/// A view of the kernel's routing that changes nothing.
pub struct Inspector {
    netlink: Netlink,
}

impl Inspector {
    /// Opens a view of this thread's network namespace; must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no netlink socket to be had.
    pub fn open() -> Result<Self, RouteError> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// The policy rules of a family, in the order in which the kernel asks them. A family that is switched off has none.
    ///
    /// # Errors
    ///
    /// The kernel does not list them.
    pub async fn rules(&self, family: Family) -> Result<Vec<KernelRule>, RouteError> {
        let mut question = RuleMessage::default();
        question.header.family = address_family(family);
        let answers =
            self.list(RouteNetlinkMessage::GetRule(question), || format!("the {family} policy rules")).await?;
        let mut rules: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(found) if found.header.family == address_family(family) => {
                    Some(rule::parse(family, found))
                }
                _ => None,
            })
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }

    /// The routes of a table, or of all tables; a table that does not exist has none.
    ///
    /// # Errors
    ///
    /// The kernel does not list them.
    pub async fn routes(&self, family: Family, table: Option<u32>) -> Result<Vec<KernelRoute>, RouteError> {
        let mut question = RouteMessage::default();
        question.header.address_family = address_family(family);
        question.attributes.extend(table.map(RouteAttribute::Table));
        let object = || match table {
            Some(table) => format!("the {family} routes of table {table}"),
            None => format!("the {family} routes"),
        };
        let answers = self.list(RouteNetlinkMessage::GetRoute(question), object).await?;
        let links = self.links().await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(found) if found.header.address_family == address_family(family) => {
                    route::parse(found, &|index| host::device(&links, index))
                }
                _ => None,
            })
            .filter(|route| table.is_none_or(|table| route.table == table))
            .collect())
    }

    /// The interfaces.
    ///
    /// # Errors
    ///
    /// The kernel does not list them.
    pub async fn links(&self) -> Result<Vec<KernelLink>, RouteError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.list(question, || "the interfaces".into()).await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(found) => Some(host::parse_link(found)),
                _ => None,
            })
            .collect())
    }

    /// The addresses of all interfaces, of both families.
    ///
    /// # Errors
    ///
    /// The kernel does not list them.
    pub async fn addresses(&self) -> Result<Vec<KernelAddress>, RouteError> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.list(question, || "the addresses".into()).await?;
        let links = self.links().await?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(found) => host::parse_address(found, &links),
                _ => None,
            })
            .collect())
    }

    /// The way that the kernel would send a packet.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, which is an answer too: ENETUNREACH if there is no route, EHOSTUNREACH, EACCES and EINVAL for
    /// a route or a rule that is `unreachable`, `prohibit` and `blackhole`, also EINVAL or ENETUNREACH for an IPv4 source
    /// address that is none of the host's.
    pub async fn way(&self, query: &Query) -> Result<KernelWay, Reason> {
        way::ask(&self.netlink, query).await
    }

    async fn list(
        &self,
        question: RouteNetlinkMessage,
        object: impl FnOnce() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, RouteError> {
        let answers = self.netlink.list(question).await;
        answers.map_err(|reason| RouteError::Kernel { action: "list", object: object(), reason })
    }
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").finish_non_exhaustive()
    }
}
