//! Child processes as guards: what they say is kept, every wait has a deadline, and dropping one ends it.
//!
//! Children stay in the process group of the test, so that a test runner that ends a test for its time limit ends them
//! as well.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Seek as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually_some;

/// A running program whose output is captured; on drop it gets SIGTERM, and SIGKILL if that is not enough.
pub struct Process {
    title: String,
    child: Child,
    output: Arc<Output>,
    /// How many streams are read.
    streams: usize,
    /// Lines before this one were seen by [`Process::wait_for_line`].
    seen: u64,
}

impl Process {
    /// Starts `command` with its standard input closed and its output captured; `title` names it in messages.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(title: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {title}"))?;
        let output = Arc::new(Output::default());
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        let read = |stream| {
            let output = Arc::clone(&output);
            std::thread::spawn(move || output.collect(stream))
        };
        let streams = streams.into_iter().flatten().map(read).count();
        Ok(Self { title: title.to_owned(), child, output, streams, seen: 0 })
    }

    /// The process id; that of the program itself, for `ip netns exec` replaces itself with it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line, on either stream, that contains `text` and was not seen by an earlier call; returns it.
    ///
    /// # Errors
    /// If it does not come within `timeout`, or the process closes its output without it; with what was said.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut lines = self.output.lock();
        loop {
            let first = lines.first;
            let from = usize::try_from(self.seen.saturating_sub(first)).unwrap_or(usize::MAX);
            let found = lines.kept.iter().enumerate().skip(from).find(|(_, line)| line.contains(text));
            if let Some((index, line)) = found {
                self.seen = first + index as u64 + 1;
                return Ok(line.clone());
            }
            self.seen = first + lines.kept.len() as u64;
            let ended = lines.ended == self.streams;
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || left.is_zero() {
                let why = if ended { "it closed its output".into() } else { format!("not within {timeout:?}") };
                drop(lines);
                bail!("{} did not say «{text}»: {why}\n{self}", self.title);
            }
            lines = self.output.news.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The status, if the process has ended.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| self.title.clone())
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// If it does not within `timeout`; with what it said.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let ended = eventually_some("the process to end", timeout, || match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(Ok(status)),
            Err(error) => Some(Err(error)),
        });
        match ended {
            Ok(status) => status.with_context(|| self.title.clone()),
            Err(error) => Err(anyhow!("{}: {error}\n{self}", self.title)),
        }
    }

    /// Sends a signal; nothing happens if the process has ended.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Asking first fetches an ended child, so that its id cannot belong to another process meanwhile.
        if self.try_wait()?.is_none() {
            let pid = i32::try_from(self.id()).context("process id")?;
            kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.title))?;
        }
        Ok(())
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// If it does not end within `timeout`; with what it said.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit(timeout)
    }

    /// Everything it said until now, as far as it was kept (the last [`KEPT_LINES`] lines).
    pub fn output(&self) -> String {
        let lines = self.output.lock();
        lines.kept.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl fmt::Display for Process {
    /// The output, framed, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- output of {} (process {})\n{}---", self.title, self.id(), self.output())
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("title", &self.title).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
        if self.stop(TERM_PATIENCE).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` to its end and returns what it wrote to standard output.
///
/// # Errors
/// If it cannot be started, fails, or takes longer than [`RUN_LIMIT`]; with what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    finish(command, "", RUN_LIMIT)?.success()
}

/// Runs `command` to its end with `input` on its standard input, whatever its status: for programs whose failure is
/// the test, or that need more time.
///
/// # Errors
/// If it cannot be started or takes longer than `limit`.
pub fn finish(command: &mut Command, input: &str, limit: Duration) -> Result<Finished> {
    let title = describe(command);
    // A file never fills up as a pipe does, and a daemon that keeps it open delays nobody.
    let (mut stdin, mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?, tempfile::tempfile()?);
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    command.stdin(stdin).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot start `{title}`"))?;
    match eventually_some("the program to end", limit, || child.try_wait().transpose()) {
        Ok(status) => Ok(Finished { title, status: status?, stdout: text(&mut stdout)?, stderr: text(&mut stderr)? }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`{title}`: {error}\n{}{}", text(&mut stdout)?, text(&mut stderr)?)
        }
    }
}

/// What a program that has ended leaves.
#[derive(Debug)]
pub struct Finished {
    /// The command line.
    pub title: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Its standard output if it succeeded.
    ///
    /// # Errors
    /// If it failed; with what it wrote.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("`{}`: {}\n{}{}", self.title, self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Whether process `pid` runs; one that has ended and waits for its parent to notice (a zombie) does not.
pub fn is_alive(pid: u32) -> bool {
    // The state follows the command, which is in parentheses and may contain anything (proc_pid_stat(5)).
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether the environment that process `pid` was started with has `key` with `value`.
pub fn has_variable(pid: u32, key: &str, value: &str) -> bool {
    let wanted = format!("{key}={value}");
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}

/// The last lines of a process, shared between the threads that read and the one that waits.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// Number of the first line that is kept, counted from the start.
    first: u64,
    /// Streams that are at their end.
    ended: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, stream: Box<dyn Read + Send>) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // A line that never ends is cut: no program can make the test grow without bound.
        while stream.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut lines = self.lock();
            if lines.kept.len() == KEPT_LINES {
                lines.kept.pop_front();
                lines.first += 1;
            }
            lines.kept.push_back(text);
            self.news.notify_all();
        }
        self.lock().ended += 1;
        self.news.notify_all();
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LONGEST_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// How long a program that is expected to end at once may take.
pub const RUN_LIMIT: Duration = Duration::from_secs(30);

/// Lines of output that are kept of each process.
pub const KEPT_LINES: usize = 2000;

/// Bytes after which a line is cut.
const LONGEST_LINE: u64 = 16 * 1024;

/// Bytes of a finished program's output that are read.
const LONGEST_OUTPUT: u64 = 16 * 1024 * 1024;

/// How long a process may take after SIGTERM before it gets SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn lines_are_found_once_and_on_either_stream() {
        let mut process = shell("echo one; echo two >&2; echo one more; exec sleep 60");
        let soon = Duration::from_secs(10);
        assert!(process.wait_for_line("one", soon).is_ok());
        assert_eq!(process.wait_for_line("one", soon).unwrap(), "one more");
        let error = process.wait_for_line("one", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("not within") && error.contains("two"), "{error}");
    }

    #[test]
    fn a_process_that_ends_without_the_line_fails_at_once_with_its_output() {
        let mut process = shell("echo 'no such device' >&2; exit 7");
        let error = process.wait_for_line("ready", Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("closed its output") && error.contains("no such device"), "{error}");
        assert_eq!(process.wait_exit(Duration::from_secs(10)).unwrap().code(), Some(7));
    }

    #[test]
    fn dropping_ends_even_a_process_that_ignores_sigterm() {
        let mut process = shell("trap '' TERM; echo armed; while :; do sleep 1; done");
        process.wait_for_line("armed", Duration::from_secs(10)).unwrap();
        let id = process.id();
        drop(process);
        assert!(!is_alive(id) && is_alive(std::process::id()));
    }

    #[test]
    fn only_the_last_lines_are_kept_and_long_ones_are_cut() {
        let mut process = shell("seq 1 5000; head -c 100000 /dev/zero | tr '\\0' x; echo; echo done");
        process.wait_for_line("done", Duration::from_secs(30)).unwrap();
        let output = process.output();
        assert!(output.lines().count() <= KEPT_LINES);
        assert!(output.lines().all(|line| line.len() as u64 <= LONGEST_LINE));
        assert!(!output.contains("\n1\n") && output.contains("\n5000\n"));
    }

    #[test]
    fn finish_feeds_input_and_ends_what_takes_too_long() {
        let limit = Duration::from_secs(10);
        assert_eq!(finish(&mut Command::new("cat"), "hello", limit).unwrap().success().unwrap(), "hello");
        let failed = finish(Command::new("sh").args(["-c", "echo why >&2; exit 2"]), "", limit).unwrap();
        let error = failed.success().unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("why"), "{error}");
        let error = finish(Command::new("sleep").arg("60"), "", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("waited"), "{error}");
    }
}
