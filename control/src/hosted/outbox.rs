//! The only way to the host: one thread that calls it, and the queue in front of that thread.
//!
//! No lock is held while the host is called, so it may call back in; nothing of the tunnel waits for it, so it may block.
//! What a host counts on is never left out; of the rest, some is if it does not keep up.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use adit_tun::device::host::{Bell, HostBatch, HostPackets};

use super::Host;
use super::event::HostEvent;

/// The queue; see the module's documentation.
pub(super) struct Outbox {
    host: Arc<dyn Host>,
    bell: Arc<Bell>,
    queue: Mutex<Queue>,
    /// Told when the host was called, and when a run has ended.
    quiet: Condvar,
    thread: OnceLock<ThreadId>,
    calls: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// With the number of the run that each is about.
    events: VecDeque<(u64, HostEvent)>,
    /// Of those, how many need not arrive.
    optional: usize,
    lost: u64,
    /// Where packets come from, while there are any.
    packets: Option<HostPackets>,
    /// Whether the host is to be told when there is room for its packets.
    wants_room: bool,
    /// The run that the host is being called about.
    calling: Option<u64>,
    /// The number of the newest run, from one start to its end.
    run: u64,
    /// Whether it has not ended.
    running: bool,
    /// The host is told nothing more of this run and those before it: a stop has returned already.
    hushed: u64,
    quit: bool,
}

/// What there is to tell.
enum Work {
    Event(HostEvent),
    Packets(HostPackets),
    Nothing,
    Quit,
}

impl Outbox {
    pub(super) fn new(host: Arc<dyn Host>) -> Self {
        Self {
            host,
            bell: Arc::new(Bell::new()),
            queue: Mutex::default(),
            quiet: Condvar::new(),
            thread: OnceLock::new(),
            calls: AtomicU64::new(0),
        }
    }

    /// How often the host was called.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Tells the host something.
    pub(super) fn tell(&self, event: HostEvent) {
        let mut queue = self.lock();
        if queue.is_hushed() {
            return;
        }
        let run = queue.run;
        if !event.must_arrive() {
            if queue.optional >= OPTIONAL {
                queue.lost += 1;
                return;
            }
            queue.optional += 1;
        }
        queue.events.push_back((run, event));
        drop(queue);
        self.bell.ring();
    }

    /// A run begins: until it ends, there may be something to tell.
    pub(super) fn begin(&self) {
        let mut queue = self.lock();
        queue.run += 1;
        queue.running = true;
    }

    /// Packets come from here from now on.
    pub(super) fn connect(&self, packets: HostPackets) {
        packets.set_bell(Arc::clone(&self.bell));
        let mut queue = self.lock();
        if !queue.is_hushed() {
            queue.packets = Some(packets);
        }
        drop(queue);
        self.bell.ring();
    }

    /// No packets any more.
    pub(super) fn disconnect(&self) {
        let mut queue = self.lock();
        queue.packets = None;
        queue.wants_room = false;
    }

    /// A run ends: what is queued by now is the last of it.
    pub(super) fn end(&self) {
        self.lock().running = false;
        self.quiet.notify_all();
        self.bell.ring();
    }

    /// The host is to be told as soon as there is room for packets again.
    pub(super) fn want_room(&self) {
        self.lock().wants_room = true;
        self.bell.ring();
    }

    /// Whether this is the thread that calls the host.
    pub(super) fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// The number of the newest run.
    pub(super) fn run_number(&self) -> u64 {
        self.lock().run
    }

    /// Waits until a run has ended and the host knows everything about it; says whether that was so in time. On the thread
    /// that calls the host, it is called from in here.
    pub(super) fn wait_until_told(&self, run: u64, deadline: Instant) -> bool {
        let own = self.is_own_thread();
        let mut queue = self.lock();
        loop {
            if own && let Some((_, event)) = queue.next_event() {
                drop(queue);
                self.call(|host| host.event(&event));
                queue = self.lock();
                continue;
            }
            let ended = queue.run > run || !queue.running;
            let told = queue.events.front().is_none_or(|(of, _)| *of > run);
            if ended && told && (own || queue.calling.is_none_or(|of| of > run)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.quiet.wait_timeout(queue, left.min(LONGEST_WAIT)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells the host nothing more of this run and those before it, whatever is queued.
    pub(super) fn hush(&self, run: u64) {
        let mut queue = self.lock();
        queue.events.retain(|(of, _)| *of > run);
        queue.optional = queue.events.iter().filter(|(_, event)| !event.must_arrive()).count();
        queue.hushed = queue.hushed.max(run);
        if queue.is_hushed() {
            (queue.lost, queue.packets, queue.wants_room) = (0, None, false);
        }
    }

    /// Whether a call of the host is under way.
    pub(super) fn is_calling(&self) -> bool {
        self.lock().calling.is_some()
    }

    /// Ends the thread once it has told what is queued.
    pub(super) fn quit(&self) {
        self.lock().quit = true;
        self.bell.ring();
    }

    /// The thread that calls the host. `panicked` is told if the host's code, in the same language, does.
    pub(super) fn run(&self, panicked: impl Fn()) {
        // Nobody else sets it: there is one such thread.
        let _first = self.thread.set(std::thread::current().id());
        let mut batch = HostBatch::new();
        loop {
            let mut idle = false;
            let called = match self.next() {
                Work::Event(event) => self.call(|host| host.event(&event)),
                Work::Packets(packets) if packets.take(&mut batch) > 0 => self.call(|host| host.packets(&batch)),
                Work::Packets(_) | Work::Nothing => {
                    idle = true;
                    true
                }
                Work::Quit => return,
            };
            self.lock().calling = None;
            self.quiet.notify_all();
            if !called {
                panicked();
            }
            if idle {
                self.bell.wait(None);
            }
        }
    }

    fn next(&self) -> Work {
        let mut queue = self.lock();
        let mut run = queue.run;
        let work = if let Some((of, event)) = queue.next_event() {
            run = of;
            Work::Event(event)
        } else if queue.quit {
            Work::Quit
        } else if queue.wants_room && queue.packets.as_ref().is_some_and(HostPackets::room) {
            queue.wants_room = false;
            Work::Event(HostEvent::Room)
        } else {
            queue.packets.clone().map_or(Work::Nothing, Work::Packets)
        };
        queue.calling = (!matches!(work, Work::Nothing | Work::Quit)).then_some(run);
        work
    }

    /// Calls the host; says whether it came back in order.
    fn call(&self, call: impl FnOnce(&dyn Host)) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed);
        catch_unwind(AssertUnwindSafe(|| call(&*self.host))).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whoever panicked did so in a host's call, outside of this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Whether the host is told nothing more of the newest run.
    fn is_hushed(&self) -> bool {
        self.hushed >= self.run && self.run > 0
    }

    fn next_event(&mut self) -> Option<(u64, HostEvent)> {
        let event = self.events.pop_front();
        if event.as_ref().is_some_and(|(_, event)| !event.must_arrive()) {
            self.optional -= 1;
        }
        if event.is_none() && self.lost > 0 {
            let message = format!("{} events were left out because the host did not keep up.", self.lost);
            self.lost = 0;
            return Some((self.run, HostEvent::Warning { code: "events-lost".to_owned(), message }));
        }
        event
    }
}

/// Events that need not arrive and may wait for the host.
const OPTIONAL: usize = 256;

/// A wait is looked after at least so often, whatever the condition variable says.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
