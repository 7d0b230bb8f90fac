//! Cross-layer equalization: channels that span far more or far less than the others of their map
//! share the steps of one int8 scale badly. Since a ReLU, a pool and a sum commute with a positive
//! factor per channel, such a factor can be moved from the weights that write a map to those that
//! read it, without changing what the network computes (Nagel et al. 2019).
//!
//! Maps that must have the same factors, those on one residual path, are one *space*.

use super::calibrate::Activation;
use network::graph::{Graph, NodeOp, ValueId};

/// How many times a channel may span what the median channel does before it is named.
const OUTLIER: f32 = 32.0;

/// A channel that spans far more than the others of its map.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlier {
    /// The node that writes it.
    pub node: ValueId,
    /// Its index.
    pub channel: usize,
    /// How many times it spans what the median channel does.
    pub times: f32,
}

/// The worst channel of each map that has outliers, in the nodes' order.
pub fn outliers(activations: &[Activation]) -> Vec<Outlier> {
    let worst = |(node, a): (ValueId, &Activation)| {
        let relative = relative(&a.largest);
        let (channel, &times) = relative.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        (times > OUTLIER).then_some(Outlier { node, channel, times })
    };
    // The input is a picture's three colors.
    activations.iter().enumerate().skip(1).filter_map(worst).collect()
}

/// Sizes in units of their median; 1 where there is nothing to compare.
fn relative(sizes: &[f32]) -> Vec<f32> {
    let mut sorted: Vec<f32> = sizes.iter().copied().filter(|&s| s > 0.0).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else { return vec![1.0; sizes.len()] };
    sizes.iter().map(|&s| if s > 0.0 { s / median } else { 1.0 }).collect()
}

/// The space of each value: the least value that must have the same factors.
fn spaces(graph: &Graph) -> Vec<ValueId> {
    let mut space: Vec<ValueId> = (0..graph.nodes.len()).collect();
    let mut tie = |id: ValueId, other: ValueId| {
        let (a, b) = (space[id], space[other]);
        space.iter_mut().filter(|s| **s == a.max(b)).for_each(|s| *s = a.min(b));
    };
    for (id, node) in graph.nodes.iter().enumerate() {
        if !node.op.activation().is_none_or(is_homogeneous) {
            tie(0, id);
        }
        match &node.op {
            NodeOp::Conv2d(_) => node.inputs[1..].iter().for_each(|&other| tie(id, other)),
            // What multiplies stays as it is, as pictures do.
            NodeOp::Gate { .. } => [(id, node.inputs[0]), (0, node.inputs[1])]
                .into_iter()
                .for_each(|(id, other)| tie(id, other)),
            _ => node.inputs.iter().for_each(|&other| tie(id, other)),
        }
    }
    space
}

/// Whether `f(k · x) = k · f(x)` for positive k.
fn is_homogeneous(activation: network::activation::Activation) -> bool {
    let is_free = |bound: f32| bound == 0.0 || bound.is_infinite();
    activation.clamp().is_some_and(|bounds| bounds.into_iter().all(is_free))
}

/// Moves factors between the layers of an optimized graph so that a map's channels, and the weights
/// that read them, span alike. Float results stay the same up to rounding.
pub fn equalize(graph: &mut Graph, activations: &[Activation]) {
    let space = spaces(graph);
    let (input, output) = (space[0], space[graph.output()]);
    for id in 0..graph.nodes.len() {
        // Pictures and logits stay as they are.
        if space[id] != id || id == input || id == output {
            continue;
        }
        let channels = usize::from(graph.nodes[id].shape.c);
        let members = (0..space.len()).filter(|&v| space[v] == id);
        let mut spans = vec![0f32; channels];
        for value in members {
            for (span, r) in spans.iter_mut().zip(relative(&activations[value].largest)) {
                *span = span.max(r);
            }
        }
        let mut weights = vec![0f32; channels];
        for node in &graph.nodes {
            if let (NodeOp::Conv2d(conv), Some(&x)) = (&node.op, node.inputs.first())
                && space[x] == id
            {
                for (o, filter) in conv.weights.chunks_exact(conv.row_len()).enumerate() {
                    for (w, c) in filter.iter().zip(conv.inputs_of(o).cycle()) {
                        weights[c] = weights[c].max(w.abs());
                    }
                }
            }
        }
        let factor = |(span, weight): (&f32, f32)| (span / weight).sqrt().clamp(1e-12, 1e12);
        let factors: Vec<f32> = spans.iter().zip(relative(&weights)).map(factor).collect();
        scale(graph, &space, id, &factors);
    }
}

