//! ResNet architectures with KerasHub's semantics: one description of the layers, from
//! which the Graph, the trainer's modules and the checkpoint's tensor names all follow.

use crate::padding::ConvPadding;
use artifact::Preprocess;
use serde::{Deserialize, Serialize};

/// Mean and standard deviation of CIFAR-10's pixels.
const CIFAR_STATISTICS: [[f32; 3]; 2] = [[0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]];
/// Mean and standard deviation of ImageNet's pixels.
pub const IMAGENET_STATISTICS: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// How pictures become inputs of `side` × `side` pixels: normalized by CIFAR-10's statistics
/// where they are as small, else by ImageNet's.
pub fn default_preprocess(side: u16) -> Preprocess {
    let [mean, std] = if side <= 64 { CIFAR_STATISTICS } else { IMAGENET_STATISTICS };
    Preprocess::normalized(side, side, mean, std)
}

/// Residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockType {
    /// Two 3×3 convolutions.
    BasicBlock,
    /// 1×1, 3×3, 1×1 with [`ResNetConfig::expansion`] times the width.
    BottleneckBlock,
    /// As [`Self::BasicBlock`]; a strided shortcut averages before it projects, and every
    /// stack's first block projects.
    BasicBlockVd,
    /// As [`Self::BottleneckBlock`], with the same shortcut.
    BottleneckBlockVd,
}

impl BlockType {
    const fn is_basic(self) -> bool {
        matches!(self, Self::BasicBlock | Self::BasicBlockVd)
    }

    const fn is_vd(self) -> bool {
        matches!(self, Self::BasicBlockVd | Self::BottleneckBlockVd)
    }
}

/// Which convolution of a strided bottleneck strides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BottleneckStride {
    /// The 1×1 convolution before: He et al., Caffe, Keras
    First,
    /// The 3×3 convolution ("version 1.5"): torchvision, timm, KerasHub
    #[default]
    Second,
}

/// Pooling before the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the map.
    Avg,
    /// Largest value of the map.
    Max,
}

/// Architecture of a ResNet classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Name for people, e.g. `resnet_18`.
    pub name: String,
    /// Channels of the picture: 3, or 1 of grey.
    #[serde(default = "rgb", skip_serializing_if = "is_rgb")]
    pub channels: usize,
    /// Channels of each stem convolution.
    pub input_conv_filters: Vec<usize>,
    /// Filter size of each stem convolution.
    pub input_conv_kernel_sizes: Vec<usize>,
    /// Stride of the first stem convolution: 2 for ImageNet, 1 for CIFAR.
    pub stem_stride: usize,
    /// 3×3 stride-2 max-pool after the stem (ImageNet).
    pub stem_pool: bool,
    /// Width of each stack.
    pub stackwise_num_filters: Vec<usize>,
    /// Blocks of each stack.
    pub stackwise_num_blocks: Vec<usize>,
    /// Stride of each stack's first block.
    pub stackwise_num_strides: Vec<usize>,
    /// Block.
    pub block_type: BlockType,
    /// ResNet v2: batch-norm and ReLU before the convolutions.
    pub use_pre_activation: bool,
    /// Pooling before the head.
    pub pooling: Pooling,
    /// Share of the pooled features that training leaves out before the head, 0..1.
    #[serde(default)]
    pub dropout: f64,
    /// Classes of the head.
    pub classes: usize,
    /// Padding of the convolutions.
    #[serde(default)]
    pub padding: ConvPadding,
    /// Width of a bottleneck's output in widths of its stack: 4, in wide ResNets 2.
    #[serde(default = "expansion", skip_serializing_if = "is_four")]
    pub expansion: usize,
    /// Which convolution of a strided bottleneck strides.
    #[serde(default, skip_serializing_if = "is_second")]
    pub bottleneck_stride: BottleneckStride,
}

