//! Files of a data set that could not be used.

use super::layout::is_picture;
use core::fmt::{self, Display, Formatter};
use std::path::PathBuf;

/// A file that could not be used; shown as `path: why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub why: String,
}

impl Skipped {
    /// Whether its name says that it is a picture; others lie beside pictures by chance.
    pub fn is_named_as_picture(&self) -> bool {
        is_picture(&self.path)
    }
}

impl Display for Skipped {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}
