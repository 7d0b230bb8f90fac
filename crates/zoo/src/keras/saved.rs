//! Saved models: `.keras` files, which `model.save` writes, zips of `config.json` and
//! `model.weights.h5`, and `.h5` files, which have both in one.
//!
//! A classifier of KerasHub, its backbone alone, or its backbone with plain layers around it; or any
//! network of plain layers, which becomes ONNX ([`super::rewrite`]). What rescales pictures inside of
//! the model stays there.

use super::applications::{self, Family};
use super::arrays::Arrays;
use super::backbone::{self, Backbone};
use super::config::{Converter, DEFAULT_SIDE, Object, Rescaling, Task};
use super::layers::{Layer, Network};
use super::mobile;
use super::passed_over::is_passed_over;
use super::rewrite::rewrite;
use super::{BACKBONE, Classifier, EXPORT};
use crate::{Channels, Head, Hints, ImportError, Imported, onnx};
use artifact::Preprocess;
use formats::archive::{self, Archive};
use formats::hdf5::{self, Contents};
use network::blueprint::Pooling;
use network::graph::{Node, NodeOp};
use network::model::{FloatModel, Source};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.weights.h5";
/// How classes of classifiers end.
const CLASSIFIER: &str = "ImageClassifier";
/// The class of what prepares pictures, and how others of that kind end.
const CONVERTER: &str = "ImageConverter";

/// Whether these are the bytes of a `.keras` file.
pub(in super::super) fn is_saved(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC)
        && Archive::open(bytes).is_ok_and(|a| a.names().iter().any(|name| name == WEIGHTS))
}

/// Imports a file.
pub(in super::super) fn saved(
    path: &Path,
    bytes: Vec<u8>,
    head: Head,
    hints: &Hints,
) -> Result<Imported, ImportError> {
    let parts = parts(bytes);
    let (model, contents) = parts.map_err(|what| ImportError::unsupported(path, what))?;
    import(path, model, contents, head, hints)
}

/// Whether this is the class of a model with all of its layers.
pub(super) fn is_whole(class: &str) -> bool {
    matches!(class, "Functional" | "Model" | "Sequential") || backbone::is_one(class, CLASSIFIER)
}

/// Imports a model from its description, where there is one, and its weights.
pub(super) fn import(
    path: &Path,
    model: Option<Object<Value>>,
    contents: Contents,
    head: Head,
    hints: &Hints,
) -> Result<Imported, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    let Some(model) = model else {
        let arrays = Arrays::new(contents);
        if let Some(checkpoint) = mobile::weights_alone(path, &arrays, head, hints)? {
            return Ok(Imported::Checkpoint(Box::new(checkpoint)));
        }
        let network = applications::network(&arrays).map_err(unsupported)?;
        let network = network.ok_or_else(|| {
            unsupported(
                "weights without the network that they belong to; save the whole model, \
                 model.save(\"model.keras\"), or name the folder of a KerasHub preset"
                    .into(),
            )
        })?;
        return plain(path, &network, &arrays, hints);
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let classifier = |(backbone, task, preprocess): Parts, contents| {
        let mut preprocess = Backbone::sized(&backbone, preprocess);
        if let Some(side) = hints.size {
            (preprocess.height, preprocess.width) = (side, side);
        }
        Classifier { name, backbone, task, preprocess, weights: vec![contents] }
    };
    let class = model.class_name.as_str();
    let parts = if backbone::is_one(class, CLASSIFIER) {
        Some(image_classifier(class, model.config.clone()))
    } else if backbone::is_one(class, BACKBONE) {
        let raw = Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE);
        Some(Backbone::read(class, model.config.clone()).map(|backbone| (backbone, None, raw)))
    } else {
        None
    };
    if let Some(parts) = parts {
        let parts = parts.map_err(unsupported)?;
        let checkpoint = classifier(parts, contents).checkpoint(path, head)?;
        return Ok(Imported::Checkpoint(Box::new(checkpoint)));
    }
    let network = Network::new(&model).map_err(unsupported)?;
    if !network.layers.iter().any(|layer| backbone::is_one(&layer.class, BACKBONE)) {
        let arrays = Arrays::new(contents);
        let base = match head {
            Head::Required => None,
            Head::Optional => mobile::without_head(path, &network, &arrays, hints),
        };
        return match base {
            Some(checkpoint) => Ok(Imported::Checkpoint(Box::new(checkpoint))),
            None => plain(path, &network, &arrays, hints),
        };
    }
    let parts = around_backbone(&network).map_err(unsupported)?;
    let checkpoint = classifier(parts, contents).checkpoint(path, head)?;
    let p = checkpoint.preprocess;
    if (p.scale, p.offset) == ([1.0; 3], [0.0; 3]) || head == Head::Optional {
        return Ok(Imported::Checkpoint(Box::new(checkpoint)));
    }
    // The network takes pictures as they are, and scales them itself.
    let mut model =
        FloatModel::from_checkpoint(&checkpoint).map_err(|e| unsupported(e.to_string()))?;
    scale_inside(&mut model);
    Ok(Imported::Graph(Box::new(model)))
}

