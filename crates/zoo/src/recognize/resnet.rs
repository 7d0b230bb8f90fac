//! The ResNet that a graph looks like.

use super::title;
use artifact::PoolKind;
use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::Pooling;
use network::graph::{Conv, Graph, NodeOp, ValueId};
use network::padding::ConvPadding;

/// A way back through nodes of one reader each.
struct Way<'a> {
    convs: Vec<&'a Conv>,
    pools: Vec<PoolKind>,
    /// Where it ends: at the picture, a sum, or a value with several readers.
    end: ValueId,
}

impl<'a> Way<'a> {
    fn pass(&mut self, op: &'a NodeOp) {
        match op {
            NodeOp::Conv2d(conv) => self.convs.insert(0, conv),
            NodeOp::Pool2d { kind, .. } => self.pools.push(*kind),
            _ => {}
        }
    }
}

fn way<'a>(graph: &'a Graph, uses: &[usize], from: ValueId, start: ValueId) -> Way<'a> {
    let mut way = Way { convs: Vec::new(), pools: Vec::new(), end: from };
    while way.end != start && uses[way.end] == 1 {
        let node = &graph.nodes[way.end];
        let &[input] = &node.inputs[..] else { break };
        way.pass(&node.op);
        way.end = input;
    }
    way
}

/// Channels of a value.
fn channels(graph: &Graph, value: ValueId) -> Option<usize> {
    graph.nodes.get(value).map(|node| node.shape.c.into())
}

/// The network that the graph looks like.
pub(super) fn architecture(graph: &Graph, start: ValueId) -> Result<Architecture, String> {
    if graph.nodes.iter().any(|node| node.quant.is_some()) {
        return Err("it is quantized".into());
    }
    let uses = graph.uses();
    let output = &graph.nodes[graph.output()];
    let (NodeOp::Conv2d(head), &[pooled]) = (&output.op, &output.inputs[..]) else {
        return Err(format!("its last layer, {}, is not dense", title(output)));
    };
    let pool = &graph.nodes[pooled];
    let pooling = match pool.op {
        NodeOp::Pool2d { kind: PoolKind::Average, .. } => Pooling::Avg,
        NodeOp::Pool2d { kind: PoolKind::Max, .. } => Pooling::Max,
        _ => return Err(format!("{} comes before the last layer, no pooling", title(pool))),
    };
    let stacks = Stacks::of(graph, &uses, start)?;
    let stem = stem(graph, stacks.fork, start)?;
    let Some(first_conv) = stem.convs.first() else {
        return Err("no convolution before the first block".into());
    };
    // The last sum of a network with pre-activation is normalized before it is clamped.
    let last = graph.nodes[pooled].inputs[0];
    let clamped = graph.nodes[last].inputs.first().map(|&x| &graph.nodes[x].op);
    let use_pre_activation = matches!(clamped, Some(NodeOp::BatchNorm { .. }));
    let resnet = ResNetConfig {
        input_conv_filters: stem.convs.iter().map(|conv| conv.bias.len()).collect(),
        input_conv_kernel_sizes: stem.convs.iter().map(|conv| conv.filter[0].into()).collect(),
        stem_stride: first_conv.stride[0].into(),
        stem_pool: !stem.pools.is_empty(),
        stackwise_num_filters: stacks.widths,
        stackwise_num_blocks: stacks.counts,
        stackwise_num_strides: stacks.strides,
        block_type: match (stacks.is_basic, stacks.is_vd) {
            (true, false) => BlockType::BasicBlock,
            (false, false) => BlockType::BottleneckBlock,
            (true, true) => BlockType::BasicBlockVd,
            (false, true) => BlockType::BottleneckBlockVd,
        },
        use_pre_activation,
        padding: ConvPadding::default(),
        expansion: stacks.expansion.unwrap_or(4),
        bottleneck_stride: stacks.bottleneck_stride,
    };
    let config = Architecture {
        channels: graph.input_shape().c.into(),
        pooling,
        ..Architecture::new(&graph.name, head.bias.len(), Family::ResNet(resnet))
    };
    config.check()?;
    Ok(config)
}

/// What its residual blocks tell.
#[derive(Default)]
struct Stacks {
    widths: Vec<usize>,
    counts: Vec<usize>,
    strides: Vec<usize>,
    is_basic: bool,
    is_vd: bool,
    expansion: Option<usize>,
    bottleneck_stride: BottleneckStride,
    /// Where the first block starts.
    fork: ValueId,
}

impl Stacks {
    fn of(graph: &Graph, uses: &[usize], start: ValueId) -> Result<Self, String> {
        let mut stacks = Self::default();
        let mut sums = graph.nodes.iter().filter(|node| matches!(node.op, NodeOp::Add)).peekable();
        let Some(first) = sums.peek() else { return Err("it has no residual blocks".into()) };
        stacks.fork = way(graph, uses, first.inputs[0], start).end;
        for sum in sums {
            let mut main = way(graph, uses, sum.inputs[0], start);
            let mut shortcut = way(graph, uses, sum.inputs[1], start);
            if main.convs.len() < shortcut.convs.len() {
                core::mem::swap(&mut main, &mut shortcut);
            }
            if main.convs.is_empty() {
                return Err(format!("{} adds no block's path to its shortcut", title(sum)));
            }
            stacks.add(&main, &shortcut, channels(graph, main.end));
        }
        Ok(stacks)
    }

    /// Another block, which reads a value of so many channels.
    fn add(&mut self, main: &Way<'_>, shortcut: &Way<'_>, channels: Option<usize>) {
        let projects = !shortcut.convs.is_empty();
        self.is_basic |= main.convs.len() == 2;
        // Only of these, a stack's first block projects without need.
        let keeps = main.convs.last().map(|last| last.bias.len()) == channels
            && main.convs.iter().all(|conv| conv.stride == [1; 2]);
        self.is_vd |=
            shortcut.pools.contains(&PoolKind::Average) || (self.is_basic && projects && keeps);
        if let [first, _, last] = main.convs[..] {
            self.expansion.get_or_insert(last.bias.len() / first.bias.len());
            if first.stride != [1; 2] {
                self.bottleneck_stride = BottleneckStride::First;
            }
        }
        match self.counts.last_mut() {
            Some(count) if !projects => *count += 1,
            _ => {
                self.widths.extend(main.convs.first().map(|first| first.bias.len()));
                self.counts.push(1);
                let stride = main.convs.iter().map(|conv| usize::from(conv.stride[0]));
                self.strides.push(stride.max().unwrap_or(1));
            }
        }
    }
}

/// From where the first block starts back to the picture.
fn stem(graph: &Graph, fork: ValueId, start: ValueId) -> Result<Way<'_>, String> {
    let mut stem = Way { convs: Vec::new(), pools: Vec::new(), end: fork };
    while stem.end != start {
        let node = &graph.nodes[stem.end];
        let &[input] = &node.inputs[..] else {
            return Err(format!("{} comes before the first block", title(node)));
        };
        stem.pass(&node.op);
        stem.end = input;
    }
    Ok(stem)
}
