//! From a picture file to RGB at the model's input size.

use artifact::Preprocess;
use core::panic::AssertUnwindSafe;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use runtime::preprocess::{FrameError, RgbView, resize_rgb8};
use std::io::Cursor;
use std::panic::catch_unwind;

/// Longest side that is decoded, in pixels.
const MAX_SIDE: u32 = 30_000;
/// Memory that decoding one picture may take, in bytes.
const MAX_DECODE_BYTES: u64 = 1 << 30;

/// Why a file gives no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// Unknown or broken format.
    #[error("not a readable picture ({0})")]
    Image(#[from] image::ImageError),
    /// The decoder failed in a way that it does not report.
    #[error("the picture's decoder failed; the file is damaged")]
    Panic,
}

/// Decodes a picture to RGB `[height, width, 3]`: upright by its EXIF orientation,
/// transparent pixels on white. Returns pixels, width and height.
///
/// # Errors
/// Bytes that are no picture, or one too large to decode safely.
pub fn decode(bytes: &[u8]) -> Result<(Vec<u8>, usize, usize), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    // Decoders read hostile bytes; a panic in one must cost one picture, not the training.
    catch_unwind(AssertUnwindSafe(|| decode_upright(bytes))).unwrap_or(Err(DecodeError::Panic))
}

fn decode_upright(bytes: &[u8]) -> Result<(Vec<u8>, usize, usize), DecodeError> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(image::ImageError::IoError)?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    if !image.color().has_alpha() {
        return Ok((image.into_rgb8().into_raw(), width, height));
    }
    let rgba = image.into_rgba8();
    let mut rgb = Vec::with_capacity(width * height * 3);
    for pixel in rgba.pixels() {
        let [r, g, b, alpha] = pixel.0.map(u32::from);
        rgb.extend([r, g, b].map(|v| ((v * alpha + 255 * (255 - alpha) + 127) / 255) as u8));
    }
    Ok((rgb, width, height))
}

/// Fits RGB `[height, width, 3]` to the model's input size, `[p.height, p.width, 3]`.
///
/// # Errors
/// Pictures without pixels or with a side beyond the preprocessor's limit.
pub(super) fn fit(
    rgb: &[u8],
    width: usize,
    height: usize,
    p: &Preprocess,
) -> Result<Vec<u8>, FrameError> {
    let view = RgbView::new(rgb, width, height, width * 3)?;
    let mut out = vec![0; usize::from(p.height) * usize::from(p.width) * 3];
    resize_rgb8(p, view, &mut out)?;
    Ok(out)
}
