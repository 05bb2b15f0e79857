//! Apple's tun device, utun: a kernel control socket whose packets carry their protocol family.

pub(super) mod utun;
