//! Lines over a Unix socket, with a bound on their length and on every wait.
//!
//! What passes through may be private keys, so the buffer is wiped when it grows and when it is dropped.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// Why no further line could be had or sent.
#[derive(Debug, Error)]
pub(crate) enum LineError {
    /// The line is longer than agreed; what follows cannot be told from it.
    #[error("a line is longer than {limit} bytes")]
    TooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// The other side left in the middle of a line.
    #[error("the other side left in the middle of a line")]
    Truncated,
    /// Nothing moved for this long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection that is read by lines.
#[derive(Debug)]
pub(crate) struct LineStream {
    stream: UnixStream,
    buffer: Zeroizing<Vec<u8>>,
    /// The unread part of `buffer`.
    start: usize,
    end: usize,
    max_line: usize,
    patience: Duration,
}

impl LineStream {
    /// Wraps a connection: lines of at most `max_line` bytes, and no wait for a single byte beyond `patience`.
    pub(crate) fn new(stream: UnixStream, max_line: usize, patience: Duration) -> Self {
        let buffer = Zeroizing::new(vec![0; FIRST_BUFFER.min(max_line + 1)]);
        Self { stream, buffer, start: 0, end: 0, max_line, patience }
    }

    /// Changes how long a wait may be.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The next line without its line feed, or `None` once the other side has sent all it wanted. May be cancelled.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(found) = unread[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.start..self.start + searched + found;
                self.start = line.end + 1;
                return Ok(Some(&self.buffer[line]));
            }
            searched = unread.len();
            if searched > self.max_line {
                return Err(LineError::TooLong { limit: self.max_line });
            }
            self.make_room();
            let read = self.stream.read(&mut self.buffer[self.end..]);
            match tokio::time::timeout(self.patience, read).await.map_err(|_| LineError::Silent(self.patience))?? {
                0 if searched == 0 => return Ok(None),
                0 => return Err(LineError::Truncated),
                read => self.end += read,
            }
        }
    }

    /// Sends all of `bytes`.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> Result<(), LineError> {
        while !bytes.is_empty() {
            let write = self.stream.write(bytes);
            match tokio::time::timeout(self.patience, write).await.map_err(|_| LineError::Silent(self.patience))?? {
                0 => return Err(LineError::Io(io::ErrorKind::WriteZero.into())),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Waits without a bound until the other side is gone; what it sends meanwhile is thrown away.
    pub(crate) async fn closed(&mut self) {
        self.start = 0;
        self.end = 0;
        while self.stream.read(&mut self.buffer).await.is_ok_and(|read| read > 0) {}
    }

    /// Moves the unread part to the front and doubles the buffer if it is full: it holds one line and its line feed.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            let mut larger = Zeroizing::new(vec![0; (self.buffer.len() * 2).min(self.max_line + 1)]);
            larger[..self.end].copy_from_slice(&self.buffer);
            self.buffer = larger;
        }
    }
}

/// First size of the buffer in bytes: a peer's block of a UAPI request fits.
const FIRST_BUFFER: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(max_line: usize) -> (UnixStream, LineStream) {
        let (client, server) = UnixStream::pair().unwrap();
        (client, LineStream::new(server, max_line, Duration::from_secs(5)))
    }

    #[tokio::test]
    async fn lines_are_split_wherever_the_reads_fall() {
        let (mut client, mut lines) = pair(10_000);
        let long = "x".repeat(10_000);
        let text = format!("a\n\n{long}\nend\n");
        let writer = tokio::spawn(async move {
            for chunk in text.as_bytes().chunks(997) {
                client.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        for expected in ["a", "", &long, "end"] {
            assert_eq!(lines.next().await.unwrap().unwrap(), expected.as_bytes());
        }
        writer.await.unwrap();
        assert!(lines.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_long_line_a_torn_line_and_silence_are_errors() {
        let (mut client, mut lines) = pair(8);
        client.write_all(b"12345678\n123456789\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap(), b"12345678");
        assert!(matches!(lines.next().await, Err(LineError::TooLong { limit: 8 })));

        let (mut client, mut lines) = pair(8);
        client.write_all(b"torn").await.unwrap();
        drop(client);
        assert!(matches!(lines.next().await, Err(LineError::Truncated)));

        let (_client, mut lines) = pair(8);
        lines.set_patience(Duration::from_millis(20));
        assert!(matches!(lines.next().await, Err(LineError::Silent(_))));
    }
}
