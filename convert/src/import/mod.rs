//! Models that others have trained, as checkpoints.
//!
//! [`load`] tells what it is given by its contents. Every importer ends in `assemble`, which
//! compares what was found with what the architecture needs and lists all that differs.

mod archive;
mod burnpack;
mod flatbuffer;
mod foreign;
mod hdf5;
pub mod imagenet;
mod keras;
mod onnx;
mod pickle;
mod prepared;
mod recognize;
mod tflite;
mod timm;
mod torch;
mod torch_names;
mod transformers;

#[cfg(feature = "hub")]
pub(crate) use keras::shards;
pub use keras::{LAYER_CLASSES, layer_order};
pub(crate) use torch_names::torch_name;

use crate::checkpoint::{Checkpoint, CheckpointError, FORMAT, Tensor, TrainingRecord, VERSION};
use crate::graph::{GraphError, reverse_rgb};
use crate::hub::{Hub, HubError, Reference};
use crate::model::{FloatModel, Source};
use crate::progress::Progress;
use crate::resnet::{BATCH_NORM_EPSILON, BottleneckStride, ResNetConfig};
use artifact::text::AsPlain;
use artifact::{Preprocess, Shape};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A model of a hub that cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Our own checkpoint, unusable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A JSON file that is none, or has not the fields that it should.
    #[error("{path}: {source}")]
    Json {
        /// File.
        path: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// Readable, but not something that is imported.
    #[error("{path}: {what}")]
    Unsupported {
        /// File or folder.
        path: String,
        /// What was found, what was wanted and what to do.
        what: String,
    },
    /// Tensors that do not fit the architecture.
    #[error("{path}: the weights do not fit {config}:{differences}")]
    Tensors {
        /// File or folder.
        path: String,
        /// Architecture.
        config: String,
        /// One line for each tensor that is missing, of another shape, or too many.
        differences: String,
    },
}

impl ImportError {
    fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.display().to_string(), what: what.into() }
    }
}

/// Whether a model without a classification head will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The model is to classify.
    Required,
    /// The model is to be fine-tuned, which makes a new head: where there is none, it is zero
    /// and has one class.
    Optional,
}

/// A numeric array as it lies in the source.
#[derive(Debug, Clone, PartialEq)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// What a folder with a `config.json` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A KerasHub preset of a ResNet.
    Keras,
    /// A model of timm.
    Timm,
    /// A model of transformers.
    Transformers,
}

impl Kind {
    /// The kind of a folder; `None` where it is of no kind that is imported.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let config: serde_json::Value = keras::json(&dir.join("config.json")).ok()?;
        let has = |key: &str| config.get(key).is_some();
        match config.get("class_name") {
            Some(class) => (class == "ResNetBackbone").then_some(Self::Keras),
            None if has("architecture") => Some(Self::Timm),
            None => has("model_type").then_some(Self::Transformers),
        }
    }
}

/// Loads what a user calls a model: a path for [`load`], or a name that [`Reference`]
/// knows, whose model is downloaded first, with progress on the standard error.
///
/// # Errors
/// Those of [`load`], of downloads, and names that are nothing.
pub fn open(name: &Path, head: Head) -> Result<Checkpoint, ImportError> {
    open_any(name, head, &Hints::default())?.into_checkpoint(name)
}

/// A model as it was found.
#[derive(Debug)]
pub enum Imported {
    /// A ResNet, whose training can go on.
    Checkpoint(Box<Checkpoint>),
    /// Any other network, to be converted.
    Graph(Box<FloatModel>),
}

impl Imported {
    /// The float model of either.
    ///
    /// # Errors
    /// Those of [`FloatModel::from_checkpoint`].
    pub fn to_float_model(&self) -> Result<FloatModel, GraphError> {
        match self {
            Self::Checkpoint(checkpoint) => FloatModel::from_checkpoint(checkpoint),
            Self::Graph(model) => Ok(model.as_ref().clone()),
        }
    }

    /// What training can go on with: that of a graph is made where it is a ResNet's.
    ///
    /// # Errors
    /// Other networks, with what does not fit.
    pub fn into_checkpoint(self, path: &Path) -> Result<Checkpoint, ImportError> {
        match self {
            Self::Checkpoint(checkpoint) => Ok(*checkpoint),
            Self::Graph(model) => recognize::recognize(path, &model),
        }
    }

