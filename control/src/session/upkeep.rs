//! What happens to a tunnel that is up: the network below changes, peers fall silent, the machine sleeps and wakes.

use std::time::{Duration, Instant};

use super::{Action, Code, Failure, PathChange, Search, Session, State};

impl Session {
    /// Does what time asks for.
    pub(super) fn look_around(&mut self, now: Instant) {
        if self.rest.settles(now) {
            if !self.is_cut_off() {
                self.do_(Action::Wake);
            }
            self.do_(Action::Resumed);
        }
        if !self.rest.is_awake() {
            return;
        }
        if self.paths.fire(now) {
            self.path_changed(now);
        }
        if self.search.is_some_and(|search| search.at <= now) {
            self.try_again(now);
        }
    }

    pub(super) fn sleep(&mut self) {
        if self.state.is_up() && self.rest.sleep() {
            self.do_(Action::Suspend);
        }
    }

    /// The network stands still again; compares it with the one that the sockets were made for.
    fn path_changed(&mut self, now: Instant) {
        let Some(path) = self.reported else { return };
        let change = path.change_from(self.taken.as_ref());
        let was_cut_off = self.is_cut_off();
        self.taken = Some(path);
        match change {
            PathChange::None => {}
            PathChange::Lost => {
                self.enter(State::Reasserting);
                self.do_(Action::Suspend);
                // The report may be wrong (A20 of the fact sheet calls it advice), so it is tried now and then.
                self.search = Some(Search { at: now + NO_NETWORK_PAUSE, pause: NO_NETWORK_PAUSE, silent: true });
            }
            PathChange::Moved => {
                if was_cut_off {
                    self.do_(Action::Wake);
                }
                self.enter(State::Reasserting);
                self.refresh();
                self.search = Some(Search { at: now + FIRST_PAUSE, pause: FIRST_PAUSE, silent: false });
                self.rebind(false);
            }
        }
    }

    /// No peer answers any more although the network seems to be as it was.
    pub(super) fn silent(&mut self, now: Instant) {
        if self.state == State::Up && self.rest.is_awake() {
            self.enter(State::Reasserting);
            self.refresh();
            self.search = Some(Search { at: now + FIRST_PAUSE, pause: FIRST_PAUSE, silent: true });
            self.rebind(true);
        }
    }

    /// Nothing has answered since the last try.
    fn try_again(&mut self, now: Instant) {
        let Some(search) = self.search else { return };
        if search.pause == FIRST_PAUSE && !search.silent {
            let message = "the peers do not answer on the new path; sockets are made anew under another port, \
                           less and less often";
            self.do_(Action::Note { code: "peers-silent", message: message.to_owned() });
        }
        let pause = (search.pause * 2).min(LONGEST_PAUSE);
        self.search = Some(Search { at: now + pause, pause, silent: true });
        self.refresh();
        self.rebind(true);
    }

    fn rebind(&mut self, fresh_port: bool) {
        let interface = self.taken.filter(super::NetworkPath::is_usable).and_then(|path| path.interface);
        self.do_(Action::Rebind { fresh_port, interface });
    }

    pub(super) fn rebound(&mut self, result: Result<usize, Failure>) {
        if self.state != State::Reasserting {
            return;
        }
        match result {
            // Nobody to wait for: the next packet begins a handshake by itself.
            Ok(0) if self.search.is_none_or(|search| !search.silent) => self.reached(),
            Ok(_) => {
                if self.search.is_some_and(|search| search.silent) {
                    self.do_(Action::Connect);
                }
                self.do_(Action::Reconnect);
            }
            Err(failure) => {
                let message = format!("{}; it is tried again", failure.message);
                let code = if failure.code == Code::Socket { "no-socket" } else { "not-rebound" };
                self.do_(Action::Note { code, message });
            }
        }
    }

    /// The peers can be reached again, as far as one can tell.
    pub(super) fn reached(&mut self) {
        self.search = None;
        // An answer over a network that is reported as lost: the report is wrong.
        if self.is_cut_off() {
            self.do_(Action::Wake);
        }
        self.enter(State::Up);
    }

    /// Whether the host reports that there is no network.
    fn is_cut_off(&self) -> bool {
        self.taken.is_some_and(|path| !path.is_usable())
    }
}

/// How long an answer over a new path may take: three handshake attempts (REKEY_TIMEOUT is 5 s, whitepaper section 6.1).
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// How long a network that is reported as lost is believed to be.
const NO_NETWORK_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
