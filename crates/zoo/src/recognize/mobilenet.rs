//! The MobileNet or EfficientNet that a graph looks like: a stem, then blocks with a depthwise convolution each.

use super::title;
use artifact::PoolKind;
use network::activation::Activation;
use network::architecture::mobilenet::{Block, BlockType, MobileNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::Pooling;
use network::graph::{Conv, Graph, Node, NodeOp, ValueId};
use network::padding::ConvPadding;

/// Whether a graph ends in scores, not in pooled features.
pub(super) fn has_head(graph: &Graph) -> bool {
    !matches!(graph.nodes[graph.output()].op, NodeOp::Pool2d { .. })
}

/// A convolution and what follows it alone.
struct Layer<'a> {
    conv: &'a Conv,
    activation: Activation,
    /// What it and its activation make.
    end: ValueId,
}

impl Layer<'_> {
    /// Whether each channel is by itself.
    fn is_depthwise(&self) -> bool {
        self.conv.groups > 1 && usize::from(self.conv.groups) == self.conv.c_out()
    }
}

/// Two dense layers that make the factors of a map's channels.
struct GateOf {
    squeezed: usize,
    activations: [Activation; 2],
    /// The product.
    end: ValueId,
}

/// A way forward through a graph.
struct Way<'a> {
    graph: &'a Graph,
    /// Whether the output depends on a value; importers leave behind what they have joined.
    is_live: Vec<bool>,
}

impl<'a> Way<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut is_live = vec![false; graph.nodes.len()];
        is_live[graph.output()] = true;
        for (id, node) in graph.nodes.iter().enumerate().rev() {
            if is_live[id] {
                node.inputs.iter().for_each(|&x| is_live[x] = true);
            }
        }
        Self { graph, is_live }
    }

    /// The nodes that read a value.
    fn readers(&self, x: ValueId) -> impl Iterator<Item = (ValueId, &'a Node)> {
        let nodes = self.graph.nodes.iter().enumerate().skip(x + 1);
        nodes.filter(move |(id, node)| self.is_live[*id] && node.inputs.contains(&x))
    }

    /// The convolution that reads a value.
    fn conv(&self, x: ValueId) -> Option<Layer<'a>> {
        let (mut end, conv) = self.readers(x).find_map(|(id, node)| match &node.op {
            NodeOp::Conv2d(conv) => Some((id, conv)),
            _ => None,
        })?;
        let mut activation = Activation::None;
        loop {
            let mut readers = self.readers(end);
            let (Some((id, node)), None) = (readers.next(), readers.next()) else { break };
            match node.op {
                NodeOp::BatchNorm { .. } if activation.is_none() => {}
                NodeOp::Activation(found) if activation.is_none() => activation = found,
                _ => break,
            }
            end = id;
        }
        Some(Layer { conv, activation, end })
    }

    /// The gate of a map.
    fn gate(&self, map: ValueId) -> Option<GateOf> {
        let is_gate = |node: &Node| matches!(node.op, NodeOp::Gate { .. }) && node.inputs[0] == map;
        let (end, _) = self.readers(map).find(|(_, node)| is_gate(node))?;
        let pools = |node: &Node| matches!(node.op, NodeOp::Pool2d { .. });
        let (pool, _) = self.readers(map).find(|(_, node)| pools(node))?;
        let reduce = self.conv(pool)?;
        let expand = self.conv(reduce.end)?;
        let activations = [reduce.activation, expand.activation];
        Some(GateOf { squeezed: reduce.conv.c_out(), activations, end })
    }

    /// The sum of two values.
    fn sum(&self, a: ValueId, b: ValueId) -> Option<ValueId> {
        let adds = |node: &Node| matches!(node.op, NodeOp::Add) && node.inputs.contains(&b);
        self.readers(a).find(|(_, node)| adds(node)).map(|(id, _)| id)
    }
}

