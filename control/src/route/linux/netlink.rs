//! Requests to the kernel's routing netlink (rtnetlink(7)) with a time limit.
//!
//! The messages are rtnetlink's; its own request builders are not used because they hide errnos, add what `ip` does not
//! (broadcast addresses) and wait without limit.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::route::error::{Reason, RouteError};

/// A netlink socket in the network namespace of the thread that opened it, closed when dropped.
pub(super) struct Netlink {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Netlink {
    /// Opens a socket; must be called inside a tokio runtime.
    pub(super) fn open() -> Result<Self, RouteError> {
        // With strict checking the kernel filters dumps by table and interface (Linux 4.20); without it everything comes
        // and is filtered here.
        let opened = rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection());
        let (mut connection, handle, _) = opened.map_err(|error| RouteError::Kernel {
            action: "talk to",
            object: "the kernel's routing".into(),
            reason: Reason::NoSocket(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
        })?;
        // Without its last message an answer could not be told from a socket that broke.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// Sends a request that creates something; EEXIST if it is there.
    pub(super) async fn create(&self, message: RouteNetlinkMessage) -> Result<(), Reason> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Sends a request that changes or deletes something.
    pub(super) async fn change(&self, message: RouteNetlinkMessage) -> Result<(), Reason> {
        self.acknowledged(message, 0).await
    }

    /// As [`create`](Self::create), for many requests; the answers are in their order.
    pub(super) async fn create_all(&self, messages: Vec<RouteNetlinkMessage>) -> Vec<Result<(), Reason>> {
        self.all_acknowledged(messages, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// As [`change`](Self::change), for many requests; the answers are in their order.
    pub(super) async fn change_all(&self, messages: Vec<RouteNetlinkMessage>) -> Vec<Result<(), Reason>> {
        self.all_acknowledged(messages, 0).await
    }

    /// Sends a question that has one answer.
    pub(super) async fn ask(&self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Reason> {
        let mut answers = self.send(message, 0)?;
        match timeout(TIME_LIMIT, answers.next()).await {
            Err(_) => Err(Reason::Timeout),
            Ok(Some(answer)) => match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(message),
                NetlinkPayload::Error(error) => Err(reason(error.raw_code())),
                _ => Err(Reason::Unexpected),
            },
            Ok(None) => Err(Reason::Unexpected),
        }
    }

    /// Sends a question that is answered by a list. An address family that the kernel lacks and a table that does not
    /// exist have empty lists.
    pub(super) async fn list(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Reason> {
        let mut last = Reason::Errno(Errno::EINTR);
        for _ in 0..DUMP_ATTEMPTS {
            match timeout(TIME_LIMIT, self.dump(message.clone())).await.unwrap_or(Err(Reason::Timeout)) {
                Err(Reason::Errno(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::ENOENT)) => return Ok(Vec::new()),
                // The list changed while it was read, or another dump was under way.
                Err(again @ Reason::Errno(Errno::EINTR | Errno::EBUSY)) => last = again,
                result => return result,
            }
        }
        Err(last)
    }

    async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Reason> {
        let mut answers = self.send(message, NLM_F_DUMP)?;
        let mut list = Vec::new();
        let mut interrupted = false;
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => list.push(message),
                NetlinkPayload::Error(error) if error.raw_code() != 0 => return Err(reason(error.raw_code())),
                NetlinkPayload::Done(done) if done.code < 0 => return Err(reason(done.code)),
                NetlinkPayload::Done(_) if interrupted => return Err(Reason::Errno(Errno::EINTR)),
                NetlinkPayload::Done(_) => return Ok(list),
                _ => {}
            }
        }
        Err(Reason::Unexpected)
    }

    async fn acknowledged(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Reason> {
        acknowledgement(&mut self.send(message, flags | NLM_F_ACK)?).await
    }

    /// Sends requests without waiting for each answer, so that the kernel's work and ours overlap.
    async fn all_acknowledged(&self, messages: Vec<RouteNetlinkMessage>, flags: u16) -> Vec<Result<(), Reason>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        while messages.len() > 0 {
            let some = messages.by_ref().take(IN_FLIGHT);
            let sent: Vec<_> = some.map(|message| self.send(message, flags | NLM_F_ACK)).collect();
            for answers in sent {
                results.push(match answers {
                    Ok(mut answers) => acknowledgement(&mut answers).await,
                    Err(reason) => Err(reason),
                });
            }
        }
        results
    }

    fn send(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin + use<>, Reason> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let answers = self.handle.clone().request(request).map_err(|_| Reason::Unexpected)?;
        Ok(Box::pin(answers))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn acknowledgement(
    answers: &mut (impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin),
) -> Result<(), Reason> {
    match timeout(TIME_LIMIT, answers.next()).await {
        Err(_) => Err(Reason::Timeout),
        Ok(Some(answer)) => match answer.payload {
            NetlinkPayload::Error(error) if error.raw_code() == 0 => Ok(()),
            NetlinkPayload::Error(error) => Err(reason(error.raw_code())),
            _ => Err(Reason::Unexpected),
        },
        Ok(None) => Err(Reason::Unexpected),
    }
}

fn reason(code: i32) -> Reason {
    Reason::Errno(Errno::from_raw(code.saturating_abs()))
}

/// The kernel answers from memory, in microseconds; a request that takes longer than this is one whose answer the
/// library could not parse.
const TIME_LIMIT: Duration = Duration::from_secs(5);
const DUMP_ATTEMPTS: usize = 5;
/// Requests whose answers are outstanding at a time. An answer takes a kilobyte of the socket's receive buffer, of which
/// there are 208 KiB by default (net.core.rmem_default).
const IN_FLIGHT: usize = 64;
