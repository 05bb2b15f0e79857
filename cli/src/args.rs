//! The command line: what can be asked, with help that a person can act on.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

/// A packet-tunnel engine: WireGuard in userspace, routed and resolved as you asked.
#[derive(Debug, Parser)]
#[command(name = "adit", version, max_term_width = 100, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// What to log, as a filter: error, warn, info, debug, trace, or per module (`info,adit_core=trace`)
    #[arg(
        long = "log",
        env = "ADIT_LOG",
        global = true,
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Logging"
    )]
    pub(crate) log: String,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human, value_name = "FORMAT", help_heading = "Logging")]
    pub(crate) log_format: LogFormat,
    /// Write log lines to this file instead of standard error; it is rotated at 1 MiB
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Logging")]
    pub(crate) log_file: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring a tunnel up
    #[command(after_help = "\
Examples:
  adit up wg0                    the tunnel of /etc/wireguard/wg0.conf (or /etc/adit/wg0.{conf,toml,json})
  adit up ./office.conf          the tunnel `office`
  adit up --foreground wg0       stay in the foreground; Ctrl-C brings it down, SIGHUP reloads the file")]
    Up(Up),
    /// Bring a tunnel down, and undo everything that it changed
    #[command(after_help = "Examples:\n  adit down wg0\n  adit down ./office.conf")]
    Down(Named),
    /// Show tunnels: handshake age, endpoint, transfer, drops by reason
    #[command(after_help = "\
Examples:
  adit status                    all tunnels
  adit status wg0 --watch        one tunnel, again every second
  adit status --json             for programs")]
    Status(Status),
    /// Find out what is wrong with tunnels, and how to mend it
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),
    /// Apply the file's changes to a running tunnel; sessions of unchanged peers go on
    #[command(after_help = "Example:\n  adit reload wg0")]
    Reload(Named),
    /// Undo what tunnels changed that ended without doing so themselves
    #[command(after_help = "Examples:\n  adit recover                   all of them\n  adit recover wg0")]
    Recover(Recover),
    /// Check a configuration and show all its errors at once
    #[command(after_help = crate::check::HELP)]
    Check(Check),
    /// Tell where packets go and why: which rule decides, which lose, and whether the kernel agrees
    #[command(after_help = "\
Examples:
  adit explain 192.0.2.7                      in the only tunnel that is up
  adit explain example.com wg0 --proto tcp --port 443
  adit explain 10.0.0.0/8 ./office.conf       what a file would make of a prefix, part by part
  adit explain 192.0.2.7 --from 10.0.0.5 wg0  a packet that the host forwards
  adit explain 192.0.2.7 ./office.conf --os apple

A running tunnel tells its settings itself, which root may ask; a file needs no
privileges. It ends with 0 whatever becomes of the packets, and with 1 if the
kernel does something else with them than the tunnel's settings say.")]
    Explain(Explain),
    /// Show rules and routes as a tree: what is asked in which order, and which prefix is inside of which
    #[command(after_help = "\
Examples:
  adit routes                    all tables, and the peers of all tunnels that are up
  adit routes wg0 --all          with the peers of one tunnel, and nothing left out
  adit routes --json             for programs")]
    Routes(Routes),
    /// Make a private key
    #[command(after_help = "Example:\n  umask 077; adit genkey | tee private | adit pubkey > public")]
    Genkey,
    /// Make a preshared key
    #[command(after_help = "Example:\n  umask 077; adit genpsk > preshared")]
    Genpsk,
    /// Read a private key from standard input and print its public key
    #[command(after_help = "Example:\n  adit pubkey < private > public")]
    Pubkey,
    /// Show a tunnel at work on this machine: two engines, real UDP, a transfer that is verified
    #[command(after_help = "\
Examples:
  adit demo                      real tun devices in namespaces of its own where that is allowed, in process elsewhere
  adit demo --mode process       without any privileges
  adit demo --size 64MiB --json  for programs

