//! A running tunnel: brought up, watched, reloaded and taken down.
//!
//! [`Tunnel::start`] goes through the states of a start in an order that cannot cut the host off: names are resolved
//! before anything is touched, the packet loop runs and a handshake is tried before a route leads into the tunnel, and
//! whatever fails undoes what came before it. [`Tunnel::stop`] is the way back. The packet loop has a thread of its own;
//! everything here runs on one tokio thread and may be slow.
//!
//! It does not decide where packets go (`adit_core`), what the host must apply (`settings`) or how (`route`).

mod change;
mod error;
mod events;
mod hooks;
mod pace;
mod platform;
mod predecessor;
mod repair;
mod save;
mod serve;
mod start;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use adit_tun::handle::{PumpCommand, PumpHandle, PumpSnapshot, Reply};
use adit_tun::socket::UdpSockets;
use tokio::sync::{Mutex, Notify, oneshot, watch};

use crate::api::ApiError;
use crate::config::Config;
use crate::endpoints::Resolved;
use crate::journal::Journal;
use crate::route;
use crate::settings::Settings;
use crate::timestamp;
pub use error::{Kind, TunnelError};
use events::Watcher;
use platform::{Dns, HostDevice};
use repair::Repair;
use serve::Servers;

/// What a tunnel is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tunnel's name; the interface has the same where the system lets interfaces have any.
    pub name: String,
    /// The file that the configuration was read from, and is read from again on reload.
    pub path: PathBuf,
    /// The configuration.
    pub config: Config,
    /// How long all endpoint names together may take to resolve, at the start and at every reload.
    pub resolve_wait: Duration,
    /// How long to wait for a first handshake before routes are applied; zero does not wait.
    pub handshake_wait: Duration,
    /// Whether the device may use the offloads of the kernel; without them packets go through it one by one.
    pub offload: bool,
    /// Where the tunnel keeps its sockets and files.
    pub directories: Directories,
    /// Is told how far the host's settings are applied, which takes seconds if there are very many.
    pub progress: watch::Sender<Progress>,
    /// Notify this to give the start up; it then fails with [`TunnelError::Stopping`], and everything is undone.
    pub cancel: Arc<Notify>,
}

/// How many of the changes that the host needs are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// So many are made.
    pub done: usize,
    /// So many are needed; 0 if that is not known yet.
    pub total: usize,
}

/// Where tunnels keep their sockets and files.
#[derive(Debug, Clone)]
pub struct Directories {
    /// Adit's own sockets and journals; emptied by a reboot.
    pub runtime: PathBuf,
    /// UAPI sockets, where wg(8) looks for them.
    pub uapi: PathBuf,
    /// What has to survive a reboot: the newest handshake timestamps.
    pub state: PathBuf,
}

impl Default for Directories {
    fn default() -> Self {
        Self {
            runtime: crate::api::SOCKET_DIR.into(),
            uapi: crate::uapi::SOCKET_DIR.into(),
            state: platform::STATE_DIR.into(),
        }
    }
}

/// A tunnel that is up. Dropping it without [`stop`](Self::stop) leaves the journal behind, as a crash does.
#[derive(Debug)]
pub struct Tunnel {
    shared: Arc<Shared>,
    servers: Servers,
    watcher: Watcher,
    pump: PumpThread,
    /// `None` where changes by others cannot be noticed.
    repair: Option<Repair>,
    /// Whether [`wait`](Self::wait) has told that the tunnel has ended by itself.
    lost: bool,
}

/// The packet loop's thread, which gives device and sockets back.
type PumpThread = adit_tun::PumpThread<HostDevice, UdpSockets>;

/// Why [`Tunnel::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked for it on the control socket.
    Requested,
    /// The packet loop has ended by itself, which it does when its device is gone.
    PumpEnded,
}

