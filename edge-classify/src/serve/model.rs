//! The model in use, and its file, which is looked at again and again.

use super::App;
use crate::drift::Drift;
use crate::model::{ModelFile, Use};
use anyhow::Result;
use core::time::Duration;
use runtime::{Distance, Model, PublicKey};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Time between two looks at the file.
const PAUSE: Duration = Duration::from_millis(500);

/// A model in memory, checked.
pub(super) struct Loaded {
    file: ModelFile,
    pub(super) name: String,
    pub(super) classes: usize,
    /// Of pictures that it has classified, if it tells unknown ones.
    drift: Option<Mutex<Drift>>,
}

impl core::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Loaded").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Copies a model to memory, then checks it and its signature.
    pub(super) fn open(path: Option<&Path>, key: Option<&PublicKey>) -> Result<Self> {
        let file = ModelFile::open(path, Use::Long)?;
        let model = file.parse(key)?;
        let (name, classes) = (model.meta().name.to_string(), model.classes());
        let drift = model.has_known().then(Mutex::default);
        Ok(Self { file, name, classes, drift })
    }

    /// Counts a picture's distance; a line where pictures begin to drift, or end to.
    pub(super) fn add(&self, distance: &Distance) -> Option<String> {
        let mut drift = self.drift.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        drift.add(distance)
    }

    /// The running mean of distances, in units of the usual one.
    pub(super) fn drift(&self) -> Option<f32> {
        let drift = self.drift.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(drift.mean())
    }

    /// The model; its signature was checked in these very bytes.
    pub(super) fn model(&self) -> Result<Model<'_>> {
        self.file.parse(None)
    }
}

/// What changes when a file does; nanoseconds, and where the system has them, the file's number and
/// the time that nobody can set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, i64, i64),
}

/// `None` of a file that is gone, as it is for a moment while some programs replace it.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        len: metadata.len(),
        modified: metadata.modified().ok(),
        #[cfg(unix)]
        inode: {
            use std::os::unix::fs::MetadataExt;
            (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        },
    })
}

/// A model's file. It is taken when two looks in a row found it the same, so that none is read while
/// it is being written.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// As it was when it was last read, whatever came of it.
    read: Option<Stamp>,
    last: Option<Stamp>,
}

impl Watched {
    /// To be called before the file is read for the first time.
    pub(super) fn new(path: &Path) -> Self {
        let read = stamp(path);
        Self { path: path.into(), last: read.clone(), read }
    }

    /// Whether the file has changed, and is whole by the looks of it.
    fn is_due(&mut self) -> bool {
        let now = stamp(&self.path);
        let is_due = now.is_some() && now == self.last && now != self.read;
        self.last = now;
        if is_due {
            self.read.clone_from(&self.last);
        }
        is_due
    }

    /// Replaces the model whenever the file changes to another one; one that cannot be used is
    /// reported, and the one in use stays.
    pub(super) async fn follow(mut self, app: Arc<App>, key: Option<PublicKey>) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let (path, key, app) = (self.path.clone(), key, Arc::clone(&app));
            // Disks may be slow, and requests are answered here.
            let looked = tokio::task::spawn_blocking(move || {
                if self.is_due() {
                    app.take(Loaded::open(Some(&path), key.as_ref()));
                }
                self
            });
            match looked.await {
                Ok(watched) => self = watched,
                Err(_) => return, // the program ends
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_when_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(&path);
        assert!(!watched.is_due());
        fs::write(&path, "two, longer").unwrap();
        assert!(!watched.is_due());
        fs::write(&path, "three, still longer").unwrap();
        assert!(!watched.is_due());
        assert!(watched.is_due());
        assert!(!watched.is_due());
        fs::remove_file(&path).unwrap();
        assert!(!watched.is_due() && !watched.is_due());
        // The same length, another file.
        fs::write(&path, "three, still longer").unwrap();
        assert!(!watched.is_due());
        assert!(watched.is_due());
    }
}
