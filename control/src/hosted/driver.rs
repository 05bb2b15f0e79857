//! The control thread of one tunnel: it does what the session decides, and tells the session what came of it.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_core::{Command, Event};
use adit_tun::Clock;
use adit_tun::device::Descriptor;
use tokio::sync::mpsc;

use super::engine_room::{self, EngineRoom, endpoints, system};
use super::event::{HostEvent, of_engine};
use super::settings::{HostSettings, Surroundings};
use super::stats::{HistoryEntry, millis};
use super::{HostedOptions, PacketSource, Shared};
use crate::config::Config;
use crate::endpoints::{LastAddresses, ResolveError, Resolved, resolve, translate};
use crate::narrate::narrate;
use crate::session::{Action, Code, Failure, Input, NetworkPath, Session, State};

/// What a call asks of the control thread.
pub(super) enum Order {
    /// Something happened to the host.
    Input(Input, Answer),
    /// Start with packets from here.
    Start(PacketSource, Answer),
    /// Take another configuration.
    Update(Box<Config>, Answer),
    /// Have packets from a descriptor from now on.
    Attach(Descriptor, Answer),
    /// Tell what was decided last.
    History(Box<dyn FnOnce(Vec<HistoryEntry>) + Send>),
    /// Do anything, on this thread.
    #[cfg(any(test, feature = "test-panics"))]
    Run(Box<dyn FnOnce() + Send>),
    /// End.
    Quit,
}

/// Takes the result of an order.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// The control thread's state.
pub(super) struct Driver {
    shared: Arc<Shared>,
    options: HostedOptions,
    orders: mpsc::Receiver<Order>,
    lookups: mpsc::Sender<Lookup>,
    looked_up: mpsc::Receiver<Lookup>,
    session: Session,
    clock: Clock,
    /// Where packets come from in the next run.
    source: Option<PacketSource>,
    room: Option<EngineRoom>,
    events: Option<mpsc::Receiver<Event>>,
    config: Config,
    resolved: Resolved,
    /// What the look-up that is under way brings, once the session says so.
    fresh: Option<Resolved>,
    candidate: Option<Config>,
    /// What was in force before an update.
    former: Option<(Config, Resolved)>,
    history: VecDeque<(Instant, String)>,
}

