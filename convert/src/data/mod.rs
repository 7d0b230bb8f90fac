//! Labelled pictures from folders and CIFAR-10's binary files.

mod cache;
mod cifar;
mod folder;
mod memory;
mod pictures;
mod stored;

pub use cache::{CacheSize, CacheSizeError};
pub use pictures::Pictures;

use crate::random::{Rng, fnv1a};
use artifact::Preprocess;
use runtime::preprocess::{FrameError, RgbView, resize_rgb8};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A data set that has been read; its pictures are in memory as far as they fit.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Last part of the path, for the training record.
    pub name: String,
    /// Class names in index order.
    pub labels: Vec<String>,
    /// Pictures to learn from.
    pub train: Pictures,
    /// Pictures to measure with; empty where there are none.
    pub val: Pictures,
    /// Files that could not be used, each with the reason.
    pub skipped: Vec<String>,
    /// Hash over every picture's bytes and class, in order.
    pub fingerprint: String,
}

/// How to read a data set.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Model input size and the rule that brings pictures to it.
    pub preprocess: Preprocess,
    /// Share of each class set aside for validation where the folder has no split, 0..1.
    pub val_split: f64,
    /// Chooses the pictures set aside.
    pub seed: u64,
    /// Number of classes the user expects.
    pub classes: Option<usize>,
    /// Memory for decoded pictures; the others are decoded again whenever they are needed.
    pub cache: CacheSize,
}

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
    fn layout(path: &Path, what: impl Into<String>) -> Self {
        Self::Layout { path: path.into(), what: what.into() }
    }

    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

impl Dataset {
    /// Reads a folder: CIFAR-10's binary files, `train/` and `val/` folders of class
    /// folders, or class folders alone.
    ///
    /// # Errors
    /// Unreadable or missing folders, fewer than two classes, classes without a usable
    /// picture, and a class count other than the one expected.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let meta = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
        if !meta.is_dir() {
            return Err(DataError::layout(
                path,
                "not a folder; --data wants a folder with one folder of pictures per class",
            ));
        }
        let mut data = match cifar::find(path) {
            Some(root) => cifar::read(&root, options)?,
            None => folder::read(path, options)?,
        };
        data.check_classes(path, options.classes)?;
        if data.val.is_empty() && options.val_split > 0.0 {
            data.split(options.val_split, options.seed);
        }
        data.fingerprint = data.digest();
        Ok(data)
    }

    fn check_classes(&self, path: &Path, expected: Option<usize>) -> Result<(), DataError> {
        let found = self.labels.len();
        let names = list(&self.labels);
        if let Some(expected) = expected.filter(|e| *e != found) {
            return Err(DataError::layout(
                path,
                format!(
                    "--classes {expected}, but the data has {found} classes ({names}); \
                     pass --classes {found} or add and remove folders"
                ),
            ));
        }
        if found < 2 {
            return Err(DataError::layout(
                path,
                format!(
                    "only one class ({names}); telling things apart needs at least two folders"
                ),
            ));
        }
        for (label, count) in self.labels.iter().zip(self.train.counts(found)) {
            if count == 0 {
                let why = self.skipped.first().map_or(String::new(), |s| format!(" ({s})"));
                return Err(DataError::layout(
                    path,
                    format!(
                        "class `{label}` has no usable picture{why}; add some or remove the folder"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Moves `share` of each class, at least one of two, from `train` to `val`.
    fn split(&mut self, share: f64, seed: u64) {
        let groups = self.train.by_class(&mut Rng::keyed(&[seed, fnv1a(b"split")]));
        let (mut train, mut val) = (Vec::new(), Vec::new());
        for group in groups {
            let most = group.len().saturating_sub(1);
            let count = ((group.len() as f64 * share).round() as usize).max(1).min(most);
            val.extend_from_slice(&group[..count]);
            train.extend_from_slice(&group[count..]);
        }
        train.sort_unstable();
        val.sort_unstable();
        self.val = self.train.select(&val);
        self.train = self.train.select(&train);
    }

    /// Number of pictures whose pixels are in memory.
    pub fn in_memory(&self) -> usize {
        self.train.in_memory() + self.val.in_memory()
    }

    /// Pictures of `val` whose stored bytes also lie in `train`.
    pub fn leaked(&self) -> usize {
        let known: HashSet<u64> = self.train.digests.iter().copied().collect();
        self.val.digests.iter().filter(|d| known.contains(d)).count()
    }

    /// Pictures whose stored bytes appear under more than one class.
    pub fn contradictions(&self) -> usize {
        let mut classes: HashMap<u64, u32> = HashMap::new();
        let all = [&self.train, &self.val];
        let pairs = all.iter().flat_map(|p| p.digests.iter().zip(&p.labels));
        pairs.filter(|(d, l)| *classes.entry(**d).or_insert(**l) != **l).count()
    }

    /// Pairs of classes whose names differ only in case: most often one class by mistake, and
    /// one folder on systems that ignore case.
    pub fn case_twins(&self) -> Vec<[&str; 2]> {
        let mut seen: HashMap<String, &str> = HashMap::new();
        let mut twins = Vec::new();
        for label in &self.labels {
            if let Some(other) = seen.insert(label.to_lowercase(), label) {
                twins.push([other, label.as_str()]);
            }
        }
        twins
    }

    fn digest(&self) -> String {
        let fold = |h: u64, v: u64| Rng::keyed(&[h, v]).next_u64();
        let hash = [&self.train, &self.val].iter().fold(0, |h, pictures| {
            let pairs = pictures.digests.iter().zip(&pictures.labels);
            pairs.fold(fold(h, pictures.len() as u64), |h, (d, l)| fold(h, d ^ u64::from(*l)))
        });
        format!("{hash:016x}")
    }
}

/// Fits a picture to the model's input size, `[p.height, p.width, p.channels()]`.
///
/// # Errors
/// None for a checked preprocessing: the output has the size that it is given here.
pub fn fit(view: RgbView<'_>, p: &Preprocess) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![0; usize::from(p.height) * usize::from(p.width) * p.channels()];
    resize_rgb8(p, view, &mut out)?;
    Ok(out)
}

/// Up to ten names, separated by commas.
pub fn list(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    let more = if names.len() > 10 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
