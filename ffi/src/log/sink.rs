//! A callback of the host's with the bounded queue and the thread in front of it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::ADIT_LOG_WARNING;
use super::line::Line;
use crate::callback::LogCall;
use crate::result::{ADIT_ERROR_SYSTEM, Failure, Outcome};

/// The near end: lines go in, and are lost and counted if there is no room.
#[derive(Default)]
pub(super) struct Sink {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    /// Lines that found no room since the last that did.
    lost: u64,
    closed: bool,
}

impl Sink {
    /// Starts the thread that calls the host.
    pub(super) fn spawn(call: LogCall) -> Outcome<(Arc<Self>, JoinHandle<()>)> {
        let sink = Arc::new(Self::default());
        let far_end = Arc::clone(&sink);
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || far_end.run(&call));
        Ok((sink, thread.map_err(|_| Failure::new(ADIT_ERROR_SYSTEM))?))
    }

    /// Adds a line.
    pub(super) fn push(&self, line: Line) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        // Where lines were lost, one place more is needed for the line that says so.
        if queue.lines.len() + usize::from(queue.lost > 0) >= MAX_LINES {
            queue.lost += 1;
            return;
        }
        if let Some(told) = queue.take_lost() {
            queue.lines.push_back(told);
        }
        queue.lines.push_back(line);
        drop(queue);
        self.changed.notify_one();
    }

    /// Takes no lines any more; those that are queued are delivered, unless this is called from within the callback: then
    /// the call that is running is the last.
    pub(super) fn close(self: &Arc<Self>) {
        let mut queue = self.lock();
        queue.closed = true;
        if RUNNING.get() == Arc::as_ptr(self) {
            queue.lines.clear();
            queue.lost = 0;
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn run(self: Arc<Self>, call: &LogCall) {
        RUNNING.set(Arc::as_ptr(&self));
        while let Some(line) = self.next() {
            call.call(&line);
        }
    }

    /// Waits for a line; `None` if there will be none any more.
    fn next(&self) -> Option<Line> {
        let mut queue = self.lock();
        loop {
            let line = queue.lines.pop_front().or_else(|| queue.take_lost());
            if line.is_some() || queue.closed {
                return line;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The line that says how many are missing, if any are.
    fn take_lost(&mut self) -> Option<Line> {
        let lost = std::mem::take(&mut self.lost);
        (lost > 0).then(|| {
            let message = format!("{lost} lines of the log were lost: they came faster than the callback took them");
            Line::new(ADIT_LOG_WARNING, module_path!(), message)
        })
    }
}

/// Whether the calling thread is in a log callback.
pub(super) fn is_log_thread() -> bool {
    !RUNNING.get().is_null()
}

thread_local! {
    /// The sink whose thread this is; only compared, never looked through.
    static RUNNING: Cell<*const Sink> = const { Cell::new(std::ptr::null()) };
}

/// Lines that wait for the host, at most 1 KiB each ([`super::line`]): half a MiB if it does not come back.
const MAX_LINES: usize = 512;

/// Stack of the thread in bytes, which the host's code runs on: as much as Apple's systems give to one.
const STACK: usize = 512 << 10;

/// The name of the thread that calls the host.
const THREAD_NAME: &str = "adit-log";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Line {
        Line::new(1, "test", number.to_string())
    }

    #[test]
    fn lost_lines_are_told_where_they_are_missing() {
        let sink = Arc::new(Sink::default());
        for number in 0..MAX_LINES + 5 {
            sink.push(line(number));
        }
        assert_eq!(sink.next().unwrap().message(), "0");
        sink.push(line(7000));
        assert_eq!(sink.lock().lost, 6, "the line that tells needs a place too");
        assert_eq!(sink.next().unwrap().message(), "1");
        sink.push(line(8000));
        sink.close();
        sink.push(line(9000));
        let rest: Vec<_> = std::iter::from_fn(|| sink.next()).map(|line| line.message().to_owned()).collect();
        assert_eq!(rest.len(), MAX_LINES);
        assert!(rest[MAX_LINES - 2].starts_with("6 lines of the log were lost"), "{}", rest[MAX_LINES - 2]);
        assert_eq!(rest[MAX_LINES - 1], "8000");
    }

    #[test]
    fn a_loss_at_the_end_is_told_too() {
        let sink = Arc::new(Sink::default());
        for number in 0..MAX_LINES + 5 {
            sink.push(line(number));
        }
        sink.close();
        let told: Vec<_> = std::iter::from_fn(|| sink.next()).collect();
        assert_eq!(told.len(), MAX_LINES + 1);
        assert!(told[MAX_LINES].message().starts_with("5 lines"));
    }
}
