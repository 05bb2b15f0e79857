//! The C ABI of Adit: `include/adit.h`, which is made of this crate's documentation and says what a host must know.
//!
//! An entry point checks what it is given (`caller`), finds the tunnel that a handle stands for (`table`), does one
//! thing with a `HostedTunnel`, and returns a code (`result`). No pointer is looked through outside of `caller`, no
//! function of the host is called outside of `callback`, and no panic leaves `guard`. What a tunnel is and does is
//! decided in adit-control: nothing in here starts a thread but the log, and nothing keeps state but the table.
#![allow(
    clippy::missing_safety_doc,
    reason = "the contract is in the same words for C: the header's beginning and each function's four headings"
)]

mod callback;
mod caller;
mod configuration;
mod event;
mod guard;
mod host;
mod key;
mod log;
mod options;
mod packets;
mod result;
mod stats;
mod table;
#[cfg(feature = "test-symbols")]
mod test_symbols;
mod text;
mod tunnel;
mod version;

pub use configuration::adit_configuration_check;
pub use event::*;
pub use key::*;
pub use log::*;
pub use options::*;
pub use packets::*;
pub use result::*;
pub use stats::AditStats;
#[cfg(feature = "test-symbols")]
pub use test_symbols::adit_test_panic;
pub use text::{AditText, adit_text_free};
pub use tunnel::*;
pub use version::{ADIT_ABI_VERSION, adit_abi_version, adit_version};
