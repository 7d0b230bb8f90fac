//! The names that PyTorch's ResNets give their tensors.
//!
//! | ours | torchvision, timm | timm's v2 | CIFAR ResNets |
//! |---|---|---|---|
//! | `conv1_conv`, `conv1_bn` | `conv1`, `bn1` | `stem.conv` | `conv1`, `bn1` |
//! | `conv2_conv` of a deep stem | `conv1.3` | | |
//! | `stack0_block1_2_conv` | `layer1.1.conv2` | `stages.0.blocks.1.conv2` | `layer1.1.conv2` |
//! | `stack0_block0_0_conv` | `layer1.0.downsample.0` (vd: `.1`) | `….downsample.conv` | `layer1.0.shortcut.0` or none |
//! | `…_pre_activation_bn`, `…_1_bn` | | `….norm1`, `….norm2` | |
//! | `post_bn` | | `norm` | |
//! | `predictions` | `fc` | `head.fc` | `linear` |
//!
//! Those of transformers and others become torchvision's first ([`super::foreign_names`]). The head
//! may have any other name.

use crate::assemble::identity_batch_norm;
use network::checkpoint::Tensor;
use network::resnet::{BlockType, ResNetConfig};
use std::collections::BTreeMap;

/// The convolutions of a deep stem in timm's `conv1` sequence, and the batch-norms between.
const DEEP_STEM: [(&str, &str); 5] = [
    ("conv1.0", "conv1_conv"),
    ("conv1.1", "conv1_bn"),
    ("conv1.3", "conv2_conv"),
    ("conv1.4", "conv2_bn"),
    ("conv1.6", "conv3_conv"),
];

/// Our name of a tensor; `None` where there is none.
pub(super) fn canonical(name: &str, config: &ResNetConfig) -> Option<String> {
    let (layer, part) = name.rsplit_once('.')?;
    let layer = layer_name(layer, config)?;
    let part = match part {
        "weight" if layer.ends_with("_bn") => "gamma",
        "bias" if layer.ends_with("_bn") => "beta",
        "running_mean" => "mean",
        "running_var" => "variance",
        other => other,
    };
    Some(format!("{layer}.{part}"))
}

/// The name in PyTorch's packages of one of our tensors; `None` where there is none.
pub(super) fn torch_name(name: &str, config: &ResNetConfig) -> Option<String> {
    let (layer, part) = name.rsplit_once('.')?;
    let part = match part {
        "gamma" => "weight",
        "beta" => "bias",
        "mean" => "running_mean",
        "variance" => "running_var",
        other => other,
    };
    Some(format!("{}.{part}", torch_layer(layer, config)?))
}

fn torch_layer(layer: &str, config: &ResNetConfig) -> Option<String> {
    let stem = config.input_conv_filters.len();
    let (v2, small) = (config.use_pre_activation, config.input_conv_kernel_sizes == [3]);
    if let Some((theirs, _)) = DEEP_STEM.iter().find(|(_, ours)| *ours == layer && stem > 1) {
        return Some((*theirs).into());
    }
    if layer == format!("conv{stem}_bn") {
        return Some("bn1".into());
    }
    match layer {
        "conv1_conv" => return Some(if v2 { "stem.conv" } else { "conv1" }.into()),
        "post_bn" => return Some("norm".into()),
        "predictions" if v2 => return Some("head.fc".into()),
        "predictions" => return Some(if small { "linear" } else { "fc" }.into()),
        _ => {}
    }
    let (stack, rest) = layer.strip_prefix("stack")?.split_once("_block")?;
    let (block, rest) = rest.split_once('_')?;
    let (place, kind) = rest.rsplit_once('_')?;
    if v2 {
        let inner = match (place, kind) {
            ("pre_activation", "bn") => "norm1".into(),
            ("0", "conv") => "downsample.conv".into(),
            (_, "bn") => format!("norm{}", place.parse::<usize>().ok()? + 1),
            _ => format!("{kind}{place}"),
        };
        return Some(format!("stages.{stack}.blocks.{block}.{inner}"));
    }
    let inner = match place {
        "0" => {
            let vd =
                matches!(config.block_type, BlockType::BasicBlockVd | BlockType::BottleneckBlockVd);
            let place = usize::from(vd) + usize::from(kind == "bn");
            format!("{}.{place}", if small { "shortcut" } else { "downsample" })
        }
        _ => format!("{kind}{place}"),
    };
    Some(format!("layer{}.{block}.{inner}", stack.parse::<usize>().ok()? + 1))
}

