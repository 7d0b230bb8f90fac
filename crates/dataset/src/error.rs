//! Why a data set cannot be used.

use std::path::{Path, PathBuf};

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Readable, but not a data set.
    #[error("{}: {what}", path.display())]
    Layout {
        /// File or folder.
        path: PathBuf,
        /// What was found, what was wanted and what to do.
        what: String,
    },
    /// A picture was readable when the data set was read, and is not, or another, when it is
    /// needed again.
    #[error(
        "{}: {why}, but it was readable at first; restore it (--resume then continues a training \
         run) or start again",
        path.display()
    )]
    Lost {
        /// File.
        path: PathBuf,
        /// What is wrong with it now.
        why: String,
    },
}

impl DataError {
    pub(super) fn layout(path: &Path, what: impl Into<String>) -> Self {
        Self::Layout { path: path.into(), what: what.into() }
    }

    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
