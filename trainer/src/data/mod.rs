//! Batches of augmented pictures. Reading pictures is `convert::data`'s, re-exported here.

pub mod augment;
mod loader;

pub use augment::Augment;
pub use convert::data::{DataError, Dataset, Pictures, ReadOptions, list};
pub(crate) use loader::to_planes;
pub use loader::{Batch, Batches, Order, batch_count};
