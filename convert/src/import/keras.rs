//! KerasHub preset directories: `config.json`, `task.json`, `image_converter.json` and HDF5
//! weights, whole or sharded.
//!
//! Keras numbers the layers of a class (`conv2d`, `conv2d_1`, …) in an order of its own, which
//! [`layer_order`] reproduces; newer files also carry the layers' names, which win.

use super::hdf5;
use super::{Array, Head, ImportError, assemble, imagenet};
use crate::checkpoint::{Checkpoint, FORMAT, Tensor, TrainingRecord, VERSION};
use crate::resnet::{BlockType, Pooling, ResNetConfig};
use artifact::{Fit, Interpolation, Preprocess};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Side of the input where a preset does not fix it.
const DEFAULT_SIDE: u16 = 224;

/// Most files that weights are split into; by default, Keras starts another after 10 GB.
const MAX_SHARDS: usize = 64;

/// Keras' way to write an object down.
#[derive(Deserialize)]
struct Object<T> {
    class_name: String,
    config: T,
}

#[derive(Deserialize)]
struct Backbone {
    input_conv_filters: Vec<usize>,
    input_conv_kernel_sizes: Vec<usize>,
    stackwise_num_filters: Vec<usize>,
    stackwise_num_blocks: Vec<usize>,
    stackwise_num_strides: Vec<usize>,
    block_type: BlockType,
    #[serde(default)]
    use_pre_activation: bool,
}

#[derive(Deserialize)]
struct Task {
    num_classes: usize,
    #[serde(default = "average")]
    pooling: Pooling,
    #[serde(default)]
    dropout: f64,
}

fn average() -> Pooling {
    Pooling::Avg
}

/// A number for all channels, or one for each.
#[derive(Deserialize)]
#[serde(untagged)]
enum PerChannel {
    All(f64),
    Each([f64; 3]),
}

impl PerChannel {
    fn each(&self) -> [f64; 3] {
        match self {
            Self::All(v) => [*v; 3],
            Self::Each(v) => *v,
        }
    }
}

#[derive(Deserialize)]
struct Converter {
    image_size: Option<[u16; 2]>,
    // Presets of old versions.
    height: Option<u16>,
    width: Option<u16>,
    scale: Option<PerChannel>,
    offset: Option<PerChannel>,
    mean: Option<PerChannel>,
    variance: Option<PerChannel>,
    interpolation: Option<String>,
    #[serde(default)]
    antialias: bool,
    #[serde(default = "yes")]
    crop_to_aspect_ratio: bool,
    #[serde(default)]
    pad_to_aspect_ratio: bool,
}

fn yes() -> bool {
    true
}

impl Converter {
    /// The same as our preprocessing, or what has no counterpart.
    fn preprocess(&self) -> Result<Preprocess, String> {
        if self.pad_to_aspect_ratio {
            return Err("pad_to_aspect_ratio is not supported; set crop_to_aspect_ratio".into());
        }
        let [height, width] = self
            .image_size
            .unwrap_or_else(|| [self.height, self.width].map(|side| side.unwrap_or(DEFAULT_SIDE)));
        let each =
            |v: &Option<PerChannel>, default| v.as_ref().map_or([default; 3], PerChannel::each);
        let (scale, offset) = (each(&self.scale, 1.0), each(&self.offset, 0.0));
        let (mean, variance) = (each(&self.mean, 0.0), each(&self.variance, 1.0));
        // Old presets normalize by mean and variance after scaling.
        let interpolation = match self.interpolation.as_deref() {
            None | Some("bilinear") => Interpolation::Bilinear,
            Some("bicubic") => Interpolation::Bicubic,
            Some("nearest") => Interpolation::Nearest,
            Some(other) => {
                return Err(format!(
                    "interpolation `{other}` is not supported; use nearest, bilinear or bicubic"
                ));
            }
        };
        let p = Preprocess {
            height,
            width,
            fit: if self.crop_to_aspect_ratio { Fit::Crop } else { Fit::Stretch },
            interpolation,
            antialias: self.antialias,
            scale: core::array::from_fn(|c| (scale[c] / variance[c].sqrt()) as f32),
            offset: core::array::from_fn(|c| (offset[c] - mean[c] / variance[c].sqrt()) as f32),
        };
        match p.is_valid() {
            true => Ok(p),
            false => {
                Err("the image converter has an empty size or a number that is no number".into())
            }
        }
    }
}

