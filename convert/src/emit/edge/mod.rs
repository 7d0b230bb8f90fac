//! Writes `.edge` files: lowers an optimized graph to operator records and packed weights.

mod winograd;

use crate::plan::stripes::{Block, choose};
use crate::plan::{MemoryPlan, PlanError, plan};
use crate::target::Target;
use artifact::layout::{
    AFFINE_PLANES, ConvPlane, FilterLayout, conv_planes, has_columns, pairs_fit,
};
use artifact::winograd_i8::{self, largest_sum};
use artifact::writer::{Blob, Contents, write};
use artifact::{
    Affine, ArtifactError, Cast, Conv2d, Dtype, MAX_RESIDUAL_FACTOR, Meta, Op, Place, Pool2d,
    PoolKind, Preprocess, Quant, Requant, Residual, Shape, Span,
};
use network::activation::Activation;
use network::graph::{Conv, Graph, GraphError, NodeOp};
use network::int8::{quantize_at_scale, quantize_channel};
use network::model::FloatModel;
use rayon::prelude::*;

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
    #[error("node `{node}`: {op}, which has no device form; write .onnx for other programs")]
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

/// Whether a node clamps at zero, which is all that device files have kernels for.
fn relu(node: &network::graph::Node, activation: Activation) -> Result<bool, EmitError> {
    match activation {
        Activation::None => Ok(false),
        Activation::RELU => Ok(true),
        Activation::Clamp { .. } => {
            Err(EmitError::NotLowered { node: node.name.clone(), op: activation.name() })
        }
    }
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
    let place_at = |id: usize, offset: usize| Place {
        offset: offset as u32,
        shape: graph.nodes[id].shape,
        quant: format.quant(id),
    };
    let dtypes: Vec<Dtype> =
        (0..graph.nodes.len()).map(|id| place_at(id, 0).dtype(format.dtype())).collect();
    let scratch: Vec<Option<usize>> = (graph.nodes.iter().zip(&dtypes))
        .map(|(node, &dtype)| match &node.op {
            NodeOp::Conv2d(conv) => {
                let input = graph.nodes[node.inputs[0]].shape;
                if has_columns(dtype, attributes.nr) {
                    Some(
                        filter_layout(conv, input, node.shape, dtype, attributes.nr).column_bytes(),
                    )
                } else if attributes.winograd {
                    winograd::scratch(conv, dtype, input, node.shape)
                } else {
                    None
                }
            }
            _ => None,
        })
        .collect();
    let plan_with = |stripes: &[Block]| plan(graph, &dtypes, attributes.nr, &scratch, stripes);
    let (stripes, plan) = if has_columns(format.dtype(), attributes.nr) {
        choose(graph, &dtypes, plan_with)?
    } else {
        (Vec::new(), plan_with(&[])?)
    };
    let lines = |id: usize| {
        let block = stripes.iter().find(|b| (b.first..=b.last).contains(&id));
        block.map_or(0, |b| b.lines(id))
    };
    let place = |id: usize| place_at(id, plan.offsets[id]);
    let mut blob = Blob::new();
    let mut ops = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let (output, dtype) = (place(id), dtypes[id]);
        let scale_error = || EmitError::Scale { node: node.name.clone() };
        let too_large = || EmitError::TooLarge { node: node.name.clone() };
        match &node.op {
            NodeOp::Input => {}
            NodeOp::Conv2d(conv) if conv.groups == 1 => {
                let input = place(node.inputs[0]);
                let residual = conv.residual.then(|| place(node.inputs[1]));
                let fast = plan.scratch[id]
                    .map(|(offset, len)| Span { offset: offset as u32, len: len as u32 });
                let is_transformed = fast.is_some() && dtype == Dtype::F32;
                let [kh, kw] = if is_transformed { [1, 1] } else { conv.filter };
                let layout = FilterLayout {
                    kh: kh.into(),
                    kw: kw.into(),
                    ..filter_layout(conv, input.shape, output.shape, dtype, attributes.nr)
                };
                let (weights, params, shift) = match dtype {
                    Dtype::I8 => {
                        let quants = ConvQuants { input, output, residual };
                        pack_i8(conv, layout, quants).ok_or_else(scale_error)?
                    }
                    Dtype::F32 if is_transformed => {
                        let weights = winograd::transform(conv, layout);
                        (bytes_of(&weights, f32::to_le_bytes), pack_bias(conv, layout), 0)
                    }
                    Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                        let (w, p) = pack_float(conv, layout).map_err(|value| {
                            EmitError::HalfOverflow { node: node.name.clone(), value }
                        })?;
                        (w, p, 0)
                    }
                };
                // Scratch of a convolution with larger sums stays unused; few have them.
                let fast = fast.filter(|_| {
                    dtype != Dtype::I8
                        || has_columns(dtype, attributes.nr)
                        || largest_sum(&weights, layout.panel_len()) <= winograd_i8::MAX_SUM
                });
                ops.push(Op::Conv2d(Conv2d {
                    input,
                    output,
                    filter: conv.filter,
                    stride: conv.stride,
                    padding: conv.padding,
                    lines: lines(id),
                    scratch: fast,
                    // Not of every model that was quantized elsewhere.
                    pairs_fit: dtype == Dtype::I8
                        && !has_columns(dtype, attributes.nr)
                        && pairs_fit(&weights),
                    weights: blob.push(&weights).ok_or_else(too_large)?,
                    params: blob.push(&params).ok_or_else(too_large)?,
                    residual: residual.map(|input| Residual { input, shift }),
                    relu: relu(node, conv.activation)?,
                }));
            }
            NodeOp::Affine { factor, addend, activation } => {
                let input = place(node.inputs[0]);
                let (params, shift) = match dtype {
                    Dtype::I8 => {
                        affine_i8(factor, addend, input.quant, output.quant, attributes.nr)
                            .ok_or_else(scale_error)?
                    }
                    Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                        (affine_float(factor, addend, attributes.nr), 1)
                    }
                };
                let params = blob.push(&params).ok_or_else(too_large)?;
                ops.push(Op::Affine(Affine {
                    input,
                    output,
                    params,
                    shift,
                    relu: relu(node, *activation)?,
                }));
            }
            NodeOp::Pool2d { kind, filter, stride, padding } => {
                let input = place(node.inputs[0]);
                let full = f64::from(filter[0]) * f64::from(filter[1]);
                let factor = f64::from(input.quant.scale) / (f64::from(output.quant.scale) * full);
                let requant = match kind {
                    PoolKind::Average if dtype == Dtype::I8 => {
                        Requant::new(factor).ok_or_else(scale_error)?
                    }
                    PoolKind::Average | PoolKind::Max => Requant { multiplier: 0, shift: 1 },
                };
                ops.push(Op::Pool2d(Pool2d {
                    kind: *kind,
                    input,
                    output,
                    filter: *filter,
                    stride: *stride,
                    padding: *padding,
                    requant,
                }));
            }
            NodeOp::Cast => ops.push(Op::Cast(Cast { input: place(node.inputs[0]), output })),
            NodeOp::Conv2d(_) | NodeOp::BatchNorm { .. } | NodeOp::Activation(_) | NodeOp::Add => {
                return Err(EmitError::NotLowered { node: node.name.clone(), op: node.op.name() });
            }
        }
    }
    let labels: Vec<&str> = attributes.labels.iter().map(String::as_str).collect();
    let bytes = write(Contents {
        dtype: format.dtype(),
        nr: attributes.nr,
        arena_len: plan.arena_len,
        meta: Meta {
            name: &graph.name,
            input: place(0),
            output: place(graph.output()),
            preprocess: attributes.preprocess,
            dataset: attributes.dataset,
            metrics: attributes.metrics,
            tool: concat!("edge-resnet ", env!("CARGO_PKG_VERSION")),
            label_count: labels.len() as u32,
        },
        labels: &labels,
        ops: &ops,
        blob,
    })?;
    Ok(Emitted { bytes, plan })
}

