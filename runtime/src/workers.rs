//! The only seam of concurrency: who computes the chunks of an operator's output.

/// Runs a function over disjoint chunks of an output.
pub trait Workers: Sync {
    /// Threads that may work at once, at least 1; operators cut their output accordingly.
    fn threads(&self) -> usize;

    /// Multiply-accumulates below which a chunk is not worth handing to another thread.
    fn grain(&self) -> u64 {
        0
    }

    /// Calls `f(i, chunk)` once for each `chunk_bytes`-sized piece of `out` (the last may be
    /// shorter), in any order, and returns when all are done.
    fn for_each_chunk(
        &self,
        out: &mut [u8],
        chunk_bytes: usize,
        f: &(dyn Fn(usize, &mut [u8]) + Sync),
    );
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

/// A pool of threads.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct Threads {
    pool: rayon::ThreadPool,
    grain: u64,
}

/// Waking a thread takes 30 to 50 µs, in which one core does some 4 million
/// multiply-accumulates.
#[cfg(feature = "std")]
const GRAIN: u64 = 4_000_000;

#[cfg(feature = "std")]
impl Threads {
    /// Starts `n` threads (0 counts as 1).
    ///
    /// # Errors
    /// The operating system refuses to start a thread.
    pub fn new(n: usize) -> std::io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n.max(1)).build();
        pool.map(|pool| Self { pool, grain: GRAIN }).map_err(std::io::Error::other)
    }

    /// Hands over chunks of at least `macs` multiply-accumulates; 0 hands over everything.
    #[must_use]
    pub fn with_grain(mut self, macs: u64) -> Self {
        self.grain = macs;
        self
    }
}

#[cfg(feature = "std")]
impl Workers for Threads {
    fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn grain(&self) -> u64 {
        self.grain
    }

    fn for_each_chunk(
        &self,
        out: &mut [u8],
        chunk_bytes: usize,
        f: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) {
        use rayon::prelude::*;
        if out.len() <= chunk_bytes {
            // Entering the pool alone would cost a wake-up.
            return f(0, out);
        }
        self.pool.install(|| {
            out.par_chunks_mut(chunk_bytes.max(1)).enumerate().for_each(|(i, chunk)| f(i, chunk));
        });
    }
}
