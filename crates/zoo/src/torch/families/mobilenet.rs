//! MobileNetV2 as torchvision writes it.
//!
//! | ours | torchvision |
//! |---|---|
//! | `conv1_conv`, `conv1_bn` | `features.0.0`, `features.0.1` |
//! | `stack1_block0_expand_conv`, `…_bn` | `features.2.conv.0.0`, `….0.1`; none where nothing is expanded |
//! | `…_depthwise_conv`, `…_bn` | `….conv.1.0`, `….1.1` |
//! | `…_project_conv`, `…_bn` | `….conv.2`, `….conv.3` |
//! | `last_conv`, `last_bn` | `features.18.0`, `features.18.1` |
//! | `predictions` | `classifier.1` |

use super::{Shapes, Traces};
use crate::Hints;
use network::architecture::mobilenet::MobileNetV2Config;
use network::architecture::{Architecture, Family};
use network::blueprint::{HEAD, Pooling};
use network::checkpoint::Assumption;

pub(super) const TRACES: Traces = Traces {
    stems: &[["features.0.0.weight", "features.1.conv.0.0.weight"]],
    backbone: &["features."],
    architecture,
};

/// Their name of one of our layers.
pub(super) fn names(layer: &str, config: &MobileNetV2Config) -> Vec<String> {
    let bn = usize::from(layer.ends_with("_bn"));
    let blocks = &config.stackwise_num_blocks;
    let name = match layer {
        HEAD => Some("classifier.1".into()),
        "conv1_conv" | "conv1_bn" => Some(format!("features.0.{bn}")),
        "last_conv" | "last_bn" => {
            Some(format!("features.{}.{bn}", 1 + blocks.iter().sum::<usize>()))
        }
        _ => of_block(layer, config, bn),
    };
    name.into_iter().collect()
}

/// That of `stack<i>_block<j>_<place>_<kind>`.
fn of_block(layer: &str, config: &MobileNetV2Config, bn: usize) -> Option<String> {
    let (stack, rest) = layer.strip_prefix("stack")?.split_once("_block")?;
    let (block, rest) = rest.split_once('_')?;
    let (stack, block) = (stack.parse::<usize>().ok()?, block.parse::<usize>().ok()?);
    let number = 1 + config.stackwise_num_blocks.get(..stack)?.iter().sum::<usize>() + block;
    let expands = usize::from(*config.stackwise_expansions.get(stack)? > 1);
    let place = match rest.rsplit_once('_')?.0 {
        "expand" => format!("0.{bn}"),
        "depthwise" => format!("{expands}.{bn}"),
        _ => (expands + 1 + bn).to_string(),
    };
    Some(format!("features.{number}.conv.{place}"))
}

/// What a state dict does not say, readers take for granted.
pub(super) fn check(config: &MobileNetV2Config, pooling: Pooling) -> Result<(), &'static str> {
    let published = MobileNetV2Config::scaled(1.0).stackwise_num_strides;
    match (config.stackwise_num_strides == published, pooling) {
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
    let (mut widths, mut blocks, mut expansions) = (Vec::new(), Vec::new(), Vec::new());
    let (mut c_in, mut number) = (stem_filters, 1);
    while let Ok([inner, _]) = conv(format!("features.{number}.conv.0.0")) {
        let place = if conv(format!("features.{number}.conv.1.0")).is_ok() { 2 } else { 1 };
        let [width, _] = conv(format!("features.{number}.conv.{place}"))?;
        let expansion = inner / c_in.max(1);
        match blocks.last_mut() {
            Some(n) if (widths.last(), expansions.last()) == (Some(&width), Some(&expansion)) => {
                *n += 1
            }
            _ => {
                widths.push(width);
                blocks.push(1);
                expansions.push(expansion);
            }
        }
        (c_in, number) = (width, number + 1);
    }
    let [last_filters, _] = conv(format!("features.{number}.0"))?;
    let published = MobileNetV2Config::scaled(1.0);
    let strides = match &hints.stack_strides {
        Some(given) => given.iter().map(|s| usize::from(*s)).collect(),
        None if blocks == published.stackwise_num_blocks => {
            let what = format!("stacks of strides {:?}", published.stackwise_num_strides);
            assumed.push(Assumption::new(what, Hints::STACK_STRIDES));
            published.stackwise_num_strides
        }
        None => {
            return Err(format!(
                "a MobileNetV2 of {blocks:?} blocks, not {:?}: say the strides of these stacks with --stack-strides",
                published.stackwise_num_blocks
            ));
        }
    };
    assumed.push(Assumption::new("ReLU6", None));
    let config = MobileNetV2Config {
        stem_filters,
        stackwise_num_filters: widths,
        stackwise_num_blocks: blocks,
        stackwise_num_strides: strides,
        stackwise_expansions: expansions,
        last_filters,
    };
    Ok(Architecture { channels, ..Architecture::new(name, 1, Family::MobileNetV2(config)) })
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
