//! Batch-norm into the convolution, or the batch-norm, before it.

use super::dead::{redirect, remove_dead};
use network::activation::Activation;
use network::graph::{Graph, NodeOp};

/// Folds each batch-norm into the convolution or the batch-norm before it, where nothing else reads
/// that; any other batch-norm becomes an [`NodeOp::Affine`].
pub fn fold_batch_norm(graph: &mut Graph) {
    let mut uses = graph.uses();
    let mut replacement: Vec<_> = (0..graph.nodes.len()).collect();
    for id in 0..graph.nodes.len() {
        let NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon } = &graph.nodes[id].op else {
            continue;
        };
        let epsilon = f64::from(*epsilon);
        let scale: Vec<f64> = gamma
            .iter()
            .zip(variance)
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt())
            .collect();
        let (beta, mean) = (beta.clone(), mean.clone());

        let input = replacement[graph.nodes[id].inputs[0]];
        match &mut graph.nodes[input].op {
            NodeOp::Conv2d(conv)
                if uses[input] == 1 && conv.activation.is_none() && !conv.residual =>
            {
                // One row of the OHWI weights belongs to one output channel.
                let row = conv.row_len();
                for (c, weights) in conv.weights.chunks_exact_mut(row).enumerate() {
                    for w in weights {
                        *w = (f64::from(*w) * scale[c]) as f32;
                    }
                    let centered = f64::from(conv.bias[c]) - f64::from(mean[c]);
                    conv.bias[c] = (centered * scale[c] + f64::from(beta[c])) as f32;
                }
                // What int8 stores stays the same, up to its sign.
                for (step, scale) in conv.weight_scales.iter_mut().zip(&scale) {
                    *step = (f64::from(*step) * scale.abs()) as f32;
                }
                replacement[id] = input;
                graph.nodes[input].quant = graph.nodes[id].quant;
                // The convolution now stands for the batch-norm.
                uses[input] = uses[id];
            }
            // As files write one that has no place in a convolution: a product, then a sum.
            NodeOp::Affine { factor, addend, activation: Activation::None } if uses[input] == 1 => {
                for c in 0..scale.len() {
                    factor[c] = (f64::from(factor[c]) * scale[c]) as f32;
                    let centered = f64::from(addend[c]) - f64::from(mean[c]);
                    addend[c] = (centered * scale[c] + f64::from(beta[c])) as f32;
                }
                replacement[id] = input;
                uses[input] = uses[id];
                graph.nodes[input].quant = graph.nodes[id].quant;
            }
            _ => {
                let addend = (0..scale.len())
                    .map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * scale[c]) as f32)
                    .collect();
                let factor = scale.iter().map(|&s| s as f32).collect();
                graph.nodes[id].op =
                    NodeOp::Affine { factor, addend, activation: Activation::None };
            }
        }
    }
    redirect(graph, &replacement);
    remove_dead(graph);
}
