//! From a start to Up, and the same way again for an update: resolve, bind, handshake, and only then the host's settings.

use std::time::Instant;

use super::{Action, Code, Failure, Session, State, StopReason, Update};

impl Session {
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), Failure> {
        match self.state {
            State::Idle => {}
            State::Stopping => return Err(Failure::new(Code::InvalidState, "the tunnel is being stopped")),
            _ => return Err(Failure::new(Code::AlreadyRunning, "the tunnel was started already")),
        }
        self.start = Some(now + self.patience.start);
        self.enter(State::Resolving);
        self.resolve();
        // The look-up keeps to its patience by itself; this is for one that does not.
        self.step = Some(now + self.patience.resolve + GRACE);
        Ok(())
    }

    fn resolve(&mut self) {
        self.attempt += 1;
        self.do_(Action::Resolve { attempt: self.attempt });
    }

    pub(super) fn resolved(&mut self, result: Result<(), Failure>, now: Instant) {
        match (self.state, self.update, result) {
            (State::Resolving, _, Ok(())) => {
                self.step = None;
                self.do_(Action::Prepare);
            }
            (State::Resolving, _, Err(failure)) => self.end(StopReason::PROVIDER_FAILED, Some(failure), now),
            (_, Some(Update::Resolving(_)), Ok(())) => {
                self.update = Some(Update::Applying);
                self.do_(Action::ApplyUpdate);
            }
            (_, Some(Update::Resolving(_)), Err(failure)) => {
                self.attempt += 1;
                self.finish_update(Err(failure));
            }
            (state, None, Ok(())) if state.is_up() => self.do_(Action::Refresh),
            // The addresses of before are still there.
            _ => {}
        }
    }

    pub(super) fn prepared(&mut self, result: Result<bool, Failure>, now: Instant) {
        match result {
            _ if self.state != State::Resolving => {}
            Err(failure) => self.end(StopReason::PROVIDER_FAILED, Some(failure), now),
            Ok(has_peers) => {
                self.shortage = None;
                self.taken = self.reported;
                if has_peers && !self.patience.handshake.is_zero() {
                    self.step = Some(now + self.patience.handshake);
                    self.enter(State::Handshaking);
                    self.do_(Action::Connect);
                } else {
                    self.apply(now);
                }
            }
        }
    }

    /// The system is short of sockets, which passes; the start as a whole has a deadline.
    pub(super) fn not_prepared(&mut self, failure: Failure, now: Instant) {
        if self.state == State::Resolving {
            let pause = self.shortage.as_ref().map_or(FIRST_SHORTAGE, |(_, pause)| *pause * 2);
            self.step = Some(now + pause);
            self.shortage = Some((failure, pause));
        }
    }

    pub(super) fn handshake(&mut self, now: Instant) {
        match self.state {
            State::Handshaking => self.apply(now),
            State::Reasserting => self.reached(),
            _ => {}
        }
    }

    fn apply(&mut self, now: Instant) {
        self.step = None;
        self.enter(State::ApplyingSettings);
        self.ask(now);
    }

    /// The present step of a start, or a stop, took too long.
    pub(super) fn step_over(&mut self, now: Instant) {
        self.step = None;
        match self.state {
            State::Resolving if self.shortage.is_some() => self.do_(Action::Prepare),
            State::Resolving => {
                let failure = Failure::new(Code::Resolve, "the resolver did not answer in time");
                self.end(StopReason::PROVIDER_FAILED, Some(failure), now);
            }
            State::Handshaking => {
                let network = match self.reported {
                    Some(path) if !path.is_usable() => "; the host reports that there is no network",
                    _ => "",
                };
                let waited = self.patience.handshake.as_secs();
                let text = format!("no peer answered a handshake within {waited} s{network}");
                if self.patience.require_handshake {
                    self.end(StopReason::PROVIDER_FAILED, Some(Failure::new(Code::PeerTimeout, text)), now);
                } else {
                    self.do_(Action::Note { code: "no-handshake", message: text });
                    self.apply(now);
                }
            }
            // Whatever still holds on is left behind.
            State::Stopping => self.torn_down(),
            _ => {}
        }
    }

    pub(super) fn settings_answered(
        &mut self,
        generation: u64,
        answer: Result<(), String>,
        now: Instant,
    ) -> Result<(), Failure> {
        if self.question.is_none_or(|question| question.generation != generation) {
            let text = format!("nobody waits for an answer to the settings of generation {generation} (any more)");
            return Err(Failure::new(Code::Stale, text));
        }
        self.question = None;
        let answer = answer.map_err(|reason| {
            Failure::new(Code::SettingsRejected, format!("the host could not apply the settings: {reason}"))
        });
        self.settings_decided(answer, now);
        Ok(())
    }

    pub(super) fn no_answer(&mut self, now: Instant) {
        self.question = None;
        let waited = self.patience.settings.as_secs();
        let text = format!("the host did not say within {waited} s that the settings are applied");
        self.settings_decided(Err(Failure::new(Code::SettingsTimeout, text)), now);
    }

    fn settings_decided(&mut self, answer: Result<(), Failure>, now: Instant) {
        match (self.state, answer) {
            (State::ApplyingSettings, Ok(())) => {
                self.start = None;
                self.enter(State::Up);
                self.do_(Action::Started(Ok(())));
            }
            (State::ApplyingSettings, Err(failure)) => self.end(StopReason::PROVIDER_FAILED, Some(failure), now),
            (_, Ok(())) => self.finish_update(Ok(())),
            (_, Err(failure)) => {
                self.do_(Action::RevertUpdate);
                self.finish_update(Err(failure));
            }
        }
    }

    pub(super) fn begin_update(&mut self, now: Instant) -> Result<(), Failure> {
        if !self.state.is_up() {
            let text = format!("a tunnel that is {} cannot be updated: wait until it is up", self.state.name());
            return Err(Failure::new(Code::InvalidState, text));
        }
        if self.update.is_some() {
            return Err(Failure::new(Code::Busy, "another update is still under way"));
        }
        self.update = Some(Update::Resolving(now + self.patience.resolve + GRACE));
        self.resolve();
        Ok(())
    }

    pub(super) fn update_applied(&mut self, result: Result<bool, Failure>, now: Instant) {
        if self.update != Some(Update::Applying) {
            return;
        }
        match result {
            Ok(true) => {
                self.update = Some(Update::Asking);
                self.ask(now);
            }
            Ok(false) => self.finish_update(Ok(())),
            Err(failure) => self.finish_update(Err(failure)),
        }
    }

    fn finish_update(&mut self, result: Result<(), Failure>) {
        if self.update.take().is_some() {
            self.do_(Action::Updated(result));
        }
    }

    /// Looks the names up once more, unless that is being done.
    pub(super) fn refresh(&mut self) {
        if self.update.is_none() {
            self.resolve();
        }
    }
}

/// The first pause before sockets are asked for once more; it doubles from then on.
const FIRST_SHORTAGE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a look-up may take longer than it was told to.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
