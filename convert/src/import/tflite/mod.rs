//! TensorFlow Lite files (`schema.fbs`, version 3), float or int8.
//!
//! A file is rewritten as the ONNX graph that means the same, and imported as that: a quantized
//! value becomes a QuantizeLinear with a DequantizeLinear behind, a fused ReLU a node of its own, and
//! maps, which here lie as NHWC, are transposed around convolutions and back, which costs nothing
//! since only the name of the layout changes. Names in messages are those of the file's tensors.

mod file;
mod rewrite;

use super::{ImportError, onnx};
use crate::model::FloatModel;
use artifact::{Preprocess, Quant};
use file::File;
use flatbuffers::InvalidFlatbuffer;
use rewrite::rewrite;
use std::path::Path;

/// Bytes 4 to 7 of a file.
const IDENTIFIER: &[u8] = b"TFL3";

/// Whether bytes are a TensorFlow Lite model.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(IDENTIFIER)
}

/// Reads a file. `size` is the input's height and width, where the file leaves them open.
pub(super) fn tflite(
    path: &Path,
    bytes: &[u8],
    size: Option<u16>,
) -> Result<FloatModel, ImportError> {
    let rewritten = File::read(bytes).and_then(|file| rewrite(&file));
    let (model, input) = rewritten.map_err(|e| ImportError::unsupported(path, e.to_string()))?;
    let mut float = onnx::model(path, &model, size)?;
    if let Some(preprocess) = input.and_then(|quant| preprocess_of(quant, &float.preprocess)) {
        float.preprocess = preprocess;
        float.is_preprocess_assumed = false;
    }
    Ok(float)
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a damaged TensorFlow Lite model ({})", .0.to_string().replace('\n', " "))]
    Damaged(#[from] InvalidFlatbuffer),
    #[error("{0}")]
    Unsupported(String),
}

/// How pictures are prepared for an input that is stored as `quant`: the 256 numbers that it can be
/// tell, where they are a picture's bytes, 0 to 1, or −1 to 1.
fn preprocess_of(quant: Quant, size: &Preprocess) -> Option<Preprocess> {
    let [low, high] = [-128, 127].map(|q| quant.dequantize(q));
    let near = |a: f32, b: f32, step: f32| (a - b).abs() <= step;
    let (height, width) = (size.height, size.width);
    let is = |l, h| near(low, l, quant.scale) && near(high, h, quant.scale);
    let p = if is(0.0, 255.0) {
        Preprocess::raw(height, width)
    } else if is(0.0, 1.0) {
        Preprocess::normalized(height, width, [0.0; 3], [1.0; 3])
    } else if is(-1.0, 1.0) {
        Preprocess::normalized(height, width, [0.5; 3], [0.5; 3])
    } else {
        return None;
    };
    Some(Preprocess { grey: size.grey, ..p })
}
