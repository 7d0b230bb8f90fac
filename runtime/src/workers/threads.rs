//! A pool of threads that stay awake between operators.
//!
//! Waking a parked thread takes 30 to 50 µs, longer than many an operator runs; telling one that
//! spins takes a fraction of one. So threads spin for a while after their last work before they
//! park, and chunks may be the smaller as long as none is parked.
//!
//! All that threads share of a job is one word, `state`: the job's number, whether it is open,
//! and how many threads work at it. A thread joins by a compare-and-swap that fails once the job
//! is closed, and takes chunks from the end, as whoever gave the job does from the front: so that two threads
//! mostly have the same parts of map after map, in caches of their own. Whoever gave it closes it when
//! the chunks run out, and returns when nobody is left in it. A thread that comes late finds it
//! closed, and nobody has waited for it.

use super::{ChunkWith, Workers};
use core::cell::UnsafeCell;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::boxed::Box;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::vec::Vec;

/// How long a thread without work spins before it parks.
const SPIN: Duration = Duration::from_micros(100);
/// Turns of a spinning loop between looks at the clock, some 2 µs.
const TURNS: u32 = 64;

/// What is worth a chunk where all threads spin: multiply-accumulates for each nanosecond in which another
/// thread answers, at least and at most.
const PER_NANOSECOND: u64 = 333;
const AWAKE: [u64; 2] = [100_000, 2_000_000];
/// Runs after which the time of an answer is measured again: on virtual machines, it changes.
const RUNS: u64 = 256;
/// When nobody is waited for any longer.
const LATE: Duration = Duration::from_micros(20);
/// Where some are parked: the time in which one is woken.
const PARKED: u64 = 4_000_000;

/// The job is open: threads may join.
const OPEN: u64 = 1 << 31;
/// One thread in the job; the count takes the bits below [`OPEN`].
const ONE: u64 = 1;
/// The job's number takes the upper half.
const NUMBER: u32 = 32;

/// What is done with a chunk by a thread, of which the caller is the first.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A job: what to do with each chunk, how many there are, and how many threads may.
#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    chunks: usize,
    threads: usize,
}

struct Shared {
    state: AtomicU64,
    /// Chunks that were taken from the front, and, in the upper half, from the end; or asked for in vain.
    taken: AtomicU64,
    /// Written while no job is open and nobody in one; read by those in one.
    job: UnsafeCell<Job>,
    parked: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
}

// SAFETY: `job` is the only field that is not `Sync`. It is written by whoever holds
// `Threads::turn`, while `state` is closed with a count of zero, and read only by threads that
// joined, which the count shows; see `give` and `join`. Its task is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the task behind the pointer is never dropped here, only called.
unsafe impl Send for Shared {}

impl Shared {
    /// Does `task` for `0..chunks` with whoever joins of the first `threads`; `wake` is called once they may.
    fn give(&self, task: &Task<'_>, [chunks, threads]: [usize; 2], wake: impl FnOnce()) {
        // SAFETY: only the lifetime changes. Threads call the task only between joining the job
        // and leaving it, and `Closing` waits, even in a panic, until all have left.
        let task = unsafe { core::mem::transmute::<&Task<'_>, &Task<'static>>(task) };
        let job = Job { task, chunks, threads };
        // SAFETY: the last job was closed and left by all, see `Closing`; nobody reads.
        unsafe { *self.job.get() = job };
        self.taken.store(0, Ordering::Relaxed);
        self.panicked.store(false, Ordering::Relaxed);
        let number = (self.state.load(Ordering::Relaxed) >> NUMBER).wrapping_add(1);
        // Releases the job to those who join. Sequentially consistent with `parked`: either a
        // thread about to park sees the job, or `wake` sees the thread.
        self.state.store(number << NUMBER | OPEN, Ordering::SeqCst);
        let _closing = Closing(self);
        wake();
        self.work(job, 0);
    }

    /// Does chunks until there are none, the caller from the front, others from the end.
    fn work(&self, job: Job, thread: usize) {
        if thread >= job.threads {
            return;
        }
        let from_end = thread > 0;
        // SAFETY: the job is open or this thread in it, so that `give` has not returned.
        let task = unsafe { &*job.task };
        loop {
            let one = if from_end { 1 << 32 } else { 1 };
            let taken = self.taken.fetch_add(one, Ordering::Relaxed);
            let [front, end] = [taken as u32 as usize, (taken >> 32) as usize];
            if front + end >= job.chunks {
                return;
            }
            task(if from_end { job.chunks - 1 - end } else { front }, thread);
        }
    }

