//! Which convolutions take turns on a microcontroller, see [`artifact::stripes`].
//!
//! A residual block of two convolutions needs its input, the map between and its output at a time:
//! two whole maps, where the output lies over the input. Row by row, only the lines between that the
//! second convolution reads have to exist, and nothing is computed twice.

use super::block::Block;
use super::{MemoryPlan, PlanError};
use artifact::stripes::follows;
use artifact::{Clamp, Conv2d, Dtype, Grouped, Padding, Place, Quant, Shape, Span};
use network::graph::{Conv, Graph, NodeOp};

/// A value that has no place yet.
pub(crate) fn nowhere(shape: Shape) -> Place {
    Place { offset: 0, shape, quant: Quant::NONE }
}

/// The record of a convolution, as far as it does not need its weights.
pub(crate) fn record(conv: &Conv, input: Place, output: Place) -> Grouped {
    let nothing = Span { offset: 0, len: 0 };
    let record = Conv2d {
        input,
        output,
        filter: conv.filter,
        stride: conv.stride,
        padding: conv.padding,
        lines: 0,
        weights: nothing,
        scratch: None,
        pairs_fit: false,
        params: nothing,
        residual: None,
        clamp: Clamp::None,
    };
    Grouped { groups: conv.groups, conv: record }
}

/// The block that ends at node `last`, with turns of `rows`.
fn block(graph: &Graph, dtypes: &[Dtype], last: usize, rows: u16) -> Option<Block> {
    let conv = |id: usize| match &graph.nodes[id].op {
        NodeOp::Conv2d(conv) if dtypes[id] == Dtype::I8 => Some(conv),
        _ => None,
    };
    let is_read_once = |id: usize| {
        let reads = |inputs: &[usize]| inputs.iter().filter(|i| **i == id).count();
        graph.nodes.iter().map(|n| reads(&n.inputs)).sum::<usize>() == 1
    };
    let end = conv(last)?;
    let inputs = &graph.nodes[last].inputs;
    let (main, residual) = (inputs[0], inputs.get(1).copied());
    let before = conv(main).filter(|c| !c.residual && is_read_once(main))?;
    let input = graph.nodes[main].inputs[0];
    let is_shortcut = |id: &usize| {
        let one_row = |c: &Conv| {
            c.filter[0] == 1
                && c.padding == Padding::default()
                && c.stride == before.stride
                && !c.residual
        };
        *id != input
            && id.abs_diff(main) == 1
            && is_read_once(*id)
            && graph.nodes[*id].inputs == [input]
            && conv(*id).is_some_and(one_row)
    };
    let shortcut = residual.filter(is_shortcut);
    let first = shortcut.map_or(main, |s| s.min(main));
    let is_together = last - first == 1 + usize::from(shortcut.is_some());
    let shape = |id: usize| graph.nodes[id].shape;
    let mut block = Block {
        first,
        last,
        main,
        rows,
        window: [end.filter[0], end.stride[0]],
        over_input: false,
    };
    let lines = block.lines(main);
    if !is_together || lines >= shape(main).h || rows >= shape(last).h {
        return None;
    }
    let adds_other = residual.is_none() || shortcut.is_some();
    block.over_input = adds_other
        && shape(last).len() <= shape(input).len()
        && follows(
            &Conv2d { lines, ..record(before, nowhere(shape(input)), nowhere(shape(main))).conv },
            &record(end, nowhere(shape(main)), nowhere(shape(last))).conv,
        );
    Some(block)
}

/// Part of the smallest arena that turns of more rows, which are fewer and faster, may add to it.
const SLACK: usize = 8;

/// Blocks of int8 convolutions that make the arena small, as `plan` plans it, and its plan.
///
/// # Errors
/// Those of `plan`.
pub fn choose(
    graph: &Graph,
    dtypes: &[Dtype],
    plan: impl Fn(&[Block]) -> Result<MemoryPlan, PlanError>,
) -> Result<(Vec<Block>, MemoryPlan), PlanError> {
    let mut plans = vec![(Vec::new(), plan(&[])?)];
    // Three windows are computed at a time: rows by threes leave no rest.
    for rows in [9, 6, 3, 1] {
        let mut blocks: Vec<Block> = Vec::new();
        for last in 0..graph.nodes.len() {
            let free = blocks.last().map_or(0, |b| b.last + 1);
            blocks.extend(block(graph, dtypes, last, rows).filter(|b| b.first >= free));
        }
        let mut planned = plan(&blocks)?;
        // Whole maps where lines save nothing.
        for index in (0..blocks.len()).rev() {
            let removed = blocks.remove(index);
            let without = plan(&blocks)?;
            if without.arena_len <= planned.arena_len {
                planned = without;
            } else {
                blocks.insert(index, removed);
            }
        }
        plans.push((blocks, planned));
    }
    let least = plans.iter().map(|(_, plan)| plan.arena_len).min().unwrap_or(0);
    let enough = |(_, plan): &(_, MemoryPlan)| plan.arena_len <= least + least / SLACK;
    let index = plans.iter().position(enough).unwrap_or(0);
    Ok(plans.swap_remove(index))
}

