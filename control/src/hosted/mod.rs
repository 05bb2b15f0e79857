//! A tunnel in the hands of a program that has it for a part: a packet tunnel provider, or any other host.
//!
//! The host owns the interface and applies the settings; Adit says which, and carries the packets. Nothing of the system is
//! changed here. Decisions are the session's (`crate::session`); here they are carried out. A tunnel has three threads:
//! `adit-control`, which never waits for the host; `adit-callbacks`, the only one that calls the host; and, while it runs,
//! the packet loop's `adit-pump`. Calls may come from any thread, the host's callbacks included.

mod driver;
mod engine_room;
mod event;
mod outbox;
mod settings;
mod stats;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use adit_core::route::ApplePlatform;
use adit_tun::Clock;
use adit_tun::device::Descriptor;
pub use adit_tun::device::host::HostBatch;
use adit_tun::device::host::HostPackets;
use adit_tun::handle::{PumpCommand, PumpHandle};
use adit_tun::memory::TABLE;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::session::Input;
pub use crate::session::{Code, Failure as HostedError, InterfaceKind, NetworkPath, Patience, State, StopReason};
use driver::{Answer, Driver, Order, STACK};
use engine_room::system;
pub use event::HostEvent;
use outbox::Outbox;
use settings::Surroundings;
pub use settings::{HostDns, HostSettings, Warning};
pub use stats::{Diagnostics, DropCount, HistoryEntry, HostedStats, PeerDiagnostics, Redaction, SettingsDiagnostics};

/// A tunnel; see the module's documentation. Dropping it stops it.
pub struct HostedTunnel {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    control: Option<JoinHandle<()>>,
    callbacks: Option<JoinHandle<()>>,
}

/// How a tunnel behaves, beside its configuration.
#[derive(Debug, Clone)]
pub struct HostedOptions {
    /// What it is called in log lines, and by what its files are named.
    pub name: String,
    /// How long each step may take.
    pub patience: Patience,
    /// Where it keeps what has to survive a restart: the newest handshake timestamp and the last addresses of endpoints.
    pub state_dir: Option<PathBuf>,
    /// The MTU in bytes if the configuration names none.
    pub default_mtu: u16,
    /// Bind sockets to the interface of the path that was reported. A packet tunnel provider does not need it: the system
    /// keeps its traffic out of tunnels.
    pub bind_to_path: bool,
    /// Whose faults the settings' warnings are about.
    pub platform: ApplePlatform,
}

/// Where a tunnel's packets come from and go to.
#[derive(Debug)]
pub enum PacketSource {
    /// [`HostedTunnel::inject`] and [`Host::packets`].
    Callbacks,
    /// A tun or utun device.
    Descriptor(Descriptor),
}

/// The program around a tunnel. All calls come from the tunnel's thread `adit-callbacks`, one after the other and with no
/// lock held; they may block and may call the tunnel.
pub trait Host: Send + Sync + 'static {
    /// Is told something.
    fn event(&self, event: &HostEvent);

    /// Is given packets that came out of the tunnel.
    fn packets(&self, packets: &HostBatch);
}

impl Default for HostedOptions {
    fn default() -> Self {
        let ios = cfg!(target_os = "ios");
        Self {
            name: "adit".to_owned(),
            patience: Patience::default(),
            state_dir: None,
            // What every cellular network carries, with room for the outer headers; other apps' default, too.
            default_mtu: if ios { 1280 } else { 1420 },
            bind_to_path: false,
            platform: if ios { ApplePlatform::Ios } else { ApplePlatform::MacOs },
        }
    }
}

/// What the tunnel's threads and its callers share.
struct Shared {
    options: HostedOptions,
    outbox: Outbox,
    /// The packet loop's ends, while there is one.
    live: RwLock<Live>,
    view: Mutex<View>,
    owed: Mutex<Owed>,
    poisoned: AtomicBool,
    no_room: AtomicU64,
}

