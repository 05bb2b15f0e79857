//! `adit bench tunnel`: traffic between two hosts on this machine, through Adit and through any other engine.
//!
//! All subjects do the same work, interleaved run by run, so that whatever else the machine does hits all alike. The
//! hosts are network namespaces (`kernel`), or, where they are not allowed, parts of this process (`in_process`).

#[cfg(target_os = "linux")]
mod hosts;
mod in_process;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most of it is for namespaces, which are Linux's"))]
mod options;
#[cfg(target_os = "linux")]
mod process;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most of it is for namespaces, which are Linux's"))]
mod record;
#[cfg(target_os = "linux")]
mod remarks;
#[cfg(target_os = "linux")]
mod running;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most of it is for namespaces, which are Linux's"))]
mod traffic;
#[cfg(target_os = "linux")]
mod uapi;

use std::sync::Arc;

use super::Progress;
use super::model::{Machine, Report, Subject};
use crate::failure::{Failure, Kind, Outcome};
use crate::watch::Watch;
pub(crate) use options::Options;
use options::Plan;

/// Measures. It has taken everything apart again when it returns.
///
/// # Errors
/// Something cannot be measured, or it was interrupted ([`Kind::Interrupted`]); others than Adit were asked for and
/// namespaces are not allowed ([`Kind::NotPermitted`]).
pub(crate) fn run(options: &Options, watch: &Arc<Watch>, progress: &mut dyn Progress) -> Outcome<Report> {
    let plan = options.plan()?;
    if options.in_process {
        return in_process(&plan, "asked for", watch, progress);
    }
    match privilege() {
        Ok(right) => kernel(&plan, right, watch, progress),
        Err(failure) if options.wants_others() => {
            let text = format!(
                "other engines need network namespaces and tun devices, which are not to be had: {}; run it as root",
                failure.message
            );
            Err(Failure::new(Kind::NotPermitted, text))
        }
        Err(failure) => {
            let reason = format!("no tun devices in namespaces: {}", failure.message);
            in_process(&plan, &reason, watch, progress)
        }
    }
}

/// Everything that namespaces take, tried out; must come before this process has a second thread.
#[cfg(target_os = "linux")]
fn privilege() -> Outcome<&'static str> {
    let right = crate::netns::privilege::acquire_for_programs()?;
    hosts::Hosts::open(&Watch::default())?;
    Ok(right)
}

#[cfg(not(target_os = "linux"))]
fn privilege() -> Outcome<&'static str> {
    Err(Failure::new(Kind::NotPermitted, "only Linux has network namespaces"))
}

#[cfg(target_os = "linux")]
fn kernel(plan: &Plan, right: &str, watch: &Watch, progress: &mut dyn Progress) -> Outcome<Report> {
    let found = kernel::run(plan, watch, progress)?;
    let mut notes = vec![
        format!(
            "two network namespaces joined by a veth pair ({right}); engines, senders and receivers share the {} \
             processors; MTU of the tunnels 1420",
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        ),
        format!(
            "each run starts every engine afresh, in turn; {:.1} s a measurement after {:.1} s of warm-up; goodput is \
             counted at the receiver",
            plan.time.as_secs_f64(),
            plan.warm_up.as_secs_f64()
        ),
    ];
    notes.extend(found.remarks.lines());
    Ok(report(found.subjects, found.record, notes))
}

#[cfg(not(target_os = "linux"))]
fn kernel(_plan: &Plan, _right: &str, _watch: &Watch, _progress: &mut dyn Progress) -> Outcome<Report> {
    Err(Failure::failed("only Linux has network namespaces"))
}

fn in_process(plan: &Plan, reason: &str, watch: &Arc<Watch>, progress: &mut dyn Progress) -> Outcome<Report> {
    let record = in_process::run(plan, watch, progress)?;
    let version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let subjects = vec![Subject { name: in_process::NAME.to_owned(), version }];
    Ok(report(subjects, record, vec![in_process::NOTE.to_owned(), format!("why in process: {reason}")]))
}

fn report(subjects: Vec<Subject>, record: record::Record, notes: Vec<String>) -> Report {
    let machine = Machine::this();
    Report { benchmark: "tunnel".to_owned(), machine, subjects, measures: record.measures(), notes }
}
