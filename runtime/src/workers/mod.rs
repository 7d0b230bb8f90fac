//! The only seam of concurrency: who computes the chunks of an operator's output.

#[cfg(feature = "std")]
#[expect(unsafe_code, reason = "lends borrowed work to threads; each block states why it is sound")]
mod threads;

#[cfg(feature = "std")]
pub use threads::Threads;

/// What [`Workers::for_each_chunk_with`] calls: the chunk's index, the chunk, its thread's slot.
pub type ChunkWith<'f> = dyn Fn(usize, &mut [u8], &mut [u8]) + Sync + 'f;

/// Runs a function over disjoint chunks of an output.
pub trait Workers: Sync {
    /// Threads that may work at once, at least 1; operators cut their output accordingly.
    fn threads(&self) -> usize;

    /// Multiply-accumulates below which a chunk is not worth handing to another thread now.
    fn grain(&self) -> u64 {
        0
    }

    /// A run of `macs` multiply-accumulates begins: threads may get ready for it.
    fn begin(&self, macs: u64) {
        let _ = macs;
    }

    /// Calls `f(i, chunk)` once for each `chunk_bytes`-sized piece of `out` (the last may be
    /// shorter), in any order, and returns when all are done.
    fn for_each_chunk(
        &self,
        out: &mut [u8],
        chunk_bytes: usize,
        f: &(dyn Fn(usize, &mut [u8]) + Sync),
    );

    /// As [`Self::for_each_chunk`], but `f(i, chunk, slot)` also gets a piece of `scratch` of `slot_bytes`, which
    /// is its thread's alone and holds what that thread left there. At most as many threads work as there are
    /// whole pieces; without any, nothing is done.
    ///
    /// By default one after the other on the calling thread.
    fn for_each_chunk_with(
        &self,
        [out, scratch]: [&mut [u8]; 2],
        [chunk_bytes, slot_bytes]: [usize; 2],
        f: &ChunkWith<'_>,
    ) {
        let Some(slot) = scratch.get_mut(..slot_bytes) else { return };
        for (i, chunk) in out.chunks_mut(chunk_bytes.max(1)).enumerate() {
            f(i, chunk, slot);
        }
    }
}

/// The calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

impl Workers for Inline {
    fn threads(&self) -> usize {
        1
    }

    fn for_each_chunk(
        &self,
        out: &mut [u8],
        chunk_bytes: usize,
        f: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) {
        for (i, chunk) in out.chunks_mut(chunk_bytes.max(1)).enumerate() {
            f(i, chunk);
        }
    }
}
