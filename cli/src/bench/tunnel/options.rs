//! What `bench tunnel` was asked for: which engines, which measures, how long.
//!
//! Everything that can be wrong with it is found before anything is started.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::failure::{Failure, Kind, Outcome};

/// Options of `bench tunnel`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Two network namespaces on this machine are joined by a veth pair, and an engine runs in each. That takes root or a user \
namespace; without both, Adit alone is measured in process, which compares with nothing.

Examples:
  adit bench tunnel --preset installed
  adit bench tunnel --peer new='./wireguard-go -f {if}' --only tcp --runs 3
  adit bench tunnel --baseline --quick")]
pub(crate) struct Options {
    /// Measure another engine too: a command that stays in the foreground, makes a tun device with the name that
    /// stands for {if}, and listens on its UAPI socket, as wireguard-go does (repeatable)
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = parse_peer)]
    pub(super) peers: Vec<Peer>,
    /// Measure a well-known engine too
    #[arg(long = "preset", value_name = "ENGINE", value_enum, value_delimiter = ',')]
    pub(super) presets: Vec<Preset>,
    /// Measure the bare veth pair too
    #[arg(long)]
    pub(super) baseline: bool,
    /// Measure Adit's packet loop without any cipher too: what it could reach if protection cost nothing
    #[arg(long)]
    pub(super) ceiling: bool,
    /// How often everything is measured, each engine once a run [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) runs: Option<u32>,
    /// How long each single measurement takes [default: 3]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(super) seconds: Option<Duration>,
    /// One short run, to see that it works; its figures mean little
    #[arg(long)]
    pub(super) quick: bool,
    /// Only these groups of measures
    #[arg(long, value_name = "GROUP", value_enum, value_delimiter = ',')]
    pub(super) only: Vec<Group>,
    /// Stay in this process, as without privileges
    #[arg(long, conflicts_with_all = ["peers", "presets", "baseline", "ceiling"])]
    pub(super) in_process: bool,
}

/// An engine from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(super) name: String,
    /// The program and its arguments; [`INTERFACE`] is in one of them.
    pub(super) command: Vec<String>,
}

/// Engines whose command lines are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// The reference engine in Go
    WireguardGo,
    /// Cloudflare's engine in Rust (boringtun-cli)
    Boringtun,
    /// Mullvad's engine in Rust
    Gotatun,
    /// All of these that are found in PATH
    Installed,
}

/// Measures that are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Group {
    /// Throughput of TCP, with the processor time and the memory that it takes
    Tcp,
    /// Small UDP packets at increasing load
    Udp,
    /// Round trips, idle and under load
    Latency,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Unique in the report.
    pub(super) name: String,
    pub(super) kind: CandidateKind,
}

/// How a candidate comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CandidateKind {
    /// This very program, by `adit up`.
    Adit,
    /// Another engine, by its command.
    Foreign(Vec<String>),
    /// The loop of Adit without a cipher.
    Ceiling,
    /// No engine at all.
    Bare,
}

/// The options, checked and completed.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) candidates: Vec<Candidate>,
    pub(super) groups: BTreeSet<Group>,
    pub(super) runs: u32,
    /// Of each measurement.
    pub(super) time: Duration,
    /// Before each measurement.
    pub(super) warm_up: Duration,
    /// Offered loads of small packets, in packets/s.
    pub(super) rates: Vec<u32>,
}

impl Options {
    /// Whether anything but Adit was asked for.
    pub(super) fn wants_others(&self) -> bool {
        !self.peers.is_empty() || !self.presets.is_empty() || self.baseline || self.ceiling
    }

    /// Completes the options.
    ///
    /// # Errors
    /// Two subjects of one name.
    pub(super) fn plan(&self) -> Outcome<Plan> {
        let only = |group: &Group| self.only.is_empty() || self.only.contains(group);
        let time = if self.quick { QUICK_TIME } else { TIME };
        let (warm_up, rates) =
            if self.quick { (QUICK_WARM_UP, QUICK_RATES.as_slice()) } else { (WARM_UP, RATES.as_slice()) };
        Ok(Plan {
            candidates: self.candidates()?,
            groups: Group::value_variants().iter().copied().filter(only).collect(),
            runs: self.runs.unwrap_or(if self.quick { 1 } else { RUNS }),
            time: self.seconds.unwrap_or(time),
            warm_up,
            rates: rates.to_vec(),
        })
    }

    /// Adit first, since the others are compared with it.
    fn candidates(&self) -> Outcome<Vec<Candidate>> {
        let mut all = vec![Candidate { name: ADIT.to_owned(), kind: CandidateKind::Adit }];
        let foreign = |peer: Peer| Candidate { name: peer.name, kind: CandidateKind::Foreign(peer.command) };
        all.extend(self.peers.iter().cloned().map(foreign));
        for preset in Preset::ENGINES {
            let installed = self.presets.contains(&Preset::Installed) && find(preset.program()).is_some();
            if installed || self.presets.contains(&preset) {
                all.push(foreign(preset.peer()));
            }
        }
        if self.ceiling {
            all.push(Candidate { name: CEILING.to_owned(), kind: CandidateKind::Ceiling });
        }
        if self.baseline {
            all.push(Candidate { name: BARE.to_owned(), kind: CandidateKind::Bare });
        }
        let mut names = BTreeSet::new();
        match all.iter().find(|candidate| !names.insert(&candidate.name)) {
            Some(Candidate { name, .. }) => {
                let text = format!("two subjects would be called `{name}`: give --peer another NAME");
                Err(Failure::new(Kind::Usage, text))
            }
            None => Ok(all),
        }
    }
}

