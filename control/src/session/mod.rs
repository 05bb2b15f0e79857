//! The life of a tunnel in a host's hands, as a pure state machine: Idle, Resolving, Handshaking, ApplyingSettings, Up,
//! Reasserting, Stopping.
//!
//! It decides when a name is looked up, a socket made, the host asked to apply settings and told about it, and nothing
//! else: it reads no clock, owns no socket and calls nobody. [`Session::handle`] takes what happened,
//! [`Session::poll_action`] says what is to be done, [`Session::poll_timeout`] when [`Session::handle_timeout`] wants to be
//! called. Whoever drives it asks both polls after every input.
//!
//! What it promises:
//! - The host is asked to apply settings only after a handshake, or after a decision not to wait for one; so nothing is
//!   routed into a tunnel that cannot carry it.
//! - Every state but Idle and Up has a deadline. A host that never answers, answers late or refuses ends in a failure with
//!   a code, and everything is let go of.
//! - A start and an update complete exactly once. A stop is taken in every state, and the first reason is kept.
//! - A network that flaps is answered once it stands still, a machine that wakes once it stays awake.

mod failure;
mod model;
mod path;
mod rest;
mod start;
mod upkeep;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use failure::{Code, Failure};
pub use model::{Action, Input, Patience, State, StopReason};
pub use path::{InterfaceKind, NetworkPath, PathChange};

use crate::debounce::Debouncer;
use rest::Rest;

/// The state machine; see the module's documentation.
#[derive(Debug)]
pub struct Session {
    patience: Patience,
    state: State,
    /// When the present step of a start, or a stop, is given up.
    step: Option<Instant>,
    /// When the start as a whole is given up; `Some` until it is completed.
    start: Option<Instant>,
    /// Number of the newest look-up.
    attempt: u64,
    /// Why the packet loop could not be started so far, and the pause before the next try.
    shortage: Option<(Failure, Duration)>,
    /// The question that the host has not answered yet.
    question: Option<Question>,
    /// Number of the newest question.
    generation: u64,
    update: Option<Update>,
    rest: Rest,
    paths: Debouncer,
    reported: Option<NetworkPath>,
    /// The path that the sockets were made for.
    taken: Option<NetworkPath>,
    /// How a way to the peers is looked for.
    search: Option<Search>,
    /// How it ends, once it does.
    end: Option<End>,
    actions: VecDeque<Action>,
}

/// A question to the host.
#[derive(Debug, Clone, Copy)]
struct Question {
    generation: u64,
    deadline: Instant,
}

/// An update that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Update {
    /// Until then the names of the new configuration may take.
    Resolving(Instant),
    /// The engine is being told.
    Applying,
    /// The host is asked.
    Asking,
}

/// Tries to reach the peers again.
#[derive(Debug, Clone, Copy)]
struct Search {
    /// When the next one is made.
    at: Instant,
    /// The pause after that.
    pause: Duration,
    /// Whether only an answer ends it: on a network that has just changed, a tunnel without sessions is as good as up.
    silent: bool,
}

#[derive(Debug)]
struct End {
    reason: StopReason,
    failure: Option<Failure>,
    /// Whether the start was not complete yet, and is to be completed with the failure.
    starting: bool,
}

impl Session {
    /// A session that was not started.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            state: State::Idle,
            step: None,
            start: None,
            attempt: 0,
            shortage: None,
            question: None,
            generation: 0,
            update: None,
            rest: Rest::default(),
            paths: Debouncer::new(PATH_QUIET, PATH_LONGEST),
            reported: None,
            taken: None,
            search: None,
            end: None,
            actions: VecDeque::new(),
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The path that the host reported last.
    #[must_use]
    pub fn path(&self) -> Option<NetworkPath> {
        self.reported
    }