Nothing on the system is changed, and nothing is left behind.")]
    Demo(Demo),
    /// Measure what this machine can do: the engine alone, a whole tunnel beside other engines, the cost of scale
    #[command(after_help = "\
Examples:
  adit bench engine                     what a packet costs in the engine, beside its cipher alone
  adit bench tunnel                     traffic between two hosts on this machine
  adit bench scale --report ./scale     as peers and routes become many; with charts and a page
  adit bench engine --json > engine.json

Nothing on the system is changed. An interrupted run writes no report.")]
    Bench(Bench),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  adit completions bash > /etc/bash_completion.d/adit")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one page a command into a directory
    #[command(after_help = "Examples:\n  adit man | man -l -\n  adit man --dir /usr/local/share/man/man8")]
    Man {
        /// Write all pages here
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// A tunnel by name or file.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    /// Name of the tunnel, or its file
    #[arg(value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tunnel: String,
}

/// Options of `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    /// A configuration file (.conf as of wg-quick, .toml, .json), or a name to look for in /etc/wireguard and /etc/adit
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub(crate) tunnel: String,
    /// Name of the interface, if it is not to be that of the file
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Do not become a daemon
    #[arg(long, short)]
    pub(crate) foreground: bool,
    /// How long to wait for a first handshake before routes are applied, in seconds; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=MAX_WAIT))]
    pub(crate) handshake_wait: u64,
    /// How long the names of endpoints may take to resolve, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=MAX_WAIT))]
    pub(crate) resolve_wait: u64,
    /// Move packets through the device one by one, without the kernel's offloads: slower, and a way to tell whether they
    /// are at fault
    #[arg(long)]
    pub(crate) no_offload: bool,
    /// The pipe's other end is the command that a person typed: report there, then let go of it
    #[arg(long, hide = true)]
    pub(crate) report_ready: bool,
}

/// Options of `status`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Status {
    /// Only this tunnel
    pub(crate) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again and again
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", requires = "watch", value_parser = parse_interval)]
    pub(crate) interval: Duration,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Doctor {
    /// Only this tunnel, by its name or its file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) name: Option<String>,
    /// Print JSON: problems, and of each report the tunnel (null for the host) and its findings with check, severity,
    /// what, means, mend, command
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `recover`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Recover {
    /// Only this tunnel
    pub(crate) name: Option<String>,
}

/// Options of `check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Check {
    /// A configuration file, or a name to look for in /etc/wireguard and /etc/adit
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub(crate) tunnel: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `explain`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Explain {
    /// Where packets go: an address, a prefix, or a host name
    #[arg(value_name = "TARGET", value_hint = ValueHint::Hostname)]
    pub(crate) target: String,
    /// A tunnel that is up, or a file; not needed if exactly one tunnel is up
    #[arg(value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tunnel: Option<String>,
    /// Where packets come from: an address of this host, or of another whose packets it forwards
    #[arg(long, value_name = "ADDR")]
    pub(crate) from: Option<IpAddr>,
    /// What packets carry
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(crate) proto: Option<Proto>,
    /// The port that packets go to
    #[arg(long, value_name = "N", requires = "proto", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Tell what another system would do with this configuration
    #[arg(long, value_enum, value_name = "SYSTEM")]
    pub(crate) os: Option<Os>,
    /// With --os: the configuration has includeAllNetworks
    #[arg(long, requires = "os")]
    pub(crate) include_all_networks: bool,
    /// With --os: the configuration has enforceRoutes
    #[arg(long, requires = "os")]
    pub(crate) enforce_routes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
}

/// A system that is not this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Os {
    /// A packet tunnel provider on iOS.
    #[value(alias = "ios")]
    Apple,
    /// A packet tunnel provider on macOS.
    Macos,
}

