//! PyTorch state dicts: safetensors, zip archives (`.pt`, `.pth`) and the older plain pickles
//! (`.th`, `.pth`, `.pth.tar`), with the names of torchvision, timm, transformers or the CIFAR ResNets. ε of
//! batch-norms other than ours moves into their variances.
//!
//! The weights may lie anywhere in a training checkpoint, and below any prefix: a path of names leads
//! to each tensor, and `find` tells the ones that are a network of a known family.

pub(crate) mod burnpack;
mod families;
mod find;
mod foreign_names;
pub(crate) mod timm;
pub(crate) mod transformers;
mod travelling;
mod write;

pub use write::{StateDictError, to_safetensors};

use crate::assemble::{add_head, assemble, draft, move_epsilon};
use crate::{Head, Hints, ImportError, foreign, read};
use artifact::Preprocess;
use artifact::text::AsPlain;
use families::{Rules, add_parameterless_shortcuts, written_rules};
use find::{Entry, Network};
use formats::Array;
use formats::archive::{self, Archive};
use formats::pickle::{Id, Object, Pickle, Storage, TensorView};
use network::architecture::IMAGENET_STATISTICS;
use network::blueprint::{BATCH_NORM_EPSILON, LayerOp};
use network::checkpoint::{Assumption, Checkpoint, Draft, Tensor};
use network::imagenet;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use travelling::{METADATA, Travelling};

/// Deepest nesting of the dicts around a state dict.
const MAX_DEPTH: usize = 16;
/// Longest path of names that leads to a tensor.
const MAX_PATH: usize = 512;

/// Whether a file looks like one of these.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC) || is_legacy(bytes) || is_safetensors(bytes)
}

fn is_legacy(bytes: &[u8]) -> bool {
    // The magic number of torch.save before 1.6, as a pickle of its own; newer ones have a frame.
    let magic = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    bytes.first() == Some(&0x80) && [2, 11].iter().any(|at| bytes.get(*at..at + 13) == Some(magic))
}

fn is_safetensors(bytes: &[u8]) -> bool {
    // A length in 8 bytes, of at most 100 MB, then JSON.
    bytes.get(4..9) == Some(b"\0\0\0\0{")
}

/// Imports a state dict; the architecture follows from its names and shapes.
pub(crate) fn state_dict(
    path: &Path,
    bytes: &[u8],
    head: Head,
    hints: &Hints,
) -> Result<Checkpoint, ImportError> {
    ruled(path, bytes, head, hints, None)
}

/// As [`state_dict`], where a config says what no tensor shows.
fn ruled(
    path: &Path,
    bytes: &[u8],
    head: Head,
    hints: &Hints,
    told: Option<Rules>,
) -> Result<Checkpoint, ImportError> {
    // Commands name the file as a shell and Python take it.
    let file = format!("{:?}", path.display().to_string());
    let unsupported = |what: String| ImportError::unsupported(path, what.replace("FILE", &file));
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    if let Some(what) = find::told_by(&name, hints) {
        return Err(unsupported(what));
    }
    let travelling = travelling(bytes);
    let rules = told.or_else(|| travelling.as_ref().map(|t| written_rules(t.padding)));
    let wanted = Wanted { name: &name, head, hints, rules };
    let network = if is_safetensors(bytes) {
        from_safetensors(bytes, &wanted)
    } else if is_legacy(bytes) {
        from_legacy(bytes, &wanted)
    } else {
        from_zip(bytes, &wanted)
    };
    let (network, arrays) = network.map_err(unsupported)?;
    let checkpoint = assembled(path, network, arrays)?;
    let Some(Travelling { labels, preprocess, .. }) = travelling else { return Ok(checkpoint) };
    let travelled = checkpoint.edit(|draft| {
        (draft.labels, draft.preprocess) = (labels, preprocess);
        draft.assumed.clear();
        Ok(())
    });
    travelled.map_err(unsupported)
}

/// What is looked for in a file.
struct Wanted<'a> {
    name: &'a str,
    head: Head,
    hints: &'a Hints,
    rules: Option<Rules>,
}

impl Wanted<'_> {
    /// The network among `entries`, and its numbers.
    fn network(
        &self,
        entries: Vec<Entry>,
        mut read: impl FnMut(&str) -> Result<Array, String>,
    ) -> Result<(Network, BTreeMap<String, Array>), String> {
        let network = Network::find(self.name, entries, self.head, self.hints, self.rules)?;
        let mut arrays = BTreeMap::new();
        for (ours, theirs) in &network.tensors {
            let array = read(theirs).map_err(|e| format!("tensor `{}`: {e}", theirs.plain()))?;
            arrays.insert(ours.clone(), array);
        }
        Ok((network, arrays))
    }
}

