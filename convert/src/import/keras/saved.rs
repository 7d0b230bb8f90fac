//! `.keras` files, which `model.save` writes: a zip of `config.json` and `model.weights.h5`.
//!
//! A whole classifier of KerasHub, its backbone alone, or a `Sequential` around the backbone.
//! Where the model holds no image converter and no rescaling, it is fed raw pixels.

use super::super::archive::{self, Archive};
use super::super::{Head, ImportError, hdf5};
use super::Classifier;
use super::config::{Backbone, Converter, DEFAULT_SIDE, Object, Rescaling, Task};
use crate::checkpoint::Checkpoint;
use crate::resnet::Pooling;
use artifact::Preprocess;
use artifact::text::AsPlain;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.weights.h5";

/// Whether these are the bytes of a `.keras` file.
pub(in super::super) fn is_saved(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC)
        && Archive::open(bytes).is_ok_and(|a| a.names().iter().any(|name| name == WEIGHTS))
}

/// Imports a `.keras` file.
pub(in super::super) fn saved(
    path: &Path,
    bytes: &[u8],
    head: Head,
) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let classifier = classifier(path, bytes).map_err(unsupported)?;
    classifier.checkpoint(path, head)
}

fn classifier(path: &Path, bytes: &[u8]) -> Result<Classifier, String> {
    let mut archive = Archive::open(bytes)?;
    let model: Object<Value> = parse(CONFIG, serde_json::from_slice(&archive.member(CONFIG)?))?;
    let (backbone, task, preprocess) = match model.class_name.as_str() {
        "Sequential" => sequential(model.config)?,
        "ResNetImageClassifier" => image_classifier(model.config)?,
        "ResNetBackbone" => {
            (config(CONFIG, model.config)?, None, Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE))
        }
        other => {
            return Err(format!(
                "a {}; ResNetBackbone, ResNetImageClassifier and Sequential models of them are \
                 imported",
                other.plain()
            ));
        }
    };
    let weights = hdf5::parse(archive.member(WEIGHTS)?).map_err(|e| format!("{WEIGHTS}: {e}"))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Classifier { name, backbone, task, preprocess, weights: vec![weights] })
}

/// Backbone, head and preprocessing.
type Parts = (Backbone, Option<Task>, Preprocess);

fn image_classifier(model: Value) -> Result<Parts, String> {
    #[derive(Deserialize)]
    struct Preprocessor {
        image_converter: Option<Object<Converter>>,
    }
    #[derive(Deserialize)]
    struct Classifier {
        backbone: Object<Backbone>,
        preprocessor: Option<Object<Preprocessor>>,
        #[serde(flatten)]
        task: Task,
    }
    let model: Classifier = config("ResNetImageClassifier", model)?;
    let preprocess = match model.preprocessor.and_then(|p| p.config.image_converter) {
        Some(converter) => converter.config.preprocess()?,
        None => Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE),
    };
    Ok((model.backbone.config, Some(model.task), preprocess))
}

/// Input, preprocessing, backbone, pooling and head, in this order.
fn sequential(model: Value) -> Result<Parts, String> {
    #[derive(Deserialize)]
    struct Sequential {
        layers: Vec<Object<Value>>,
    }
    #[derive(Deserialize)]
    struct Input {
        batch_shape: (Option<u16>, Option<u16>, Option<u16>, Option<u16>),
    }
    #[derive(Deserialize)]
    struct Dropout {
        rate: f64,
    }
    #[derive(Deserialize)]
    struct Dense {
        units: usize,
        #[serde(default)]
        activation: Value,
    }
    let model: Sequential = config("Sequential", model)?;
    let mut preprocess = Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE);
    let (mut backbone, mut pooling, mut task) = (None, None, None);
    let mut dropout = 0.0;
    for layer in model.layers {
        let class = layer.class_name.as_str();
        let fits = match class {
            "InputLayer" => {
                let Input { batch_shape: (_, height, width, _) } = config(class, layer.config)?;
                let side = |side: Option<u16>| side.unwrap_or(DEFAULT_SIDE);
                preprocess = Preprocess::raw(side(height), side(width));
                backbone.is_none()
            }
            "ImageConverter" | "ResNetImageConverter" => {
                preprocess = config::<Converter>(class, layer.config)?.preprocess()?;
                backbone.is_none()
            }
            "Rescaling" => {
                preprocess = config::<Rescaling>(class, layer.config)?.after(preprocess);
                backbone.is_none()
            }
            "ResNetBackbone" => backbone.replace(config(class, layer.config)?).is_none(),
            "GlobalAveragePooling2D" => pooling.replace(Pooling::Avg).is_none(),
            "GlobalMaxPooling2D" => pooling.replace(Pooling::Max).is_none(),
            "Dropout" => {
                dropout = config::<Dropout>(class, layer.config)?.rate;
                true
            }
            "Dense" => {
                let Dense { units, activation } = config(class, layer.config)?;
                let pooling = pooling.filter(|_| backbone.is_some());
                let head = |pooling| Task { num_classes: units, pooling, dropout, activation };
                let head = pooling.map(head);
                head.is_some_and(|head| task.replace(head).is_none())
            }
            _ => false,
        };
        if !fits {
            return Err(format!(
                "a Sequential with a {} where none is understood; expected Rescaling or an image \
                 converter, ResNetBackbone, global pooling and one Dense",
                class.plain()
            ));
        }
    }
    let backbone = backbone.ok_or("a Sequential without a ResNetBackbone")?;
    if !preprocess.is_valid() {
        return Err("Rescaling by nothing, or by a number that is no number".into());
    }
    Ok((backbone, task, preprocess))
}

/// An object's configuration; `what` names it in errors.
fn config<T: DeserializeOwned>(what: &str, config: Value) -> Result<T, String> {
    parse(what, serde_json::from_value(config))
}

fn parse<T>(what: &str, parsed: serde_json::Result<T>) -> Result<T, String> {
    parsed.map_err(|e| format!("{what}: {e}"))
}
