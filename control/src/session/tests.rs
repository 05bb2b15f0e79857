use proptest::prelude::*;

use super::path::tests::path;
use super::rest::{MANY_SHORT_WAKES, SETTLE, SETTLE_AT_NIGHT};
use super::*;

/// A session, a clock, and a driver that does whatever it is told at once and well, unless a test says otherwise.
struct Stage {
    session: Session,
    now: Instant,
    done: Vec<Action>,
    /// What the driver answers.
    resolver: Option<Result<(), Failure>>,
    peers: bool,
    peer_answers: bool,
    host: Option<Result<(), String>>,
    sessions: usize,
    changes_settings: bool,
    /// How often there are no sockets.
    shortages: u32,
}

impl Stage {
    fn new() -> Self {
        Self {
            session: Session::new(Patience::default()),
            now: Instant::now(),
            done: Vec::new(),
            resolver: Some(Ok(())),
            peers: true,
            peer_answers: true,
            host: Some(Ok(())),
            sessions: 1,
            changes_settings: true,
            shortages: 0,
        }
    }

    fn up() -> Self {
        let mut stage = Self::new();
        stage.tell(Input::Path(path(4))).unwrap();
        stage.run(Duration::from_secs(1));
        stage.tell(Input::Start).unwrap();
        assert_eq!(stage.session.state(), State::Up);
        stage.run(Duration::from_secs(3));
        stage.done.clear();
        stage
    }

    fn tell(&mut self, input: Input) -> Result<(), Failure> {
        let result = self.session.handle(input, self.now);
        self.drive();
        result
    }

    /// Does what is to be done, and answers.
    fn drive(&mut self) {
        while let Some(action) = self.session.poll_action() {
            self.done.push(action.clone());
            let answer = match action {
                Action::Resolve { attempt } => self.resolver.clone().map(|result| Input::Resolved { attempt, result }),
                Action::Prepare if self.shortages > 0 => {
                    self.shortages -= 1;
                    Some(Input::NotPrepared(Failure::new(Code::System, "no buffer space")))
                }
                Action::Prepare => Some(Input::Prepared(Ok(self.peers))),
                Action::Connect | Action::Reconnect => self.peer_answers.then_some(Input::Handshake),
                Action::AskSettings { generation } => self.host.clone().map(|answer| match answer {
                    Ok(()) => Input::SettingsApplied(generation),
                    Err(reason) => Input::SettingsFailed(generation, reason),
                }),
                Action::ApplyUpdate => Some(Input::UpdateApplied(Ok(self.changes_settings))),
                Action::Rebind { .. } => Some(Input::Rebound(Ok(self.sessions))),
                Action::Teardown => Some(Input::TornDown),
                _ => None,
            };
            if let Some(answer) = answer {
                self.session.handle(answer, self.now).unwrap();
            }
        }
    }

    /// Lets time pass, looking after every deadline on its way.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut turns = 0;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.drive();
            turns += 1;
            assert!(turns < 10_000, "a deadline that stays due: {:?}", self.session);
        }
        self.now = end;
    }

    fn count(&self, what: impl Fn(&Action) -> bool) -> usize {
        self.done.iter().filter(|action| what(action)).count()
    }

    fn outcome(&self) -> Option<Result<(), Code>> {
        let outcomes: Vec<_> = self
            .done
            .iter()
            .filter_map(|action| match action {
                Action::Started(result) => Some(result.clone().map_err(|failure| failure.code)),
                _ => None,
            })
            .collect();
        assert!(outcomes.len() <= 1, "{outcomes:?}");
        outcomes.into_iter().next()
    }
}

fn is_ask(action: &Action) -> bool {
    matches!(action, Action::AskSettings { .. })
}

fn is_handshake(action: &Action) -> bool {
    matches!(action, Action::Connect | Action::Reconnect)
}

#[test]
fn the_host_applies_settings_only_after_a_handshake() {
    let mut stage = Stage::new();
    stage.tell(Input::Start).unwrap();
    let order: Vec<_> = stage.done.iter().filter(|action| !matches!(action, Action::Enter(_))).collect();
    assert_eq!(
        order,
        [
            &Action::Resolve { attempt: 1 },
            &Action::Prepare,
            &Action::Connect,
            &Action::AskSettings { generation: 1 },
            &Action::Started(Ok(()))
        ]
    );
    let states: Vec<_> = stage
        .done
        .iter()
        .filter_map(|action| if let Action::Enter(state) = action { Some(*state) } else { None })
        .collect();
    assert_eq!(states, [State::Resolving, State::Handshaking, State::ApplyingSettings, State::Up]);
    assert_eq!(stage.session.poll_timeout(), None, "a tunnel that is up has no deadline of its own");
}

