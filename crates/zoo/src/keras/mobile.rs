//! The weights alone of Keras Applications' MobileNets and EfficientNets, known by the names of their layers.
//!
//! Widths and filters are those of the arrays; strides and activations are what the package builds.

use super::arrays::Arrays;
use super::config::DEFAULT_SIDE;
use super::layers::{INPUT, Network};
use super::names::Naming;
use super::weights::tensor;
use crate::assemble::{add_head, assemble, draft, fold_epsilon};
use crate::{Head, Hints, ImportError};
use artifact::Preprocess;
use network::activation::Activation;
use network::architecture::mobilenet::{Block, BlockType, MobileNetConfig};
use network::architecture::{Architecture, Family, IMAGENET_STATISTICS};
use network::blueprint::{Blueprint, HEAD, LayerOp};
use network::checkpoint::{Assumption, Checkpoint, Draft};
use network::imagenet;
use network::padding::ConvPadding;
use std::collections::BTreeMap;
use std::path::Path;

/// Most blocks that are looked for.
const MAX_BLOCKS: usize = 256;
/// The layer of V3 between pooling and scores.
const HIDDEN: &str = "hidden";
/// ε of all of their batch-norms.
const EPSILON: f64 = 1e-3;

/// The checkpoint of weights without their model; `None` where they are no MobileNet's or EfficientNet's.
pub(super) fn weights_alone(
    path: &Path,
    arrays: &Arrays,
    head: Head,
    hints: &Hints,
) -> Result<Option<Checkpoint>, ImportError> {
    let unsupported = |what: &str| ImportError::unsupported(path, what);
    let Some(application) = Application::of(arrays) else { return Ok(None) };
    let whole = "save the whole model: model.save(\"model.keras\")";
    if head == Head::Required && !application.has_head() {
        let what = "the weights of a MobileNet or EfficientNet without a head (include_top=False)";
        return Err(unsupported(&format!("{what}; {whole}")));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let told = application.usual();
    let Some(config) = told.and_then(|told| application.architecture(&name, &told)) else {
        let (naming, blocks) = (application.naming, application.places.len());
        let what = format!("weights alone of a {naming:?} of {blocks} blocks");
        let known = "of Keras Applications' own networks they are read";
        return Err(unsupported(&format!("{what}, but {known}; {whole}")));
    };
    let side = hints.size.unwrap_or(DEFAULT_SIDE);
    let raw = Preprocess::raw(side, side);
    if !application.pads_same(&config.blueprint(), raw) {
        return Err(unsupported(
            "MobileNet pads strided convolutions on one side, also where a map has an odd number of \
             rows or columns; take an --input-size that is a multiple of 32",
        ));
    }
    let assumed = match hints.size {
        Some(_) => Vec::new(),
        None => vec![Assumption::new(format!("pictures of {side}×{side}"), Hints::SIZE)],
    };
    application.checkpoint(path, config, raw, assumed).map(Some)
}

/// The same of a whole model, where it is nothing but such a network without its head.
pub(super) fn without_head(
    path: &Path,
    network: &Network,
    arrays: &Arrays,
    hints: &Hints,
) -> Option<Checkpoint> {
    let application = Application::of(arrays).filter(|application| !application.has_head())?;
    let last = &network.layers[*network.outputs.first()?].class;
    let ends = ["Activation", "GlobalAveragePooling2D", "Multiply", "ReLU"];
    let input = network.layers.iter().find(|layer| layer.class == INPUT)?;
    let [_, height, ..] = input.input_dims().ok()?;
    let hints = Hints { size: hints.size.or(height), ..hints.clone() };
    // All of its convolutions, and no others.
    let convs = network.layers.iter().filter(|layer| layer.class.ends_with("Conv2D")).count();
    let ours = application.usual().and_then(|told| application.architecture("", &told))?;
    let layers = ours.blueprint().layers;
    let wanted = layers.iter().filter(|layer| {
        layer.name != HEAD && matches!(layer.op, LayerOp::Conv(_) | LayerOp::Dense { .. })
    });
    if convs != wanted.count() || !ends.contains(&last.as_str()) {
        return None;
    }
    weights_alone(path, arrays, Head::Optional, &hints).ok()?
}

/// Layers of Keras Applications among those of a file.
#[derive(Debug)]
struct Application<'a> {
    arrays: &'a Arrays,
    naming: Naming,
    /// The stack of each block, and its number in there, where names count so.
    places: Vec<(usize, usize)>,
}

