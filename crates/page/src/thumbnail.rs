//! Small pictures inside a page.

use anyhow::Context;
use artifact::Preprocess;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dataset::fit;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{RgbImage, imageops};
use runtime::preprocess::RgbView;

/// Longest side on the page.
const SHOWN: u32 = 96;
/// Up to this side, PNG is small enough to show every pixel as it is.
const MAX_PNG: u32 = 48;
/// Quality of larger pictures: about 4 KB each.
const JPEG_QUALITY: u8 = 82;

/// A picture to be placed on a page.
#[derive(Debug)]
pub struct Thumbnail {
    /// The file, as a `data:` address.
    pub uri: String,
    /// Width on the page.
    pub width: u32,
    /// Height on the page.
    pub height: u32,
}

impl Thumbnail {
    /// Of a picture of the model's input size.
    ///
    /// # Errors
    /// Pixels of another size.
    pub fn new(pixels: &[u8], p: &Preprocess) -> anyhow::Result<Self> {
        let (width, height) = (u32::from(p.width), u32::from(p.height));
        let rgb = match p.grey {
            true => pixels.iter().flat_map(|&v| [v; 3]).collect(),
            false => pixels.to_vec(),
        };
        let picture = RgbImage::from_raw(width, height, rgb)
            .context("a picture has not the model's input size; read the data set again")?;
        Self::of(picture, SHOWN)
    }

    /// Of a photo, at most `side` pixels wide and high on the page.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn photo(view: RgbView<'_>, side: u16) -> anyhow::Result<Self> {
        let (width, height) = (view.width(), view.height());
        let scaled = |length: usize| {
            let shown = length * usize::from(side) / width.max(height).max(1);
            shown.clamp(1, usize::from(side)) as u16
        };
        let p = Preprocess { antialias: true, ..Preprocess::raw(scaled(height), scaled(width)) };
        let picture = RgbImage::from_raw(p.width.into(), p.height.into(), fit(view, &p)?);
        Self::of(picture.context("a picture without pixels")?, side.into())
    }

    fn of(picture: RgbImage, shown: u32) -> anyhow::Result<Self> {
        let (width, height) = picture.dimensions();
        let longest = width.max(height).max(1);
        let scaled = |side: u32| (side * shown / longest).max(1);
        let (shown_width, shown_height) = (scaled(width), scaled(height));
        let mut file = Vec::new();
        let kind = if longest <= MAX_PNG {
            picture.write_with_encoder(PngEncoder::new(&mut file))?;
            "png"
        } else {
            let shrink = longest > shown;
            let small = shrink.then(|| imageops::thumbnail(&picture, shown_width, shown_height));
            let encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
            small.unwrap_or(picture).write_with_encoder(encoder)?;
            "jpeg"
        };
        let uri = format!("data:image/{kind};base64,{}", STANDARD.encode(file));
        Ok(Self { uri, width: shown_width, height: shown_height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thumbnail(height: u16, width: u16, grey: bool) -> Thumbnail {
        let p = Preprocess { grey, ..Preprocess::raw(height, width) };
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
        let len = usize::from(height) * usize::from(width) * p.channels();
        Thumbnail::new(&(0..len).map(noise).collect::<Vec<_>>(), &p).unwrap()
    }

    #[test]
    fn photos_keep_their_shape() {
        let rgb = vec![7; 300 * 200 * 3];
        let t = Thumbnail::photo(RgbView::new(&rgb, 300, 200, 900).unwrap(), 160).unwrap();
        assert_eq!((t.width, t.height), (160, 106));
        assert!(t.uri.starts_with("data:image/jpeg;base64,"), "{}", t.uri);
    }

    #[test]
    fn pictures_of_every_size_are_small_on_the_page() {
        for (height, width, grey, kind) in [
            (32, 32, false, "png"),
            (28, 28, true, "png"),
            (64, 64, false, "jpeg"),
            (224, 448, false, "jpeg"),
        ] {
            let t = thumbnail(height, width, grey);
            assert!(t.uri.starts_with(&format!("data:image/{kind};base64,")), "{}", t.uri);
            assert_eq!(t.width, 96);
            assert_eq!(t.height, 96 * u32::from(height) / u32::from(width));
            assert!(t.uri.len() < 20_000, "{height}x{width}: {}", t.uri.len());
        }
    }
}
