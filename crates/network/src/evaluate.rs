//! What a graph means: every faster implementation is tested against this one.

use crate::graph::{Conv, Graph, NodeOp};
use artifact::layout::window_start;
use artifact::{Padding, PoolKind, Shape};

/// The logits of one normalized picture (NHWC): the reference that every kernel is tested
/// against, written for reading, accumulating in f64.
///
/// # Panics
/// Where `input` does not have the length of the graph's input.
pub fn evaluate(graph: &Graph, input: &[f32]) -> Vec<f32> {
    evaluate_all(graph, input).pop().unwrap_or_default()
}

/// The value of every node (NHWC), in node order; see [`evaluate`].
///
/// # Panics
/// Where `input` does not have the length of the graph's input.
pub fn evaluate_all(graph: &Graph, input: &[f32]) -> Vec<Vec<f32>> {
    assert_eq!(input.len(), graph.input_shape().len(), "length of the graph's input");
    let mut values: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let operand = |i: usize| values[node.inputs[i]].as_slice();
        let x_shape = node.inputs.first().map_or(node.shape, |&x| graph.nodes[x].shape);
        let value = match &node.op {
            NodeOp::Input => input.to_vec(),
            NodeOp::Conv2d(conv) => {
                let residual = conv.residual.then(|| operand(1));
                convolve(conv, x_shape, operand(0), residual, node.shape)
            }
            NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon } => {
                map_channels(operand(0), gamma.len(), |x, c| {
                    let deviation = (f64::from(variance[c]) + f64::from(*epsilon)).sqrt();
                    (x - f64::from(mean[c])) / deviation * f64::from(gamma[c]) + f64::from(beta[c])
                })
            }
            NodeOp::Affine { factor, addend, activation } => {
                map_channels(operand(0), factor.len(), |x, c| {
                    let y = x * f64::from(factor[c]) + f64::from(addend[c]);
                    activation.apply(y)
                })
            }
            NodeOp::Activation(activation) => {
                operand(0).iter().map(|&x| activation.apply(x.into()) as f32).collect()
            }
            NodeOp::Cast => operand(0).to_vec(),
            NodeOp::Add => operand(0).iter().zip(operand(1)).map(|(a, b)| a + b).collect(),
            NodeOp::Gate { activation } => {
                let gate = operand(1);
                map_channels(operand(0), gate.len(), |x, c| {
                    activation.apply(x * f64::from(gate[c]))
                })
            }
            NodeOp::Pool2d { kind, filter, stride, padding } => {
                let window = Window { filter: *filter, stride: *stride, padding: *padding };
                pool(*kind, window, x_shape, operand(0), node.shape)
            }
        };
        values.push(value);
    }
    values
}

fn map_channels(x: &[f32], channels: usize, f: impl Fn(f64, usize) -> f64) -> Vec<f32> {
    x.iter().enumerate().map(|(i, &v)| f(f64::from(v), i % channels) as f32).collect()
}

/// A sliding window.
#[derive(Clone, Copy)]
struct Window {
    filter: [u16; 2],
    stride: [u16; 2],
    padding: Padding,
}

impl Window {
    /// Taps of output pixel (`y`, `x`) that lie on the map, as (tap index, pixel index).
    fn pixels(self, y: usize, x: usize, map: Shape) -> impl Iterator<Item = (usize, usize)> {
        let top = window_start(y, self.stride[0], self.padding.top);
        let left = window_start(x, self.stride[1], self.padding.left);
        let [rows, columns] = self.filter.map(usize::from);
        let (h, w) = (usize::from(map.h), usize::from(map.w));
        (0..rows).flat_map(move |i| {
            (0..columns).filter_map(move |j| {
                let row = top.checked_add_unsigned(i).and_then(|r| usize::try_from(r).ok())?;
                let column = left.checked_add_unsigned(j).and_then(|c| usize::try_from(c).ok())?;
                (row < h && column < w).then_some((i * columns + j, row * w + column))
            })
        })
    }
}

fn convolve(
    conv: &Conv,
    x_shape: Shape,
    x: &[f32],
    residual: Option<&[f32]>,
    out_shape: Shape,
) -> Vec<f32> {
    let c_in = usize::from(x_shape.c);
    let window = Window { filter: conv.filter, stride: conv.stride, padding: conv.padding };
    let mut out = Vec::with_capacity(out_shape.len());
    for oy in 0..usize::from(out_shape.h) {
        for ox in 0..usize::from(out_shape.w) {
            for o in 0..conv.c_out() {
                let filter = &conv.weights[o * conv.row_len()..][..conv.row_len()];
                let inputs = conv.inputs_of(o);
                let mut sum = f64::from(conv.bias[o]);
                for (tap, pixel) in window.pixels(oy, ox, x_shape) {
                    let tap = &filter[tap * inputs.len()..][..inputs.len()];
                    sum += dot(&x[pixel * c_in..][inputs.clone()], tap);
                }
                sum += residual.map_or(0.0, |r| f64::from(r[out.len()]));
                out.push(conv.activation.apply(sum) as f32);
            }
        }
    }
    out
}

/// Dot product in f64, in independent lanes so that the compiler may vectorize it.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let tail: f64 = rest.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    sums.iter().sum::<f64>() + tail
}

fn pool(kind: PoolKind, window: Window, x_shape: Shape, x: &[f32], out_shape: Shape) -> Vec<f32> {
    let c = usize::from(x_shape.c);
    let mut out = Vec::with_capacity(out_shape.len());
    for oy in 0..usize::from(out_shape.h) {
        for ox in 0..usize::from(out_shape.w) {
            for channel in 0..c {
                let values =
                    || window.pixels(oy, ox, x_shape).map(|(_, p)| f64::from(x[p * c + channel]));
                out.push(match kind {
                    PoolKind::Max => values().fold(f64::NEG_INFINITY, f64::max),
                    PoolKind::Average => values().sum::<f64>() / values().count() as f64,
                } as f32);
            }
        }
    }
    out
}
