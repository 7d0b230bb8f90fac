//! The ResNet that follows from names and shapes, and from hints where they do not say.

pub(super) mod names;

use super::{Known, Names, Source, Traces, unknown};
use crate::Hints;
use artifact::text::AsPlain;
use network::architecture::resnet::{BlockType, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::BATCH_NORM_EPSILON;
use network::checkpoint::Assumption;
use network::padding::ConvPadding;
use std::collections::BTreeMap;

pub(super) static TRACES: Traces = Traces {
    stems: &[
        ["conv1.weight", "layer1.0.conv1.weight"],
        ["conv1.0.weight", "layer1.0.conv1.weight"],
        ["stem.conv.weight", "stages.0.blocks.0.conv1.weight"],
    ],
    backbone: &["layer", "stages.", "stem.", "conv", "bn", "norm", "maxpool"],
    head: &["fc", "head.fc", "linear", "classifier.1"],
    architecture,
};

/// Parts of other networks, by a word in the names of their tensors.
const STRANGE: [(&str, &str); 6] = [
    ("filt", "blurring (anti-aliased) pools"),
    ("se", "squeeze-and-excitation"),
    ("attn", "attention"),
    ("attnpool", "attention"),
    ("cbam", "attention"),
    ("bn0", "split attention"),
];

/// Shapes under torchvision's names, or those of timm's v2.
struct Shapes<'a> {
    all: &'a BTreeMap<&'a str, &'a [usize]>,
    v2: bool,
}

impl<'a> Shapes<'a> {
    fn of(&self, tensor: &str) -> Option<&'a [usize]> {
        self.all.get(tensor).copied()
    }

    fn block(&self, stack: usize, block: usize) -> String {
        match self.v2 {
            true => format!("stages.{stack}.blocks.{block}"),
            false => format!("layer{}.{block}", stack + 1),
        }
    }

    fn conv(&self, stack: usize, block: usize, n: usize) -> Option<&'a [usize]> {
        self.of(&format!("{}.conv{n}.weight", self.block(stack, block)))
    }

    /// Outputs, inputs and size of each of the stem's convolutions.
    fn stem(&self) -> Result<Vec<[usize; 3]>, String> {
        let convs: &[&str] = match (self.v2, self.all.contains_key("conv1.0.weight")) {
            (true, _) => &["stem.conv.weight"],
            (false, true) => &["conv1.0.weight", "conv1.3.weight", "conv1.6.weight"],
            (false, false) => &["conv1.weight"],
        };
        let shape = |conv: &&str| match self.of(conv) {
            Some(&[outputs, inputs, size, _]) => Ok([outputs, inputs, size]),
            _ => Err(unknown(self.all.keys().copied())),
        };
        convs.iter().map(shape).collect()
    }

    /// Width and number of blocks of each stack.
    fn stacks(&self) -> Result<(Vec<usize>, Vec<usize>), String> {
        let (mut widths, mut blocks) = (Vec::new(), Vec::new());
        while let Some([width, ..]) = self.conv(widths.len(), 0, 1) {
            let stack = widths.len();
            let Some([_, inputs, ..]) = self.conv(stack, 0, 2) else {
                return Err(unknown(self.all.keys().copied()));
            };
            if inputs != width {
                return Err(
                    "grouped convolutions (ResNeXt), which are not read; choose a ResNet".into()
                );
            }
            widths.push(*width);
            blocks.push((0..).take_while(|b| self.conv(stack, *b, 1).is_some()).count());
        }
        if !self.all.keys().any(|name| name.ends_with(".running_mean")) {
            return Err(
                "no running statistics, so that its norms are no batch-norms: not read".into()
            );
        }
        Ok((widths, blocks))
    }

    fn block_type(&self, stacks: usize) -> BlockType {
        // Convolution after a pool: place 1 of the shortcut's sequence.
        let projects = |stack: usize, name: &str| {
            let conv = self.of(&format!("{}.{name}.1.weight", self.block(stack, 0)));
            conv.is_some_and(|shape| shape.len() == 4)
        };
        let vd = (0..stacks).any(|s| projects(s, "downsample") || projects(s, "shortcut"));
        match (self.conv(0, 0, 3).is_some(), vd) {
            (false, false) => BlockType::BasicBlock,
            (true, false) => BlockType::BottleneckBlock,
            (false, true) => BlockType::BasicBlockVd,
            (true, true) => BlockType::BottleneckBlockVd,
        }
    }
}

