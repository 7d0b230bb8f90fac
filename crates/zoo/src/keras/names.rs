//! What Keras Applications and KerasHub call the layers of MobileNets and EfficientNets.
//!
//! | ours | V1 | V2 | V3 | EfficientNet |
//! |---|---|---|---|---|
//! | `stem_conv` | `conv1` | `Conv1` | `conv` | `stem_conv` |
//! | `block0_depthwise_conv` | `conv_dw_1` | `expanded_conv_depthwise` | as V2 | `block1a_dwconv` |
//! | `block2_project_conv` | `conv_pw_3` | `block_2_project` | `expanded_conv_2_project` | `block2b_project_conv` |
//! | `last_conv` | | `Conv_1` | `conv_1` | `top_conv` |
//! | `hidden` | | | `conv_2` | |
//! | `predictions` | `conv_preds` | `predictions` | `logits` | `predictions` |

use network::blueprint::HEAD;

/// Whose names, of which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Keras Applications' MobileNet.
    V1,
    /// Keras Applications' MobileNetV2.
    V2,
    /// Keras Applications' MobileNetV3Small and MobileNetV3Large.
    V3,
    /// The same before Keras 3.
    OldV3,
    /// Keras Applications' EfficientNets.
    EfficientNet,
    /// KerasHub's `MobileNetBackbone` and its classifier.
    HubMobileNet,
    /// KerasHub's `EfficientNetBackbone`.
    HubEfficientNet,
}

/// Layers outside of blocks.
const ENDS: [&str; 6] = ["stem_conv", "stem_bn", "last_conv", "last_bn", "hidden", HEAD];
/// Layers of a block, behind its name.
const PARTS: [&str; 8] = [
    "expand_conv",
    "expand_bn",
    "depthwise_conv",
    "depthwise_bn",
    "se_reduce",
    "se_expand",
    "project_conv",
    "project_bn",
];
/// Their paths in a KerasHub block's group.
const GROUPS: [&str; 8] = [
    "conv1",
    "batch_normalization1",
    "conv2",
    "batch_normalization2",
    "squeeze_excite/conv_reduce",
    "squeeze_excite/conv_expand",
    "conv3",
    "batch_normalization3",
];
/// The same of the first block.
const FIRST_GROUPS: [&str; 8] = [
    "",
    "",
    "conv1",
    "batch_normalization1",
    "se_layer/conv_reduce",
    "se_layer/conv_expand",
    "conv2",
    "batch_normalization2",
];

impl Naming {
    /// Those of Keras Applications.
    pub(super) const APPLICATIONS: [Self; 5] =
        [Self::V1, Self::V2, Self::V3, Self::OldV3, Self::EfficientNet];

    /// Their name of one of our layers, where block `n` is block `place.1` of stack `place.0`, both from
    /// zero; that of the largest number is one behind the last. `None` where theirs has no such layer.
    pub(super) fn name(
        self,
        ours: &str,
        place: impl Fn(usize) -> (usize, usize),
    ) -> Option<String> {
        if let (Self::HubMobileNet, Some(part)) = (self, ours.strip_prefix("last_")) {
            let last = self.block(usize::MAX, place(usize::MAX));
            return Some(format!("{last}{part}"));
        }
        if let Some(end) = ENDS.iter().position(|end| *end == ours) {
            return Some(self.ends()[end].to_owned()).filter(|name| !name.is_empty());
        }
        let (block, part) = block_part(ours)?;
        let name = self.parts(block == 0)[part];
        Some(name.replace('@', &self.block(block, place(block)))).filter(|name| !name.is_empty())
    }

    const fn ends(self) -> [&'static str; 6] {
        match self {
            Self::V1 => ["conv1", "conv1_bn", "", "", "", "conv_preds"],
            Self::V2 => ["Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn", "", HEAD],
            Self::V3 => ["conv", "conv_bn", "conv_1", "conv_1_bn", "conv_2", "logits"],
            Self::OldV3 => {
                ["Conv", "Conv/BatchNorm", "Conv_1", "Conv_1/BatchNorm", "Conv_2", "Logits"]
            }
            Self::EfficientNet | Self::HubEfficientNet => {
                ["stem_conv", "stem_bn", "top_conv", "top_bn", "", HEAD]
            }
            Self::HubMobileNet => {
                ["input_conv", "input_batch_norm", "", "", "classifier_conv", HEAD]
            }
        }
    }

