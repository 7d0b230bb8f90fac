//! A part of a data set, before its pictures are read.

use std::path::PathBuf;

/// A part of a data set.
#[derive(Debug)]
pub(super) struct Part {
    /// Its place in the data set, such as `val/`; empty where it is all of it.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Class names in index order.
    pub(super) labels: Vec<String>,
    pub(super) files: Files,
}

#[derive(Debug)]
pub(super) enum Files {
    /// A folder for each of the labels.
    Folders(Vec<PathBuf>),
    /// CIFAR-10's binary files.
    Batches(Vec<PathBuf>),
}