impl Preset {
    const ENGINES: [Self; 3] = [Self::WireguardGo, Self::Boringtun, Self::Gotatun];

    fn program(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun",
            Self::Installed => "",
        }
    }

    fn peer(self) -> Peer {
        let program = self.program();
        let options: &[&str] = match self {
            Self::WireguardGo => &["-f"],
            // They would give up root after the start, and their log would go to /tmp.
            Self::Boringtun | Self::Gotatun => &["-f", "--disable-drop-privileges", "--log", LOG],
            Self::Installed => &[],
        };
        let command = [program].iter().chain(options).chain(&[INTERFACE]).map(|word| (*word).to_owned()).collect();
        let name = program.trim_end_matches("-cli").to_owned();
        Peer { name, command }
    }
}

/// The path of a program that is found as execvp(3) does.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_executable(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    let (name, command) =
        text.split_once('=').ok_or("a peer is NAME=COMMAND, like new='./wireguard-go -f {if}'".to_owned())?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+- ".contains(c);
    if name.trim() != name || !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(fits) {
        return Err(format!("the name is 1 to {MAX_NAME} letters, digits and `. _ + -`"));
    }
    let command =
        shlex::split(command).ok_or_else(|| format!("the command of `{name}` has a quote that is not closed"))?;
    if command.is_empty() {
        return Err(format!("`{name}` has no command"));
    }
    if !command.iter().skip(1).any(|word| word.contains(INTERFACE)) {
        return Err(format!(
            "the command of `{name}` has no {INTERFACE}, which stands for the name of the tun device that it is to make"
        ));
    }
    Ok(Peer { name: name.to_owned(), command })
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number from 0.1 to 3600 is expected".to_owned())
}

/// What stands for the name of the tun device in a command.
pub(super) const INTERFACE: &str = "{if}";

/// Where an engine that insists on a file logs to: in the folder that is its namespace's own.
const LOG: &str = "/run/adit-bench/{if}.log";

const ADIT: &str = "adit";
const CEILING: &str = "no cipher";
const BARE: &str = "no tunnel";

/// Longest name of a peer, in bytes: tables stay tables.
const MAX_NAME: usize = 40;

const RUNS: u32 = 5;

/// TCP's window has opened long before: the round trip is below a millisecond. A second would do; three even out what
/// else the machine does.
const TIME: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
const QUICK_TIME: Duration = Duration::from_millis(300);
const QUICK_WARM_UP: Duration = Duration::from_millis(100);

/// From what every engine manages to what none does on two cores.
const RATES: [u32; 5] = [10_000, 20_000, 40_000, 80_000, 160_000];
const QUICK_RATES: [u32; 2] = [10_000, 40_000];

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Result<Options, String> {
        Line::try_parse_from([&["bench"], words].concat()).map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plan_is_complete_without_options() {
        let plan = options(&[]).unwrap().plan().unwrap();
        assert_eq!((plan.runs, plan.time, plan.rates.len()), (5, Duration::from_secs(3), 5));
        assert_eq!(plan.groups, BTreeSet::from([Group::Tcp, Group::Udp, Group::Latency]));
        assert_eq!(plan.candidates, [Candidate { name: "adit".into(), kind: CandidateKind::Adit }]);
    }

    #[test]
    fn what_is_said_goes_before_what_is_quick() {
        let plan = options(&["--quick", "--runs", "2", "--only", "udp,tcp"]).unwrap().plan().unwrap();
        assert_eq!((plan.runs, plan.time), (2, QUICK_TIME));
        assert_eq!(plan.groups, BTreeSet::from([Group::Tcp, Group::Udp]));
        assert_eq!(options(&["--quick", "--seconds", "0.5"]).unwrap().plan().unwrap().time.as_millis(), 500);
    }

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        let peer = parse_peer("my wg='/opt/a b/wg' -f --name={if}").unwrap();
        assert_eq!(peer.name, "my wg");
        assert_eq!(peer.command, ["/opt/a b/wg", "-f", "--name={if}"]);
    }

    #[test]
    fn what_is_wrong_with_a_peer_is_said() {
        for (text, what) in [
            ("wireguard-go -f {if}", "NAME=COMMAND"),
            ("=x {if}", "the name is"),
            ("a\u{1b}b=x {if}", "the name is"),
            ("wg=", "no command"),
            ("wg=x -f", "has no {if}"),
            ("wg={if}", "has no {if}"),
            ("wg=x '{if}", "a quote that is not closed"),
        ] {
            let said = parse_peer(text).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
            assert!(options(&["--peer", text]).unwrap_err().contains(what), "{text}");
        }
        for text in ["0", "-1", "nan", "inf", "3601", "x"] {
            assert!(options(&["--seconds", text]).is_err(), "{text}");
        }
        assert!(options(&["--runs", "0"]).is_err());
        assert!(options(&["--in-process", "--baseline"]).is_err());
    }

    #[test]
    fn subjects_have_names_of_their_own() {
        let names = |words: &[&str]| {
            let plan = options(words).unwrap().plan()?;
            Ok(plan.candidates.into_iter().map(|candidate| candidate.name).collect::<Vec<_>>())
        };
        let all =
            names(&["--baseline", "--ceiling", "--preset", "gotatun,wireguard-go,gotatun", "--peer", "new=x {if}"]);
        assert_eq!(all.unwrap(), ["adit", "new", "wireguard-go", "gotatun", "no cipher", "no tunnel"]);
        for same in ["adit=x {if}", "boringtun=x {if}"] {
            let failure: Failure = names(&["--preset", "boringtun", "--peer", same]).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert!(failure.message.starts_with("two subjects"), "{failure:?}");
        }
    }
}