/// What arrays do not tell.
#[derive(Debug)]
struct Told {
    /// Of the blocks.
    strides: Vec<usize>,
    /// Of the blocks.
    activations: Vec<Activation>,
    /// Of the stem and the last layers.
    activation: Activation,
}

impl<'a> Application<'a> {
    /// The network whose layers these are; `None` where they are no MobileNet's or EfficientNet's.
    fn of(arrays: &'a Arrays) -> Option<Self> {
        let known = |naming: &Naming| {
            let mut found = Self { arrays, naming: *naming, places: Vec::new() };
            found.kernel("stem_conv")?;
            while found.places.len() < MAX_BLOCKS && found.grow() {}
            (!found.places.is_empty()).then_some(found)
        };
        Naming::APPLICATIONS.iter().find_map(known)
    }

    /// Finds another block.
    fn grow(&mut self) -> bool {
        let next = match self.places.last() {
            None => [(0, 0); 2],
            Some(&(stack, i)) => [(stack, i + 1), (stack + 1, 0)],
        };
        let depthwise = format!("block{}_depthwise_conv", self.places.len());
        next.into_iter().any(|place| {
            self.places.push(place);
            let is_found = self.kernel(&depthwise).is_some();
            if !is_found {
                self.places.pop();
            }
            is_found
        })
    }

    /// Their name of one of our layers.
    fn name(&self, ours: &str) -> Option<String> {
        let place = |n: usize| self.places.get(n).copied().unwrap_or_default();
        self.naming.name(ours, place)
    }

    /// Rows, columns, inputs, outputs of a layer.
    fn kernel(&self, ours: &str) -> Option<[usize; 4]> {
        let array = self.arrays.variable(&self.name(ours)?, 0, &["kernel", "depthwise_kernel"])?;
        match array.shape[..] {
            [rows, columns, inputs, outputs] => Some([rows, columns, inputs, outputs]),
            [inputs, outputs] => Some([1, 1, inputs, outputs]),
            _ => None,
        }
    }

    fn outputs(&self, ours: &str) -> Option<usize> {
        self.kernel(ours).map(|[.., outputs]| outputs)
    }

    /// What the package builds of as many blocks; `None` where it has no such network.
    fn usual(&self) -> Option<Told> {
        let blocks = self.places.len();
        let rectified = match (self.naming, blocks) {
            (Naming::V3 | Naming::OldV3, 11) => 3,
            (Naming::V3 | Naming::OldV3, 15) => 6,
            _ => 0,
        };
        let strided: &[usize] = match (self.naming, blocks) {
            (Naming::V1, 13) => &[1, 3, 5, 11],
            (Naming::V2, 17) => &[1, 3, 6, 13],
            (Naming::V3 | Naming::OldV3, 11) => &[0, 1, 3, 8],
            (Naming::V3 | Naming::OldV3, 15) => &[1, 3, 6, 12],
            (Naming::EfficientNet, _) if self.places.last().map(|p| p.0) == Some(6) => &[],
            _ => return None,
        };
        let strides = self.places.iter().enumerate().map(|(n, &(stack, i))| match self.naming {
            Naming::EfficientNet => 1 + usize::from(i == 0 && [1, 2, 3, 5].contains(&stack)),
            _ => 1 + usize::from(strided.contains(&n)),
        });
        let is_gated = (0..blocks).any(|n| self.kernel(&format!("block{n}_se_reduce")).is_some());
        let activation = match self.naming {
            Naming::V1 | Naming::V2 => Activation::RELU6,
            Naming::EfficientNet => Activation::SILU,
            // V3 "minimalistic" has neither gates nor hard-swish.
            _ if is_gated => Activation::HARD_SWISH,
            _ => Activation::RELU,
        };
        let activations =
            (0..blocks).map(|n| if n < rectified { Activation::RELU } else { activation });
        Some(Told { strides: strides.collect(), activations: activations.collect(), activation })
    }