/// The architecture of a state dict.
fn architecture(source: &Source<'_>, assumed: &mut Vec<Assumption>) -> Result<Known, String> {
    let &Source { name, shapes, hints, .. } = source;
    refuse_strange(shapes.keys().copied().filter(|name| TRACES.is_backbone(name)))?;
    let shapes = Shapes { all: shapes, v2: shapes.contains_key("stem.conv.weight") };
    let stem = shapes.stem()?;
    let kernels: Vec<usize> = stem.iter().map(|[_, _, size]| *size).collect();
    let (widths, blocks) = shapes.stacks()?;
    let bottleneck = shapes.conv(0, 0, 3);
    let expansion = match (bottleneck, widths.first()) {
        (Some([out, ..]), Some(width)) if *width > 0 => out / width,
        _ => 4,
    };
    // A 3×3 stem is a small picture's: it keeps the size and has no pool.
    let small = kernels == [3];
    let mut assume = |what: String, option| assumed.push(Assumption::new(what, option));
    let stem_pool = hints.stem_pool.unwrap_or_else(|| {
        let pool = if small { "no pool" } else { "a max-pool" };
        assume(format!("{pool} after the stem"), Hints::STEM_POOL);
        !small
    });
    let stem_stride = hints.stem_stride.map_or_else(
        || {
            let stride = if small { 1 } else { 2 };
            assume(format!("a stem of stride {stride}"), Hints::STEM_STRIDE);
            stride
        },
        usize::from,
    );
    if bottleneck.is_some() && hints.bottleneck_stride.is_none() {
        assume("strides in 3×3 convolutions".into(), Hints::BOTTLENECK_STRIDE);
    }
    let stackwise_num_strides = match &hints.stack_strides {
        Some(given) => given.iter().map(|s| usize::from(*s)).collect(),
        None => {
            let usual = |stack| if stack == 0 { 1 } else { 2 };
            let strides: Vec<usize> = (0..widths.len()).map(usual).collect();
            assume(format!("stacks of strides {strides:?}"), Hints::STACK_STRIDES);
            strides
        }
    };
    assume("ReLUs, neither blur nor dilation".into(), None);
    let resnet = ResNetConfig {
        input_conv_filters: stem.iter().map(|[outputs, ..]| *outputs).collect(),
        input_conv_kernel_sizes: kernels,
        stem_stride,
        stem_pool,
        stackwise_num_strides,
        block_type: shapes.block_type(widths.len()),
        stackwise_num_filters: widths,
        stackwise_num_blocks: blocks,
        use_pre_activation: shapes.v2,
        padding: ConvPadding::Symmetric,
        expansion,
        bottleneck_stride: hints.bottleneck_stride.unwrap_or_default(),
    };
    let config = Architecture {
        channels: stem.first().map_or(3, |[_, inputs, _]| *inputs),
        ..Architecture::new(name, 1, Family::ResNet(resnet))
    };
    Ok(Known { names: Names::of(&config), config, epsilon: BATCH_NORM_EPSILON })
}

/// Names the first part of another network, instead of all their tensors.
fn refuse_strange<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let of = |word: &str| STRANGE.iter().find(|(strange, _)| *strange == word);
    match names.find_map(|name| Some((name, name.split('.').find_map(of)?))) {
        None => Ok(()),
        Some((name, (_, what))) => Err(format!(
            "a ResNet with {what} (`{}`), which is not read; choose a plain one",
            name.plain()
        )),
    }
}
