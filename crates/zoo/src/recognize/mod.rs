//! The network of ours in a graph, so that the training of a model that others saved can go on.
//!
//! What the graph looks like suggests an [`Architecture`]; the graph that follows from it is then laid
//! over the one that was found, node by node from the logits to the picture, which tells which
//! weights are whose. Our convolutions have no bias and our batch-norms one ε; both are folded into
//! the statistics: `mean − bias`, `variance + ε − ours`. Numbers per channel that the picture meets
//! first become part of its preprocessing. Of what is quantized, the numbers that its integers stand for are
//! taken.

mod mobilenet;
mod resnet;
#[cfg(test)]
mod tests;

use crate::assemble::{add_head, assemble, draft, identity_batch_norm};
use crate::{Head, ImportError};
use artifact::text::AsPlain;
use artifact::{Preprocess, Shape};
use network::activation::Activation;
use network::architecture::{Architecture, Family};
use network::blueprint::BATCH_NORM_EPSILON;
use network::checkpoint::{Assumption, Checkpoint, Draft, Tensor};
use network::graph::{Conv, Graph, Node, NodeOp, ValueId};
use network::imagenet;
use network::model::FloatModel;
use network::padding::ConvPadding;
use std::collections::BTreeMap;
use std::path::Path;

/// The checkpoint of a model whose graph is a network of a family of ours.
///
/// # Errors
/// Graphs of other networks, with the first place that does not fit; none with scores where they are asked for.
pub(crate) fn recognize(
    path: &Path,
    model: &FloatModel,
    head: Head,
) -> Result<Checkpoint, ImportError> {
    let unsupported = |what: String| {
        ImportError::unsupported(
            path,
            format!(
                "a network that `convert` takes, but that cannot be trained further, since it is no \
                 ResNet, MobileNet or EfficientNet as `trainer` builds them ({what})"
            ),
        )
    };
    let graph = &model.graph;
    let (start, preprocess) = prepared(graph, model.preprocess).map_err(unsupported)?;
    let is_grouped = |node: &Node| matches!(&node.op, NodeOp::Conv2d(conv) if conv.groups > 1);
    let config = match graph.nodes.iter().any(is_grouped) {
        true => mobilenet::architecture(graph, start),
        false => resnet::architecture(graph, start),
    };
    let config = config.map_err(unsupported)?;
    let has_head = mobilenet::has_head(graph);
    if !has_head && head == Head::Required {
        return Err(unsupported("it ends in features, not in scores: fine-tune it".into()));
    }
    let labels = match has_head {
        true => model.labels.clone(),
        false => imagenet::labels_of(config.classes),
    };
    let mut assumed: Vec<Assumption> =
        model.notes.iter().map(|note| Assumption::new(note, None)).collect();
    if graph.nodes.iter().any(|node| node.quant.is_some()) {
        assumed.push(Assumption::new("floats, of weights that were integers", None));
    }
    let mut misfit = String::new();
    for padding in [ConvPadding::Same, ConvPadding::Symmetric] {
        let mut config = config.clone();
        match &mut config.family {
            Family::ResNet(resnet) => resnet.padding = padding,
            Family::MobileNet(mobilenet) => mobilenet.padding = padding,
        }
        let template = template(&config, preprocess).map_err(unsupported)?;
        let mut pairs = Pairs { template: &template, graph, start, found: BTreeMap::new() };
        // Without a head, what it would read.
        let end = if has_head { template.output() } else { template.output() - 1 };
        match pairs.lay(end, graph.output()) {
            Ok(()) => {
                let mut found = pairs.tensors(&config).map_err(unsupported)?;
                add_head(&config, &mut found);
                let tensors = assemble(path, &config, found, Vec::new())?;
                let samples = model.samples.clone();
                let found =
                    Draft { samples, assumed, ..draft(config, labels, preprocess, tensors) };
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
                let window = |c: &Conv| (c.filter, c.stride, c.padding, c.groups, c.bias.len());
                if window(a) != window(b) || a.weights.len() != b.weights.len() {
                    return misfit("one of another filter, stride, padding or width");
                }
                if !b.activation.is_none() || b.residual {
                    return misfit("more than a convolution");
                }
            }
            (NodeOp::BatchNorm { .. }, NodeOp::BatchNorm { .. }) => {}
            (NodeOp::Activation(a), NodeOp::Activation(b)) if a == b => {}
            (NodeOp::Activation(a), NodeOp::Activation(b)) => {
                return Err(format!("{} is {}, not {}", title(node), b.name(), a.name()));
            }
            (NodeOp::Gate { activation: a }, NodeOp::Gate { activation: b }) if a == b => {
                let (&[map, factors], &[x, s]) = (&wanted.inputs[..], &node.inputs[..]) else {
                    return misfit("no product of two");
                };
                self.found.insert(t, g);
                return self.lay(factors, s).and_then(|()| self.lay(map, x));
            }
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
                    let floats = Tensor::from_f32(shape, &conv.weights);
                    // Bytes stay bytes, where all have the same steps.
                    let step = conv.weight_scales.iter().copied().fold(0.0, f32::max);
                    found.insert(weight, floats.in_steps_of(step).unwrap_or(floats));
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
