//! What a tunnel changes on macOS: addresses over ioctls, routes over PF_ROUTE.
//!
//! There is one routing table, in which the longest prefix wins and of equal prefixes the one that was there first. A
//! default route of a tunnel is therefore two halves of the address space, which win over the system's own default without
//! touching it; and the tunnel's own datagrams are kept out of them by binding the sockets to a physical interface.
//!
//! Everything but `system` is pure, and tested wherever it is built.

pub mod apply;
pub mod message;
pub mod plan;
pub mod request;
pub mod sockaddr;
#[cfg(target_os = "macos")]
pub mod system;
pub mod table;