    /// Joins the open job unless it is number `seen`, works as number `thread` and leaves; returns its number.
    fn join(&self, seen: u64, thread: usize) -> Option<u64> {
        let state = self.state.load(Ordering::SeqCst);
        let number = state >> NUMBER;
        if state & OPEN == 0 || number == seen {
            return None;
        }
        // Acquires the job, which was released with the state.
        self.state
            .compare_exchange(state, state + ONE, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        // SAFETY: this thread is in the job, which is therefore not written.
        let job = unsafe { *self.job.get() };
        if catch_unwind(AssertUnwindSafe(|| self.work(job, thread))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        // Releases what the chunks hold to `Closing`.
        self.state.fetch_sub(ONE, Ordering::Release);
        Some(number)
    }

    /// A thread's life.
    fn live(&self, thread: usize) {
        let mut seen = 0;
        loop {
            let idle = Instant::now();
            let mut turns = 0u32;
            loop {
                if let Some(number) = self.join(seen, thread) {
                    seen = number;
                    break;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                core::hint::spin_loop();
                turns = turns.wrapping_add(1);
                if turns.is_multiple_of(TURNS) && idle.elapsed() >= SPIN {
                    self.park(seen);
                    break;
                }
            }
        }
    }

    /// Sleeps until there may be something to do.
    fn park(&self, seen: u64) {
        self.parked.fetch_add(1, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        let work = state & OPEN != 0 && state >> NUMBER != seen;
        if !work && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Closes the job and waits for those in it when dropped.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut turns = 0u32;
        // Acquires what their chunks hold.
        while self.0.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS) {
                // Its CPU may be needed by whom it waits for.
                thread::yield_now();
            }
            core::hint::spin_loop();
        }
    }
}

/// A pool of threads; the one that runs an inference is one of them.
pub struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held by whose job it is; another's is done without help.
    turn: Mutex<()>,
    grain: Option<u64>,
    /// What is worth a chunk where all threads spin.
    awake: AtomicU64,
    /// Runs that have begun.
    runs: AtomicU64,
}

impl core::fmt::Debug for Threads {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Threads").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Threads {
    /// A pool of `n` threads, the caller's included (0 counts as 1).
    ///
    /// # Errors
    /// The operating system refuses to start a thread.
    pub fn new(n: usize) -> std::io::Result<Self> {
        let nothing: &'static Task<'static> = &|_, _| ();
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            job: UnsafeCell::new(Job { task: nothing, chunks: 0, threads: 0 }),
            parked: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Self {
            shared,
            threads: Vec::new(),
            turn: Mutex::new(()),
            grain: None,
            awake: AtomicU64::new(AWAKE[0]),
            runs: AtomicU64::new(0),
        };
        for i in 1..n {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(std::format!("worker {i}"));
            // Where one cannot be started, those that were are stopped with the pool.
            pool.threads.push(thread.spawn(move || shared.live(i))?);
        }
        Ok(pool)
    }

    /// Hands over chunks of at least `macs` multiply-accumulates, whatever the threads do; 0
    /// hands over everything.
    #[must_use]
    pub fn with_grain(mut self, macs: u64) -> Self {
        self.grain = Some(macs);
        self
    }

    /// Does `task` once for each of `0..count`, with the first `threads` of the other threads if they are free,
    /// the caller among them.
    fn share(&self, [count, threads]: [usize; 2], task: &Task<'_>) {
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            // Left by a panic, after the job was closed.
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if turn.is_none() || count <= 1 {
            return (0..count).for_each(|i| task(i, 0));
        }
        self.shared.give(task, [count, threads], || self.wake());
        if self.shared.panicked.load(Ordering::Relaxed) {
            resume_unwind(Box::new("a worker thread panicked"));
        }
    }

    /// Measures how long it takes until all threads have answered, the fastest of some times.
    fn measure(&self) {
        const TIMES: usize = 4;
        let all = self.threads();
        let answer = |_| {
            let (arrived, start) = (AtomicUsize::new(0), Instant::now());
            self.share([all, all], &|_, _| {
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < all && start.elapsed() < LATE {
                    core::hint::spin_loop();
                }
            });
            start.elapsed()
        };
        let fastest = (0..TIMES).map(answer).min().unwrap_or(LATE);
        let grain = fastest.as_nanos() as u64 * PER_NANOSECOND;
        self.awake.store(grain.clamp(AWAKE[0], AWAKE[1]), Ordering::Relaxed);
    }

