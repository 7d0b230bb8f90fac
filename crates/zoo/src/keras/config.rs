//! The JSON in which Keras writes networks down.

use artifact::{Fit, Interpolation, Preprocess};
use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::Pooling;
use network::padding::ConvPadding;
use serde::Deserialize;
use serde_json::Value;

/// Side of the input where a model does not fix it.
pub(super) const DEFAULT_SIDE: u16 = 224;

/// Keras' way to write an object down.
#[derive(Debug, Deserialize)]
pub(super) struct Object<T> {
    pub(super) class_name: String,
    pub(super) config: T,
}

/// KerasHub's `ResNetBackbone`.
#[derive(Debug, Deserialize)]
pub(super) struct Backbone {
    input_conv_filters: Vec<usize>,
    input_conv_kernel_sizes: Vec<usize>,
    stackwise_num_filters: Vec<usize>,
    stackwise_num_blocks: Vec<usize>,
    stackwise_num_strides: Vec<usize>,
    block_type: BlockType,
    #[serde(default)]
    use_pre_activation: bool,
    /// Height, width, channels.
    #[serde(default)]
    image_shape: [Option<u16>; 3],
}

impl Backbone {
    /// A preprocessing with the size that the network takes, where it takes no other.
    pub(super) fn sized(&self, p: Preprocess) -> Preprocess {
        let [height, width, _] = self.image_shape;
        Preprocess { height: height.unwrap_or(p.height), width: width.unwrap_or(p.width), ..p }
    }

    /// The network with the head of `task`; without one, a head of one class.
    ///
    /// # Errors
    /// Numbers out of range, and activations that are no softmax.
    pub(super) fn network(self, name: String, task: Option<&Task>) -> Result<Architecture, String> {
        if let Some(task) = task {
            task.check()?;
        }
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
        let config = Architecture {
            name,
            channels: self.image_shape[2].unwrap_or(3).into(),
            pooling: task.map_or(Pooling::Avg, |t| t.pooling),
            dropout: task.map_or(0.0, |t| t.dropout),
            classes: task.map_or(1, |t| t.num_classes),
            family: Family::ResNet(resnet),
        };
        config.check()?;
        Ok(config)
    }
}

/// The head of an `ImageClassifier`.
#[derive(Debug, Deserialize)]
pub(super) struct Task {
    pub(super) num_classes: usize,
    #[serde(default = "average")]
    pub(super) pooling: Pooling,
    #[serde(default)]
    pub(super) dropout: f64,
    #[serde(default)]
    pub(super) activation: Value,
}

fn average() -> Pooling {
    Pooling::Avg
}

impl Task {
    /// Heads here compute logits, and the classifier takes their softmax: one that the model
    /// brings is left away, any other activation would give other answers.
    fn check(&self) -> Result<(), String> {
        match activation(&self.activation) {
            Some("linear" | "softmax") => Ok(()),
            _ => Err(format!(
                "the head's activation is {}, expected softmax or none",
                self.activation
            )),
        }
    }
}

/// The name of an activation, `linear` where there is none.
pub(super) fn activation(value: &Value) -> Option<&str> {
    match value {
        Value::Null => Some("linear"),
        Value::Object(function) => function.get("config")?.as_str(),
        other => other.as_str(),
    }
}

/// A number for all channels, or one for each.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PerChannel {
    All(f64),
    Each([f64; 3]),
}

impl PerChannel {
    fn each(&self) -> [f64; 3] {
        match self {
            Self::All(v) => [*v; 3],
            Self::Each(v) => *v,
        }
    }
}

/// KerasHub's image converters.
#[derive(Debug, Deserialize)]
pub(super) struct Converter {
    image_size: Option<[u16; 2]>,
    // Presets of old versions.
    height: Option<u16>,
    width: Option<u16>,
    scale: Option<PerChannel>,
    offset: Option<PerChannel>,
    mean: Option<PerChannel>,
    variance: Option<PerChannel>,
    interpolation: Option<String>,
    #[serde(default)]
    antialias: bool,
    #[serde(default = "yes")]
    crop_to_aspect_ratio: bool,
    #[serde(default)]
    pad_to_aspect_ratio: bool,
}

fn yes() -> bool {
    true
}

impl Converter {
    /// The same as our preprocessing, or what has no counterpart.
    pub(super) fn preprocess(&self) -> Result<Preprocess, String> {
        let fit = match (self.crop_to_aspect_ratio, self.pad_to_aspect_ratio) {
            (true, false) => Fit::Crop,
            (false, false) => Fit::Stretch,
            // KerasHub's border is black.
            (false, true) => Fit::Pad(0),
            (true, true) => {
                return Err("crop_to_aspect_ratio and pad_to_aspect_ratio are both set; \
                            Keras takes one"
                    .into());
            }
        };
        let [height, width] = self
            .image_size
            .unwrap_or_else(|| [self.height, self.width].map(|side| side.unwrap_or(DEFAULT_SIDE)));
        let each =
            |v: &Option<PerChannel>, default| v.as_ref().map_or([default; 3], PerChannel::each);
        let (scale, offset) = (each(&self.scale, 1.0), each(&self.offset, 0.0));
        let (mean, variance) = (each(&self.mean, 0.0), each(&self.variance, 1.0));
        // Old presets normalize by mean and variance after scaling.
        let interpolation = match self.interpolation.as_deref() {
            None | Some("bilinear") => Interpolation::Bilinear,
            Some("bicubic") => Interpolation::Bicubic,
            Some("nearest") => Interpolation::Nearest,
            Some("lanczos3") => Interpolation::Lanczos3,
            Some("lanczos5") => Interpolation::Lanczos5,
            Some(other) => {
                return Err(format!(
                    "interpolation `{other}` is not supported; use nearest, bilinear, bicubic, \
                     lanczos3 or lanczos5"
                ));
            }
        };
        let p = Preprocess {
            fit,
            interpolation,
            antialias: self.antialias,
            scale: core::array::from_fn(|c| (scale[c] / variance[c].sqrt()) as f32),
            offset: core::array::from_fn(|c| (offset[c] - mean[c] / variance[c].sqrt()) as f32),
            ..Preprocess::raw(height, width)
        };
        match p.is_valid() {
            true => Ok(p),
            false => {
                Err("the image converter has an empty size or a number that is no number".into())
            }
        }
    }
}

/// Keras' `Rescaling`, `x · scale + offset`.
#[derive(Debug, Deserialize)]
pub(super) struct Rescaling {
    scale: PerChannel,
    #[serde(default = "zero")]
    offset: PerChannel,
}

fn zero() -> PerChannel {
    PerChannel::All(0.0)
}

impl Rescaling {
    /// Appends it to a preprocessing.
    pub(super) fn after(&self, p: Preprocess) -> Preprocess {
        let (scale, offset) = (self.scale.each(), self.offset.each());
        let (before, shift) = (p.scale.map(f64::from), p.offset.map(f64::from));
        Preprocess {
            scale: core::array::from_fn(|c| (before[c] * scale[c]) as f32),
            offset: core::array::from_fn(|c| (shift[c] * scale[c] + offset[c]) as f32),
            ..p
        }
    }
}
