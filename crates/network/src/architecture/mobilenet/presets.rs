//! The published networks by name, at any width.

use super::{Block, BlockType, MobileNetConfig, two};
use crate::activation::Activation;
use crate::architecture::{Architecture, Family};
use crate::padding::ConvPadding;

/// A MobileNet at any width.
struct MobileNet {
    /// Name at full width; others add their percent, as in `mobilenet_v1_025`.
    name: &'static str,
    /// Its config at a width.
    config: fn(f64) -> MobileNetConfig,
    /// Widths that others publish weights of.
    widths: &'static [&'static str],
    /// Share of features left out in training.
    dropout: f64,
}

const MOBILENETS: [MobileNet; 4] = [
    MobileNet {
        name: "mobilenet_v1",
        config: mobilenet_v1,
        widths: &["mobilenet_v1", "mobilenet_v1_025", "mobilenet_v1_050", "mobilenet_v1_075"],
        dropout: 0.001,
    },
    MobileNet {
        name: "mobilenet_v2",
        config: mobilenet_v2,
        widths: &[
            "mobilenet_v2",
            "mobilenet_v2_035",
            "mobilenet_v2_050",
            "mobilenet_v2_075",
            "mobilenet_v2_140",
        ],
        dropout: 0.2,
    },
    MobileNet {
        name: "mobilenet_v3_small",
        config: |width| mobilenet_v3(width, &V3_SMALL, 3, 1024),
        widths: &["mobilenet_v3_small", "mobilenet_v3_small_050", "mobilenet_v3_small_075"],
        dropout: 0.2,
    },
    MobileNet {
        name: "mobilenet_v3_large",
        config: |width| mobilenet_v3(width, &V3_LARGE, 6, 1280),
        widths: &["mobilenet_v3_large", "mobilenet_v3_large_075"],
        dropout: 0.2,
    },
];

/// An EfficientNet: name, how many times as wide and as deep as the smallest, side of pictures, share of
/// features left out in training.
type EfficientNet = (&'static str, [f64; 2], u16, f64);

/// How names of those start that have no gates and stem, first, and last layers of one size.
const LITE: &str = "efficientnet_lite";

const EFFICIENTNETS: [EfficientNet; 13] = [
    ("efficientnet_b0", [1.0, 1.0], 224, 0.2),
    ("efficientnet_b1", [1.0, 1.1], 240, 0.2),
    ("efficientnet_b2", [1.1, 1.2], 260, 0.3),
    ("efficientnet_b3", [1.2, 1.4], 300, 0.3),
    ("efficientnet_b4", [1.4, 1.8], 380, 0.4),
    ("efficientnet_b5", [1.6, 2.2], 456, 0.4),
    ("efficientnet_b6", [1.8, 2.6], 528, 0.5),
    ("efficientnet_b7", [2.0, 3.1], 600, 0.5),
    ("efficientnet_lite0", [1.0, 1.0], 224, 0.2),
    ("efficientnet_lite1", [1.0, 1.1], 240, 0.2),
    ("efficientnet_lite2", [1.1, 1.2], 260, 0.3),
    ("efficientnet_lite3", [1.2, 1.4], 280, 0.3),
    ("efficientnet_lite4", [1.4, 1.8], 300, 0.3),
];

/// Blocks of one width: how many times as wide as its input each is inside; filter, stride of the first
/// block, width, number of blocks; whether they have gates.
type Stack = (f64, [usize; 4], bool);

const V1: [Stack; 9] = [
    (1.0, [3, 1, 64, 1], false),
    (1.0, [3, 2, 128, 1], false),
    (1.0, [3, 1, 128, 1], false),
    (1.0, [3, 2, 256, 1], false),
    (1.0, [3, 1, 256, 1], false),
    (1.0, [3, 2, 512, 1], false),
    (1.0, [3, 1, 512, 5], false),
    (1.0, [3, 2, 1024, 1], false),
    (1.0, [3, 1, 1024, 1], false),
];

const V2: [Stack; 7] = [
    (1.0, [3, 1, 16, 1], false),
    (6.0, [3, 2, 24, 2], false),
    (6.0, [3, 2, 32, 3], false),
    (6.0, [3, 2, 64, 4], false),
    (6.0, [3, 1, 96, 3], false),
    (6.0, [3, 2, 160, 3], false),
    (6.0, [3, 1, 320, 1], false),
];

const V3_SMALL: [Stack; 8] = [
    (1.0, [3, 2, 16, 1], true),
    (72.0 / 16.0, [3, 2, 24, 1], false),
    (88.0 / 24.0, [3, 1, 24, 1], false),
    (4.0, [5, 2, 40, 1], true),
    (6.0, [5, 1, 40, 2], true),
    (3.0, [5, 1, 48, 2], true),
    (6.0, [5, 2, 96, 1], true),
    (6.0, [5, 1, 96, 2], true),
];

const V3_LARGE: [Stack; 10] = [
    (1.0, [3, 1, 16, 1], false),
    (4.0, [3, 2, 24, 1], false),
    (3.0, [3, 1, 24, 1], false),
    (3.0, [5, 2, 40, 3], true),
    (6.0, [3, 2, 80, 1], false),
    (2.5, [3, 1, 80, 1], false),
    (2.3, [3, 1, 80, 2], false),
    (6.0, [3, 1, 112, 2], true),
    (6.0, [5, 2, 160, 1], true),
    (6.0, [5, 1, 160, 2], true),
];

const EFFICIENTNET: [Stack; 7] = [
    (1.0, [3, 1, 16, 1], true),
    (6.0, [3, 2, 24, 2], true),
    (6.0, [5, 2, 40, 2], true),
    (6.0, [3, 2, 80, 3], true),
    (6.0, [5, 1, 112, 3], true),
    (6.0, [5, 2, 192, 4], true),
    (6.0, [3, 1, 320, 1], true),
];

/// All names; MobileNets have more, of other widths.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let scaled = EFFICIENTNETS.iter().map(|(name, ..)| *name);
    MOBILENETS.iter().flat_map(|net| net.widths).copied().chain(scaled)
}

