//! What a tunnel tells its host: the C form of `HostEvent`.

use std::ffi::{c_char, c_void};

use adit_control::hosted::{HostEvent, HostedError, State};

use crate::result::{ADIT_OK, AditResult, engine_code};
use crate::tunnel::AditTunnel;

/// The tunnel's state has changed to the event's `state`.
pub const ADIT_EVENT_STATE: u32 = 1u32;

/// A start is done; `result` says how. Exactly one for each call of a start function that returned `ADIT_OK`.
///
/// JSON: `{"event":"started","error":null}`, or an error as `{"code":"peer-timeout","message":"…"}`.
pub const ADIT_EVENT_STARTED: u32 = 2u32;

/// Apply the settings in the JSON and answer with `adit_tunnel_settings_applied` or `adit_tunnel_settings_failed` and the
/// event's `generation`, from here or later from any thread. Packets are taken from now on.
///
/// JSON: `{"event":"settings","generation":1,"settings":{…}}`; the settings are described at `adit_tunnel_settings`.
pub const ADIT_EVENT_SETTINGS: u32 = 3u32;

/// A session with a peer is up or was renewed.
///
/// JSON: `{"event":"handshake","peer":"base64","round_trip_ms":1.2,"first":true}`; `round_trip_ms` may be null.
pub const ADIT_EVENT_HANDSHAKE: u32 = 4u32;

/// A peer does not answer.
///
/// JSON: `{"event":"handshake-timed-out","peer":"base64","retry_in_ms":5000.0}`; `retry_in_ms` may be null.
pub const ADIT_EVENT_HANDSHAKE_TIMED_OUT: u32 = 5u32;

/// A peer is reached at another address now. JSON: `{"event":"roamed","peer":"base64"}`.
pub const ADIT_EVENT_ROAMED: u32 = 6u32;

/// After `adit_tunnel_inject` took fewer packets than it was given there is room again.
pub const ADIT_EVENT_ROOM: u32 = 7u32;

/// Something worth a line in the log. JSON: `{"event":"warning","code":"clock-behind","message":"…"}`.
pub const ADIT_EVENT_WARNING: u32 = 8u32;

/// An update is done; `result` says how, and the tunnel goes on as before if it failed. Exactly one for each call of
/// `adit_tunnel_update` that returned `ADIT_OK` on a running tunnel. JSON as with `ADIT_EVENT_STARTED`.
pub const ADIT_EVENT_UPDATED: u32 = 9u32;

/// The device is awake again, and the tunnel goes on.
pub const ADIT_EVENT_RESUMED: u32 = 10u32;

/// The tunnel has ended, by a stop or by itself; `result` is `ADIT_OK` after a stop. Exactly one for each start that
/// succeeded; the last event until the next start.
///
/// JSON: `{"event":"stopped","reason":1,"error":null}`; the reason is an NEProviderStopReason.
pub const ADIT_EVENT_STOPPED: u32 = 11u32;

/// Not started, or stopped.
pub const ADIT_STATE_IDLE: u32 = 0u32;

/// The names of the peers' endpoints are looked up.
pub const ADIT_STATE_RESOLVING: u32 = 1u32;

/// A first handshake is awaited.
pub const ADIT_STATE_HANDSHAKING: u32 = 2u32;

/// The host is asked to apply the settings.
pub const ADIT_STATE_APPLYING_SETTINGS: u32 = 3u32;

/// Up.
pub const ADIT_STATE_UP: u32 = 4u32;

/// Up, but the way to the peers has changed or is lost.
pub const ADIT_STATE_REASSERTING: u32 = 5u32;

/// Everything is let go of.
pub const ADIT_STATE_STOPPING: u32 = 6u32;

/// An event. It is the library's and is valid until the callback returns: copy what you need.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AditEvent {
    /// The size of this struct as the library knows it; read no field that lies beyond it.
    pub size: usize,
    /// One of `ADIT_EVENT_…`; ignore kinds that you do not know.
    pub kind: u32,
    /// One of `ADIT_STATE_…`: the state that the event tells, or the tunnel's state when it was told.
    pub state: u32,
    /// How what was asked for went (`ADIT_EVENT_STARTED`, `ADIT_EVENT_UPDATED`), or why the tunnel ended
    /// (`ADIT_EVENT_STOPPED`); `ADIT_OK` in other events.
    pub result: AditResult,
    /// Always 0.
    pub reserved: u32,
    /// Number of the settings (`ADIT_EVENT_SETTINGS`); 0 in other events.
    pub generation: u64,
    /// The whole event as an object of JSON, UTF-8, with a NUL behind it; never NULL.
    pub json: *const c_char,
    /// Bytes of `json` without the NUL.
    pub json_length: usize,
}

/// Takes the events of a tunnel.
///
/// Thread: the tunnel's thread "adit-callbacks", one call at a time, never together with a call of the packets callback.
/// What is still to be told when a callback stops its own tunnel is told from inside of that call, on the same thread.
/// No lock is held: it may call any function of this header, and it may block, which delays the tunnel's other callbacks
/// and nothing else. It must return: no C++ exception and no longjmp may leave it. Ownership: `event` and all that it
/// points to are the library's. Lifetime: until the callback returns. Errors: none.
pub type AditEventCallback =
    Option<unsafe extern "C" fn(context: *mut c_void, tunnel: AditTunnel, event: *const AditEvent)>;

