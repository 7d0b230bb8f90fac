//! The `.mpk` checkpoint: MessagePack, self-describing, versioned.
//!
//! Tensors carry the canonical names of [`crate::blueprint`]: `<layer>.<part>` with layers named
//! as in KerasHub (`conv1_conv`, `stack0_block0_1_bn`, `predictions`) and parts `weight`,
//! `bias`, `gamma`, `beta`, `mean`, `variance`. Filters are OHWI, dense weights (out, in).

use crate::architecture::Architecture;
use crate::file::{self, write_atomic};
use crate::graph::{Graph, GraphError};
use artifact::{Preprocess, Shape};
use core::fmt;
use core::ops::Deref;
use image::ImageEncoder as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Value of [`Draft::format`].
pub const FORMAT: &str = "edge-resnet.mpk";
/// Newest version, the one written.
pub const VERSION: u32 = 1;
/// Longest side of the pictures that a network takes.
pub const MAX_SIDE: u16 = 1024;
/// Most numbers of all stored samples.
const MAX_SAMPLE_NUMBERS: usize = 1 << 28;

/// A dense tensor of little-endian numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Number format of `data`.
    pub dtype: TensorDtype,
    /// Row-major little-endian values.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// Number format of a [`Tensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorDtype {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Bytes, each of which means `scale · (byte − zero)`; scale and zero, f32, come before them. As
    /// networks of 8 bits have their weights, nothing is lost.
    U8,
}

impl TensorDtype {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// Bytes before the values.
    fn head(self) -> usize {
        if self == Self::U8 { 2 * size_of::<f32>() } else { 0 }
    }
}

impl Tensor {
    /// An f32 tensor; `values.len()` must be the product of `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "tensor length");
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { shape: shape.to_vec(), dtype: TensorDtype::F32, data }
    }

    /// The same numbers in [`TensorDtype::U8`], where they are multiples of `step` that bytes can say.
    #[must_use]
    pub fn in_steps_of(&self, step: f32) -> Option<Self> {
        let values = self.to_f32();
        let (low, high) = values.iter().fold((0f32, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
        let zero = -(low / step).round();
        if !step.is_normal() || (high / step).round() + zero > f32::from(u8::MAX) {
            return None;
        }
        let byte = |v: &f32| {
            let byte = (v / step).round() + zero;
            (step * (byte - zero) == *v).then_some(byte as u8)
        };
        let bytes: Option<Vec<u8>> = values.iter().map(byte).collect();
        let data = [step, zero].into_iter().flat_map(f32::to_le_bytes).chain(bytes?).collect();
        Some(Self { shape: self.shape.clone(), dtype: TensorDtype::U8, data })
    }

    /// Scale and zero of [`TensorDtype::U8`].
    fn steps(&self) -> [f32; 2] {
        let (numbers, _) = self.data.as_chunks::<4>();
        [0, 1].map(|i| numbers.get(i).map_or(f32::NAN, |b| f32::from_le_bytes(*b)))
    }

    /// Whether no value is NaN or infinite.
    fn is_finite(&self) -> bool {
        // Of these, all bits of the exponent are set: those of the upper half of a value.
        let exponent: u16 = match self.dtype {
            TensorDtype::F32 | TensorDtype::Bf16 => 0x7f80,
            TensorDtype::F16 => 0x7c00,
            TensorDtype::U8 => return self.steps().iter().all(|v| v.is_finite()),
        };
        let bytes = self.dtype.bytes();
        let mut upper = self.data.chunks_exact(bytes).map(|b| [b[bytes - 2], b[bytes - 1]]);
        upper.all(|half| u16::from_le_bytes(half) & exponent != exponent)
    }

    /// The values as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let half = self.data.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self.dtype {
            TensorDtype::F32 => self
                .data
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            TensorDtype::F16 => half.map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
            TensorDtype::Bf16 => half.map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            TensorDtype::U8 => {
                let [step, zero] = self.steps();
                let bytes = self.data.get(self.dtype.head()..).unwrap_or_default();
                bytes.iter().map(|b| step * (f32::from(*b) - zero)).collect()
            }
        }
    }
}

/// One training picture kept for calibration, at the model's input size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Index into the labels.
    pub label: u32,
    /// The picture as PNG, RGB or grey, already fitted and resized (not normalized).
    #[serde(with = "serde_bytes")]
    pub png: Vec<u8>,
}

