//! Bringing a tunnel up, step by step; whatever fails undoes what came before it, and leaves a host that it found closed
//! as closed as it was.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_core::{Command, Engine, EngineConfig};
use adit_tun::device::Device as _;
use adit_tun::handle::{PumpCommand, PumpHandle};
use adit_tun::pump::Pump;
use adit_tun::socket::{UdpOptions, UdpSockets};
use tokio::sync::{Mutex, Notify, watch};

use super::events::{self, Watcher};
use super::platform::{Dns, before_up, open_device};
use super::predecessor::{Inheritance, forget, inherit, refuse_running, with_closed};
use super::repair::Repair;
use super::serve::Servers;
use super::{Directories, Options, Progress, Shared, State, Tunnel, TunnelError, hooks};
use crate::api::ApiServer;
use crate::config::Config;
use crate::endpoints::{LastAddresses, Resolved, resolve};
use crate::journal::Entry;
use crate::route::{self, Applied, Monitor};
use crate::scratch;
use crate::settings::Settings;
use crate::timestamp;
use crate::uapi::UapiServer;

/// The MTU until the underlay's is known, in bytes: 1500 less WireGuard's overhead over IPv6.
const FIRST_MTU: u16 = 1420;

/// Brings a tunnel up.
pub(super) async fn start(options: Options) -> Result<Tunnel, TunnelError> {
    let (dir, name) = (options.directories.runtime.clone(), options.name.clone());
    try_start(options).await.map_err(|error| with_closed(&dir, &name, error))
}

async fn try_start(options: Options) -> Result<Tunnel, TunnelError> {
    let Options { name, path, config, resolve_wait, handshake_wait, offload, directories, progress, cancel } = options;
    scratch::sweep(&directories.state);
    let last = LastAddresses::load(&directories.state, &name);
    let resolved = unless(&cancel, resolve(&config, resolve_wait, last)).await?;

    refuse_running(&directories.runtime, &name)?;
    let api = ApiServer::bind(&directories.runtime, &name).await?;
    let mut inheritance = inherit(&directories.runtime, &name).await?;
    let parts = match prepare(&name, &config, offload, &resolved, &directories, &api, &mut inheritance).await {
        Ok(parts) => parts,
        Err(error) => {
            forget(inheritance.journal, inheritance.closed).await;
            return Err(error);
        }
    };
    let Inheritance { journal, closed, mark: former_mark } = inheritance;
    let Parts { ifname, settings, mark, bound_to, uapi, watcher, pump, thread } = parts;
    let fwmark_from_user = config.interface.fwmark.is_some_and(|mark| mark != 0);
    let shared = Arc::new(Shared {
        name,
        ifname,
        path,
        directories,
        resolve_wait,
        started: Instant::now(),
        pump,
        progress,
        cancel: Arc::clone(&cancel),
        stop_requested: Notify::new(),
        down_requested: AtomicBool::new(false),
        repairs: AtomicU64::new(0),
        outcome: watch::Sender::new(None),
        fwmark: AtomicU32::new(former_mark.unwrap_or(mark)),
        bound_to: AtomicU32::new(bound_to.map_or(0, NonZeroU32::get)),
        state: Mutex::new(Some(State { fwmark_from_user, config, resolved, settings, dns: Dns::none(), journal })),
    });
    // Hooks may call wg(8), so the sockets answer before the first of them runs.
    let servers = Servers::spawn(uapi, api, &shared);
    // It hears of the changes that follow, and so looks at them once more when all is up.
    let monitor =
        Monitor::open().inspect_err(|error| tracing::warn!(%error, "changes by others will not be noticed")).ok();
    match unless(&cancel, bring_up(&shared, &watcher, handshake_wait, former_mark.map(|former| (former, mark)))).await {
        Ok(Applied { index, .. }) => {
            tracing::info!(tunnel = %shared.name, "tunnel is up");
            let repair = monitor.map(|monitor| Repair::spawn(monitor, &shared, index));
            Ok(Tunnel { shared, servers, watcher, pump: thread, repair, lost: false })
        }
        Err(error) => {
            let stay_closed = closed && !shared.down_requested.load(Ordering::Relaxed);
            if let Some(mut state) = shared.state.lock().await.take() {
                state.dns.withdraw();
                forget(state.journal, stay_closed).await;
            }
            shared.pump.stop();
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
            watcher.finish().await;
            drop(servers);
            Err(error)
        }
    }
}

/// What a start makes before anything leads into the tunnel.
struct Parts {
    ifname: String,
    settings: Settings,
    mark: u32,
    bound_to: Option<NonZeroU32>,
    uapi: UapiServer,
    watcher: Watcher,
    pump: PumpHandle,
    thread: super::PumpThread,
}

