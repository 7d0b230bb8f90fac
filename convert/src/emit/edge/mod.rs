//! Writes `.edge` files: lowers an optimized graph to operator records and packed weights.

mod pack;
mod winograd;

use crate::plan::block::Block;
use crate::plan::stripes::{choose, nowhere, record};
use crate::plan::{MemoryPlan, PlanError, plan};
use crate::target::Target;
use artifact::layout::{has_columns, pairs_fit};
use artifact::winograd_i8::{self, largest_sums};
use artifact::writer::{Blob, Contents, write};
use artifact::{
    Affine, ArtifactError, Cast, Clamp, Conv2d, Curve, Dtype, Gate, Lookup, Meta, Op, Place,
    Pool2d, PoolKind, Preprocess, Quant, Requant, Residual, Span,
};
use network::activation::Activation;
use network::graph::{Conv, Graph, GraphError, NodeOp};
use network::model::FloatModel;
use pack::{
    ConvQuants, Packing, affine_float, affine_i8, bytes_of, pack_bias, pack_float, pack_i8,
};

/// What surrounds the graph in the file.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// Class names in index order.
    pub labels: &'a [String],
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Data set it was trained on.
    pub dataset: &'a str,
    /// Accuracy and other figures, as text.
    pub metrics: &'a str,
    /// Panel width NR: 16 for PCs and Pis, 4 for microcontrollers.
    pub nr: usize,
    /// Let 3×3 convolutions be computed by Winograd's algorithm where that is faster: weights of
    /// f32 take four times the space, int8 reserves scratch.
    pub winograd: bool,
    /// Requantize int8 sums with integers, see [`artifact::params`]; microcontrollers always do.
    pub fixed_point: bool,
}

impl<'a> Attributes<'a> {
    /// What is known of `model`, for a target.
    pub fn of(model: &'a FloatModel, target: Target, winograd: bool) -> Self {
        Self {
            labels: &model.labels,
            preprocess: model.preprocess,
            dataset: &model.training.dataset,
            metrics: &model.metrics,
            nr: target.nr(),
            winograd,
            fixed_point: false,
        }
    }
}

/// Number format of the file.
#[derive(Debug, Clone, Copy)]
pub enum Format<'a> {
    /// f32 weights and activations.
    F32,
    /// f16 weights, f32 activations.
    F16,
    /// bf16 weights, f32 activations.
    Bf16,
    /// Int8 with the quantization of each value; what has [`Quant::FLOAT`] is computed in floats,
    /// and casts stand between.
    I8(&'a [Quant]),
}

impl Format<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
            Self::I8(_) => Dtype::I8,
        }
    }

    /// Quantization of the value of node `id`.
    fn quant(self, id: usize) -> Quant {
        match self {
            Self::I8(quants) => quants[id],
            Self::F32 | Self::F16 | Self::Bf16 => Quant::NONE,
        }
    }
}

/// Why a graph cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// An operation that device files do not have.
    #[error("node `{node}`: {op} has no device form")]
    NotLowered {
        /// Node name.
        node: String,
        /// Operation.
        op: &'static str,
    },
    /// A weight does not fit into f16.
    #[error("node `{node}`: weight {value} does not fit into f16; use --quantize int8 or none")]
    HalfOverflow {
        /// Node name.
        node: String,
        /// The weight.
        value: f32,
    },
    /// Scales too far apart for fixed-point arithmetic.
    #[error("node `{node}`: scales are too far apart for int8 arithmetic; use --quantize fp16")]
    Scale {
        /// Node name.
        node: String,
    },
    /// More than 4 GiB of weights.
    #[error("node `{node}`: the weights exceed 2 GiB")]
    TooLarge {
        /// Node name.
        node: String,
    },
    /// No memory plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The graph is inconsistent.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The reader refuses the result.
    #[error("the written model is refused by its own reader: {0}")]
    Artifact(#[from] ArtifactError),
}

/// A file and how its memory was planned.
#[derive(Debug)]
pub struct Emitted {
    /// The file.
    pub bytes: Vec<u8>,
    /// Offsets and live ranges of each node's value.
    pub plan: MemoryPlan,
}