#[derive(Default)]
struct Live {
    pump: Option<PumpHandle>,
    packets: Option<HostPackets>,
}

/// What can be told without asking the control thread.
struct View {
    state: State,
    config: Config,
    endpoints: Vec<SocketAddr>,
    path: Option<NetworkPath>,
    up_since: Option<Instant>,
}

/// Which completions the host still waits for.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    start: bool,
    update: bool,
    stop: bool,
}

impl HostedTunnel {
    /// Makes a tunnel, which does nothing until it is started.
    ///
    /// # Errors
    /// [`Code::System`] if the system gives no threads.
    pub fn new(config: Config, options: HostedOptions, host: Arc<dyn Host>) -> Result<Self, HostedError> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let shared = Arc::new(Shared {
            options: options.clone(),
            outbox: Outbox::new(host),
            live: RwLock::default(),
            view: Mutex::new(View {
                state: State::Idle,
                config: config.clone(),
                endpoints: Vec::new(),
                path: None,
                up_since: None,
            }),
            owed: Mutex::default(),
            poisoned: AtomicBool::new(false),
            no_room: AtomicU64::new(0),
        });
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let teller = Arc::clone(&shared);
        let poison = orders.clone();
        let callbacks = thread("adit-callbacks")
            .stack_size(HOST_STACK)
            .spawn(move || teller.outbox.run(|| teller.poison(&poison)))
            .map_err(|error| system("no threads", &error))?;
        let mut tunnel = Self { shared: Arc::clone(&shared), orders, control: None, callbacks: Some(callbacks) };
        let driver = Driver::new(Arc::clone(&shared), options, config, inbox);
        let control = thread("adit-control").stack_size(STACK).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| driver::run(driver)));
            let failure = match result {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(_) => HostedError::new(Code::Internal, "the control thread has panicked; this is a bug in Adit"),
            };
            shared.give_up(&failure);
        });
        tunnel.control = Some(control.map_err(|error| system("no threads", &error))?);
        Ok(tunnel)
    }

    /// What the host must apply for the configuration in force.
    #[must_use]
    pub fn settings(&self) -> HostSettings {
        self.shared.settings()
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.view(|view| view.state)
    }

    /// Starts. [`HostEvent::Settings`] asks for the settings on the way, and [`HostEvent::Started`] tells how it went.
    ///
    /// # Errors
    /// [`Code::AlreadyRunning`], [`Code::InvalidState`] while it is being stopped, [`Code::Poisoned`].
    pub fn start(&self, source: PacketSource) -> Result<(), HostedError> {
        self.usable()?;
        self.order(|answer| Order::Start(source, answer))
    }

    /// Lets packets come from a descriptor from now on; those that were injected are still carried.
    ///
    /// # Errors
    /// [`Code::InvalidState`] unless it is about to be up or is, with packets from callbacks; [`Code::Device`].
    pub fn attach(&self, descriptor: Descriptor) -> Result<(), HostedError> {
        self.usable()?;
        self.order(|answer| Order::Attach(descriptor, answer))
    }

    /// Gives packets to the tunnel, and says how many found room; [`HostEvent::Room`] tells when there is some again.
    ///
    /// # Errors
    /// [`Code::InvalidState`] if no packets are taken: before [`HostEvent::Settings`], after the end, or with a descriptor.
    pub fn inject(&self, packets: &[&[u8]]) -> Result<usize, HostedError> {
        let taken = {
            let live = self.shared.live.read().unwrap_or_else(PoisonError::into_inner);
            let taken = live.packets.as_ref().and_then(|live| live.inject(packets.iter().copied()).ok());
            taken
                .ok_or_else(|| HostedError::new(Code::InvalidState, "the tunnel takes no packets from callbacks now"))?
        };
        if taken < packets.len() {
            self.shared.no_room.fetch_add((packets.len() - taken) as u64, Ordering::Relaxed);
            self.shared.outbox.want_room();
        }
        Ok(taken)
    }

    /// The host has applied the settings of this generation.
    ///
    /// # Errors
    /// [`Code::Stale`] if nobody waits for that any more.
    pub fn settings_applied(&self, generation: u64) -> Result<(), HostedError> {
        self.usable()?;
        self.input(Input::SettingsApplied(generation))
    }

    /// The host could not apply the settings of this generation.
    ///
    /// # Errors
    /// [`Code::Stale`] if nobody waits for that any more.
    pub fn settings_failed(&self, generation: u64, message: &str) -> Result<(), HostedError> {
        self.usable()?;
        self.input(Input::SettingsFailed(generation, message.to_owned()))
    }

    /// Takes another configuration. If the tunnel is up, sessions of peers whose keys stay the same go on, and the host is
    /// asked to apply its settings if they are others than before. [`HostEvent::Updated`] tells how it went. A tunnel that is
    /// not started only remembers it: nothing is told.
    ///
    /// # Errors
    /// [`Code::InvalidState`] while it starts or stops, [`Code::Busy`] during another update.
    pub fn update(&self, config: Config) -> Result<(), HostedError> {
        self.usable()?;
        self.order(|answer| Order::Update(Box::new(config), answer))
    }

    /// The network below is this one now. Reports may repeat themselves and come in bursts.
    ///
    /// # Errors
    /// [`Code::Poisoned`].
    pub fn path_changed(&self, path: NetworkPath) -> Result<(), HostedError> {
        self.usable()?;
        self.input(Input::Path(path))
    }

    /// The machine is about to sleep.
    ///
    /// # Errors
    /// [`Code::Poisoned`].
    pub fn sleep(&self) -> Result<(), HostedError> {
        self.usable()?;
        self.input(Input::Sleep)
    }

    /// The machine woke.
    ///
    /// # Errors
    /// [`Code::Poisoned`].
    pub fn wake(&self) -> Result<(), HostedError> {
        self.usable()?;
        self.input(Input::Wake)
    }

    /// Numbers.
    ///
    /// # Errors
    /// [`Code::Poisoned`].
    pub fn stats(&self) -> Result<HostedStats, HostedError> {
        self.usable()?;
        Ok(self.shared.stats())
    }

    /// Everything that helps to understand what the tunnel does, and did.
    ///
    /// # Errors
    /// [`Code::Poisoned`].
    pub fn snapshot(&self, redaction: Redaction) -> Result<Diagnostics, HostedError> {
        self.usable()?;
        let (sender, history) = std::sync::mpsc::sync_channel(1);
        let ask = Order::History(Box::new(move |history| drop(sender.try_send(history))));
        self.orders.try_send(ask).map_err(|error| refused(&error))?;
        let history = history.recv_timeout(PATIENCE).map_err(|_| too_slow())?;
        let pump = self.shared.pump();
        let snapshot = pump.and_then(|pump| pump.snapshot().ok());
        let (drops, peers) =
            snapshot.map_or_else(Default::default, |snapshot| stats::of_snapshot(&snapshot, redaction));
        Ok(Diagnostics {
            version: env!("CARGO_PKG_VERSION"),
            name: match redaction {
                Redaction::Secrets => self.shared.options.name.clone(),
                Redaction::Addresses => "tunnel".to_owned(),
            },
            state: self.state(),
            path: self.shared.view(|view| view.path),
            stats: self.shared.stats(),
            drops,
            peers,
            settings: SettingsDiagnostics::new(self.settings(), redaction),
            history,
        })
    }

    /// Stops, in whatever state, and waits until that is done and the last call of the host has come back. The first reason
    /// of several is kept. From within a call of the host, what is still to be told is told from in here.
    ///
    /// # Errors
    /// [`Code::Timeout`] if the deadline passes first: no new call begins then, but one may still run.
    pub fn stop(&self, reason: StopReason, deadline: Duration) -> Result<(), HostedError> {
        let end = Instant::now() + deadline.min(LONGEST_STOP);
        let (sender, stopped) = std::sync::mpsc::sync_channel(1);
        let shared = Arc::clone(&self.shared);
        // Asked for on the control thread, where no start can come between.
        let answer: Answer = Box::new(move |_| {
            let _late = sender.try_send(shared.outbox.run_number());
        });
        let run = match self.orders.try_send(Order::Input(Input::Stop(reason), answer)) {
            Ok(()) => stopped.recv_timeout(end.saturating_duration_since(Instant::now())),
            Err(mpsc::error::TrySendError::Full(_)) => return Err(busy()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(std::sync::mpsc::RecvTimeoutError::Disconnected),
        };
        // If the control thread has ended or is late, it is about whatever run there is.
        let run = run.unwrap_or_else(|_| self.shared.outbox.run_number());
        if self.shared.outbox.wait_until_told(run, end) {
            Ok(())
        } else {
            self.shared.outbox.hush(run);
            Err(HostedError::new(Code::Timeout, "the tunnel was told to stop, and a callback of the host still runs"))
        }
    }

    /// Marks the tunnel as broken by a bug in Adit, and ends it; only stopping and dropping it are possible then.
    pub fn poison(&self) {
        self.shared.poison(&self.orders);
    }

    /// Whether a bug in Adit has ended the tunnel for good.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }

    /// Whether this is the thread that calls the host.
    #[must_use]
    pub fn is_callback_thread(&self) -> bool {
        self.shared.outbox.is_own_thread()
    }

    /// Panics on the control thread: what a bug in Adit would do.
    #[cfg(any(test, feature = "test-panics"))]
    pub fn panic_on_control_thread(&self) {
        drop(self.orders.try_send(Order::Run(Box::new(|| panic!("asked for by a test")))));
    }

    /// Panics in the packet loop: what a bug in Adit would do.
    #[cfg(any(test, feature = "test-panics"))]
    pub fn panic_in_packet_loop(&self) {
        if let Some(pump) = self.shared.pump() {
            let _gone = pump.send(PumpCommand::Counters(Box::new(|_| panic!("asked for by a test"))));
        }
    }

    fn usable(&self) -> Result<(), HostedError> {
        if self.is_poisoned() {
            return Err(HostedError::new(Code::Poisoned, "the tunnel has failed before; stop it and make a new one"));
        }
        Ok(())
    }

    fn input(&self, input: Input) -> Result<(), HostedError> {
        self.order(|answer| Order::Input(input, answer))
    }

    /// Has the control thread do something, and waits for the result; it never waits for the host.
    fn order(&self, order: impl FnOnce(Answer) -> Order) -> Result<(), HostedError> {
        let (sender, result) = std::sync::mpsc::sync_channel(1);
        let order = order(Box::new(move |result| drop(sender.try_send(result))));
        self.orders.try_send(order).map_err(|error| refused(&error))?;
        match result.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(too_slow()),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }
}