fn filter_layout(
    conv: &Conv,
    input: Shape,
    output: Shape,
    dtype: Dtype,
    nr: usize,
) -> FilterLayout {
    FilterLayout {
        kh: conv.filter[0].into(),
        kw: conv.filter[1].into(),
        c_in: input.c.into(),
        c_out: output.c.into(),
        nr,
        dtype,
    }
}

/// As PCs have int8 weights; microcontrollers have the same numbers.
pub(crate) fn int8_layout(conv: &Conv, input: Shape, output: Shape) -> FilterLayout {
    filter_layout(conv, input, output, Dtype::I8, 16)
}

/// Calls `f(index in OHWI, index in the packed layout)` for every weight.
fn for_each_weight(l: FilterLayout, mut f: impl FnMut(usize, usize)) {
    for o in 0..l.c_out {
        for y in 0..l.kh {
            for x in 0..l.kw {
                for c in 0..l.c_in {
                    f(((o * l.kh + y) * l.kw + x) * l.c_in + c, l.index(o, y, x, c));
                }
            }
        }
    }
}

/// Packed weights and biases; the error is a weight that 16 bits cannot hold.
fn pack_float(conv: &Conv, layout: FilterLayout) -> Result<(Vec<u8>, Vec<u8>), f32> {
    let mut packed = vec![0f32; layout.len()];
    for_each_weight(layout, |from, to| packed[to] = conv.weights[from]);
    let halves = |half: fn(f32) -> Option<[u8; 2]>| {
        let halves: Result<Vec<_>, f32> = packed.iter().map(|&w| half(w).ok_or(w)).collect();
        halves.map(|h| h.concat())
    };
    let weights = match layout.dtype {
        Dtype::F16 => halves(|w| {
            Some(half::f16::from_f32(w)).filter(|h| h.is_finite()).map(half::f16::to_le_bytes)
        })?,
        Dtype::Bf16 => halves(|w| {
            Some(half::bf16::from_f32(w)).filter(|h| h.is_finite()).map(half::bf16::to_le_bytes)
        })?,
        Dtype::F32 | Dtype::I8 => bytes_of(&packed, f32::to_le_bytes),
    };
    Ok((weights, pack_bias(conv, layout)))
}

