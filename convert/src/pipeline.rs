//! Model → optimized graph → calibration → device file.

use crate::checkpoint::Sample;
use crate::data::fit;
use crate::emit::edge::{EmitError, Emitted, Format, input_quant, to_edge};
use crate::graph::{Graph, GraphError, Node, NodeOp, ValueId};
use crate::model::FloatModel;
use crate::optimize::optimize;
use crate::quantize::{
    Method, PostTraining, QuantizeError, Quantized, insert_casts, left_in_floats, quantize,
    without_quants,
};
use artifact::{PoolKind, Preprocess};
use std::io::Cursor;

/// Number format of the device file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantize {
    /// Int8 weights and activations.
    #[default]
    Int8,
    /// f16 weights, f32 activations.
    Fp16,
    /// bf16 weights, f32 activations.
    Bf16,
    /// f32.
    None,
}

/// Where the model will run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Target {
    /// PC or Raspberry Pi: panels of 16 output channels.
    #[default]
    Host,
    /// Microcontroller: panels of 4.
    CortexM,
}

impl Target {
    /// Panel width NR.
    pub const fn nr(self) -> usize {
        match self {
            Self::Host => 16,
            Self::CortexM => 4,
        }
    }
}

/// What to make of a model.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Number format.
    pub quantize: Quantize,
    /// Device class.
    pub target: Target,
    /// Choice of int8 ranges.
    pub method: Method,
    /// Round int8 weights so that outputs change least, not weights.
    pub adaptive_rounding: bool,
    /// Compute convolutions directly, never by Winograd's algorithm.
    pub direct: bool,
}

impl Options {
    /// Whether convolutions may be computed by Winograd's algorithm.
    fn winograd(&self) -> bool {
        !self.direct && self.target == Target::Host
    }
}

/// The device file and what it was made from.
#[derive(Debug)]
pub struct Converted {
    /// The file and its memory plan.
    pub emitted: Emitted,
    /// The optimized float graph.
    pub graph: Graph,
    /// The same model as an f32 device file: the yardstick of the others.
    pub float: Emitted,
    /// The int8 network; `None` unless int8.
    pub int8: Option<Quantized>,
    /// Number format of the file.
    pub quantize: Quantize,
}

impl Converted {
    /// Whether some layers of an int8 network are computed in floats.
    pub(crate) fn has_floats(&self) -> bool {
        self.int8.as_ref().is_some_and(|int8| int8.quants.iter().any(|q| q.is_float()))
    }

    /// Name of the file's number format.
    pub(crate) fn format(&self) -> &'static str {
        match self.quantize {
            Quantize::Int8 if self.has_floats() => "int8 with floats",
            Quantize::Int8 => "int8",
            Quantize::Fp16 => "fp16",
            Quantize::Bf16 => "bf16",
            Quantize::None => "f32",
        }
    }
}

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The graph cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The graph cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// The file cannot be written.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// A stored calibration sample is not a picture of the model's size.
    #[error(
        "calibration sample {index} in the checkpoint is damaged ({what}); pass --calibration DIR"
    )]
    Sample {
        /// Index of the sample.
        index: usize,
        /// What is wrong.
        what: String,
    },
}

/// `x · scale + offset` of a picture's bytes, NHWC.
pub fn normalize(pixels: &[u8], p: &Preprocess) -> Vec<f32> {
    let channels = (0..p.channels()).cycle();
    pixels.iter().zip(channels).map(|(v, c)| f32::from(*v) * p.scale[c] + p.offset[c]).collect()
}

/// Bytes of a normalized picture, the inverse of [`normalize`].
pub fn denormalize(picture: &[f32], p: &Preprocess) -> Vec<u8> {
    let channels = (0..p.channels()).cycle();
    let byte = |(v, c): (&f32, usize)| ((v - p.offset[c]) / p.scale[c]).round() as u8;
    picture.iter().zip(channels).map(byte).collect()
}

/// The calibration inputs stored in a checkpoint, normalized.
///
/// # Errors
/// A sample that cannot be decoded or has another size.
pub fn stored_samples(samples: &[Sample], p: &Preprocess) -> Result<Vec<Vec<f32>>, ConvertError> {
    let decode = |(index, sample): (usize, &Sample)| {
        let pixels = sample_pixels(sample, p);
        Ok(normalize(&pixels.map_err(|what| ConvertError::Sample { index, what })?, p))
    };
    samples.iter().enumerate().map(decode).collect()
}