/// A network of plain layers.
fn plain(
    path: &Path,
    network: &Network,
    arrays: &Arrays,
    hints: &Hints,
) -> Result<Imported, ImportError> {
    let unsupported = |what: String| ImportError::unsupported(path, what);
    // What the user says of the order of colors goes before what the layers' names say.
    let family = Family::of(network).filter(|_| hints.channels != Some(Channels::Rgb));
    let turned = family.filter(|_| hints.channels.is_none());
    let rewritten = rewrite(network, arrays, turned, hints.size).map_err(unsupported)?;
    let (model, _) = onnx::model(path, &rewritten.model, hints)?;
    let raw = rewritten.preprocess;
    let preprocess = match family {
        Some(family) => family.preprocess(raw),
        None if model.is_preprocess_assumed => raw,
        // The network itself tells what it is given.
        None => {
            let Preprocess { scale, offset, .. } = model.preprocess;
            Preprocess { scale, offset, ..raw }
        }
    };
    let mut notes = model.notes.clone();
    notes.extend(family.map(|family| family.note().to_owned()));
    if rewritten.is_size_assumed {
        notes.push(format!(
            "takes pictures of any size; here {}×{}, or as --input-size says",
            raw.height, raw.width
        ));
    }
    Ok(Imported::Graph(Box::new(FloatModel {
        preprocess,
        is_preprocess_assumed: family.is_none() && model.is_preprocess_assumed,
        notes,
        source: Source::Unread("Keras"),
        ..model
    })))
}

/// Moves what scales pictures from the preprocessing into the network.
pub(super) fn scale_inside(model: &mut FloatModel) {
    let p = &mut model.preprocess;
    let channels = p.channels();
    let op = NodeOp::BatchNorm {
        gamma: p.scale[..channels].to_vec(),
        beta: p.offset[..channels].to_vec(),
        mean: vec![0.0; channels],
        variance: vec![1.0; channels],
        epsilon: 0.0,
    };
    (p.scale, p.offset) = ([1.0; 3], [0.0; 3]);
    let nodes = &mut model.graph.nodes;
    for node in nodes.iter_mut() {
        node.inputs.iter_mut().for_each(|input| *input += 1);
    }
    let shape = nodes[0].shape;
    nodes.insert(1, Node { name: "rescaling".into(), op, inputs: vec![0], shape, quant: None });
}

/// A model's description, where the file has one, and its weights.
fn parts(bytes: Vec<u8>) -> Result<(Option<Object<Value>>, Contents), String> {
    if bytes.starts_with(hdf5::MAGIC) {
        let contents = hdf5::parse(bytes)?;
        let model = contents.model_config.as_deref().map(serde_json::from_str).transpose();
        return Ok((parse("model_config", model)?, contents));
    }
    let mut archive = Archive::open(&bytes)?;
    let model = parse(CONFIG, serde_json::from_slice(&archive.member(CONFIG)?))?;
    let contents = hdf5::parse(archive.member(WEIGHTS)?).map_err(|e| format!("{WEIGHTS}: {e}"))?;
    Ok((Some(model), contents))
}