impl Sample {
    /// Stores a picture of `width` × `height` pixels of RGB bytes or luma, row by row.
    ///
    /// # Errors
    /// Bytes of another number.
    pub fn encode(label: u32, pixels: &[u8], width: u16, height: u16) -> image::ImageResult<Self> {
        let mut png = Vec::new();
        let color = match pixels.len() == usize::from(width) * usize::from(height) {
            true => image::ExtendedColorType::L8,
            false => image::ExtendedColorType::Rgb8,
        };
        image::codecs::png::PngEncoder::new(&mut png).write_image(
            pixels,
            width.into(),
            height.into(),
            color,
        )?;
        Ok(Self { label, png })
    }
}

/// Figures of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Share of training pictures right, 0..=1.
    pub train_accuracy: f64,
    /// Mean validation loss; `None` without validation data.
    pub val_loss: Option<f64>,
    /// Share of validation pictures right, 0..=1.
    pub val_accuracy: Option<f64>,
    /// Share of validation pictures whose class is among the best of the run's `--top-k`.
    #[serde(default)]
    pub val_top_k_accuracy: Option<f64>,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Of these, the seconds in which training waited for pictures; 0 in older files.
    #[serde(default)]
    pub wait_seconds: f64,
}

impl EpochRecord {
    /// The same without how long it took: what the same command gives again.
    #[must_use]
    pub fn untimed(&self) -> Self {
        Self { seconds: 0.0, wait_seconds: 0.0, ..self.clone() }
    }
}

/// How the weights came to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// Data set, as the user named it (no absolute paths).
    pub dataset: String,
    /// Hash of file names, sizes and labels.
    pub fingerprint: String,
    /// Seed.
    pub seed: u64,
    /// The command's options that shape the result.
    pub options: BTreeMap<String, String>,
    /// Per epoch.
    pub epochs: Vec<EpochRecord>,
    /// The pictures that chose the epoch.
    #[serde(default)]
    pub validation: Validation,
    /// The model that training started from; empty where that was none, and in older files.
    #[serde(default)]
    pub base: String,
}

/// Which pictures of its data set a run was validated on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// Older files do not say.
    #[default]
    Unknown,
    /// None.
    None,
    /// Some of each class.
    Split(Split),
    /// A part of their own, such as `val/`.
    Part(String),
}

/// Pictures of each class that are set aside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Share of each class, 0..1.
    pub share: f64,
    /// Chooses them.
    pub seed: u64,
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not recorded"),
            Self::None => f.write_str("none"),
            Self::Split(split) => write!(f, "{split} of each class"),
            Self::Part(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 100 · 0.07 is not 7.
        let percent = (self.share * 1e8).round() / 1e6;
        write!(f, "seed {}, {percent} %", self.seed)
    }
}

/// What a file does not say, as it was taken for granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumption {
    /// What was assumed.
    pub what: String,
    /// The option that says otherwise, where there is one.
    pub option: Option<&'static str>,
}

impl Assumption {
    /// What says how pictures are normalized.
    pub const STATISTICS: Option<&'static str> = Some("--mean and --std");

    /// `what`, if `option` does not say otherwise.
    pub fn new(what: impl Into<String>, option: Option<&'static str>) -> Self {
        Self { what: what.into(), option }
    }

    /// All of them in one line; `None` where nothing was assumed.
    pub fn line(assumed: &[Self]) -> Option<String> {
        let what: Vec<&str> = assumed.iter().map(|a| a.what.as_str()).collect();
        let options: Vec<&str> = assumed.iter().filter_map(|a| a.option).collect();
        let line = format!("assumed: {}", what.join(", "));
        match options[..] {
            [] if assumed.is_empty() => None,
            [] => Some(line),
            [one] if !one.contains(" and ") => Some(format!("{line}; {one} says otherwise")),
            _ => Some(format!("{line}; {} say otherwise", options.join(", "))),
        }
    }
}

/// What a checkpoint is made of, before it is known to fit together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Architecture.
    pub config: Architecture,
    /// Class names in index order; as many as `config.classes`.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Named tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// Pictures for calibration.
    pub samples: Vec<Sample>,
    /// Origin of the weights.
    pub training: TrainingRecord,
    /// What a file of others did not say of all this; not stored.
    #[serde(skip)]
    pub assumed: Vec<Assumption>,
}