    /// Wakes parked threads.
    fn wake(&self) {
        if self.shared.parked.load(Ordering::SeqCst) > 0 {
            for thread in &self.threads {
                thread.thread().unpark();
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        for thread in self.threads.drain(..) {
            // A panic was reported to whose chunk it was.
            let _ = thread.join();
        }
    }
}

impl Workers for Threads {
    fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    fn grain(&self) -> u64 {
        let parked = self.shared.parked.load(Ordering::Relaxed) > 0;
        self.grain.unwrap_or(if parked { PARKED } else { self.awake.load(Ordering::Relaxed) })
    }

    fn begin(&self, macs: u64) {
        if macs >= PARKED {
            self.wake();
        }
        let is_measured = self.grain.is_none() && !self.threads.is_empty();
        let are_awake = self.shared.parked.load(Ordering::Relaxed) == 0;
        if is_measured
            && are_awake
            && self.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(RUNS)
        {
            self.measure();
        }
    }

    fn for_each_chunk(
        &self,
        out: &mut [u8],
        chunk_bytes: usize,
        f: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) {
        let pieces = Pieces::new(out, chunk_bytes);
        // SAFETY: `out` is borrowed until all threads are done, and each piece is one thread's.
        self.share([pieces.count(), self.threads()], &|i, _| f(i, unsafe { pieces.piece(i) }));
    }

    fn for_each_chunk_with(
        &self,
        [out, scratch]: [&mut [u8]; 2],
        [chunk_bytes, slot_bytes]: [usize; 2],
        f: &ChunkWith<'_>,
    ) {
        let whole = scratch.len() / slot_bytes.max(1);
        let (chunks, slots) = (Pieces::new(out, chunk_bytes), Pieces::new(scratch, slot_bytes));
        if whole == 0 {
            return;
        }
        // SAFETY: as above; a thread does one chunk at a time, and nobody else has its slot.
        self.share([chunks.count(), whole], &|i, thread| unsafe {
            f(i, chunks.piece(i), slots.piece(thread));
        });
    }
}

/// A slice that threads share by pieces.
struct Pieces {
    start: *mut u8,
    len: usize,
    bytes: usize,
}

// SAFETY: threads make disjoint slices of it, see `piece`.
unsafe impl Sync for Pieces {}

impl Pieces {
    fn new(all: &mut [u8], bytes: usize) -> Self {
        Self { start: all.as_mut_ptr(), len: all.len(), bytes: bytes.max(1) }
    }

    fn count(&self) -> usize {
        self.len.div_ceil(self.bytes)
    }

    /// Piece `i`; the last may be shorter.
    ///
    /// # Safety
    /// `i` is less than the count, the slice is still borrowed, and no other slice is made of this
    /// piece meanwhile.
    #[expect(clippy::mut_from_ref, reason = "of each piece there is one, as the caller promises")]
    unsafe fn piece(&self, i: usize) -> &mut [u8] {
        let at = i * self.bytes;
        // SAFETY: the caller's promise; `at` is less than the length.
        unsafe {
            core::slice::from_raw_parts_mut(self.start.add(at), self.bytes.min(self.len - at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn every_chunk_is_done_once() {
        for n in [0, 1, 2, 3, 5] {
            let pool = Threads::new(n).unwrap();
            for round in 0..if cfg!(miri) { 60 } else { 2_000 } {
                let (len, chunk) = (round % 37, 1 + round % 5);
                let mut out = vec![0; len];
                pool.for_each_chunk(&mut out, chunk, &|i, chunk| {
                    for b in chunk {
                        *b += 1 + i as u8;
                    }
                });
                let want: Vec<u8> = (0..len).map(|at| 1 + (at / chunk) as u8).collect();
                assert_eq!(out, want, "{n} threads, {len} by {chunk}");
            }
        }
    }

    #[test]
    fn every_thread_has_its_slot() {
        let pool = Threads::new(3).unwrap();
        for round in 0..if cfg!(miri) { 60 } else { 2_000 } {
            let (count, chunk, slot) = (round % 7, 1 + round % 5, 1 + round % 3);
            let slots = round % 4;
            let mut out = vec![0; count * chunk];
            // What is left is no slot.
            let mut scratch = vec![0; slots * slot + slot - 1];
            pool.for_each_chunk_with([&mut out, &mut scratch], [chunk, slot], &|i, chunk, slot| {
                slot.fill(1 + i as u8);
                chunk.fill(slot[0]);
            });
            let want = |at: usize| if slots == 0 { 0 } else { 1 + at / chunk };
            assert!(out.iter().enumerate().all(|(at, b)| usize::from(*b) == want(at)));
            assert!(scratch[slots.min(3) * slot..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn threads_that_parked_are_woken() {
        let pool = Threads::new(2).unwrap();
        for _ in 0..20 {
            while pool.shared.parked.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            assert_eq!(pool.grain(), PARKED);
            // Both must come, for each waits for the other.
            let both = std::sync::Barrier::new(2);
            pool.for_each_chunk(&mut [0; 2], 1, &|_, _| {
                both.wait();
            });
        }
    }

    #[test]
    fn a_job_inside_a_job_is_done_without_help() {
        let pool = Threads::new(2).unwrap();
        let mut out = [0; 8];
        pool.for_each_chunk(&mut out, 2, &|_, chunk| {
            pool.for_each_chunk(chunk, 1, &|i, b| b[0] = 1 + i as u8);
        });
        assert_eq!(out, [1, 2, 1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn a_panic_is_passed_on_and_the_pool_works_again() {
        let pool = Threads::new(2).unwrap();
        for chunk in 0..2 {
            let both = std::sync::Barrier::new(2);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each_chunk(&mut [0; 2], 1, &|i, _| {
                    both.wait();
                    assert_ne!(i, chunk, "as it should");
                });
            }));
            assert!(caught.is_err());
            let mut out = [0; 9];
            pool.for_each_chunk(&mut out, 1, &|i, b| b[0] = i as u8);
            assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Threads::new(3).unwrap();
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..if cfg!(miri) { 20 } else { 500 } {
                        let mut out = [0; 64];
                        pool.for_each_chunk(&mut out, 3, &|i, b| b.fill(i as u8));
                        assert!(out.iter().enumerate().all(|(at, b)| usize::from(*b) == at / 3));
                    }
                });
            }
        });
    }
}