    /// Makes a network that takes colors in the opposite order one that takes them as they come.
    fn reverse_channels(&mut self) -> Result<(), String> {
        match self {
            Self::Checkpoint(checkpoint) => {
                let stem = checkpoint.config.stem();
                let name = stem.first().map_or(String::new(), |s| format!("{}.weight", s.name));
                let first = checkpoint.tensors.get_mut(&name).ok_or("without a first layer")?;
                let mut weights = first.to_f32();
                reverse_rgb(&mut weights, first.shape.last().copied().unwrap_or(0))?;
                *first = Tensor::from_f32(&first.shape, &weights);
                checkpoint.samples.clear();
                Ok(())
            }
            Self::Graph(model) => {
                if let Source::Onnx(source) = &mut model.source {
                    source.is_reversed = true;
                }
                model.graph.reverse_channels()
            }
        }
    }

    /// Makes the input `side` pixels high and wide. A graph has the size that its file says.
    fn resize(&mut self, side: u16) -> Result<(), String> {
        match self {
            Self::Checkpoint(checkpoint) => {
                checkpoint.assumed.retain(|a| a.option != Hints::SIZE);
                let p = &mut checkpoint.preprocess;
                if (p.height, p.width) != (side, side) {
                    (p.height, p.width) = (side, side);
                    // They have the old size.
                    checkpoint.samples.clear();
                }
                Ok(())
            }
            Self::Graph(model) => {
                let Shape { h, w, .. } = model.graph.input_shape();
                if h == side || w == side {
                    return Ok(());
                }
                Err(format!(
                    "its input has {h}×{w} pixels, which --input-size {side} cannot change; export it \
                     with open sides or with others"
                ))
            }
        }
    }
}

/// What a user says of a model that its file may leave open.
#[derive(Debug, Clone, Default, Args)]
pub struct Hints {
    /// Height and width of the input, for a model that does not say them
    #[arg(long = "input-size", value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub size: Option<u16>,
    /// Whether a max-pool follows the stem, of a state dict; `=false` where none does [default: unless
    /// the stem is a single 3×3 convolution]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stem_pool: Option<bool>,
    /// Stride of its stem [default: 1 of a single 3×3 convolution, else 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub stem_stride: Option<u8>,
    /// Strides of its stacks, such as 1,2,2,1 [default: 1,2,2,…]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=4))]
    pub stack_strides: Option<Vec<u8>>,
    /// The convolution of its bottlenecks that strides [default: 3x3]
    #[arg(long, value_enum)]
    pub bottleneck_stride: Option<BottleneckStride>,
    /// Which state dict of a training checkpoint with several, by the name that leads to it
    #[arg(long, value_name = "NAME")]
    pub state_dict: Option<String>,
    /// The output that is a score for each class, of an ONNX or TensorFlow Lite model with several
    #[arg(long, value_name = "NAME")]
    pub output_node: Option<String>,
    /// Order of the colors in the network's own input, which --mean and --std do not change:
    /// pictures and tensors always come as rgb, and the first layer is rewritten for that
    /// [default: rgb, and bgr of Keras Applications' ResNet and VGG]
    #[arg(long, value_enum)]
    pub channels: Option<Channels>,
}

impl Hints {
    const SIZE: Option<&'static str> = Some("--input-size");
    const STEM_POOL: Option<&'static str> = Some("--stem-pool");
    const STEM_STRIDE: Option<&'static str> = Some("--stem-stride");
    const STACK_STRIDES: Option<&'static str> = Some("--stack-strides");
    const BOTTLENECK_STRIDE: Option<&'static str> = Some("--bottleneck-stride");
    const STATE_DICT: Option<&'static str> = Some("--state-dict");

    /// An option that was given and that only state dicts leave open.
    fn of_state_dicts(&self) -> Option<&'static str> {
        let given = [
            (self.stem_pool.is_some(), Self::STEM_POOL),
            (self.stem_stride.is_some(), Self::STEM_STRIDE),
            (self.stack_strides.is_some(), Self::STACK_STRIDES),
            (self.bottleneck_stride.is_some(), Self::BOTTLENECK_STRIDE),
            (self.state_dict.is_some(), Self::STATE_DICT),
        ];
        given.into_iter().find_map(|(is_given, option)| option.filter(|_| is_given))
    }
}

