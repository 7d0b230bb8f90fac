//! MobileNetV2 as torchvision writes it.
//!
//! | ours | torchvision |
//! |---|---|
//! | `stem_conv`, `stem_bn` | `features.0.0`, `features.0.1` |
//! | `block1_expand_conv`, `…_bn` | `features.2.conv.0.0`, `….0.1`; none where nothing is expanded |
//! | `…_depthwise_conv`, `…_bn` | `….conv.1.0`, `….1.1` |
//! | `…_project_conv`, `…_bn` | `….conv.2`, `….conv.3` |
//! | `last_conv`, `last_bn` | `features.18.0`, `features.18.1` |
//! | `predictions` | `classifier.1` |

use super::{Shapes, Traces};
use crate::Hints;
use network::activation::Activation;
use network::architecture::mobilenet::{Block, BlockType, MobileNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::{HEAD, Pooling};
use network::checkpoint::Assumption;
use network::padding::ConvPadding;

pub(super) const TRACES: Traces = Traces {
    stems: &[["features.0.0.weight", "features.1.conv.0.0.weight"]],
    backbone: &["features."],
    architecture,
};

/// Strides of the published network's stacks, and blocks of each.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];
const BLOCKS: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

/// Their name of one of our layers.
pub(super) fn names(layer: &str, config: &MobileNetConfig) -> Vec<String> {
    let bn = usize::from(layer.ends_with("_bn"));
    let name = match layer {
        HEAD => Some("classifier.1".into()),
        "stem_conv" | "stem_bn" => Some(format!("features.0.{bn}")),
        "last_conv" | "last_bn" => Some(format!("features.{}.{bn}", 1 + config.blocks.len())),
        _ => of_block(layer, config, bn),
    };
    name.into_iter().collect()
}

/// That of `block<n>_<place>_<kind>`.
fn of_block(layer: &str, config: &MobileNetConfig, bn: usize) -> Option<String> {
    let (block, rest) = layer.strip_prefix("block")?.split_once('_')?;
    let block = block.parse::<usize>().ok()?;
    let expands = usize::from(config.blocks.get(block)?.expanded.is_some());
    let place = match rest.rsplit_once('_')?.0 {
        "expand" => format!("0.{bn}"),
        "depthwise" => format!("{expands}.{bn}"),
        _ => (expands + 1 + bn).to_string(),
    };
    Some(format!("features.{}.conv.{place}", 1 + block))
}

/// Strides of blocks in stacks of these strides.
fn strides(stacks: &[usize], blocks: &[usize]) -> Vec<usize> {
    let stride = |(&stride, &blocks): (&usize, &usize)| {
        [stride].into_iter().chain(core::iter::repeat_n(1, blocks.saturating_sub(1)))
    };
    stacks.iter().zip(blocks).flat_map(stride).collect()
}

/// What a state dict does not say, readers take for granted.
pub(super) fn check(config: &MobileNetConfig, pooling: Pooling) -> Result<(), &'static str> {
    let is_plain = |block: &Block| {
        (block.filter, block.squeezed, block.activation) == (3, None, Activation::RELU6)
    };
    if !config.blocks.iter().all(is_plain)
        || config.block_type != BlockType::InvertedResidual
        || (config.last_filters.is_none(), config.hidden_features) != (false, None)
        || (config.stem_stride, config.activation) != (2, Activation::RELU6)
        || config.padding != ConvPadding::Symmetric
    {
        return Err("another MobileNet than the second version");
    }
    let found: Vec<usize> = config.blocks.iter().map(|block| block.stride).collect();
    match (found == strides(&STRIDES, &BLOCKS), pooling) {
        (true, Pooling::Avg) => Ok(()),
        (true, Pooling::Max) => Err("max pooling before the head"),
        (false, _) => Err("other strides than 1, 2, 2, 2, 1, 2, 1"),
    }
}