/// Divides the channels of a space by `factors`.
fn scale(graph: &mut Graph, space: &[ValueId], id: ValueId, factors: &[f32]) {
    for (node, writes) in graph.nodes.iter_mut().zip(space) {
        let writes = *writes == id;
        match &mut node.op {
            NodeOp::Conv2d(conv) => {
                if space[node.inputs[0]] == id {
                    for o in 0..conv.c_out() {
                        let (row, seen) = (conv.row_len(), conv.inputs_of(o).cycle());
                        let filter = &mut conv.weights[o * row..][..row];
                        filter.iter_mut().zip(seen).for_each(|(w, c)| *w *= factors[c]);
                    }
                    // Steps of a quantized source are no longer of one size.
                    conv.weight_scales.fill(0.0);
                }
                if writes {
                    let row = conv.row_len();
                    for ((weights, bias), f) in
                        conv.weights.chunks_exact_mut(row).zip(&mut conv.bias).zip(factors)
                    {
                        weights.iter_mut().for_each(|w| *w /= f);
                        *bias /= f;
                    }
                    conv.weight_scales.iter_mut().zip(factors).for_each(|(step, f)| *step /= f);
                }
            }
            NodeOp::Affine { addend, .. } if writes => {
                addend.iter_mut().zip(factors).for_each(|(a, f)| *a /= f);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimize::{gated, optimize};
    use crate::quantize::Histogram;
    use network::architecture::Architecture;
    use network::evaluate::{evaluate, evaluate_all};
    use network::init::random_checkpoint;

    fn activations(graph: &Graph, picture: &[f32]) -> Vec<Activation> {
        let of = |(node, values): (&network::graph::Node, Vec<f32>)| {
            let mut largest = vec![0f32; node.shape.c.into()];
            for (i, v) in values.iter().enumerate() {
                let channel = i % largest.len();
                largest[channel] = largest[channel].max(v.abs());
            }
            Activation {
                histogram: Histogram::new(0.0, 1.0),
                mean: vec![0.0; largest.len()],
                largest,
            }
        };
        graph.nodes.iter().zip(evaluate_all(graph, picture)).map(of).collect()
    }

    /// Networks with every kind of block compute the same, and their maps span more evenly.
    #[test]
    fn results_stay_the_same() {
        let named = ["resnet_20_cifar", "resnet_50", "resnet_v2_50", "resnet_vd_18"].map(|name| {
            let config = Architecture::named(name, 7).unwrap();
            (name, random_checkpoint(config, 32, 1).unwrap().graph().unwrap())
        });
        for (name, mut graph) in named.into_iter().chain([("gated", gated(32))]) {
            optimize(&mut graph);
            let picture: Vec<f32> =
                (0..graph.input_shape().len()).map(|i| (i as f32 * 0.37).sin()).collect();
            // One channel of each map that only a convolution reads is made far too large.
            let before = evaluate(&graph, &picture);
            let space = spaces(&graph);
            for id in 1..graph.nodes.len() {
                if space[id] == id && id != space[graph.output()] {
                    let mut factors = vec![1.0; graph.nodes[id].shape.c.into()];
                    factors[2] = 1e-3;
                    scale(&mut graph, &space, id, &factors);
                }
            }
            let close = |a: &[f32], b: &[f32]| {
                let size = b.iter().fold(0f32, |m, v| m.max(v.abs()));
                a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * size)
            };
            assert!(close(&evaluate(&graph, &picture), &before), "{name}");
            let seen = activations(&graph, &picture);
            assert!(!outliers(&seen).is_empty(), "{name}");
            equalize(&mut graph, &seen);
            assert!(close(&evaluate(&graph, &picture), &before), "{name}");
            let left = outliers(&activations(&graph, &picture));
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }
}