#[test]
fn every_step_of_a_start_has_a_deadline_and_a_code() {
    type Break = fn(&mut Stage);
    let cases: [(Break, Code, Duration); 3] = [
        (|stage| stage.resolver = None, Code::Resolve, Duration::from_secs(11)),
        (|stage| stage.peer_answers = false, Code::PeerTimeout, Duration::from_secs(10)),
        (|stage| stage.host = None, Code::SettingsTimeout, Duration::from_secs(10)),
    ];
    for (break_it, code, after) in cases {
        let mut stage = Stage::new();
        break_it(&mut stage);
        stage.tell(Input::Start).unwrap();
        assert_eq!(stage.outcome(), None);
        stage.run(after - Duration::from_millis(1));
        assert_eq!(stage.outcome(), None, "{code:?}");
        stage.run(Duration::from_millis(1));
        assert_eq!(stage.outcome(), Some(Err(code)));
        assert_eq!(stage.session.state(), State::Idle);
        assert_eq!(stage.count(|action| *action == Action::Teardown), 1);
        assert_eq!(stage.count(|action| matches!(action, Action::Stopped { .. })), 0, "it was never up");
        // And the next start is one like the first.
        let mut stage = Stage { done: Vec::new(), session: stage.session, now: stage.now, ..Stage::new() };
        stage.tell(Input::Start).unwrap();
        assert_eq!(stage.outcome(), Some(Ok(())));
    }
}

#[test]
fn a_start_as_a_whole_has_a_deadline_too() {
    let mut stage = Stage::new();
    stage.session = Session::new(Patience { handshake: Duration::from_secs(500), ..Patience::default() });
    stage.peer_answers = false;
    stage.tell(Input::Start).unwrap();
    stage.run(Duration::from_secs(31));
    assert_eq!(stage.outcome(), Some(Err(Code::StartTimeout)));
}

#[test]
fn a_shortage_of_sockets_is_waited_out_and_named_if_it_does_not_end() {
    let mut stage = Stage::new();
    stage.shortages = 5;
    stage.tell(Input::Start).unwrap();
    stage.run(Duration::from_secs(4));
    assert_eq!(stage.outcome(), Some(Ok(())), "five pauses of 0.1 to 1.6 s");

    let mut stage = Stage::new();
    stage.shortages = u32::MAX;
    stage.tell(Input::Start).unwrap();
    stage.run(Duration::from_secs(31));
    assert_eq!(stage.outcome(), Some(Err(Code::System)));
    assert!(stage.count(|action| *action == Action::Prepare) < 12, "sockets are not churned");
}

#[test]
fn answers_that_come_late_or_to_another_question_are_stale_and_change_nothing() {
    let mut stage = Stage::new();
    stage.host = None;
    assert_eq!(stage.tell(Input::SettingsApplied(0)).unwrap_err().code, Code::Stale);
    stage.tell(Input::Start).unwrap();
    assert_eq!(stage.tell(Input::SettingsApplied(2)).unwrap_err().code, Code::Stale);
    assert_eq!(stage.session.state(), State::ApplyingSettings);
    stage.run(Duration::from_secs(10));
    assert_eq!(stage.tell(Input::SettingsApplied(1)).unwrap_err().code, Code::Stale);
    assert_eq!(stage.tell(Input::SettingsFailed(1, "late".into())).unwrap_err().code, Code::Stale);
    assert_eq!(stage.outcome(), Some(Err(Code::SettingsTimeout)));

    // Nor does the answer to an earlier run's question count for this one.
    stage.done.clear();
    stage.tell(Input::Start).unwrap();
    assert_eq!(stage.tell(Input::SettingsApplied(1)).unwrap_err().code, Code::Stale);
    stage.tell(Input::SettingsApplied(2)).unwrap();
    assert_eq!(stage.tell(Input::SettingsApplied(2)).unwrap_err().code, Code::Stale, "twice is once too often");
    assert_eq!((stage.outcome(), stage.session.state()), (Some(Ok(())), State::Up));
}

