//! What can be wrong with a model of others.

use hub::HubError;
use network::checkpoint::CheckpointError;
use std::path::Path;

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A model of a hub that cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Our own checkpoint, unusable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A JSON file that is none, or has not the fields that it should.
    #[error("{path}: {source}")]
    Json {
        /// File.
        path: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// Readable, but not something that is imported.
    #[error("{path}: {what}")]
    Unsupported {
        /// File or folder.
        path: String,
        /// What was found, what was wanted and what to do.
        what: String,
    },
    /// Tensors that do not fit the architecture.
    #[error("{path}: the weights do not fit {config}:{differences}")]
    Tensors {
        /// File or folder.
        path: String,
        /// Architecture.
        config: String,
        /// One line for each tensor that is missing, of another shape, or too many.
        differences: String,
    },
}

impl ImportError {
    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.display().to_string(), what: what.into() }
    }
}
