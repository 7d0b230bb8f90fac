//! The ResNet in a graph, so that the training of a model that others saved can go on.
//!
//! What the graph looks like suggests an [`Architecture`]; the graph that follows from it is then laid
//! over the one that was found, node by node from the logits to the picture, which tells which
//! weights are whose. Our convolutions have no bias and our batch-norms one ε; both are folded into
//! the statistics: `mean − bias`, `variance + ε − ours`. Numbers per channel that the picture meets
//! first become part of its preprocessing.

use crate::ImportError;
use crate::assemble::{assemble, draft, identity_batch_norm};
use artifact::text::AsPlain;
use artifact::{PoolKind, Preprocess, Shape};
use network::activation::Activation;
use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::{BATCH_NORM_EPSILON, Pooling};
use network::checkpoint::{Assumption, Checkpoint, Draft, Tensor};
use network::graph::{Conv, Graph, Node, NodeOp, ValueId};
use network::model::FloatModel;
use network::padding::ConvPadding;
use std::collections::BTreeMap;
use std::path::Path;

/// The checkpoint of a model whose graph is a ResNet.
///
/// # Errors
/// Graphs of other networks, with the first place that does not fit.
pub(crate) fn recognize(path: &Path, model: &FloatModel) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| {
        ImportError::unsupported(
            path,
            format!(
                "a network that `convert` takes, but that cannot be trained further, since it is no \
                 ResNet as `trainer` builds it ({what})"
            ),
        )
    };
    let graph = &model.graph;
    if graph.nodes.iter().any(|node| node.quant.is_some()) {
        return Err(unsupported("it is quantized".into()));
    }
    let (start, preprocess) = prepared(graph, model.preprocess).map_err(unsupported)?;
    let config = architecture(graph, start).map_err(unsupported)?;
    let mut misfit = String::new();
    for padding in [ConvPadding::Same, ConvPadding::Symmetric] {
        let mut config = config.clone();
        if let Some(resnet) = config.family.resnet_mut() {
            resnet.padding = padding;
        }
        let template = template(&config, preprocess).map_err(unsupported)?;
        let mut pairs = Pairs { template: &template, graph, start, found: BTreeMap::new() };
        match pairs.lay(template.output(), graph.output()) {
            Ok(()) => {
                let found = pairs.tensors(&config).map_err(unsupported)?;
                let tensors = assemble(path, &config, found, Vec::new())?;
                let found = Draft {
                    samples: model.samples.clone(),
                    assumed: model.notes.iter().map(|note| Assumption::new(note, None)).collect(),
                    ..draft(config, model.labels.clone(), preprocess, tensors)
                };
                return found.check().map_err(|what| ImportError::unsupported(path, what));
            }
            Err(what) if misfit.is_empty() => misfit = what,
            Err(_) => {}
        }
    }
    Err(unsupported(misfit))
}

/// The value that the first convolution reads, and the preprocessing up to there.
fn prepared(graph: &Graph, mut p: Preprocess) -> Result<(ValueId, Preprocess), String> {
    let uses = graph.uses();
    let mut at = 0;
    while uses[at] == 1
        && let Some(next) = graph.nodes.iter().position(|node| node.inputs == [at])
    {
        let (factor, addend) = match &graph.nodes[next].op {
            NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon } => {
                let last = gamma.len().saturating_sub(1);
                let factor = |c: usize| {
                    let c = c.min(last);
                    f64::from(gamma[c]) / (f64::from(variance[c]) + f64::from(*epsilon)).sqrt()
                };
                let factor = core::array::from_fn::<f64, 3, _>(factor);
                // A grey picture has one channel for all three.
                let addend = |c: usize| {
                    f64::from(beta[c.min(last)]) - f64::from(mean[c.min(last)]) * factor[c]
                };
                (factor, core::array::from_fn::<f64, 3, _>(addend))
            }
            NodeOp::Affine { factor, addend, activation: Activation::None } => {
                let each = |v: &[f32]| {
                    core::array::from_fn::<f64, 3, _>(|c| {
                        v[c.min(v.len().saturating_sub(1))].into()
                    })
                };
                (each(factor), each(addend))
            }
            _ => break,
        };
        let (scale, offset) = (p.scale.map(f64::from), p.offset.map(f64::from));
        p.scale = core::array::from_fn(|c| (scale[c] * factor[c]) as f32);
        p.offset = core::array::from_fn(|c| (offset[c] * factor[c] + addend[c]) as f32);
        at = next;
    }
    match p.is_valid() {
        true => Ok((at, p)),
        false => Err("its pictures are multiplied by nothing, or by what is no number".into()),
    }
}

/// The graph of an architecture, of zeros.
fn template(config: &Architecture, p: Preprocess) -> Result<Graph, String> {
    let input = Shape::new(p.height, p.width, p.channels() as u16);
    config.blueprint().graph(input, |_, len| Ok(vec![0.0; len])).map_err(|e| e.to_string())
}

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
fn architecture(graph: &Graph, start: ValueId) -> Result<Architecture, String> {
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

/// A node's name and what it computes, for people.
fn title(node: &Node) -> String {
    format!("`{}` ({})", node.name.plain(), node.op.name())
}

/// Which node of a graph is which one of a template.
struct Pairs<'a> {
    template: &'a Graph,
    graph: &'a Graph,
    /// What stands for the template's input.
    start: ValueId,
    /// By node of the template. A batch-norm that the graph lacks is paired with its convolution.
    found: BTreeMap<ValueId, ValueId>,
}