/// The pixels of a stored picture, `[p.height, p.width, p.channels()]`.
///
/// # Errors
/// A sample that cannot be decoded or has another size.
pub(crate) fn sample_pixels(sample: &Sample, p: &Preprocess) -> Result<Vec<u8>, String> {
    let picture = picture::decode(Cursor::new(&sample.png)).map_err(|e| e.to_string())?;
    let view = picture.view().map_err(|e| e.to_string())?;
    let (found, wanted) = ((view.width(), view.height()), (p.width.into(), p.height.into()));
    if found != wanted {
        return Err(format!("size {found:?}, expected {wanted:?}"));
    }
    // Of the right size already, so only the pixels' order is settled here.
    fit(view, p).map_err(|e| e.to_string())
}

/// A max-pool only selects, so that its values are stored as those it reads, whatever a quantized
/// source says of them. Where it says nothing of these, and nothing else reads them, the other way round.
fn inherit_quants(graph: &mut Graph) {
    let is_max = |node: &Node| matches!(node.op, NodeOp::Pool2d { kind: PoolKind::Max, .. });
    let uses = graph.uses();
    let pools: Vec<ValueId> =
        (0..graph.nodes.len()).filter(|&id| is_max(&graph.nodes[id])).collect();
    for &id in pools.iter().rev() {
        let (input, quant) = (graph.nodes[id].inputs[0], graph.nodes[id].quant);
        if uses[input] == 1 {
            graph.nodes[input].quant = graph.nodes[input].quant.or(quant);
        }
    }
    for &id in &pools {
        graph.nodes[id].quant = graph.nodes[graph.nodes[id].inputs[0]].quant;
    }
}

/// Converts a model; `calibration` holds normalized inputs and is used for int8 only.
///
/// # Errors
/// A graph that cannot be built or written, or calibration that cannot run.
pub fn convert(
    model: &FloatModel,
    calibration: &[Vec<f32>],
    options: Options,
    progress: impl FnMut(usize, usize),
) -> Result<Converted, ConvertError> {
    let mut graph = model.graph.clone();
    optimize(&mut graph);
    inherit_quants(&mut graph);
    let attributes = model.attributes(options.target, options.winograd());
    let host = model.attributes(Target::Host, false);
    let mut float = to_edge(&graph, Format::F32, &host)?;
    let mut int8 = None;
    let emitted = match options.quantize {
        Quantize::None => to_edge(&graph, Format::F32, &attributes)?,
        Quantize::Fp16 => to_edge(&graph, Format::F16, &attributes)?,
        Quantize::Bf16 => to_edge(&graph, Format::Bf16, &attributes)?,
        Quantize::Int8 => {
            if graph.nodes[0].quant.is_none() && !model.is_preprocess_assumed {
                graph.nodes[0].quant = Some(input_quant(&model.preprocess));
            }
            let is_decided = graph.nodes.iter().all(|n| n.quant.is_some());
            let quantized = match left_in_floats(&graph) {
                // What a source has left in floats stays so unless there is something to measure.
                Some(floats) if calibration.is_empty() && floats.contains(&true) => {
                    graph = insert_casts(&graph, &floats).graph;
                    float = to_edge(&graph, Format::F32, &host)?;
                    Quantized::decided(&graph)
                }
                _ if is_decided => Quantized::decided(&graph),
                _ => {
                    let source = PostTraining {
                        graph: &graph,
                        float: &float.bytes,
                        input: input_quant(&model.preprocess),
                        method: options.method,
                        adaptive_rounding: options.adaptive_rounding,
                        pictures: calibration,
                        attributes: &host,
                    };
                    quantize(&source, progress)?
                }
            };
            let quantized = int8.insert(quantized);
            to_edge(&quantized.graph, Format::I8(&quantized.quants), &attributes)?
        }
    };
    Ok(Converted { emitted, graph, float, int8, quantize: options.quantize })
}

/// An int8 network, as [`convert`] made it of `graph`, with some nodes computed in floats: those
/// that `floats` names.
///
/// # Errors
/// A weight that f16 does not hold.
pub fn with_floats(
    graph: &Graph,
    int8: &Quantized,
    floats: &[ValueId],
    model: &FloatModel,
    options: Options,
) -> Result<Converted, ConvertError> {
    let chosen: Vec<bool> = (0..graph.nodes.len()).map(|id| floats.contains(&id)).collect();
    let int8 = int8.with_floats(graph, &chosen);
    let graph = insert_casts(&without_quants(graph, &chosen), &chosen).graph;
    let float = to_edge(&graph, Format::F32, &model.attributes(Target::Host, false))?;
    let attributes = model.attributes(options.target, options.winograd());
    let emitted = to_edge(&int8.graph, Format::I8(&int8.quants), &attributes)?;
    Ok(Converted { emitted, graph, float, int8: Some(int8), quantize: Quantize::Int8 })
}
