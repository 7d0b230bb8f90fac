//! What could not be fused, as operations that devices have.

use crate::graph::{Conv, Graph, NodeOp};
use artifact::Padding;

/// Makes a convolution of one tap of each sum that is left: it adds its residual to what it copies.
pub fn lower_sums(graph: &mut Graph) {
    for node in &mut graph.nodes {
        let NodeOp::Add = node.op else { continue };
        let c = usize::from(node.shape.c);
        if node.inputs[0] == node.inputs[1] {
            node.op = NodeOp::Affine { factor: vec![2.0; c], addend: vec![0.0; c], relu: false };
            node.inputs.truncate(1);
            continue;
        }
        let one = |i: usize| if i.is_multiple_of(c + 1) { 1.0 } else { 0.0 };
        node.op = NodeOp::Conv2d(Conv {
            weights: (0..c * c).map(one).collect(),
            bias: vec![0.0; c],
            filter: [1; 2],
            stride: [1; 2],
            padding: Padding::default(),
            relu: false,
            residual: true,
            weight_scales: Vec::new(),
        });
    }
}

/// Makes a product with one of each clamp that is left.
pub fn lower_clamps(graph: &mut Graph) {
    for node in &mut graph.nodes {
        if let NodeOp::Relu = node.op {
            let c = usize::from(node.shape.c);
            node.op = NodeOp::Affine { factor: vec![1.0; c], addend: vec![0.0; c], relu: true };
        }
    }
}
