//! adit-control
pub mod socket;
pub mod uapi;