impl Drop for HostedTunnel {
    fn drop(&mut self) {
        drop(self.stop(StopReason::NONE, DROP_PATIENCE));
        self.shared.outbox.hush(self.shared.outbox.run_number());
        // It takes every order in turn; if its queue is full, it ends when the last sender is dropped, a moment later.
        drop(self.orders.try_send(Order::Quit));
        let (orders, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.orders, orders));
        if let Some(control) = self.control.take() {
            drop(control.join());
        }
        self.shared.outbox.quit();
        // A callback that has not come back keeps its thread, and the thread what it needs.
        if let Some(callbacks) = self.callbacks.take()
            && !self.shared.outbox.is_own_thread()
            && !self.shared.outbox.is_calling()
        {
            drop(callbacks.join());
        }
    }
}

impl Shared {
    fn view<T>(&self, work: impl FnOnce(&mut View) -> T) -> T {
        work(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn owe(&self, work: impl FnOnce(&mut Owed)) {
        work(&mut self.owed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn open(&self, pump: PumpHandle, packets: Option<HostPackets>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Live { pump: Some(pump), packets };
    }

    fn shut(&self) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Live::default();
    }

    fn pump(&self) -> Option<PumpHandle> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).pump.clone()
    }

    fn settings(&self) -> HostSettings {
        self.view(|view| {
            let surroundings = Surroundings {
                default_mtu: self.options.default_mtu,
                platform: self.options.platform,
                path: view.path.as_ref(),
                endpoints: &view.endpoints,
            };
            HostSettings::new(&view.config, surroundings)
        })
    }

    fn stats(&self) -> HostedStats {
        let (state, up_since) = self.view(|view| (view.state, view.up_since));
        let uptime = up_since.map(|since| Clock::new().now().saturating_duration_since(since));
        let (pump, queued) = {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            (live.pump.clone(), live.packets.as_ref().map_or(0, HostPackets::queued))
        };
        let mut stats = HostedStats {
            state,
            uptime_ms: uptime.map_or(0, stats::millis),
            inject_no_room: self.no_room.load(Ordering::Relaxed),
            callbacks: self.outbox.calls(),
            packet_memory_budget: TABLE.budget as u64,
            queued_bytes: queued as u64,
            ..HostedStats::default()
        };
        // The end of the packet loop comes first, and then everything is as before the start.
        if let Some(counters) = pump.and_then(|pump| pump.call(PumpCommand::Counters).ok()) {
            stats.packet_memory_bytes = TABLE.total() as u64;
            stats.count(&counters);
        }
        stats
    }

    fn poison(&self, orders: &mpsc::Sender<Order>) {
        self.poisoned.store(true, Ordering::Release);
        let failure = HostedError::new(Code::Internal, "a bug in Adit, or a panic of its host, has ended the tunnel");
        drop(orders.try_send(Order::Input(Input::DeviceLost(failure), Box::new(drop))));
    }

    /// The control thread is gone: tells the host whatever it still waits for.
    fn give_up(&self, failure: &HostedError) {
        self.poisoned.store(true, Ordering::Release);
        self.shut();
        self.outbox.disconnect();
        self.view(|view| (view.state, view.up_since) = (State::Idle, None));
        let mut owed = Owed::default();
        self.owe(|kept| owed = std::mem::take(kept));
        let error = || Some(failure.clone());
        if owed.update {
            self.outbox.tell(HostEvent::Updated { error: error() });
        }
        if owed.start {
            self.outbox.tell(HostEvent::Started { error: error() });
        }
        if owed.stop {
            self.outbox.tell(HostEvent::Stopped { reason: StopReason::PROVIDER_FAILED, error: error() });
        }
        self.outbox.end();
    }
}

impl std::fmt::Debug for HostedTunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostedTunnel").field("name", &self.shared.options.name).field("state", &self.state()).finish()
    }
}

fn refused<T>(error: &mpsc::error::TrySendError<T>) -> HostedError {
    match error {
        mpsc::error::TrySendError::Full(_) => busy(),
        mpsc::error::TrySendError::Closed(_) => ended(),
    }
}

fn busy() -> HostedError {
    HostedError::new(Code::Busy, "too many calls wait to be done; try again")
}

fn ended() -> HostedError {
    HostedError::new(Code::Poisoned, "the tunnel's control thread has ended")
}

fn too_slow() -> HostedError {
    HostedError::new(Code::Timeout, "the tunnel's control thread does not answer")
}

/// Calls that may wait for the control thread.
const ORDERS: usize = 64;

/// How long the control thread may take to answer: what it does are system calls that do not block.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long dropping waits for a callback of the host that has not come back.
const DROP_PATIENCE: Duration = Duration::from_secs(2);

/// The longest a stop waits, whatever was asked for: an `Instant` has an end.
const LONGEST_STOP: Duration = Duration::from_secs(24 * 3600);

/// Stack of the thread that calls the host, in bytes: the host's code runs on it.
const HOST_STACK: usize = 512 << 10;
