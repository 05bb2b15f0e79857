//! adit-control