/// That of He et al.
const fn expansion() -> usize {
    4
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_four(expansion: &usize) -> bool {
    *expansion == self::expansion()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_second(stride: &BottleneckStride) -> bool {
    *stride == BottleneckStride::Second
}

const fn rgb() -> usize {
    3
}

/// Whether a number of channels is the usual one, which files leave out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_rgb(channels: &usize) -> bool {
    *channels == rgb()
}

/// Most stem convolutions, and most stacks.
const MAX_STAGES: usize = 16;

/// Batch-norm ε of every layer.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A convolution of the network, with its optional batch-norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvSpec {
    /// Layer name, e.g. `stack0_block0_1_conv`.
    pub name: String,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Square filter size.
    pub filter: usize,
    /// Stride.
    pub stride: usize,
    /// Padding.
    pub padding: ConvPadding,
}

/// One residual block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSpec {
    /// Prefix of the layer names, `stack{i}_block{j}`.
    pub name: String,
    /// Main path: two or three convolutions, `_1_conv`, `_2_conv`, `_3_conv`.
    /// v1: each is followed by batch-norm `_{n}_bn`. v2: `_pre_activation_bn` precedes the
    /// first, `_{n}_bn` follows all but the last.
    pub convs: Vec<ConvSpec>,
    /// Projection `_0_conv` (v1: with `_0_bn`; v2: without).
    pub projection: Option<ConvSpec>,
    /// vd: the shortcut's average pool `_0_pool` before the projection, with
    /// [`SHORTCUT_POOL`] and this stride.
    pub shortcut_pool: Option<usize>,
}

/// Rows and columns of a vd shortcut's average pool, padded as
/// [`same_padding`](crate::padding::same_padding): the pixels added are left out of the mean.
pub const SHORTCUT_POOL: usize = 2;

impl ResNetConfig {
    fn preset(name: &str, block: BlockType, blocks: &[usize], v2: bool, classes: usize) -> Self {
        Self {
            name: name.into(),
            channels: rgb(),
            input_conv_filters: vec![64],
            input_conv_kernel_sizes: vec![7],
            stem_stride: 2,
            stem_pool: true,
            stackwise_num_filters: vec![64, 128, 256, 512],
            stackwise_num_blocks: blocks.to_vec(),
            stackwise_num_strides: vec![1, 2, 2, 2],
            block_type: block,
            use_pre_activation: v2,
            pooling: Pooling::Avg,
            dropout: 0.0,
            classes,
            padding: ConvPadding::Symmetric,
            expansion: expansion(),
            bottleneck_stride: BottleneckStride::Second,
        }
    }

    fn vd(name: &str, block: BlockType, blocks: &[usize], classes: usize) -> Self {
        Self {
            input_conv_filters: vec![32, 32, 64],
            input_conv_kernel_sizes: vec![3; 3],
            ..Self::preset(name, block, blocks, false, classes)
        }
    }

    fn cifar(name: &str, blocks: usize, classes: usize) -> Self {
        Self {
            input_conv_filters: vec![16],
            input_conv_kernel_sizes: vec![3],
            stem_stride: 1,
            stem_pool: false,
            stackwise_num_filters: vec![16, 32, 64],
            stackwise_num_blocks: vec![blocks; 3],
            stackwise_num_strides: vec![1, 2, 2],
            ..Self::preset(name, BlockType::BasicBlock, &[], false, classes)
        }
    }

    /// Names that [`Self::by_name`] knows.
    pub const NAMES: [&str; 17] = [
        "resnet_8_cifar",
        "resnet_20_cifar",
        "resnet_18",
        "resnet_34",
        "resnet_50",
        "resnet_101",
        "resnet_152",
        "resnet_v2_50",
        "resnet_v2_101",
        "resnet_vd_18",
        "resnet_vd_34",
        "resnet_vd_50",
        "resnet_vd_101",
        "resnet_vd_152",
        "resnet_vd_200",
        "resnet_18_cifar",
        "kerashub_guide",
    ];

    /// As [`Self::by_name`].
    ///
    /// # Errors
    /// A name that is not known, with those that are.
    pub fn named(name: &str, classes: usize) -> Result<Self, String> {
        Self::by_name(name, classes)
            .ok_or_else(|| format!("{name}: not known; use one of {}", Self::NAMES.join(", ")))
    }

