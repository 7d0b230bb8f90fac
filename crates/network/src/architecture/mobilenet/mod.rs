//! Networks of depthwise convolutions, as [`Blueprint`]s: MobileNets, EfficientNets and their kin.
//!
//! | network | blocks | activation | gates |
//! |---|---|---|---|
//! | MobileNetV1 (Howard et al. 2017) | separable | ReLU6 | |
//! | MobileNetV2 (Sandler et al. 2018) | inverted residuals | ReLU6 | |
//! | MobileNetV3 (Howard et al. 2019) | inverted residuals | ReLU, then hard-swish | some |
//! | EfficientNet (Tan and Le 2019) | inverted residuals | SiLU | all |
//! | EfficientNet-Lite (2020) | inverted residuals | ReLU6 | |
//!
//! Layers are `stem_conv`, `stem_bn`, `stem_act`; those of `block<n>`, as `Block` has them; `last_conv`,
//! `last_bn`, `last_act`; `pooler`; `hidden`, `hidden_act`; `predictions`.

pub(super) mod presets;

use crate::activation::Activation;
use crate::blueprint::{Blueprint, LayerId, LayerOp, Pooling, WindowSpec};
use crate::padding::ConvPadding;
use serde::{Deserialize, Serialize};

/// The layers between the picture and the scores, but for the pooling.
///
/// Widths are those that the network has, after all scaling and rounding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MobileNetConfig {
    /// Channels of the stem, a 3×3 convolution.
    pub stem_filters: usize,
    /// Stride of the stem: 2, and 1 for pictures as small as CIFAR's.
    #[serde(default = "two", skip_serializing_if = "is_two")]
    pub stem_stride: usize,
    /// What the blocks have in common.
    #[serde(default)]
    pub block_type: BlockType,
    /// The blocks in execution order.
    pub blocks: Vec<Block>,
    /// Channels of a 1×1 convolution after the blocks; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_filters: Option<usize>,
    /// Outputs of a dense layer between pooling and scores; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_features: Option<usize>,
    /// Of the stem, the last convolution and the hidden layer.
    pub activation: Activation,
    /// Of a gate's two dense layers, where blocks have gates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_activations: Option<[Activation; 2]>,
    /// Padding of all convolutions.
    #[serde(default)]
    pub padding: ConvPadding,
}

/// How a block ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockType {
    /// With an activation.
    Separable,
    /// Without one; a block whose result has the size and the width of its input adds it.
    #[default]
    InvertedResidual,
}

/// A depthwise convolution between two of 1×1. Behind each comes a batch-norm.
///
/// | layers | |
/// |---|---|
/// | `expand_conv`, `expand_bn`, `expand_act` | 1×1, where [`Self::expanded`] |
/// | `depthwise_conv`, `depthwise_bn`, `depthwise_act` | each channel by itself |
/// | `se_pool`, `se_reduce`, `se_reduce_act`, `se_expand`, `se_expand_act`, `se_gate` | where [`Self::squeezed`] |
/// | `project_conv`, `project_bn` | 1×1 |
/// | `project_act` or `add` | by [`BlockType`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Channels inside, of a convolution before the depthwise one; `None` without it: the input's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<usize>,
    /// Rows and columns of the depthwise filters, an odd number.
    pub filter: usize,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Outputs of the first of a gate's two dense layers; `None` without a gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub squeezed: Option<usize>,
    /// Output channels.
    pub filters: usize,
    /// Of all its convolutions that have one.
    pub activation: Activation,
}

/// Most channels of a value.
const MAX_WIDTH: usize = 8192;
/// Most blocks.
const MAX_BLOCKS: usize = 256;

