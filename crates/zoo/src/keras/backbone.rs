//! KerasHub's backbones, as they are written down, and the networks that they mean.

use super::config::{Task, activation};
use super::names::Naming;
use artifact::Preprocess;
use network::activation::Activation;
use network::architecture::mobilenet::{Block, BlockType, MobileNetConfig};
use network::architecture::resnet::{BlockType as ResNetBlock, BottleneckStride, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::{BATCH_NORM_EPSILON, Pooling};
use network::padding::ConvPadding;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A backbone.
#[derive(Debug)]
pub(super) struct Backbone {
    family: Family,
    /// Height, width, channels.
    image_shape: [Option<u16>; 3],
    /// ε of its batch-norms.
    pub(super) epsilon: f64,
    /// What its layers are called; `None` where that is what we call them.
    pub(super) naming: Option<Naming>,
    /// The stack of each block, and its number in there; then those of what follows.
    pub(super) places: Vec<(usize, usize)>,
}

/// A kind of backbone: how its class and those of what belongs to it start.
type Kind = (&'static str, fn(Value) -> Result<Backbone, String>);

const KINDS: [Kind; 3] = [
    ("ResNet", |config| parse::<ResNet>(config)?.backbone()),
    ("MobileNet", |config| parse::<MobileNet>(config)?.backbone()),
    ("EfficientNet", |config| parse::<EfficientNet>(config)?.backbone()),
];

/// Whether `class` is one of the classes that end so, such as `ResNetBackbone`.
pub(super) fn is_one(class: &str, end: &str) -> bool {
    class.strip_suffix(end).is_some_and(|start| KINDS.iter().any(|(kind, _)| *kind == start))
}

/// The names of all classes with such an end.
pub(super) fn classes(end: &str) -> String {
    KINDS.map(|(kind, _)| format!("{kind}{end}")).join(", ")
}

fn parse<T: DeserializeOwned>(config: Value) -> Result<T, String> {
    serde_json::from_value(config).map_err(|e| e.to_string())
}

impl Backbone {
    /// That of a class of which [`is_one`] is true.
    ///
    /// # Errors
    /// Other classes, fields that are missing, and networks that have no counterpart.
    pub(super) fn read(class: &str, config: Value) -> Result<Self, String> {
        let kind = class.strip_suffix("Backbone");
        match KINDS.iter().find(|(start, _)| Some(*start) == kind) {
            Some((_, read)) => read(config).map_err(|what| format!("{class}: {what}")),
            None => Err(format!("expected one of {}", classes("Backbone"))),
        }
    }

    /// A preprocessing with the size that the network takes, where it takes no other.
    pub(super) fn sized(&self, p: Preprocess) -> Preprocess {
        let [height, width, _] = self.image_shape;
        Preprocess { height: height.unwrap_or(p.height), width: width.unwrap_or(p.width), ..p }
    }

    /// The network with the head of `task`; without one, a head of one class.
    ///
    /// # Errors
    /// Numbers out of range, and activations that are no softmax.
    pub(super) fn network(
        &self,
        name: String,
        task: Option<&Task>,
    ) -> Result<Architecture, String> {
        if let Some(task) = task {
            task.check()?;
        }
        let mut family = self.family.clone();
        if let (Family::MobileNet(config), Some(task)) = (&mut family, task) {
            config.hidden_features = task.num_features;
        }
        let config = Architecture {
            name,
            channels: self.image_shape[2].unwrap_or(3).into(),
            pooling: task.map_or(Pooling::Avg, |t| t.pooling),
            dropout: task.map_or(0.0, |t| t.dropout),
            classes: task.map_or(1, |t| t.num_classes),
            family,
        };
        config.check()?;
        Ok(config)
    }
}

/// `ResNetBackbone`.
#[derive(Debug, Deserialize)]
struct ResNet {
    input_conv_filters: Vec<usize>,
    input_conv_kernel_sizes: Vec<usize>,
    stackwise_num_filters: Vec<usize>,
    stackwise_num_blocks: Vec<usize>,
    stackwise_num_strides: Vec<usize>,
    block_type: ResNetBlock,
    #[serde(default)]
    use_pre_activation: bool,
    #[serde(default)]
    image_shape: [Option<u16>; 3],
}

impl ResNet {
    #[expect(clippy::unnecessary_wraps, reason = "as the others")]
    fn backbone(self) -> Result<Backbone, String> {
        let resnet = ResNetConfig {
            input_conv_filters: self.input_conv_filters,
            input_conv_kernel_sizes: self.input_conv_kernel_sizes,
            stem_stride: 2,
            stem_pool: true,
            stackwise_num_filters: self.stackwise_num_filters,
            stackwise_num_blocks: self.stackwise_num_blocks,
            stackwise_num_strides: self.stackwise_num_strides,
            block_type: self.block_type,
            use_pre_activation: self.use_pre_activation,
            padding: ConvPadding::Symmetric,
            expansion: 4,
            bottleneck_stride: BottleneckStride::default(),
        };
        Ok(Backbone {
            family: Family::ResNet(resnet),
            image_shape: self.image_shape,
            epsilon: BATCH_NORM_EPSILON,
            naming: None,
            places: Vec::new(),
        })
    }
}

/// `MobileNetBackbone`: a stem, a block without expansion, inverted residuals, a 1×1 convolution.
#[derive(Debug, Deserialize)]
struct MobileNet {
    stackwise_expansion: Vec<Vec<f64>>,
    stackwise_num_blocks: Vec<usize>,
    stackwise_num_filters: Vec<Vec<f64>>,
    stackwise_kernel_size: Vec<Vec<usize>>,
    stackwise_num_strides: Vec<Vec<usize>>,
    stackwise_se_ratio: Vec<Vec<Option<f64>>>,
    stackwise_activation: Vec<Vec<Value>>,
    stackwise_padding: Vec<Vec<usize>>,
    depthwise_filters: usize,
    depthwise_stride: usize,
    depthwise_residual: bool,
    last_layer_filter: f64,
    squeeze_and_excite: Option<f64>,
    #[serde(default)]
    image_shape: [Option<u16>; 3],
    input_activation: Value,
    input_num_filters: f64,
}

impl MobileNet {
    fn backbone(self) -> Result<Backbone, String> {
        if function(&self.input_activation)? != Activation::HARD_SWISH {
            return Err(format!(
                "input_activation {}, but hard_swish is read, which its last layer always has; {}",
                self.input_activation,
                super::EXPORT
            ));
        }
        let squeezed = |inside: usize, ratio: Option<f64>| {
            ratio.filter(|r| *r != 0.0).map(|ratio| rounded(inside as f64 * ratio, 8, 8, true))
        };
        let adjusted = |width: f64| rounded(width, 8, 8, true);
        let stem_filters = adjusted(self.input_num_filters);
        let mut blocks = vec![Block {
            expanded: None,
            filter: 3,
            stride: self.depthwise_stride,
            squeezed: squeezed(stem_filters, self.squeeze_and_excite),
            filters: self.depthwise_filters,
            activation: Activation::RELU,
        }];
        if self.depthwise_residual
            != (self.depthwise_stride == 1 && self.depthwise_filters == stem_filters)
        {
            return Err("depthwise_residual, but here a block adds its input exactly where its \
                        stride is 1 and both are of the same width"
                .into());
        }
        let mut places = vec![(0, 0)];
        for (stack, &number) in self.stackwise_num_blocks.iter().enumerate() {
            for i in 0..number {
                blocks.push(self.block(stack, i, squeezed)?);
                places.push((stack + 1, i));
            }
        }
        places.push((self.stackwise_num_blocks.len() + 1, 0));
        let is_gated = blocks.iter().any(|block| block.squeezed.is_some());
        let config = MobileNetConfig {
            stem_filters,
            stem_stride: 2,
            block_type: BlockType::InvertedResidual,
            blocks,
            last_filters: Some(adjusted(self.last_layer_filter)),
            hidden_features: None,
            activation: Activation::HARD_SWISH,
            gate_activations: is_gated.then_some([Activation::RELU, Activation::HARD_SIGMOID]),
            padding: ConvPadding::Symmetric,
        };
        Ok(Backbone {
            family: Family::MobileNet(config),
            image_shape: self.image_shape,
            epsilon: 1e-5,
            naming: Some(Naming::HubMobileNet),
            places,
        })
    }

    /// A block of a stack.
    fn block(
        &self,
        stack: usize,
        i: usize,
        squeezed: impl Fn(usize, Option<f64>) -> Option<usize>,
    ) -> Result<Block, String> {
        let missing = || format!("stack {stack} has too few numbers");
        let get =
            |of: &[Vec<usize>]| of.get(stack).and_then(|s| s.get(i)).copied().ok_or_else(missing);
        let width = |of: &[Vec<f64>]| {
            let width = of.get(stack).and_then(|s| s.get(i)).copied();
            width.map(|width| rounded(width, 8, 8, true)).ok_or_else(missing)
        };
        let named = self.stackwise_activation.get(stack).and_then(|s| s.get(i));
        let ratio = self.stackwise_se_ratio.get(stack).and_then(|s| s.get(i));
        let expanded = width(&self.stackwise_expansion)?;
        let filter = get(&self.stackwise_kernel_size)?;
        let padding = get(&self.stackwise_padding)?;
        if 2 * padding + 1 != filter {
            return Err(format!(
                "stackwise_padding {padding} of a filter of {filter}, but half of it is read; {}",
                super::EXPORT
            ));
        }
        Ok(Block {
            expanded: Some(expanded),
            filter,
            stride: get(&self.stackwise_num_strides)?,
            squeezed: squeezed(expanded, *ratio.ok_or_else(missing)?),
            filters: width(&self.stackwise_num_filters)?,
            activation: function(named.ok_or_else(missing)?)?,
        })
    }
}

/// `EfficientNetBackbone`.
#[derive(Debug, Deserialize)]
struct EfficientNet {
    stackwise_width_coefficients: Vec<f64>,
    stackwise_depth_coefficients: Vec<f64>,
    stackwise_kernel_sizes: Vec<usize>,
    stackwise_num_repeats: Vec<f64>,
    stackwise_input_filters: Vec<f64>,
    stackwise_output_filters: Vec<f64>,
    stackwise_expansion_ratios: Vec<f64>,
    stackwise_squeeze_and_excite_ratios: Vec<f64>,
    stackwise_strides: Vec<usize>,
    stackwise_block_types: Vec<String>,
    #[serde(default)]
    stackwise_force_input_filters: Vec<f64>,
    depth_divisor: usize,
    min_depth: Option<usize>,
    #[serde(default)]
    input_shape: [Option<u16>; 3],
    activation: Value,
    include_stem_padding: bool,
    use_depth_divisor_as_min_depth: bool,
    cap_round_filter_decrease: bool,
    stem_conv_padding: String,
    batch_norm_epsilon: f64,
    #[serde(default)]
    projection_activation: Value,
    /// Not written by KerasHub 0.32, which makes it 1280 again.
    #[serde(default = "features")]
    num_features: f64,
}

fn features() -> f64 {
    1280.0
}

impl EfficientNet {
    fn backbone(self) -> Result<Backbone, String> {
        self.check()?;
        let activation = function(&self.activation)?;
        let stacks = self.stackwise_kernel_sizes.len();
        let stem_filters = self.width(0, self.stackwise_input_filters[0]);
        let (mut c_in, mut blocks, mut places) = (stem_filters, Vec::new(), Vec::new());
        for stack in 0..stacks {
            let number =
                self.stackwise_num_repeats[stack] * self.stackwise_depth_coefficients[stack];
            let filters = self.width(stack, self.stackwise_output_filters[stack]);
            // What the stack takes for its input's width, of which it computes the widths inside.
            let forced = self.stackwise_force_input_filters.get(stack).filter(|f| **f > 0.0);
            for i in 0..(number.ceil() as usize).min(256) {
                let told = match (forced, i) {
                    (Some(forced), _) => self.width(stack, *forced),
                    (None, 0) => self.width(stack, self.stackwise_input_filters[stack]),
                    _ => filters,
                };
                if told != c_in && (told == filters || c_in == filters) {
                    return Err(format!(
                        "stack {stack} takes {c_in} channels for {told}, by which it decides what \
                         to add; {}",
                        super::EXPORT
                    ));
                }
                let ratio = self.stackwise_expansion_ratios[stack];
                let gate = self.stackwise_squeeze_and_excite_ratios[stack];
                let squeezed = ((told as f64 * gate) as usize).max(1);
                blocks.push(Block {
                    expanded: (ratio != 1.0).then_some((told as f64 * ratio) as usize),
                    filter: self.stackwise_kernel_sizes[stack],
                    stride: if i == 0 { self.stackwise_strides[stack] } else { 1 },
                    squeezed: (gate > 0.0 && gate <= 1.0).then_some(squeezed),
                    filters,
                    activation,
                });
                places.push((stack, i));
                c_in = filters;
            }
        }
        let is_gated = blocks.iter().any(|block| block.squeezed.is_some());
        let config = MobileNetConfig {
            stem_filters,
            stem_stride: 2,
            block_type: BlockType::InvertedResidual,
            blocks,
            last_filters: Some(self.width(stacks - 1, self.num_features)),
            hidden_features: None,
            activation,
            gate_activations: is_gated.then_some([activation, Activation::SIGMOID]),
            padding: ConvPadding::Symmetric,
        };
        Ok(Backbone {
            family: Family::MobileNet(config),
            image_shape: self.input_shape,
            epsilon: self.batch_norm_epsilon,
            naming: Some(Naming::HubEfficientNet),
            places,
        })
    }

    /// Whether all lists are as long, and nothing has no counterpart.
    fn check(&self) -> Result<(), String> {
        let lengths = [
            self.stackwise_width_coefficients.len(),
            self.stackwise_depth_coefficients.len(),
            self.stackwise_num_repeats.len(),
            self.stackwise_input_filters.len(),
            self.stackwise_output_filters.len(),
            self.stackwise_expansion_ratios.len(),
            self.stackwise_squeeze_and_excite_ratios.len(),
            self.stackwise_strides.len(),
            self.stackwise_block_types.len(),
        ];
        let stacks = self.stackwise_kernel_sizes.len();
        if stacks == 0 || lengths.iter().any(|&len| len != stacks) {
            return Err(format!("lists of {lengths:?} stacks, where {stacks} kernel sizes are"));
        }
        if self.depth_divisor == 0 {
            return Err("a depth_divisor of 0".into());
        }
        let strange = self.stackwise_block_types.iter().find(|kind| *kind != "v1");
        let what = if let Some(kind) = strange {
            format!("`{kind}` blocks, as EfficientNetV2 and EfficientNet-EdgeTPU have them")
        } else if !self.include_stem_padding || self.stem_conv_padding != "valid" {
            "a stem that is padded as TensorFlow pads, and blocks that are not".into()
        } else if !self.projection_activation.is_null() {
            "a projection_activation".into()
        } else {
            return Ok(());
        };
        let known = "EfficientNet B0 to B7 and Lite are read";
        Err(format!("{what}, but {known}; {}", super::EXPORT))
    }

    /// A width of a stack.
    fn width(&self, stack: usize, filters: f64) -> usize {
        let divisor = self.depth_divisor;
        let least = match (self.use_depth_divisor_as_min_depth, self.min_depth) {
            (false, Some(least)) => least,
            _ => divisor,
        };
        let filters = filters * self.stackwise_width_coefficients[stack];
        rounded(filters, divisor, least, self.cap_round_filter_decrease)
    }
}

/// The nearest multiple of `divisor`, at least `least`; `caps`: that takes no more than a tenth away.
fn rounded(wanted: f64, divisor: usize, least: usize, caps: bool) -> usize {
    let nearest = (wanted + divisor as f64 / 2.0) as usize / divisor * divisor;
    let nearest = nearest.max(least);
    if caps && (nearest as f64) < 0.9 * wanted { nearest + divisor } else { nearest }
}

/// The activation that Keras writes so.
pub(super) fn function(value: &Value) -> Result<Activation, String> {
    let unknown = || format!("the activation {value} is not read; {}", super::EXPORT);
    named(activation(value).ok_or_else(unknown)?).ok_or_else(unknown)
}

/// The activation of a name in Keras.
pub(super) fn named(name: &str) -> Option<Activation> {
    Some(match name {
        "linear" => Activation::None,
        "swish" => Activation::SILU,
        "hard_silu" | "hard_swish" => Activation::HARD_SWISH,
        other => Activation::by_name(other)?,
    })
}
