//! PyTorch state dicts: safetensors, zip archives (`.pt`, `.pth`) and the older plain pickles
//! (`.th`, `.pth`), with the names of torchvision, timm or the CIFAR ResNets.

use super::archive::{self, Archive};
use super::pickle::{self, Kind, TensorView, Value};
use super::torch_names::{add_parameterless_shortcuts, architecture, canonical};
use super::{Array, ImportError, assemble, checkpoint, imagenet};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::emit::torch::{METADATA, Travelling};
use crate::resnet::IMAGENET_STATISTICS;
use artifact::Preprocess;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Whether a file looks like one of these.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC) || is_legacy(bytes) || is_safetensors(bytes)
}

fn is_legacy(bytes: &[u8]) -> bool {
    // The magic number of torch.save before 1.6, as a pickle of its own.
    bytes.starts_with(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
}

fn is_safetensors(bytes: &[u8]) -> bool {
    // A length in 8 bytes, then JSON.
    bytes.get(8) == Some(&b'{')
}

/// Imports a state dict; the architecture follows from its names and shapes.
pub(super) fn state_dict(path: &Path, bytes: &[u8]) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let arrays = if is_safetensors(bytes) {
        from_safetensors(bytes)
    } else if is_legacy(bytes) {
        from_legacy(bytes)
    } else {
        from_zip(bytes)
    };
    from_arrays(path, arrays.map_err(unsupported)?, travelling(bytes))
}

/// Imports what has PyTorch's names and layouts.
pub(super) fn from_arrays(
    path: &Path,
    arrays: BTreeMap<String, Array>,
    travelling: Option<Travelling>,
) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let config = architecture(&name, &arrays).map_err(unsupported)?;
    config.check().map_err(unsupported)?;
    let mut found = BTreeMap::new();
    let mut extra = Vec::new();
    for (source, array) in arrays {
        // A counter, which `.half()` turns into a number like all others.
        if source.ends_with(".num_batches_tracked") {
            continue;
        }
        match canonical(&source, &config) {
            Some(name) => {
                let mut tensor = tensor(array);
                if name == "predictions.weight" && tensor.shape.len() == 4 {
                    // timm's v2 head is a 1×1 convolution.
                    tensor.shape.drain(1..3);
                }
                found.insert(name, tensor);
            }
            None => extra.push(format!("`{}` {:?}", source.escape_debug(), array.shape)),
        }
    }
    add_parameterless_shortcuts(&config, &mut found);
    let tensors = assemble(path, &config, found, extra)?;
    let Travelling { labels, preprocess } = travelling.unwrap_or_else(|| {
        let (side, [mean, std]) = (config.native_size(), IMAGENET_STATISTICS);
        Travelling {
            labels: imagenet::labels_of(config.classes),
            preprocess: config.preprocess(Preprocess::normalized(side, side, mean, std)),
        }
    });
    checkpoint(path, config, labels, preprocess, tensors)
}

/// Labels and preprocessing of a state dict that was written here.
fn travelling(bytes: &[u8]) -> Option<Travelling> {
    if !is_safetensors(bytes) {
        return None;
    }
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    serde_json::from_str(header.metadata().as_ref()?.get(METADATA)?).ok()
}

/// OIHW to OHWI; matrices and vectors stay.
fn tensor(array: Array) -> Tensor {
    let Array { shape, values } = array;
    let [outputs, inputs, height, width] = shape[..] else {
        return Tensor::from_f32(&shape, &values);
    };
    let pixels = height * width;
    let mut out = Vec::with_capacity(values.len());
    for filter in values.chunks_exact((inputs * pixels).max(1)) {
        for pixel in 0..pixels {
            out.extend(filter.iter().skip(pixel).step_by(pixels));
        }
    }
    Tensor::from_f32(&[outputs, height, width, inputs], &out)
}

fn from_safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not safetensors ({e})"))?;
    let mut arrays = BTreeMap::new();
    for (name, view) in file.tensors() {
        let dtype = match view.dtype() {
            Dtype::F32 => "FloatStorage",
            Dtype::F64 => "DoubleStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::BF16 => "BFloat16Storage",
            // Counters such as `num_batches_tracked`.
            Dtype::I64 | Dtype::I32 => continue,
            other => return Err(format!("tensor `{name}` has the type {other:?}")),
        };
        let values = numbers(dtype, view.data())?;
        arrays.insert(plain_name(&name).to_owned(), Array { shape: view.shape().to_vec(), values });
    }
    Ok(arrays)
}

/// What `torch.save` writes since 1.6: a zip archive of a pickle and one file per storage.
fn from_zip(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let mut zip = Archive::open(bytes)
        .map_err(|what| format!("not a readable archive of PyTorch or Keras ({what})"))?;
    let pickled = zip.names().into_iter().find(|n| n.ends_with("/data.pkl"));
    let pickled = pickled.ok_or("a zip archive without data.pkl, which torch.save writes")?;
    let folder = pickled.trim_end_matches("data.pkl").to_owned();
    let (value, _) = pickle::parse(&zip.member(&pickled)?)?;
    if zip.member(&format!("{folder}byteorder")).is_ok_and(|order| order == b"big") {
        return Err("weights in big-endian order; save them on a little-endian machine".into());
    }
    arrays(&value, bytes.len(), |storage| zip.member(&format!("{folder}data/{storage}")))
}

