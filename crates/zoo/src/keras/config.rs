//! The JSON in which Keras writes networks down.

use artifact::{Fit, Interpolation, Preprocess};
use network::blueprint::Pooling;
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
    /// Outputs of the layer before it, which `MobileNetImageClassifier` alone has.
    #[serde(default)]
    pub(super) num_features: Option<usize>,
}

fn average() -> Pooling {
    Pooling::Avg
}

impl Task {
    /// Heads here compute logits, and the classifier takes their softmax: one that the model
    /// brings is left away, any other activation would give other answers.
    pub(super) fn check(&self) -> Result<(), String> {
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