/// A model with everything needed to go on training or to deploy it: a [`Draft`] whose parts fit.
///
/// Nothing of it can be changed. [`Self::edit`] makes another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Draft")]
pub struct Checkpoint(Draft);

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Not MessagePack of this shape, or cut short.
    #[error(
        "{path}: not a readable .mpk checkpoint ({source}); it may be truncated: copy or train it again"
    )]
    Decode {
        /// File.
        path: String,
        /// Cause.
        source: rmp_serde::decode::Error,
    },
    /// Readable, but inconsistent.
    #[error("{path}: {what}")]
    Invalid {
        /// File.
        path: String,
        /// What was found and what was wanted.
        what: String,
    },
}

impl Draft {
    /// Of tensors that come from nowhere in particular.
    pub fn new(
        config: Architecture,
        labels: Vec<String>,
        preprocess: Preprocess,
        tensors: BTreeMap<String, Tensor>,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            config,
            labels,
            preprocess,
            tensors,
            samples: Vec::new(),
            training: TrainingRecord::default(),
            assumed: Vec::new(),
        }
    }

    /// Numbers in all tensors.
    pub fn numbers(&self) -> usize {
        self.tensors.values().map(|t| t.shape.iter().product::<usize>()).sum()
    }

    /// What the network is and what it was trained on, such as `resnet_20_cifar (cifar-10)`.
    pub fn origin(&self) -> String {
        match self.training.dataset.as_str() {
            "" => self.config.name.clone(),
            dataset => format!("{} ({dataset})", self.config.name),
        }
    }

    /// Checks names, shapes and labels against the architecture.
    ///
    /// # Errors
    /// The first thing that does not fit, as text.
    pub fn check(self) -> Result<Checkpoint, String> {
        self.fits().map(|()| Checkpoint(self))
    }

    /// Whether the parts fit.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn fits(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format `{}`, expected `{FORMAT}`", self.format));
        }
        if self.version > VERSION {
            return Err(format!(
                "version {}, but this build reads up to {VERSION}; update",
                self.version
            ));
        }
        self.config.check()?;
        if !self.preprocess.is_valid() {
            return Err("preprocessing has an empty size or a number that is not finite".into());
        }
        let Preprocess { height, width, .. } = self.preprocess;
        if height.max(width) > MAX_SIDE {
            return Err(format!(
                "a network for pictures of {width}x{height} pixels; at most {MAX_SIDE} a side are read"
            ));
        }
        let sample = usize::from(height) * usize::from(width) * self.preprocess.channels();
        if self.samples.len() > MAX_SAMPLE_NUMBERS / sample.max(1) {
            return Err(format!("{} stored samples, more than are read", self.samples.len()));
        }
        if self.preprocess.channels() != self.config.channels {
            return Err(format!(
                "preprocessing to {} channels for a network of {}",
                self.preprocess.channels(),
                self.config.channels
            ));
        }
        if self.labels.len() != self.config.classes {
            return Err(format!(
                "{} labels for {} classes",
                self.labels.len(),
                self.config.classes
            ));
        }
        for (i, l) in self.labels.iter().enumerate() {
            if l.is_empty() || l.len() > artifact::meta::MAX_LABEL_BYTES {
                return Err(format!(
                    "label {i} is empty or longer than {} bytes",
                    artifact::meta::MAX_LABEL_BYTES
                ));
            }
        }
        for (name, shape) in self.config.blueprint().tensors() {
            let Some(t) = self.tensors.get(&name) else {
                return Err(format!("tensor `{name}` is missing"));
            };
            if t.shape != shape {
                return Err(format!("tensor `{name}` has shape {:?}, expected {shape:?}", t.shape));
            }
            let len = shape.iter().product::<usize>() * t.dtype.bytes() + t.dtype.head();
            if t.data.len() != len {
                return Err(format!(
                    "tensor `{name}` has {} bytes, its shape {shape:?} needs others",
                    t.data.len()
                ));
            }
            if !t.is_finite() {
                return Err(format!("tensor `{name}` contains NaN or infinity"));
            }
        }
        Ok(())
    }
}

impl TryFrom<Draft> for Checkpoint {
    type Error = String;

    fn try_from(draft: Draft) -> Result<Self, String> {
        draft.check()
    }
}

