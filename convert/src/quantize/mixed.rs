//! Layers of an int8 network that are computed in floats, since int8 costs too much there.
//!
//! Such a layer has f16 weights and f32 maps; where its neighbours are int8, casts stand between.

use super::calibrate::logits;
use super::post_training::{QuantizeError, Quantized, Trial, evenly};
use crate::emit::edge::Attributes;
use artifact::Quant;
use network::graph::{Graph, Node, NodeOp, ValueId};

/// A graph with casts between layers of different number formats.
#[derive(Debug, Clone)]
pub(crate) struct WithCasts {
    pub(crate) graph: Graph,
    /// Of each node, the node of the graph without casts that has its value.
    pub(crate) origins: Vec<ValueId>,
    /// Whether a node's value is a float.
    pub(crate) floats: Vec<bool>,
}

/// The nodes that a quantized source has left in floats: those of whose value, operands or weights it
/// does not say how int8 stores them. `None` of a source in floats, which has nothing else.
pub(crate) fn left_in_floats(graph: &Graph) -> Option<Vec<bool>> {
    let is_stored = |id: &ValueId| graph.nodes[*id].quant.is_some();
    let is_float = |(id, node): (ValueId, &Node)| {
        let has_floats = matches!(&node.op, NodeOp::Conv2d(conv) if conv.weight_scales.is_empty());
        has_floats || !is_stored(&id) || !node.inputs.iter().all(is_stored)
    };
    let floats: Vec<bool> = graph.nodes.iter().enumerate().map(is_float).collect();
    let is_int8 = |(node, float): (&Node, &bool)| matches!(node.op, NodeOp::Conv2d(_)) && !float;
    graph.nodes.iter().zip(&floats).any(is_int8).then_some(floats)
}

/// Puts a cast behind each value that is read in another number format than it has: `floats` tells
/// which nodes are computed in floats. What such a node says to be stored in int8 is, for all readers.
pub(crate) fn insert_casts(graph: &Graph, floats: &[bool]) -> WithCasts {
    let mut new = WithCasts {
        graph: Graph { name: graph.name.clone(), nodes: Vec::new() },
        origins: Vec::new(),
        floats: Vec::new(),
    };
    let mut push = |node: Node, origin: ValueId, float: bool| {
        new.graph.nodes.push(Node { quant: node.quant.filter(|_| !float), ..node });
        new.origins.push(origin);
        new.floats.push(float);
        new.origins.len() - 1
    };
    let cast = |value: ValueId, from: ValueId, float: bool| {
        let source = &graph.nodes[value];
        let name = format!("{}.{}", source.name, if float { "float" } else { "int8" });
        Node { name, op: NodeOp::Cast, inputs: vec![from], ..source.clone() }
    };
    // Of each old node, the new ones with its value in int8 and in floats.
    let mut places: Vec<[Option<ValueId>; 2]> = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        let float = floats[id];
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            let [own, other] = [float, !float].map(|format| places[input][usize::from(format)]);
            inputs.push(match (own, other) {
                (Some(own), _) => own,
                (None, Some(other)) => push(cast(input, other, float), input, float),
                (None, None) => input,
            });
            places[input][usize::from(float)] = inputs.last().copied();
        }
        let own = push(Node { inputs, ..node.clone() }, id, float);
        places.push(if !float {
            [Some(own), None]
        } else if node.quant.is_some() {
            [Some(push(cast(id, own, false), id, false)), None]
        } else {
            [None, Some(own)]
        });
    }
    new
}

/// The graph without what a quantized source says of the nodes that `floats` tells.
pub(crate) fn without_quants(graph: &Graph, floats: &[bool]) -> Graph {
    let mut graph = graph.clone();
    for (node, _) in graph.nodes.iter_mut().zip(floats).filter(|(_, float)| **float) {
        node.quant = None;
    }
    graph
}

impl Quantized {
    /// The same network, made of `source`, with the nodes in floats that `floats` tells; it has none
    /// yet.
    pub(crate) fn with_floats(&self, source: &Graph, floats: &[bool]) -> Self {
        // There, nothing has to make up for rounded weights.
        let clean = self.equalized.as_ref().unwrap_or(source);
        let mut graph = without_quants(&self.graph, floats);
        for (id, node) in graph.nodes.iter_mut().enumerate().filter(|(id, _)| floats[*id]) {
            node.op = clean.nodes[id].op.clone();
        }
        let WithCasts { graph, origins, floats: is_float } = insert_casts(&graph, floats);
        let place = |node: ValueId| origins.iter().position(|&o| o == node).unwrap_or(0);
        Self {
            quants: (origins.iter().zip(&is_float))
                .map(|(&id, &float)| if float { Quant::FLOAT } else { self.quants[id] })
                .collect(),
            methods: (origins.iter().zip(&is_float))
                .map(|(&id, &float)| self.methods[id].filter(|_| !float))
                .collect(),
            outliers: (self.outliers.iter())
                .map(|outlier| super::Outlier { node: place(outlier.node), ..*outlier })
                .collect(),
            equalized: (self.equalized.as_ref())
                .map(|graph| insert_casts(&without_quants(graph, floats), floats).graph),
            is_corrected: self.is_corrected,
            is_rounded_adaptively: self.is_rounded_adaptively,
            graph,
        }
    }

    /// Share of the multiply-accumulates that are computed in floats, 0..=1.
    pub fn float_share(&self) -> f64 {
        let floats = self.graph.nodes.iter().zip(&self.quants).filter(|(_, q)| q.is_float());
        floats.map(|(node, _)| node.macs()).sum::<u64>() as f64 / self.graph.macs().max(1) as f64
    }
}

/// Most pictures that layers are judged by, and the least.
const PICTURES: [usize; 2] = [64, 8];
/// Multiply-accumulates that judging them may take, unless the least number of pictures does.
const BUDGET: u64 = 400_000_000_000;

/// The nodes of an int8 network that compute something, those first whose int8 costs most: each is
/// computed in int8 in turn, all others in floats, and judged by the logits of some `pictures`. The
/// network was made of `graph`, whose device file is `float`.
///
/// # Errors
/// A network that does not run.
pub fn sensitivity(
    graph: &Graph,
    int8: &Quantized,
    float: &[u8],
    pictures: &[Vec<f32>],
    attributes: &Attributes<'_>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<ValueId>, QuantizeError> {
    let count = int8.graph.nodes.len();
    let affordable = BUDGET / (count as u64 * int8.graph.macs()).max(1);
    let most = usize::try_from(affordable).unwrap_or(usize::MAX).clamp(PICTURES[1], PICTURES[0]);
    let pictures = evenly(pictures, most);
    let trial = Trial { attributes, wanted: logits(float, &pictures)?, pictures: &pictures };
    let mut errors = Vec::with_capacity(count);
    for id in 1..count {
        let floats: Vec<bool> = (0..count).map(|other| other > 0 && other != id).collect();
        let mixed = int8.with_floats(graph, &floats);
        errors.push((id, trial.error(&mixed.graph, &mixed.quants)?));
        progress(id, count - 1);
    }
    errors.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(errors.into_iter().map(|(id, _)| id).collect())
}
