//! A float model, wherever it came from.

use crate::checkpoint::{Checkpoint, Sample, TrainingRecord};
use crate::graph::{Graph, GraphError};
use crate::imagenet;
use artifact::Preprocess;
use std::path::PathBuf;

/// A network and what belongs to it; what is converted.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatModel {
    /// The network, layer by layer.
    pub graph: Graph,
    /// Class names in index order.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Whether the file said nothing of [`Self::preprocess`].
    pub is_preprocess_assumed: bool,
    /// What was taken for granted of the file, and what the user should know of it.
    pub notes: Vec<String>,
    /// What it was read from.
    pub source: Source,
    /// Pictures for calibration.
    pub samples: Vec<Sample>,
    /// How it was trained; empty where nobody knows.
    pub training: TrainingRecord,
    /// What was measured of it; empty where nothing was.
    pub metrics: String,
}

/// What a graph was read from, which another engine may compare it with.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Source {
    /// A checkpoint, whose layers are known by name.
    #[default]
    Own,
    /// An ONNX file.
    Onnx(OnnxSource),
    /// A file of a format that no other engine here reads.
    Unread(&'static str),
}

/// An ONNX file, and how its numbers compare with those of the graph that was read from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OnnxSource {
    /// The file.
    pub bytes: std::sync::Arc<[u8]>,
    /// The folder of files that it names.
    pub folder: PathBuf,
    /// Number of the input's format (`TensorProto.DataType`).
    pub input_type: i32,
    /// The input's dimensions, of one picture.
    pub input_dims: Vec<usize>,
    /// Whether channels come before rows and columns.
    pub is_nchw: bool,
    /// Whether its channels are in the opposite order.
    pub is_reversed: bool,
    /// Whether some of its numbers have 16 bits.
    pub is_half: bool,
    /// The value of the file that the graph's scores are: what its softmax reads, where it has one.
    pub scores: String,
}

impl FloatModel {
    /// A network of which nothing else is known: classes without names, values 0..=255 as they are.
    pub fn new(graph: Graph) -> Self {
        let (input, output) = (graph.input_shape(), graph.nodes[graph.output()].shape);
        Self {
            labels: imagenet::labels_of(output.c.into()),
            preprocess: Preprocess { grey: input.c == 1, ..Preprocess::raw(input.h, input.w) },
            is_preprocess_assumed: true,
            notes: Vec::new(),
            source: Source::Own,
            samples: Vec::new(),
            training: TrainingRecord::default(),
            metrics: String::new(),
            graph,
        }
    }

    /// The model of a checkpoint.
    ///
    /// # Errors
    /// Those of [`Checkpoint::graph`].
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, GraphError> {
        // The last epoch recorded is the one whose weights these are.
        let accuracy = checkpoint.training.epochs.last().and_then(|e| e.val_accuracy);
        Ok(Self {
            labels: checkpoint.labels.clone(),
            preprocess: checkpoint.preprocess,
            is_preprocess_assumed: false,
            notes: Vec::new(),
            source: Source::Own,
            samples: checkpoint.samples.clone(),
            training: checkpoint.training.clone(),
            metrics: accuracy
                .map_or(String::new(), |a| format!("float validation top-1 {:.2} %", a * 100.0)),
            graph: checkpoint.graph()?,
        })
    }
}