/// A named architecture with a head of `classes`, or that of a KerasHub preset, such as
/// `efficientnet_b1_ra4_e3600_r240_imagenet`.
pub(crate) fn by_name(name: &str, classes: usize) -> Option<Architecture> {
    let (dropout, config) = match name.strip_suffix("_imagenet") {
        None => find(name)?,
        // Presets of one architecture differ in how they were trained.
        Some(recipe) => {
            let ends = recipe.rmatch_indices('_').map(|(end, _)| end);
            [recipe.len()].into_iter().chain(ends).find_map(|end| find(&recipe[..end]))?
        }
    };
    Some(Architecture { dropout, ..Architecture::new(name, classes, Family::MobileNet(config)) })
}

/// Side of the pictures that a name's network was designed for.
pub(super) fn native_size(name: &str) -> u16 {
    EFFICIENTNETS.iter().find(|(known, ..)| name.starts_with(known)).map_or(224, |net| net.2)
}

/// Dropout and config of a name.
fn find(name: &str) -> Option<(f64, MobileNetConfig)> {
    if let Some(&(_, scale, _, dropout)) = EFFICIENTNETS.iter().find(|(known, ..)| *known == name) {
        return Some((dropout, efficientnet(scale, name.starts_with(LITE))));
    }
    MOBILENETS.iter().find_map(|net| {
        let width = match name.strip_prefix(net.name)? {
            "" => 100,
            rest => rest.strip_prefix('_').and_then(percent)?,
        };
        Some((net.dropout, (net.config)(f64::from(width) / 100.0)))
    })
}

/// A positive number of three digits.
fn percent(text: &str) -> Option<u16> {
    let is_number = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&number| is_number && number > 0)
}

/// The nearest multiple of eight that takes no more than a tenth away.
fn eights(wanted: f64) -> usize {
    let nearest = 8 * ((wanted + 4.0) as usize / 8).max(1);
    if (nearest as f64) < 0.9 * wanted { nearest + 8 } else { nearest }
}

