//! The processes that `mpirun` started, joined by MPI.
//!
//! MPI leaves the order of a reduction's additions open. Here values travel by gathering
//! operations alone, and are added in the order of the ranks.
//!
//! MPI calls must not overlap: a lock keeps them apart. An error inside MPI ends all processes,
//! which is MPI's default.

use super::{AllReduce, Processes};
use anyhow::{Context, ensure};
use core::mem::ManuallyDrop;
use core::time::Duration;
use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use network::random::fnv1a;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Exit status of a failed run.
const FAILED: i32 = 2;
/// Bytes of one broadcast: MPI counts them in 32 bits.
const PIECE: usize = 1 << 30;
/// What an error of another process waits for: if process 0 has the same, it is said once.
const AFTER_FIRST: Duration = Duration::from_millis(300);
/// What the launcher gets for showing the last line before it is told to end everything.
const FORWARDING: Duration = Duration::from_millis(50);
/// Set by the launchers of Open MPI and MPICH, and by every launcher that speaks PMIx.
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// The time between MPI's start and its end in this process.
pub(super) struct Session {
    /// Dropped by [`Session::end`] alone: a process that ends in a panic must not wait for the
    /// others, whom the launcher ends then.
    universe: ManuallyDrop<Universe>,
}

impl Session {
    /// Starts MPI where a launcher started this process; else there is `None` to join.
    ///
    /// # Errors
    /// An MPI library without support for threads.
    pub(super) fn join() -> anyhow::Result<Option<Self>> {
        if LAUNCHED.iter().all(|name| std::env::var_os(name).is_none()) {
            return Ok(None);
        }
        // A second run in one process has the first one's session, which has ended.
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
            .context("MPI was started before in this process; start another one")?;
        let universe = ManuallyDrop::new(universe);
        ensure!(
            threading >= Threading::Serialized,
            "this MPI library does not support threads; use one built with MPI_THREAD_SERIALIZED"
        );
        Ok(Some(Self { universe }))
    }

    pub(super) fn world(&self) -> Mpi {
        let world = self.universe.world();
        let [rank, processes] = [world.rank(), world.size()].map(|n| n as usize);
        Mpi { rank, processes, threads: threads(&world), calls: Mutex::new(()) }
    }

    /// Ends MPI, after an error in all processes.
    ///
    /// # Errors
    /// That in `result`, if this process is alone.
    pub(super) fn end(self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let world = self.universe.world();
        if let Err(error) = &result
            && world.size() > 1
        {
            let rank = world.rank();
            if rank > 0 {
                std::thread::sleep(AFTER_FIRST);
            }
            let line = format!("trainer: rank {rank}: {}\n", page::terminal::describe(error));
            // In one piece; where nobody reads it any more, the exit status is what is left.
            let _ = std::io::stderr().write_all(line.as_bytes());
            std::thread::sleep(FORWARDING);
            world.abort(FAILED);
        }
        drop(ManuallyDrop::into_inner(self.universe));
        result
    }
}

/// This process's share of the cores that it may use: the launcher may have bound each process
/// to cores of its own, or several to the same.
fn threads(world: &SimpleCommunicator) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
    let own = fnv1a(cores.unwrap_or_default().as_bytes());
    let machine = world.split_shared(world.rank());
    let mut all = vec![0; machine.size() as usize];
    machine.all_gather_into(&own, &mut all);
    let sharing = all.iter().filter(|cores| **cores == own).count();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / sharing).max(1)
}

/// All processes of a launch.
#[derive(Debug)]
pub(super) struct Mpi {
    rank: usize,
    processes: usize,
    threads: usize,
    calls: Mutex<()>,
}

impl Mpi {
    /// Until the guard is dropped, the only one to call MPI.
    fn world(&self) -> (SimpleCommunicator, MutexGuard<'_, ()>) {
        let guard = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        (SimpleCommunicator::world(), guard)
    }
}

/// Element by element, the sum of the `parts` equal parts of `values`, the first one first.
fn in_order<T: Copy + Into<f64>>(values: &[T], parts: usize) -> impl Iterator<Item = f64> {
    let len = values.len() / parts;
    (0..len).map(move |i| values.iter().skip(i).step_by(len).map(|v| (*v).into()).sum())
}

impl AllReduce for Mpi {
    /// Few values, often: one operation, each process adds all.
    fn sum(&self, values: &mut [f64]) {
        let (world, _guard) = self.world();
        let mut all = vec![0.0; values.len() * self.processes];
        world.all_gather_into(&*values, &mut all);
        for (value, sum) in values.iter_mut().zip(in_order(&all, self.processes)) {
            *value = sum;
        }
    }

    fn processes(&self) -> usize {
        self.processes
    }
}

impl Processes for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    /// Many values: each process adds one part of them, so that each sends and receives about
    /// twice the values, however many processes there are.
    fn sum_f32(&self, values: &mut [f32]) {
        let (world, _guard) = self.world();
        let part = values.len().div_ceil(self.processes);
        let mut all = values.to_vec();
        all.resize(part * self.processes, 0.0);
        let mut parts = vec![0.0_f32; all.len()];
        world.all_to_all_into(&all, &mut parts);
        let own: Vec<f32> = in_order(&parts, self.processes).map(|sum| sum as f32).collect();
        world.all_gather_into(&own, &mut all);
        values.copy_from_slice(&all[..values.len()]);
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let (world, _guard) = self.world();
        let first = world.process_at_rank(0);
        let mut len = bytes.len() as u64;
        first.broadcast_into(&mut len);
        bytes.resize(len as usize, 0);
        for piece in bytes.chunks_mut(PIECE) {
            first.broadcast_into(piece);
        }
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}
