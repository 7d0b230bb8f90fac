//! Rewrites of the float graph that leave its results the same: fewer and larger operations.
//!
//! After [`optimize`], every ResNet consists of `Input`, `Conv2d`, `Affine` and `Pool2d` only.

mod dead;
mod fold;
mod fuse;

pub use dead::remove_dead;
pub use fold::fold_batch_norm;
pub use fuse::fuse;

use network::graph::Graph;

/// Folds, fuses, and removes what nobody reads.
pub fn optimize(graph: &mut Graph) {
    fold_batch_norm(graph);
    fuse(graph);
    remove_dead(graph);
}

/// A small network with squeeze-and-excitation, for pictures of `size`.
#[cfg(test)]
pub(crate) fn gated(size: u16) -> Graph {
    use artifact::{Padding, PoolKind, Shape};
    use network::activation::Activation;
    use network::graph::{Conv, NodeOp};
    let mut noise = network::random::Rng::keyed(&[8]);
    let mut conv = |c_in: usize, c_out: usize, filter: u16| {
        let weights = noise.around(c_out * c_in * usize::from(filter).pow(2), 0.0, 0.5);
        let bias = noise.around(c_out, 0.1, 0.1);
        let padding = Padding::same((filter / 2) as u8);
        NodeOp::Conv2d(Conv { padding, ..Conv::new(weights, bias, [filter; 2]) })
    };
    let mean = NodeOp::Pool2d {
        kind: PoolKind::Average,
        filter: [size; 2],
        stride: [1; 2],
        padding: Padding::default(),
    };
    let relu = || NodeOp::Activation(Activation::RELU);
    let gate = NodeOp::Gate { activation: Activation::None };
    let mut graph = Graph::new("gated", Shape::new(size, size, 3));
    for (name, op, inputs) in [
        ("stem", conv(3, 20, 3), &[0][..]),
        ("stem_relu", relu(), &[1]),
        ("squeeze", mean.clone(), &[2]),
        ("reduce", conv(20, 5, 1), &[3]),
        ("reduce_relu", relu(), &[4]),
        ("expand", conv(5, 20, 1), &[5]),
        ("factors", relu(), &[6]),
        ("gate", gate, &[2, 7]),
        ("gate_relu", relu(), &[8]),
        ("last", conv(20, 12, 3), &[9]),
        ("pooler", mean, &[10]),
        ("scores", conv(12, 5, 1), &[11]),
    ] {
        graph.push(name, op, inputs).unwrap();
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use artifact::{Padding, PoolKind, Shape};
    use network::activation::Activation;
    use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
    use network::architecture::{Architecture, Family};
    use network::blueprint::Pooling;
    use network::evaluate::{evaluate, evaluate_all};
    use network::graph::{Conv, NodeOp};
    use network::init::random_checkpoint;
    use network::padding::ConvPadding;
    use network::random::Rng;

    fn graph(block: BlockType, v2: bool, rest: (Pooling, ConvPadding, u16, u16)) -> Graph {
        let (pooling, padding, height, width) = rest;
        let resnet = ResNetConfig {
            input_conv_filters: vec![4, 6],
            input_conv_kernel_sizes: vec![5, 3],
            stem_stride: 2,
            stem_pool: true,
            stackwise_num_filters: vec![6, 5],
            stackwise_num_blocks: vec![2, 2],
            stackwise_num_strides: vec![1, 2],
            block_type: block,
            use_pre_activation: v2,
            padding,
            expansion: 4,
            bottleneck_stride: BottleneckStride::default(),
        };
        let config = Architecture {
            channels: if v2 { 1 } else { 3 },
            pooling,
            ..Architecture::new("tiny", 7, Family::ResNet(resnet))
        };
        let sized = random_checkpoint(config, 20, 7).unwrap().edit(|draft| {
            (draft.preprocess.height, draft.preprocess.width) = (height, width);
            Ok(())
        });
        sized.unwrap().graph().unwrap()
    }

    fn assert_close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() <= 1e-4 * y.abs().max(1.0), "{x} is not {y}");
        }
    }

    #[test]
    fn optimized_networks_compute_the_same() {
        use BlockType::{BasicBlock, BasicBlockVd, BottleneckBlock, BottleneckBlockVd};
        let (with_v2, without) = ([false, true], [false]);
        let blocks = [
            (BasicBlock, &with_v2[..]),
            (BottleneckBlock, &with_v2),
            (BasicBlockVd, &without),
            (BottleneckBlockVd, &without),
        ];
        for (block, forms) in blocks {
            for &v2 in forms {
                for rest in [
                    (Pooling::Avg, ConvPadding::Symmetric, 20, 20),
                    (Pooling::Max, ConvPadding::Same, 19, 26),
                ] {
                    let before = graph(block, v2, rest);
                    let mut after = before.clone();
                    optimize(&mut after);

                    let picture = Rng::keyed(&[9]).around(before.input_shape().len(), 0.0, 1.0);
                    assert_close(&evaluate(&after, &picture), &evaluate(&before, &picture));
                    assert!(after.nodes.len() < before.nodes.len());
                    for (id, node) in after.nodes.iter().enumerate() {
                        assert!(node.inputs.iter().all(|&i| i < id), "{} is too early", node.name);
                        match node.op {
                            NodeOp::Input | NodeOp::Conv2d(_) | NodeOp::Pool2d { .. } => {}
                            NodeOp::Affine { .. } if v2 => {}
                            _ => panic!("{} `{}` is left", node.op.name(), node.name),
                        }
                    }
                    let mut again = after.clone();
                    optimize(&mut again);
                    assert_eq!(again, after);
                }
            }
        }
    }

    #[test]
    fn sizes_are_counted() {
        let config = Architecture::by_name("resnet_8_cifar", 10).unwrap();
        let mut graph = random_checkpoint(config, 32, 1).unwrap().graph().unwrap();
        optimize(&mut graph);
        // Stem 442,368; stacks 4,718,592, 3,670,016, 3,670,016; head 640.
        assert_eq!(graph.macs(), 12_501_632);
        assert_eq!(graph.parameters(), 77_706);
    }

    fn conv(c_in: usize, c_out: usize, noise: &mut Rng) -> NodeOp {
        let weights = noise.around(c_in * c_out, 0.0, 1.0);
        NodeOp::Conv2d(Conv::new(weights, noise.around(c_out, 0.0, 1.0), [1; 2]))
    }

    fn batch_norm(c: usize, noise: &mut Rng) -> NodeOp {
        NodeOp::BatchNorm {
            gamma: noise.around(c, 1.0, 0.5),
            beta: noise.around(c, 0.0, 1.0),
            mean: noise.around(c, 0.0, 1.0),
            variance: noise.around(c, 1.0, 0.5),
            epsilon: 1e-5,
        }
    }

    #[test]
    fn values_with_several_readers_are_kept() {
        let noise = &mut Rng::keyed(&[1]);
        let mut g = Graph::new("branches", Shape::new(3, 2, 3));
        let a = g.push("a", conv(3, 4, noise), &[0]).unwrap();
        let norm = g.push("norm", batch_norm(4, noise), &[a]).unwrap();
        // A second batch-norm must not reach through the first, which has another reader.
        let norm2 = g.push("norm2", batch_norm(4, noise), &[norm]).unwrap();
        let b = g.push("b", conv(4, 4, noise), &[norm]).unwrap();
        // The clamp may not join `b`: the sum reads it unclamped.
        let clamped = g.push("clamped", NodeOp::Activation(Activation::RELU), &[b]).unwrap();
        let sum = g.push("sum", NodeOp::Add, &[b, norm2]).unwrap();
        // Only the earlier operand is a convolution of its own.
        let c = g.push("c", conv(4, 4, noise), &[clamped]).unwrap();
        let late = g.push("late", NodeOp::Activation(Activation::RELU), &[sum]).unwrap();
        let twice = g.push("twice", NodeOp::Add, &[late, late]).unwrap();
        let join = g.push("join", NodeOp::Add, &[c, twice]).unwrap();
        let end = g.push("end", NodeOp::Activation(Activation::RELU), &[join]).unwrap();
        g.push("again", NodeOp::Activation(Activation::RELU), &[end]).unwrap();

        let mut optimized = g.clone();
        optimize(&mut optimized);
        let picture = noise.around(18, 0.0, 1.0);
        assert_close(&evaluate(&optimized, &picture), &evaluate(&g, &picture));
        let names: Vec<_> = optimized.nodes.iter().map(|n| n.name.as_str()).collect();
        let expected = ["input", "a", "norm2", "b", "clamped", "sum", "twice", "c"];
        assert_eq!(names, expected);
        // Sums and clamps that nothing could take up have a form that devices have.
        for node in &optimized.nodes[1..] {
            assert!(matches!(node.op, NodeOp::Conv2d(_) | NodeOp::Affine { .. }), "{}", node.name);
        }
    }

    /// Sums of what no convolution computes alone, and clamps behind them, have operations, too.
    #[test]
    fn sums_and_clamps_of_pools() {
        let mut g = Graph::new("pools", Shape::new(4, 4, 3));
        let pool = |kind| NodeOp::Pool2d {
            kind,
            filter: [4; 2],
            stride: [1; 2],
            padding: Padding::default(),
        };
        let max = g.push("max", pool(PoolKind::Max), &[0]).unwrap();
        let mean = g.push("mean", pool(PoolKind::Average), &[0]).unwrap();
        let clamped = g.push("clamped", NodeOp::Activation(Activation::RELU), &[mean]).unwrap();
        let sum = g.push("sum", NodeOp::Add, &[max, clamped]).unwrap();
        g.push("end", NodeOp::Activation(Activation::RELU), &[sum]).unwrap();
        let mut optimized = g.clone();
        optimize(&mut optimized);
        let picture = Rng::keyed(&[4]).around(48, 0.0, 1.0);
        assert_close(&evaluate(&optimized, &picture), &evaluate(&g, &picture));
        for node in &optimized.nodes {
            assert!(
                !matches!(node.op, NodeOp::Add | NodeOp::Activation(_)),
                "{} is left",
                node.name
            );
        }
    }

    #[test]
    fn unread_nodes_disappear() {
        let noise = &mut Rng::keyed(&[2]);
        let mut g = Graph::new("dead", Shape::new(1, 1, 2));
        let a = g.push("a", conv(2, 2, noise), &[0]).unwrap();
        g.push("unread", conv(2, 2, noise), &[a]).unwrap();
        g.push("b", conv(2, 3, noise), &[a]).unwrap();
        remove_dead(&mut g);
        assert_eq!(g.nodes.len(), 3);
        assert_eq!(g.nodes[2].inputs, [1]);
        assert_eq!(evaluate_all(&g, &[1.0, 2.0]).len(), 3);
    }

    #[test]
    fn nodes_that_do_not_fit_are_refused() {
        let noise = &mut Rng::keyed(&[3]);
        let mut g = Graph::new("wrong", Shape::new(4, 4, 2));
        let too_large = NodeOp::Pool2d {
            kind: PoolKind::Max,
            filter: [5; 2],
            stride: [1; 2],
            padding: Padding::default(),
        };
        let negative = NodeOp::BatchNorm {
            gamma: vec![1.0; 2],
            beta: vec![0.0; 2],
            mean: vec![0.0; 2],
            variance: vec![1.0, -1.0],
            epsilon: 1e-5,
        };
        for (op, inputs) in [
            (conv(3, 1, noise), &[0][..]),
            (conv(2, 0, noise), &[0]),
            (conv(2, 1, noise), &[]),
            (conv(2, 1, noise), &[1]),
            (batch_norm(3, noise), &[0]),
            (NodeOp::Input, &[]),
            (too_large, &[0]),
            (negative, &[0]),
        ] {
            assert!(g.push("node", op, inputs).is_err());
        }
        assert_eq!(g.nodes.len(), 1);
    }
}
