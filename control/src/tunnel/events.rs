//! What the engine tells: logged, and where it matters acted upon.

use std::path::PathBuf;

use adit_core::Event;
use adit_tun::handle::{PumpCommand, PumpHandle};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::narrate::narrate;
use crate::timestamp;

/// Events that may wait for the control thread; more are counted as lost.
const EVENT_QUEUE: usize = 256;

/// Takes events off the packet loop.
#[derive(Debug)]
pub(super) struct Watcher {
    task: JoinHandle<()>,
    handshakes: watch::Receiver<u64>,
    ended: watch::Receiver<bool>,
}

/// Makes the packet loop's end of the channel, and the control thread's.
pub(super) fn channel() -> (Box<dyn FnMut(Event) -> bool + Send>, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
    (Box::new(move |event| sender.try_send(event).is_ok()), receiver)
}

impl Watcher {
    /// Logs events until the packet loop ends, and keeps the newest timestamp in `state_dir` after each handshake.
    pub(super) fn spawn(mut events: mpsc::Receiver<Event>, pump: PumpHandle, state_dir: PathBuf) -> Self {
        let (count, handshakes) = watch::channel(0);
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                narrate(&event);
                if let Event::HandshakeCompleted { .. } = event {
                    count.send_modify(|count| *count += 1);
                    let dir = state_dir.clone();
                    let store = PumpCommand::Snapshot(Box::new(move |snapshot| {
                        timestamp::store(&dir, &snapshot.engine);
                    }));
                    // A busy or ended loop: the next handshake, or the stop, writes it down.
                    let _later = pump.send(store);
                }
            }
            end.send_replace(true);
        });
        Self { task, handshakes, ended }
    }

    /// Waits for the first handshake with any peer.
    pub(super) async fn first_handshake(&self) {
        let mut handshakes = self.handshakes.clone();
        // Fails when the task has ended; then there will be no handshake, and the caller's deadline decides.
        if handshakes.wait_for(|count| *count > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the packet loop has ended.
    pub(super) async fn pump_ended(&self) {
        let mut ended = self.ended.clone();
        let _ended = ended.wait_for(|ended| *ended).await;
    }

    /// Waits for the last events of a packet loop that has ended.
    pub(super) async fn finish(self) {
        drop(self.task.await);
    }
}
