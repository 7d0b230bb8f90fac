//! The bytes of a connection: clients that do not read are left, and HTTP's own refusals, which have
//! no body, get one.

use super::refusal::Refusal;
use axum::http::StatusCode;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use memchr::memmem;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    io: S,
    /// How long a write may take.
    time: Duration,
    /// When the write that waits has failed.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What goes out before anything else.
    first: Vec<u8>,
}

impl<S> Wire<S> {
    pub(super) fn new(io: S, time: Duration) -> Self {
        Self { io, time, deadline: None, first: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.time)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn write_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.first.is_empty() {
            let first = core::mem::take(&mut self.first);
            let written = self.write(cx, &first);
            self.first = first;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => drop(self.first.drain(..n)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer with a sentence in place of hyper's to what is no HTTP: those alone are empty.
fn with_sentence(head: &[u8]) -> Option<Refusal> {
    let status = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    if status[0] != b'4' || memmem::find(head, b"\r\ncontent-length: 0\r\n").is_none() {
        return None;
    }
    let status = StatusCode::from_bytes(status).ok()?;
    let error = match status {
        StatusCode::URI_TOO_LONG => {
            "an address that long leads nowhere; POST a picture to /classify"
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "headers of more than 64 KiB, or more than a hundred; send fewer"
        }
        _ => "this is no request of HTTP/1.1; see /openapi.json for what is",
    };
    Some(Refusal::new(status, error))
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.write_first(cx))?;
        if let Some(refusal) = with_sentence(bytes) {
            self.first = refusal.bytes();
            return Poll::Ready(Ok(bytes.len()));
        }
        self.write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_first(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_first(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}
