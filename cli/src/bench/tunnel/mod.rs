//! `adit bench tunnel`: traffic between two hosts on this machine, through Adit and through any other engine.

use super::Progress;
use super::model::Report;
use crate::failure::{Failure, Outcome};

/// Options of `bench tunnel`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {}

/// Measures.
pub(crate) fn run(_options: &Options, _progress: &mut dyn Progress) -> Outcome<Report> {
    Err(Failure::failed("not built yet"))
}
