//! How int8 stores a graph's values and weights: what quantization decides and writers write.

use artifact::layout::FilterLayout;
use artifact::{Dtype, PoolKind, Preprocess, Quant, Shape};
use network::graph::{Conv, Graph, Node, NodeOp};
use network::int8::{quantize_at_scale, quantize_balanced, quantize_channel};
use rayon::prelude::*;

/// How many weights of an output lie side by side once packed for PCs, whose pairs are kept small;
/// microcontrollers have the same numbers.
pub(crate) fn run_len(conv: &Conv, input: Shape) -> usize {
    let [kh, kw] = conv.filter.map(usize::from);
    let inputs = conv.row_len() / (kh * kw);
    if inputs < input.c.into() {
        return inputs;
    }
    FilterLayout { kh, kw, c_in: inputs, c_out: conv.c_out(), nr: 16, dtype: Dtype::I8 }.taps().1
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
pub(crate) fn int8_weights(
    conv: &Conv,
    run: usize,
    input: Quant,
    output: Quant,
    residual: Option<Quant>,
) -> Int8Weights {
    let per_output = conv.weights.len() / conv.bias.len().max(1);
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
            // Where others keep their steps, pairs are too large for speed anyway.
            Some(_) => quantize_balanced(weights, least),
            None => quantize_channel(weights, run, least),
        }
    });
    let (values, scales): (Vec<Vec<i8>>, Vec<f32>) = channels.unzip();
    Int8Weights { values: values.concat(), scales }
}

/// Those of convolution `conv` at node `id` of an optimized graph.
pub fn int8_weights_of(graph: &Graph, id: usize, conv: &Conv, quants: &[Quant]) -> Int8Weights {
    let node = &graph.nodes[id];
    let x = node.inputs[0];
    let run = run_len(conv, graph.nodes[x].shape);
    let residual = node.inputs.get(1).map(|&r| quants[r]);
    int8_weights(conv, run, quants[x], quants[id], residual)
}

/// Largest residual factor before its fixed-point shift, and largest bias: together with the
/// products they stay in an i32 (the reader checks the exact sum).
const MAX_RATIO: f64 = (1 << 20) as f64;
const MAX_BIAS: f64 = (1 << 29) as f64;

/// A max-pool only selects, so that its values are stored as those that it reads.
pub fn share_pool_quants<Q: Copy>(graph: &Graph, quants: &mut [Q]) {
    for (id, node) in graph.nodes.iter().enumerate().filter(|(_, node)| is_max_pool(node)) {
        quants[id] = quants[node.inputs[0]];
    }
}

/// [`share_pool_quants`] of what a quantized source says. Where it says nothing of what a max-pool
/// reads, and nothing else reads that, the other way round.
pub(crate) fn inherit_quants(graph: &mut Graph) {
    let uses = graph.uses();
    let mut quants: Vec<Option<Quant>> = graph.nodes.iter().map(|node| node.quant).collect();
    for (id, node) in graph.nodes.iter().enumerate().rev().filter(|(_, node)| is_max_pool(node)) {
        let input = node.inputs[0];
        if uses[input] == 1 {
            quants[input] = quants[input].or(quants[id]);
        }
    }
    share_pool_quants(graph, &mut quants);
    graph.nodes.iter_mut().zip(quants).for_each(|(node, quant)| node.quant = quant);
}

fn is_max_pool(node: &Node) -> bool {
    matches!(node.op, NodeOp::Pool2d { kind: PoolKind::Max, .. })
}

/// Exact quantization of a normalized picture: no pixel value saturates.
pub fn input_quant(p: &Preprocess) -> Quant {
    let ends = (0..p.channels()).flat_map(|c| [p.offset[c], 255.0 * p.scale[c] + p.offset[c]]);
    let (low, high) = ends.fold((0f32, 0f32), |(l, h), v| (l.min(v), h.max(v)));
    network::int8::quant_of_range(low, high)
}
