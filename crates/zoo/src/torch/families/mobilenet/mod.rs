//! The MobileNet or EfficientNet that follows from names and shapes, and where those do not say, from the
//! published networks of such blocks, and from hints.

mod names;
mod published;

use super::{Known, Names, Rules, Source, Traces};
use crate::Hints;
use names::{Layout, Position, Scheme};
use network::activation::Activation;
use network::architecture::mobilenet::{Block, BlockType, MobileNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::Pooling;
use network::checkpoint::Assumption;
use network::padding::ConvPadding;
use std::collections::BTreeMap;

/// What networks are known by, for each of those who name them.
pub(super) static TRACES: [Traces; 6] = [
    Traces {
        stems: &[["conv_stem.weight", "blocks.0.0.conv_dw.weight"]],
        backbone: &["conv_stem.", "bn1.", "blocks.", "conv_head.", "bn2."],
        head: &["classifier"],
        architecture: |source, assumed| architecture(Scheme::Timm, source, assumed),
    },
    Traces {
        stems: &[["features.0.0.weight", "features.1.conv.0.0.weight"]],
        backbone: &["features."],
        head: &["classifier.1"],
        architecture: |source, assumed| architecture(Scheme::MobileNetV2, source, assumed),
    },
    Traces {
        stems: &[["features.0.0.weight", "features.1.block.0.0.weight"]],
        backbone: &["features.", "classifier.0."],
        head: &["classifier.3"],
        architecture: |source, assumed| architecture(Scheme::MobileNetV3, source, assumed),
    },
    Traces {
        stems: &[["features.0.0.weight", "features.1.0.block.0.0.weight"]],
        backbone: &["features."],
        head: &["classifier.1"],
        architecture: |source, assumed| architecture(Scheme::EfficientNet, source, assumed),
    },
    Traces {
        stems: &[["conv_stem.convolution.weight", "layer.0.convolution.weight"]],
        backbone: &["conv_stem.", "layer."],
        head: &["classifier"],
        architecture: |source, assumed| architecture(Scheme::TransformersV1, source, assumed),
    },
    Traces {
        stems: &[[
            "conv_stem.first_conv.convolution.weight",
            "conv_stem.conv_3x3.convolution.weight",
        ]],
        backbone: &["conv_stem.", "layer.", "conv_1x1."],
        head: &["classifier"],
        architecture: |source, assumed| architecture(Scheme::TransformersV2, source, assumed),
    },
];

/// Whether timm's network of a name is one of those; of others, tensors may have the same names.
pub(in crate::torch) fn is_known(architecture: &str) -> bool {
    let name = architecture.strip_prefix("tf_").unwrap_or(architecture);
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let wide = ["mobilenetv1_", "mobilenetv2_", "mobilenetv3_small_", "mobilenetv3_large_"];
    let deep = ["efficientnet_b", "efficientnet_lite"];
    let width = wide.iter().find_map(|kind| name.strip_prefix(kind));
    let width = width.map(|w| w.strip_prefix("minimal_").unwrap_or(w));
    // Deeper ones end in a letter.
    width.is_some_and(|w| is_number(w.strip_suffix('d').unwrap_or(w)))
        || deep.iter().any(|kind| name.strip_prefix(kind).is_some_and(is_number))
}

/// How timm's network of a name is padded, and its ε: those that TensorFlow trained as there.
pub(in crate::torch) fn rules(architecture: &str) -> Rules {
    match architecture.starts_with("tf_") {
        true => Rules { padding: ConvPadding::Same, epsilon: TENSORFLOW_EPSILON },
        false => Rules::default(),
    }
}

/// Batch-norm ε of Keras and TensorFlow.
const TENSORFLOW_EPSILON: f64 = 1e-3;

/// What a state dict that is written here is read by.
pub(in crate::torch) fn written_rules(padding: ConvPadding) -> Rules {
    rules(if padding == ConvPadding::Same { "tf_" } else { "" })
}

/// What a state dict does not say, readers take for granted.
pub(super) fn check(config: &MobileNetConfig, pooling: Pooling) -> Result<(), &'static str> {
    if config.stem_stride != 2 {
        return Err("a stem of another stride than 2");
    }
    let Some((published, _)) = published::of(config) else {
        return Err("other blocks, strides or activations than those published");
    };
    if config.padding == ConvPadding::Same
        && ["mobilenet_v1", "mobilenet_v2"].contains(&published.name)
    {
        return Err("TensorFlow's padding");
    }
    match pooling {
        Pooling::Avg => Ok(()),
        Pooling::Max => Err("max pooling before the head"),
    }
}

