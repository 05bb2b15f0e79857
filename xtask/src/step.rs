//! Steps of a task and the runner that goes through them.
//!
//! A step is data: a title, what it needs, and either a command or a function. The runner prints a header with the time
//! before each, stops at the first failure unless told otherwise, and ends with one summary line. It knows nothing about
//! what the steps do.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use crate::{command, instructions};

/// One step of a task.
pub(crate) struct Step {
    /// What it shows, in a few words.
    pub(crate) title: &'static str,
    /// What must be so for it to run; it is skipped with a printed reason otherwise.
    pub(crate) needs: Needs,
    /// What it does.
    pub(crate) work: Work,
}

/// A condition of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// Linux and user id 0: network namespaces, links, tun devices.
    Root,
    /// Valgrind, on a machine of the kind that the baseline of the instruction counts is from.
    Valgrind,
    /// Nothing, and it runs even after a failure, for it shows what the failure left behind.
    EvenAfterFailure,
}

/// What a step does.
pub(crate) enum Work {
    /// `cargo` with these arguments and variables.
    Cargo { args: Vec<String>, env: Vec<(&'static str, String)>, limit: Duration },
    /// A function of this program.
    Function(Box<Function>),
}

/// The work of a step that is not a command; an error of the kind [`Skipped`] is no failure.
pub(crate) type Function = dyn Fn(&Context) -> Result<()>;

/// Says that a step cannot be done on this machine, and why: the summary repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped(String);

impl Skipped {
    /// The error with which a step ends for `reason`.
    pub(crate) fn because(reason: impl Into<String>) -> anyhow::Error {
        Self(reason.into()).into()
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// What all steps of one run share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The folder of the workspace; commands run in it.
    pub(crate) root: PathBuf,
    /// The value of [`command::MARK`] in all processes of this run.
    pub(crate) mark: String,
    /// The folder for temporary files of this run.
    pub(crate) temporary: PathBuf,
    /// Variables that earlier steps hand to later ones.
    pub(crate) env: RefCell<Vec<(&'static str, String)>>,
}

impl Context {
    /// A `cargo` command in the workspace with the variables of this run.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// `program`, which calls Cargo, in the workspace with the variables of this run.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env(command::MARK, &self.mark).env("TMPDIR", &self.temporary);
        // Set by the `cargo run` that this program runs under; they must not reach builds of other packages.
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&key);
            }
        }
        for (key, value) in self.env.borrow().iter() {
            command.env(key, value);
        }
        command
    }
}

/// Goes through `steps`; an error if one of them failed.
pub(crate) fn run(context: &Context, steps: &[Step], keep_going: bool) -> Result<()> {
    let begun = Instant::now();
    let (mut passed, mut skipped, mut failed) = (0, Vec::new(), Vec::new());
    for (number, step) in (1..).zip(steps) {
        if !failed.is_empty() && !keep_going && step.needs != Needs::EvenAfterFailure {
            continue;
        }
        println!("\n=== [{number}/{}] {}", steps.len(), step.title);
        if let Some(reason) = unmet(step.needs) {
            println!("    skipped: {reason}");
            skipped.push((step.title, reason.to_owned()));
            continue;
        }
        let (step_begun, processor_begun) = (Instant::now(), processor_time());
        let result = perform(context, &step.work);
        let seconds = step_begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                let processor = processor_time() - processor_begun;
                println!("--- ok, {seconds:.1} s, of the processors {processor:.1} s");
                passed += 1;
            }
            Err(error) => match error.downcast::<Skipped>() {
                Ok(Skipped(reason)) => {
                    println!("--- SKIPPED after {seconds:.1} s: {reason}");
                    skipped.push((step.title, reason));
                }
                Err(error) => {
                    println!("--- FAILED after {seconds:.1} s: {error:#}");
                    failed.push(step.title);
                }
            },
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (all, left_out) = (steps.len(), skipped.len());
    println!("\n{passed} of {all} steps passed, {left_out} skipped, {} failed, {seconds:.1} s", failed.len());
    for (title, reason) in &skipped {
        println!("    SKIPPED {title}: {reason}");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Seconds that all commands took of the processors until now: what a busy machine does not change.
fn processor_time() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |used| seconds(used.user_time()) + seconds(used.system_time()))
}

fn perform(context: &Context, work: &Work) -> Result<()> {
    match work {
        Work::Cargo { args, env, limit } => {
            command::run(context.cargo().args(args).envs(env.iter().map(|(k, v)| (k, v))), *limit)
        }
        Work::Function(function) => function(context),
    }
}

fn unmet(needs: Needs) -> Option<&'static str> {
    match needs {
        Needs::Nothing | Needs::EvenAfterFailure => None,
        Needs::Root if !cfg!(target_os = "linux") => Some("network namespaces exist on Linux only"),
        Needs::Root if !nix::unistd::geteuid().is_root() => Some(
            "network namespaces and tun devices need root: run the same command with sudo or in a container as root",
        ),
        Needs::Root => None,
        Needs::Valgrind => instructions::unavailable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn context() -> Context {
        Context { root: ".".into(), mark: String::new(), temporary: std::env::temp_dir(), env: RefCell::default() }
    }

    /// Runs three steps of which the second fails, and a last one for after a failure; returns which ran.
    fn ran(keep_going: bool) -> (Vec<u8>, bool) {
        let log = Rc::new(RefCell::new(Vec::new()));
        let step = |id: u8, needs: Needs| {
            let log = Rc::clone(&log);
            let work = move |_: &Context| {
                log.borrow_mut().push(id);
                if id == 2 { bail!("broken") } else { Ok(()) }
            };
            Step { title: "a step", needs, work: Work::Function(Box::new(work)) }
        };
        let steps = [
            step(1, Needs::Nothing),
            step(2, Needs::Nothing),
            step(3, Needs::Nothing),
            step(4, Needs::EvenAfterFailure),
        ];
        let result = run(&context(), &steps, keep_going).is_ok();
        let order = log.borrow().clone();
        (order, result)
    }

    #[test]
    fn the_first_failure_ends_the_run_but_not_the_clean_up_check() {
        assert_eq!(ran(false), (vec![1, 2, 4], false));
    }

    #[test]
    fn a_step_that_cannot_be_done_here_is_no_failure_wherever_it_says_so() {
        let step = |error: fn() -> anyhow::Error| {
            let work = move |_: &Context| Err(error());
            [Step { title: "a step", needs: Needs::Nothing, work: Work::Function(Box::new(work)) }]
        };
        let deep = || Skipped::because("no such machine").context("while building");
        assert!(run(&context(), &step(|| Skipped::because("no such machine")), false).is_ok());
        assert!(run(&context(), &step(deep), false).is_ok());
        assert!(run(&context(), &step(|| anyhow::anyhow!("no such machine")), false).is_err());
    }

    #[test]
    fn keep_going_runs_the_rest_and_still_fails() {
        assert_eq!(ran(true), (vec![1, 2, 3, 4], false));
    }
}
