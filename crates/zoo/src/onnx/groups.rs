//! Channels that a Reshape takes apart into groups, a Transpose puts into another order, and a second
//! Reshape side by side again, as ShuffleNets do: the same map, and which of its channels is meant.

use super::Map;
use super::constant::MAX_RANK;
use artifact::Shape;
use core::ops::Range;
use network::graph::Graph;

/// A map whose channels fill several dimensions of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Groups {
    map: Map,
    /// The dimensions that the first Reshape made.
    dims: Vec<usize>,
    /// Those of them that count channels.
    parts: Range<usize>,
    /// Which of them each dimension is now.
    order: Vec<usize>,
}

impl Groups {
    /// A map of this shape, whose dimension of channels becomes several, and the others stay.
    pub(super) fn of(map: &Map, shape: Shape, dims: &[usize]) -> Option<Self> {
        let old = map.view.dims(shape);
        let axis = map.view.channel_axis()?;
        let count = (dims.len() + 1).checked_sub(old.len()).filter(|&count| count > 1)?;
        let parts = axis..axis + count;
        let is_split = dims.len() <= MAX_RANK
            && dims[..axis] == old[..axis]
            && dims[parts.end..] == old[axis + 1..]
            && dims[parts.clone()].iter().product::<usize>() == old[axis];
        let (map, dims, order) = (map.clone(), dims.to_vec(), (0..dims.len()).collect());
        (is_split && map.border.is_none() && !map.is_softmax).then_some(Self {
            map,
            dims,
            parts,
            order,
        })
    }

    /// Its dimensions.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.order.iter().map(|&i| self.dims[i]).collect()
    }

    /// Dimension `i` is the old `order[i]`.
    pub(super) fn transposed(&self, order: &[usize]) -> Option<Self> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        let order = order.iter().map(|&i| self.order.get(i).copied()).collect::<Option<_>>()?;
        sorted.into_iter().eq(0..self.order.len()).then(|| Self { order, ..self.clone() })
    }

    /// The map with its channels side by side in their new order; `None` where other dimensions lie
    /// between them.
    pub(super) fn joined(&self, graph: &Graph) -> Option<Map> {
        let Self { map, dims, parts, order } = self;
        let start = order.iter().position(|i| parts.contains(i))?;
        let run = order.get(start..start + parts.len())?;
        if !run.iter().all(|i| parts.contains(i)) {
            return None;
        }
        // Of each part, how many channels lie from one of its places to the next.
        let stride = |part: usize| dims[part + 1..parts.end].iter().product::<usize>();
        let mut channels = vec![0];
        for &part in run {
            let places =
                |&channel: &usize| (0..dims[part]).map(move |i| channel + i * stride(part));
            channels = channels.iter().flat_map(places).collect();
        }
        let axes = order
            .iter()
            .enumerate()
            .filter(|(at, _)| !(start + 1..start + parts.len()).contains(at));
        let axes = axes.map(|(_, &i)| match i {
            i if parts.contains(&i) => parts.start,
            i if i > parts.start => i + 1 - parts.len(),
            i => i,
        });
        let view = map.view.transposed(&axes.collect::<Vec<_>>())?;
        Some(Map { view: view.pick(&channels, graph.nodes[map.id].shape)?, ..map.clone() })
    }
}