fn layer_name(layer: &str, config: &ResNetConfig) -> Option<String> {
    let stem = config.input_conv_filters.len();
    if let Some((_, ours)) = DEEP_STEM.iter().find(|(theirs, _)| *theirs == layer && stem > 1) {
        return Some((*ours).into());
    }
    match layer {
        "conv1" | "stem.conv" => return Some("conv1_conv".into()),
        "bn1" => return Some(format!("conv{stem}_bn")),
        "norm" => return Some("post_bn".into()),
        "fc" | "head.fc" | "linear" => return Some("predictions".into()),
        _ => {}
    }
    let mut parts = layer.split('.');
    let stack: usize = match parts.next()? {
        "stages" => parts.next()?.parse().ok()?,
        first => first.strip_prefix("layer")?.parse::<usize>().ok()?.checked_sub(1)?,
    };
    if config.use_pre_activation && parts.next()? != "blocks" {
        return None;
    }
    let block: usize = parts.next()?.parse().ok()?;
    let prefix = format!("stack{stack}_block{block}");
    let rest: Vec<&str> = parts.collect();
    let vd = matches!(config.block_type, BlockType::BasicBlockVd | BlockType::BottleneckBlockVd);
    match rest[..] {
        ["downsample", "conv"] => Some(format!("{prefix}_0_conv")),
        // A vd sequence starts with its pool (or, unstrided, with nothing in its place).
        ["downsample" | "shortcut", place] => {
            match place.parse::<usize>().ok()?.checked_sub(vd.into())? {
                0 => Some(format!("{prefix}_0_conv")),
                1 => Some(format!("{prefix}_0_bn")),
                _ => None,
            }
        }
        [last] => {
            if let Some(n) = last.strip_prefix("conv") {
                return Some(format!("{prefix}_{n}_conv"));
            }
            if let Some(n) = last.strip_prefix("bn") {
                return Some(format!("{prefix}_{n}_bn"));
            }
            match last.strip_prefix("norm")?.parse::<usize>().ok()? {
                1 => Some(format!("{prefix}_pre_activation_bn")),
                n => Some(format!("{prefix}_{}_bn", n.checked_sub(1)?)),
            }
        }
        _ => None,
    }
}

/// Puts a projection where the source has a shortcut without parameters and we have one with:
///
/// - CIFAR ResNets ("option A" of He et al. 2015) take every second pixel and add zero channels,
///   as many before as after: a strided 1×1 convolution with ones;
/// - timm's vd basic blocks leave the first stack's shortcut alone: the identity.
pub(super) fn add_parameterless_shortcuts(
    config: &ResNetConfig,
    found: &mut BTreeMap<String, Tensor>,
) {
    for block in config.blocks() {
        let Some(p) = &block.projection else { continue };
        let name = format!("{}.weight", p.name);
        let bn = format!("{}_0_bn", block.name);
        if found.contains_key(&name) || found.contains_key(&format!("{bn}.gamma")) {
            continue;
        }
        if config.use_pre_activation || p.c_out < p.c_in {
            continue;
        }
        let before = (p.c_out - p.c_in) / 2;
        let mut weight = vec![0.0; p.c_out * p.c_in];
        for c in 0..p.c_in {
            weight[(before + c) * p.c_in + c] = 1.0;
        }
        found.insert(name, Tensor::from_f32(&[p.c_out, 1, 1, p.c_in], &weight));
        identity_batch_norm(found, &bn, &vec![0.0; p.c_out]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for architecture in ResNetConfig::NAMES {
            let config = ResNetConfig::by_name(architecture, 10).unwrap();
            for (name, _) in config.tensor_shapes() {
                let theirs = torch_name(&name, &config).unwrap();
                assert_eq!(canonical(&theirs, &config), Some(name), "{theirs}");
            }
        }
    }
}
