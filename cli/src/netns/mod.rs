//! A network namespace, as a thread that lives in it and does what it is given.
//!
//! Sockets belong to the namespace that they were made in, whoever uses them later, and threads inherit it. So whatever
//! shall be in the namespace is made by its thread, and used elsewhere. A namespace has no name, and the kernel takes it
//! apart, devices included, when its threads and processes have ended and its descriptors are closed.

pub(crate) mod links;
pub(crate) mod privilege;
pub(crate) mod sockets;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use nix::sched::{CloneFlags, unshare};

use crate::failure::{Failure, Kind, Outcome};
use crate::watch::Watch;

/// A namespace of its own. Dropping it ends its thread.
pub(crate) struct Namespace {
    host: &'static str,
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Namespace {
    /// Makes a namespace, empty but for a loopback interface that is down. The host's name is for threads and errors.
    pub(crate) fn new(host: &'static str, watch: &Watch) -> Outcome<Self> {
        let (work, given) = bounded::<Work>(1);
        let thread = std::thread::Builder::new().name(format!("adit-host-{host}")).spawn(move || {
            for work in given {
                work();
            }
        })?;
        let namespace = Self { host, work: Some(work), thread: Some(thread) };
        namespace.run(watch, "the namespace", || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Failure::new(Kind::NotPermitted, format!("no network namespace: {}", errno.desc())))
        })?;
        Ok(namespace)
    }

    /// Does something in the namespace and waits for it. It must come to an end by itself.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        watch: &Watch,
        what: &str,
        work: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let what = format!("host {}: {what}", self.host);
        let ended = || Failure::failed(format!("{what}: its thread has ended"));
        let (sender, result) = bounded(1);
        let work: Work = Box::new(move || {
            // Whoever asked may have given up.
            let _unwanted = sender.try_send(work());
        });
        self.work.as_ref().ok_or_else(ended)?.send(work).map_err(|_| ended())?;
        let done = watch.receive(&result, LIMIT, &what)?;
        done.map_err(|failure| Failure::new(failure.kind, format!("{what}: {}", failure.message)))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.work.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(host = self.host, "the thread of a namespace has panicked");
        }
    }
}

/// A descriptor of the calling thread's network namespace.
pub(crate) fn descriptor() -> Outcome<OwnedFd> {
    // Not /proc/self: that is the main thread.
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Everything that is done in a namespace takes milliseconds, and some requests of at most
/// [`REQUEST_LIMIT`](links::REQUEST_LIMIT).
const LIMIT: Duration = Duration::from_secs(15);