/// Imports what has PyTorch's names and layouts.
pub(crate) fn from_arrays(
    path: &Path,
    mut arrays: BTreeMap<String, Array>,
    head: Head,
    hints: &Hints,
) -> Result<Checkpoint, ImportError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let entry = |(name, array): (&String, &Array)| Entry::new(name, Some(array.shape.clone()));
    let entries = arrays.iter().map(entry).collect();
    let read = |name: &str| arrays.remove(name).ok_or_else(|| "read twice".into());
    let found = Wanted { name: &name, head, hints, rules: None }.network(entries, read);
    let (network, arrays) = found.map_err(|what| ImportError::unsupported(path, what))?;
    assembled(path, network, arrays)
}

/// The checkpoint of a network whose `arrays` have our names.
fn assembled(
    path: &Path,
    network: Network,
    arrays: BTreeMap<String, Array>,
) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let Network { config, extra, mut assumed, epsilon, .. } = network;
    config.check().map_err(unsupported)?;
    let mut found: BTreeMap<String, Tensor> =
        arrays.into_iter().map(|(name, array)| (name, tensor(array))).collect();
    for layer in config.blueprint().layers {
        match layer.op {
            // Of others, such as a 1×1 convolution.
            LayerOp::Dense { .. } => {
                if let Some(Tensor { shape, .. }) = found.get_mut(&format!("{}.weight", layer.name))
                    && let [outputs, 1, 1, inputs] = shape[..]
                {
                    *shape = vec![outputs, inputs];
                }
            }
            LayerOp::BatchNorm => {
                move_epsilon(&mut found, &layer.name, [epsilon, BATCH_NORM_EPSILON]);
            }
            _ => {}
        }
    }
    add_parameterless_shortcuts(&config, &mut found);
    add_head(&config, &mut found);
    let mut tensors = assemble(path, &config, found, extra);
    if let Err(ImportError::Tensors { differences, .. }) = &mut tensors {
        *differences += "\nas ONNX (torch.onnx.export) other networks are read, too";
    }
    let tensors = tensors?;
    let (side, [mean, std]) = (config.native_size(), IMAGENET_STATISTICS);
    assumed.push(Assumption::new(format!("{side}×{side} pixels"), Hints::SIZE));
    assumed.push(Assumption::new("ImageNet's mean and deviation", Assumption::STATISTICS));
    let labels = imagenet::labels_of(config.classes);
    let preprocess = config.preprocess(Preprocess::normalized(side, side, mean, std));
    let draft = Draft { assumed, ..draft(config, labels, preprocess, tensors) };
    draft.check().map_err(unsupported)
}

/// PyTorch's weights in a model's folder: their path and bytes.
fn torch_weights(dir: &Path) -> Result<(PathBuf, Vec<u8>), ImportError> {
    let [safe, pickled] = ["model.safetensors", "pytorch_model.bin"].map(|name| dir.join(name));
    let path = if !safe.is_file() && pickled.is_file() { pickled } else { safe };
    let bytes = read(&path)?;
    Ok((path, bytes))
}