/// timm's names of a network.
pub(super) fn written(config: &Architecture, mobilenet: &MobileNetConfig) -> Names {
    let stacks = published::of(mobilenet).map(|(_, stacks)| stacks).unwrap_or_default();
    names(config, mobilenet, Scheme::Timm, stacks)
}

fn names(
    config: &Architecture,
    mobilenet: &MobileNetConfig,
    scheme: Scheme,
    stacks: Vec<usize>,
) -> Names {
    let (blocks, has_hidden) = (mobilenet.blocks.len(), mobilenet.hidden_features.is_some());
    let layout = Layout { scheme, stacks, blocks, has_hidden };
    Names::new(config, |layer| layout.name(layer, mobilenet).into_iter().collect())
}

/// Shapes of convolutions and dense layers.
struct Filters<'a>(&'a BTreeMap<&'a str, &'a [usize]>);

impl Filters<'_> {
    /// Outputs, inputs, rows and columns.
    fn of(&self, name: Option<String>) -> Option<[usize; 4]> {
        match **self.0.get(format!("{}.weight", name?).as_str())? {
            [outputs, inputs] => Some([outputs, inputs, 1, 1]),
            [outputs, inputs, rows, columns] => Some([outputs, inputs, rows, columns]),
            _ => None,
        }
    }

    /// Outputs of a 1×1 convolution of as many inputs.
    fn pointwise(&self, name: Option<String>, inputs: usize) -> Option<usize> {
        match self.of(name)? {
            [outputs, found, 1, 1] if found == inputs => Some(outputs),
            _ => None,
        }
    }

    /// The block at a place, which reads `c_in` channels.
    fn block(&self, scheme: Scheme, at: Position, c_in: usize) -> Option<Block> {
        let name = |layer: &str| scheme.of_block(at, layer);
        let inside = match at.expands {
            true => self.pointwise(name("expand_conv"), c_in)?,
            false => c_in,
        };
        let [outputs, 1, filter, columns] = self.of(name("depthwise_conv"))? else { return None };
        if (outputs, filter) != (inside, columns) {
            return None;
        }
        let mut squeezed = None;
        if at.is_gated {
            let outputs = self.pointwise(name("se_reduce"), inside)?;
            squeezed = self.pointwise(name("se_expand"), outputs).map(|_| outputs);
        }
        Some(Block {
            expanded: at.expands.then_some(inside),
            filter,
            stride: 1,
            squeezed,
            filters: self.pointwise(name("project_conv"), inside)?,
            activation: Activation::RELU6,
        })
    }

    /// All blocks behind a stem, and how many each stack has.
    fn blocks(&self, scheme: Scheme, stem: usize) -> (Vec<Block>, Vec<usize>) {
        let (mut blocks, mut stacks) = (Vec::<Block>::new(), Vec::new());
        loop {
            let (index, c_in) = (blocks.len(), blocks.last().map_or(stem, |b| b.filters));
            let next = (stacks.len(), 0);
            let same = stacks.last().map(|&number| (stacks.len() - 1, number));
            let places = same.into_iter().chain(scheme.has_stacks().then_some(next));
            let places =
                if index == 0 || !scheme.has_stacks() { vec![next] } else { places.collect() };
            let found = places.into_iter().find_map(|(stack, place)| {
                let parts = [(true, true), (true, false), (false, true), (false, false)];
                let block = parts.into_iter().find_map(|(expands, is_gated)| {
                    let at = Position { index, stack, place, expands, is_gated };
                    self.block(scheme, at, c_in)
                })?;
                Some((place, block))
            });
            match found {
                Some((place, block)) => {
                    blocks.push(block);
                    match stacks.last_mut() {
                        Some(number) if place > 0 => *number += 1,
                        _ => stacks.push(1),
                    }
                }
                None => return (blocks, stacks),
            }
        }
    }
}

