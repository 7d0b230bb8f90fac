//! What PyTorch's packages call the layers of MobileNets and EfficientNets.
//!
//! | ours | timm | torchvision's V2 | its V3 | its EfficientNet |
//! |---|---|---|---|---|
//! | `stem_conv`, `stem_bn` | `conv_stem`, `bn1` | `features.0.0`, `.1` | the same | the same |
//! | `block1_…` | `blocks.1.0.…` | `features.2.conv.…` | `features.2.block.…` | `features.2.0.block.…` |
//! | `…expand_conv`, `…_bn` | `conv_pw`, `bn1` | `0.0`, `0.1` | the same | the same |
//! | `…depthwise_conv`, `…_bn` | `conv_dw`, `bn2` | `1.0`, `1.1` | the same | the same |
//! | `…se_reduce`, `…se_expand` | `se.conv_reduce`, `se.conv_expand` | | `2.fc1`, `2.fc2` | the same |
//! | `…project_conv`, `…_bn` | `conv_pwl`, `bn3` | `2`, `3` | `3.0`, `3.1` | the same |
//! | `last_conv`, `last_bn` | `conv_head`, `bn2`; V3: `blocks.6.0.conv`, `.bn1` | `features.18.0`, `.1` | the same | the same |
//! | `hidden` | `conv_head` | | `classifier.0` | |
//! | `predictions` | `classifier` | `classifier.1` | `classifier.3` | `classifier.1` |
//!
//! What a block lacks is not counted. transformers numbers the layers of V1 (`layer.0.convolution`) and the
//! blocks of V2 behind the first (`layer.0.expand_1x1.convolution`).

use network::architecture::mobilenet::MobileNetConfig;
use network::blueprint::HEAD;

/// Whose names they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// timm's, of all networks.
    Timm,
    /// torchvision's MobileNetV2.
    MobileNetV2,
    /// Its MobileNetV3.
    MobileNetV3,
    /// Its EfficientNet.
    EfficientNet,
    /// transformers' MobileNetV1.
    TransformersV1,
    /// Its MobileNetV2.
    TransformersV2,
}

/// A block, and which parts it has that not all have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Its number.
    pub(super) index: usize,
    /// Its stack, and its number there.
    pub(super) stack: usize,
    pub(super) place: usize,
    pub(super) expands: bool,
    pub(super) is_gated: bool,
}

/// The names of one network.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) scheme: Scheme,
    /// Blocks of each stack.
    pub(super) stacks: Vec<usize>,
    pub(super) blocks: usize,
    pub(super) has_hidden: bool,
}

impl Scheme {
    /// Whether names say to which stack a block belongs.
    pub(super) const fn has_stacks(self) -> bool {
        matches!(self, Self::Timm | Self::EfficientNet)
    }

    /// That of a block's `expand_conv`, `expand_bn`, `depthwise_conv` and so on.
    pub(super) fn of_block(self, at: Position, layer: &str) -> Option<String> {
        let Position { index, stack, place, expands, is_gated } = at;
        let (part, kind) = layer.split_once('_')?;
        let bn = usize::from(kind == "bn");
        // Among the convolutions, and among all parts.
        let (conv, part_number) = match part {
            "expand" => (0, 0),
            "depthwise" => (usize::from(expands), usize::from(expands)),
            "se" => (0, usize::from(expands) + 1),
            _ => (usize::from(expands) + 1, usize::from(expands) + 1 + usize::from(is_gated)),
        };
        if part == "se" {
            let [timm, torchvision] = match kind {
                "reduce" => ["conv_reduce", "fc1"],
                _ => ["conv_expand", "fc2"],
            };
            return match self {
                Self::Timm => Some(format!("blocks.{stack}.{place}.se.{timm}")),
                Self::MobileNetV3 => {
                    Some(format!("features.{}.block.{part_number}.{torchvision}", index + 1))
                }
                Self::EfficientNet => Some(format!(
                    "features.{}.{place}.block.{part_number}.{torchvision}",
                    stack + 1
                )),
                _ => None,
            };
        }
        let transformers = ["convolution", "normalization"][bn];
        Some(match self {
            Self::Timm => {
                let conv_name = match part {
                    "depthwise" => "conv_dw",
                    "project" if expands => "conv_pwl",
                    _ => "conv_pw",
                };
                let bn_name = format!("bn{}", conv + 1);
                let name = if bn == 0 { conv_name } else { &bn_name };
                format!("blocks.{stack}.{place}.{name}")
            }
            Self::MobileNetV2 if part == "project" => {
                format!("features.{}.conv.{}", index + 1, conv + bn)
            }
            Self::MobileNetV2 => format!("features.{}.conv.{conv}.{bn}", index + 1),
            Self::MobileNetV3 => format!("features.{}.block.{part_number}.{bn}", index + 1),
            Self::EfficientNet => {
                format!("features.{}.{place}.block.{part_number}.{bn}", stack + 1)
            }
            Self::TransformersV1 => match part {
                "expand" => return None,
                _ => format!("layer.{}.{transformers}", 2 * index + conv),
            },
            Self::TransformersV2 => {
                let conv_name = match part {
                    "expand" => "expand_1x1",
                    "depthwise" => "conv_3x3",
                    _ => "reduce_1x1",
                };
                match index.checked_sub(1) {
                    None => format!("conv_stem.{conv_name}.{transformers}"),
                    Some(index) => format!("layer.{index}.{conv_name}.{transformers}"),
                }
            }
        })
    }
}