/// What the tunnel's servers and its owner share.
#[derive(Debug)]
struct Shared {
    /// The tunnel's name, by which its owner knows it.
    name: String,
    /// The interface's name, by which the system knows it.
    ifname: String,
    path: PathBuf,
    directories: Directories,
    resolve_wait: Duration,
    started: Instant,
    pump: PumpHandle,
    /// How far a start has applied its settings.
    progress: watch::Sender<Progress>,
    /// Gives the start up, as long as it lasts.
    cancel: Arc<Notify>,
    stop_requested: Notify,
    /// Whether somebody has asked for the end, and so for a host that is open again.
    down_requested: AtomicBool,
    /// How many changes by others were repaired.
    repairs: AtomicU64,
    /// How the way down ended, for those who asked for it.
    outcome: watch::Sender<Option<Result<(), ApiError>>>,
    /// The mark of the tunnel's own datagrams; 0 is none.
    fwmark: AtomicU32,
    /// The number of the interface that the tunnel's sockets are bound to; 0 is none.
    bound_to: AtomicU32,
    /// One change at a time: a reload, a UAPI `set` and a stop hold it while they work. `None` once a stop has begun.
    state: Mutex<Option<State>>,
}

/// What changes while the tunnel runs.
#[derive(Debug)]
struct State {
    config: Config,
    resolved: Resolved,
    settings: Settings,
    /// Whether the mark was asked for, and was not chosen by Adit.
    fwmark_from_user: bool,
    dns: Dns,
    journal: Journal,
}

impl Tunnel {
    /// Brings a tunnel up: resolve, make device and sockets, start the packet loop, try a handshake, apply settings.
    ///
    /// # Errors
    /// What failed and what would help; everything is as it was before, but for what a hook of the configuration did.
    pub async fn start(options: Options) -> Result<Self, TunnelError> {
        start::start(options).await
    }

    /// The tunnel's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Waits until somebody asks for the tunnel's end, or it has ended by itself.
    pub async fn wait(&mut self) -> Ended {
        tokio::select! {
            () = self.shared.stop_requested.notified() => Ended::Requested,
            () = self.watcher.pump_ended() => {
                self.lost = true;
                Ended::PumpEnded
            }
        }
    }

    /// Reads the file again and applies what changed. Sessions of peers whose keys stay the same go on; hooks do not run.
    /// Returns what the file says and was not applied, a sentence each.
    ///
    /// # Errors
    /// What was wrong; the running tunnel goes on as it was.
    pub async fn reload(&self) -> Result<Vec<String>, TunnelError> {
        self.shared.reload().await
    }

    /// Takes the tunnel down and undoes everything that it changed.
    ///
    /// A tunnel that has ended by itself, as [`wait`](Self::wait) tells, takes the host's protection along only if it was
    /// a split tunnel: a full tunnel's rules stay, so that nothing that it carried leaves in the clear, and so does the
    /// journal. Hooks run in either case, since what they undo is their own.
    ///
    /// # Errors
    /// What could not be undone, and stays in the journal for `adit recover`; everything else was.
    /// [`TunnelError::DeviceGone`] for a tunnel that has ended by itself.
    pub async fn stop(self) -> Result<(), TunnelError> {
        let Self { shared, servers, watcher, pump, repair, lost } = self;
        let mut state = shared.state.lock().await.take().ok_or(TunnelError::Stopping)?;
        if let Some(repair) = repair {
            repair.end().await;
        }
        let closed = lost && !shared.down_requested.load(Ordering::Relaxed) && route::keeps_closed(&state.journal);
        let interface = &state.config.interface;
        let mut ended = hooks::run_all("PreDown", &interface.pre_down, &shared.ifname).await;
        let snapshot = shared.snapshot().await;
        if let Ok(snapshot) = &snapshot {
            timestamp::store(&shared.directories.state, &snapshot.engine);
            if interface.save_config {
                ended = ended.and(save::save(&shared.path, &state, shared.fwmark.load(Ordering::Relaxed), snapshot));
            }
        }
        // Before the way to the servers is gone.
        state.dns.withdraw();
        let undone = if closed {
            route::undo_but_stay_closed(&mut state.journal).await
        } else {
            route::undo(&mut state.journal).await
        };
        shared.pump.stop();
        // The thread ends at once: it was told to, or has ended already. Dropping what it returns removes the interface.
        drop(tokio::task::spawn_blocking(move || pump.join()).await);
        watcher.finish().await;
        let after = hooks::run_all("PostDown", &interface.post_down, &shared.ifname).await;
        let undone = match undone {
            Ok(()) if closed => Ok(()),
            Ok(()) => state.journal.remove().map_err(TunnelError::from),
            Err(error) => Err(error.into()),
        };
        let gone = if lost { Err(TunnelError::DeviceGone { name: shared.name.clone(), closed }) } else { Ok(()) };
        let result = undone.and(gone).and(ended).and(after);
        tracing::info!(tunnel = %shared.name, "tunnel is down");
        // Whoever asked for the end is told what failed, and takes the closed connection for the sign that all is undone.
        shared.outcome.send_replace(Some(result.as_ref().copied().map_err(serve::api_error)));
        let _slow_reader = tokio::time::timeout(TELL_PATIENCE, shared.outcome.closed()).await;
        tokio::task::yield_now().await;
        drop(servers);
        result
    }
}

