//! MobileNetV2 (Sandler et al. 2018) with torchvision's padding, as [`Blueprint`]s.

use crate::activation::Activation;
use crate::architecture::Named;
use crate::blueprint::{Blueprint, ConvSpec, LayerId, LayerOp, WindowSpec};
use crate::padding::ConvPadding;
use serde::{Deserialize, Serialize};

/// The layers of a MobileNetV2 before its pooling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MobileNetV2Config {
    /// Channels of the stem, a strided 3×3 convolution.
    pub stem_filters: usize,
    /// Channels of the values between the blocks of each stack.
    pub stackwise_num_filters: Vec<usize>,
    /// Blocks of each stack.
    pub stackwise_num_blocks: Vec<usize>,
    /// Stride of each stack's first block.
    pub stackwise_num_strides: Vec<usize>,
    /// Channels inside a stack's blocks, in those of each block's input.
    pub stackwise_expansions: Vec<usize>,
    /// Channels of the 1×1 convolution at the end.
    pub last_filters: usize,
}

/// Most stacks.
const MAX_STACKS: usize = 64;

/// Networks by name.
pub(super) const NAMED: &Named<MobileNetV2Config> = &[
    ("mobilenet_v2", || MobileNetV2Config::scaled(1.0)),
    ("mobilenet_v2_050", || MobileNetV2Config::scaled(0.5)),
];

impl MobileNetV2Config {
    /// The published network, `width` times as wide.
    pub fn scaled(width: f64) -> Self {
        let scale = |filters: usize, width: f64| {
            let wanted = filters as f64 * width;
            let nearest = 8 * ((wanted + 4.0) as usize / 8).max(1);
            // Rounding takes no more than a tenth away.
            if (nearest as f64) < 0.9 * wanted { nearest + 8 } else { nearest }
        };
        Self {
            stem_filters: scale(32, width),
            stackwise_num_filters: [16, 24, 32, 64, 96, 160, 320].map(|f| scale(f, width)).into(),
            stackwise_num_blocks: vec![1, 2, 3, 4, 3, 3, 1],
            stackwise_num_strides: vec![1, 2, 2, 2, 1, 2, 1],
            stackwise_expansions: vec![1, 6, 6, 6, 6, 6, 6],
            last_filters: scale(1280, width.max(1.0)),
        }
    }

    /// Checks lengths and ranges.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub(super) fn check(&self) -> Result<(), String> {
        let [filters, blocks, strides, expansions] = [
            &self.stackwise_num_filters,
            &self.stackwise_num_blocks,
            &self.stackwise_num_strides,
            &self.stackwise_expansions,
        ];
        let stacks = filters.len();
        if stacks == 0 || [blocks, strides, expansions].iter().any(|list| list.len() != stacks) {
            return Err("stackwise filters, blocks, strides and expansions need the same length, \
                        at least 1"
                .into());
        }
        if stacks > MAX_STACKS {
            return Err(format!("{stacks} stacks, expected at most {MAX_STACKS}"));
        }
        for (what, numbers, most) in [
            ("blocks in a stack", blocks, 64),
            ("as a stride", strides, 2),
            ("times as wide", expansions, 16),
        ] {
            if let Some(n) = numbers.iter().find(|n| !(1..=most).contains(*n)) {
                return Err(format!("{n} {what}, expected 1..={most}"));
            }
        }
        let widths = [self.stem_filters, self.last_filters];
        if let Some(w) = widths.iter().chain(filters).find(|w| !(1..=4096).contains(*w)) {
            return Err(format!("width {w} is not in 1..=4096"));
        }
        Ok(())
    }

    /// Appends all layers before the pooling.
    pub(super) fn backbone(&self, net: &mut Blueprint) -> LayerId {
        let mut x = conv(net, "conv1", Blueprint::INPUT, self.stem_filters, [3, 2]);
        x = relu6(net, "conv1", x);
        net.cuts.push(x);
        for (stack, &filters) in self.stackwise_num_filters.iter().enumerate() {
            for block in 0..self.stackwise_num_blocks[stack] {
                let stride = if block == 0 { self.stackwise_num_strides[stack] } else { 1 };
                if stride > 1 {
                    net.stages.push(x);
                }
                let name = format!("stack{stack}_block{block}");
                x = inverted(net, &name, x, filters, [self.stackwise_expansions[stack], stride]);
                net.cuts.push(x);
            }
        }
        net.stages.push(x);
        x = conv(net, "last", x, self.last_filters, [1, 1]);
        relu6(net, "last", x)
    }
}

/// Appends a convolution of a filter and a stride, and its batch-norm.
fn conv(
    net: &mut Blueprint,
    name: &str,
    x: LayerId,
    c_out: usize,
    [filter, stride]: [usize; 2],
) -> LayerId {
    let window = WindowSpec { filter, stride, padding: ConvPadding::Symmetric };
    let x = net.conv(format!("{name}_conv"), x, c_out, window);
    net.batch_norm(format!("{name}_bn"), x)
}

/// Appends `min(max(x, 0), 6)`.
fn relu6(net: &mut Blueprint, name: &str, x: LayerId) -> LayerId {
    net.per_channel(format!("{name}_relu"), LayerOp::Activation(Activation::RELU6), x)
}

/// Appends an inverted residual block: to `expansion` times the channels, each of them filtered by itself,
/// and without an activation to `filters`.
fn inverted(
    net: &mut Blueprint,
    name: &str,
    input: LayerId,
    filters: usize,
    [expansion, stride]: [usize; 2],
) -> LayerId {
    let (mut x, c_in) = (input, net.layers[input].channels);
    let inner = c_in * expansion;
    if expansion > 1 {
        let name = format!("{name}_expand");
        x = conv(net, &name, x, inner, [1, 1]);
        x = relu6(net, &name, x);
    }
    let window = WindowSpec { filter: 3, stride, padding: ConvPadding::Symmetric };
    let each = ConvSpec { c_in: inner, c_out: inner, window, groups: inner };
    x = net.per_channel(format!("{name}_depthwise_conv"), LayerOp::Conv(each), x);
    x = net.batch_norm(format!("{name}_depthwise_bn"), x);
    x = relu6(net, &format!("{name}_depthwise"), x);
    x = conv(net, &format!("{name}_project"), x, filters, [1, 1]);
    if stride == 1 && c_in == filters { net.add(format!("{name}_add"), input, x) } else { x }
}