    /// Takes what happened.
    ///
    /// # Errors
    /// A [`Failure`] if the host asks for something that does not fit the state; nothing has changed then. An answer to an
    /// [`Action`] is never refused: one that comes too late is ignored.
    pub fn handle(&mut self, input: Input, now: Instant) -> Result<(), Failure> {
        match input {
            Input::Start => return self.begin(now),
            Input::Resolved { attempt, result } if attempt == self.attempt => self.resolved(result, now),
            Input::Resolved { .. } => {}
            Input::Prepared(result) => self.prepared(result, now),
            Input::NotPrepared(failure) => self.not_prepared(failure, now),
            Input::Handshake => self.handshake(now),
            Input::Silent => self.silent(now),
            Input::SettingsApplied(generation) => return self.settings_answered(generation, Ok(()), now),
            Input::SettingsFailed(generation, message) => {
                return self.settings_answered(generation, Err(message), now);
            }
            Input::Update => return self.begin_update(now),
            Input::UpdateApplied(result) => self.update_applied(result, now),
            Input::Rebound(result) => self.rebound(result),
            Input::Path(path) => {
                self.reported = Some(path);
                self.paths.handle_event(now);
            }
            Input::Sleep => self.sleep(),
            Input::Wake => self.rest.wake(now),
            Input::DeviceLost(failure) => {
                if self.state.is_starting() || self.state.is_up() {
                    self.end(StopReason::PROVIDER_FAILED, Some(failure), now);
                }
            }
            Input::Stop(reason) => {
                if self.state.is_starting() || self.state.is_up() {
                    self.end(reason, None, now);
                }
            }
            Input::TornDown => self.torn_down(),
        }
        Ok(())
    }

    /// What is to be done next.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None` if only an input changes anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let up = self.state.is_up();
        let awake = up && self.rest.is_awake();
        let update = self.update.and_then(|update| match update {
            Update::Resolving(deadline) => Some(deadline),
            Update::Applying | Update::Asking => None,
        });
        [
            self.step,
            self.start,
            self.question.map(|question| question.deadline),
            update,
            self.rest.due().filter(|_| up),
            self.paths.due().filter(|_| awake),
            self.search.map(|search| search.at).filter(|_| awake),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Looks after every deadline that has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if over(self.step) {
            self.step_over(now);
        }
        if over(self.question.map(|question| question.deadline)) {
            self.no_answer(now);
        }
        if over(self.start) {
            let shortage = self.shortage.take().map(|(failure, _)| failure);
            let text = format!(
                "the tunnel did not come up within {} s: it was still {}",
                self.patience.start.as_secs(),
                self.state.name()
            );
            let failure = shortage.unwrap_or_else(|| Failure::new(Code::StartTimeout, text));
            self.end(StopReason::PROVIDER_FAILED, Some(failure), now);
        }
        if let Some(Update::Resolving(deadline)) = self.update
            && deadline <= now
        {
            self.resolved(Err(Failure::new(Code::Resolve, "the resolver did not answer in time")), now);
        }
        if self.state.is_up() {
            self.look_around(now);
        }
    }

    fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.actions.push_back(Action::Enter(state));
        }
    }

    fn do_(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Asks the host to apply the settings as they are now.
    fn ask(&mut self, now: Instant) {
        self.generation += 1;
        let generation = self.generation;
        self.question = Some(Question { generation, deadline: now + self.patience.settings });
        self.do_(Action::AskSettings { generation });
    }

    /// Lets go of everything, for `failure` or because the host wants it.
    fn end(&mut self, reason: StopReason, failure: Option<Failure>, now: Instant) {
        if self.update.take().is_some() {
            let stopped = Failure::new(Code::Stopped, "the tunnel was stopped before the update was done");
            self.do_(Action::Updated(Err(failure.clone().unwrap_or(stopped))));
        }
        self.end = Some(End { reason, failure, starting: self.start.take().is_some() });
        self.question = None;
        self.shortage = None;
        self.search = None;
        self.rest = Rest::default();
        self.paths = Debouncer::new(PATH_QUIET, PATH_LONGEST);
        // A look-up that is under way is nobody's any more.
        self.attempt += 1;
        self.step = Some(now + self.patience.teardown);
        self.enter(State::Stopping);
        self.do_(Action::Teardown);
    }

    fn torn_down(&mut self) {
        if self.state != State::Stopping {
            return;
        }
        self.step = None;
        self.taken = None;
        self.enter(State::Idle);
        let Some(End { reason, failure, starting }) = self.end.take() else { return };
        self.do_(match (starting, failure) {
            (true, Some(failure)) => Action::Started(Err(failure)),
            (true, None) => {
                Action::Started(Err(Failure::new(Code::Stopped, "the tunnel was stopped before it was up")))
            }
            (false, failure) => Action::Stopped { reason, failure },
        });
    }
}

/// Reports of the network closer than this are one (Mullvad's figures for routes).
const PATH_QUIET: Duration = Duration::from_millis(200);

/// The longest time for which reports that do not end are waited for.
const PATH_LONGEST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