fn pack_bias(conv: &Conv, layout: FilterLayout) -> Vec<u8> {
    let mut bias = conv.bias.clone();
    bias.resize(layout.panels() * layout.nr, 0.0);
    bytes_of(&bias, f32::to_le_bytes)
}

fn bytes_of<T: Copy>(values: &[T], to_bytes: fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|v| to_bytes(*v)).collect()
}

/// Quantization of a convolution's operands.
struct ConvQuants {
    input: Place,
    output: Place,
    residual: Option<Place>,
}

/// A convolution's weights as int8, OHWI, and the size of a step for each output.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Weights {
    /// Weights, channel by channel.
    pub values: Vec<i8>,
    /// Step of each channel.
    pub scales: Vec<f32>,
}

/// Quantizes weights, `run` of which lie side by side once packed.
fn int8_weights(
    conv: &Conv,
    run: usize,
    input: Quant,
    output: Quant,
    residual: Option<Quant>,
) -> Int8Weights {
    let per_output = conv.row_len();
    let in_scale = f64::from(input.scale);
    let residual_scale = residual.map_or(0.0, |r| f64::from(r.scale));
    let channels = conv.weights.par_chunks_exact(per_output).zip(&conv.bias).enumerate();
    let channels = channels.map(|(o, (weights, bias))| {
        // The accumulator's unit is in_scale · scale: coarse enough for bias and residual,
        // and not so fine that the output's multiplier underflows.
        let unit = (f64::from(bias.abs()) / MAX_BIAS)
            .max(residual_scale / MAX_RATIO)
            .max(f64::from(output.scale) * (2.0f64).powi(-31));
        let least = (unit / in_scale) as f32 * 1.001;
        match conv.weight_scales.get(o) {
            Some(&scale) if scale >= least => (quantize_at_scale(weights, scale), scale),
            _ => quantize_channel(weights, run, least),
        }
    });
    let (values, scales): (Vec<Vec<i8>>, Vec<f32>) = channels.unzip();
    Int8Weights { values: values.concat(), scales }
}

/// Those of convolution `conv` at node `id` of an optimized graph.
pub fn int8_weights_of(graph: &Graph, id: usize, conv: &Conv, quants: &[Quant]) -> Int8Weights {
    let node = &graph.nodes[id];
    let x = node.inputs[0];
    let run = int8_layout(conv, graph.nodes[x].shape, node.shape).taps().1;
    let residual = node.inputs.get(1).map(|&r| quants[r]);
    int8_weights(conv, run, quants[x], quants[id], residual)
}

/// Largest residual factor before its fixed-point shift, and largest bias: together with the
/// products they stay in an i32 (the reader checks the exact sum).
const MAX_RATIO: f64 = (1 << 20) as f64;
const MAX_BIAS: f64 = (1 << 29) as f64;