    /// A named architecture with a head of `classes`: one of [`Self::NAMES`], or a KerasHub
    /// preset's name, such as `resnet_vd_50_ssld_v2_imagenet`.
    pub fn by_name(name: &str, classes: usize) -> Option<Self> {
        use BlockType::{BasicBlock, BasicBlockVd, BottleneckBlock, BottleneckBlockVd};
        let bottleneck =
            |blocks: &[usize], v2| Self::preset(name, BottleneckBlock, blocks, v2, classes);
        Some(match name {
            "resnet_8_cifar" => Self::cifar(name, 1, classes),
            "resnet_20_cifar" => Self::cifar(name, 3, classes),
            "resnet_18_cifar" => Self {
                input_conv_kernel_sizes: vec![3],
                stem_stride: 1,
                stem_pool: false,
                ..Self::preset(name, BasicBlock, &[2, 2, 2, 2], false, classes)
            },
            // What the KerasHub guide trains from scratch.
            "kerashub_guide" => Self {
                stackwise_num_filters: vec![64; 3],
                stackwise_num_strides: vec![1, 2, 2],
                pooling: Pooling::Max,
                dropout: 0.5,
                ..Self::preset(name, BasicBlock, &[2, 2, 2], false, classes)
            },
            "resnet_18" => Self::preset(name, BasicBlock, &[2, 2, 2, 2], false, classes),
            "resnet_34" => Self::preset(name, BasicBlock, &[3, 4, 6, 3], false, classes),
            "resnet_50" => bottleneck(&[3, 4, 6, 3], false),
            "resnet_101" => bottleneck(&[3, 4, 23, 3], false),
            "resnet_152" => bottleneck(&[3, 8, 36, 3], false),
            "resnet_v2_50" => bottleneck(&[3, 4, 6, 3], true),
            "resnet_v2_101" => bottleneck(&[3, 4, 23, 3], true),
            "resnet_vd_18" => Self::vd(name, BasicBlockVd, &[2, 2, 2, 2], classes),
            "resnet_vd_34" => Self::vd(name, BasicBlockVd, &[3, 4, 6, 3], classes),
            "resnet_vd_50" => Self::vd(name, BottleneckBlockVd, &[3, 4, 6, 3], classes),
            "resnet_vd_101" => Self::vd(name, BottleneckBlockVd, &[3, 4, 23, 3], classes),
            "resnet_vd_152" => Self::vd(name, BottleneckBlockVd, &[3, 8, 36, 3], classes),
            "resnet_vd_200" => Self::vd(name, BottleneckBlockVd, &[3, 12, 48, 3], classes),
            _ => {
                // Presets of one architecture differ in how they were trained.
                let rest = name.strip_suffix("_imagenet")?;
                let rest = rest.split_once("_ssld").map_or(rest, |(architecture, _)| architecture);
                Self { name: name.into(), ..Self::by_name(rest, classes)? }
            }
        })
    }

    /// Classes of the data set that the architecture was designed for: CIFAR-10's or ImageNet's.
    pub fn native_classes(&self) -> usize {
        if self.native_size() == 32 { 10 } else { 1000 }
    }

    /// Input side in pixels that the architecture was designed for.
    pub fn native_size(&self) -> u16 {
        if self.stem_stride == 1 { 32 } else { 224 }
    }

    /// `p` for this network: of a grey one the luma of pictures, with the mean of the channels'
    /// means and deviations.
    #[must_use]
    pub fn preprocess(&self, p: Preprocess) -> Preprocess {
        if self.channels != 1 {
            return p;
        }
        let [scale, offset] = [p.scale, p.offset].map(|values| values.map(f64::from));
        let deviation = scale.iter().map(|s| 1.0 / s).sum::<f64>() / 3.0;
        let mean = scale.iter().zip(&offset).map(|(s, o)| -o / s).sum::<f64>() / 3.0;
        let (scale, offset) = ((1.0 / deviation) as f32, (-mean / deviation) as f32);
        Preprocess { scale: [scale; 3], offset: [offset; 3], grey: true, ..p }
    }

