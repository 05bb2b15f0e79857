//! What goes into a session and what comes out of it.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::path::NetworkPath;

/// Where a tunnel is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not started, or stopped again.
    #[default]
    Idle,
    /// Names of endpoints are looked up.
    Resolving,
    /// Sockets and packet loop are there, and a first handshake is awaited.
    Handshaking,
    /// The host applies the tunnel's settings. Packets are taken from now on.
    ApplyingSettings,
    /// Up.
    Up,
    /// Up, but the way to the peers has changed or is lost.
    Reasserting,
    /// Everything is let go of.
    Stopping,
}

/// Why a tunnel was stopped: the numbers of Apple's NEProviderStopReason. Numbers of later systems are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct StopReason(pub u32);

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// All names of a configuration together.
    pub resolve: Duration,
    /// The first handshake; zero does not wait for one.
    pub handshake: Duration,
    /// Whether a start without a handshake fails; otherwise it goes on, as wg-quick's does.
    pub require_handshake: bool,
    /// The host's answer to the settings.
    pub settings: Duration,
    /// A start as a whole. Apple's systems give up after some 60 s.
    pub start: Duration,
    /// Letting go of everything.
    pub teardown: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            require_handshake: true,
            settings: Duration::from_secs(10),
            start: Duration::from_secs(30),
            teardown: Duration::from_secs(2),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The host wants the tunnel.
    Start,
    /// [`Action::Resolve`] with this number is done.
    Resolved {
        /// Which.
        attempt: u64,
        /// What came of it.
        result: Result<(), Failure>,
    },
    /// [`Action::Prepare`] is done: whether there is anybody to begin a handshake with.
    Prepared(Result<bool, Failure>),
    /// [`Action::Prepare`] failed, and may succeed a moment later: the system is short of sockets.
    NotPrepared(Failure),
    /// A handshake with a peer is done.
    Handshake,
    /// No peer has a session any more, and handshakes are not answered.
    Silent,
    /// The host has applied the settings of this generation.
    SettingsApplied(u64),
    /// The host could not, and why.
    SettingsFailed(u64, String),
    /// The host wants another configuration.
    Update,
    /// [`Action::ApplyUpdate`] is done: whether the host has other settings to apply than before.
    UpdateApplied(Result<bool, Failure>),
    /// [`Action::Rebind`] is done: how many peers have a session.
    Rebound(Result<usize, Failure>),
    /// The host reports the network below.
    Path(NetworkPath),
    /// The machine is about to sleep.
    Sleep,
    /// It woke.
    Wake,
    /// The packet loop has ended by itself.
    DeviceLost(Failure),
    /// The host wants no tunnel any more.
    Stop(StopReason),
    /// [`Action::Teardown`] is done.
    TornDown,
}

/// Something to be done by whoever drives the session. What asks for an answer names the [`Input`] that is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell the host that this is the state now.
    Enter(State),
    /// Look up the names of the configuration, or of the one it is to be updated to: [`Input::Resolved`].
    Resolve {
        /// Comes back with the answer.
        attempt: u64,
    },
    /// Make sockets and engine and start the packet loop: [`Input::Prepared`] or [`Input::NotPrepared`].
    Prepare,
    /// Begin handshakes with all peers.
    Connect,
    /// Ask the host to apply the settings: [`Input::SettingsApplied`] or [`Input::SettingsFailed`].
    AskSettings {
        /// Comes back with the answer.
        generation: u64,
    },
    /// Tell the host that its start is done; exactly one for each [`Input::Start`] that was taken.
    Started(Result<(), Failure>),
    /// Configure the engine anew: [`Input::UpdateApplied`].
    ApplyUpdate,
    /// Configure the engine as it was before.
    RevertUpdate,
    /// Tell the host that its update is done; exactly one for each [`Input::Update`] that was taken.
    Updated(Result<(), Failure>),
    /// Tell the engine the addresses that the names have now.
    Refresh,
    /// Make new sockets and tell the peers: [`Input::Rebound`].
    Rebind {
        /// Under another port: whatever stands between may remember the old one wrongly.
        fresh_port: bool,
        /// Bound to this interface, where the tunnel binds to any.
        interface: Option<NonZeroU32>,
    },
    /// Begin handshakes with all peers that have a session.
    Reconnect,
    /// Let the engine's timers rest.
    Suspend,
    /// Let them run, and look after all of them.
    Wake,
    /// Tell the host that the machine is awake and the tunnel goes on.
    Resumed,
    /// Tell the host something that it may want to know.
    Note {
        /// For programs.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// End the packet loop and close the sockets: [`Input::TornDown`].
    Teardown,
    /// Tell the host that a tunnel that was up has ended; exactly one for each start that succeeded.
    Stopped {
        /// The reason of the stop, or [`StopReason::PROVIDER_FAILED`] if it ended by itself.
        reason: StopReason,
        /// What failed, if it ended by itself.
        failure: Option<Failure>,
    },
}

impl State {
    /// Whether a start is under way.
    #[must_use]
    pub fn is_starting(self) -> bool {
        matches!(self, Self::Resolving | Self::Handshaking | Self::ApplyingSettings)
    }

    /// Whether the tunnel carries packets as far as it can.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Reasserting)
    }

    /// The name in JSON and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Resolving => "resolving",
            Self::Handshaking => "handshaking",
            Self::ApplyingSettings => "applying-settings",
            Self::Up => "up",
            Self::Reasserting => "reasserting",
            Self::Stopping => "stopping",
        }
    }
}

impl StopReason {
    /// No reason was given.
    pub const NONE: Self = Self(0);
    /// The user did it.
    pub const USER_INITIATED: Self = Self(1);
    /// The tunnel ended by itself.
    pub const PROVIDER_FAILED: Self = Self(2);

    /// The name that Apple gives it, in kebab case; `None` for numbers of later systems.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "none",
            1 => "user-initiated",
            2 => "provider-failed",
            3 => "no-network-available",
            4 => "unrecoverable-network-change",
            5 => "provider-disabled",
            6 => "authentication-canceled",
            7 => "configuration-failed",
            8 => "idle-timeout",
            9 => "configuration-disabled",
            10 => "configuration-removed",
            11 => "superceded",
            12 => "user-logout",
            13 => "user-switch",
            14 => "connection-failed",
            15 => "sleep",
            16 => "app-update",
            17 => "internal-error",
            _ => return None,
        })
    }
}
