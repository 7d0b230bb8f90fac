//! Memory planning: from live ranges of values to offsets in one arena.
//!
//! Each value of the graph lives from the node that writes it to the last node that reads
//! it. Values that a node may overwrite in place (a residual added here for the last time,
//! the input of an affine or a gate) share a *buffer*. Buffers are placed largest first, each at the lowest
//! offset where no buffer that lives at the same time lies. Convolutions of a [`Block`] take turns,
//! and keep few lines of the maps between them.

pub mod block;
pub mod stripes;

use artifact::layout::{activation_bytes, align_up};
use artifact::{Dtype, Shape};
use block::Block;
use network::graph::{Graph, Node, NodeOp, ValueId};

/// Where the values of a graph lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Byte offset of each value.
    pub offsets: Vec<usize>,
    /// Bytes of each value, with its pad pixel where it has one.
    pub bytes: Vec<usize>,
    /// First and last node at which each value lives.
    pub live: Vec<[usize; 2]>,
    /// Offset and bytes of each node's scratch, where it has some.
    pub scratch: Vec<Option<(usize, usize)>>,
    /// Bytes of the arena.
    pub arena_len: usize,
}

/// Why a graph has no plan.
#[derive(Debug, thiserror::Error)]
#[error("node `{node}`: an activation of {shape:?} does not fit into 2 GiB; use smaller pictures")]
pub struct PlanError {
    /// Node name.
    pub node: String,
    /// Its shape.
    pub shape: Shape,
}

struct Buffer {
    /// None: a node's scratch.
    values: Vec<ValueId>,
    bytes: usize,
    live: [usize; 2],
}

/// The value that node `id` may write over, if that node is its last reader.
fn reusable(graph: &Graph, id: usize, live: &[[usize; 2]]) -> Option<ValueId> {
    let node = &graph.nodes[id];
    let candidate = match &node.op {
        NodeOp::Conv2d(conv) if conv.residual && node.inputs[0] != node.inputs[1] => node.inputs[1],
        NodeOp::Affine { .. } | NodeOp::Activation(_) => node.inputs[0],
        NodeOp::Gate { .. } if node.inputs[0] != node.inputs[1] => node.inputs[0],
        _ => return None,
    };
    (live[candidate][1] == id && graph.nodes[candidate].shape == node.shape).then_some(candidate)
}

/// Plans the arena of an optimized graph in panels of `nr`; `dtypes` are the number formats of its
/// values, `scratch` the bytes that each node takes beside its value while it runs, `stripes` the
/// convolutions that take turns.
///
/// # Errors
/// An activation of more than 2 GiB.
pub fn plan(
    graph: &Graph,
    dtypes: &[Dtype],
    nr: usize,
    scratch: &[Option<usize>],
    stripes: &[Block],
) -> Result<MemoryPlan, PlanError> {
    let turns = Turns { stripes };
    let live = live_ranges(graph, turns);
    let bytes = value_bytes(graph, dtypes, nr, turns)?;
    let mut buffers = share_buffers(graph, &live, &bytes, turns);
    let scratch_of = add_scratch(&mut buffers, scratch, turns);
    let (at, arena_len) = place(&buffers, &live, &bytes);
    let mut offsets = vec![0; graph.nodes.len()];
    for (buffer, &offset) in buffers.iter().zip(&at) {
        buffer.values.iter().for_each(|&value| offsets[value] = offset);
    }
    let scratch = (scratch_of.into_iter().zip(scratch))
        .map(|(buffer, bytes)| Some((at[buffer?], (*bytes)?)))
        .collect();
    Ok(MemoryPlan { offsets, bytes, live, scratch, arena_len })
}

/// When nodes run: those that take turns at one time, that of the last.
#[derive(Clone, Copy)]
struct Turns<'a> {
    stripes: &'a [Block],
}

impl<'a> Turns<'a> {
    fn block(self, id: usize) -> Option<&'a Block> {
        self.stripes.iter().find(|b| (b.first..=b.last).contains(&id))
    }

    fn time(self, id: usize) -> usize {
        self.block(id).map_or(id, |b| b.last)
    }
}

/// First and last time of each value.
fn live_ranges(graph: &Graph, turns: Turns<'_>) -> Vec<[usize; 2]> {
    let mut live: Vec<[usize; 2]> = (0..graph.nodes.len()).map(|id| [turns.time(id); 2]).collect();
    for (id, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            live[input][1] = turns.time(id);
        }
    }
    live
}

