//! What a host may choose when it makes a tunnel, in a struct that can grow.

use std::ffi::c_char;
use std::mem::offset_of;
use std::path::PathBuf;
use std::time::Duration;

use adit_control::config::{Format, MAX_MTU, MIN_MTU};
use adit_control::hosted::{HostedOptions, Patience};

use crate::caller::{Caller, Plain};
use crate::result::{ADIT_ERROR_INVALID_ARGUMENT, Failure, Outcome};

/// A configuration in the format of wg(8) and wg-quick(8).
pub const ADIT_FORMAT_CONF: u32 = 0u32;

/// A configuration in TOML.
pub const ADIT_FORMAT_TOML: u32 = 1u32;

/// A configuration in JSON.
pub const ADIT_FORMAT_JSON: u32 = 2u32;

/// A start goes on without a handshake: the settings are applied although no peer may ever answer.
pub const ADIT_OPTION_HANDSHAKE_OPTIONAL: u32 = 1u32;

/// UDP sockets are bound to the interface that `adit_tunnel_path_changed` names. An app extension does not need it: the
/// system keeps a provider's own traffic out of its tunnel.
pub const ADIT_OPTION_BIND_TO_PATH: u32 = 2u32;

/// What a host may choose when it makes a tunnel. Set all of it to 0, then `size` to `sizeof(AditOptions)`, then what you
/// want: every 0 is the default.
///
/// A library accepts the struct of an older header; that of a newer one too, as long as the fields that the library does
/// not know are 0. Sizes below the first version's, 56 bytes on 64-bit systems, are refused.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AditOptions {
    /// `sizeof(AditOptions)`.
    pub size: usize,
    /// One of `ADIT_FORMAT_…`: how this tunnel's configurations are written.
    pub format: u32,
    /// `ADIT_OPTION_…`, added up. Bits without a meaning must be 0.
    pub flags: u32,
    /// Milliseconds that the peers' names may take to resolve; default 10 000.
    pub resolve_ms: u32,
    /// Milliseconds that the first handshake may take; default 10 000.
    pub handshake_ms: u32,
    /// Milliseconds that the host may take to apply the settings; default 10 000.
    pub settings_ms: u32,
    /// Milliseconds that the start as a whole may take; default 30 000.
    pub start_ms: u32,
    /// MTU in bytes if the configuration names none, from 576 to 65535; default 1280 on iOS, else 1420.
    pub default_mtu: u32,
    /// Always 0.
    pub reserved: u32,
    /// The tunnel's name in the log and in diagnostics, UTF-8 with a NUL behind it, up to 64 bytes; NULL is "adit".
    pub name: *const c_char,
    /// A folder of the host's where the peers' last addresses are remembered, so that a start succeeds while names cannot
    /// be resolved; UTF-8 with a NUL behind it, up to 1024 bytes. NULL remembers nothing.
    pub state_directory: *const c_char,
}

// SAFETY: integers, and pointers, which may be anything until they are looked through; no padding between them.
unsafe impl Plain for AditOptions {}

impl AditOptions {
    /// The size of the first version's struct.
    pub(crate) const SMALLEST: usize = offset_of!(Self, state_directory) + size_of::<*const c_char>();
}

impl Default for AditOptions {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            format: ADIT_FORMAT_CONF,
            flags: 0,
            resolve_ms: 0,
            handshake_ms: 0,
            settings_ms: 0,
            start_ms: 0,
            default_mtu: 0,
            reserved: 0,
            name: std::ptr::null(),
            state_directory: std::ptr::null(),
        }
    }
}

/// The options in the engine's terms.
pub(crate) fn read(caller: &Caller, options: &AditOptions) -> Outcome<HostedOptions> {
    let defaults = HostedOptions::default();
    let known = ADIT_OPTION_HANDSHAKE_OPTIONAL | ADIT_OPTION_BIND_TO_PATH;
    if options.flags & !known != 0 || options.reserved != 0 {
        return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT));
    }
    let default_mtu = match options.default_mtu {
        0 => defaults.default_mtu,
        mtu => u16::try_from(mtu)
            .ok()
            .filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu))
            .ok_or(Failure::new(ADIT_ERROR_INVALID_ARGUMENT))?,
    };
    let name = match caller.terminated(options.name, LONGEST_NAME)? {
        None | Some("") => defaults.name,
        // The name is a part of lines in logs and of files' names.
        Some(name) if name.contains(|c: char| c.is_control() || c == '/') || name.starts_with('.') => {
            return Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT));
        }
        Some(name) => name.to_owned(),
    };
    let state_dir = caller.terminated(options.state_directory, LONGEST_PATH)?.filter(|path| !path.is_empty());
    let or = |milliseconds: u32, default: Duration| match milliseconds {
        0 => default,
        milliseconds => Duration::from_millis(milliseconds.into()),
    };
    let patience = Patience {
        resolve: or(options.resolve_ms, defaults.patience.resolve),
        handshake: or(options.handshake_ms, defaults.patience.handshake),
        require_handshake: options.flags & ADIT_OPTION_HANDSHAKE_OPTIONAL == 0,
        settings: or(options.settings_ms, defaults.patience.settings),
        start: or(options.start_ms, defaults.patience.start),
        ..defaults.patience
    };
    Ok(HostedOptions {
        name,
        patience,
        state_dir: state_dir.map(PathBuf::from),
        default_mtu,
        bind_to_path: options.flags & ADIT_OPTION_BIND_TO_PATH != 0,
        ..defaults
    })
}

/// The format that a number stands for.
pub(crate) fn format(number: u32) -> Outcome<Format> {
    match number {
        ADIT_FORMAT_CONF => Ok(Format::Conf),
        ADIT_FORMAT_TOML => Ok(Format::Toml),
        ADIT_FORMAT_JSON => Ok(Format::Json),
        _ => Err(Failure::new(ADIT_ERROR_INVALID_ARGUMENT)),
    }
}

/// Bytes of a tunnel's name.
const LONGEST_NAME: usize = 64;

/// Bytes of a folder's path, as on Apple's systems.
const LONGEST_PATH: usize = 1024;
