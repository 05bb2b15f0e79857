//! Which library this is.

use std::ffi::{CStr, c_char};

/// The version of the interface that this header describes.
///
/// It changes only when something in here changes its meaning; what is added at the end of a struct or a list of numbers
/// does not change it. Compare it with what `adit_abi_version` returns.
pub const ADIT_ABI_VERSION: u32 = 1u32;

/// The library's version, such as "0.1.0".
///
/// Thread: any. Ownership: the text is the library's; do not free it. Lifetime: valid as long as the library is loaded.
/// Errors: none; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn adit_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the interface that the library was built with: the `ADIT_ABI_VERSION` of its header.
///
/// Thread: any. Ownership: nothing. Lifetime: does not change. Errors: none.
#[unsafe(no_mangle)]
pub extern "C" fn adit_abi_version() -> u32 {
    ADIT_ABI_VERSION
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"unknown",
};