impl Deref for Checkpoint {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl Checkpoint {
    /// Its parts, to make another one of.
    pub fn into_draft(self) -> Draft {
        self.0
    }

    /// The checkpoint after a change.
    ///
    /// # Errors
    /// Those of `change`, and parts that do not fit after it, as [`Draft::check`].
    pub fn edit(
        self,
        change: impl FnOnce(&mut Draft) -> Result<(), String>,
    ) -> Result<Self, String> {
        let mut draft = self.0;
        change(&mut draft)?;
        draft.check()
    }

    /// The network, layer by layer as it was trained (nothing folded or fused).
    ///
    /// # Errors
    /// An input too small for the network.
    pub fn graph(&self) -> Result<Graph, GraphError> {
        let Preprocess { height, width, .. } = self.preprocess;
        let input = Shape::new(height, width, self.preprocess.channels() as u16);
        self.config.blueprint().graph(input, |name, _| match self.tensors.get(&name) {
            Some(tensor) => Ok(tensor.to_f32()),
            None => Err(GraphError::Checkpoint(format!("tensor `{name}` is missing"))),
        })
    }

    /// Reads and checks a checkpoint from bytes; `path` names it in errors.
    ///
    /// # Errors
    /// Bytes that are no checkpoint, or one that [`Draft::check`] refuses.
    pub fn from_bytes(bytes: &[u8], path: &str) -> Result<Self, CheckpointError> {
        let draft: Draft = rmp_serde::from_slice(bytes)
            .map_err(|source| CheckpointError::Decode { path: path.into(), source })?;
        draft.check().map_err(|what| CheckpointError::Invalid { path: path.into(), what })
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// As [`Self::from_bytes`], and unreadable files.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        let name = path.display().to_string();
        let bytes = file::read(path)
            .map_err(|source| CheckpointError::Io { path: name.clone(), source })?;
        Self::from_bytes(&bytes, &name)
    }

    /// Writes to a temporary file beside `path`, then renames it: the old file survives a crash.
    ///
    /// # Errors
    /// Unwritable folder or full disk.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = rmp_serde::to_vec_named(&self.0).map_err(|e| CheckpointError::Invalid {
            path: path.display().to_string(),
            what: e.to_string(),
        })?;
        write_atomic(path, &bytes)
            .map_err(|source| CheckpointError::Io { path: path.display().to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::init::random_checkpoint;

    #[test]
    fn multiples_of_a_step_stay_what_they_are_in_bytes() {
        let (step, zero) = (0.0117f32, 122.0);
        let values: Vec<f32> = (0..=255).map(|byte| step * (byte as f32 - zero)).collect();
        let floats = Tensor::from_f32(&[16, 16], &values);
        let bytes = floats.in_steps_of(step).unwrap();
        assert_eq!((bytes.dtype, bytes.data.len()), (TensorDtype::U8, 256 + 8));
        assert_eq!(bytes.to_f32(), values);
        // Of another step, of too many steps, of none.
        assert!(floats.in_steps_of(0.01).is_none() && floats.in_steps_of(0.0).is_none());
        assert!(Tensor::from_f32(&[2], &[0.0, 256.0]).in_steps_of(1.0).is_none());
    }

    #[test]
    fn bytes_are_checked_as_other_numbers_are() {
        let config = Architecture::named("resnet_8_cifar", 3).unwrap();
        let checkpoint = random_checkpoint(config, 32, 1).unwrap();
        let name = "conv1_conv.weight";
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            checkpoint.clone().edit(|draft| {
                let tensor = draft.tensors.get_mut(name).unwrap();
                let len: usize = tensor.shape.iter().product();
                tensor.dtype = TensorDtype::U8;
                tensor.data = [0.5f32, 128.0].into_iter().flat_map(f32::to_le_bytes).collect();
                tensor.data.resize(8 + len, 128);
                change(&mut tensor.data);
                Ok(())
            })
        };
        let saved = rmp_serde::to_vec_named(&with(&|_| ()).unwrap().into_draft()).unwrap();
        let read = Checkpoint::from_bytes(&saved, "bytes").unwrap();
        assert!(read.tensors[name].to_f32().iter().all(|w| *w == 0.0));
        assert!(with(&|data| data.truncate(7)).unwrap_err().contains(name));
        let nan = with(&|data| data[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
        assert!(nan.unwrap_err().contains("NaN"));
    }
}
