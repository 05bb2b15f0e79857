//! Result codes and their sentences.
//!
//! Numbers are part of the ABI: new ones are added at the end, none is ever given another meaning. A code is a kind of
//! failure that a host may want to treat in its own way; the details of one are in the event or the diagnostics.

use std::ffi::{CStr, c_char};

use adit_control::hosted::{Code, HostedError};
use adit_tun::device::DescriptorError;

/// What every function that can fail returns: `ADIT_OK`, or one of the `ADIT_ERROR_…` codes.
///
/// Treat a code that you do not know as `ADIT_ERROR_INTERNAL`: later versions add some.
pub type AditResult = u32;

/// What the Rust side of an entry point returns: success, or a code other than `ADIT_OK`.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A code other than `ADIT_OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure(AditResult);

impl Failure {
    /// Wraps a code; `ADIT_OK` is no failure and becomes `ADIT_ERROR_INTERNAL`.
    pub(crate) const fn new(code: AditResult) -> Self {
        Self(if code == ADIT_OK { ADIT_ERROR_INTERNAL } else { code })
    }

    /// The code.
    pub(crate) const fn code(self) -> AditResult {
        self.0
    }
}

/// Turns what an entry point did into what it returns.
pub(crate) fn code_of(outcome: Outcome) -> AditResult {
    match outcome {
        Ok(()) => ADIT_OK,
        Err(failure) => failure.code(),
    }
}

impl From<HostedError> for Failure {
    /// The code of a failure of the engine; its sentence goes to the log.
    fn from(error: HostedError) -> Self {
        let failure = Self::new(engine_code(error.code));
        tracing::debug!(code = failure.code(), error = error.message, "a call was refused");
        failure
    }
}

impl From<DescriptorError> for Failure {
    /// The code of a descriptor that is of no use; why it is not goes to the log.
    fn from(error: DescriptorError) -> Self {
        tracing::warn!(%error, "a descriptor was refused");
        Self::new(match error {
            DescriptorError::Other { .. } => ADIT_ERROR_SYSTEM,
            _ => ADIT_ERROR_DEVICE,
        })
    }
}

/// The code that stands for a failure of the engine.
pub(crate) fn engine_code(code: Code) -> AditResult {
    match code {
        Code::InvalidState => ADIT_ERROR_INVALID_STATE,
        Code::AlreadyRunning => ADIT_ERROR_ALREADY_RUNNING,
        Code::Stale => ADIT_ERROR_STALE,
        Code::Busy => ADIT_ERROR_BUSY,
        Code::Configuration => ADIT_ERROR_CONFIGURATION,
        Code::Resolve => ADIT_ERROR_RESOLVE,
        Code::Socket => ADIT_ERROR_SOCKET,
        Code::Device => ADIT_ERROR_DEVICE,
        Code::PeerTimeout => ADIT_ERROR_PEER_TIMEOUT,
        Code::SettingsTimeout => ADIT_ERROR_SETTINGS_TIMEOUT,
        Code::SettingsRejected => ADIT_ERROR_SETTINGS_REJECTED,
        Code::StartTimeout => ADIT_ERROR_START_TIMEOUT,
        Code::Stopped => ADIT_ERROR_STOPPED,
        Code::DeviceLost => ADIT_ERROR_DEVICE_LOST,
        Code::Timeout => ADIT_ERROR_TIMEOUT,
        Code::System => ADIT_ERROR_SYSTEM,
        Code::Poisoned => ADIT_ERROR_POISONED,
        // A kind that this file does not know yet is one that a host does not either.
        _ => ADIT_ERROR_INTERNAL,
    }
}

/// Says in one English sentence what a result code means, for a log.
///
/// Thread: any. Ownership: the text is the library's; do not free it. Lifetime: valid as long as the library is loaded.
/// Errors: none; a code that this version does not know has a text too, and NULL is never returned.
#[unsafe(no_mangle)]
pub extern "C" fn adit_error_message(result: AditResult) -> *const c_char {
    message(result).as_ptr()
}

fn message(result: AditResult) -> &'static CStr {
    MESSAGES.iter().find(|(code, _)| *code == result).map_or(UNKNOWN, |(_, message)| *message)
}

/// Success.
pub const ADIT_OK: AditResult = 0u32;

/// A pointer that must not be NULL is NULL.
pub const ADIT_ERROR_NULL_POINTER: AditResult = 6101u32;

/// An argument has a value that the function does not know or allow, or two arguments contradict each other.
pub const ADIT_ERROR_INVALID_ARGUMENT: AditResult = 6102u32;

/// A text is not UTF-8, or has a NUL inside.
pub const ADIT_ERROR_INVALID_UTF8: AditResult = 6103u32;

/// The `size` of a struct is none that a version of this header could have, or says that fields are set that this
/// version does not know.
pub const ADIT_ERROR_INVALID_SIZE: AditResult = 6104u32;

/// The handle is 0, was never handed out, or is of a tunnel that was freed.
pub const ADIT_ERROR_INVALID_HANDLE: AditResult = 6105u32;

