//! Apple's tun device, utun: a kernel control socket whose packets carry their protocol family.
//!
//! An app extension gets the descriptor of one from the system and hands it over as a
//! [`Descriptor`](crate::device::Descriptor); only macOS lets a program make one, as [`AppleTun`]. Neither has addresses
//! or routes from here.

#[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
pub(super) mod bulk;
#[cfg(any(test, all(target_vendor = "apple", feature = "apple-batch")))]
mod msghdr_x;
#[cfg(any(test, target_os = "macos"))]
mod name;
#[cfg(target_os = "macos")]
mod tun;
#[cfg(target_vendor = "apple")]
pub(super) mod utun;

#[cfg(target_os = "macos")]
pub use tun::AppleTun;