    /// Those of [`PARTS`]; `@` stands for the block.
    const fn parts(self, is_first: bool) -> [&'static str; 8] {
        match self {
            Self::V1 => ["", "", "conv_dw_@", "conv_dw_@_bn", "", "", "conv_pw_@", "conv_pw_@_bn"],
            Self::V2 => [
                "@expand",
                "@expand_BN",
                "@depthwise",
                "@depthwise_BN",
                "",
                "",
                "@project",
                "@project_BN",
            ],
            Self::V3 => [
                "@expand",
                "@expand_bn",
                "@depthwise",
                "@depthwise_bn",
                "@squeeze_excite_conv",
                "@squeeze_excite_conv_1",
                "@project",
                "@project_bn",
            ],
            Self::OldV3 => [
                "@expand",
                "@expand/BatchNorm",
                "@depthwise",
                "@depthwise/BatchNorm",
                "@squeeze_excite/Conv",
                "@squeeze_excite/Conv_1",
                "@project",
                "@project/BatchNorm",
            ],
            Self::EfficientNet => [
                "@expand_conv",
                "@expand_bn",
                "@dwconv",
                "@bn",
                "@se_reduce",
                "@se_expand",
                "@project_conv",
                "@project_bn",
            ],
            Self::HubEfficientNet => [
                "@expand_conv",
                "@expand_bn",
                "@dwconv",
                "@dwconv_bn",
                "@se_reduce",
                "@se_expand",
                "@project",
                "@project_bn",
            ],
            Self::HubMobileNet if is_first => [
                "",
                "",
                "@conv1",
                "@bn1",
                "@squeeze_excite_conv_reduce",
                "@squeeze_excite_conv_expand",
                "@conv2",
                "@bn2",
            ],
            Self::HubMobileNet => [
                "@conv1",
                "@bn1",
                "@conv2",
                "@bn2",
                "@se_conv_reduce",
                "@se_conv_expand",
                "@conv3",
                "@bn3",
            ],
        }
    }

    /// How names of a block's layers start.
    fn block(self, n: usize, (stack, i): (usize, usize)) -> String {
        match self {
            Self::V1 => (n + 1).to_string(),
            Self::V2 if n > 0 => format!("block_{n}_"),
            Self::V3 if n > 0 => format!("expanded_conv_{n}_"),
            Self::OldV3 if n > 0 => format!("expanded_conv_{n}/"),
            Self::OldV3 => "expanded_conv/".into(),
            Self::V2 | Self::V3 => "expanded_conv_".into(),
            Self::EfficientNet | Self::HubEfficientNet => {
                let letter = u8::try_from(i).ok().and_then(|i| b'a'.checked_add(i));
                format!("block{}{}_", stack + 1, char::from(letter.unwrap_or(b'?')))
            }
            Self::HubMobileNet => format!("block_{stack}_{i}_"),
        }
    }
}

/// Number and part of a layer in a block.
pub(super) fn block_part(ours: &str) -> Option<(usize, usize)> {
    let (block, part) = ours.strip_prefix("block")?.split_once('_')?;
    let part = PARTS.iter().position(|known| *known == part)?;
    Some((block.parse().ok()?, part))
}

/// The group of a layer that KerasHub's `MobileNetBackbone` keeps in one of its blocks.
pub(super) fn hub_group(ours: &str) -> Option<String> {
    if let Some(last) = ours.strip_prefix("last_") {
        let name = if last == "bn" { "batch_normalization" } else { last };
        return Some(format!("conv_bn_act_block/{name}"));
    }
    let (block, part) = block_part(ours)?;
    Some(match block {
        0 => format!("depthwise_conv_block/{}", FIRST_GROUPS[part]),
        1 => format!("inverted_residual_block/{}", GROUPS[part]),
        n => format!("inverted_residual_block_{}/{}", n - 1, GROUPS[part]),
    })
}