const fn two() -> usize {
    2
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_two(stride: &usize) -> bool {
    *stride == two()
}

impl MobileNetConfig {
    /// Input side in pixels that the network of a name was designed for.
    pub(super) fn native_size(&self, name: &str) -> u16 {
        if self.stem_stride == 1 { 32 } else { presets::native_size(name) }
    }

    /// Checks lengths and ranges.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub(super) fn check(&self) -> Result<(), String> {
        let blocks = &self.blocks;
        if !(1..=MAX_BLOCKS).contains(&blocks.len()) {
            return Err(format!("{} blocks, expected 1..={MAX_BLOCKS}", blocks.len()));
        }
        let inside = blocks.iter().flat_map(|b| [Some(b.filters), b.expanded, b.squeezed]);
        let ends = [Some(self.stem_filters), self.last_filters, self.hidden_features];
        if let Some(w) = inside.chain(ends).flatten().find(|w| !(1..=MAX_WIDTH).contains(w)) {
            return Err(format!("width {w} is not in 1..={MAX_WIDTH}"));
        }
        if let Some(Block { filter, .. }) =
            blocks.iter().find(|b| b.filter % 2 == 0 || b.filter > 31)
        {
            return Err(format!("filter size {filter} is not an odd number below 32"));
        }
        let mut strides = blocks.iter().map(|b| b.stride).chain([self.stem_stride]);
        if strides.any(|s| !(1..=4).contains(&s)) {
            return Err("strides must be in 1..=4".into());
        }
        if self.gate_activations.is_some() != blocks.iter().any(|b| b.squeezed.is_some()) {
            return Err("gate_activations are those of blocks with gates".into());
        }
        let gates = self.gate_activations.into_iter().flatten();
        let used = blocks.iter().map(|b| b.activation).chain([self.activation]).chain(gates);
        match used.into_iter().find(|&a| Activation::by_name(a.name()) != Some(a)) {
            Some(unnamed) => Err(format!("{unnamed:?} has no name in files")),
            None => Ok(()),
        }
    }

    /// Appends all layers before the pooling.
    pub(super) fn backbone(&self, net: &mut Blueprint) -> LayerId {
        let stem = self.window(3, self.stem_stride);
        let mut x = conv(net, "stem", Blueprint::INPUT, self.stem_filters, stem);
        x = net.activation("stem_act", x, self.activation);
        net.cuts.push(x);
        for (n, block) in self.blocks.iter().enumerate() {
            if block.stride > 1 {
                net.stages.push(x);
            }
            x = self.block(net, &format!("block{n}"), x, block);
            net.cuts.push(x);
        }
        net.stages.push(x);
        if let Some(filters) = self.last_filters {
            x = conv(net, "last", x, filters, self.window(1, 1));
            x = net.activation("last_act", x, self.activation);
        }
        x
    }

    /// Appends the layers between pooling and scores.
    pub(super) fn hidden(&self, net: &mut Blueprint, x: LayerId) -> LayerId {
        let Some(outputs) = self.hidden_features else { return x };
        let x = net.dense("hidden", x, outputs);
        net.activation("hidden_act", x, self.activation)
    }

    const fn window(&self, filter: usize, stride: usize) -> WindowSpec {
        WindowSpec { filter, stride, padding: self.padding }
    }

    /// Appends a block.
    fn block(&self, net: &mut Blueprint, name: &str, input: LayerId, block: &Block) -> LayerId {
        let mut x = input;
        if let Some(inside) = block.expanded {
            x = conv(net, &format!("{name}_expand"), x, inside, self.window(1, 1));
            x = net.activation(format!("{name}_expand_act"), x, block.activation);
        }
        let window = self.window(block.filter, block.stride);
        x = net.depthwise(format!("{name}_depthwise_conv"), x, window);
        x = net.batch_norm(format!("{name}_depthwise_bn"), x);
        x = net.activation(format!("{name}_depthwise_act"), x, block.activation);
        if let (Some(squeezed), Some(activations)) = (block.squeezed, self.gate_activations) {
            x = gate(net, &format!("{name}_se"), x, squeezed, activations);
        }
        x = conv(net, &format!("{name}_project"), x, block.filters, self.window(1, 1));
        let fits = block.stride == 1 && net.layers[input].channels == block.filters;
        match self.block_type {
            BlockType::Separable => {
                net.activation(format!("{name}_project_act"), x, block.activation)
            }
            BlockType::InvertedResidual if fits => net.add(format!("{name}_add"), input, x),
            BlockType::InvertedResidual => x,
        }
    }
}

/// Appends a convolution and its batch-norm.
fn conv(net: &mut Blueprint, name: &str, x: LayerId, c_out: usize, window: WindowSpec) -> LayerId {
    let x = net.conv(format!("{name}_conv"), x, c_out, window);
    net.batch_norm(format!("{name}_bn"), x)
}

/// Appends the product of a map and of factors that two dense layers make of the means of its channels
/// (squeeze and excitation, Hu et al. 2018).
fn gate(
    net: &mut Blueprint,
    name: &str,
    map: LayerId,
    squeezed: usize,
    [first, second]: [Activation; 2],
) -> LayerId {
    let channels = net.layers[map].channels;
    let mut x = net.per_channel(format!("{name}_pool"), LayerOp::GlobalPool(Pooling::Avg), map);
    x = net.dense(format!("{name}_reduce"), x, squeezed);
    x = net.activation(format!("{name}_reduce_act"), x, first);
    x = net.dense(format!("{name}_expand"), x, channels);
    x = net.activation(format!("{name}_expand_act"), x, second);
    net.gate(format!("{name}_gate"), map, x)
}

#[cfg(test)]
mod tests;