/// Packed weights, parameter planes and the residual's shift; `None` where no fixed-point
/// form exists.
fn pack_i8(conv: &Conv, layout: FilterLayout, q: ConvQuants) -> Option<(Vec<u8>, Vec<u8>, u8)> {
    let per_output = conv.weights.len() / layout.c_out.max(1);
    let in_scale = f64::from(q.input.quant.scale);
    let out_scale = f64::from(q.output.quant.scale);
    let residual_scale = q.residual.map_or(0.0, |r| f64::from(r.quant.scale));
    let residual = q.residual.map(|r| r.quant);
    let Int8Weights { values: quantized, scales } =
        int8_weights(conv, layout.taps().1, q.input.quant, q.output.quant, residual);
    let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
    let mut packed = vec![0u8; layout.len()];
    for_each_weight(layout, |from, to| packed[to] = quantized[from] as u8);

    let ratio = |o: usize| residual_scale / (in_scale * scales[o]);
    let largest = (0..layout.c_out).map(ratio).fold(0.0, f64::max);
    let shift = (0..=24u8)
        .rev()
        .find(|s| largest * f64::from(1u32 << s) < f64::from(MAX_RESIDUAL_FACTOR) - 1.0)?;

    let mut params = vec![0i32; layout.panels() * conv_planes(Dtype::I8, layout.nr) * layout.nr];
    for o in 0..layout.panels() * layout.nr {
        let panel = o / layout.nr * conv_planes(Dtype::I8, layout.nr) * layout.nr;
        let mut set = |plane: ConvPlane, value: i32| {
            params[panel + plane as usize * layout.nr + o % layout.nr] = value;
        };
        if o >= layout.c_out {
            set(ConvPlane::Shift, 1);
            continue;
        }
        let unit = in_scale * scales[o];
        let sum: i32 =
            quantized[o * per_output..][..per_output].iter().map(|w| i32::from(*w)).sum();
        let bias = (f64::from(conv.bias[o]) / unit).round() as i32;
        let requant = Requant::new(unit / out_scale)?;
        set(ConvPlane::Bias, bias - i32::from(q.input.quant.zero_point) * sum);
        if !has_columns(Dtype::I8, layout.nr) {
            set(ConvPlane::WeightSum, sum);
        }
        set(ConvPlane::Multiplier, requant.multiplier);
        set(ConvPlane::Shift, requant.shift.into());
        set(ConvPlane::Residual, (ratio(o) * f64::from(1u32 << shift)).round() as i32);
    }
    Some((packed, bytes_of(&params, i32::to_le_bytes), shift))
}

fn affine_float(factor: &[f32], addend: &[f32], nr: usize) -> Vec<u8> {
    let values = planes(factor.len(), nr, |c| [factor[c], addend[c]]);
    bytes_of(&values, f32::to_le_bytes)
}

/// `factor` and `addend` of each channel as planes of panels, zero where there is none.
fn planes<T: Copy + Default>(channels: usize, nr: usize, at: impl Fn(usize) -> [T; 2]) -> Vec<T> {
    let mut out = vec![T::default(); channels.div_ceil(nr) * AFFINE_PLANES * nr];
    for c in 0..channels {
        for (plane, value) in at(c).into_iter().enumerate() {
            out[(c / nr * AFFINE_PLANES + plane) * nr + c % nr] = value;
        }
    }
    out
}

fn affine_i8(
    factor: &[f32],
    addend: &[f32],
    input: Quant,
    output: Quant,
    nr: usize,
) -> Option<(Vec<u8>, u8)> {
    let ratio = f64::from(input.scale) / f64::from(output.scale);
    let a: Vec<f64> = factor.iter().map(|f| f64::from(*f) * ratio).collect();
    let b: Vec<f64> = addend.iter().map(|b| f64::from(*b) / f64::from(output.scale)).collect();
    let fits =
        |values: &[f64], limit: f64, one: f64| values.iter().all(|v| (v * one).abs() < limit);
    let shift = (1..=24u8).rev().find(|s| {
        let one = f64::from(1u32 << s);
        fits(&a, f64::from(1 << 21) - 1.0, one) && fits(&b, f64::from(1 << 29) - 1.0, one)
    })?;
    let one = f64::from(1u32 << shift);
    let values =
        planes(a.len(), nr, |c| [(a[c] * one).round() as i32, (b[c] * one).round() as i32]);
    Some((bytes_of(&values, i32::to_le_bytes), shift))
}

/// Quantization of every node from measured values: a max-pool shares its input's, since it
/// only selects.
pub fn share_pool_quants(graph: &Graph, quants: &mut [Quant]) {
    for (id, node) in graph.nodes.iter().enumerate() {
        if let NodeOp::Pool2d { kind: PoolKind::Max, .. } = node.op {
            quants[id] = quants[node.inputs[0]];
        }
    }
}

/// Exact quantization of a normalized picture: no pixel value saturates.
pub fn input_quant(p: &Preprocess) -> Quant {
    let ends = (0..p.channels()).flat_map(|c| [p.offset[c], 255.0 * p.scale[c] + p.offset[c]]);
    let (low, high) = ends.fold((0f32, 0f32), |(l, h), v| (l.min(v), h.max(v)));
    network::int8::quant_of_range(low, high)
}

/// Multiply-accumulates of a node.
pub fn node_macs(graph: &Graph, id: usize) -> u64 {
    let node = &graph.nodes[id];
    let shape: Shape = node.shape;
    match &node.op {
        NodeOp::Conv2d(conv) => shape.pixels() as u64 * conv.weights.len() as u64,
        NodeOp::Affine { .. } => shape.len() as u64,
        _ => 0,
    }
}
