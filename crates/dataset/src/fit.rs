//! Pictures of the model's input size.

use artifact::Preprocess;
use runtime::preprocess::{FrameError, RgbView, resize_rgb8};

/// Fits a picture to the model's input size, `[p.height, p.width, p.channels()]`.
///
/// # Errors
/// None for a checked preprocessing: the output has the size that it is given here.
pub fn fit(view: RgbView<'_>, p: &Preprocess) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![0; usize::from(p.height) * usize::from(p.width) * p.channels()];
    resize_rgb8(p, view, &mut out)?;
    Ok(out)
}
