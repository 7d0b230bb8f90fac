//! What the blocks of published networks have that no tensor shows: strides and activations.

use network::activation::Activation;
use network::architecture::mobilenet::{Block, MobileNetConfig};
use network::architecture::{Architecture, Family};

/// A published network at full width.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) name: &'static str,
    pub(super) dropout: f64,
    config: MobileNetConfig,
    /// Blocks of each stack.
    pub(super) stacks: Vec<usize>,
}

/// One of each kind; the other EfficientNets have more blocks in their stacks, and other widths.
const NAMES: [&str; 6] = [
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_lite0",
];

/// All of them.
pub(super) fn all() -> Vec<Published> {
    let mut all = Vec::new();
    for name in NAMES {
        let Some(Architecture { family: Family::MobileNet(config), dropout, .. }) =
            Architecture::by_name(name, 1)
        else {
            continue;
        };
        let stacks = stacks(&config.blocks);
        if config.hidden_features.is_some() {
            let config = minimal(config.clone());
            all.push(Published {
                name: "mobilenet_v3 (minimalistic)",
                dropout,
                config,
                stacks: stacks.clone(),
            });
        }
        all.push(Published { name, dropout, config, stacks });
    }
    all
}

/// TensorFlow's "minimalistic" form of a MobileNetV3: 3×3 filters, ReLU, no gates.
fn minimal(config: MobileNetConfig) -> MobileNetConfig {
    let plain =
        |block: Block| Block { filter: 3, squeezed: None, activation: Activation::RELU, ..block };
    MobileNetConfig {
        blocks: config.blocks.into_iter().map(plain).collect(),
        activation: Activation::RELU,
        gate_activations: None,
        ..config
    }
}

/// The number of blocks in a row that have one width: at full width, stacks differ.
pub(super) fn stacks(blocks: &[Block]) -> Vec<usize> {
    blocks.chunk_by(|a, b| a.filters == b.filters).map(<[Block]>::len).collect()
}

/// Strides of blocks in stacks of these strides.
pub(super) fn strides(stacks: &[usize], of_stacks: &[usize]) -> Vec<usize> {
    let blocks = stacks.iter().zip(of_stacks);
    blocks.flat_map(|(&n, &stride)| (0..n).map(move |i| if i == 0 { stride } else { 1 })).collect()
}

impl Published {
    /// `config` with this network's strides and activations; `None` where it has other blocks, whatever
    /// their widths and the number of those in a stack.
    pub(super) fn dress(
        &self,
        config: &MobileNetConfig,
        stacks: &[usize],
    ) -> Option<MobileNetConfig> {
        let model = &self.config;
        let ends = |c: &MobileNetConfig| (c.last_filters.is_some(), c.hidden_features.is_some());
        if self.stacks.len() != stacks.len() || ends(model) != ends(config) {
            return None;
        }
        let kind = |b: &Block| (b.expanded.is_some(), b.filter, b.squeezed.is_some());
        let mut blocks = config.blocks.iter();
        let (mut dressed, mut first) = (Vec::new(), 0);
        for (&number, &published) in stacks.iter().zip(&self.stacks) {
            let model = model.blocks.get(first)?;
            for (n, block) in blocks.by_ref().take(number).enumerate() {
                if kind(block) != kind(model) {
                    return None;
                }
                let stride = if n == 0 { model.stride } else { 1 };
                dressed.push(Block { stride, activation: model.activation, ..block.clone() });
            }
            first += published;
        }
        Some(MobileNetConfig {
            blocks: dressed,
            block_type: model.block_type,
            activation: model.activation,
            gate_activations: model.gate_activations,
            ..config.clone()
        })
    }
}

/// The published network that a config is one of, but for widths and depth, and the blocks of its stacks.
pub(super) fn of(config: &MobileNetConfig) -> Option<(Published, Vec<usize>)> {
    all().into_iter().find_map(|published| {
        // Narrow networks have stacks of the same width.
        let is_as_deep = published.stacks.iter().sum::<usize>() == config.blocks.len();
        let own = is_as_deep.then(|| published.stacks.clone());
        let mut found = own.into_iter().chain([stacks(&config.blocks)]);
        let stacks = found.find(|s| published.dress(config, s).as_ref() == Some(config))?;
        Some((published, stacks))
    })
}