/// Reads a preset directory, as `save_to_preset` writes it and the hubs store it.
pub(super) fn preset(dir: &Path, head: Head) -> Result<Checkpoint, ImportError> {
    let config_path = dir.join("config.json");
    if !config_path.is_file() {
        return Err(ImportError::unsupported(
            dir,
            "a folder without config.json; a KerasHub preset has config.json and model.weights.h5",
        ));
    }
    let kind: Object<serde_json::Value> = json(&config_path)?;
    if kind.class_name != "ResNetBackbone" {
        return Err(ImportError::unsupported(
            &config_path,
            format!("a {}, but only ResNetBackbone is imported", kind.class_name.escape_debug()),
        ));
    }
    let backbone: Object<Backbone> = json(&config_path)?;
    let task_path = dir.join("task.json");
    let task: Option<Object<Task>> =
        if task_path.is_file() { Some(json(&task_path)?) } else { None };
    if task.is_none() && head == Head::Required {
        return Err(ImportError::unsupported(
            dir,
            "no task.json, so this is a backbone without a head; fine-tune it to some classes first",
        ));
    }
    let converter_path = dir.join("image_converter.json");
    let preprocess = if converter_path.is_file() {
        let converter: Object<Converter> = json(&converter_path)?;
        let p = converter.config.preprocess();
        p.map_err(|what| ImportError::unsupported(&converter_path, what))?
    } else {
        // Without a converter, Keras feeds the model raw pixels.
        Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE)
    };
    let name = dir.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).unwrap_or_default();
    let b = backbone.config;
    let config = ResNetConfig {
        name: name.to_string_lossy().into_owned(),
        input_conv_filters: b.input_conv_filters,
        input_conv_kernel_sizes: b.input_conv_kernel_sizes,
        stem_stride: 2,
        stem_pool: true,
        stackwise_num_filters: b.stackwise_num_filters,
        stackwise_num_blocks: b.stackwise_num_blocks,
        stackwise_num_strides: b.stackwise_num_strides,
        block_type: b.block_type,
        use_pre_activation: b.use_pre_activation,
        pooling: task.as_ref().map_or(Pooling::Avg, |t| t.config.pooling),
        dropout: task.as_ref().map_or(0.0, |t| t.config.dropout),
        classes: task.as_ref().map_or(1, |t| t.config.num_classes),
    };
    config.check().map_err(|what| ImportError::unsupported(&config_path, what))?;

    let order = layer_order(&config);
    let mut found = BTreeMap::new();
    let mut extra = Vec::new();
    for file in weight_files(dir)? {
        collect(hdf5::read(&file)?, &order, &mut found, &mut extra);
    }
    let task_weights = dir.join("task.weights.h5");
    if task.is_some() && task_weights.is_file() {
        collect(hdf5::read(&task_weights)?, &order, &mut found, &mut extra);
    }
    if task.is_none() {
        for (name, shape) in [("weight", vec![1, config.features()]), ("bias", vec![1])] {
            let zeros = vec![0.0; shape.iter().product()];
            found.insert(format!("predictions.{name}"), Tensor::from_f32(&shape, &zeros));
        }
    }
    let tensors = assemble(dir, &config, found, extra)?;
    let labels = imagenet::labels_of(config.classes);
    let checkpoint = Checkpoint {
        format: FORMAT.into(),
        version: VERSION,
        config,
        labels,
        preprocess,
        tensors,
        samples: Vec::new(),
        training: TrainingRecord::default(),
    };
    checkpoint.check().map_err(|what| ImportError::unsupported(dir, what))?;
    Ok(checkpoint)
}

pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    let name = path.display().to_string();
    let text =
        std::fs::read(path).map_err(|source| ImportError::Io { path: name.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| ImportError::Json { path: name, source })
}

/// The backbone's weight files: one, or the shards that `model.weights.json` names.
fn weight_files(dir: &Path) -> Result<BTreeSet<PathBuf>, ImportError> {
    let whole = dir.join("model.weights.h5");
    let index = dir.join("model.weights.json");
    if whole.is_file() || !index.is_file() {
        return Ok([whole].into());
    }
    Ok(shards(&index)?.into_iter().map(|name| dir.join(name)).collect())
}

/// The weight files that an index names, all in its own folder.
pub(crate) fn shards(index_path: &Path) -> Result<BTreeSet<String>, ImportError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, Files>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Files {
        One(String),
        Several(Vec<String>),
    }
    let index: Index = json(index_path)?;
    let names = index.weight_map.into_values().flat_map(|files| match files {
        Files::One(name) => vec![name],
        Files::Several(names) => names,
    });
    let names: BTreeSet<String> = names
        .map(|name| match Path::new(&name).file_name() {
            // The index may not lead out of the folder.
            Some(file) if file == name.as_str() => Ok(name),
            _ => Err(ImportError::unsupported(
                index_path,
                format!("names the file `{}` outside of its folder", name.escape_debug()),
            )),
        })
        .collect::<Result<_, _>>()?;
    match names.len() {
        0..=MAX_SHARDS => Ok(names),
        n => {
            let what = format!("names {n} files, but weights are split into at most {MAX_SHARDS}");
            Err(ImportError::unsupported(index_path, what))
        }
    }
}