/// Writes an optimized graph; `format` carries one [`Quant`] per node for int8.
///
/// # Errors
/// Operations without a device form, scales or weights out of range, activations too large.
pub fn to_edge(
    graph: &Graph,
    format: Format<'_>,
    attributes: &Attributes<'_>,
) -> Result<Emitted, EmitError> {
    let dtype = |id: usize| place_at(graph, format, id, 0).dtype(format.dtype());
    let dtypes: Vec<Dtype> = (0..graph.nodes.len()).map(dtype).collect();
    let nr = attributes.nr;
    let scratch: Vec<Option<usize>> =
        (0..graph.nodes.len()).map(|id| scratch_bytes(graph, id, dtypes[id], attributes)).collect();
    let plan_with = |stripes: &[Block]| plan(graph, &dtypes, nr, &scratch, stripes);
    let (stripes, plan) = if has_columns(format.dtype(), nr) {
        choose(graph, &dtypes, plan_with)?
    } else {
        (Vec::new(), plan_with(&[])?)
    };
    let mut lowering = Lowering {
        graph,
        format,
        nr,
        fixed_point: attributes.fixed_point || has_columns(Dtype::I8, nr),
        plan: &plan,
        stripes: &stripes,
        blob: Blob::new(),
    };
    let mut ops = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate().filter(|(_, n)| n.op != NodeOp::Input) {
        let fault = |fault| match fault {
            Fault::Scale => EmitError::Scale { node: node.name.clone() },
            Fault::TooLarge => EmitError::TooLarge { node: node.name.clone() },
            Fault::Half(value) => EmitError::HalfOverflow { node: node.name.clone(), value },
            Fault::NotLowered => {
                EmitError::NotLowered { node: node.name.clone(), op: node.op.name() }
            }
        };
        ops.push(lowering.op(id, dtypes[id]).map_err(fault)?);
    }
    let (input, output) = (lowering.place(0), lowering.place(graph.output()));
    let labels: Vec<&str> = attributes.labels.iter().map(String::as_str).collect();
    let bytes = write(Contents {
        dtype: format.dtype(),
        nr,
        arena_len: plan.arena_len,
        meta: Meta {
            name: &graph.name,
            input,
            output,
            preprocess: attributes.preprocess,
            dataset: attributes.dataset,
            metrics: attributes.metrics,
            tool: concat!("edge-resnet ", env!("CARGO_PKG_VERSION")),
            label_count: labels.len() as u32,
        },
        labels: &labels,
        ops: &ops,
        blob: lowering.blob,
    })?;
    Ok(Emitted { bytes, plan })
}

/// The value of node `id` at a place of the arena.
fn place_at(graph: &Graph, format: Format<'_>, id: usize, offset: usize) -> Place {
    Place { offset: offset as u32, shape: graph.nodes[id].shape, quant: format.quant(id) }
}

/// Bytes that node `id` takes beside its value while it runs.
fn scratch_bytes(
    graph: &Graph,
    id: usize,
    dtype: Dtype,
    attributes: &Attributes<'_>,
) -> Option<usize> {
    let node = &graph.nodes[id];
    let NodeOp::Conv2d(conv) = &node.op else { return None };
    let input = graph.nodes[node.inputs[0]].shape;
    let nr = attributes.nr;
    if has_columns(dtype, nr) {
        let record = record(conv, nowhere(input), nowhere(node.shape));
        Some(match record.is_depthwise() {
            true => record.conv.planes().bytes(),
            false => record.conv.filter_layout(record.groups, nr, dtype).column_bytes(),
        })
    } else if attributes.winograd && conv.groups == 1 {
        winograd::scratch(conv, dtype, input, node.shape)
    } else {
        None
    }
}

/// Why a node has no record.
enum Fault {
    Scale,
    TooLarge,
    Half(f32),
    NotLowered,
}

/// The clamp of values with a quantization, which floats' is not.
fn clamp(activation: Activation, quant: Quant, dtype: Dtype) -> Result<Clamp, Fault> {
    let [low, high] = activation.clamp().ok_or(Fault::NotLowered)?;
    match activation {
        Activation::None => return Ok(Clamp::None),
        Activation::RELU => return Ok(Clamp::Relu),
        _ if dtype != Dtype::I8 => return Ok(Clamp::Bounds { low, high }),
        _ => {}
    }
    // Most bounds are the ends of what bytes can say.
    let exact = Clamp::Bounds { low, high };
    let same =
        [Clamp::None, Clamp::Relu].into_iter().find(|c| c.bytes(quant) == exact.bytes(quant));
    Ok(same.unwrap_or(exact))
}

/// The result of a function for each byte.
fn table(curve: Curve, input: Quant, output: Quant) -> Vec<u8> {
    let result = |byte: u8| {
        let x = input.dequantize(byte as i8);
        output.quantize(Activation::Curve(curve).apply(x.into()) as f32) as u8
    };
    (0..=u8::MAX).map(result).collect()
}

/// The fixed-point form of a factor, where it is used.
fn requant(factor: f64, is_used: bool) -> Result<Requant, Fault> {
    match is_used {
        true => Requant::new(factor).ok_or(Fault::Scale),
        false => Ok(Requant { multiplier: 0, shift: 1 }),
    }
}

/// Makes records of nodes, and collects their weights.
struct Lowering<'a> {
    graph: &'a Graph,
    format: Format<'a>,
    nr: usize,
    fixed_point: bool,
    plan: &'a MemoryPlan,
    stripes: &'a [Block],
    blob: Blob,
}

