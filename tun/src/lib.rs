//! adit-tun