/// The tunnel failed inside (see `ADIT_ERROR_PANIC`); it can only be stopped and freed.
pub const ADIT_ERROR_POISONED: AditResult = 6106u32;

/// Adit has a bug: the call was ended where it found itself in a state that cannot be. It is told once; the tunnel
/// is poisoned.
pub const ADIT_ERROR_PANIC: AditResult = 6107u32;

/// The call is not allowed in the state that the tunnel is in.
pub const ADIT_ERROR_INVALID_STATE: AditResult = 6108u32;

/// The tunnel is started already, or is still being stopped.
pub const ADIT_ERROR_ALREADY_RUNNING: AditResult = 6109u32;

/// A text or a batch is larger than what is accepted in one call.
pub const ADIT_ERROR_TOO_LARGE: AditResult = 6110u32;

/// There are `ADIT_MAX_TUNNELS` tunnels already.
pub const ADIT_ERROR_TOO_MANY: AditResult = 6111u32;

/// The configuration cannot be used; `adit_configuration_check` says why.
pub const ADIT_ERROR_CONFIGURATION: AditResult = 6112u32;

/// The name of an endpoint could not be resolved.
pub const ADIT_ERROR_RESOLVE: AditResult = 6113u32;

/// A UDP socket could not be opened, or not be bound to its port or interface.
pub const ADIT_ERROR_SOCKET: AditResult = 6114u32;

/// No peer answered the handshake in time.
pub const ADIT_ERROR_PEER_TIMEOUT: AditResult = 6115u32;

/// The host did not answer the event `ADIT_EVENT_SETTINGS` in time.
pub const ADIT_ERROR_SETTINGS_TIMEOUT: AditResult = 6116u32;

/// The host said, by `adit_tunnel_settings_failed`, that it could not apply the settings.
pub const ADIT_ERROR_SETTINGS_REJECTED: AditResult = 6117u32;

/// The start as a whole took too long.
pub const ADIT_ERROR_START_TIMEOUT: AditResult = 6118u32;

/// The tunnel was stopped before what was asked for was done.
pub const ADIT_ERROR_STOPPED: AditResult = 6119u32;

/// The descriptor is closed, is no tun device, or frames its packets in another way than was said.
pub const ADIT_ERROR_DEVICE: AditResult = 6120u32;

/// The descriptor failed or was closed while the tunnel was running.
pub const ADIT_ERROR_DEVICE_LOST: AditResult = 6121u32;

/// The deadline of the call passed before it was done.
pub const ADIT_ERROR_TIMEOUT: AditResult = 6122u32;

/// The tunnel's queue of commands is full, or another call of the same kind is under way; try again later.
pub const ADIT_ERROR_BUSY: AditResult = 6123u32;

/// What the call answers is no longer asked: its generation is not the newest.
pub const ADIT_ERROR_STALE: AditResult = 6124u32;

/// A packet is empty, longer than 65535 bytes, neither IPv4 nor IPv6, or contradicts its protocol family; nothing
/// of the batch was taken.
pub const ADIT_ERROR_PACKET: AditResult = 6125u32;

/// The text is not a key: 44 characters of base64, or 64 hexadecimal digits.
pub const ADIT_ERROR_KEY: AditResult = 6126u32;

/// The operating system refused something; the log says what.
pub const ADIT_ERROR_SYSTEM: AditResult = 6127u32;

/// Something failed inside that is none of the above; the log says what.
pub const ADIT_ERROR_INTERNAL: AditResult = 6128u32;