impl Lowering<'_> {
    fn place(&self, id: usize) -> Place {
        place_at(self.graph, self.format, id, self.plan.offsets[id])
    }

    fn push(&mut self, bytes: &[u8]) -> Result<Span, Fault> {
        self.blob.push(bytes).ok_or(Fault::TooLarge)
    }

    /// The record of node `id`, computed in `dtype`.
    fn op(&mut self, id: usize, dtype: Dtype) -> Result<Op, Fault> {
        let node = &self.graph.nodes[id];
        let (input, output) = (self.place(node.inputs[0]), self.place(id));
        match &node.op {
            NodeOp::Conv2d(conv) => self.conv(conv, id, dtype),
            NodeOp::Affine { factor, addend, activation } => {
                let (params, shift) = match dtype {
                    Dtype::I8 => affine_i8(factor, addend, input.quant, output.quant, self.nr)
                        .ok_or(Fault::Scale)?,
                    Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                        (affine_float(factor, addend, self.nr), 1)
                    }
                };
                let params = self.push(&params)?;
                let clamp = clamp(*activation, output.quant, dtype)?;
                Ok(Op::Affine(Affine { input, output, params, shift, clamp }))
            }
            NodeOp::Pool2d { kind, filter, stride, padding } => {
                let full = f64::from(filter[0]) * f64::from(filter[1]);
                let factor = f64::from(input.quant.scale) / (f64::from(output.quant.scale) * full);
                let requant = requant(factor, *kind == PoolKind::Average && dtype == Dtype::I8)?;
                Ok(Op::Pool2d(Pool2d {
                    kind: *kind,
                    input,
                    output,
                    filter: *filter,
                    stride: *stride,
                    padding: *padding,
                    requant,
                }))
            }
            NodeOp::Gate { activation } => {
                let gate = self.place(node.inputs[1]);
                let scale = |place: Place| f64::from(place.quant.scale);
                let factor = scale(input) * scale(gate) / scale(output);
                let requant = requant(factor, dtype == Dtype::I8)?;
                let clamp = clamp(*activation, output.quant, dtype)?;
                Ok(Op::Gate(Gate { input, gate, output, requant, clamp }))
            }
            NodeOp::Activation(Activation::Curve(curve)) => {
                let table = match dtype {
                    Dtype::I8 => table(*curve, input.quant, output.quant),
                    Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Vec::new(),
                };
                let table = self.push(&table)?;
                Ok(Op::Lookup(Lookup { input, output, curve: *curve, table }))
            }
            NodeOp::Cast => Ok(Op::Cast(Cast { input, output })),
            _ => Err(Fault::NotLowered),
        }
    }

    fn conv(&mut self, conv: &Conv, id: usize, dtype: Dtype) -> Result<Op, Fault> {
        let inputs = &self.graph.nodes[id].inputs;
        let (input, output) = (self.place(inputs[0]), self.place(id));
        let residual = conv.residual.then(|| self.place(inputs[1]));
        let fast = self.plan.scratch[id]
            .map(|(offset, len)| Span { offset: offset as u32, len: len as u32 });
        let mut record = record(conv, input, output);
        let is_transformed = fast.is_some() && dtype == Dtype::F32;
        if is_transformed {
            // As many 1×1 filters for each sixteen outputs.
            record.conv.filter = [1; 2];
        }
        let packing =
            Packing { record: &record, nr: self.nr, dtype, fixed_point: self.fixed_point };
        let (weights, params, shift) = match dtype {
            Dtype::I8 => {
                let quants = ConvQuants { input, output, residual };
                pack_i8(conv, packing, quants).ok_or(Fault::Scale)?
            }
            Dtype::F32 if is_transformed => {
                let layout = record.conv.filter_layout(1, self.nr, dtype);
                let weights = winograd::transform(conv, layout);
                (bytes_of(&weights, f32::to_le_bytes), pack_bias(conv, packing), 0)
            }
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                let (weights, params) = pack_float(conv, packing).map_err(Fault::Half)?;
                (weights, params, 0)
            }
        };
        let columns = has_columns(dtype, self.nr);
        // Scratch of a convolution with larger sums stays unused; few have them.
        let panel_len = record.conv.filter_layout(1, self.nr, dtype).panel_len();
        let scratch = fast.filter(|_| {
            dtype != Dtype::I8
                || columns
                || largest_sums(&weights, panel_len).one_sign <= winograd_i8::MAX_SUM
        });
        let block = self.stripes.iter().find(|b| (b.first..=b.last).contains(&id));
        let is_dense = !record.is_depthwise();
        record.conv = Conv2d {
            filter: conv.filter,
            lines: block.map_or(0, |b| b.lines(id)),
            scratch,
            // Not of every model that was quantized elsewhere.
            pairs_fit: dtype == Dtype::I8 && !columns && is_dense && pairs_fit(&weights),
            weights: self.push(&weights)?,
            params: self.push(&params)?,
            residual: residual.map(|input| Residual { input, shift }),
            clamp: clamp(conv.activation, output.quant, dtype)?,
            ..record.conv
        };
        Ok(if conv.groups > 1 { Op::Grouped(record) } else { Op::Conv2d(record.conv) })
    }
}
