//! The training loop.
//!
//! Everything random in an epoch follows from the seed and the epoch's number, and the
//! state is saved after each whole epoch. A run that was killed repeats its broken epoch
//! from there and ends with the same weights as one that was not.

mod calibration;
mod evaluate;
mod folder;
mod lessons;
mod loss;
mod optimizer;
mod pass;
pub(crate) mod probe;
mod progress;
mod recipe;
mod run;
mod schedule;
mod state;
mod teacher;
mod validation;

pub use calibration::{BINS, Bin, calibration, ece};
pub use evaluate::{Answer, Evaluation, evaluate};
pub use folder::{Claim, Existing, Folder, FolderError, SETTINGS, check_file};
pub use loss::{
    argmax, balanced_weights, cross_entropy, cross_entropy_of_probabilities, distillation, rank,
    target_rows, targets,
};
pub use optimizer::{Average, Clip, Memory, Optimizer, OptimizerConfig, Rule, Slot, Values};
use page::progress::Counter;
pub(crate) use page::progress::duration;
pub use progress::{Figures, Progress};
pub use recipe::Recipe;
pub use run::Run;
pub use schedule::Schedule;
pub use state::{State, StateError};
pub(crate) use teacher::check as check_teaching;
pub use teacher::{Teacher, Teaching};

use crate::net::{self, Init, Network};
use burn::tensor::Device;
use network::checkpoint::Checkpoint;

const DIVERGED: &str = "training diverged; use a smaller --lr or a longer --warmup-epochs";

/// Why a run ends that somebody stopped in an epoch, from 0.
fn interrupted(epoch: u32, epochs: u32) -> anyhow::Error {
    let from = match epoch {
        0 => "starts it again".into(),
        epoch => format!("continues after epoch {epoch}"),
    };
    let (epoch, again) = (epoch + 1, "the same command with --resume");
    anyhow::anyhow!("interrupted in epoch {epoch} of {epochs}; {again} {from}")
}

/// Shows on stderr how far slow work is, in the first of several processes.
pub(crate) fn counter(what: &'static str) -> Option<Counter> {
    (crate::distributed::world().rank() == 0).then(|| Counter::new(what))
}

/// Builds the network of a checkpoint on a plain device, ready to evaluate.
///
/// # Errors
/// Tensors that do not fit the architecture.
pub fn network(checkpoint: &Checkpoint, device: &Device) -> anyhow::Result<Network> {
    let mut net =
        Network::new(&checkpoint.config, Init::he(0), device).map_err(anyhow::Error::msg)?;
    net::load_tensors(&mut net, &checkpoint.tensors, false)?;
    Ok(net)
}
