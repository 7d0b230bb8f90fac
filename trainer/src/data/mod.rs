//! Batches of augmented pictures. Reading pictures is `dataset`'s, re-exported here.

pub mod augment;
mod loader;
mod prefetch;
mod share;

#[cfg(test)]
mod tests;

pub use augment::Augment;
pub use dataset::{CacheSize, DataError, Dataset, Labelled, Origin, Pictures, ReadOptions};
pub use loader::{Batch, Batches, Frame, Loading, Order, batch_count};
pub(crate) use loader::{batch, to_planes};
pub use share::Share;