/// What it wrote before: pickles of a magic number, a version, the machine's properties, the
/// state dict and the storages' keys, then each storage with its length.
fn from_legacy(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let mut at = 0;
    let mut next = || -> Result<Value, String> {
        let (value, len) = pickle::parse(&bytes[at..])?;
        at += len;
        Ok(value)
    };
    for _ in 0..3 {
        next()?;
    }
    let value = next()?;
    let Kind::List(keys) = next()?.kind().clone() else {
        return Err("a PyTorch file without a list of storages".into());
    };
    let sizes = storage_sizes(&value)?;
    let mut storages: BTreeMap<String, &[u8]> = BTreeMap::new();
    for key in &keys {
        let key = key.text().ok_or("a storage without a key")?;
        let cut = || format!("storage {} is cut short", key.escape_debug());
        let len = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let len = len.and_then(|l| usize::try_from(l).ok()).ok_or_else(cut)?;
        let size = sizes.get(key).copied().ok_or("a storage that no tensor uses")?;
        let data = len.checked_mul(size).and_then(|n| bytes.get(at + 8..)?.get(..n));
        let data = data.ok_or_else(cut)?;
        at += 8 + data.len();
        storages.insert(key.to_owned(), data);
    }
    arrays(&value, bytes.len(), |key| {
        storages.get(key).map(|b| b.to_vec()).ok_or_else(|| "a tensor without numbers".into())
    })
}

/// Bytes of a number of each storage that the state dict uses.
fn storage_sizes(value: &Value) -> Result<BTreeMap<String, usize>, String> {
    let mut sizes = BTreeMap::new();
    for (_, tensor) in tensors(value)? {
        sizes.insert(tensor.storage.key.clone(), number_size(&tensor.storage.dtype)?);
    }
    Ok(sizes)
}

/// The tensors of a state dict, which may lie in a training checkpoint.
fn tensors(value: &Value) -> Result<Vec<(String, TensorView)>, String> {
    let Kind::Dict(items) = value.kind() else {
        return Err("not a state dict; save the model's state_dict()".into());
    };
    let inner = items.iter().find_map(|(key, value)| {
        let wraps = matches!(key.text(), Some("state_dict" | "model" | "model_state_dict"));
        (wraps && matches!(value.kind(), Kind::Dict(_))).then_some(value)
    });
    if let Some(inner) = inner {
        return tensors(inner);
    }
    let view = |(key, value): &(Value, Value)| match (key.text(), value.kind()) {
        (Some(name), Kind::Tensor(view)) => Some((plain_name(name).to_owned(), view.clone())),
        _ => None,
    };
    Ok(items.iter().filter_map(view).collect())
}

/// Without the prefix of data-parallel training.
fn plain_name(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

/// The tensors' numbers, out of the storages of a file of `file_len` bytes.
fn arrays(
    value: &Value,
    file_len: usize,
    mut storage: impl FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<BTreeMap<String, Array>, String> {
    let mut arrays = BTreeMap::new();
    // Tied weights share a storage, which is read once.
    let mut storages: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut total = 0usize;
    for (name, view) in tensors(value)? {
        if matches!(view.storage.dtype.as_str(), "LongStorage" | "IntStorage") {
            continue; // counters
        }
        let bad = |what: &str| format!("tensor `{}`: {what}", name.escape_debug());
        let key = &view.storage.key;
        if !storages.contains_key(key) {
            storages.insert(key.clone(), numbers(&view.storage.dtype, &storage(key)?)?);
        }
        let numbers = storages.get(key).map_or(&[][..], Vec::as_slice);
        let values = gather(&view, numbers).ok_or_else(|| bad("it leaves its storage"))?;
        // A small file must not unfold into a large model by sharing its numbers.
        total = total.saturating_add(values.len());
        if total > file_len {
            return Err(bad("it and those before it share more numbers than the file has"));
        }
        arrays.insert(name, Array { shape: view.shape, values });
    }
    Ok(arrays)
}

/// The view's numbers in row-major order; `None` where it reads past the storage, or one number
/// more than once.
fn gather(view: &TensorView, numbers: &[f32]) -> Option<Vec<f32>> {
    if view.shape.len() != view.stride.len() {
        return None;
    }
    let len = view.shape.iter().try_fold(1usize, |l, d| l.checked_mul(*d))?;
    if len > numbers.len() {
        return None;
    }
    let mut values = Vec::with_capacity(len);
    for i in 0..len {
        let (mut rest, mut at) = (i, view.offset);
        for (d, s) in view.shape.iter().zip(&view.stride).rev() {
            at = at.checked_add((rest % d).checked_mul(*s)?)?;
            rest /= d;
        }
        values.push(*numbers.get(at)?);
    }
    Some(values)
}

fn number_size(dtype: &str) -> Result<usize, String> {
    match dtype {
        "DoubleStorage" | "LongStorage" => Ok(8),
        "FloatStorage" | "IntStorage" => Ok(4),
        "HalfStorage" | "BFloat16Storage" => Ok(2),
        other => Err(format!("numbers of the type {} are not read", other.escape_debug())),
    }
}

/// Little-endian numbers of a type that PyTorch names so.
pub(super) fn numbers(dtype: &str, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let size = number_size(dtype)?;
    let number = |b: &[u8]| match (dtype, b) {
        ("FloatStorage", &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        ("HalfStorage", &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        ("BFloat16Storage", &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        (_, b) => b.try_into().map_or(0.0, f64::from_le_bytes) as f32,
    };
    Ok(bytes.chunks_exact(size).map(number).collect())
}
