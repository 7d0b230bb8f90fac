//! Loading whatever a user calls a model.
//!
//! [`load`] tells what it is given by its contents.

use crate::{
    Channels, Head, Hints, ImportError, foreign, keras, onnx, read, recognize, tflite, torch,
};
use artifact::Shape;
use artifact::text::AsPlain;
use formats::hdf5;
use hub::{Hub, Kind, Reference};
use network::checkpoint::{Checkpoint, Draft, Tensor};
use network::graph::{GraphError, reverse_rgb};
use network::model::{FloatModel, Source};
use page::progress::{Progress, during, is_quiet};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Loads what a user calls a model: a path for [`load`], or a name that [`Reference`]
/// knows, whose model is downloaded first, with progress on the standard error.
///
/// # Errors
/// Those of [`load`], of downloads, and names that are nothing.
pub fn open(name: &Path, head: Head) -> Result<Checkpoint, ImportError> {
    open_any(name, head, &Hints::default())?.with_head(name, head)
}

/// A model as it was found.
#[derive(Debug)]
pub enum Imported {
    /// A network of a family of ours, whose training can go on.
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

    /// What training can go on with: that of a graph is made where it is one of ours.
    ///
    /// # Errors
    /// Other networks, with what does not fit.
    pub fn into_checkpoint(self, path: &Path) -> Result<Checkpoint, ImportError> {
        self.with_head(path, Head::Required)
    }

    /// As [`Self::into_checkpoint`], also without a head.
    fn with_head(self, path: &Path, head: Head) -> Result<Checkpoint, ImportError> {
        match self {
            Self::Checkpoint(checkpoint) => Ok(*checkpoint),
            Self::Graph(model) => recognize::recognize(path, &model, head),
        }
    }

    /// The model after a change of whichever it is.
    fn edit(
        self,
        checkpoint: impl FnOnce(&mut Draft) -> Result<(), String>,
        graph: impl FnOnce(&mut FloatModel) -> Result<(), String>,
    ) -> Result<Self, String> {
        Ok(match self {
            Self::Checkpoint(found) => Self::Checkpoint(Box::new(found.edit(checkpoint)?)),
            Self::Graph(mut model) => {
                graph(&mut model)?;
                Self::Graph(model)
            }
        })
    }

    /// Makes a network that takes colors in the opposite order one that takes them as they come.
    fn reverse_channels(self) -> Result<Self, String> {
        self.edit(
            |draft| {
                let blueprint = draft.config.blueprint();
                let stem = blueprint.convs().next().map(|(layer, _)| layer.name.as_str());
                let name = format!("{}.weight", stem.unwrap_or_default());
                let first = draft.tensors.get_mut(&name).ok_or("without a first layer")?;
                let mut weights = first.to_f32();
                reverse_rgb(&mut weights, first.shape.last().copied().unwrap_or(0))?;
                *first = Tensor::from_f32(&first.shape, &weights);
                draft.samples.clear();
                Ok(())
            },
            |model| {
                if let Source::Onnx(source) = &mut model.source {
                    source.is_reversed = true;
                }
                model.graph.reverse_channels()
            },
        )
    }

    /// Makes the input `side` pixels high and wide. A graph has the size that its file says.
    fn resize(self, side: u16) -> Result<Self, String> {
        self.edit(
            |draft| {
                draft.assumed.retain(|a| a.option != Hints::SIZE);
                let p = &mut draft.preprocess;
                if (p.height, p.width) != (side, side) {
                    (p.height, p.width) = (side, side);
                    // They have the old size.
                    draft.samples.clear();
                }
                Ok(())
            },
            |model| {
                let Shape { h, w, .. } = model.graph.input_shape();
                if h == side || w == side {
                    return Ok(());
                }
                Err(format!(
                    "its input has {h}×{w} pixels, which --input-size {side} cannot change; export it \
                     with open sides or with others"
                ))
            },
        )
    }
}

/// As [`open`], also of networks that are converted, but not trained.
///
/// # Errors
/// Those of [`open`], and files with operators that are not read.
pub fn open_any(name: &Path, head: Head, hints: &Hints) -> Result<Imported, ImportError> {
    let (mut err, mut nobody) = (page::terminal::stderr(), std::io::sink());
    let terminal = std::io::stderr().is_terminal();
    let out: &mut dyn Write = if is_quiet() { &mut nobody } else { &mut err };
    fetch(&Hub::from_env(), name, head, hints, &mut Progress::new(out, terminal))
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
    fetch(hub, name, head, &Hints::default(), progress)?.with_head(name, head)
}

fn fetch(
    hub: &Hub,
    name: &Path,
    head: Head,
    hints: &Hints,
    progress: &mut Progress<'_>,
) -> Result<Imported, ImportError> {
    let Some(reference) = Reference::of(name)? else { return import(name, head, hints) };
    let imported = import(&hub.fetch(&reference, progress)?, head, hints)?;
    // The cache's folder has the name of a commit or a version.
    let named = |place: &mut String| {
        reference.model_name().clone_into(place);
        Ok(())
    };
    imported
        .edit(|draft| named(&mut draft.config.name), |model| named(&mut model.graph.name))
        .map_err(|what| ImportError::unsupported(name, what))
}

/// Loads a model: our `.mpk`, a KerasHub preset directory, a saved Keras model (`.keras`,
/// `.h5`), a directory of timm, a PyTorch state dict, or one in Burn's `.bpk`.
///
/// # Errors
/// Unreadable files, unknown kinds, and weights that do not fit their architecture.
pub fn load(path: &Path, head: Head) -> Result<Checkpoint, ImportError> {
    import(path, head, &Hints::default())?.with_head(path, head)
}

fn import(path: &Path, head: Head, hints: &Hints) -> Result<Imported, ImportError> {
    let what = format!("reading {}", path.display().to_string().plain());
    let mut imported = during(what, || read_any(path, head, hints))?;
    if let Some(side) = hints.size {
        imported = imported.resize(side).map_err(|what| ImportError::unsupported(path, what))?;
    }
    if let (Imported::Checkpoint(_), Some(name)) = (&imported, &hints.output_node) {
        let what = format!("--output-node {}: it has but one output", name.plain());
        return Err(ImportError::unsupported(path, what));
    }
    if hints.channels == Some(Channels::Bgr) {
        imported = imported
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
            Some(Kind::Timm) => torch::timm::folder(path, head, hints).map(trainable),
            Some(Kind::Transformers) => {
                torch::transformers::folder(path, head, hints).map(trainable)
            }
            Some(Kind::Keras) => keras::folder(path, head, hints),
            None => match foreign::folder(path) {
                Some(what) if !keras::is_folder(path) => Err(ImportError::unsupported(path, what)),
                // It is told what it lacks as a preset.
                _ => keras::folder(path, head, hints),
            },
        };
    }
    let bytes = read(path).map_err(|error| match foreign::too_long(path, &error) {
        Some(what) => ImportError::unsupported(path, what),
        None => error,
    })?;
    let is_state_dict = bytes.starts_with(torch::burnpack::MAGIC)
        || torch::is_one(&bytes) && !keras::is_saved(&bytes);
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
    } else if bytes.starts_with(torch::burnpack::MAGIC) {
        trainable(torch::burnpack::burnpack(path, &bytes, head, hints)?)
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
