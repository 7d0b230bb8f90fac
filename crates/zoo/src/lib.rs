//! Models of others, read and written.
//!
//! [`open`] and [`load`] tell what they are given by its contents. Importers of a network that can
//! be trained end in `assemble`, which compares what was found with what the architecture needs and
//! lists all that differs; every other network becomes a graph at once. Reading and writing a format
//! lie side by side, for they share names and rules.

mod assemble;
mod error;
mod foreign;
mod hints;
pub mod keras;
mod onnx;
mod open;
mod prepared;
mod recognize;
mod tflite;
pub mod torch;

pub use error::ImportError;
pub use hints::{Channels, Head, Hints};
pub use open::{Imported, load, open, open_any, open_from};

use serde::de::DeserializeOwned;
use std::path::Path;

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    network::file::read(path)
        .map_err(|source| ImportError::Io { path: path.display().to_string(), source })
}

/// A file of JSON.
fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    serde_json::from_slice(&read(path)?)
        .map_err(|source| ImportError::Json { path: path.display().to_string(), source })
}