/// Options of `routes`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Routes {
    /// Name the peers of this tunnel only
    #[arg(value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tunnel: Option<String>,
    /// Show every route, also of long lists and of the host's own addresses
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Where the two hosts live
    #[arg(long, value_enum, default_value_t = DemoMode::Auto)]
    pub(crate) mode: DemoMode,
    /// Bytes of the TCP transfer (`1GiB`, `64MiB`, `1000000`)
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_size)]
    pub(crate) size: u64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Address that both engines send from in process mode
    #[arg(long, hide = true, default_value = "127.0.0.1")]
    pub(crate) loopback: IpAddr,
}

/// Options of `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
    /// Print JSON: machine, subjects, measures with every sample, median, min and max of each point, notes
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write an HTML page and a chart (SVG) for each measure into this directory, which is made if it is not there
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) report: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BenchWhat {
    /// What a packet costs in the engine, by its size, beside the bare cipher and the same loop without cipher
    #[command(after_help = "\
Examples:
  adit bench engine                            about half a minute
  adit bench engine --runs 11 --duration 0.5   longer and more precise
  adit bench engine --report ./engine          with charts and a page")]
    Engine(crate::bench::engine::Options),
    /// What a packet and a peer cost as peers and routes become many
    #[command(after_help = "\
Examples:
  adit bench scale
  adit bench scale --size 1420 --json")]
    Scale(crate::bench::scale::Options),
    /// A whole tunnel between two hosts on this machine, beside any other engine that is named
    Tunnel(crate::bench::tunnel::Options),
    /// One end of a tunnel without cipher, for `tunnel --ceiling`
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Carrier(crate::bench::carrier::Options),
}

/// Where the demo's hosts live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoMode {
    /// In namespaces if that is allowed, else in process.
    Auto,
    /// In network namespaces of their own, with real tun devices (Linux; root or user namespaces).
    Kernel,
    /// In this process, as smoltcp hosts on in-memory devices.
    Process,
}

/// Reads a number of bytes with an optional binary unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(format!("`{unit}` is no unit: KiB, MiB and GiB are")),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "a size is a number from 1, like 64MiB".to_owned())
}

/// Reads a number of seconds, of which a tenth is the shortest that makes sense.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds from 0.1 to 86400, like 0.5".to_owned())
}

/// The longest that a start may be told to wait for something, in seconds.
const MAX_WAIT: u64 = 3600;

/// What stands below the options of `doctor`; as wide as a manual page.
const DOCTOR_HELP: &str = "\
Examples:
  adit doctor                    all tunnels that are up, and what dead
                                 ones have left behind
  adit doctor wg0
  adit doctor --json wg0         for programs

A problem is something that does not work or that lets traffic out; a
warning works, though not as most people would want; a note is worth
knowing. Nothing is changed. Without root less can be seen, and what
could not be looked at is told.

The exit code is 0 if there is no problem, 1 if there is one, and 6 if
there is no such tunnel.";

const AFTER_HELP: &str = "\
Exit codes:
  0  it is done
  1  it failed
  2  the command line is wrong
  3  the configuration is wrong
  4  not permitted: root, or CAP_NET_ADMIN and /dev/net/tun, is needed
  5  it is there already: the interface, the name or the UDP port is in use
  6  no such tunnel
  7  a name does not resolve, or the network does not answer
  130  interrupted before it was done, and undone

Environment:
  ADIT_LOG  what to log, if --log does not say
  NO_COLOR  no colours, if --color does not say

Tunnels are looked for in /etc/wireguard and /etc/adit.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn intervals_are_read_within_bounds() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "NaN", "inf", "1e9", "soon"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_lists_the_exit_codes_that_there_are() {
        use crate::failure::Kind::*;
        let documented: Vec<u8> =
            AFTER_HELP.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()?.parse().ok()).collect();
        let mut all =
            vec![NobodyReads, Failed, Usage, Configuration, NotPermitted, Exists, NotFound, Network, Interrupted];
        assert_eq!(documented, all.drain(..).map(crate::failure::Kind::code).collect::<Vec<_>>());
    }

    #[test]
    fn sizes_are_read_with_units() {
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("64m"), Ok(64 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        for wrong in ["", "0", "GiB", "5 parsecs", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
