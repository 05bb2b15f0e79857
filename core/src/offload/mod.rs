//! Splitting what the system hands over in one piece, and joining what it takes in one.

mod virtio;

pub use virtio::VirtioNetHeader;