/// The name of a folder, also of `.`.
fn folder_name(dir: &Path) -> String {
    let canonical = dir.canonicalize().ok();
    let name = canonical.as_deref().and_then(Path::file_name).unwrap_or_default();
    name.to_string_lossy().into_owned()
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

type Found = Result<(Network, BTreeMap<String, Array>), String>;

fn from_safetensors(bytes: &[u8], wanted: &Wanted<'_>) -> Found {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not safetensors ({e})"))?;
    let dtype = |dtype| match dtype {
        Dtype::F32 => Some("FloatStorage"),
        Dtype::F64 => Some("DoubleStorage"),
        Dtype::F16 => Some("HalfStorage"),
        Dtype::BF16 => Some("BFloat16Storage"),
        _ => None,
    };
    let entries = file.iter().map(|(name, view)| {
        let shape = dtype(view.dtype()).map(|_| view.shape().to_vec());
        Entry { of: format!("numbers of the type {:?}", view.dtype()), ..Entry::new(name, shape) }
    });
    wanted.network(entries.collect(), |name| {
        let view = file.tensor(name).map_err(|e| e.to_string())?;
        let values = numbers(dtype(view.dtype()).unwrap_or_default(), view.data())?;
        Ok(Array { shape: view.shape().to_vec(), values })
    })
}

/// What `torch.save` writes since 1.6: a zip archive of a pickle and one file per storage.
fn from_zip(bytes: &[u8], wanted: &Wanted<'_>) -> Found {
    let mut zip = Archive::open(bytes)
        .map_err(|what| format!("not a readable archive of PyTorch or Keras ({what})"))?;
    let names = zip.names();
    let pickled = names.iter().find(|n| n.ends_with("/data.pkl"));
    let pickled = pickled.ok_or_else(|| foreign::zip(&names))?;
    let folder = pickled.trim_end_matches("data.pkl").to_owned();
    if names.iter().any(|n| *n == format!("{folder}constants.pkl")) {
        return Err(
            "a TorchScript model; this makes a state dict of it: python -c 'import torch; \
                    torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")'"
                .into(),
        );
    }
    let pickled = zip.member(pickled)?;
    let pickle = Pickle::parse(&pickled)?;
    if zip.member(&format!("{folder}byteorder")).is_ok_and(|order| order == b"big") {
        return Err("weights in big-endian order; save them on a little-endian machine".into());
    }
    let storage = |key: &str| zip.member(&format!("{folder}data/{key}"));
    from_pickle(&pickle, bytes.len(), wanted, storage)
}

/// What it wrote before: pickles of a magic number, a version, the machine's properties, the
/// state dict and the storages' keys, then each storage with its length.
fn from_legacy(bytes: &[u8], wanted: &Wanted<'_>) -> Found {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'_>, String> {
        let pickle = Pickle::parse(&bytes[at..])?;
        at += pickle.len;
        Ok(pickle)
    };
    for _ in 0..3 {
        next()?;
    }
    let pickle = next()?;
    let keys = next()?;
    let keys = keys.texts(keys.root).ok_or("a PyTorch file without a list of storages")?;
    let dtypes: BTreeMap<String, String> =
        pickle.storages().map(|Storage { key, dtype, .. }| (key, dtype)).collect();
    let mut storages: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for key in &keys {
        let cut = || format!("storage {} is cut short", key.plain());
        let len = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let len = len.and_then(|l| usize::try_from(l).ok()).ok_or_else(cut)?;
        let dtype = dtypes.get(&**key).ok_or("a storage that no tensor uses")?;
        let data =
            len.checked_mul(storage_size(dtype)?).and_then(|n| bytes.get(at + 8..)?.get(..n));
        let data = data.ok_or_else(cut)?;
        at += 8 + data.len();
        storages.insert(key, data);
    }
    from_pickle(&pickle, bytes.len(), wanted, |key| {
        storages.get(key).map(|b| b.to_vec()).ok_or_else(|| "no numbers in the file".into())
    })
}

/// The network in a pickle, its numbers out of the storages of a file of `file_len` bytes.
fn from_pickle(
    pickle: &Pickle<'_>,
    file_len: usize,
    wanted: &Wanted<'_>,
    mut storage: impl FnMut(&str) -> Result<Vec<u8>, String>,
) -> Found {
    let mut walk = Walk {
        pickle,
        seen: BTreeSet::new(),
        entries: Vec::new(),
        module: None,
        budget: 8 * file_len,
    };
    walk.dict(pickle.root, "", 0)?;
    if let (true, Object::Call { function, .. }) =
        (walk.entries.is_empty(), pickle.object(pickle.root))
        && walk.module.is_none()
    {
        return Err(format!(
            "a pickled `{}`, which is not called; save the model's state_dict() alone",
            pickle.function(*function)
        ));
    }
    let mut views: BTreeMap<String, TensorView> = BTreeMap::new();
    let mut entries = Vec::new();
    for (path, id) in walk.entries {
        let view = pickle.view(id).filter(|view| number_size(&view.storage.dtype).is_some());
        let of = match (pickle.object(id), pickle.view(id)) {
            (Object::Call { function, .. }, _) => format!("a `{}`", pickle.function(*function)),
            (_, Some(v)) => format!("numbers of the type {}", v.storage.dtype.plain()),
            _ => "a tensor without storage, shape or strides".into(),
        };
        entries.push(Entry { of, ..Entry::new(&path, view.as_ref().map(|v| v.shape.clone())) });
        views.extend(view.map(|view| (path, view)));
    }
    // Tied weights share a storage, which is read once.
    let mut storages: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut total = 0usize;
    let found = wanted.network(entries, |name| {
        let view = views.get(name).ok_or("no tensor")?;
        let key = &view.storage.key;
        if !storages.contains_key(key) {
            storages.insert(key.clone(), numbers(&view.storage.dtype, &storage(key)?)?);
        }
        let numbers = storages.get(key).map_or(&[][..], Vec::as_slice);
        let values = gather(view, numbers).ok_or("it leaves its storage")?;
        // A small file must not unfold into a large model by sharing its numbers.
        total = total.saturating_add(values.len());
        if total > file_len {
            return Err("it and those before it share more numbers than the file has".into());
        }
        Ok(Array { shape: view.shape.clone(), values })
    });
    match walk.module {
        Some((path, class)) if found.is_err() => Err(format!(
            "a whole pickled module (`{class}`), whose code is not run; where that code can be \
             imported, this makes a state dict of it: python -c 'import torch; \
             torch.save(torch.load(FILE, weights_only=False){path}.state_dict(), \"weights.pth\")'"
        )),
        _ => found,
    }
}

