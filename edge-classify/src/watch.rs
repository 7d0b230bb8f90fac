//! Pictures as they appear in a folder.
//!
//! The folder is looked through a few times a second, which works on every file system, those of
//! other machines included. A file is taken once two looks in a row found it the same, so that it is
//! not read while it is being written; and again whenever it changes.

use crate::sources::{self, Source};
use anyhow::{Context, Result};
use core::time::Duration;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Time between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// What changes when a file does: its length and its time.
type Stamp = (u64, SystemTime);

/// A folder, and what of it was seen.
pub(crate) struct Watch<'a> {
    folder: &'a Path,
    seen: HashMap<PathBuf, Seen>,
}

struct Seen {
    stamp: Stamp,
    taken: bool,
}

impl<'a> Watch<'a> {
    /// Starts to watch; what is in the folder already is not taken.
    pub(crate) fn new(folder: &'a Path) -> Result<Self> {
        let mut watch = Self { folder, seen: HashMap::new() };
        let seen =
            watch.look()?.into_iter().map(|(path, stamp)| (path, Seen { stamp, taken: true }));
        watch.seen = seen.collect();
        Ok(watch)
    }

    /// Files to classify now, the oldest first.
    pub(crate) fn next(&mut self) -> Result<Vec<PathBuf>> {
        let mut ready = Vec::new();
        let mut before = core::mem::take(&mut self.seen);
        for (path, stamp) in self.look()? {
            let old = before.remove(&path).filter(|old| old.stamp == stamp);
            let taken = old.is_some_and(|old| {
                if !old.taken {
                    ready.push((stamp.1, path.clone()));
                }
                true
            });
            self.seen.insert(path, Seen { stamp, taken });
        }
        ready.sort();
        Ok(ready.into_iter().map(|(_, path)| path).collect())
    }

    /// All pictures of the folder.
    fn look(&self) -> Result<Vec<(PathBuf, Stamp)>> {
        let name = || format!("--watch {}", self.folder.display());
        // Of a folder that is gone, `walk` would only report that it holds nothing.
        fs::read_dir(self.folder).with_context(name)?;
        let mut sources = Vec::new();
        sources::walk(self.folder, &mut sources);
        let stamped = |source| match source {
            Source::File(path) => {
                // A file that is gone again is none.
                let metadata = fs::metadata(&path).ok()?;
                Some((path, (metadata.len(), metadata.modified().ok()?)))
            }
            Source::Stdin | Source::Failed(..) => None,
        };
        Ok(sources.into_iter().filter_map(stamped).collect())
    }
}