/// The blocks of stacks behind a stem. `scale` makes a width of a stack's, `squeezed` a gate's of those of
/// the block's input and inside.
fn blocks(
    stem: usize,
    stacks: &[Stack],
    scale: impl Fn(usize) -> usize,
    squeezed: impl Fn(usize, usize) -> usize,
    activation: Activation,
) -> Vec<Block> {
    let (mut c_in, mut blocks) = (stem, Vec::new());
    for &(expansion, [filter, stride, width, number], is_gated) in stacks {
        for n in 0..number {
            let expanded = (expansion > 1.0).then(|| eights(c_in as f64 * expansion));
            let squeezed = is_gated.then(|| squeezed(c_in, expanded.unwrap_or(c_in)));
            let stride = if n == 0 { stride } else { 1 };
            let filters = scale(width);
            blocks.push(Block { expanded, filter, stride, squeezed, filters, activation });
            c_in = filters;
        }
    }
    blocks
}

/// Of inverted residuals and one activation, without gates or anything behind the blocks.
fn plain(stem_filters: usize, blocks: Vec<Block>, activation: Activation) -> MobileNetConfig {
    MobileNetConfig {
        stem_filters,
        stem_stride: two(),
        block_type: BlockType::InvertedResidual,
        blocks,
        last_filters: None,
        hidden_features: None,
        activation,
        gate_activations: None,
        padding: ConvPadding::Symmetric,
    }
}

fn mobilenet_v1(width: f64) -> MobileNetConfig {
    // Its widths are cut, not rounded.
    let scale = |filters: usize| ((filters as f64 * width) as usize).max(1);
    let blocks = blocks(scale(32), &V1, scale, |_, inside| inside, Activation::RELU6);
    MobileNetConfig {
        block_type: BlockType::Separable,
        ..plain(scale(32), blocks, Activation::RELU6)
    }
}

fn mobilenet_v2(width: f64) -> MobileNetConfig {
    let scale = |filters: usize| eights(filters as f64 * width);
    let blocks = blocks(scale(32), &V2, scale, |_, inside| inside, Activation::RELU6);
    MobileNetConfig {
        // Narrow networks keep it.
        last_filters: Some(eights(1280.0 * width.max(1.0))),
        ..plain(scale(32), blocks, Activation::RELU6)
    }
}

/// Stacks of a width; the first `rectified` blocks have ReLU.
fn mobilenet_v3(width: f64, stacks: &[Stack], rectified: usize, hidden: usize) -> MobileNetConfig {
    let scale = |filters: usize| eights(filters as f64 * width);
    let quarter = |_, inside| eights(inside as f64 / 4.0);
    let mut blocks = blocks(16, stacks, scale, quarter, Activation::HARD_SWISH);
    blocks[..rectified].iter_mut().for_each(|block| block.activation = Activation::RELU);
    MobileNetConfig {
        last_filters: blocks.last().map(|block| 6 * block.filters),
        hidden_features: Some(eights(hidden as f64 * width.max(1.0))),
        gate_activations: Some([Activation::RELU, Activation::HARD_SIGMOID]),
        ..plain(16, blocks, Activation::HARD_SWISH)
    }
}

fn efficientnet([width, depth]: [f64; 2], is_lite: bool) -> MobileNetConfig {
    let scale = |filters: usize| eights(filters as f64 * width);
    let ends = |filters: usize| if is_lite { filters } else { scale(filters) };
    let activation = if is_lite { Activation::RELU6 } else { Activation::SILU };
    let mut stacks = EFFICIENTNET;
    let last = stacks.len() - 1;
    for (n, (_, [.., number], is_gated)) in stacks.iter_mut().enumerate() {
        if !(is_lite && (n == 0 || n == last)) {
            *number = (*number as f64 * depth).ceil() as usize;
        }
        *is_gated = !is_lite;
    }
    let blocks = blocks(ends(32), &stacks, scale, |c_in, _| (c_in / 4).max(1), activation);
    MobileNetConfig {
        last_filters: Some(ends(1280)),
        gate_activations: (!is_lite).then_some([activation, Activation::SIGMOID]),
        ..plain(ends(32), blocks, activation)
    }
}