#[cfg(test)]
mod tests {
    use crate::pipeline::{Options, convert};
    use crate::target::Target;
    use artifact::writer::{Blob, Contents, write};
    use artifact::{Artifact, Op};
    use network::architecture::Architecture;
    use network::init::random_checkpoint;
    use network::model::FloatModel;
    use network::random::Rng;
    use runtime::{AlignedBuf, Model, Session};

    fn file(name: &str, size: u16, target: Target) -> Vec<u8> {
        let config = Architecture::named(name, 5).unwrap();
        let checkpoint = random_checkpoint(config, size, 3).unwrap();
        let pixels = usize::from(size) * usize::from(size) * 3;
        let picture = (0..pixels).map(|i| (i * 7919 % 256) as f32 / 128.0 - 1.0).collect();
        let options = Options { target, fixed_point: true, ..Options::default() };
        convert(&FloatModel::from_checkpoint(&checkpoint).unwrap(), &[picture], options, |_, _| ())
            .unwrap()
            .emitted
            .bytes
    }

    /// Logits, or nothing of a model that is refused.
    fn logits(file: &[u8]) -> Option<Vec<i8>> {
        let file = AlignedBuf::from_slice(file);
        let model = Model::new(&file).ok()?;
        let mut arena = AlignedBuf::zeroed(model.arena_len());
        let mut session = Session::new(&model, &mut arena).unwrap();
        let mut input = session.input_mut();
        for i in 0..input.len() {
            input.set(i, (i * 31 % 256) as f32 / 128.0 - 1.0);
        }
        session.run().as_i8().map(<[i8]>::to_vec)
    }

    #[test]
    fn turns_give_the_same_bytes() {
        // Basic and bottleneck blocks, those with the activation first, odd maps. How many
        // convolutions wait for another: none where the arena is the stem's.
        for (name, size, count) in [
            ("resnet_8_cifar", 32, 3),
            ("resnet_8_cifar", 45, 3),
            ("resnet_20_cifar", 32, 5),
            ("resnet_18", 64, 0),
            ("resnet_50", 70, 0),
            ("resnet_v2_50", 64, 0),
            ("resnet_vd_18", 64, 0),
        ] {
            let device = file(name, size, Target::CortexM);
            let waiting = Artifact::parse(&device).unwrap().ops().filter(|op| op.lines() > 0);
            assert_eq!(waiting.count(), count, "{name} {size}");
            assert_eq!(logits(&device), logits(&file(name, size, Target::Host)), "{name} {size}");
        }
    }

    #[test]
    fn spoiled_turns_are_refused_or_run() {
        let device = file("resnet_8_cifar", 32, Target::CortexM);
        let artifact = Artifact::parse(&device).unwrap();
        let header = artifact.header();
        let sound: Vec<Op> = artifact.ops().collect();
        let mut rng = Rng::keyed(&[7]);
        let mut refused = 0;
        for round in 0..400 {
            let mut ops = sound.clone();
            let at = rng.below(ops.len());
            let other = sound[rng.below(ops.len())];
            if let Op::Conv2d(conv) = &mut ops[at] {
                match round % 7 {
                    0 => conv.lines = rng.below(12) as u16,
                    1 => conv.output.offset = rng.below(400) as u32 * 64,
                    2 => conv.input.offset = rng.below(400) as u32 * 64,
                    3 => conv.input = other.output(),
                    4 => conv.output = other.output(),
                    5 => conv.padding.top = rng.below(3) as u8,
                    _ => conv.scratch = other.scratch(),
                }
            }
            if rng.below(8) == 0 {
                ops.swap(at, (at + 1) % sound.len());
            }
            let mut blob = Blob::new();
            blob.push(&device[header.blob_offset()..]).unwrap();
            let labels: Vec<&str> = artifact.labels().collect();
            let (dtype, nr, arena_len) = (header.dtype, header.nr, header.arena_len);
            let meta = *artifact.meta();
            let contents =
                Contents { dtype, nr, arena_len, meta, labels: &labels, ops: &ops, blob };
            match write(contents) {
                Ok(file) => assert!(logits(&file).is_some()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 200, "only {refused} of 400 were refused");
    }
}