/// Order of colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV's pictures: Caffe's networks, and keras.applications' ResNet50,
    /// ResNet101 and ResNet152
    Bgr,
}

/// As [`open`], also of networks that are converted, but not trained.
///
/// # Errors
/// Those of [`open`], and files with operators that are not read.
pub fn open_any(name: &Path, head: Head, hints: &Hints) -> Result<Imported, ImportError> {
    let mut out = std::io::stderr();
    let terminal = out.is_terminal();
    fetch(&Hub::from_env(), name, head, hints, &mut Progress::new(&mut out, terminal))
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    std::fs::read(path)
        .map_err(|source| ImportError::Io { path: path.display().to_string(), source })
}

/// [`open`] with hubs and progress of choice.
///
/// # Errors
/// Those of [`open`].
pub fn open_from(
    hub: &Hub,
    name: &Path,
    head: Head,
    progress: &mut Progress<'_>,
) -> Result<Checkpoint, ImportError> {
    fetch(hub, name, head, &Hints::default(), progress)?.into_checkpoint(name)
}

fn fetch(
    hub: &Hub,
    name: &Path,
    head: Head,
    hints: &Hints,
    progress: &mut Progress<'_>,
) -> Result<Imported, ImportError> {
    let Some(reference) = Reference::of(name)? else { return import(name, head, hints) };
    let mut imported = import(&hub.fetch(&reference, progress)?, head, hints)?;
    // The cache's folder has the name of a commit or a version.
    match &mut imported {
        Imported::Checkpoint(c) => &mut c.config.name,
        Imported::Graph(m) => &mut m.graph.name,
    }
    .replace_range(.., reference.model_name());
    Ok(imported)
}

/// Loads a model: our `.mpk`, a KerasHub preset directory, a saved Keras model (`.keras`,
/// `.h5`), a directory of timm, a PyTorch state dict, or one in Burn's `.bpk`.
///
/// # Errors
/// Unreadable files, unknown kinds, and weights that do not fit their architecture.
pub fn load(path: &Path, head: Head) -> Result<Checkpoint, ImportError> {
    import(path, head, &Hints::default())?.into_checkpoint(path)
}

fn import(path: &Path, head: Head, hints: &Hints) -> Result<Imported, ImportError> {
    let mut imported = read_any(path, head, hints)?;
    if let Some(side) = hints.size {
        imported.resize(side).map_err(|what| ImportError::unsupported(path, what))?;
    }
    if let (Imported::Checkpoint(_), Some(name)) = (&imported, &hints.output_node) {
        let what = format!("--output-node {}: it has but one output", name.plain());
        return Err(ImportError::unsupported(path, what));
    }
    if hints.channels == Some(Channels::Bgr) {
        imported
            .reverse_channels()
            .map_err(|what| ImportError::unsupported(path, format!("--channels bgr: {what}")))?;
    }
    Ok(imported)
}

