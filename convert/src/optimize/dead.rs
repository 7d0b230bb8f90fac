//! Removal of nodes that nothing reads.

use network::graph::{Graph, ValueId};

/// Removes every node that the logits do not depend on; the input stays, as does the order.
pub fn remove_dead(graph: &mut Graph) {
    let mut live = vec![false; graph.nodes.len()];
    live[0] = true;
    live[graph.output()] = true;
    // Operands come before their readers, so one pass from the end finds everything.
    for id in (0..graph.nodes.len()).rev() {
        if live[id] {
            for &input in &graph.nodes[id].inputs {
                live[input] = true;
            }
        }
    }
    let mut new_ids: Vec<ValueId> = Vec::with_capacity(live.len());
    let mut kept = 0;
    for &alive in &live {
        new_ids.push(kept);
        kept += usize::from(alive);
    }
    let mut alive = live.into_iter();
    graph.nodes.retain(|_| alive.next().unwrap_or(true));
    for input in graph.nodes.iter_mut().flat_map(|n| &mut n.inputs) {
        *input = new_ids[*input];
    }
}

/// Makes every reader of a value read its replacement; replacements come earlier in the order.
///
/// Where the logits themselves are replaced, the nodes after the replacement are dropped.
pub(super) fn redirect(graph: &mut Graph, replacement: &[ValueId]) {
    for input in graph.nodes.iter_mut().flat_map(|n| &mut n.inputs) {
        *input = replacement[*input];
    }
    let output = replacement[graph.output()];
    graph.nodes.truncate(output + 1);
}
