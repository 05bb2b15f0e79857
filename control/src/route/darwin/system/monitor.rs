//! Notices that somebody has changed the host's interfaces, addresses or routes.
//!
//! A routing socket hears of all changes. Which change it was is not kept: messages get lost when a socket's buffer is
//! full, so whoever reads the host again is right and whoever relies on messages is not. What is read of a message is
//! only whether it is worth a look: the kernel tells of very many routes that it clones for neighbours and flows.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::message::messages;
use super::calls;
use crate::debounce::Debouncer;
use crate::route::{Reason, RouteError};

/// Tells when the host's routing has changed.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
    debounce: Debouncer,
}

impl Monitor {
    /// Begins to listen; must be called inside a tokio runtime. What was changed before is not noticed, so the caller
    /// looks at the host once after this.
    ///
    /// # Errors
    ///
    /// [`RouteError::Kernel`] with [`Reason::NoSocket`]: there is no socket to be had.
    pub fn open() -> Result<Self, RouteError> {
        let listen = || {
            let socket = calls::listening_socket()?;
            // SAFETY: the socket owns its descriptor, which stays open and the same until the socket is dropped.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        let socket = listen().map_err(|error: io::Error| RouteError::Kernel {
            action: "listen to",
            object: "changes of the kernel's routing".into(),
            reason: Reason::NoSocket(calls::errno(&error)),
        })?;
        Ok(Self { socket, debounce: Debouncer::new(QUIET, LONGEST) })
    }

    /// Waits until something has changed and then nothing more for 200 ms, or changes have gone on for 2 s. Nothing is
    /// lost if the wait is given up and begun again.
    pub async fn changed(&mut self) {
        let Self { socket, debounce } = self;
        loop {
            let due = debounce.due();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    if debounce.fire(Instant::now()) {
                        return;
                    }
                }
                told = notice(socket) => if told {
                    debounce.handle_event(Instant::now());
                },
            }
        }
    }
}

/// Waits for messages, takes those that have come, and says whether any of them is worth a look.
async fn notice(socket: &AsyncFd<Socket>) -> bool {
    let outcome = match socket.readable().await {
        Ok(mut ready) => match ready.try_io(|socket| take(socket.get_ref())) {
            Ok(outcome) => outcome,
            Err(_not_ready) => return false,
        },
        Err(error) => Err(error),
    };
    match outcome {
        Ok(told) => told,
        Err(error) => {
            // A socket that cannot be read tells nothing any more, so time has to: the caller looks now and then.
            tracing::debug!(%error, "the kernel's messages cannot be read");
            tokio::time::sleep(AFTER_ERROR).await;
            true
        }
    }
}

/// Takes a bounded number of messages off the socket; would-block only if there was none.
fn take(mut socket: &Socket) -> io::Result<bool> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut told = false;
    for number in 0..MESSAGES_AT_ONCE {
        let mut bytes = [0; LONGEST_MESSAGE];
        match socket.read(&mut bytes) {
            Ok(length) => {
                told |= messages(bytes.get(..length).unwrap_or(&[])).any(|message| message.is_news(own));
            }
            // Lost messages are a change as good as any.
            Err(error) if matches!(calls::errno(&error), Errno::ENOBUFS | Errno::EINTR) => told = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

/// A burst of changes is over when nothing was changed for this long; Mullvad's daemon has the same for routes.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that go on and on are looked at after this long.
const LONGEST: Duration = Duration::from_secs(2);
/// The pause after a socket's error, so that an error that stays costs nothing.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// A turn of a busy socket takes well below a millisecond with this many.
const MESSAGES_AT_ONCE: usize = 256;
/// The largest message has a header of 112 bytes and eight addresses (`struct sockaddr_storage` has 128).
const LONGEST_MESSAGE: usize = 2048;