/// The architecture of a state dict with the names of `scheme`.
fn architecture(
    scheme: Scheme,
    source: &Source<'_>,
    assumed: &mut Vec<Assumption>,
) -> Result<Known, String> {
    let hints = source.hints;
    for (is_given, option) in [
        (hints.stem_pool.is_some(), Hints::STEM_POOL),
        (hints.bottleneck_stride.is_some(), Hints::BOTTLENECK_STRIDE),
    ] {
        if let (true, Some(option)) = (is_given, option) {
            return Err(format!("a MobileNet or EfficientNet, but {option} is for ResNets"));
        }
    }
    if !source.shapes.keys().any(|name| name.ends_with(".running_mean")) {
        return Err("no running statistics, so that its norms are no batch-norms: not read".into());
    }
    let (config, channels, stacks) = shown(scheme, source)?;
    let stem_stride = hints.stem_stride.map_or(2, usize::from);
    if hints.stem_stride.is_none() {
        assumed.push(Assumption::new("a stem of stride 2", Hints::STEM_STRIDE));
    }
    let (mut config, stacks, dropout) = dressed(scheme, config, stacks, hints, assumed)?;
    let Rules { padding, epsilon } = source.rules.unwrap_or_else(|| {
        let rules = usual(scheme, source.name, &stacks);
        let what = match rules.padding {
            ConvPadding::Same => "TensorFlow's padding and ε",
            ConvPadding::Symmetric => "even padding (with `tf_` in the file's name, TensorFlow's)",
        };
        let is_open = scheme == Scheme::Timm || rules.padding == ConvPadding::Same;
        assumed.extend(is_open.then(|| Assumption::new(what, None)));
        rules
    });
    (config.padding, config.stem_stride) = (padding, stem_stride);
    let family = Family::MobileNet(config.clone());
    let found = Architecture { channels, dropout, ..Architecture::new(source.name, 1, family) };
    let names = names(&found, &config, scheme, stacks);
    Ok(Known { config: found, names, epsilon })
}

/// Padding and ε, where nothing but names says them.
fn usual(scheme: Scheme, name: &str, stacks: &[usize]) -> Rules {
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    let is_large = stacks.first().is_some_and(|&blocks| blocks > 2);
    match scheme {
        Scheme::Timm if words.any(|word| word.eq_ignore_ascii_case("tf")) => rules("tf_"),
        Scheme::TransformersV1 | Scheme::TransformersV2 => rules("tf_"),
        Scheme::MobileNetV3 => Rules { epsilon: TENSORFLOW_EPSILON, ..Rules::default() },
        // From B5 on.
        Scheme::EfficientNet if is_large => {
            Rules { epsilon: TENSORFLOW_EPSILON, ..Rules::default() }
        }
        _ => Rules::default(),
    }
}

/// What shapes show: widths, filters and gates, the picture's channels, and the blocks of each stack.
fn shown(
    scheme: Scheme,
    source: &Source<'_>,
) -> Result<(MobileNetConfig, usize, Vec<usize>), String> {
    let filters = Filters(source.shapes);
    let ends = |blocks: usize, stacks: &[usize], has_hidden| Layout {
        scheme,
        stacks: stacks.to_vec(),
        blocks,
        has_hidden,
    };
    let stem = ends(0, &[], false).of_ends("stem_conv");
    let Some([stem_filters, channels, 3, 3]) = filters.of(stem) else {
        return Err("a MobileNet whose stem is no 3×3 convolution, which is not read".into());
    };
    let (blocks, stacks) = filters.blocks(scheme, stem_filters);
    let Some(width) = blocks.last().map(|block| block.filters) else {
        return Err("no blocks of depthwise convolutions behind its stem".into());
    };
    if scheme == Scheme::TransformersV2 && blocks[0].filters == stem_filters {
        return Err(
            "a first block as wide as its stem, which transformers alone does not add".into()
        );
    }
    // timm's V3 has its last convolution in a stack of its own.
    let hidden = ends(blocks.len(), &stacks, true);
    let last = |layout: &Layout| filters.pointwise(layout.of_ends("last_conv"), width);
    let (last_filters, hidden_features) = match (scheme, last(&hidden)) {
        (Scheme::Timm | Scheme::MobileNetV3, Some(last)) => {
            (Some(last), filters.pointwise(hidden.of_ends("hidden"), last))
        }
        _ => (last(&ends(blocks.len(), &stacks, false)), None),
    };
    let config = MobileNetConfig {
        stem_filters,
        stem_stride: 2,
        block_type: BlockType::InvertedResidual,
        blocks,
        last_filters,
        hidden_features,
        activation: Activation::RELU6,
        gate_activations: None,
        padding: ConvPadding::Symmetric,
    };
    Ok((config, channels, stacks))
}

