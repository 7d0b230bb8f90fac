//! A record of CIFAR-10's files: a label byte, then 32×32 pixels, plane by plane.

use super::fit::fit;
use artifact::Preprocess;
use runtime::preprocess::{FrameError, RgbView};

/// Side of a record's picture in pixels.
pub(super) const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Bytes of a record's pixels.
pub(super) const PLANES: usize = 3 * PLANE;
/// Bytes of a record.
pub(super) const RECORD: usize = 1 + PLANES;

/// Where the pixels of a record start in its file.
pub(super) const fn offset(record: u64) -> u64 {
    record * RECORD as u64 + 1
}

/// Fits a record's pixels, plane by plane, to the model's input size.
///
/// # Errors
/// Fewer than [`PLANES`] bytes.
pub(super) fn decode(planes: &[u8], p: &Preprocess) -> Result<Vec<u8>, FrameError> {
    let mut rgb = vec![0; planes.len()];
    for (pixel, out) in rgb.chunks_exact_mut(3).enumerate() {
        for (channel, value) in out.iter_mut().enumerate() {
            *value = planes[channel * planes.len() / 3 + pixel];
        }
    }
    fit(RgbView::new(&rgb, SIDE, SIDE, SIDE * 3)?, p)
}
