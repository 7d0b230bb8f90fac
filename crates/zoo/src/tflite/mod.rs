//! TensorFlow Lite files (`schema.fbs`, version 3), float or int8.
//!
//! A file is rewritten as the ONNX graph that means the same, and imported as that: a quantized
//! value becomes a QuantizeLinear with a DequantizeLinear behind, a fused ReLU a node of its own, and
//! maps, which here lie as NHWC, are transposed around convolutions and back, which costs nothing
//! since only the name of the layout changes. Names in messages are those of the file's tensors.

mod file;
mod layers;
mod rewrite;
#[cfg(test)]
mod tests;

use crate::{Hints, ImportError, onnx};
use file::File;
use flatbuffers::InvalidFlatbuffer;
use network::model::{FloatModel, Source};
use rewrite::rewrite;
use std::path::Path;

/// Bytes 4 to 7 of a file.
const IDENTIFIER: &[u8] = b"TFL3";

/// Whether bytes are a TensorFlow Lite model.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(IDENTIFIER)
}

/// Reads a file; `hints` says what it leaves open.
pub(crate) fn tflite(path: &Path, bytes: &[u8], hints: &Hints) -> Result<FloatModel, ImportError> {
    let rewritten = File::read(bytes).and_then(|file| rewrite(&file));
    let rewritten = rewritten.map_err(|e| ImportError::unsupported(path, e.to_string()))?;
    let (model, _) = onnx::model(path, &rewritten, hints)?;
    Ok(FloatModel { source: Source::Unread("TensorFlow Lite"), ..model })
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a damaged TensorFlow Lite model ({})", .0.to_string().replace('\n', " "))]
    Damaged(#[from] InvalidFlatbuffer),
    #[error("{0}")]
    Unsupported(String),
}
