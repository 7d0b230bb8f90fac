//! Burn's `.bpk` files: a header of 10 bytes, tensors' descriptions in CBOR, and numbers.
//!
//! The names are those of PyTorch, or those of the same modules in Burn: a [batch-norm] has
//! `gamma` and `beta` there, a dense layer holds (in, out), and a stack has `blocks`.
//!
//! [batch-norm]: https://docs.rs/burn/latest/burn/nn/struct.BatchNorm.html

use super::numbers;
use crate::{Head, Hints, ImportError, torch};
use artifact::text::AsPlain;
use ciborium::Value;
use formats::Array;
use network::checkpoint::Checkpoint;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// "BURN", little-endian.
pub(crate) const MAGIC: &[u8] = b"NRUB";
/// The only version there is.
const VERSION: u16 = 1;
/// Magic, version and the length of the descriptions.
const HEADER_LEN: usize = 10;
/// Where the numbers start is a multiple of this.
const ALIGNMENT: usize = 256;
/// Deepest nesting of the descriptions.
const MAX_DEPTH: usize = 16;

#[derive(Deserialize)]
struct Metadata {
    tensors: BTreeMap<String, Described>,
}

#[derive(Deserialize)]
struct Described {
    dtype: Value,
    shape: Vec<usize>,
    /// First byte and the one after the last, from where the numbers start.
    data_offsets: (usize, usize),
}

/// Imports a `.bpk` file; the architecture follows from its names and shapes.
pub(crate) fn burnpack(
    path: &Path,
    bytes: &[u8],
    head: Head,
    hints: &Hints,
) -> Result<Checkpoint, ImportError> {
    let arrays = arrays(bytes).map_err(|what| ImportError::unsupported(path, what))?;
    torch::from_arrays(path, named_as_torch(arrays), head, hints)
}

fn arrays(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let &[_, _, _, _, v0, v1, l0, l1, l2, l3, ref rest @ ..] = bytes else {
        return Err(format!("cut short in the header of {HEADER_LEN} bytes"));
    };
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(format!("burnpack version {version}, but this build reads {VERSION}; update"));
    }
    let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(|e| e.to_string())?;
    let metadata = rest.get(..len).ok_or("cut short in the descriptions of tensors")?;
    let metadata: Metadata = ciborium::de::from_reader_with_recursion_limit(metadata, MAX_DEPTH)
        .map_err(|e| format!("damaged descriptions of tensors ({e})"))?;
    let start = (HEADER_LEN + len).next_multiple_of(ALIGNMENT);
    let data = bytes.get(start..).unwrap_or_default();
    let mut arrays = BTreeMap::new();
    let mut total = 0usize;
    for (name, tensor) in metadata.tensors {
        let bad = |what: String| format!("tensor `{}`: {what}", name.plain());
        let (dtype, size) = match tensor.dtype.as_text() {
            Some("F32" | "Flex32") => ("FloatStorage", 4),
            Some("F64") => ("DoubleStorage", 8),
            Some("F16") => ("HalfStorage", 2),
            Some("BF16") => ("BFloat16Storage", 2),
            // Counters.
            Some("I64" | "I32") => continue,
            _ => return Err(bad("numbers of this type are not read, only floats".into())),
        };
        let raw = data.get(tensor.data_offsets.0..tensor.data_offsets.1);
        let raw = raw.ok_or_else(|| bad("outside of the file; it may be cut short".into()))?;
        let len = tensor.shape.iter().try_fold(size, |len: usize, d| len.checked_mul(*d));
        if len != Some(raw.len()) {
            return Err(bad(format!("{} bytes for {:?} numbers", raw.len(), tensor.shape)));
        }
        // A small file must not unfold into a large model by sharing its numbers.
        total = total.saturating_add(raw.len());
        if total > data.len() {
            return Err(bad("it and those before it share their numbers".into()));
        }
        let values = numbers(dtype, raw)?;
        arrays.insert(name, Array { shape: tensor.shape, values });
    }
    Ok(arrays)
}

/// The arrays under PyTorch's names and in its layouts.
fn named_as_torch(arrays: BTreeMap<String, Array>) -> BTreeMap<String, Array> {
    // What the names of batch-norms tell holds for dense layers as well.
    let of_burn = arrays.keys().any(|name| name.ends_with(".gamma"));
    if !of_burn {
        return arrays;
    }
    let torch = |(name, array): (String, Array)| match array.shape[..] {
        [inputs, outputs] => {
            let column = |o: usize| array.values.iter().skip(o).step_by(outputs).copied();
            let values = (0..outputs).flat_map(column).collect();
            (name, Array { shape: vec![outputs, inputs], values })
        }
        _ => (torch_name(&name), array),
    };
    arrays.into_iter().map(torch).collect()
}

/// `layer1.blocks.0.Basic.downsample.bn.gamma` is PyTorch's `layer1.0.downsample.1.weight`.
fn torch_name(name: &str) -> String {
    let in_stack = name.starts_with("layer");
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('.') {
        let in_shortcut = parts.last() == Some(&"downsample");
        match part {
            "blocks" | "Basic" | "Bottleneck" if in_stack => {}
            "conv" if in_stack && in_shortcut => parts.push("0"),
            "bn" if in_stack && in_shortcut => parts.push("1"),
            "gamma" => parts.push("weight"),
            "beta" => parts.push("bias"),
            other => parts.push(other),
        }
    }
    parts.join(".")
}