#[test]
fn a_host_that_refuses_the_settings_ends_the_start() {
    let mut stage = Stage::new();
    stage.host = Some(Err("the extension was told no".into()));
    stage.tell(Input::Start).unwrap();
    assert_eq!(stage.outcome(), Some(Err(Code::SettingsRejected)));
    let told = stage.done.iter().find_map(|action| match action {
        Action::Started(Err(failure)) => Some(failure.message.clone()),
        _ => None,
    });
    assert!(told.unwrap().contains("the extension was told no"));
}

#[test]
fn without_anybody_to_call_there_is_no_wait_for_a_handshake() {
    let mut stage = Stage::new();
    stage.peers = false;
    stage.tell(Input::Start).unwrap();
    assert_eq!((stage.outcome(), stage.count(is_handshake)), (Some(Ok(())), 0));
}

#[test]
fn a_handshake_may_be_waited_for_in_vain_if_that_is_wanted() {
    let mut stage = Stage::new();
    stage.session = Session::new(Patience { require_handshake: false, ..Patience::default() });
    stage.peer_answers = false;
    stage.tell(Input::Start).unwrap();
    stage.run(Duration::from_secs(10));
    assert_eq!(stage.outcome(), Some(Ok(())));
    assert_eq!(stage.count(|action| matches!(action, Action::Note { code: "no-handshake", .. })), 1);
}

#[test]
fn a_network_that_is_reported_as_lost_is_no_reason_not_to_try() {
    let mut stage = Stage::new();
    stage.tell(Input::Path(NetworkPath { satisfied: false, ..path(0) })).unwrap();
    stage.run(Duration::from_secs(1));
    stage.tell(Input::Start).unwrap();
    assert_eq!(stage.outcome(), Some(Ok(())));
}

#[test]
fn a_second_start_is_told_apart_from_a_failure() {
    let mut stage = Stage::up();
    assert_eq!(stage.tell(Input::Start).unwrap_err().code, Code::AlreadyRunning);
    assert!(stage.done.is_empty());
}

#[test]
fn a_stop_is_taken_in_every_state_and_the_first_reason_is_kept() {
    let reason = StopReason(16);
    let mut idle = Stage::new();
    idle.tell(Input::Stop(reason)).unwrap();
    assert!(idle.done.is_empty());

    type Break = fn(&mut Stage);
    let starting: [(Break, State); 3] = [
        (|stage| stage.resolver = None, State::Resolving),
        (|stage| stage.peer_answers = false, State::Handshaking),
        (|stage| stage.host = None, State::ApplyingSettings),
    ];
    for (break_it, state) in starting {
        let mut stage = Stage::new();
        break_it(&mut stage);
        stage.tell(Input::Start).unwrap();
        assert_eq!(stage.session.state(), state);
        stage.tell(Input::Stop(reason)).unwrap();
        assert_eq!(stage.outcome(), Some(Err(Code::Stopped)), "{state:?}");
        stage.tell(Input::Stop(StopReason(1))).unwrap();
        stage.run(Duration::from_secs(100));
        assert_eq!(stage.session.state(), State::Idle);
        stage.outcome();
    }

    let mut up = Stage::up();
    up.session.handle(Input::Stop(reason), up.now).unwrap();
    up.session.handle(Input::Stop(StopReason(12)), up.now).unwrap();
    up.drive();
    let stops: Vec<_> = up.done.iter().filter(|action| matches!(action, Action::Stopped { .. })).collect();
    assert_eq!(stops, [&Action::Stopped { reason, failure: None }]);
}

#[test]
fn a_teardown_that_hangs_is_left_behind() {
    let mut stage = Stage::up();
    stage.session.handle(Input::Stop(StopReason(1)), stage.now).unwrap();
    while stage.session.poll_action().is_some() {}
    stage.run(Duration::from_secs(2));
    assert_eq!(stage.session.state(), State::Idle);
    assert_eq!(stage.count(|action| matches!(action, Action::Stopped { .. })), 1);
    stage.tell(Input::TornDown).unwrap();
    assert_eq!(stage.count(|action| matches!(action, Action::Stopped { .. })), 1);
}

