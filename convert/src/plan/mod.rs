//! Memory planning: from live ranges of values to offsets in one arena.
//!
//! Each value of the graph lives from the node that writes it to the last node that reads
//! it. Values that a node may overwrite in place (a residual added here for the last time,
//! an affine's input) share a *buffer*. Buffers are placed largest first, each at the lowest
//! offset where no buffer that lives at the same time lies. Convolutions of a [`Block`] take turns,
//! and keep few lines of the maps between them.

pub mod stripes;

use crate::plan::stripes::Block;
use artifact::layout::{activation_bytes, align_up};
use artifact::{Dtype, Shape};
use network::graph::{Graph, NodeOp, ValueId};

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
        NodeOp::Affine { .. } => node.inputs[0],
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
    let count = graph.nodes.len();
    // Convolutions that take turns run at one time, that of the last.
    let block_of = |id: usize| stripes.iter().find(|b| (b.first..=b.last).contains(&id));
    let time = |id: usize| block_of(id).map_or(id, |b| b.last);
    let mut live: Vec<[usize; 2]> = (0..count).map(|id| [time(id); 2]).collect();
    for (id, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            live[input][1] = time(id);
        }
    }
    let mut bytes = Vec::with_capacity(count);
    for (id, node) in graph.nodes.iter().enumerate() {
        let lines = block_of(id).map_or(0, |b| b.lines(id));
        let h = if lines > 0 { lines } else { node.shape.h };
        let size = activation_bytes(Shape { h, ..node.shape }, dtypes[id], nr)
            .ok_or_else(|| PlanError { node: node.name.clone(), shape: node.shape })?;
        bytes.push(size);
    }

    let mut buffer_of: Vec<usize> = Vec::with_capacity(count);
    let mut buffers: Vec<Buffer> = Vec::new();
    for id in 0..count {
        let over = block_of(id).filter(|b| b.last == id && b.over_input);
        let over = over.map(|b| graph.nodes[b.first].inputs[0]).filter(|x| live[*x][1] == id);
        // Of a value that is not whole, there is nothing to write over.
        let is_whole = |old: &ValueId| block_of(id).is_none_or(|b| *old < b.first);
        if let Some(old) = over.or_else(|| reusable(graph, id, &live).filter(is_whole)) {
            let buffer = buffer_of[old];
            buffers[buffer].values.push(id);
            buffers[buffer].live[1] = live[id][1];
            buffer_of.push(buffer);
        } else {
            buffer_of.push(buffers.len());
            buffers.push(Buffer { values: vec![id], bytes: bytes[id], live: live[id] });
        }
    }

    // Those that take turns share theirs.
    let mut shared: Vec<(usize, usize)> = Vec::new(); // time, buffer
    let scratch_of: Vec<Option<usize>> = (0..count)
        .map(|id| {
            let bytes = align_up(scratch.get(id).copied().flatten()?);
            let buffer = match shared.iter().find(|(t, _)| *t == time(id)) {
                Some((_, buffer)) => *buffer,
                None => {
                    buffers.push(Buffer { values: Vec::new(), bytes, live: [time(id); 2] });
                    shared.push((time(id), buffers.len() - 1));
                    buffers.len() - 1
                }
            };
            buffers[buffer].bytes = bytes.max(buffers[buffer].bytes);
            Some(buffer)
        })
        .collect();

    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&b| (core::cmp::Reverse(buffers[b].bytes), buffers[b].live[0]));
    let mut offsets = vec![0; count];
    let mut placed: Vec<(usize, usize)> = Vec::new(); // buffer, offset
    let mut arena_len = 0;
    for b in order {
        // Of another buffer, what its values take that live at the same time.
        let overlaps = |a: [usize; 2]| a[0] <= buffers[b].live[1] && buffers[b].live[0] <= a[1];
        let taken_by = |other: usize| {
            let values = buffers[other].values.iter().filter(|v| overlaps(live[**v]));
            let values = values.map(|v| bytes[*v]).max();
            if buffers[other].values.is_empty() {
                buffers[other].bytes
            } else {
                values.unwrap_or(0)
            }
        };
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(other, _)| overlaps(buffers[*other].live))
            .map(|&(other, at)| (at, at + taken_by(other)))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + buffers[b].bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        placed.push((b, offset));
        arena_len = arena_len.max(offset + buffers[b].bytes);
        for &value in &buffers[b].values {
            offsets[value] = offset;
        }
    }
    let offset_of = |buffer: usize| placed.iter().find(|(b, _)| *b == buffer).map(|(_, at)| *at);
    let scratch = (scratch_of.into_iter().zip(scratch))
        .map(|(buffer, bytes)| Some((offset_of(buffer?)?, (*bytes)?)))
        .collect();
    Ok(MemoryPlan { offsets, bytes, live, scratch, arena_len })
}
