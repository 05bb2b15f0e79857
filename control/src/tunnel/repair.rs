//! A running tunnel's settings, put right again when somebody else has changed them, or followed when the network did.
//!
//! Whenever the monitor tells that something has changed, the settings are applied once more, which adds what is missing
//! and nothing else. A repair that fails never ends the tunnel, and a device that is gone is not its business: the packet
//! loop ends then.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use adit_tun::handle::PumpCommand;
use tokio::task::JoinHandle;

use super::pace::{Pace, Rivalry};
use super::platform::PULLED_OUT_HELP;
use super::{Shared, TunnelError};
use crate::journal::Entry;
use crate::route::{self, Monitor};

/// The task that repairs; dropping this ends it.
#[derive(Debug)]
pub(super) struct Repair {
    task: JoinHandle<()>,
}

impl Repair {
    /// Repairs from now on; `index` is the number of the tunnel's interface.
    pub(super) fn spawn(monitor: Monitor, shared: &Arc<Shared>, index: u32) -> Self {
        Self { task: tokio::spawn(run(monitor, Arc::clone(shared), index)) }
    }

    /// Ends the task and waits until it has ended. The caller has taken the tunnel's state, so no repair is under way.
    pub(super) async fn end(mut self) {
        self.task.abort();
        let _aborted = (&mut self.task).await;
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a look at the host came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// All is as it has to be; this many settings have followed the network.
    Good { followed: usize },
    /// So many settings that others had changed were put right.
    Repaired(usize),
    /// The device is gone.
    NoDevice,
    /// The tunnel is being stopped.
    Stopping,
}

async fn run(mut monitor: Monitor, shared: Arc<Shared>, index: u32) {
    let mut pace = Pace::default();
    let mut warned = false;
    let mut last_error = String::new();
    loop {
        let retry_at = pace.retry_at();
        tokio::select! {
            () = monitor.changed() => {}
            () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now).into()), if retry_at.is_some() => {}
        }
        // What happens meanwhile waits in the monitor's sockets.
        if let Some(at) = pace.not_before() {
            tokio::time::sleep_until(at.into()).await;
        }
        warned = warned || shared.warn_of_pulled_out().await;
        match shared.look(index).await {
            Ok(Look::Stopping) => return,
            Ok(Look::NoDevice) => {}
            Ok(Look::Good { followed }) => {
                if pace.found_nothing() {
                    tracing::info!("nobody changes the tunnel's routing any more");
                }
                if followed > 0 {
                    tracing::info!(changes = followed, "the tunnel's routing has followed the network");
                }
                last_error.clear();
            }
            Ok(Look::Repaired(changes)) => {
                shared.repairs.fetch_add(changes as u64, Ordering::Relaxed);
                last_error.clear();
                match pace.repaired(Instant::now()) {
                    Rivalry::None => {
                        tracing::warn!(changes, "somebody has changed the tunnel's routing; it is repaired");
                    }
                    Rivalry::Begins => tracing::warn!(
                        changes,
                        "somebody changes the tunnel's routing again and again; from now on it is repaired every 10 s"
                    ),
                    Rivalry::GoesOn => tracing::debug!(changes, "the tunnel's routing is repaired once more"),
                }
            }
            Err(error) => {
                pace.failed(Instant::now());
                let text = error.to_string();
                // One that stays is told once.
                if text == last_error {
                    tracing::debug!(%error, "the tunnel's routing could still not be repaired");
                } else {
                    tracing::error!(%error, "the tunnel's routing could not be repaired; Adit tries again");
                    last_error = text;
                }
            }
        }
    }
}

impl Shared {
    /// Warns if routes of the main table take traffic out of a full tunnel, as those do that a hostile DHCP server adds
    /// (TunnelVision, CVE-2024-3661); true if it has. Connected networks are meant to stay reachable there.
    async fn warn_of_pulled_out(&self) -> bool {
        let state = self.state.lock().await;
        let Some(state) = state.as_ref() else { return false };
        let mut found = match route::pulled_out(&self.ifname, &state.settings).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the main table could not be looked at");
                return false;
            }
        };
        found.retain(|route| !route.connected);
        if found.is_empty() {
            return false;
        }
        tracing::warn!(
            routes = found.len(),
            "routes in the main table take traffic out of the full tunnel; {PULLED_OUT_HELP}"
        );
        for route in found.iter().take(SHOWN) {
            tracing::debug!(net = %route.net, interface = route.interface, "a route outside of the tunnel");
        }
        true
    }

    /// Applies the settings once more.
    async fn look(&self, index: u32) -> Result<Look, TunnelError> {
        let mut state = self.state.lock().await;
        let Some(state) = state.as_mut() else { return Ok(Look::Stopping) };
        // Another device that has the name by now is not the tunnel's.
        let is_there = || nix::net::if_::if_nametoindex(self.ifname.as_str()).is_ok_and(|found| found == index);
        if !is_there() {
            return Ok(Look::NoDevice);
        }
        let before: HashSet<Entry> = state.journal.entries().iter().cloned().collect();
        let applied = match route::apply(&self.ifname, &state.settings, &mut state.journal).await {
            Ok(applied) => applied,
            Err(_) if !is_there() => return Ok(Look::NoDevice),
            Err(error) => return Err(error.into()),
        };
        self.bind(applied.binding).await?;
        if applied.changed == 0 {
            return Ok(Look::Good { followed: 0 });
        }
        self.ask(|reply| PumpCommand::SetMtu(applied.mtu.into(), reply)).await??;
        let followed = followed(&before, state.journal.entries());
        let repaired = applied.changed.saturating_sub(followed);
        Ok(if repaired > 0 { Look::Repaired(repaired) } else { Look::Good { followed } })
    }
}

/// How many changes the journal did not know before, or knows no more: those come from the network, such as another MTU
/// or another local network. What it knows all along and had to be made once more was taken away by somebody.
fn followed(before: &HashSet<Entry>, after: &[Entry]) -> usize {
    let added: Vec<&Entry> = after.iter().filter(|entry| !before.contains(entry)).collect();
    let after: HashSet<&Entry> = after.iter().collect();
    let gone = before.iter().filter(|entry| !after.contains(entry));
    // Another MTU takes the place of the former one, which is a single change.
    added.len() + gone.filter(|old| !added.iter().any(|new| old.is_replaced_by(new))).count()
}

/// So many routes are enough to find where they come from.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Device, Mtu, Rule, Target};
    use crate::settings::Family;

    #[test]
    fn what_the_journal_did_not_know_has_followed_the_network() {
        let mtu = |value| Entry::Mtu(Mtu { device: Device { name: "adit0".into(), index: 7 }, former: 1500, value });
        let rule = |priority| {
            Entry::Rule(Rule { family: Family::Ipv4, priority, table: 51820, target: Target::NotMarked(51820) })
        };
        let before: HashSet<Entry> = [mtu(1420), rule(1)].into();
        assert_eq!(followed(&before, &[rule(1), mtu(1420)]), 0);
        assert_eq!(followed(&before, &[rule(1), mtu(1320)]), 1);
        assert_eq!(followed(&before, &[mtu(1320), rule(2)]), 3);
    }
}
