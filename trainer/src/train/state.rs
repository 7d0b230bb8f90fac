//! What `--resume` needs beside the checkpoint.

use super::sgd::Velocity;
use convert::checkpoint::{Checkpoint, write_atomic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Newest version of the file, the one written.
const VERSION: u32 = 1;

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
    /// Optimizer.
    pub velocities: BTreeMap<String, Velocity>,
    /// Network and figures after the epoch.
    pub last: Checkpoint,
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
    /// The state after `epoch` epochs and `step` steps.
    pub fn new(last: Checkpoint, velocities: BTreeMap<String, Velocity>) -> Self {
        Self {
            version: VERSION,
            epoch: 0,
            step: 0,
            options: last.training.options.clone(),
            fingerprint: last.training.fingerprint.clone(),
            best: None,
            velocities,
            last,
        }
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
            std::fs::read(path).map_err(|source| StateError::Io { path: name.clone(), source })?;
        let format = |what: String| StateError::Format { path: name.clone(), what };
        let state: Self = rmp_serde::from_slice(&bytes).map_err(|e| format(e.to_string()))?;
        if state.version != VERSION {
            return Err(format(format!("version {}, this build reads {VERSION}", state.version)));
        }
        state.last.check().map_err(format)?;
        for (name, v) in &state.velocities {
            let fits = v.fits(state.last.tensors.get(name).map(|t| t.shape.iter().product()));
            if !fits {
                return Err(format(format!("velocity `{name}` does not fit its tensor")));
            }
        }
        Ok(state)
    }
}
