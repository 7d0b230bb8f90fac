//! Clamps and sums into the operation before them.

use super::dead::{redirect, remove_dead};
use network::graph::{Conv, Graph, NodeOp, ValueId};

/// Turns sums into residuals of convolutions and clamps into part of the operation before
/// them, wherever nothing else reads the value in between. Others become operations of their own: a
/// clamped product with one, and a convolution that copies.
pub fn fuse(graph: &mut Graph) {
    let mut uses = graph.uses();
    let mut replacement: Vec<_> = (0..graph.nodes.len()).collect();
    for id in 0..graph.nodes.len() {
        for i in 0..graph.nodes[id].inputs.len() {
            let input = graph.nodes[id].inputs[i];
            graph.nodes[id].inputs[i] = replacement[input];
        }
        match graph.nodes[id].op {
            NodeOp::Activation(next) => {
                if next.clamp().is_none() {
                    continue;
                }
                let input = graph.nodes[id].inputs[0];
                let quant = graph.nodes[id].quant.or(graph.nodes[input].quant);
                let activation = graph.nodes[input].op.activation_mut();
                let both = activation.and_then(|activation| {
                    let both = activation.then(next)?;
                    (both == *activation || uses[input] == 1).then_some((activation, both))
                });
                match both {
                    Some((activation, both)) => {
                        *activation = both;
                        graph.nodes[input].quant = quant;
                        replacement[id] = input;
                        uses[input] += uses[id] - 1;
                    }
                    _ => {
                        let c = usize::from(graph.nodes[id].shape.c);
                        let (factor, addend) = (vec![1.0; c], vec![0.0; c]);
                        let op = NodeOp::Affine { factor, addend, activation: next };
                        graph.nodes[id].op = op;
                    }
                }
            }
            NodeOp::Add => fuse_sum(graph, &uses, id),
            _ => {}
        }
    }
    redirect(graph, &replacement);
    remove_dead(graph);
}

/// Makes the sum `id` the convolution that computes one of its operands, the later one if both
/// qualify: its inputs are the more recent ones, and the sum then needs no memory of its own.
fn fuse_sum(graph: &mut Graph, uses: &[usize], id: ValueId) {
    let fusible = |value: ValueId| {
        matches!(&graph.nodes[value].op, NodeOp::Conv2d(c) if c.activation.is_none() && !c.residual)
            && uses[value] == 1
    };
    let [a, b] = graph.nodes[id].inputs[..] else { return };
    let (early, late) = (a.min(b), a.max(b));
    let (value, residual) = match (fusible(late), fusible(early)) {
        (true, _) => (late, early),
        (false, true) => (early, late),
        (false, false) => return copy_sum(graph, id),
    };
    // The convolution moves to the place of the sum, so that its residual surely comes before
    // it; the sum moves to where nothing reads it.
    graph.nodes.swap(value, id);
    let quant = graph.nodes[value].quant;
    let node = &mut graph.nodes[id];
    let before = core::mem::replace(&mut node.quant, quant);
    if let NodeOp::Conv2d(conv) = &mut node.op {
        conv.residual = true;
        conv.sum_quant = before;
    }
    node.inputs.push(residual);
}

/// Makes the sum `id`, of which no operand is a convolution's alone, one that copies the first.
fn copy_sum(graph: &mut Graph, id: ValueId) {
    let groups = graph.nodes[id].shape.c;
    let c = usize::from(groups);
    // Ones are of any steps.
    let weight_scales = vec![0.0; c];
    let plain = Conv::new(vec![1.0; c], vec![0.0; c], [1; 2]);
    let copy = Conv { groups, residual: true, weight_scales, ..plain };
    graph.nodes[id].op = NodeOp::Conv2d(copy);
}
