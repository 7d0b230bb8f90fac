//! Training in several processes, each with its share of every batch.
//!
//! All processes hold the same network. A step is that of one process with the whole batch, but
//! for rounding: batch statistics ([`accel::statistics`]) and gradients are summed over all processes,
//! in the order of their numbers, so that all get the same bits and repeated runs, too. Process
//! 0 alone prints and writes; what it read from files the others receive (`from_first`).
//!
//! [`Processes`] is what training knows of the others; `mpi` (feature `mpi`) implements it,
//! [`Alone`] stands for a single process. A process that fails ends all of them (`run`), for
//! the others wait for its numbers.

#[cfg(feature = "mpi")]
mod mpi;

use crate::data::Share;
#[cfg(feature = "mpi")]
use accel::processes;
use accel::processes::AllReduce;
use burn::tensor::{Tensor, TensorData};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::OnceLock;

/// The processes that train together. Every method but the numbers waits for all of them.
pub trait Processes: AllReduce {
    /// Number of this one, from 0.
    fn rank(&self) -> usize;
    /// As [`AllReduce::sum`]; each sum is rounded once.
    fn sum_f32(&self, values: &mut [f32]);
    /// Replaces the bytes by those of process 0.
    fn broadcast(&self, bytes: &mut Vec<u8>);
    /// Threads that do not take another process's cores; `None` where all cores are this one's.
    fn threads(&self) -> Option<usize>;
}

/// A process without others.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl AllReduce for Alone {
    fn sum(&self, _: &mut [f64]) {}

    fn processes(&self) -> usize {
        1
    }
}

impl Processes for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn sum_f32(&self, _: &mut [f32]) {}

    fn broadcast(&self, _: &mut Vec<u8>) {}

    fn threads(&self) -> Option<usize> {
        None
    }
}

static WORLD: OnceLock<Box<dyn Processes>> = OnceLock::new();

/// The processes of this run: [`Alone`] unless `run` found others.
pub fn world() -> &'static dyn Processes {
    WORLD.get().map_or(&Alone, |world| &**world)
}

/// This process's share of every batch.
pub fn share() -> Share {
    Share { rank: world().rank(), processes: world().processes() }
}

/// Runs `job` together with the processes that were started with this one, if any: process 0
/// answers to `out`, the others are silent.
///
/// # Errors
/// Those of `job`. With others, an error is printed and ends all processes instead, with exit
/// status 2.
#[cfg(feature = "mpi")]
pub(crate) fn run(
    out: &mut dyn Write,
    job: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(session) = mpi::Session::join()? else { return job(out) };
    processes::join(&**WORLD.get_or_init(|| Box::new(session.world())));
    let result = match world().rank() {
        0 => job(out),
        _ => job(&mut std::io::sink()),
    };
    session.end(result)
}

/// Runs `job`.
///
/// # Errors
/// Those of `job`, and a start as one of several processes: they would all do the same and
/// write to the same files.
#[cfg(not(feature = "mpi"))]
pub(crate) fn run(
    out: &mut dyn Write,
    job: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    check_alone(|name| std::env::var(name).ok())?;
    job(out)
}

/// Checks that the environment's `variable`s tell of no other processes.
#[cfg(any(test, not(feature = "mpi")))]
fn check_alone(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    // What Open MPI's and MPICH's launchers set.
    for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let count = variable(name).and_then(|v| v.parse().ok()).unwrap_or(1);
        anyhow::ensure!(
            count <= 1,
            "started as one of {count} processes, but built without MPI; build trainer with \
             `--features mpi`, or start it without mpirun"
        );
    }
    Ok(())
}

/// What `make` returns in process 0, in every process; the others do not call it.
///
/// # Errors
/// Those of `make`, in process 0.
pub(crate) fn from_first<T: Serialize + DeserializeOwned>(
    make: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let world = world();
    if world.processes() == 1 {
        return make();
    }
    if world.rank() == 0 {
        let value = make()?;
        world.broadcast(&mut rmp_serde::to_vec_named(&value)?);
        return Ok(value);
    }
    let mut bytes = Vec::new();
    world.broadcast(&mut bytes);
    Ok(rmp_serde::from_slice(&bytes)?)
}

/// Sums gradients over all processes, all tensors at once.
pub(crate) fn sum_gradients(gradients: &mut BTreeMap<String, Tensor<1>>) {
    let world = world();
    if world.processes() == 1 {
        return;
    }
    let mut flat = Vec::with_capacity(gradients.values().map(|g| g.dims()[0]).sum());
    for gradient in gradients.values() {
        flat.extend(gradient.to_data().iter::<f32>());
    }
    world.sum_f32(&mut flat);
    let mut rest = flat.as_slice();
    for gradient in gradients.values_mut() {
        let (own, next) = rest.split_at(gradient.dims()[0]);
        *gradient =
            Tensor::from_data(TensorData::new(own.to_vec(), [own.len()]), &gradient.device());
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::check_alone;

    /// A build without MPI does not take itself for one of several processes.
    #[test]
    fn one_of_several_processes_says_what_it_lacks() {
        for launcher in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
            let started =
                |count: &str| check_alone(|name| (name == launcher).then(|| count.to_owned()));
            let said = started("2").unwrap_err().to_string();
            assert!(
                said.contains("one of 2 processes") && said.contains("--features mpi"),
                "{said}"
            );
            started("1").unwrap();
        }
        check_alone(|_| None).unwrap();
    }
}
