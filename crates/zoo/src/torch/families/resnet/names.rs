//! What PyTorch's packages call the layers of ResNets.
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

use crate::assemble::identity_batch_norm;
use network::architecture::Architecture;
use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
use network::blueprint::{HEAD, Pooling};
use network::checkpoint::Tensor;
use network::padding::ConvPadding;
use std::collections::BTreeMap;

/// The convolutions of a deep stem in timm's `conv1` sequence, and the batch-norms between.
const DEEP_STEM: [(&str, &str); 5] = [
    ("conv1.0", "conv1_conv"),
    ("conv1.1", "conv1_bn"),
    ("conv1.3", "conv2_conv"),
    ("conv1.4", "conv2_bn"),
    ("conv1.6", "conv3_conv"),
];

/// Their names of one of our layers: the first is written, all are read.
pub(in crate::torch) fn names(layer: &str, config: &ResNetConfig) -> Vec<String> {
    let stem = config.input_conv_filters.len();
    let (v2, small) = (config.use_pre_activation, config.input_conv_kernel_sizes == [3]);
    if let Some((theirs, _)) = DEEP_STEM.iter().find(|(_, ours)| *ours == layer && stem > 1) {
        return vec![(*theirs).into()];
    }
    if layer == format!("conv{stem}_bn") {
        return vec!["bn1".into()];
    }
    // Whatever this network's is comes first.
    let first = |is: bool, names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        names.rotate_left(is.into());
        names
    };
    match layer {
        "conv1_conv" => first(v2, &["conv1", "stem.conv"]),
        "post_bn" => vec!["norm".into()],
        HEAD if v2 => vec!["head.fc".into(), "fc".into(), "linear".into()],
        HEAD => first(small, &["fc", "linear", "head.fc"]),
        _ => of_block(layer, config, small).unwrap_or_default(),
    }
}

/// Those of `stack<i>_block<j>_<place>_<kind>`.
fn of_block(layer: &str, config: &ResNetConfig, small: bool) -> Option<Vec<String>> {
    let (stack, rest) = layer.strip_prefix("stack")?.split_once("_block")?;
    let (block, rest) = rest.split_once('_')?;
    let (place, kind) = rest.rsplit_once('_')?;
    if config.use_pre_activation {
        let inner = match (place, kind) {
            ("pre_activation", "bn") => "norm1".into(),
            ("0", "conv") => "downsample.conv".into(),
            (_, "bn") => format!("norm{}", place.parse::<usize>().ok()? + 1),
            _ => format!("{kind}{place}"),
        };
        return Some(vec![format!("stages.{stack}.blocks.{block}.{inner}")]);
    }
    let prefix = format!("layer{}.{block}", stack.parse::<usize>().ok()? + 1);
    if place != "0" {
        return Some(vec![format!("{prefix}.{kind}{place}")]);
    }
    // A vd sequence starts with its pool (or, unstrided, with nothing in its place).
    let vd = matches!(config.block_type, BlockType::BasicBlockVd | BlockType::BottleneckBlockVd);
    let place = usize::from(vd) + usize::from(kind == "bn");
    let mut names = ["downsample", "shortcut"];
    names.rotate_left(small.into());
    Some(names.map(|name| format!("{prefix}.{name}.{place}")).into())
}

/// What a state dict does not say, readers take for granted.
pub(in crate::torch) fn check(config: &ResNetConfig, pooling: Pooling) -> Result<(), &'static str> {
    let strides = config.stackwise_num_strides.iter();
    if strides.enumerate().any(|(stack, stride)| *stride != if stack == 0 { 1 } else { 2 }) {
        return Err("other strides than 1, 2, 2, …");
    }
    let small = config.input_conv_kernel_sizes == [3];
    if (config.stem_stride, config.stem_pool) != if small { (1, false) } else { (2, true) } {
        return Err("a stem of another stride, or a pool that does not go with it");
    }
    match config.input_conv_filters.len() {
        1 => {}
        3 if !config.use_pre_activation => {}
        _ => return Err("a stem of other than 1 convolution (3, but not in version 2)"),
    }
    if config.bottleneck_stride != BottleneckStride::Second {
        return Err("bottlenecks that stride in their first convolution");
    }
    if pooling != Pooling::Avg {
        return Err("max pooling before the head");
    }
    match config.padding {
        ConvPadding::Symmetric => Ok(()),
        ConvPadding::Same => Err("TensorFlow's padding"),
    }
}

/// Puts a projection where the source has a shortcut without parameters and we have one with:
///
/// - CIFAR ResNets ("option A" of He et al. 2015) take every second pixel and add zero channels,
///   as many before as after: a strided 1×1 convolution with ones;
/// - timm's vd basic blocks leave the first stack's shortcut alone: the identity.
pub(in crate::torch) fn add_parameterless_shortcuts(
    config: &Architecture,
    found: &mut BTreeMap<String, Tensor>,
) {
    let blueprint = config.blueprint();
    for (layer, conv) in blueprint.convs() {
        let Some(block) = layer.name.strip_suffix("_0_conv") else { continue };
        let (name, bn) = (format!("{}.weight", layer.name), format!("{block}_0_bn"));
        if found.contains_key(&name) || found.contains_key(&format!("{bn}.gamma")) {
            continue;
        }
        if blueprint.layer(&bn).is_none() || conv.c_out < conv.c_in {
            continue;
        }
        let before = (conv.c_out - conv.c_in) / 2;
        let mut weight = vec![0.0; conv.c_out * conv.c_in];
        for c in 0..conv.c_in {
            weight[(before + c) * conv.c_in + c] = 1.0;
        }
        found.insert(name, Tensor::from_f32(&[conv.c_out, 1, 1, conv.c_in], &weight));
        identity_batch_norm(found, &bn, &vec![0.0; conv.c_out]);
    }
}