impl Pairs<'_> {
    /// Pairs two nodes and all before them.
    fn lay(&mut self, t: ValueId, g: ValueId) -> Result<(), String> {
        let (wanted, node) = (&self.template.nodes[t], &self.graph.nodes[g]);
        let misfit = |what: &str| {
            Err(format!("{} is {what}, where {} is expected", title(node), title(wanted)))
        };
        if let Some(&before) = self.found.get(&t) {
            return if before == g { Ok(()) } else { misfit("another value") };
        }
        match (&wanted.op, &node.op) {
            (NodeOp::Input, _) if g == self.start => {}
            (NodeOp::Conv2d(a), NodeOp::Conv2d(b)) => {
                let window =
                    |conv: &Conv| (conv.filter, conv.stride, conv.padding, conv.bias.len());
                if window(a) != window(b) || a.weights.len() != b.weights.len() {
                    return misfit("one of another filter, stride, padding or width");
                }
                if !b.activation.is_none() || b.residual {
                    return misfit("more than a convolution");
                }
            }
            (NodeOp::BatchNorm { .. }, NodeOp::BatchNorm { .. })
            | (NodeOp::Activation(Activation::RELU), NodeOp::Activation(Activation::RELU)) => {}
            (NodeOp::BatchNorm { .. }, NodeOp::Conv2d(_)) => {
                self.found.insert(t, g);
                return self.lay(wanted.inputs[0], g);
            }
            (NodeOp::Pool2d { .. }, NodeOp::Pool2d { .. }) if wanted.op == node.op => {}
            // One window needs no stride.
            (
                NodeOp::Pool2d { kind: a, filter: from, padding: before, .. },
                NodeOp::Pool2d { kind: b, filter: to, padding: after, .. },
            ) if node.shape.pixels() == 1 && (a, from, before) == (b, to, after) => {}
            (NodeOp::Pool2d { .. }, NodeOp::Pool2d { .. }) => {
                return misfit("one of another window or padding");
            }
            (NodeOp::Add, NodeOp::Add) => {
                let (&[a, b], &[c, d]) = (&wanted.inputs[..], &node.inputs[..]) else {
                    return misfit("no sum of two");
                };
                self.found.insert(t, g);
                let before = self.found.clone();
                let Err(first) = self.lay(a, c).and_then(|()| self.lay(b, d)) else {
                    return Ok(());
                };
                let reached = core::mem::replace(&mut self.found, before).len();
                let second = self.lay(a, d).and_then(|()| self.lay(b, c));
                // Whichever way leads further is the one that was meant.
                return second.map_err(
                    |second| {
                        if reached > self.found.len() { first } else { second }
                    },
                );
            }
            _ => return misfit("something else"),
        }
        self.found.insert(t, g);
        match (wanted.inputs.first(), node.inputs.first()) {
            (Some(&t), Some(&g)) => self.lay(t, g),
            _ => Ok(()),
        }
    }

    /// The weights under canonical names.
    fn tensors(&self, config: &Architecture) -> Result<BTreeMap<String, Tensor>, String> {
        let shapes: BTreeMap<String, Vec<usize>> = config.blueprint().tensors().collect();
        let mut found = BTreeMap::new();
        for (&t, &g) in &self.found {
            let (name, node) = (&self.template.nodes[t].name, &self.graph.nodes[g]);
            match (&self.template.nodes[t].op, &node.op) {
                (NodeOp::Conv2d(_), NodeOp::Conv2d(conv)) => {
                    let weight = format!("{name}.weight");
                    let shape = shapes.get(&weight).map_or(&[][..], Vec::as_slice);
                    found.insert(weight, Tensor::from_f32(shape, &conv.weights));
                    let bias = format!("{name}.bias");
                    if let Some(shape) = shapes.get(&bias) {
                        found.insert(bias, Tensor::from_f32(shape, &conv.bias));
                    } else if conv.bias.iter().any(|b| *b != 0.0) && !self.is_normalized(t) {
                        return Err(format!(
                            "{} has a bias, and no batch-norm after it",
                            title(node)
                        ));
                    }
                }
                (NodeOp::BatchNorm { .. }, NodeOp::Conv2d(conv)) => {
                    identity_batch_norm(&mut found, name, &conv.bias);
                }
                (
                    NodeOp::BatchNorm { .. },
                    NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon },
                ) => {
                    let mut mean = mean.clone();
                    // A bias of the convolution before it.
                    let before = self.found.get(&self.template.nodes[t].inputs[0]);
                    if let Some(NodeOp::Conv2d(conv)) = before.map(|&g| &self.graph.nodes[g].op) {
                        mean.iter_mut().zip(&conv.bias).for_each(|(mean, bias)| *mean -= bias);
                    }
                    let ours = f64::from(BATCH_NORM_EPSILON as f32);
                    let shifted = |v: &f32| {
                        let sum = f64::from(*v) + f64::from(*epsilon) - ours;
                        // NaN stays, and is found by the checkpoint's check.
                        if sum < 0.0 { 0.0 } else { sum as f32 }
                    };
                    let variance: Vec<f32> = variance.iter().map(shifted).collect();
                    for (part, values) in
                        [("gamma", gamma), ("beta", beta), ("mean", &mean), ("variance", &variance)]
                    {
                        let tensor = Tensor::from_f32(&[values.len()], values);
                        found.insert(format!("{name}.{part}"), tensor);
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether a batch-norm alone reads a convolution of the template.
    fn is_normalized(&self, t: ValueId) -> bool {
        let mut readers = self.template.nodes.iter().filter(|node| node.inputs.contains(&t));
        readers.next().is_some_and(|node| matches!(node.op, NodeOp::BatchNorm { .. }))
            && readers.next().is_none()
    }
}
