//! Why a tunnel could not be started, changed or stopped.

use std::io;

use adit_core::CommandError;
use adit_tun::handle::MtuError;
use adit_tun::socket::BindError;
use thiserror::Error;

use crate::config::ConfigError;
use crate::dns::DnsError;
use crate::endpoints::ResolveError;
use crate::journal::JournalError;
use crate::route::RouteError;
use crate::socket::SocketError;
use adit_tun::device::TunError;

/// Why a tunnel could not be started, changed or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file that is to be reloaded names no private key, and the running tunnel has its key from that file.
    #[error("{path}: PrivateKey: the private key is missing, and a reload takes none away: is the file complete?")]
    KeyGone {
        /// The file.
        path: String,
    },
    /// An endpoint's name does not resolve.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// There is no device.
    #[error(transparent)]
    Device(#[from] TunError),
    /// There is no socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The engine refused the configuration.
    #[error(transparent)]
    Engine(#[from] CommandError),
    /// The MTU was not taken.
    #[error(transparent)]
    Mtu(#[from] MtuError),
    /// The host's settings could not be applied or undone.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The host's DNS settings could not be set.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The journal could not be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The tunnel's own sockets could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A hook of the configuration failed.
    #[error("{hook} `{command}` {outcome}")]
    Hook {
        /// `PreUp` and the like.
        hook: &'static str,
        /// The command, as the configuration has it.
        command: String,
        /// What became of it: "ended with exit status 1".
        outcome: String,
    },
    /// The running configuration could not be saved.
    #[error("the configuration was not saved to {path}: {source}")]
    Save {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The packet loop does not do what it is told.
    #[error("{0}")]
    Pump(String),
    /// The tunnel is being stopped.
    #[error("the tunnel is being stopped")]
    Stopping,
    /// The tunnel has ended by itself.
    #[error("the device is gone: somebody has removed it{}", if *closed { closed_until(name) } else { String::new() })]
    DeviceGone {
        /// The tunnel.
        name: String,
        /// Whether the host was left closed for what the tunnel carried.
        closed: bool,
    },
    /// A start has failed on a host that an earlier run has left closed, and still is.
    #[error("{cause}{}", closed_until(name))]
    StillClosed {
        /// The tunnel.
        name: String,
        /// Why the start has failed.
        cause: Box<TunnelError>,
    },
    /// The system gives no threads, random numbers or the like.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What kind of help a [`TunnelError`] needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A changed configuration.
    Configuration,
    /// More privileges.
    Permission,
    /// Another name or port, or the other tunnel's end.
    Exists,
    /// A network.
    Network,
    /// None: somebody wanted it so.
    Stopped,
    /// Something else.
    Other,
}

impl TunnelError {
    /// What kind of help would be needed.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config(_) | Self::KeyGone { .. } | Self::Engine(_) | Self::Mtu(MtuError::Tunnel(_)) => {
                Kind::Configuration
            }
            Self::Route(RouteError::MtuTooSmall { .. } | RouteError::Unsupported { .. })
            | Self::Device(TunError::Name { .. } | TunError::Mtu { .. }) => Kind::Configuration,
            Self::Socket(SocketError::Name { .. }) | Self::Journal(JournalError::Name { .. }) => Kind::Configuration,
            Self::Resolve(_) => Kind::Network,
            Self::Stopping => Kind::Stopped,
            Self::StillClosed { cause, .. } => cause.kind(),
            Self::Device(TunError::Exists { .. })
            | Self::Bind(BindError::PortBusy { .. })
            | Self::Journal(JournalError::Exists { .. })
            | Self::Socket(SocketError::InUse { .. })
            | Self::Route(RouteError::Conflict { .. }) => Kind::Exists,
            Self::Device(TunError::Permission { .. } | TunError::NoDriver { .. })
            | Self::Bind(BindError::PortForbidden { .. } | BindError::Mark { .. }) => Kind::Permission,
            Self::Route(error) if error.is_permission() => Kind::Permission,
            Self::Dns(DnsError::Refused) => Kind::Permission,
            Self::Journal(JournalError::Io { source, .. })
            | Self::Socket(SocketError::Io { source, .. })
            | Self::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Kind::Permission
            }
            _ => Kind::Other,
        }
    }
}

fn closed_until(name: &str) -> String {
    format!(
        "; the host stays closed for what the tunnel carried until `adit down {name}`, `adit recover {name}` or the next \
         `adit up {name}`"
    )
}