/// Layer names of each Keras class in the order of its numbering.
///
/// Keras sorts layers by their distance from the output: a projection stands just before the
/// last convolution of its block, and its batch-norm before the last batch-norm.
pub fn layer_order(config: &ResNetConfig) -> BTreeMap<&'static str, Vec<String>> {
    let v2 = config.use_pre_activation;
    let stem = config.stem().len();
    let mut convs: Vec<String> = (1..=stem).map(|i| format!("conv{i}_conv")).collect();
    let norms = if v2 { stem - 1 } else { stem };
    let mut norms: Vec<String> = (1..=norms).map(|i| format!("conv{i}_bn")).collect();
    for block in config.blocks() {
        let mut parts: Vec<usize> = (1..=block.convs.len()).collect();
        if block.projection.is_some() {
            parts.insert(parts.len() - 1, 0);
        }
        convs.extend(parts.iter().map(|n| format!("{}_{n}_conv", block.name)));
        if v2 {
            norms.push(format!("{}_pre_activation_bn", block.name));
            norms.extend((1..block.convs.len()).map(|n| format!("{}_{n}_bn", block.name)));
        } else {
            norms.extend(parts.iter().map(|n| format!("{}_{n}_bn", block.name)));
        }
    }
    if v2 {
        norms.push("post_bn".into());
    }
    [("conv2d", convs), ("batch_normalization", norms), ("dense", vec!["predictions".into()])]
        .into()
}

/// Keras' classes of layers with weights, each with its parts in the order of its variables.
pub const LAYER_CLASSES: [(&str, &[&str]); 3] = [
    ("conv2d", &["weight"]),
    ("batch_normalization", &["gamma", "beta", "mean", "variance"]),
    ("dense", &["weight", "bias"]),
];

/// Files a weight file's arrays under their canonical names; what is no weight of a layer, the
/// optimizer's state apart, goes to `extra`.
fn collect(
    contents: hdf5::Contents,
    order: &BTreeMap<&'static str, Vec<String>>,
    found: &mut BTreeMap<String, Tensor>,
    extra: &mut Vec<String>,
) {
    for (path, array) in contents.arrays {
        if path.starts_with("optimizer/") {
            continue;
        }
        match canonical(&path, &contents.names, order) {
            Some(name) => {
                found.insert(name, tensor(array));
            }
            None => extra.push(format!("`{path}` {:?}", array.shape)),
        }
    }
}

/// The canonical name of `…/layers/<class>[_N]/vars/<i>`.
fn canonical(
    path: &str,
    names: &BTreeMap<String, String>,
    order: &BTreeMap<&'static str, Vec<String>>,
) -> Option<String> {
    let (group, variable) = path.rsplit_once('/')?;
    // Files of Keras before 3.0 call the same thing otherwise.
    let layer = group.strip_suffix("/vars")?;
    let layer = layer
        .rsplit_once("layers/")
        .or_else(|| layer.rsplit_once("_layer_checkpoint_dependencies/"))?
        .1;
    let (class, parts) =
        LAYER_CLASSES.iter().find(|(class, _)| layer.strip_prefix(class).is_some_and(is_number))?;
    let layers = order.get(class)?;
    let part = parts.get(variable.parse::<usize>().ok()?)?;
    let name = match names.get(group) {
        Some(name) if layers.contains(name) => name,
        // A head has its own name in the file of a task, and another in a Sequential.
        _ if *class == "dense" => layers.first()?,
        Some(_) => return None,
        None => {
            let number = layer.strip_prefix(*class)?.strip_prefix('_');
            layers.get(number.map_or(Ok(0), str::parse).ok()?)?
        }
    };
    Some(format!("{name}.{part}"))
}

/// `""` or `_N`.
fn is_number(suffix: &str) -> bool {
    suffix.is_empty()
        || suffix
            .strip_prefix('_')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// HWIO to OHWI, (in, out) to (out, in); vectors stay.
fn tensor(array: Array) -> Tensor {
    let Array { shape, values } = array;
    match shape.split_last() {
        Some((&outputs, rest)) if !rest.is_empty() && outputs > 0 => {
            let column = |o: usize| values.iter().skip(o).step_by(outputs).copied();
            let first: Vec<f32> = (0..outputs).flat_map(column).collect();
            Tensor::from_f32(&[&[outputs], rest].concat(), &first)
        }
        _ => Tensor::from_f32(&shape, &values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keras before 3.6 writes no names: the numbers alone must lead to the same tensors.
    #[test]
    fn numbers_do_where_names_are_missing() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/keras");
        for model in ["v1_basic", "v1_bottleneck", "v2_bottleneck", "vd_bottleneck"] {
            let dir = fixtures.join(model).join("preset");
            let whole = preset(&dir, Head::Required).unwrap();
            let order = layer_order(&whole.config);
            let (mut found, mut extra) = (BTreeMap::new(), Vec::new());
            for file in ["model.weights.h5", "task.weights.h5"] {
                let mut contents = hdf5::read(&dir.join(file)).unwrap();
                assert!(!contents.names.is_empty());
                contents.names.clear();
                collect(contents, &order, &mut found, &mut extra);
            }
            assert!(found == whole.tensors && extra.is_empty(), "{model}");
        }
    }
}