/// What was found between the stem and the pooling.
#[derive(Default)]
struct Body {
    blocks: Vec<Block>,
    gate_activations: Option<[Activation; 2]>,
    is_separable: bool,
    last_filters: Option<usize>,
    /// What is pooled.
    end: ValueId,
}

/// The blocks behind a value, and the convolution after them.
fn body(way: &Way<'_>, from: ValueId) -> Result<Body, String> {
    let mut body = Body { end: from, ..Body::default() };
    while let Some(first) = way.conv(body.end) {
        let (expand, depthwise) = match first.is_depthwise() {
            true => (None, first),
            false => match way.conv(first.end).filter(Layer::is_depthwise) {
                Some(depthwise) => (Some(first), depthwise),
                // No block starts with it.
                None if body.last_filters.is_none() => {
                    body.last_filters = Some(first.conv.c_out());
                    body.end = first.end;
                    continue;
                }
                None => break,
            },
        };
        if body.last_filters.is_some() {
            return Err("a block behind what should be its last convolution".into());
        }
        let mut x = depthwise.end;
        let gate = way.gate(x);
        if let Some(gate) = &gate {
            body.gate_activations = Some(gate.activations);
            x = gate.end;
        }
        let Some(project) = way.conv(x) else {
            let node = &way.graph.nodes[x];
            return Err(format!(
                "no convolution reads {}, which ends a depthwise one",
                title(node)
            ));
        };
        body.is_separable |= !project.activation.is_none();
        body.blocks.push(Block {
            expanded: expand.map(|expand| expand.conv.c_out()),
            filter: depthwise.conv.filter[0].into(),
            stride: depthwise.conv.stride[0].into(),
            squeezed: gate.map(|gate| gate.squeezed),
            filters: project.conv.c_out(),
            activation: depthwise.activation,
        });
        body.end = way.sum(project.end, body.end).unwrap_or(project.end);
    }
    Ok(body)
}

/// The network that the graph looks like.
pub(super) fn architecture(graph: &Graph, start: ValueId) -> Result<Architecture, String> {
    let way = Way::new(graph);
    let stem = way.conv(start).filter(|stem| stem.conv.groups == 1 && stem.conv.filter == [3; 2]);
    let Some(stem) = stem else { return Err("it does not start with a 3×3 convolution".into()) };
    let body = body(&way, stem.end)?;
    let mut pools = way.readers(body.end).filter_map(|(id, node)| match node.op {
        NodeOp::Pool2d { kind, .. } => Some((id, kind)),
        _ => None,
    });
    let Some((pool, kind)) = pools.next() else {
        return Err(format!("no pooling reads {}", title(&graph.nodes[body.end])));
    };
    let pooling = match kind {
        PoolKind::Average => Pooling::Avg,
        PoolKind::Max => Pooling::Max,
    };
    // Scores, and a layer between.
    let first = way.conv(pool);
    let second = first.as_ref().and_then(|first| way.conv(first.end));
    let outputs = |layer: &Layer<'_>| layer.conv.c_out();
    let (hidden, head) = match &second {
        Some(second) => (first.as_ref().map(outputs), Some(second)),
        None => (None, first.as_ref()),
    };
    let mobilenet = MobileNetConfig {
        stem_filters: stem.conv.c_out(),
        stem_stride: stem.conv.stride[0].into(),
        block_type: match body.is_separable {
            true => BlockType::Separable,
            false => BlockType::InvertedResidual,
        },
        blocks: body.blocks,
        last_filters: body.last_filters,
        hidden_features: hidden,
        activation: stem.activation,
        gate_activations: body.gate_activations,
        padding: ConvPadding::default(),
    };
    let classes = head.map_or(1, outputs);
    let config = Architecture {
        channels: graph.input_shape().c.into(),
        pooling,
        ..Architecture::new(&graph.name, classes, Family::MobileNet(mobilenet))
    };
    config.check()?;
    Ok(config)
}