/// Tells by its contents what a file is; one of another kind than its name says is read as well.
fn read_any(path: &Path, head: Head, hints: &Hints) -> Result<Imported, ImportError> {
    let trainable = |checkpoint| Imported::Checkpoint(Box::new(checkpoint));
    if path.is_dir() {
        return match Kind::of(path) {
            Some(Kind::Timm) => timm::folder(path, head, hints).map(trainable),
            Some(Kind::Transformers) => transformers::folder(path, head, hints).map(trainable),
            Some(Kind::Keras) => keras::folder(path, head, hints),
            None => match foreign::folder(path) {
                Some(what) if !keras::is_folder(path) => Err(ImportError::unsupported(path, what)),
                // It is told what it lacks as a preset.
                _ => keras::folder(path, head, hints),
            },
        };
    }
    let bytes = read(path)?;
    let is_state_dict =
        bytes.starts_with(burnpack::MAGIC) || torch::is_one(&bytes) && !keras::is_saved(&bytes);
    if let (false, Some(option)) = (is_state_dict, hints.of_state_dicts()) {
        let what = format!("{option} is for state dicts, which this is not");
        return Err(ImportError::unsupported(path, what));
    }
    let is_named = |extension| path.extension().is_some_and(|e| e == extension);
    let graph = |model| Imported::Graph(Box::new(model));
    Ok(if tflite::is_one(&bytes) {
        graph(tflite::tflite(path, &bytes, hints)?)
    } else if onnx::is_one(&bytes) {
        graph(onnx::onnx(path, &bytes, hints)?)
    } else if bytes.starts_with(hdf5::MAGIC) || keras::is_saved(&bytes) {
        keras::saved(path, bytes, head, hints)?
    } else if bytes.starts_with(burnpack::MAGIC) {
        trainable(burnpack::burnpack(path, &bytes, head, hints)?)
    } else if is_state_dict {
        trainable(torch::state_dict(path, &bytes, head, hints)?)
    } else if let Some(what) = foreign::file(path, &bytes) {
        return Err(ImportError::unsupported(path, what));
    } else if is_named("tflite") {
        graph(tflite::tflite(path, &bytes, hints)?)
    } else if is_named("onnx") {
        graph(onnx::onnx(path, &bytes, hints)?)
    } else if is_named("mpk") || matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        trainable(Checkpoint::from_bytes(&bytes, &path.display().to_string())?)
    } else {
        let start: String = bytes.iter().take(8).map(|b| format!(" {b:02x}")).collect();
        let what = format!(
            "of no kind that is read (it starts with{start}): checkpoints (.mpk), ONNX, TensorFlow \
             Lite, Keras and PyTorch state dicts are"
        );
        return Err(ImportError::unsupported(path, what));
    })
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

/// Files a batch-norm that only adds `beta`: its ε is taken off the variance beforehand.
fn identity_batch_norm(found: &mut BTreeMap<String, Tensor>, name: &str, beta: &[f32]) {
    let constant = |value| vec![value; beta.len()];
    for (part, values) in [
        ("gamma", constant(1.0)),
        ("beta", beta.to_vec()),
        ("mean", constant(0.0)),
        ("variance", constant((1.0 - BATCH_NORM_EPSILON) as f32)),
    ] {
        found.insert(format!("{name}.{part}"), Tensor::from_f32(&[values.len()], &values));
    }
}

/// The checkpoint of a model that was trained elsewhere.
fn checkpoint(
    path: &Path,
    config: ResNetConfig,
    labels: Vec<String>,
    preprocess: Preprocess,
    tensors: BTreeMap<String, Tensor>,
) -> Result<Checkpoint, ImportError> {
    let checkpoint = Checkpoint {
        format: FORMAT.into(),
        version: VERSION,
        preprocess: Preprocess { grey: config.channels == 1, ..preprocess },
        config,
        labels,
        tensors,
        samples: Vec::new(),
        training: TrainingRecord::default(),
        assumed: Vec::new(),
    };
    checkpoint.check().map_err(|what| ImportError::unsupported(path, what))?;
    Ok(checkpoint)
}

/// Most differences named one by one.
const MAX_LISTED: usize = 20;

/// The tensors that `config` needs, from those `found` under canonical names; `extra` names
/// what has no canonical name.
fn assemble(
    path: &Path,
    config: &ResNetConfig,
    mut found: BTreeMap<String, Tensor>,
    extra: Vec<String>,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let mut differences = Vec::new();
    let mut tensors = BTreeMap::new();
    for (name, shape) in config.tensor_shapes() {
        match found.remove(&name) {
            Some(tensor) if tensor.shape == shape => {
                tensors.insert(name, tensor);
            }
            Some(tensor) => {
                differences.push(format!("`{name}` has shape {:?}, not {shape:?}", tensor.shape));
            }
            None => differences.push(format!("`{name}` {shape:?} is missing")),
        }
    }
    let strange = found.into_iter().map(|(name, t)| format!("`{name}` {:?}", t.shape));
    differences.extend(strange.chain(extra).map(|what| format!("{what} belongs to no layer")));
    if differences.is_empty() {
        return Ok(tensors);
    }
    let more = differences.len().saturating_sub(MAX_LISTED);
    differences.truncate(MAX_LISTED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(ImportError::Tensors {
        path: path.display().to_string(),
        config: config.name.clone(),
        differences: differences.iter().map(|d| format!("\n  {d}")).collect(),
    })
}