/// A search for tensors in what a pickle holds.
struct Walk<'a> {
    pickle: &'a Pickle<'a>,
    /// Dicts that were seen, which may hold each other.
    seen: BTreeSet<Id>,
    /// What lies in dicts under a name that a tensor may have.
    entries: Vec<(String, Id)>,
    /// The first whole module, with the indices that lead to it.
    module: Option<(String, String)>,
    /// Bytes that paths may still take.
    budget: usize,
}

impl Walk<'_> {
    fn dict(&mut self, id: Id, path: &str, depth: usize) -> Result<(), String> {
        let inner = match *self.pickle.object(id) {
            Object::Call { function, state } if self.is_module(state) => {
                let indices =
                    path.split_terminator('.').map(|key| format!("[\"{key}\"]")).collect();
                self.module.get_or_insert((indices, self.pickle.function(function)));
                return Ok(());
            }
            Object::Call { state, .. } => state,
            _ => id,
        };
        if depth > MAX_DEPTH || !self.seen.insert(inner) {
            return Ok(());
        }
        for (key, value) in self.pickle.pairs(inner) {
            let Some(key) = self.pickle.text(key).filter(|k| k.len() + path.len() < MAX_PATH)
            else {
                continue;
            };
            let path = format!("{path}{key}");
            let left = self.budget.checked_sub(path.len());
            self.budget = left.ok_or("names of tensors that are longer than the file")?;
            match self.pickle.object(value) {
                Object::Tensor { .. } => self.entries.push((path, value)),
                Object::Dict(_) => self.dict(value, &format!("{path}."), depth + 1)?,
                Object::Call { .. } => {
                    self.dict(value, &format!("{path}."), depth + 1)?;
                    self.entries.push((path, value));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether this is the state of a `torch.nn.Module`.
    fn is_module(&self, state: Id) -> bool {
        self.pickle
            .pairs(state)
            .any(|(key, _)| self.pickle.text(key).as_deref() == Some("_modules"))
    }
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

/// Bytes of a number of a storage, which has to be skipped even where nobody reads it.
fn storage_size(dtype: &str) -> Result<usize, String> {
    match dtype {
        "ComplexDoubleStorage" => Ok(16),
        "LongStorage" | "ComplexFloatStorage" => Ok(8),
        "IntStorage" => Ok(4),
        "ShortStorage" => Ok(2),
        "ByteStorage" | "CharStorage" | "BoolStorage" | "UntypedStorage" => Ok(1),
        other => number_size(other)
            .ok_or_else(|| format!("numbers of the unknown type {}", other.plain())),
    }
}

/// Bytes of a number of a float type.
fn number_size(dtype: &str) -> Option<usize> {
    match dtype {
        "DoubleStorage" => Some(8),
        "FloatStorage" => Some(4),
        "HalfStorage" | "BFloat16Storage" => Some(2),
        _ => None,
    }
}

/// Little-endian numbers of a type that PyTorch names so.
pub(crate) fn numbers(dtype: &str, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let size = number_size(dtype).ok_or_else(|| format!("numbers of the type {dtype}"))?;
    let number = |b: &[u8]| match (dtype, b) {
        ("FloatStorage", &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        ("HalfStorage", &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        ("BFloat16Storage", &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        (_, b) => b.try_into().map_or(0.0, f64::from_le_bytes) as f32,
    };
    Ok(bytes.chunks_exact(size).map(number).collect())
}
