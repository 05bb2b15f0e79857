//! The process's only tracing subscriber. Spans are not kept: the engine has none.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::line::Line;
use super::{ADIT_LOG_DEBUG, ADIT_LOG_ERROR, ADIT_LOG_INFO, ADIT_LOG_OFF, ADIT_LOG_TRACE, ADIT_LOG_WARNING, CURRENT};

/// Hands events to the sink of the moment.
pub(super) struct ToSink;

impl Subscriber for ToSink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && number(*metadata.level()) <= MOST.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match MOST.load(Ordering::Relaxed) {
            ADIT_LOG_OFF => LevelFilter::OFF,
            ADIT_LOG_ERROR => LevelFilter::ERROR,
            ADIT_LOG_WARNING => LevelFilter::WARN,
            ADIT_LOG_INFO => LevelFilter::INFO,
            ADIT_LOG_DEBUG => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let line = Line::of(event, number(*event.metadata().level()));
        let sink = CURRENT.read().unwrap_or_else(PoisonError::into_inner).sink.clone();
        if let Some(sink) = sink {
            sink.push(line);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Sets how much is logged. The caller rebuilds tracing's cache afterwards.
pub(super) fn set_most(level: u32) {
    MOST.store(level, Ordering::Relaxed);
}

/// The number of a level in the ABI.
fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => ADIT_LOG_ERROR,
        Level::WARN => ADIT_LOG_WARNING,
        Level::INFO => ADIT_LOG_INFO,
        Level::DEBUG => ADIT_LOG_DEBUG,
        Level::TRACE => ADIT_LOG_TRACE,
    }
}

/// The least important level that is logged.
static MOST: AtomicU32 = AtomicU32::new(ADIT_LOG_OFF);
