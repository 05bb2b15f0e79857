//! adit-control
pub mod api;
pub mod socket;
pub mod uapi;
