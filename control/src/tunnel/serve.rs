//! The tunnel's two sockets: UAPI for wg(8), and Adit's own for `adit status`, `adit reload` and `adit down`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_core::{Command, CommandError};
use adit_tun::handle::PumpCommand;
use adit_tun::socket::BindError;
use tokio::task::JoinHandle;

use super::{Kind, Shared, TunnelError};
use crate::api::{ApiError, ApiHandler, ApiServer, ErrorCode, RoutingReport, StatusReport, TunnelFacts};
use crate::uapi::{GetReply, SetRequest, UapiErrno, UapiHandler, UapiServer};

/// Both servers at work; dropping this ends them and removes their sockets.
#[derive(Debug)]
pub(super) struct Servers {
    uapi: JoinHandle<()>,
    api: JoinHandle<()>,
}

impl Servers {
    pub(super) fn spawn(uapi: UapiServer, api: ApiServer, shared: &Arc<Shared>) -> Self {
        let (for_uapi, for_api) = (Arc::clone(shared), Arc::clone(shared));
        Self {
            uapi: tokio::spawn(async move { match uapi.run(for_uapi).await {} }),
            api: tokio::spawn(async move { match api.run(for_api).await {} }),
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.uapi.abort();
        self.api.abort();
    }
}

impl UapiHandler for Shared {
    async fn get(&self) -> Result<GetReply, UapiErrno> {
        let snapshot = self.snapshot().await.map_err(|error| errno(&error))?;
        Ok(GetReply {
            wall: self.wall_at(snapshot.engine.at),
            listen_port: Some(snapshot.port),
            fwmark: self.fwmark.load(Ordering::Relaxed),
            snapshot: snapshot.engine,
        })
    }

    async fn set(&self, request: SetRequest) -> Result<(), UapiErrno> {
        let mut state = self.state.lock().await;
        let state = state.as_mut().ok_or(UapiErrno::IO)?;
        self.configure(state, request).await.map_err(|error| {
            tracing::warn!(%error, "a change by wg(8) was refused");
            errno(&error)
        })
    }
}

impl Shared {
    /// Does what wg(8) asks for: what can fail comes first and is taken back if a later part fails.
    async fn configure(&self, state: &mut super::State, request: SetRequest) -> Result<(), TunnelError> {
        let before = self.snapshot().await?.port;
        if let Some(port) = request.listen_port.filter(|port| *port != before) {
            self.ask(|reply| PumpCommand::Rebind(port, reply)).await??;
        }
        let result = self.configure_rest(state, request).await;
        if result.is_err() && self.snapshot().await.is_ok_and(|now| now.port != before) {
            // The port was ours a moment ago.
            let _back = self.ask(|reply| PumpCommand::Rebind(before, reply)).await;
        }
        result
    }

    async fn configure_rest(&self, state: &mut super::State, request: SetRequest) -> Result<(), TunnelError> {
        if let Some(mark) = request.fwmark {
            self.ask(|reply| PumpCommand::SetMark(mark, reply)).await??;
            self.fwmark.store(mark, Ordering::Relaxed);
            state.fwmark_from_user = true;
        }
        self.tell_engine(Command::Update(Box::new(request.update))).await
    }
}

impl ApiHandler for Shared {
    async fn status(&self) -> Result<StatusReport, ApiError> {
        let snapshot = self.snapshot().await.map_err(|error| api_error(&error))?;
        // A reload may hold the state for as long as names take to resolve, and a status must not wait for that.
        let state = tokio::time::timeout(STATE_PATIENCE, self.state.lock()).await.ok();
        let routing = state.as_ref().and_then(|state| state.as_ref());
        let routing = routing.map(|state| RoutingReport::new(&state.config.interface, &state.settings));
        drop(state);
        let facts = TunnelFacts {
            name: self.name.clone(),
            ifname: self.ifname.clone(),
            pid: std::process::id(),
            uptime: self.started.elapsed(),
            listen_port: Some(snapshot.port),
            fwmark: self.fwmark.load(Ordering::Relaxed),
            config: Some(self.path.clone()),
            repairs: self.repairs.load(Ordering::Relaxed),
            routing,
        };
        Ok(StatusReport::from((&snapshot.engine, facts)))
    }

    async fn reload(&self) -> Result<Vec<String>, ApiError> {
        Shared::reload(self).await.map_err(|error| api_error(&error))
    }

    async fn down(&self) -> Result<(), ApiError> {
        self.down_requested.store(true, Ordering::Relaxed);
        // A start that is under way is given up; one that is done no longer listens to that.
        self.cancel.notify_one();
        self.stop_requested.notify_one();
        Ok(())
    }

    async fn stopped(&self) -> Result<(), ApiError> {
        let mut outcome = self.outcome.subscribe();
        let told = outcome.wait_for(Option::is_some).await;
        // The sender is our own, so it is there as long as we are.
        told.map_or(Ok(()), |outcome| outcome.clone().unwrap_or(Ok(())))
    }
}

/// How long a status waits for a change that is under way, before it leaves out what that may change.
const STATE_PATIENCE: Duration = Duration::from_millis(500);

fn errno(error: &TunnelError) -> UapiErrno {
    match error {
        TunnelError::Bind(BindError::PortBusy { .. }) => UapiErrno::PORT_IN_USE,
        TunnelError::Engine(CommandError::TooManyPeers { .. }) => UapiErrno::NO_SPACE,
        TunnelError::Engine(_) => UapiErrno::INVALID,
        error if error.kind() == Kind::Permission => UapiErrno::from_code(nix::errno::Errno::EPERM as i32),
        _ => UapiErrno::IO,
    }
}

pub(super) fn api_error(error: &TunnelError) -> ApiError {
    let code = match error.kind() {
        Kind::Configuration => ErrorCode::BadConfiguration,
        _ => ErrorCode::Failed,
    };
    ApiError::new(code, error.to_string())
}
