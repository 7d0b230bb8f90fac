//! Pictures that a checkpoint keeps, as inputs of its network.

use crate::fit::fit;
use artifact::Preprocess;
use network::checkpoint::Sample;

/// A stored picture that is not one of the model's size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("calibration sample {index} in the checkpoint is damaged ({what}); pass --calibration DIR")]
pub struct SampleError {
    /// Index of the sample.
    pub index: usize,
    /// What is wrong.
    pub what: String,
}

/// `x · scale + offset` of a picture's bytes, NHWC.
pub fn normalize(pixels: &[u8], p: &Preprocess) -> Vec<f32> {
    let channels = (0..p.channels()).cycle();
    pixels.iter().zip(channels).map(|(v, c)| f32::from(*v) * p.scale[c] + p.offset[c]).collect()
}

/// Bytes of a normalized picture, the inverse of [`normalize`].
pub fn denormalize(picture: &[f32], p: &Preprocess) -> Vec<u8> {
    let channels = (0..p.channels()).cycle();
    let byte = |(v, c): (&f32, usize)| ((v - p.offset[c]) / p.scale[c]).round() as u8;
    picture.iter().zip(channels).map(byte).collect()
}

/// The calibration inputs stored in a checkpoint, normalized.
///
/// # Errors
/// A sample that cannot be decoded or has another size.
pub fn stored_samples(samples: &[Sample], p: &Preprocess) -> Result<Vec<Vec<f32>>, SampleError> {
    let decode = |(index, sample): (usize, &Sample)| {
        let pixels = sample_pixels(sample, p);
        Ok(normalize(&pixels.map_err(|what| SampleError { index, what })?, p))
    };
    samples.iter().enumerate().map(decode).collect()
}

/// The pixels of a stored picture, `[p.height, p.width, p.channels()]`.
///
/// # Errors
/// A sample that cannot be decoded or has another size.
pub fn sample_pixels(sample: &Sample, p: &Preprocess) -> Result<Vec<u8>, String> {
    let picture = picture::decode(&sample.png).map_err(|e| e.to_string())?;
    let view = picture.view().map_err(|e| e.to_string())?;
    let (found, wanted) = ((view.width(), view.height()), (p.width.into(), p.height.into()));
    if found != wanted {
        return Err(format!("size {found:?}, expected {wanted:?}"));
    }
    // Of the right size already, so only the pixels' order is settled here.
    fit(view, p).map_err(|e| e.to_string())
}