/// A look-up that is done.
struct Lookup {
    attempt: u64,
    result: Result<Resolved, ResolveError>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        options: HostedOptions,
        config: Config,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let (lookups, looked_up) = mpsc::channel(LOOKUPS);
        let session = Session::new(options.patience);
        Self {
            shared,
            options,
            orders,
            lookups,
            looked_up,
            session,
            clock: Clock::new(),
            source: None,
            room: None,
            events: None,
            config,
            resolved: Resolved::default(),
            fresh: None,
            candidate: None,
            former: None,
            history: VecDeque::with_capacity(HISTORY),
        }
    }

    /// Runs until it is told to end.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.clock.now();
            if self.session.poll_timeout().is_some_and(|at| at <= now) {
                self.session.handle_timeout(now);
                self.act();
                continue;
            }
            let pause = self.session.poll_timeout().map(|at| at.saturating_duration_since(now));
            tokio::select! {
                order = self.orders.recv() => match order {
                    None | Some(Order::Quit) => break,
                    Some(order) => self.order(order),
                },
                event = next(&mut self.events) => match event {
                    Some(event) => self.event(&event),
                    None => self.pump_ended(),
                },
                Some(lookup) = self.looked_up.recv() => self.take_lookup(lookup),
                // The system's sleep is none of this timer's time; a wake comes as an order, and is looked after then.
                () = sleep(pause) => {}
            }
        }
        self.close();
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Input(input, answer) => {
                let result = self.tell(input);
                answer(result);
            }
            Order::Start(source, answer) => {
                let result = self.session.handle(Input::Start, self.clock.now());
                if result.is_ok() {
                    self.source = Some(source);
                    self.shared.owe(|owed| owed.start = true);
                    self.shared.outbox.begin();
                }
                self.act();
                answer(result);
            }
            Order::Update(config, answer) => answer(self.update(*config)),
            Order::Attach(descriptor, answer) => answer(self.attach(descriptor)),
            Order::History(answer) => {
                let now = self.clock.now();
                let entry = |(at, what): &(Instant, String)| HistoryEntry {
                    age_ms: millis(now.saturating_duration_since(*at)),
                    what: what.clone(),
                };
                answer(self.history.iter().map(entry).collect());
            }
            #[cfg(any(test, feature = "test-panics"))]
            Order::Run(work) => work(),
            Order::Quit => {}
        }
    }

    /// Tells the session what happened, and does what it wants done.
    fn tell(&mut self, input: Input) -> Result<(), Failure> {
        if let Input::Path(path) = &input {
            self.note_path(path);
        }
        let result = self.session.handle(input, self.clock.now());
        self.act();
        result
    }

    fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            if let Some(answer) = self.do_(action) {
                // Answers are never refused.
                let _taken = self.session.handle(answer, self.clock.now());
            }
        }
    }

    /// Does one thing, and says what came of it if that is known at once.
    fn do_(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Enter(state) => self.enter(state),
            Action::Resolve { attempt } => self.look_up(attempt),
            Action::Prepare => {
                return Some(match self.prepare() {
                    Err(failure) if self.source.is_some() && failure.code == Code::System => {
                        Input::NotPrepared(failure)
                    }
                    result => Input::Prepared(result),
                });
            }
            Action::Connect => self.command(Command::Connect),
            Action::Reconnect => self.command(Command::Reconnect),
            Action::Suspend => self.command(Command::Suspend),
            Action::Wake => self.command(Command::Wake),
            Action::AskSettings { generation } => {
                self.pass_packets();
                let settings = Box::new(self.settings());
                self.remember(format!("asked the host to apply the settings of generation {generation}"));
                self.shared.outbox.tell(HostEvent::Settings { generation, settings });
            }
            Action::Started(result) => {
                let error = result.err();
                self.remember(format!("start: {}", said(error.as_ref())));
                self.shared.owe(|owed| (owed.start, owed.stop) = (false, error.is_none()));
                let failed = error.is_some();
                self.shared.outbox.tell(HostEvent::Started { error });
                if failed {
                    self.shared.outbox.end();
                }
            }
            Action::ApplyUpdate => return Some(Input::UpdateApplied(self.apply_update())),
            Action::RevertUpdate => self.revert_update(),
            Action::Updated(result) => {
                (self.candidate, self.former) = (None, None);
                let error = result.err();
                self.remember(format!("update: {}", said(error.as_ref())));
                self.shared.owe(|owed| owed.update = false);
                self.shared.outbox.tell(HostEvent::Updated { error });
            }
            Action::Refresh => self.refresh(),
            Action::Rebind { fresh_port, interface } => {
                return Some(Input::Rebound(self.rebind(fresh_port, interface)));
            }
            Action::Resumed => self.shared.outbox.tell(HostEvent::Resumed),
            Action::Note { code, message } => {
                tracing::warn!(tunnel = %self.options.name, "{message}");
                self.remember(format!("{code}: {message}"));
                self.shared.outbox.tell(HostEvent::Warning { code: code.to_owned(), message });
            }
            Action::Teardown => {
                self.teardown();
                return Some(Input::TornDown);
            }
            Action::Stopped { reason, failure } => {
                self.remember(format!("stopped for reason {}: {}", reason.0, said(failure.as_ref())));
                self.shared.owe(|owed| owed.stop = false);
                self.shared.outbox.tell(HostEvent::Stopped { reason, error: failure });
                self.shared.outbox.end();
            }
        }
        None
    }

    fn enter(&mut self, state: State) {
        tracing::info!(tunnel = %self.options.name, state = state.name(), "state");
        self.remember(format!("state {}", state.name()));
        let now = self.clock.now();
        self.shared.view(|view| {
            if state == State::Up && view.up_since.is_none() {
                view.up_since = Some(now);
            } else if !state.is_up() {
                view.up_since = None;
            }
            view.state = state;
        });
        self.shared.outbox.tell(HostEvent::State { state });
    }

    /// Looks up the names of the configuration that is, or is to be, in force; the answer comes by itself.
    fn look_up(&mut self, attempt: u64) {
        let config = self.candidate.as_ref().unwrap_or(&self.config).clone();
        let last = match &self.options.state_dir {
            Some(dir) => LastAddresses::load(dir, &self.options.name),
            None => LastAddresses::default(),
        };
        let (patience, answers) = (self.options.patience.resolve, self.lookups.clone());
        let is_ipv6_only = self.session.path().is_some_and(|path| path.ipv6 && !path.ipv4);
        tokio::spawn(async move {
            let mut result = resolve(&config, patience, last).await;
            if let (true, Ok(resolved)) = (is_ipv6_only, &mut result) {
                *resolved = translate(&config, std::mem::take(resolved)).await;
            }
            // Fails only when the tunnel is gone.
            let _gone = answers.send(Lookup { attempt, result }).await;
        });
    }

    fn take_lookup(&mut self, lookup: Lookup) {
        let result = match lookup.result {
            Ok(resolved) => {
                self.fresh = Some(resolved);
                Ok(())
            }
            Err(error) => Err(Failure::new(Code::Resolve, error.to_string())),
        };
        // It takes what is fresh while it acts, unless the look-up is nobody's any more.
        let _taken = self.tell(Input::Resolved { attempt: lookup.attempt, result });
        self.fresh = None;
    }

    fn prepare(&mut self) -> Result<bool, Failure> {
        // A second try has what the first was given.
        if let Some(resolved) = self.fresh.take() {
            self.resolved = resolved;
        }
        let interface = self.session.path().and_then(|path| path.interface);
        let socket = engine_room::socket(&self.config, &self.options, interface)?;
        let Some(source) = self.source.take() else {
            return Err(Failure::new(Code::Internal, "a start without a source of packets"));
        };
        let (room, events) = EngineRoom::open(&self.config, &self.resolved, &self.options, socket, source)?;
        let reached = endpoints(&self.config, &self.resolved);
        let has_peers = self.config.interface.private_key.is_some() && !reached.is_empty();
        // The host has no packets, and gets none, before it is asked to apply the settings.
        self.shared.open(room.pump.clone(), None);
        self.shared.view(|view| view.endpoints = reached);
        (self.room, self.events) = (Some(room), Some(events));
        Ok(has_peers)
    }

    fn command(&mut self, command: Command) {
        if let Some(Err(error)) = self.room.as_ref().map(|room| room.tell(command)) {
            // It has ended, which its events' end tells.
            tracing::debug!(%error, "a command was not taken");
        }
    }

    fn settings(&self) -> HostSettings {
        let (endpoints, path) = (endpoints(&self.config, &self.resolved), self.session.path());
        let surroundings = Surroundings {
            default_mtu: self.options.default_mtu,
            platform: self.options.platform,
            path: path.as_ref(),
            endpoints: &endpoints,
        };
        HostSettings::new(&self.config, surroundings)
    }

    /// Takes another configuration: at once if the tunnel does not run, step by step if it does.
    fn update(&mut self, config: Config) -> Result<(), Failure> {
        if self.session.state() == State::Idle {
            self.config = config;
            self.publish_config();
            return Ok(());
        }
        let before = self.candidate.replace(config);
        let result = self.session.handle(Input::Update, self.clock.now());
        if result.is_err() {
            self.candidate = before;
        } else {
            self.shared.owe(|owed| owed.update = true);
        }
        self.act();
        result
    }

    fn apply_update(&mut self) -> Result<bool, Failure> {
        let (Some(config), Some(room)) = (self.candidate.take(), &self.room) else {
            return Err(Failure::new(Code::Internal, "an update without a configuration or a tunnel"));
        };
        let resolved = self.fresh.take().unwrap_or_default();
        if let Err(failure) = room.reconfigure(&config, &self.config, &resolved, &self.options) {
            // What was changed before it failed goes back to what it was.
            if let Err(error) = room.reconfigure(&self.config, &config, &self.resolved, &self.options) {
                tracing::warn!(%error, "an update that failed was not undone");
            }
            return Err(failure);
        }
        let before = self.settings();
        let former = (std::mem::replace(&mut self.config, config), std::mem::replace(&mut self.resolved, resolved));
        self.former = Some(former);
        self.publish_config();
        Ok(self.settings() != before)
    }

    fn revert_update(&mut self) {
        let (Some((config, resolved)), Some(room)) = (self.former.take(), &self.room) else { return };
        if let Err(error) = room.reconfigure(&config, &self.config, &resolved, &self.options) {
            tracing::warn!(%error, "an update that the host refused was not undone");
        }
        (self.config, self.resolved) = (config, resolved);
        self.publish_config();
    }

    fn refresh(&mut self) {
        let (Some(resolved), Some(room)) = (self.fresh.take(), &self.room) else { return };
        match room.refresh(&self.config, &self.resolved, &resolved) {
            Ok(()) => self.resolved = resolved,
            Err(error) => tracing::debug!(%error, "the endpoints' addresses were not taken over"),
        }
        let reached = endpoints(&self.config, &self.resolved);
        self.shared.view(|view| view.endpoints = reached);
    }

    fn rebind(&mut self, fresh_port: bool, interface: Option<NonZeroU32>) -> Result<usize, Failure> {
        let port = if fresh_port { "another port" } else { "the same port" };
        self.remember(format!("made new sockets under {port}"));
        let Some(room) = &self.room else { return Err(Failure::new(Code::Internal, "there is no packet loop")) };
        room.rebind(&self.config, &self.options, fresh_port, interface)
    }

    fn attach(&mut self, descriptor: Descriptor) -> Result<(), Failure> {
        let state = self.session.state();
        let Some(room) = self.room.as_mut().filter(|_| state == State::ApplyingSettings || state.is_up()) else {
            let text = format!("a tunnel that is {} cannot be given a descriptor", state.name());
            return Err(Failure::new(Code::InvalidState, text));
        };
        room.attach(descriptor)?;
        self.shared.open(room.pump.clone(), None);
        self.remember("packets come from a descriptor from now on".to_owned());
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        narrate(event);
        if let Some(event) = of_engine(event) {
            self.shared.outbox.tell(event);
        }
        match event {
            Event::HandshakeCompleted { .. } => {
                if let (Some(dir), Some(room)) = (&self.options.state_dir, &self.room) {
                    room.keep_timestamp(dir);
                }
                let _taken = self.tell(Input::Handshake);
            }
            Event::HandshakeTimedOut { .. } => {
                let snapshot = self.room.as_ref().and_then(|room| room.pump.snapshot().ok());
                if snapshot.is_some_and(|snapshot| !snapshot.engine.peers.iter().any(|peer| peer.has_session)) {
                    let _taken = self.tell(Input::Silent);
                }
            }
            _ => {}
        }
    }

    /// The packet loop has ended by itself.
    fn pump_ended(&mut self) {
        self.events = None;
        self.shut();
        let Some(room) = self.room.take() else { return };
        let ended = room.close(self.options.state_dir.as_deref());
        let failure = ended.err().unwrap_or_else(|| Failure::new(Code::DeviceLost, "the packet loop has ended"));
        if failure.code == Code::Internal {
            self.shared.poisoned.store(true, Ordering::Release);
        }
        tracing::warn!(tunnel = %self.options.name, %failure, "the packet loop has ended");
        let _taken = self.tell(Input::DeviceLost(failure));
    }

    fn teardown(&mut self) {
        self.events = None;
        self.source = None;
        self.shut();
        if let Some(Err(failure)) = self.room.take().map(|room| room.close(self.options.state_dir.as_deref())) {
            tracing::debug!(%failure, "the packet loop had ended before it was stopped");
        }
    }

    /// Lets the host's packets in and the tunnel's out, unless a descriptor has them.
    fn pass_packets(&self) {
        let Some(room) = &self.room else { return };
        if let Some(packets) = &room.packets {
            self.shared.open(room.pump.clone(), Some(packets.clone()));
            self.shared.outbox.connect(packets.clone());
        }
    }

    /// Takes the tunnel's packets out of everybody's hands.
    fn shut(&mut self) {
        self.shared.shut();
        self.shared.outbox.disconnect();
    }

    /// The end of everything, whatever the state.
    fn close(&mut self) {
        self.teardown();
        self.shared.outbox.end();
    }

    fn publish_config(&mut self) {
        let (config, reached) = (self.config.clone(), endpoints(&self.config, &self.resolved));
        self.shared.view(|view| (view.config, view.endpoints) = (config, reached));
    }

    fn note_path(&mut self, path: &NetworkPath) {
        let path = *path;
        let before = self.shared.view(|view| view.path.replace(path));
        if before != Some(path) {
            let index = path.interface.map_or("none".to_owned(), |index| index.to_string());
            let state = if path.satisfied { "satisfied" } else { "not satisfied" };
            self.remember(format!("path: interface {index} ({:?}), {state}", path.kind));
        }
    }

    fn remember(&mut self, what: String) {
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((self.clock.now(), what));
    }
}

/// A thread's body: the runtime is made in it and ends with it.
pub(super) fn run(driver: Driver) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
        .map_err(|error| system("no runtime", &error))?;
    runtime.block_on(driver.run());
    // A look-up that hangs in the system's resolver must not keep the tunnel.
    runtime.shutdown_background();
    Ok(())
}

async fn next(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        // A timer wakes a millisecond late, but never early.
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

fn said(failure: Option<&Failure>) -> String {
    failure.map_or("done".to_owned(), |failure| format!("{:?}", failure.code))
}

/// Stack of a tunnel's own threads in bytes; what the system's resolver needs is the most.
pub(super) const STACK: usize = 256 << 10;

/// Decisions that are remembered.
const HISTORY: usize = 64;

/// Look-ups that may wait to be told.
const LOOKUPS: usize = 8;
