//! What `--resume` needs beside the checkpoint.

use super::optimizer::Memory;
use network::checkpoint::{Draft, EpochRecord, Tensor};
use network::file::{self, write_atomic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Newest version of the file, the one written.
const VERSION: u32 = 2;

/// The run after its last whole epoch. Network and optimizer are in one file, so that a
/// crash between two files cannot pair one epoch's weights with another's velocities.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Epochs done.
    pub epoch: u32,
    /// Steps done, which the schedule counts.
    pub step: u64,
    /// The options that shape the result; a resumed run must have the same.
    pub options: BTreeMap<String, String>,
    /// Data set of the run.
    pub fingerprint: String,
    /// Best validation accuracy so far.
    pub best: Option<f64>,
    /// Epoch that had it, from 1; the last one without validation pictures.
    pub best_epoch: u32,
    /// Optimizer.
    pub memory: Memory,
    /// Ranges of maps, where the network rounds them as int8 does.
    #[serde(default)]
    pub ranges: BTreeMap<String, [f32; 2]>,
    /// Network and figures after the epoch, the weights as they learn: not averaged.
    pub last: Draft,
}

/// Why a run cannot be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The file cannot be encoded or decoded.
    #[error("{path}: not a readable training state ({what}); train again without --resume")]
    Format {
        /// File.
        path: String,
        /// Cause.
        what: String,
    },
}

impl State {
    /// The state before the first epoch.
    pub fn new(last: Draft) -> Self {
        Self {
            version: VERSION,
            epoch: 0,
            step: 0,
            options: last.training.options.clone(),
            fingerprint: last.training.fingerprint.clone(),
            best: None,
            best_epoch: 0,
            memory: Memory::default(),
            ranges: BTreeMap::new(),
            last,
        }
    }

    /// Whether the run that left this had no epoch to go.
    pub fn done(&self) -> bool {
        let option = |name: &str| self.options.get(name).and_then(|v| v.parse::<u32>().ok());
        let Some(epochs) = option("epochs") else { return true };
        // While only the head learns, nothing is decided that the backbone cannot better.
        let frozen = option("freeze-epochs").filter(|frozen| *frozen < epochs).unwrap_or(0);
        let waited = self.epoch.saturating_sub(self.best_epoch.max(frozen));
        let impatient = option("patience").is_some_and(|patience| waited >= patience);
        self.epoch >= epochs || (self.best.is_some() && impatient)
    }

    /// Takes in what an epoch was like and what it made of the weights; tells whether its model is
    /// the best so far. Of those that are right as often, it is the one with the lower loss: few
    /// pictures are soon all right.
    pub(super) fn add(&mut self, record: EpochRecord, tensors: BTreeMap<String, Tensor>) -> bool {
        let accuracy = record.val_accuracy;
        let loss = record.val_loss;
        let best = self.best_epoch.checked_sub(1);
        let best = best.and_then(|i| self.last.training.epochs.get(i as usize)?.val_loss);
        let as_right = accuracy == self.best && loss < best;
        self.epoch = record.epoch;
        self.last.training.epochs.push(record);
        self.last.tensors = tensors;
        let is_better =
            self.best.is_none() || accuracy.is_none() || accuracy > self.best || as_right;
        if is_better {
            (self.best, self.best_epoch) = (accuracy, self.epoch);
        }
        is_better
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// Unwritable folder or full disk.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        let name = path.display().to_string();
        let bytes = rmp_serde::to_vec_named(self)
            .map_err(|e| StateError::Format { path: name.clone(), what: e.to_string() })?;
        write_atomic(path, &bytes).map_err(|source| StateError::Io { path: name, source })
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// Unreadable, damaged or newer files.
    pub fn load(path: &Path) -> Result<Self, StateError> {
        let name = path.display().to_string();
        let bytes =
            file::read(path).map_err(|source| StateError::Io { path: name.clone(), source })?;
        let format = |what: String| StateError::Format { path: name.clone(), what };
        let state: Self = rmp_serde::from_slice(&bytes).map_err(|e| format(e.to_string()))?;
        if state.version != VERSION {
            return Err(format(format!("version {}, this build reads {VERSION}", state.version)));
        }
        state.last.fits().map_err(format)?;
        for (name, values) in state.memory.slots.values().flatten() {
            let tensor = state.last.tensors.get(name);
            if !values.fits(tensor.map(|t| t.shape.iter().product())) {
                return Err(format(format!("what was saved of `{name}` does not fit its tensor")));
            }
        }
        Ok(state)
    }
}
