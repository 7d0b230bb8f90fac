//! Models of Keras: KerasHub preset directories (`config.json`, `task.json`,
//! `image_converter.json` and HDF5 weights, whole or sharded) and saved models (`.keras`, `.h5`) of
//! KerasHub, Keras Applications or plain layers.
//!
//! Keras numbers the layers of a class (`conv2d`, `conv2d_1`, …) in an order of its own, which
//! `weights::layer_order` reproduces; newer files also carry the layers' names, which win.

mod applications;
mod arithmetic;
mod arrays;
mod backbone;
mod config;
mod layers;
mod mobile;
#[cfg(test)]
mod mobile_tests;
mod names;
mod passed_over;
mod pictures;
mod rewrite;
mod saved;
#[cfg(test)]
mod tests;
pub mod weights;
mod windows;
mod write;
mod writer;

pub(crate) use saved::{is_saved, saved};
use weights::Places;
pub use write::{PresetError, to_preset};

use crate::assemble::{add_head, assemble, draft, fold_epsilon};
use crate::{Head, Hints, ImportError, Imported, json, read};
use artifact::Preprocess;
use artifact::text::AsPlain;
use backbone::Backbone;
use config::{Converter, DEFAULT_SIDE, Object, Task};
use formats::hdf5::{self, Contents};
use hub::shards;
use network::checkpoint::Checkpoint;
use network::imagenet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Whether a folder has Keras' description of a model.
pub(crate) fn is_folder(dir: &Path) -> bool {
    json::<Object<serde_json::Value>>(&dir.join("config.json")).is_ok()
}

/// Reads a folder: a preset, or what a `.keras` file has in it, as Keras stores it on Hugging Face.
pub(crate) fn folder(dir: &Path, head: Head, hints: &Hints) -> Result<Imported, ImportError> {
    let config = dir.join("config.json");
    let model: Option<Object<serde_json::Value>> = json(&config).ok();
    match model.filter(|model| saved::is_whole(&model.class_name)) {
        Some(model) => {
            let contents = read_hdf5(&dir.join("model.weights.h5"))?;
            saved::import(dir, Some(model), contents, head, hints)
        }
        None => preset(dir, head).map(|checkpoint| Imported::Checkpoint(Box::new(checkpoint))),
    }
}

/// Reads a preset directory, as `save_to_preset` writes it and the hubs store it.
pub(crate) fn preset(dir: &Path, head: Head) -> Result<Checkpoint, ImportError> {
    let config_path = dir.join("config.json");
    if !config_path.is_file() {
        return Err(ImportError::unsupported(
            dir,
            "a folder without config.json; a KerasHub preset has config.json and model.weights.h5",
        ));
    }
    let kind: Object<serde_json::Value> = json(&config_path)?;
    if !backbone::is_one(&kind.class_name, BACKBONE) {
        let (class, read) = (kind.class_name.plain(), backbone::classes(BACKBONE));
        let what = format!("a {class}, but of KerasHub's networks {read} are imported; {EXPORT}");
        return Err(ImportError::unsupported(&config_path, what));
    }
    let backbone = Backbone::read(&kind.class_name, kind.config)
        .map_err(|what| ImportError::unsupported(&config_path, what))?;
    let task_path = dir.join("task.json");
    let task: Option<Object<Task>> =
        if task_path.is_file() { Some(json(&task_path)?) } else { None };
    let converter_path = dir.join("image_converter.json");
    let preprocess = if converter_path.is_file() {
        let converter: Object<Converter> = json(&converter_path)?;
        let p = converter.config.preprocess();
        p.map_err(|what| ImportError::unsupported(&converter_path, what))?
    } else {
        Preprocess::raw(DEFAULT_SIDE, DEFAULT_SIDE)
    };
    let preprocess = backbone.sized(preprocess);
    let mut weights = Vec::new();
    for file in weight_files(dir)? {
        weights.push(read_hdf5(&file)?);
    }
    let task_weights = dir.join("task.weights.h5");
    if task.is_some() && task_weights.is_file() {
        weights.push(read_hdf5(&task_weights)?);
    }
    let name = dir.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).unwrap_or_default();
    let classifier = Classifier {
        name: name.to_string_lossy().into_owned(),
        backbone,
        task: task.map(|t| t.config),
        preprocess,
        weights,
    };
    classifier.checkpoint(dir, head)
}

/// How classes of backbones end.
const BACKBONE: &str = "Backbone";

/// The way out where a model is not understood.
const EXPORT: &str = "in Keras, model.export(\"model.onnx\", format=\"onnx\") writes a file that \
                      `convert` may read";

/// What a preset or a saved model says of a classifier.
struct Classifier {
    name: String,
    backbone: Backbone,
    /// The head, if there is one.
    task: Option<Task>,
    preprocess: Preprocess,
    weights: Vec<Contents>,
}

impl Classifier {
    fn checkpoint(self, path: &Path, head: Head) -> Result<Checkpoint, ImportError> {
        let unsupported = |what: String| ImportError::unsupported(path, what);
        if self.task.is_none() && head == Head::Required {
            return Err(unsupported(
                "a backbone without a head (no task.json); fine-tune it to some classes first"
                    .into(),
            ));
        }
        let config = self.backbone.network(self.name, self.task.as_ref()).map_err(unsupported)?;
        let places = Places::of(&config, &self.backbone);
        let mut found = BTreeMap::new();
        let mut extra = Vec::new();
        for contents in self.weights {
            weights::collect(contents, &places, &mut found, &mut extra);
        }
        fold_epsilon(&mut found, self.backbone.epsilon);
        weights::dequantize_head(&mut found);
        if self.task.is_none() {
            add_head(&config, &mut found);
        }
        let tensors = assemble(path, &config, found, extra)?;
        let labels = imagenet::labels_of(config.classes);
        draft(config, labels, self.preprocess, tensors).check().map_err(unsupported)
    }
}

/// The backbone's weight files: one, or the shards that `model.weights.json` names.
fn weight_files(dir: &Path) -> Result<BTreeSet<PathBuf>, ImportError> {
    let whole = dir.join("model.weights.h5");
    let index = dir.join("model.weights.json");
    if whole.is_file() || !index.is_file() {
        return Ok([whole].into());
    }
    let names = shards(&index).map_err(|what| ImportError::unsupported(dir, what))?;
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn read_hdf5(path: &Path) -> Result<Contents, ImportError> {
    hdf5::parse(read(path)?).map_err(|what| ImportError::unsupported(path, what))
}