impl AditEvent {
    /// The event without its text; `state` is the tunnel's as it was told last.
    pub(crate) fn new(event: &HostEvent, state: u32) -> Self {
        let (kind, result, generation) = match event {
            HostEvent::State { .. } => (ADIT_EVENT_STATE, ADIT_OK, 0),
            HostEvent::Started { error } => (ADIT_EVENT_STARTED, result_of(error.as_ref()), 0),
            HostEvent::Settings { generation, .. } => (ADIT_EVENT_SETTINGS, ADIT_OK, *generation),
            HostEvent::Handshake { .. } => (ADIT_EVENT_HANDSHAKE, ADIT_OK, 0),
            HostEvent::HandshakeTimedOut { .. } => (ADIT_EVENT_HANDSHAKE_TIMED_OUT, ADIT_OK, 0),
            HostEvent::Roamed { .. } => (ADIT_EVENT_ROAMED, ADIT_OK, 0),
            HostEvent::Room => (ADIT_EVENT_ROOM, ADIT_OK, 0),
            HostEvent::Updated { error } => (ADIT_EVENT_UPDATED, result_of(error.as_ref()), 0),
            HostEvent::Resumed => (ADIT_EVENT_RESUMED, ADIT_OK, 0),
            HostEvent::Stopped { error, .. } => (ADIT_EVENT_STOPPED, result_of(error.as_ref()), 0),
            // A kind that has no number yet is told as something for the log, with its own JSON.
            _ => (ADIT_EVENT_WARNING, ADIT_OK, 0),
        };
        Self {
            size: size_of::<Self>(),
            kind,
            state,
            result,
            reserved: 0,
            generation,
            json: std::ptr::null(),
            json_length: 0,
        }
    }
}

/// The number of a state in the ABI.
pub(crate) fn state_number(state: State) -> u32 {
    match state {
        State::Idle => ADIT_STATE_IDLE,
        State::Resolving => ADIT_STATE_RESOLVING,
        State::Handshaking => ADIT_STATE_HANDSHAKING,
        State::ApplyingSettings => ADIT_STATE_APPLYING_SETTINGS,
        State::Up => ADIT_STATE_UP,
        State::Reasserting => ADIT_STATE_REASSERTING,
        State::Stopping => ADIT_STATE_STOPPING,
    }
}

fn result_of(error: Option<&HostedError>) -> AditResult {
    error.map_or(ADIT_OK, |error| engine_code(error.code))
}

#[cfg(test)]
mod tests {
    use adit_control::hosted::{Code, HostSettings, StopReason};
    use adit_core::PublicKey;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_event_has_its_number_and_its_text() {
        let peer = PublicKey::from_bytes([0; 32]);
        let key = peer.to_base64();
        let error = || Some(HostedError::new(Code::PeerTimeout, "why"));
        let told = json!({"code": "peer-timeout", "message": "why"});
        let settings = HostSettings {
            addresses: Vec::new(),
            included_routes: Vec::new(),
            excluded_routes: Vec::new(),
            dns: None,
            mtu: 1280,
            remote_address: [127, 0, 0, 1].into(),
            exclude_local_networks: None,
            warnings: Vec::new(),
        };
        let applied = serde_json::to_value(&settings).unwrap();
        let cases: [(HostEvent, u32, AditResult, Value); 13] = [
            (
                HostEvent::State { state: State::ApplyingSettings },
                1,
                0,
                json!({"event": "state", "state": "applying-settings"}),
            ),
            (HostEvent::Started { error: None }, 2, 0, json!({"event": "started", "error": null})),
            (HostEvent::Started { error: error() }, 2, 6115, json!({"event": "started", "error": told})),
            (
                HostEvent::Settings { generation: 7, settings: Box::new(settings) },
                3,
                0,
                json!({"event": "settings", "generation": 7, "settings": applied}),
            ),
            (
                HostEvent::Handshake { peer, round_trip_ms: Some(1.5), first: true },
                4,
                0,
                json!({"event": "handshake", "peer": key, "round_trip_ms": 1.5, "first": true}),
            ),
            (
                HostEvent::HandshakeTimedOut { peer, retry_in_ms: None },
                5,
                0,
                json!({"event": "handshake-timed-out", "peer": key, "retry_in_ms": null}),
            ),
            (HostEvent::Roamed { peer }, 6, 0, json!({"event": "roamed", "peer": key})),
            (HostEvent::Room, 7, 0, json!({"event": "room"})),
            (
                HostEvent::Warning { code: "c".into(), message: "m".into() },
                8,
                0,
                json!({"event": "warning", "code": "c", "message": "m"}),
            ),
            (HostEvent::Updated { error: error() }, 9, 6115, json!({"event": "updated", "error": told})),
            (HostEvent::Resumed, 10, 0, json!({"event": "resumed"})),
            (
                HostEvent::Stopped { reason: StopReason(1), error: None },
                11,
                0,
                json!({"event": "stopped", "reason": 1, "error": null}),
            ),
            (
                HostEvent::Stopped { reason: StopReason(2), error: error() },
                11,
                6115,
                json!({"event": "stopped", "reason": 2, "error": told}),
            ),
        ];
        for (event, kind, result, text) in cases {
            let made = AditEvent::new(&event, 4);
            assert_eq!((made.kind, made.result, made.state), (kind, result, 4), "{event:?}");
            assert_eq!(made.generation, if kind == ADIT_EVENT_SETTINGS { 7 } else { 0 });
            assert_eq!(serde_json::to_value(&event).unwrap(), text);
        }
    }

    #[test]
    fn states_have_the_numbers_of_their_order() {
        let states = [
            State::Idle,
            State::Resolving,
            State::Handshaking,
            State::ApplyingSettings,
            State::Up,
            State::Reasserting,
            State::Stopping,
        ];
        assert_eq!(states.map(state_number), [0, 1, 2, 3, 4, 5, 6]);
    }
}