/// Every code with its sentence, in the order of the numbers.
const MESSAGES: &[(AditResult, &CStr)] = &[
    (ADIT_OK, c"success"),
    (ADIT_ERROR_NULL_POINTER, c"a pointer that must not be NULL is NULL"),
    (
        ADIT_ERROR_INVALID_ARGUMENT,
        c"an argument has a value that the function does not allow, or two arguments contradict each other",
    ),
    (ADIT_ERROR_INVALID_UTF8, c"a text is not UTF-8, or has a NUL inside"),
    (ADIT_ERROR_INVALID_SIZE, c"the size that a struct has in its first field is not one that this version can read"),
    (ADIT_ERROR_INVALID_HANDLE, c"the handle is 0, was never handed out, or its tunnel was freed"),
    (ADIT_ERROR_POISONED, c"the tunnel failed inside before; it can only be stopped and freed"),
    (ADIT_ERROR_PANIC, c"a bug in Adit ended the call; the tunnel is poisoned and can only be stopped and freed"),
    (ADIT_ERROR_INVALID_STATE, c"the call is not allowed in the state that the tunnel is in"),
    (ADIT_ERROR_ALREADY_RUNNING, c"the tunnel is started already, or is still being stopped"),
    (ADIT_ERROR_TOO_LARGE, c"a text or a batch is larger than what is accepted in one call"),
    (ADIT_ERROR_TOO_MANY, c"there are as many tunnels in this process as are allowed; free one first"),
    (ADIT_ERROR_CONFIGURATION, c"the configuration cannot be used; adit_configuration_check says why"),
    (ADIT_ERROR_RESOLVE, c"the name of an endpoint could not be resolved"),
    (ADIT_ERROR_SOCKET, c"a UDP socket could not be opened, or not be bound to its port or interface"),
    (ADIT_ERROR_PEER_TIMEOUT, c"no peer answered the handshake in time"),
    (ADIT_ERROR_SETTINGS_TIMEOUT, c"the host did not say in time whether the settings are applied"),
    (ADIT_ERROR_SETTINGS_REJECTED, c"the host could not apply the settings"),
    (ADIT_ERROR_START_TIMEOUT, c"the start as a whole took too long"),
    (ADIT_ERROR_STOPPED, c"the tunnel was stopped before this was done"),
    (
        ADIT_ERROR_DEVICE,
        c"the descriptor is closed, is no tun device, or frames its packets in another way than was said",
    ),
    (ADIT_ERROR_DEVICE_LOST, c"the tunnel's descriptor failed or was closed while it was in use"),
    (ADIT_ERROR_TIMEOUT, c"the deadline of the call passed before it was done"),
    (ADIT_ERROR_BUSY, c"the tunnel is busy; try again later"),
    (ADIT_ERROR_STALE, c"the answer is to something that is no longer asked"),
    (
        ADIT_ERROR_PACKET,
        c"a packet of the batch is not an IP packet or contradicts its protocol family; nothing was taken",
    ),
    (ADIT_ERROR_KEY, c"the text is not a key of 32 bytes in the expected form"),
    (ADIT_ERROR_SYSTEM, c"the operating system refused something; the log says what"),
    (ADIT_ERROR_INTERNAL, c"something failed inside; the log says what"),
];

/// The sentence of a code that is not in the list.
const UNKNOWN: &CStr = c"an error that this version does not know";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_never_change() {
        let expected = [
            (ADIT_OK, 0),
            (ADIT_ERROR_NULL_POINTER, 6101),
            (ADIT_ERROR_INVALID_ARGUMENT, 6102),
            (ADIT_ERROR_INVALID_UTF8, 6103),
            (ADIT_ERROR_INVALID_SIZE, 6104),
            (ADIT_ERROR_INVALID_HANDLE, 6105),
            (ADIT_ERROR_POISONED, 6106),
            (ADIT_ERROR_PANIC, 6107),
            (ADIT_ERROR_INVALID_STATE, 6108),
            (ADIT_ERROR_ALREADY_RUNNING, 6109),
            (ADIT_ERROR_TOO_LARGE, 6110),
            (ADIT_ERROR_TOO_MANY, 6111),
            (ADIT_ERROR_CONFIGURATION, 6112),
            (ADIT_ERROR_RESOLVE, 6113),
            (ADIT_ERROR_SOCKET, 6114),
            (ADIT_ERROR_PEER_TIMEOUT, 6115),
            (ADIT_ERROR_SETTINGS_TIMEOUT, 6116),
            (ADIT_ERROR_SETTINGS_REJECTED, 6117),
            (ADIT_ERROR_START_TIMEOUT, 6118),
            (ADIT_ERROR_STOPPED, 6119),
            (ADIT_ERROR_DEVICE, 6120),
            (ADIT_ERROR_DEVICE_LOST, 6121),
            (ADIT_ERROR_TIMEOUT, 6122),
            (ADIT_ERROR_BUSY, 6123),
            (ADIT_ERROR_STALE, 6124),
            (ADIT_ERROR_PACKET, 6125),
            (ADIT_ERROR_KEY, 6126),
            (ADIT_ERROR_SYSTEM, 6127),
            (ADIT_ERROR_INTERNAL, 6128),
        ];
        for (code, number) in expected {
            assert_eq!(code, number);
        }
        let constants = include_str!("result.rs").lines().filter(|line| line.starts_with("pub const ADIT_")).count();
        assert_eq!(constants, expected.len(), "a new code is pinned here too");
        assert_eq!(MESSAGES.iter().map(|(code, _)| *code).collect::<Vec<_>>(), expected.map(|(code, _)| code));
    }

    #[test]
    fn every_code_has_a_sentence_of_its_own() {
        let sentences: BTreeSet<_> = MESSAGES.iter().map(|(_, message)| message.to_str().unwrap()).collect();
        assert_eq!(sentences.len(), MESSAGES.len());
        assert!(sentences.iter().all(|sentence| !sentence.is_empty()));
        assert_eq!(message(6100), UNKNOWN);
        assert_eq!(message(u32::MAX), UNKNOWN);
    }

    #[test]
    fn no_failure_looks_like_success() {
        assert_eq!(Failure::new(ADIT_OK).code(), ADIT_ERROR_INTERNAL);
        assert_eq!(code_of(Err(Failure::new(ADIT_ERROR_BUSY))), ADIT_ERROR_BUSY);
        assert_eq!(code_of(Ok(())), ADIT_OK);
    }
}
