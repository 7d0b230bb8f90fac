//! What a model says of itself: labels, preprocessing, provenance.

use crate::Place;
use serde::{Deserialize, Serialize};

/// How a picture of another aspect ratio meets the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// Largest centred box of the target's aspect ratio, then resize.
    Crop,
    /// Resize both axes on their own.
    Stretch,
    /// Borders of this value, 0..=255, as wide on both sides, up to the target's aspect ratio;
    /// then resize.
    Pad(u8),
}

/// Sampling of [`Preprocess`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpolation {
    /// Nearest pixel.
    Nearest,
    /// Triangle filter.
    Bilinear,
    /// Keys' cubic, a = −0.5.
    Bicubic,
    /// Windowed sinc over 3 pixels on either side.
    Lanczos3,
    /// Windowed sinc over 5 pixels on either side.
    Lanczos5,
}

/// From a picture to the model's input: luma where the input is grey, fit, resize, then
/// `x · scale + offset` per channel on values 0..=255.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Input height in pixels.
    pub height: u16,
    /// Input width in pixels.
    pub width: u16,
    /// Aspect-ratio policy.
    pub fit: Fit,
    /// Sampling.
    pub interpolation: Interpolation,
    /// Widen the filter when scaling down, so that fine detail does not alias.
    pub antialias: bool,
    /// Factor per channel (R, G, B); of a grey input the first one counts.
    pub scale: [f32; 3],
    /// Addend per channel.
    pub offset: [f32; 3],
    /// Whether the input has one channel, the pixels' luma, instead of three.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub grey: bool,
}

/// [`Preprocess`] as `.edge` files have it: there, the input's shape says whether it is grey.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Preprocess")]
struct Stored {
    height: u16,
    width: u16,
    fit: Fit,
    interpolation: Interpolation,
    antialias: bool,
    scale: [f32; 3],
    offset: [f32; 3],
    #[serde(skip)]
    grey: bool,
}

impl Preprocess {
    /// `x/255` minus `mean`, divided by `std`; crop to aspect, bilinear with antialias.
    pub fn normalized(height: u16, width: u16, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self {
            height,
            width,
            fit: Fit::Crop,
            interpolation: Interpolation::Bilinear,
            antialias: true,
            scale: core::array::from_fn(|i| 1.0 / (255.0 * std[i])),
            offset: core::array::from_fn(|i| -mean[i] / std[i]),
            grey: false,
        }
    }

    /// Values 0..=255 as they are, as Keras feeds a model without a preprocessor; crop to
    /// aspect, bilinear, not antialiased: Keras' defaults.
    pub fn raw(height: u16, width: u16) -> Self {
        Self {
            height,
            width,
            fit: Fit::Crop,
            interpolation: Interpolation::Bilinear,
            antialias: false,
            scale: [1.0; 3],
            offset: [0.0; 3],
            grey: false,
        }
    }

    /// Channels of the input.
    pub const fn channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// `v · scale + offset` of a pixel's red, green and blue, 0..=255.
    pub fn normalize(&self, rgb: [f32; 3]) -> [f32; 3] {
        core::array::from_fn(|c| rgb[c] * self.scale[c] + self.offset[c])
    }

    /// Whether every number is finite, scales are not zero, and the size is not empty.
    pub fn is_valid(&self) -> bool {
        self.height > 0
            && self.width > 0
            && self.scale.iter().all(|s| s.is_finite() && *s != 0.0)
            && self.offset.iter().all(|o| o.is_finite())
    }
}

/// The metadata record; labels follow it in the file, one string each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Meta<'a> {
    /// Architecture or file name.
    pub name: &'a str,
    /// Where the model's input lies.
    pub input: Place,
    /// Where its logits lie.
    pub output: Place,
    /// From picture to input.
    #[serde(with = "Stored")]
    pub preprocess: Preprocess,
    /// Data set it was trained on.
    pub dataset: &'a str,
    /// Accuracy and other figures, as text.
    pub metrics: &'a str,
    /// Program and version that wrote the file.
    pub tool: &'a str,
    /// Number of labels; equals the output's channels.
    pub label_count: u32,
}

/// Longest label in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
