//! Shallower networks with the weights of one: its first blocks, and a new head.
//!
//! What a deep network sees in its middle tells classes apart, too, at a part of the memory and time. Of
//! inverted residuals, whose ends are narrow and have no activation, a shorter network also has the wide
//! 1×1 convolution that the next block would begin with, as MobileNetV2's own last one.

use crate::architecture::Architecture;
use crate::architecture::Family;
use crate::architecture::mobilenet::{BlockType, MobileNetConfig};
use crate::architecture::resnet::ResNetConfig;
use crate::blueprint::HEAD;
use crate::checkpoint::{Checkpoint, Draft, Tensor};
use crate::random::{Rng, fnv1a};

/// A network's layers but for the head, and the names that some have in the one that it was cut from.
struct Cut {
    family: Family,
    /// Blocks.
    blocks: usize,
    /// Starts of layers' names: its own, and those there.
    renamed: Option<[String; 2]>,
}

/// The network of `base` and all that end after fewer blocks, the deepest first, with as many blocks as each
/// has; with a fresh head for `labels`, without samples.
///
/// Networks whose last layers have other sizes there are left out.
pub fn shortened(base: &Checkpoint, labels: &[String]) -> Vec<(usize, Draft)> {
    let cuts = match &base.config.family {
        Family::MobileNet(config) => mobilenets(config),
        Family::ResNet(config) => resnets(config),
    };
    cuts.into_iter().filter_map(|cut| Some((cut.blocks, of(base, labels, cut)?))).collect()
}

/// `None` where `base` lacks a tensor of that shape.
fn of(base: &Checkpoint, labels: &[String], cut: Cut) -> Option<Draft> {
    let is_whole = cut.family == base.config.family;
    let name = match is_whole {
        true => base.config.name.clone(),
        false => format!("{}_{}_blocks", base.config.name, cut.blocks),
    };
    let classes = labels.len();
    let config = Architecture { name, classes, family: cut.family, ..base.config.clone() };
    config.check().ok()?;
    let tensor = |(name, shape): (String, Vec<usize>)| {
        if name.strip_prefix(HEAD).is_some_and(|rest| rest.starts_with('.')) {
            let mut rng = Rng::keyed(&[fnv1a(name.as_bytes())]);
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|_| (0.01 * rng.normal()) as f32).collect();
            return Some((name, Tensor::from_f32(&shape, &values)));
        }
        let there = cut.renamed.as_ref().and_then(|[own, there]| {
            name.strip_prefix(own.as_str()).map(|rest| format!("{there}{rest}"))
        });
        let found = base.tensors.get(there.as_ref().unwrap_or(&name))?;
        (found.shape == shape).then(|| (name, found.clone()))
    };
    let tensors = config.blueprint().tensors().map(tensor).collect::<Option<_>>()?;
    Some(Draft {
        training: base.training.clone(),
        ..Draft::new(config, labels.to_vec(), base.preprocess, tensors)
    })
}

fn mobilenets(config: &MobileNetConfig) -> Vec<Cut> {
    let cut = |blocks: usize| {
        if blocks == config.blocks.len() {
            let family = Family::MobileNet(config.clone());
            return Cut { family, blocks, renamed: None };
        }
        let next = &config.blocks[blocks];
        // The network has one activation for its stem and its last convolution.
        let is_alike = config.block_type == BlockType::InvertedResidual
            && next.activation == config.activation;
        let wide = next.expanded.filter(|_| is_alike);
        let kept = &config.blocks[..blocks];
        let is_gated = kept.iter().any(|block| block.squeezed.is_some());
        let family = Family::MobileNet(MobileNetConfig {
            blocks: kept.to_vec(),
            last_filters: wide,
            hidden_features: None,
            gate_activations: config.gate_activations.filter(|_| is_gated),
            ..config.clone()
        });
        let renamed = wide.map(|_| ["last_".into(), format!("block{blocks}_expand_")]);
        Cut { family, blocks, renamed }
    };
    (1..=config.blocks.len()).rev().map(cut).collect()
}

fn resnets(config: &ResNetConfig) -> Vec<Cut> {
    let all: usize = config.stackwise_num_blocks.iter().sum();
    let cut = |blocks: usize| {
        let mut left = blocks;
        let mut kept = Vec::new();
        for count in &config.stackwise_num_blocks {
            let of_stack = left.min(*count);
            left -= of_stack;
            kept.extend((of_stack > 0).then_some(of_stack));
        }
        let stacks = kept.len();
        let family = Family::ResNet(ResNetConfig {
            stackwise_num_filters: config.stackwise_num_filters[..stacks].to_vec(),
            stackwise_num_strides: config.stackwise_num_strides[..stacks].to_vec(),
            stackwise_num_blocks: kept,
            ..config.clone()
        });
        Cut { family, blocks, renamed: None }
    };
    (1..=all).rev().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::evaluate_all;
    use crate::init::random_checkpoint;

    #[test]
    fn what_is_left_computes_what_it_did() {
        let labels = ["a".to_owned(), "b".to_owned()];
        for (name, whole) in [
            ("resnet_8_cifar", 3),
            ("resnet_20_cifar", 9),
            ("mobilenet_v1_025", 13),
            ("mobilenet_v2_035", 17),
            ("mobilenet_v3_small_050", 11),
        ] {
            let base = random_checkpoint(Architecture::named(name, 5).unwrap(), 32, 1).unwrap();
            let all = shortened(&base, &labels);
            assert_eq!(all.iter().map(|(blocks, _)| *blocks).max(), Some(whole), "{name}");
            assert_eq!(all.len(), whole, "{name}");
            for (blocks, draft) in all {
                let checkpoint = draft.check().unwrap();
                assert_eq!(checkpoint.config.name == base.config.name, blocks == whole);
                // The layer before the pooling computes what it does there.
                let (ours, theirs) = (checkpoint.graph().unwrap(), base.graph().unwrap());
                let input: Vec<f32> =
                    (0..32 * 32 * 3).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
                let pooled = ours.nodes.iter().position(|n| n.name == "pooler").unwrap();
                let last = ours.nodes[pooled].inputs[0];
                let mut there = ours.nodes[last].name.clone();
                if blocks < whole && there.starts_with("last_") {
                    there = there.replace("last_", &format!("block{blocks}_expand_"));
                }
                let there = theirs.nodes.iter().position(|n| n.name == there).unwrap();
                let (ours, theirs) = (evaluate_all(&ours, &input), evaluate_all(&theirs, &input));
                assert_eq!(ours[last], theirs[there], "{name} {blocks}");
            }
        }
    }
}
