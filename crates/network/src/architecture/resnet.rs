//! ResNets with KerasHub's semantics, as [`Blueprint`]s.

use crate::architecture::{Architecture, Family, Named};
use crate::blueprint::{Blueprint, LayerId, Pooling, WindowSpec};
use crate::padding::ConvPadding;
use BlockType::{BasicBlock, BasicBlockVd, BottleneckBlock, BottleneckBlockVd};
use artifact::PoolKind;
use serde::{Deserialize, Serialize};

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

/// The layers of a ResNet before its pooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
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

/// Most stem convolutions, and most stacks.
const MAX_STAGES: usize = 16;

/// Rows and columns of a vd shortcut's average pool, padded as
/// [`same_padding`](crate::padding::same_padding): the pixels added are left out of the mean.
const SHORTCUT_POOL: usize = 2;

/// Networks by name.
pub(super) const NAMED: &Named<ResNetConfig> = &[
    ("resnet_8_cifar", || ResNetConfig::cifar(1)),
    ("resnet_20_cifar", || ResNetConfig::cifar(3)),
    ("resnet_18", || ResNetConfig::preset(BasicBlock, &[2, 2, 2, 2])),
    ("resnet_34", || ResNetConfig::preset(BasicBlock, &[3, 4, 6, 3])),
    ("resnet_50", || ResNetConfig::preset(BottleneckBlock, &[3, 4, 6, 3])),
    ("resnet_101", || ResNetConfig::preset(BottleneckBlock, &[3, 4, 23, 3])),
    ("resnet_152", || ResNetConfig::preset(BottleneckBlock, &[3, 8, 36, 3])),
    ("resnet_v2_50", || ResNetConfig::v2(&[3, 4, 6, 3])),
    ("resnet_v2_101", || ResNetConfig::v2(&[3, 4, 23, 3])),
    ("resnet_vd_18", || ResNetConfig::vd(BasicBlockVd, &[2, 2, 2, 2])),
    ("resnet_vd_34", || ResNetConfig::vd(BasicBlockVd, &[3, 4, 6, 3])),
    ("resnet_vd_50", || ResNetConfig::vd(BottleneckBlockVd, &[3, 4, 6, 3])),
    ("resnet_vd_101", || ResNetConfig::vd(BottleneckBlockVd, &[3, 4, 23, 3])),
    ("resnet_vd_152", || ResNetConfig::vd(BottleneckBlockVd, &[3, 8, 36, 3])),
    ("resnet_vd_200", || ResNetConfig::vd(BottleneckBlockVd, &[3, 12, 48, 3])),
    ("resnet_18_cifar", || ResNetConfig {
        input_conv_kernel_sizes: vec![3],
        stem_stride: 1,
        stem_pool: false,
        ..ResNetConfig::preset(BasicBlock, &[2, 2, 2, 2])
    }),
    // What the KerasHub guide trains from scratch.
    ("kerashub_guide", || ResNetConfig {
        stackwise_num_filters: vec![64; 3],
        stackwise_num_strides: vec![1, 2, 2],
        ..ResNetConfig::preset(BasicBlock, &[2, 2, 2])
    }),
];

/// A named architecture with a head of `classes`: one of [`NAMED`], or a KerasHub preset's name, such
/// as `resnet_vd_50_ssld_v2_imagenet`.
pub(crate) fn by_name(name: &str, classes: usize) -> Option<Architecture> {
    // Presets of one architecture differ in how they were trained.
    let plain =
        name.strip_suffix("_imagenet").map(|rest| rest.split("_ssld").next().unwrap_or(rest));
    let (_, config) = NAMED.iter().find(|(known, _)| *known == plain.unwrap_or(name))?;
    let is_guide = name == "kerashub_guide";
    Some(Architecture {
        pooling: if is_guide { Pooling::Max } else { Pooling::Avg },
        dropout: if is_guide { 0.5 } else { 0.0 },
        ..Architecture::new(name, classes, Family::ResNet(config()))
    })
}

impl ResNetConfig {
    fn preset(block: BlockType, blocks: &[usize]) -> Self {
        Self {
            input_conv_filters: vec![64],
            input_conv_kernel_sizes: vec![7],
            stem_stride: 2,
            stem_pool: true,
            stackwise_num_filters: vec![64, 128, 256, 512],
            stackwise_num_blocks: blocks.to_vec(),
            stackwise_num_strides: vec![1, 2, 2, 2],
            block_type: block,
            use_pre_activation: false,
            padding: ConvPadding::Symmetric,
            expansion: expansion(),
            bottleneck_stride: BottleneckStride::Second,
        }
    }