#[test]
fn a_lost_device_ends_the_tunnel_with_its_reason() {
    let mut stage = Stage::up();
    let failure = Failure::new(Code::DeviceLost, "closed");
    stage.tell(Input::DeviceLost(failure.clone())).unwrap();
    let stopped = Action::Stopped { reason: StopReason::PROVIDER_FAILED, failure: Some(failure) };
    assert_eq!(stage.done.last(), Some(&stopped));
}

#[test]
fn a_burst_of_reports_is_answered_once_when_it_is_over() {
    let mut stage = Stage::up();
    for index in 0..50 {
        stage.tell(Input::Path(path(5 + index % 3))).unwrap();
        stage.run(Duration::from_millis(6));
    }
    assert_eq!(stage.count(|action| matches!(action, Action::Rebind { .. })), 0);
    stage.run(Duration::from_millis(200));
    assert_eq!(stage.count(|action| matches!(action, Action::Rebind { fresh_port: false, .. })), 1);
    assert_eq!(stage.session.state(), State::Up, "the peer has answered");
    stage.done.clear();

    // A burst that ends where it began is nothing at all.
    let same = stage.session.path().unwrap();
    for _ in 0..10 {
        stage.tell(Input::Path(NetworkPath { satisfied: false, ..same })).unwrap();
        stage.tell(Input::Path(same)).unwrap();
    }
    stage.run(Duration::from_secs(5));
    assert!(stage.done.is_empty(), "{:?}", stage.done);

    // One that does not end is answered all the same.
    for index in 0..40_u32 {
        stage.tell(Input::Path(path(20 + index))).unwrap();
        stage.run(Duration::from_millis(100));
    }
    let rebinds = stage.count(|action| matches!(action, Action::Rebind { .. }));
    assert!((1..=2).contains(&rebinds), "{rebinds}");
}

#[test]
fn a_new_path_is_reasserted_until_a_peer_answers_and_tried_less_and_less_often() {
    let mut stage = Stage::up();
    stage.peer_answers = false;
    stage.tell(Input::Path(path(9))).unwrap();
    stage.run(Duration::from_secs(3600));
    assert_eq!(stage.session.state(), State::Reasserting);
    let fresh = stage.count(|action| matches!(action, Action::Rebind { fresh_port: true, .. }));
    assert!((10..20).contains(&fresh), "sockets are dear: {fresh} in an hour");
    assert_eq!(stage.count(|action| matches!(action, Action::Note { code: "peers-silent", .. })), 1);
    stage.tell(Input::Handshake).unwrap();
    assert_eq!(stage.session.state(), State::Up);
    stage.done.clear();
    stage.run(Duration::from_secs(3600));
    assert!(stage.done.is_empty());
}

#[test]
fn without_sessions_a_new_path_needs_no_answer() {
    let mut stage = Stage::up();
    stage.sessions = 0;
    stage.tell(Input::Path(path(9))).unwrap();
    stage.run(Duration::from_secs(1));
    assert_eq!((stage.session.state(), stage.count(is_handshake)), (State::Up, 0));
    // But where a peer was called in vain, only its answer counts.
    stage.peer_answers = false;
    stage.tell(Input::Silent).unwrap();
    assert_eq!((stage.session.state(), stage.count(is_handshake)), (State::Reasserting, 2));
}

#[test]
fn a_lost_network_silences_the_engine_until_it_is_back_or_the_report_proves_wrong() {
    let mut stage = Stage::up();
    let lost = NetworkPath { satisfied: false, ..path(4) };
    stage.peer_answers = false;
    stage.tell(Input::Path(lost)).unwrap();
    stage.run(Duration::from_secs(20));
    assert_eq!(stage.session.state(), State::Reasserting);
    assert_eq!((stage.count(|a| *a == Action::Suspend), stage.count(is_handshake)), (1, 0));
    stage.tell(Input::Path(path(4))).unwrap();
    stage.peer_answers = true;
    stage.run(Duration::from_secs(1));
    assert_eq!((stage.session.state(), stage.count(|a| *a == Action::Wake)), (State::Up, 1));

    stage.done.clear();
    stage.tell(Input::Path(lost)).unwrap();
    stage.run(Duration::from_secs(40));
    assert_eq!(stage.session.state(), State::Up, "a peer has answered");
    assert_eq!(stage.count(|a| *a == Action::Wake), 1);
}

