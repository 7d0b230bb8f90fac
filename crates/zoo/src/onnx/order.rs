//! The order of nodes. ONNX wants each behind what it reads; some tools, such as converters to fp16,
//! append nodes, and engines do not mind.

use core::cmp::Reverse;
use formats::onnx as proto;
use std::collections::{BinaryHeap, HashMap};

/// The places of all nodes, each behind those that it reads, and else as they are. What reads itself
/// in a circle comes last.
pub(super) fn order(nodes: &[proto::Node]) -> Vec<usize> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for output in &node.output {
            makers.entry(output).or_insert(i);
        }
    }
    let (mut readers, mut waits) = (vec![Vec::new(); nodes.len()], vec![0; nodes.len()]);
    for (i, node) in nodes.iter().enumerate() {
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if let Some(&maker) = makers.get(input.as_str()) {
                readers[maker].push(i);
                waits[i] += 1;
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&i| waits[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &reader in &readers[i] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    order.extend((0..nodes.len()).filter(|&i| waits[i] > 0));
    order
}
