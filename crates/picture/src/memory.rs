//! Memory for pictures, of which all threads together take no more than one large picture needs.

use crate::{MAX_BYTES, PictureError};
use std::sync::{Condvar, Mutex, PoisonError};

/// Decoded bytes that any file may claim, however short it is: 22 megapixels.
const FREE: u64 = 64 << 20;
/// Decoded bytes for each byte of a file. A white page is a few hundred.
const MOST_RATIO: u64 = 4096;

/// Bytes that are taken.
static TAKEN: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// What a picture needs, as its head says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    pub width: u32,
    pub height: u32,
    /// Bytes of its pixels, as they are decoded or as they are classified.
    pub pixels: u64,
    /// Bytes of what its decoder keeps beside them.
    pub beside: u64,
    /// Bytes of its file.
    pub file: usize,
}

impl Announced {
    /// Refuses what is more than is read, or more than the file can hold.
    pub(crate) fn check(self) -> Result<u64, PictureError> {
        let Self { width, height, pixels, beside, file } = self;
        let bytes = pixels.saturating_add(beside);
        if width > crate::MAX_SIDE || height > crate::MAX_SIDE || bytes > MAX_BYTES {
            return Err(PictureError::TooLarge { width, height, bytes });
        }
        if pixels > FREE + MOST_RATIO * file as u64 {
            return Err(PictureError::Inflated { width, height, file });
        }
        Ok(bytes)
    }
}

/// A share of the memory, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(u64);

impl Lease {
    /// Waits until so many bytes, at most [`MAX_BYTES`], are left by others.
    pub(crate) fn wait(bytes: u64) -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken > MAX_BYTES.saturating_sub(bytes))
            .unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Self(bytes)
    }

    /// Keeps so many of them.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let less = self.0.saturating_sub(bytes);
        self.0 -= less;
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= less;
        GIVEN_BACK.notify_all();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(0);
    }
}