#[test]
fn a_night_of_dark_wakes_begins_no_handshake() {
    let mut stage = Stage::up();
    for _ in 0..8 {
        stage.tell(Input::Sleep).unwrap();
        stage.run(Duration::from_secs(15 * 60));
        stage.tell(Input::Wake).unwrap();
        // The network is another one at each wake, too: 20 seconds are enough to see it, and not to settle at night.
        stage.tell(Input::Path(path(100))).unwrap();
        stage.tell(Input::Path(path(4))).unwrap();
        stage.run(Duration::from_secs(3));
    }
    assert_eq!(stage.done, [Action::Suspend], "{:?}", stage.done);
    // Then its user opens the lid.
    stage.run(SETTLE_AT_NIGHT);
    assert_eq!(stage.done[1..], [Action::Wake, Action::Resumed]);
}

#[test]
fn wakes_count_later_once_many_were_short() {
    let mut stage = Stage::up();
    for round in 0..=MANY_SHORT_WAKES {
        stage.tell(Input::Sleep).unwrap();
        stage.run(Duration::from_secs(900));
        stage.tell(Input::Wake).unwrap();
        let settle = if round < MANY_SHORT_WAKES { SETTLE } else { SETTLE_AT_NIGHT };
        stage.run(settle - Duration::from_millis(1));
    }
    assert_eq!(stage.count(|a| *a == Action::Wake), 0);
    stage.run(Duration::from_millis(1));
    assert_eq!(stage.count(|a| *a == Action::Resumed), 1);
    // It is forgotten as soon as one has lasted.
    stage.tell(Input::Sleep).unwrap();
    stage.tell(Input::Wake).unwrap();
    stage.run(SETTLE);
    assert_eq!(stage.count(|a| *a == Action::Resumed), 2);
}

#[test]
fn a_network_that_changed_in_the_sleep_is_looked_at_after_a_wake_that_lasts() {
    let mut stage = Stage::up();
    stage.tell(Input::Sleep).unwrap();
    stage.tell(Input::Path(path(7))).unwrap();
    stage.run(Duration::from_secs(900));
    stage.tell(Input::Wake).unwrap();
    stage.run(SETTLE - Duration::from_millis(1));
    assert_eq!(stage.done, [Action::Suspend]);
    stage.run(Duration::from_secs(1));
    assert_eq!(stage.count(|action| matches!(action, Action::Rebind { fresh_port: false, .. })), 1);
    assert_eq!(stage.session.state(), State::Up);
}

#[test]
fn an_update_completes_once_whatever_the_host_says_to_it() {
    let mut stage = Stage::up();
    stage.tell(Input::Update).unwrap();
    assert_eq!(stage.count(|action| *action == Action::Updated(Ok(()))), 1);
    assert_eq!(stage.count(is_ask), 1);
    stage.done.clear();

    stage.changes_settings = false;
    stage.tell(Input::Update).unwrap();
    assert_eq!((stage.count(is_ask), stage.count(|action| *action == Action::Updated(Ok(())))), (0, 1));
    stage.done.clear();
    stage.changes_settings = true;

    for (host, code) in [(Some(Err("no".to_owned())), Code::SettingsRejected), (None, Code::SettingsTimeout)] {
        stage.host = host;
        stage.tell(Input::Update).unwrap();
        assert!(stage.session.handle(Input::Update, stage.now).is_err() || code == Code::SettingsRejected);
        stage.run(Duration::from_secs(60));
        let updated = |action: &Action| matches!(action, Action::Updated(Err(failure)) if failure.code == code);
        assert_eq!(stage.count(updated), 1);
        assert_eq!(stage.count(|action| *action == Action::RevertUpdate), 1);
        assert_eq!(stage.session.state(), State::Up, "the tunnel goes on as it was");
        stage.done.clear();
    }

    stage.resolver = None;
    stage.tell(Input::Update).unwrap();
    stage.run(Duration::from_secs(60));
    assert_eq!(stage.count(|action| matches!(action, Action::ApplyUpdate)), 0);
    assert_eq!(stage.count(|action| matches!(action, Action::Updated(Err(_)))), 1);
    stage.done.clear();

    stage.tell(Input::Update).unwrap();
    stage.tell(Input::Stop(StopReason(1))).unwrap();
    assert_eq!(stage.count(|action| matches!(action, Action::Updated(Err(_)))), 1);
    assert_eq!(stage.count(|action| matches!(action, Action::Stopped { .. })), 1);
    assert_eq!(stage.tell(Input::Update).unwrap_err().code, Code::InvalidState);
}