/// The architecture of a state dict.
fn architecture(
    name: &str,
    shapes: &Shapes<'_>,
    hints: &Hints,
    assumed: &mut Vec<Assumption>,
) -> Result<Architecture, String> {
    let option = hints.of_state_dicts();
    if let Some(option) =
        option.filter(|o| ![Hints::STACK_STRIDES, Hints::STATE_DICT].contains(&Some(*o)))
    {
        return Err(format!("a MobileNetV2, but {option} is for ResNets"));
    }
    let conv = |name: String| match shapes.get(format!("{name}.weight").as_str()) {
        Some(&&[outputs, inputs, _, _]) => Ok([outputs, inputs]),
        _ => Err(format!("a MobileNetV2 without the convolution `{name}`")),
    };
    let [stem_filters, channels] = conv("features.0.0".into())?;
    let (mut blocks, mut stacks) = (Vec::<Block>::new(), Vec::<usize>::new());
    let (mut c_in, mut last) = (stem_filters, None);
    while let number = 1 + blocks.len()
        && let Ok([inside, _]) = conv(format!("features.{number}.conv.0.0"))
    {
        let expands = conv(format!("features.{number}.conv.1.0")).is_ok();
        let place = if expands { 2 } else { 1 };
        let [filters, _] = conv(format!("features.{number}.conv.{place}"))?;
        let kind = Some((filters, inside / c_in.max(1)));
        match stacks.last_mut() {
            Some(blocks) if last == kind => *blocks += 1,
            _ => stacks.push(1),
        }
        blocks.push(Block {
            expanded: expands.then_some(inside),
            filter: 3,
            stride: 1,
            squeezed: None,
            filters,
            activation: Activation::RELU6,
        });
        (c_in, last) = (filters, kind);
    }
    let [last_filters, _] = conv(format!("features.{}.0", 1 + blocks.len()))?;
    let by_stack: Vec<usize> = match &hints.stack_strides {
        Some(given) => given.iter().map(|s| usize::from(*s)).collect(),
        None if stacks == BLOCKS => {
            let what = format!("stacks of strides {STRIDES:?}");
            assumed.push(Assumption::new(what, Hints::STACK_STRIDES));
            STRIDES.into()
        }
        None => {
            return Err(format!(
                "a MobileNetV2 of {stacks:?} blocks, not {BLOCKS:?}: say the strides of these \
                 stacks with --stack-strides"
            ));
        }
    };
    if by_stack.len() != stacks.len() {
        return Err(format!("strides of {} stacks, found {}", by_stack.len(), stacks.len()));
    }
    for (block, stride) in blocks.iter_mut().zip(strides(&by_stack, &stacks)) {
        block.stride = stride;
    }
    assumed.push(Assumption::new("ReLU6", None));
    let config = MobileNetConfig {
        stem_filters,
        stem_stride: 2,
        block_type: BlockType::InvertedResidual,
        blocks,
        last_filters: Some(last_filters),
        hidden_features: None,
        activation: Activation::RELU6,
        gate_activations: None,
        padding: ConvPadding::Symmetric,
    };
    Ok(Architecture { channels, ..Architecture::new(name, 1, Family::MobileNet(config)) })
}

#[cfg(test)]
mod tests {
    use crate::{Head, Hints, Imported, open_any};
    use network::evaluate::evaluate;
    use std::path::Path;

    /// Compares with what timm computes: `tests/fixtures/torch/mobilenet.py`.
    #[test]
    fn mobilenets_compute_what_pytorch_computes() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/torch");
        let folder = std::env::var("MOBILENETS").map_or(fixtures, Into::into);
        let numbers = |file: String| -> Vec<f32> {
            let bytes = std::fs::read(folder.join(file)).unwrap();
            // Behind the header of numpy's format.
            bytes[128..]
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        };
        let names = std::env::var("MOBILENETS").map_or("tiny", |_| "mobilenet_v2,mobilenet_v2_050");
        for name in names.split(',') {
            let tiny = name == "tiny";
            let hints = Hints {
                size: Some(if tiny { 32 } else { 96 }),
                stack_strides: tiny.then(|| vec![1, 2, 2]),
                ..Hints::default()
            };
            let path = folder.join(format!("mobilenet_{name}.safetensors"));
            let Imported::Checkpoint(found) = open_any(&path, Head::Required, &hints).unwrap()
            else {
                panic!("no checkpoint")
            };
            if !tiny {
                let ours = network::architecture::Architecture::named(name, 1000).unwrap();
                assert_eq!(ours.family, found.config.family);
            }
            let logits =
                evaluate(&found.graph().unwrap(), &numbers(format!("mobilenet_{name}_input.npy")));
            let theirs = numbers(format!("mobilenet_{name}_logits.npy"));
            assert_eq!(logits.len(), theirs.len());
            let worst = logits.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = theirs.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            println!("{name}: {worst} of {largest}");
            assert!(worst <= 1e-4, "{name}: {worst}");
        }
    }
}