/// Bytes of each value, or of the lines of it that exist.
fn value_bytes(
    graph: &Graph,
    dtypes: &[Dtype],
    nr: usize,
    turns: Turns<'_>,
) -> Result<Vec<usize>, PlanError> {
    let bytes = |(id, node): (usize, &Node)| {
        let lines = turns.block(id).map_or(0, |b| b.lines(id));
        let h = if lines > 0 { lines } else { node.shape.h };
        activation_bytes(Shape { h, ..node.shape }, dtypes[id], nr)
            .ok_or_else(|| PlanError { node: node.name.clone(), shape: node.shape })
    };
    graph.nodes.iter().enumerate().map(bytes).collect()
}

/// A buffer for each value, or that of a value that it may write over.
fn share_buffers(
    graph: &Graph,
    live: &[[usize; 2]],
    bytes: &[usize],
    turns: Turns<'_>,
) -> Vec<Buffer> {
    let mut buffer_of: Vec<usize> = Vec::with_capacity(live.len());
    let mut buffers: Vec<Buffer> = Vec::new();
    for id in 0..live.len() {
        let block = turns.block(id);
        let over = block.filter(|b| b.last == id && b.over_input);
        let over = over.map(|b| graph.nodes[b.first].inputs[0]).filter(|x| live[*x][1] == id);
        // Of a value that is not whole, there is nothing to write over.
        let is_whole = |old: &ValueId| block.is_none_or(|b| *old < b.first);
        if let Some(old) = over.or_else(|| reusable(graph, id, live).filter(is_whole)) {
            let buffer = buffer_of[old];
            buffers[buffer].values.push(id);
            buffers[buffer].live[1] = live[id][1];
            buffer_of.push(buffer);
        } else {
            buffer_of.push(buffers.len());
            buffers.push(Buffer { values: vec![id], bytes: bytes[id], live: live[id] });
        }
    }
    buffers
}

/// Appends the buffers of nodes' scratch, of which those that take turns share theirs; gives that of
/// each node.
fn add_scratch(
    buffers: &mut Vec<Buffer>,
    scratch: &[Option<usize>],
    turns: Turns<'_>,
) -> Vec<Option<usize>> {
    let mut shared: Vec<(usize, usize)> = Vec::new(); // time, buffer
    let mut add = |(id, bytes): (usize, &Option<usize>)| {
        let (time, bytes) = (turns.time(id), align_up((*bytes)?));
        let buffer = match shared.iter().find(|(t, _)| *t == time) {
            Some((_, buffer)) => *buffer,
            None => {
                buffers.push(Buffer { values: Vec::new(), bytes, live: [time; 2] });
                shared.push((time, buffers.len() - 1));
                buffers.len() - 1
            }
        };
        buffers[buffer].bytes = bytes.max(buffers[buffer].bytes);
        Some(buffer)
    };
    scratch.iter().enumerate().map(&mut add).collect()
}

/// The offset of each buffer, the largest first, each at the lowest free one; and the arena's length.
fn place(buffers: &[Buffer], live: &[[usize; 2]], bytes: &[usize]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&b| (core::cmp::Reverse(buffers[b].bytes), buffers[b].live[0]));
    let mut offsets = vec![0; buffers.len()];
    let mut arena_len = 0;
    for (i, &b) in order.iter().enumerate() {
        // Of another buffer, what its values take that live at the same time.
        let overlaps = |a: [usize; 2]| a[0] <= buffers[b].live[1] && buffers[b].live[0] <= a[1];
        let taken_by = |other: &Buffer| {
            let values = other.values.iter().filter(|v| overlaps(live[**v]));
            let values = values.map(|v| bytes[*v]).max();
            if other.values.is_empty() { other.bytes } else { values.unwrap_or(0) }
        };
        let others = order[..i].iter().filter(|other| overlaps(buffers[**other].live));
        let mut taken: Vec<(usize, usize)> =
            others.map(|&o| (offsets[o], offsets[o] + taken_by(&buffers[o]))).collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + buffers[b].bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        offsets[b] = offset;
        arena_len = arena_len.max(offset + buffers[b].bytes);
    }
    (offsets, arena_len)
}