    fn v2(blocks: &[usize]) -> Self {
        Self { use_pre_activation: true, ..Self::preset(BlockType::BottleneckBlock, blocks) }
    }

    fn vd(block: BlockType, blocks: &[usize]) -> Self {
        Self {
            input_conv_filters: vec![32, 32, 64],
            input_conv_kernel_sizes: vec![3; 3],
            ..Self::preset(block, blocks)
        }
    }

    fn cifar(blocks: usize) -> Self {
        Self {
            input_conv_filters: vec![16],
            input_conv_kernel_sizes: vec![3],
            stem_stride: 1,
            stem_pool: false,
            stackwise_num_filters: vec![16, 32, 64],
            stackwise_num_strides: vec![1, 2, 2],
            ..Self::preset(BlockType::BasicBlock, &[blocks; 3])
        }
    }

    /// Input side in pixels that the network was designed for.
    pub(crate) fn native_size(&self) -> u16 {
        if self.stem_stride == 1 { 32 } else { 224 }
    }

    /// Checks lengths and ranges.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub(crate) fn check(&self) -> Result<(), String> {
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

    /// Channels of the last block.
    pub fn features(&self) -> usize {
        let width = *self.stackwise_num_filters.last().unwrap_or(&0);
        if self.block_type.is_basic() { width } else { self.expansion * width }
    }

    const fn window(&self, filter: usize, stride: usize) -> WindowSpec {
        WindowSpec { filter, stride, padding: self.padding }
    }

    /// Appends all layers before the pooling.
    pub(crate) fn backbone(&self, net: &mut Blueprint) -> LayerId {
        let mut x = Blueprint::INPUT;
        let stem = self.input_conv_filters.iter().zip(&self.input_conv_kernel_sizes);
        for (n, (&width, &filter)) in (1..).zip(stem) {
            let stride = if n == 1 { self.stem_stride } else { 1 };
            x = net.conv(format!("conv{n}_conv"), x, width, self.window(filter, stride));
            // The first block of a pre-activation net brings its own batch-norm.
            if !self.use_pre_activation || n < self.input_conv_filters.len() {
                x = net.batch_norm(format!("conv{n}_bn"), x);
                x = net.relu(format!("conv{n}_relu"), x);
            }
        }
        if self.stem_pool {
            // Skipping outside taps is KerasHub's −∞ padding of v2, and its zero padding of v1,
            // where no input is negative.
            x = net.pool("pool1_pool", x, PoolKind::Max, self.window(3, 2));
        }
        net.cuts.push(x);
        for (stack, &blocks) in self.stackwise_num_blocks.iter().enumerate() {
            for block in 0..blocks {
                x = self.block(net, x, stack, block);
                net.cuts.push(x);
            }
            net.stages.push(x);
        }
        if self.use_pre_activation {
            x = net.batch_norm("post_bn", x);
            x = net.relu("post_relu", x);
        }
        x
    }

    /// Width, filter and stride of a block's convolutions.
    fn main_path(&self, width: usize, stride: usize) -> Vec<(usize, usize, usize)> {
        let (first, second) = match self.bottleneck_stride {
            BottleneckStride::First => (stride, 1),
            BottleneckStride::Second => (1, stride),
        };
        match self.block_type.is_basic() {
            true => vec![(width, 3, stride), (width, 3, 1)],
            false => {
                vec![(width, 1, first), (width, 3, second), (self.expansion * width, 1, 1)]
            }
        }
    }