#[derive(Debug, Clone)]
enum Step {
    Tell(Input),
    Wait(u64),
    Resolver(bool),
    Peer(bool),
    Host(u8),
    Sessions(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let failure = Failure::new(Code::DeviceLost, "gone");
    prop_oneof![
        4 => Just(Step::Tell(Input::Start)),
        2 => (0..20_u32).prop_map(|reason| Step::Tell(Input::Stop(StopReason(reason)))),
        2 => Just(Step::Tell(Input::Update)),
        2 => Just(Step::Tell(Input::Handshake)),
        1 => Just(Step::Tell(Input::Silent)),
        1 => Just(Step::Tell(Input::TornDown)),
        1 => Just(Step::Tell(Input::DeviceLost(failure))),
        2 => Just(Step::Tell(Input::Sleep)),
        2 => Just(Step::Tell(Input::Wake)),
        3 => (0..4_u32, any::<bool>()).prop_map(|(index, satisfied)| {
            Step::Tell(Input::Path(NetworkPath { satisfied, ..path(index) }))
        }),
        2 => (0..9_u64).prop_map(|generation| Step::Tell(Input::SettingsApplied(generation))),
        1 => (0..9_u64).prop_map(|generation| Step::Tell(Input::SettingsFailed(generation, String::new()))),
        1 => (0..9_u64, any::<bool>()).prop_map(|(attempt, good)| {
            let result = if good { Ok(()) } else { Err(Failure::new(Code::Resolve, "no")) };
            Step::Tell(Input::Resolved { attempt, result })
        }),
        6 => prop_oneof![0..300_u64, 0..40_000_u64].prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Resolver),
        1 => any::<bool>().prop_map(Step::Peer),
        2 => (0..3_u8).prop_map(Step::Host),
        1 => (0..3_usize).prop_map(Step::Sessions),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_starts_and_updates_complete_once_and_nothing_is_asked_of_a_tunnel_that_cannot_carry(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut stage = Stage::new();
        let (mut starts, mut updates) = (0, 0);
        for step in steps {
            match step {
                Step::Tell(input) => {
                    let (start, update) = (input == Input::Start, input == Input::Update);
                    let taken = stage.tell(input).is_ok();
                    starts += usize::from(start && taken);
                    updates += usize::from(update && taken);
                }
                Step::Wait(milliseconds) => stage.run(Duration::from_millis(milliseconds)),
                Step::Resolver(answers) => stage.resolver = answers.then_some(Ok(())),
                Step::Peer(answers) => stage.peer_answers = answers,
                Step::Host(0) => stage.host = None,
                Step::Host(1) => stage.host = Some(Err("no".into())),
                Step::Host(_) => stage.host = Some(Ok(())),
                Step::Sessions(count) => stage.sessions = count,
            }
        }
        // Time alone completes whatever is under way.
        stage.run(Duration::from_secs(100));
        prop_assert!(!stage.session.state().is_starting() && stage.session.state() != State::Stopping);
        prop_assert_eq!(stage.count(|action| matches!(action, Action::Started(_))), starts);
        prop_assert_eq!(stage.count(|action| matches!(action, Action::Updated(_))), updates);

        let (mut loop_runs, mut carries, mut is_up) = (false, false, false);
        for action in &stage.done {
            match action {
                Action::Prepare => {
                    prop_assert!(!loop_runs, "a second packet loop");
                    loop_runs = true;
                }
                Action::Teardown => (loop_runs, carries) = (false, false),
                Action::Connect => carries = true,
                Action::AskSettings { .. } => prop_assert!(loop_runs && carries),
                Action::Rebind { .. } | Action::Refresh | Action::ApplyUpdate => prop_assert!(is_up),
                Action::Enter(state) => is_up = state.is_up(),
                _ => {}
            }
        }
        let ended = stage.count(|action| matches!(action, Action::Stopped { .. }));
        let came_up = stage.count(|action| *action == Action::Started(Ok(())));
        prop_assert_eq!(came_up, ended + usize::from(stage.session.state().is_up()));
    }
}