/// A config with strides and activations, the blocks of its stacks, and its dropout: those of a published
/// network with such blocks, or what hints say and the published ones have most often.
fn dressed(
    scheme: Scheme,
    config: MobileNetConfig,
    stacks: Vec<usize>,
    hints: &Hints,
    assumed: &mut Vec<Assumption>,
) -> Result<(MobileNetConfig, Vec<usize>, f64), String> {
    let given = hints.stack_strides.as_ref();
    let given: Option<Vec<usize>> = given.map(|s| s.iter().map(|s| usize::from(*s)).collect());
    let found = published::all().into_iter().find_map(|model| {
        let is_as_deep = model.stacks.iter().sum::<usize>() == config.blocks.len();
        let stacks = match scheme.has_stacks() {
            true => stacks.clone(),
            false => is_as_deep.then(|| model.stacks.clone())?,
        };
        Some((model.name, model.dropout, model.dress(&config, &stacks)?, stacks))
    });
    let (mut config, stacks, dropout) = match (found, &given) {
        (Some((name, dropout, config, stacks)), None) => {
            let what = format!("strides and activations of {name}");
            assumed.push(Assumption::new(what, Hints::STACK_STRIDES));
            return Ok((config, stacks, dropout));
        }
        (Some((name, dropout, config, stacks)), Some(_)) => {
            assumed.push(Assumption::new(format!("activations of {name}"), None));
            (config, stacks, dropout)
        }
        (None, Some(_)) => (usually_activated(config, assumed), stacks, 0.0),
        (None, None) => {
            let number = stacks.len();
            return Err(format!(
                "blocks of depthwise convolutions in another order than those of MobileNets and \
                 EfficientNets, which would say strides and activations: say the strides of its \
                 {number} stacks with --stack-strides, if it is one nevertheless; as ONNX \
                 (torch.onnx.export) it is read as it is"
            ));
        }
    };
    let given = given.unwrap_or_default();
    if given.len() != stacks.len() {
        return Err(format!("strides of {} stacks, found {}", given.len(), stacks.len()));
    }
    for (block, stride) in config.blocks.iter_mut().zip(published::strides(&stacks, &given)) {
        block.stride = stride;
    }
    Ok((config, stacks, dropout))
}

/// A config of no published network with the activations that such have.
fn usually_activated(config: MobileNetConfig, assumed: &mut Vec<Assumption>) -> MobileNetConfig {
    let is_gated = config.blocks.iter().any(|block| block.squeezed.is_some());
    let (activation, gates, what) = match (config.hidden_features, is_gated) {
        (Some(_), _) => (
            Activation::HARD_SWISH,
            [Activation::RELU, Activation::HARD_SIGMOID],
            "hard-swish (ReLU and hard-sigmoid in gates)",
        ),
        (None, true) => (
            Activation::SILU,
            [Activation::SILU, Activation::SIGMOID],
            "SiLU (and sigmoid in gates)",
        ),
        (None, false) => (Activation::RELU6, [Activation::RELU6; 2], "ReLU6"),
    };
    assumed.push(Assumption::new(what, None));
    // Of blocks that all lack an expansion, with nothing behind them, is the first version.
    let is_separable = config.blocks.iter().all(|block| block.expanded.is_none());
    let block_type = match is_separable && config.last_filters.is_none() {
        true => BlockType::Separable,
        false => BlockType::InvertedResidual,
    };
    MobileNetConfig {
        block_type,
        blocks: config.blocks.iter().map(|b| Block { activation, ..b.clone() }).collect(),
        activation,
        gate_activations: is_gated.then_some(gates),
        ..config
    }
}

/// Whether what is dense here is a 1×1 convolution in timm.
pub(super) fn is_convolution(theirs: &str) -> bool {
    theirs.contains(".se.") || theirs == "conv_head.weight"
}

#[cfg(test)]
mod tests;