    /// A residual block. Version 1: convolutions with batch-norm, the sum is rectified. Version 2:
    /// normalizes and rectifies first, projects from that, and only adds.
    ///
    /// The projection comes just before the last convolution: until then only the block's input is
    /// kept, which a strided bottleneck needs less memory for.
    fn block(&self, net: &mut Blueprint, input: LayerId, stack: usize, block: usize) -> LayerId {
        let v2 = self.use_pre_activation;
        let name = format!("stack{stack}_block{block}");
        let stride = if block == 0 { self.stackwise_num_strides[stack] } else { 1 };
        let convs = self.main_path(self.stackwise_num_filters[stack], stride);
        let (c_in, c_out) = (net.layers[input].channels, convs[convs.len() - 1].0);
        // A basic block of the first stack can mostly do without.
        let needs = stride > 1 || c_in != c_out;
        let projects =
            block == 0 && (stack > 0 || self.block_type != BlockType::BasicBlock || needs);
        let start = match v2 {
            true => {
                let x = net.batch_norm(format!("{name}_pre_activation_bn"), input);
                net.relu(format!("{name}_pre_activation_relu"), x)
            }
            false => input,
        };
        // An identity shortcut carries the raw input, a projection the activated one.
        let (mut x, mut shortcut) = (start, input);
        for (n, &(width, filter, by)) in (1..).zip(&convs) {
            let last = n == convs.len();
            if last && projects {
                shortcut = self.projection(net, start, &name, c_out, stride);
            }
            x = net.conv(format!("{name}_{n}_conv"), x, width, self.window(filter, by));
            if !v2 || !last {
                x = net.batch_norm(format!("{name}_{n}_bn"), x);
            }
            if !last {
                x = net.relu(format!("{name}_{n}_relu"), x);
            }
        }
        match v2 {
            true => net.add(format!("{name}_out"), shortcut, x),
            false => {
                let x = net.add(format!("{name}_add"), shortcut, x);
                net.relu(format!("{name}_out"), x)
            }
        }
    }

    /// What brings a shortcut to the size and width of its block.
    fn projection(
        &self,
        net: &mut Blueprint,
        mut x: LayerId,
        name: &str,
        width: usize,
        stride: usize,
    ) -> LayerId {
        // A vd shortcut strides in its pool.
        let pools = stride > 1 && self.block_type.is_vd();
        if pools {
            let window = WindowSpec { filter: SHORTCUT_POOL, stride, padding: ConvPadding::Same };
            x = net.pool(format!("{name}_0_pool"), x, PoolKind::Average, window);
        }
        let stride = if pools { 1 } else { stride };
        x = net.conv(format!("{name}_0_conv"), x, width, self.window(1, stride));
        match self.use_pre_activation {
            true => x,
            false => net.batch_norm(format!("{name}_0_bn"), x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resnet(name: &str) -> (Architecture, ResNetConfig) {
        let found = by_name(name, 10).unwrap();
        let config = found.family.resnet().unwrap().clone();
        (found, config)
    }

    fn with(config: ResNetConfig) -> Blueprint {
        Architecture::new("n", 10, Family::ResNet(config)).blueprint()
    }

    #[test]
    fn wide_bottlenecks_and_the_first_stride_are_described() {
        let (architecture, resnet) = resnet("resnet_50");
        let wide = ResNetConfig {
            stackwise_num_filters: vec![128, 256, 512, 1024],
            expansion: 2,
            bottleneck_stride: BottleneckStride::First,
            ..resnet
        };
        assert_eq!((wide.features(), wide.check()), (2048, Ok(())));
        let blueprint = with(wide.clone());
        let strides = [1, 2, 3].map(|n| {
            let name = format!("stack1_block0_{n}_conv");
            blueprint.convs().find(|(layer, _)| layer.name == name).unwrap().1
        });
        assert_eq!((strides.map(|c| c.window.stride), strides[2].c_out), ([2, 1, 1], 512));
        // Neither is in files of networks that have the usual ones.
        let written = |c: &Architecture| serde_json::to_value(c).unwrap();
        assert!(written(&architecture).get("expansion").is_none());
        let wide = Architecture { family: Family::ResNet(wide), ..architecture.clone() };
        for config in [&architecture, &wide] {
            assert_eq!(&serde_json::from_value::<Architecture>(written(config)).unwrap(), config);
        }
        let forged = ResNetConfig { expansion: 9, ..wide.family.resnet().unwrap().clone() };
        assert!(forged.check().unwrap_err().contains("1..=8"));
    }

    #[test]
    fn the_first_basic_block_projects_where_it_has_to() {
        let (_, config) = resnet("resnet_18");
        let projection = |config: &ResNetConfig| {
            let blueprint = with(config.clone());
            blueprint.convs().find(|(layer, _)| layer.name == "stack0_block0_0_conv").map(|c| c.1)
        };
        assert_eq!(projection(&config), None);
        let strided = ResNetConfig { stackwise_num_strides: vec![2, 2, 2, 2], ..config.clone() };
        assert_eq!(projection(&strided).unwrap().window.stride, 2);
        let narrow = ResNetConfig { input_conv_filters: vec![16], ..config };
        assert_eq!(projection(&narrow).unwrap().c_in, 16);
    }
}