impl Layout {
    /// Their name of one of our layers.
    pub(super) fn name(&self, layer: &str, config: &MobileNetConfig) -> Option<String> {
        match layer.strip_prefix("block") {
            None => self.of_ends(layer),
            Some(rest) => {
                let (index, rest) = rest.split_once('_')?;
                let index = index.parse().ok()?;
                let block = config.blocks.get(index)?;
                let (stack, place) = self.place(index);
                let (expands, is_gated) = (block.expanded.is_some(), block.squeezed.is_some());
                let at = Position { index, stack, place, expands, is_gated };
                self.scheme.of_block(at, rest)
            }
        }
    }

    /// That of a layer before or behind the blocks.
    pub(super) fn of_ends(&self, layer: &str) -> Option<String> {
        let bn = usize::from(layer.ends_with("_bn"));
        let transformers = ["convolution", "normalization"][bn];
        let behind = match self.scheme {
            Scheme::EfficientNet => self.stacks.len() + 1,
            _ => self.blocks + 1,
        };
        Some(match (self.scheme, layer) {
            (Scheme::Timm, "stem_conv" | "stem_bn") => ["conv_stem", "bn1"][bn].into(),
            (Scheme::Timm, "last_conv" | "last_bn") if self.has_hidden => {
                format!("blocks.{}.0.{}", self.stacks.len(), ["conv", "bn1"][bn])
            }
            (Scheme::Timm, "last_conv" | "last_bn") => ["conv_head", "bn2"][bn].into(),
            (Scheme::Timm, "hidden") => "conv_head".into(),
            (Scheme::TransformersV1, "stem_conv" | "stem_bn") => {
                format!("conv_stem.{transformers}")
            }
            (Scheme::TransformersV2, "stem_conv" | "stem_bn") => {
                format!("conv_stem.first_conv.{transformers}")
            }
            (Scheme::TransformersV2, "last_conv" | "last_bn") => format!("conv_1x1.{transformers}"),
            (Scheme::Timm | Scheme::TransformersV1 | Scheme::TransformersV2, HEAD) => {
                "classifier".into()
            }
            (Scheme::TransformersV1 | Scheme::TransformersV2, _) => return None,
            (_, "stem_conv" | "stem_bn") => format!("features.0.{bn}"),
            (_, "last_conv" | "last_bn") => format!("features.{behind}.{bn}"),
            (Scheme::MobileNetV3, "hidden") => "classifier.0".into(),
            (Scheme::MobileNetV3, HEAD) => "classifier.3".into(),
            (_, HEAD) => "classifier.1".into(),
            _ => return None,
        })
    }

    /// The stack of a block, and its number there.
    fn place(&self, index: usize) -> (usize, usize) {
        let mut place = index;
        for (stack, &blocks) in self.stacks.iter().enumerate() {
            match place.checked_sub(blocks) {
                None => return (stack, place),
                Some(rest) => place = rest,
            }
        }
        (self.stacks.len(), place)
    }
}