/// Backbone, head and preprocessing.
type Parts = (Backbone, Option<Task>, Preprocess);

fn image_classifier(class: &str, model: Value) -> Result<Parts, String> {
    #[derive(Deserialize)]
    struct Preprocessor {
        image_converter: Option<Object<Converter>>,
    }
    #[derive(Deserialize)]
    struct Classifier {
        backbone: Object<Value>,
        preprocessor: Option<Object<Preprocessor>>,
        #[serde(flatten)]
        task: Task,
    }
    let model: Classifier = config(class, model)?;
    let preprocess = match model.preprocessor.and_then(|p| p.config.image_converter) {
        Some(converter) => converter.config.preprocess()?,
        None => Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE),
    };
    let Object { class_name, config } = model.backbone;
    Ok((Backbone::read(&class_name, config)?, Some(model.task), preprocess))
}

/// Input, preprocessing, backbone, pooling and head, in this order.
fn around_backbone(network: &Network) -> Result<Parts, String> {
    #[derive(Deserialize)]
    struct Input {
        #[serde(alias = "batch_input_shape")]
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
    let mut preprocess = Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE);
    let (mut backbone, mut pooling, mut task) = (None, None, None);
    let mut dropout = 0.0;
    for (number, layer) in network.layers.iter().enumerate() {
        let follows = layer.inputs().eq(number.checked_sub(1));
        let fits = match layer.class.as_str() {
            "InputLayer" => {
                let Input { batch_shape: (_, height, width, _) } = layer.settings()?;
                let side = |side: Option<u16>| side.unwrap_or(DEFAULT_SIDE);
                preprocess = Preprocess::raw(side(height), side(width));
                backbone.is_none()
            }
            class if class == CONVERTER || backbone::is_one(class, CONVERTER) => {
                preprocess = layer.settings::<Converter>()?.preprocess()?;
                backbone.is_none()
            }
            "Rescaling" => {
                preprocess = layer.settings::<Rescaling>()?.after(preprocess);
                backbone.is_none()
            }
            class if backbone::is_one(class, BACKBONE) => {
                let read = Backbone::read(class, layer.settings()?);
                backbone.replace(read.map_err(|what| layer.misfit(&what))?).is_none()
            }
            "GlobalAveragePooling2D" => pooling.replace(Pooling::Avg).is_none(),
            "GlobalMaxPooling2D" => pooling.replace(Pooling::Max).is_none(),
            "Dropout" => {
                dropout = layer.settings::<Dropout>()?.rate;
                true
            }
            "Dense" => {
                let Dense { units, activation } = layer.settings()?;
                let pooling = pooling.filter(|_| backbone.is_some());
                let (num_classes, num_features) = (units, None);
                let head =
                    |pooling| Task { num_classes, pooling, dropout, activation, num_features };
                let head = pooling.map(head);
                head.is_some_and(|head| task.replace(head).is_none())
            }
            class => is_passed_over(class) || (task.is_some() && is_softmax(layer)),
        };
        if !fits || !follows {
            return Err(layer.misfit(&format!(
                "is not understood here; around a backbone, Rescaling or an image converter, \
                 global pooling and one Dense are expected; {EXPORT}"
            )));
        }
    }
    let backbone = backbone.ok_or("a model without a backbone")?;
    if !preprocess.is_valid() {
        return Err("Rescaling by nothing, or by a number that is no number".into());
    }
    Ok((backbone, task, preprocess))
}

fn is_softmax(layer: &Layer) -> bool {
    layer.class == "Softmax"
        || layer.class == "Activation" && layer.setting("activation").as_str() == Some("softmax")
}

/// An object's configuration; `what` names it in errors.
fn config<T: DeserializeOwned>(what: &str, config: Value) -> Result<T, String> {
    parse(what, serde_json::from_value(config))
}

fn parse<T>(what: &str, parsed: serde_json::Result<T>) -> Result<T, String> {
    parsed.map_err(|e| format!("{what}: {e}"))
}