/// Makes sockets, device and packet loop; dropping what was made undoes it, but for what the journal holds.
async fn prepare(
    name: &str,
    config: &Config,
    offload: bool,
    resolved: &Resolved,
    directories: &Directories,
    api: &ApiServer,
    inheritance: &mut Inheritance,
) -> Result<Parts, TunnelError> {
    let Inheritance { journal, mark: former_mark, .. } = inheritance;
    journal.record(Entry::Socket { path: api.path().to_owned() })?;
    let mut settings = settings_of(config, resolved);
    let mark = initial_mark(config, route::pin(&mut settings, journal).await?);
    let port = config.interface.listen_port.unwrap_or(0);
    let bound_to = route::binding(&settings).await?.interface();
    let socket = UdpSockets::bind(UdpOptions { port, mark: former_mark.unwrap_or(mark), bind_interface: bound_to })?;
    let mtu = usize::from(config.interface.mtu.unwrap_or(FIRST_MTU));
    let device = open_device(name, mtu, offload)?;
    let ifname = device.name().to_owned();
    // It is the interface that wg(8) asks for by name.
    let uapi = UapiServer::bind(&directories.uapi, &ifname).await?;
    journal.record(Entry::Socket { path: uapi.path().to_owned() })?;
    let engine = Engine::new(EngineConfig {
        mtu,
        seed: random_seed()?,
        timestamp_floor: config
            .interface
            .private_key
            .as_ref()
            .and_then(|key| timestamp::load(&directories.state, &key.public_key())),
        ..EngineConfig::default()
    })?;
    let (sink, events) = events::channel();
    let (pump, thread) = Pump::spawn(engine, device, socket, sink)
        .map_err(|source| TunnelError::System { action: "the packet loop could not be started", source })?;
    let watcher = Watcher::spawn(events, pump.clone(), directories.state.clone());
    Ok(Parts { ifname, settings, mark, bound_to, uapi, watcher, pump, thread })
}

/// Configures the engine, tries a handshake and applies the settings. On a host that an earlier run has left closed, only
/// the former of two marks gets out until then.
async fn bring_up(
    shared: &Shared,
    watcher: &Watcher,
    handshake_wait: Duration,
    marks: Option<(u32, u32)>,
) -> Result<Applied, TunnelError> {
    let (interface, update, has_endpoints) = {
        let state = shared.state.lock().await;
        let State { config, resolved, .. } = state.as_ref().ok_or(TunnelError::Stopping)?;
        let update = config.update(|endpoint| resolved.address(endpoint));
        (config.interface.clone(), update, config.peers.iter().any(|peer| peer.endpoint.is_some()))
    };
    hooks::run("PreUp", &interface.pre_up, &shared.ifname).await?;
    shared.tell_engine(Command::Update(Box::new(update))).await?;
    // Without a key there is nobody to answer; a hook after this may set one.
    let has_key = shared.snapshot().await?.engine.private_key.is_some();
    if handshake_wait > Duration::ZERO && has_endpoints && has_key {
        shared.tell_engine(Command::Connect).await?;
        if tokio::time::timeout(handshake_wait, watcher.first_handshake()).await.is_err() {
            tracing::warn!(
                waited_s = handshake_wait.as_secs_f64(),
                "no peer has answered yet; addresses and routes are applied all the same, as wg-quick does"
            );
        }
    }
    before_up(&shared.ifname);
    let applied = {
        let mut state = shared.state.lock().await;
        let state = state.as_mut().ok_or(TunnelError::Stopping)?;
        let mut tell = |done, total| {
            shared.progress.send_replace(Progress { done, total });
        };
        let applied = route::apply_with(&shared.ifname, &state.settings, &mut state.journal, &mut tell).await?;
        shared.bind(applied.binding).await?;
        // A hook may have chosen another one by wg(8).
        if let Some((_, mark)) = marks.filter(|(former, _)| shared.fwmark.load(Ordering::Relaxed) == *former) {
            shared.set_mark(mark).await?;
        }
        shared.ask(|reply| PumpCommand::SetMtu(applied.mtu.into(), reply)).await??;
        state.dns.apply(&state.config.interface, &shared.ifname).await?;
        applied
    };
    if let Err(error) = route::set_queue_length(&shared.ifname, QUEUE_LENGTH).await {
        tracing::debug!(%error, "the device keeps its short queue");
    }
    hooks::run("PostUp", &interface.post_up, &shared.ifname).await?;
    Ok(applied)
}

/// Does `work` unless the start is cancelled; then what was begun is dropped, and undone by the caller.
async fn unless<T, E>(cancel: &Notify, work: impl Future<Output = Result<T, E>>) -> Result<T, TunnelError>
where
    TunnelError: From<E>,
{
    tokio::select! {
        result = work => Ok(result?),
        () = cancel.notified() => Err(TunnelError::Stopping),
    }
}

/// Packets that the device's queue may hold: the 500 of a tun device are less than one TCP window at a gigabit.
const QUEUE_LENGTH: u32 = 1000;

/// The settings that a configuration asks for.
pub(super) fn settings_of(config: &Config, resolved: &Resolved) -> Settings {
    Settings::new(&config.wanted(resolved.all(config)))
}

/// The mark of the tunnel's own datagrams: the policy rules' if there are any, else the configuration's.
pub(super) fn initial_mark(config: &Config, pinned: Option<u32>) -> u32 {
    pinned.or(config.interface.fwmark).unwrap_or(0)
}

fn random_seed() -> Result<u64, TunnelError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| TunnelError::System {
        action: "the system gives no random numbers",
        source: std::io::Error::other(error),
    })?;
    Ok(u64::from_le_bytes(bytes))
}
