//! What clients send: how much, how fast, and how much of it all together.

use super::options::Limits;
use super::refusal::Refusal;
use axum::body::{Body, Bytes, HttpBody};
use core::future::poll_fn;
use core::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest requests that fit in memory together.
const LARGEST_AT_ONCE: usize = 8;

/// A request's body, and its share of memory.
pub(super) struct Upload {
    pub(super) bytes: Bytes,
    pub(super) memory: OwnedSemaphorePermit,
}

/// Memory for all that is sent.
#[derive(Debug)]
pub(super) struct Uploads {
    limits: Limits,
    /// Bytes that are free.
    memory: Arc<Semaphore>,
}

impl Uploads {
    pub(super) fn new(limits: Limits) -> Self {
        let most = (limits.body * LARGEST_AT_ONCE).min(Semaphore::MAX_PERMITS);
        Self { limits, memory: Arc::new(Semaphore::new(most)) }
    }

    /// Reads a body. It claims memory as it comes, not as it is announced.
    ///
    /// # Errors
    /// One that is too long or too slow, breaks off, or finds no memory.
    pub(super) async fn read(&self, body: Body) -> Result<Upload, Refusal> {
        if body.size_hint().lower() > self.limits.body as u64 {
            return Err(Refusal::too_large(self.limits.body));
        }
        let slow = |_| Refusal::too_slow(self.limits.time.as_secs());
        tokio::time::timeout(self.limits.time, self.collect(body)).await.map_err(slow)?
    }

    async fn collect(&self, mut body: Body) -> Result<Upload, Refusal> {
        let (mut bytes, mut memory) = (Vec::new(), self.claim(0)?);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|_| {
                Refusal::bad("the request broke off before its announced end; send it again")
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.limits.body {
                return Err(Refusal::too_large(self.limits.body));
            }
            memory.merge(self.claim(data.len())?);
            bytes.extend_from_slice(&data);
        }
        Ok(Upload { bytes: bytes.into(), memory })
    }

    fn claim(&self, len: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Arc::clone(&self.memory).try_acquire_many_owned(len).map_err(|_| Refusal::busy())
    }
}