    /// Checks lengths and ranges.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub fn check(&self) -> Result<(), String> {
        let stacks = self.stackwise_num_filters.len();
        if self.input_conv_filters.is_empty()
            || self.input_conv_filters.len() != self.input_conv_kernel_sizes.len()
        {
            return Err(
                "input_conv_filters and input_conv_kernel_sizes need the same length, at least 1"
                    .into(),
            );
        }
        if stacks == 0
            || stacks != self.stackwise_num_blocks.len()
            || stacks != self.stackwise_num_strides.len()
        {
            return Err(
                "stackwise filters, blocks and strides need the same length, at least 1".into()
            );
        }
        if ![1, 3].contains(&self.channels) {
            return Err(format!("pictures of {} channels, expected 3 or 1", self.channels));
        }
        // A forged file of a few kilobytes must not announce millions of layers.
        if let Some(n) = [self.input_conv_filters.len(), stacks].iter().find(|n| **n > MAX_STAGES) {
            return Err(format!("{n} stem convolutions or stacks, expected at most {MAX_STAGES}"));
        }
        let sizes = self.input_conv_filters.iter().chain(&self.stackwise_num_filters);
        if let Some(f) = sizes.into_iter().find(|f| !(1..=8192).contains(*f)) {
            return Err(format!("width {f} is not in 1..=8192"));
        }
        if let Some(k) = self.input_conv_kernel_sizes.iter().find(|k| **k % 2 == 0 || **k > 31) {
            return Err(format!("stem filter size {k} is not an odd number below 32"));
        }
        if let Some(n) = self.stackwise_num_blocks.iter().find(|n| !(1..=256).contains(*n)) {
            return Err(format!("{n} blocks in a stack, expected 1..=256"));
        }
        if self
            .stackwise_num_strides
            .iter()
            .chain([&self.stem_stride])
            .any(|s| !(1..=4).contains(s))
        {
            return Err("strides must be in 1..=4".into());
        }
        if !(1..=65_535).contains(&self.classes) {
            return Err(format!("{} classes, expected 1..=65535", self.classes));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("dropout {} is not in 0..1", self.dropout));
        }
        if self.use_pre_activation && self.block_type.is_vd() {
            return Err("vd blocks have no pre-activation form; use basic_block or \
                        bottleneck_block"
                .into());
        }
        if !(1..=8).contains(&self.expansion) {
            return Err(format!("bottlenecks {} times as wide, expected 1..=8", self.expansion));
        }
        Ok(())
    }

    /// Stem convolutions, each named `conv{n}_conv`; batch-norm `conv{n}_bn` and ReLU follow
    /// each, except the last one of a pre-activation net.
    pub fn stem(&self) -> Vec<ConvSpec> {
        let mut c_in = self.channels;
        let sizes = self.input_conv_filters.iter().zip(&self.input_conv_kernel_sizes);
        sizes
            .enumerate()
            .map(|(i, (&c_out, &filter))| {
                let stride = if i == 0 { self.stem_stride } else { 1 };
                let name = format!("conv{}_conv", i + 1);
                let spec = ConvSpec { name, c_in, c_out, filter, stride, padding: self.padding };
                c_in = c_out;
                spec
            })
            .collect()
    }

    /// Blocks of all stacks in order.
    pub fn blocks(&self) -> Vec<BlockSpec> {
        let mut c_in = *self.input_conv_filters.last().unwrap_or(&3);
        let mut blocks = Vec::new();
        for (i, &width) in self.stackwise_num_filters.iter().enumerate() {
            for j in 0..self.stackwise_num_blocks[i] {
                let name = format!("stack{i}_block{j}");
                let stride = if j == 0 { self.stackwise_num_strides[i] } else { 1 };
                let conv = |n: usize, c_in, c_out, filter, stride| ConvSpec {
                    name: format!("{name}_{n}_conv"),
                    c_in,
                    c_out,
                    filter,
                    stride,
                    padding: self.padding,
                };
                let (convs, c_out) = if self.block_type.is_basic() {
                    let convs = vec![conv(1, c_in, width, 3, stride), conv(2, width, width, 3, 1)];
                    (convs, width)
                } else {
                    let (first, second) = match self.bottleneck_stride {
                        BottleneckStride::First => (stride, 1),
                        BottleneckStride::Second => (1, stride),
                    };
                    let c_out = self.expansion * width;
                    let convs = vec![
                        conv(1, c_in, width, 1, first),
                        conv(2, width, width, 3, second),
                        conv(3, width, c_out, 1, 1),
                    ];
                    (convs, c_out)
                };
                // A basic block of the first stack can mostly do without.
                let needs = stride > 1 || c_in != c_out;
                let projects =
                    j == 0 && (i > 0 || self.block_type != BlockType::BasicBlock || needs);
                // A vd shortcut strides in its pool.
                let pools = projects && stride > 1 && self.block_type.is_vd();
                let conv_stride = if pools { 1 } else { stride };
                let projection = projects.then(|| conv(0, c_in, c_out, 1, conv_stride));
                let shortcut_pool = pools.then_some(stride);
                blocks.push(BlockSpec { name, convs, projection, shortcut_pool });
                c_in = c_out;
            }
        }
        blocks
    }

    /// Channels that reach the head.
    pub fn features(&self) -> usize {
        let width = *self.stackwise_num_filters.last().unwrap_or(&0);
        if self.block_type.is_basic() { width } else { self.expansion * width }
    }

    /// Names and shapes of every tensor of a checkpoint.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        fn conv(out: &mut Vec<(String, Vec<usize>)>, c: &ConvSpec) {
            out.push((format!("{}.weight", c.name), vec![c.c_out, c.filter, c.filter, c.c_in]));
        }
        fn bn(out: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize) {
            for part in ["gamma", "beta", "mean", "variance"] {
                out.push((format!("{name}.{part}"), vec![channels]));
            }
        }
        let mut out = Vec::new();
        let stem = self.stem();
        for (i, c) in stem.iter().enumerate() {
            conv(&mut out, c);
            if !self.use_pre_activation || i + 1 < stem.len() {
                bn(&mut out, &format!("conv{}_bn", i + 1), c.c_out);
            }
        }
        for b in self.blocks() {
            if self.use_pre_activation {
                bn(&mut out, &format!("{}_pre_activation_bn", b.name), b.convs[0].c_in);
            }
            for (n, c) in b.convs.iter().enumerate() {
                conv(&mut out, c);
                if !self.use_pre_activation || n + 1 < b.convs.len() {
                    bn(&mut out, &format!("{}_{}_bn", b.name, n + 1), c.c_out);
                }
            }
            if let Some(c) = &b.projection {
                conv(&mut out, c);
                if !self.use_pre_activation {
                    bn(&mut out, &format!("{}_0_bn", b.name), c.c_out);
                }
            }
        }
        if self.use_pre_activation {
            bn(&mut out, "post_bn", self.features());
        }
        out.push(("predictions.weight".into(), vec![self.classes, self.features()]));
        out.push(("predictions.bias".into(), vec![self.classes]));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_bottlenecks_and_the_first_stride_are_described() {
        let resnet = ResNetConfig::by_name("resnet_50", 10).unwrap();
        let wide = ResNetConfig {
            stackwise_num_filters: vec![128, 256, 512, 1024],
            expansion: 2,
            bottleneck_stride: BottleneckStride::First,
            ..resnet.clone()
        };
        assert_eq!((wide.features(), wide.check()), (2048, Ok(())));
        let block = &wide.blocks()[3];
        let strides: Vec<usize> = block.convs.iter().map(|c| c.stride).collect();
        assert_eq!((strides, block.convs[2].c_out), (vec![2, 1, 1], 512));
        // Neither is in files of networks that have the usual ones.
        let written = |c: &ResNetConfig| serde_json::to_value(c).unwrap();
        assert!(written(&resnet).get("expansion").is_none());
        assert_eq!(serde_json::from_value::<ResNetConfig>(written(&resnet)).unwrap(), resnet);
        assert_eq!(serde_json::from_value::<ResNetConfig>(written(&wide)).unwrap(), wide);
        let forged = ResNetConfig { expansion: 9, ..wide };
        assert!(forged.check().unwrap_err().contains("1..=8"));
    }

    #[test]
    fn the_first_basic_block_projects_where_it_has_to() {
        let mut config = ResNetConfig::by_name("resnet_18", 10).unwrap();
        assert_eq!(config.blocks()[0].projection, None);
        config.stackwise_num_strides[0] = 2;
        assert_eq!(config.blocks()[0].projection.as_ref().unwrap().stride, 2);
        config.stackwise_num_strides[0] = 1;
        config.input_conv_filters = vec![16];
        assert_eq!(config.blocks()[0].projection.as_ref().unwrap().c_in, 16);
    }
}
