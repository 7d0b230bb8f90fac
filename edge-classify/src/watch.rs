//! Pictures as they appear in a folder.
//!
//! The folder is looked at a few times a second, which works on every file system, those of other
//! machines included. Folders are listed where their time changed, and all of them now and then;
//! files are looked at until two looks in a row found them the same, so that none is read while it
//! is being written. They are taken again whenever they change: of many, some are compared at each
//! look, so that a folder of 20,000 files costs no more than one of a few hundred.

use crate::sources::{self, Kind, Skipped};
use anyhow::{Context, Result};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Time between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);
/// Files taken before that are compared at each look.
const COMPARED: usize = 128;
/// Looks after which every folder is listed again.
const ALL_FOLDERS: usize = 300;

/// What changes when a file does: its length and its time.
type Stamp = (u64, SystemTime);

/// A folder, and what of it was seen.
pub(crate) struct Watch<'a> {
    root: &'a Path,
    folders: BTreeMap<PathBuf, Folder>,
    /// Looks so far.
    looks: usize,
    /// The first file to compare at the next look.
    next: usize,
    /// What is no picture, since the last look.
    pub(crate) skipped: Skipped,
}

#[derive(Default)]
struct Folder {
    time: Option<SystemTime>,
    /// Whether the last look found it changed: what appeared since may have the same time.
    is_fresh: bool,
    files: BTreeMap<PathBuf, Seen>,
    others: BTreeSet<PathBuf>,
}

struct Seen {
    stamp: Option<Stamp>,
    taken: bool,
}

impl<'a> Watch<'a> {
    /// Starts to watch; what is in the folder already is not taken.
    pub(crate) fn new(root: &'a Path) -> Result<Self> {
        let folders = BTreeMap::from([(root.into(), Folder::default())]);
        let mut watch = Self { root, folders, looks: 0, next: 0, skipped: Skipped::default() };
        watch.list()?;
        for (path, seen) in watch.folders.values_mut().flat_map(|folder| &mut folder.files) {
            *seen = Seen { stamp: stamp(path), taken: true };
        }
        watch.skipped = Skipped::default();
        Ok(watch)
    }

    /// Files to classify now, the oldest first.
    pub(crate) fn next(&mut self) -> Result<Vec<PathBuf>> {
        self.looks += 1;
        self.list()?;
        let compared = self.next..self.next + COMPARED;
        let (mut count, mut ready) = (0, Vec::new());
        for (path, seen) in self.folders.values_mut().flat_map(|folder| &mut folder.files) {
            count += 1;
            if seen.taken && !compared.contains(&(count - 1)) {
                continue;
            }
            let Some(stamp) = stamp(path) else { continue }; // it is gone again
            if seen.stamp != Some(stamp) {
                *seen = Seen { stamp: Some(stamp), taken: false };
            } else if !seen.taken {
                seen.taken = true;
                ready.push((stamp.1, path.clone()));
            }
        }
        self.next = if compared.end < count { compared.end } else { 0 };
        ready.sort();
        Ok(ready.into_iter().map(|(_, path)| path).collect())
    }

    /// Lists the folders that changed, and those in them.
    fn list(&mut self) -> Result<()> {
        let name = || format!("--watch {}", self.root.display());
        let all = self.looks.is_multiple_of(ALL_FOLDERS);
        let mut rest: Vec<PathBuf> = self.folders.keys().cloned().collect();
        while let Some(path) = rest.pop() {
            let Some(folder) = self.folders.get_mut(&path) else { continue };
            let entries = fs::metadata(&path).and_then(|m| {
                let time = m.modified().ok();
                let is_changed = folder.time != time;
                let is_listed = all || is_changed || folder.is_fresh;
                (folder.time, folder.is_fresh) = (time, is_changed);
                is_listed.then(|| sources::list(&path)).transpose()
            });
            let entries = match entries {
                Ok(Some(entries)) => entries,
                Ok(None) => continue,
                Err(e) if path == self.root => return Err(e).with_context(name),
                Err(_) => {
                    self.folders.remove(&path);
                    continue;
                }
            };
            let (mut files, mut others, mut folders) = (BTreeMap::new(), BTreeSet::new(), vec![]);
            for (path, kind) in entries {
                match kind {
                    Kind::Folder => folders.push(path),
                    Kind::Picture => {
                        let seen = folder.files.remove(&path);
                        files.insert(path, seen.unwrap_or(Seen { stamp: None, taken: false }));
                    }
                    Kind::Other => {
                        if !folder.others.contains(&path) {
                            self.skipped.add(path.clone());
                        }
                        others.insert(path);
                    }
                }
            }
            (folder.files, folder.others) = (files, others);
            for path in folders {
                if !self.folders.contains_key(&path) {
                    self.folders.insert(path.clone(), Folder::default());
                    rest.push(path);
                }
            }
        }
        Ok(())
    }
}

/// `None` of a file that cannot be looked at, or is gone.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Pictures that were answered, of which only the newest stay.
pub(crate) struct Kept {
    most: usize,
    answered: VecDeque<(PathBuf, Option<Stamp>)>,
}

impl Kept {
    /// Keeps `most` pictures.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, answered: VecDeque::new() }
    }

    /// The state of a picture that is about to be answered.
    pub(crate) fn before(path: &Path) -> Option<Stamp> {
        stamp(path)
    }

    /// Adds a picture that was answered and deletes those beyond the newest; one that has changed
    /// since then is left, for it will be answered again.
    ///
    /// # Errors
    /// A picture that cannot be deleted.
    pub(crate) fn add(&mut self, path: PathBuf, before: Option<Stamp>) -> Result<()> {
        self.answered.retain(|(other, _)| *other != path);
        self.answered.push_back((path, before));
        while self.answered.len() > self.most {
            if let Some((path, before)) = self.answered.pop_front()
                && before.is_some()
                && stamp(&path) == before
            {
                fs::remove_file(&path)
                    .with_context(|| format!("--keep: {} cannot be deleted", path.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_among_many_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |i: usize| dir.path().join(format!("{i:04}.jpg"));
        for i in 0..1000 {
            fs::write(path(i), "1").unwrap();
        }
        let mut watch = Watch::new(dir.path()).unwrap();
        assert!(watch.next().unwrap().is_empty());
        fs::write(path(777), "changed").unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        let new = dir.path().join("deep/new.jpg");
        fs::write(&new, "1").unwrap();
        fs::write(dir.path().join("notes.txt"), "1").unwrap();
        // A new file is taken when two looks found it the same, one of many when its turn comes.
        assert!(watch.next().unwrap().is_empty());
        assert_eq!(watch.next().unwrap(), core::slice::from_ref(&new));
        assert_eq!(watch.skipped.take_lines().len(), 2);
        let looks: Vec<_> = (0..2 * 1000 / COMPARED).flat_map(|_| watch.next().unwrap()).collect();
        assert_eq!(looks, [path(777)]);
        fs::write(&new, "changed, too").unwrap();
        let looks: Vec<_> = (0..2 * 1000 / COMPARED).flat_map(|_| watch.next().unwrap()).collect();
        assert_eq!(looks, core::slice::from_ref(&new));
        fs::remove_file(&new).unwrap();
        assert!(watch.next().unwrap().is_empty());
        fs::write(&new, "again").unwrap();
        assert!(watch.next().unwrap().is_empty());
        assert_eq!(watch.next().unwrap(), [new]);
    }
}