    /// The network, with a head of one class where it has none; `None` where a block lacks layers.
    fn architecture(&self, name: &str, told: &Told) -> Option<Architecture> {
        let blocks = (0..self.places.len()).map(|n| {
            let outputs = |part: &str| self.outputs(&format!("block{n}_{part}"));
            let [filter, columns, _, each] = self.kernel(&format!("block{n}_depthwise_conv"))?;
            (filter == columns && each == 1).then_some(())?;
            Some(Block {
                expanded: outputs("expand_conv"),
                filter,
                stride: *told.strides.get(n)?,
                squeezed: outputs("se_reduce"),
                filters: outputs("project_conv")?,
                activation: *told.activations.get(n)?,
            })
        });
        let blocks: Vec<Block> = blocks.collect::<Option<_>>()?;
        let [_, _, channels, stem_filters] = self.kernel("stem_conv")?;
        let is_gated = blocks.iter().any(|block| block.squeezed.is_some());
        let gate_activations = match self.naming {
            Naming::EfficientNet => [told.activation, Activation::SIGMOID],
            _ => [Activation::RELU, Activation::HARD_SIGMOID],
        };
        let config = MobileNetConfig {
            stem_filters,
            stem_stride: 2,
            block_type: match self.naming {
                Naming::V1 => BlockType::Separable,
                _ => BlockType::InvertedResidual,
            },
            blocks,
            last_filters: self.outputs("last_conv"),
            hidden_features: self.outputs(HIDDEN),
            activation: told.activation,
            gate_activations: is_gated.then_some(gate_activations),
            padding: ConvPadding::Same,
        };
        let classes = self.outputs(HEAD).unwrap_or(1);
        let plain = Architecture::new(name, classes, Family::MobileNet(config));
        Some(Architecture { channels, ..plain })
    }

    /// Whether it has a layer of scores.
    fn has_head(&self) -> bool {
        self.kernel(HEAD).is_some()
    }

    /// The checkpoint of an architecture whose layers these are.
    fn checkpoint(
        &self,
        path: &Path,
        config: Architecture,
        raw: Preprocess,
        assumed: Vec<Assumption>,
    ) -> Result<Checkpoint, ImportError> {
        let unsupported = |what: String| ImportError::unsupported(path, what);
        config.check().map_err(unsupported)?;
        let mut found = BTreeMap::new();
        for layer in config.blueprint().layers {
            let Some(name) = self.name(&layer.name) else { continue };
            for (i, (part, shape)) in layer.parts().into_iter().enumerate() {
                let variables: &[&str] = match part {
                    "weight" => &["kernel", "depthwise_kernel"],
                    "mean" => &["moving_mean"],
                    "variance" => &["moving_variance"],
                    other => &[other],
                };
                if let Some(array) = self.arrays.variable(&name, i, variables) {
                    found.insert(format!("{}.{part}", layer.name), tensor(array.clone(), &shape));
                }
            }
        }
        fold_epsilon(&mut found, EPSILON);
        add_head(&config, &mut found);
        let tensors = assemble(path, &config, found, Vec::new())?;
        let labels = imagenet::labels_of(config.classes);
        let draft = Draft { assumed, ..draft(config, labels, self.preprocess(raw), tensors) };
        draft.check().map_err(unsupported)
    }

    /// How pictures are prepared for weights alone: what EfficientNets and V3 have in the model, and
    /// what the package says of the others.
    fn preprocess(&self, raw: Preprocess) -> Preprocess {
        let around = Preprocess { scale: [1.0 / 127.5; 3], offset: [-1.0; 3], ..raw };
        if self.naming != Naming::EfficientNet {
            return around;
        }
        let statistics = |i, name| {
            let array = self.arrays.variable("normalization", i, &[name])?;
            <[f32; 3]>::try_from(array.values.as_slice()).ok()
        };
        let (Some(mean), Some(variance)) = (statistics(0, "mean"), statistics(1, "variance"))
        else {
            return around;
        };
        // Built for ImageNet's weights, it divides by the root of the deviations once more.
        let [_, deviations] = IMAGENET_STATISTICS;
        let is_twice = mean.iter().any(|m| *m != 0.0);
        let scale: [f32; 3] = core::array::from_fn(|c| {
            let once = 1.0 / variance[c].sqrt().max(1e-7);
            if is_twice { once / deviations[c].sqrt() } else { once }
        });
        Preprocess {
            scale: scale.map(|s| s / 255.0),
            offset: core::array::from_fn(|c| -mean[c] * scale[c]),
            ..raw
        }
    }

    /// Whether all strided convolutions are padded as the package pads where a side is odd; V1 does not.
    fn pads_same(&self, blueprint: &Blueprint, p: Preprocess) -> bool {
        let (mut height, mut width) = (usize::from(p.height), usize::from(p.width));
        blueprint.layers.iter().all(|layer| {
            let LayerOp::Conv(conv) = layer.op else { return true };
            let stride = conv.window.stride;
            let is_even = conv.groups == 1 || stride == 1 || (height % 2, width % 2) == (0, 0);
            (height, width) = (height.div_ceil(stride), width.div_ceil(stride));
            self.naming != Naming::V1 || is_even
        })
    }
}