impl Shared {
    /// Asks the packet loop for something and waits for the answer.
    async fn ask<T: Send + 'static>(&self, command: impl FnOnce(Reply<T>) -> PumpCommand) -> Result<T, TunnelError> {
        let (reply, answer) = oneshot::channel();
        let command = command(Box::new(move |value| {
            // Whoever asked may have gone meanwhile.
            let _unwanted = reply.send(value);
        }));
        self.pump.send(command).map_err(|error| TunnelError::Pump(error.to_string()))?;
        match tokio::time::timeout(PUMP_PATIENCE, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(TunnelError::Pump("the packet loop has ended".into())),
            Err(_) => Err(TunnelError::Pump("the packet loop does not answer".into())),
        }
    }

    /// Binds the tunnel's sockets to another interface, and tells the peers where they are now.
    async fn bind(&self, binding: route::Binding) -> Result<(), TunnelError> {
        let wanted = match binding {
            route::Binding::Free => None,
            route::Binding::To(index) => Some(index),
            route::Binding::Unchanged => return Ok(()),
        };
        let number = wanted.map_or(0, NonZeroU32::get);
        if self.bound_to.load(Ordering::Relaxed) == number {
            return Ok(());
        }
        self.ask(|reply| PumpCommand::BindInterface(wanted, reply)).await??;
        self.bound_to.store(number, Ordering::Relaxed);
        let port = self.snapshot().await?.port;
        self.ask(|reply| PumpCommand::Rebind(port, reply)).await??;
        tracing::info!(interface = number, "the tunnel's datagrams leave by another interface");
        Ok(())
    }

    /// Passes a command on to the engine.
    async fn tell_engine(&self, command: adit_core::Command) -> Result<(), TunnelError> {
        Ok(self.ask(|reply| PumpCommand::Engine(command, reply)).await??)
    }

    /// Everything that the packet loop can tell.
    async fn snapshot(&self) -> Result<PumpSnapshot, TunnelError> {
        self.ask(PumpCommand::Snapshot).await.map(|snapshot| *snapshot)
    }

    /// The wall clock's reading at a moment of the engine's clock.
    fn wall_at(&self, at: Instant) -> SystemTime {
        let clock = adit_tun::clock::Clock::new();
        clock.wall() - clock.now().saturating_duration_since(at)
    }
}

/// How long whoever asked for the end may take to hear how it went.
const TELL_PATIENCE: Duration = Duration::from_secs(1);

/// How long the packet loop may take to answer: it does so within a turn, which takes milliseconds.
const PUMP_PATIENCE: Duration = Duration::from_secs(5);
