//! A photo with its heat map: the photo in grey, with viridis over the part that the model saw.
//!
//! Viridis gets lighter from zero to the largest share, so that nobody needs to tell its colors apart. What speaks
//! against the class looks as what says nothing. Between the centers of the map's pixels shares are interpolated;
//! what is cropped away stays grey and is darkened.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use runtime::preprocess::{FrameError, RgbView, resize_rgb8, seen};
use runtime::{Fit, Preprocess};

/// Longest side of what is drawn, in pixels; larger photos are made smaller.
pub const MAX_SIDE: usize = 1024;

/// Viridis, of matplotlib, at equal distances.
const VIRIDIS: [[f32; 3]; 10] = [
    [68.0, 1.0, 84.0],
    [72.0, 40.0, 120.0],
    [62.0, 74.0, 137.0],
    [49.0, 104.0, 142.0],
    [38.0, 130.0, 142.0],
    [31.0, 158.0, 137.0],
    [53.0, 183.0, 121.0],
    [110.0, 206.0, 88.0],
    [181.0, 222.0, 43.0],
    [253.0, 231.0, 37.0],
];

/// Why there is no picture of a heat map.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeatError {
    /// The photo has no pixels.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// PNG could not be written.
    #[error("heat map as PNG: {0}")]
    Png(#[from] ImageError),
}

/// Shares of a map's pixels in a score, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Shares<'a> {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// `[rows, columns]`
    pub values: &'a [f32],
}

impl Shares<'_> {
    /// The share at a place of the map in pixels, interpolated between centers and the same beyond the outer ones.
    fn at(&self, place: [f32; 2]) -> f32 {
        let axis = |i: usize| {
            let last = self.shape[i].saturating_sub(1);
            let at = (place[i] - 0.5).clamp(0.0, last as f32);
            let first = (at as usize).min(last);
            (first, (first + 1).min(last), at - first as f32)
        };
        let ((top, bottom, down), (left, right, across)) = (axis(0), axis(1));
        let value = |y, x| self.values.get(y * self.shape[1] + x).copied().unwrap_or(0.0);
        let row = |y| value(y, left) * (1.0 - across) + value(y, right) * across;
        row(top) * (1.0 - down) + row(bottom) * down
    }
}

/// The photo with the shares of what `preprocess` showed the model over it, as a PNG of at most `max_side` pixels a
/// side.
///
/// # Errors
/// A photo without pixels, or no memory for the file.
pub fn png(
    photo: RgbView<'_>,
    preprocess: &Preprocess,
    shares: Shares<'_>,
    max_side: usize,
) -> Result<Vec<u8>, HeatError> {
    let sides = [photo.height(), photo.width()];
    let longest = sides[0].max(sides[1]);
    let limit = max_side.clamp(1, MAX_SIDE);
    let [height, width] = match longest > limit {
        true => sides.map(|side| (side * limit / longest).max(1)),
        false => sides,
    };
    let small = Preprocess {
        fit: Fit::Stretch,
        antialias: true,
        ..Preprocess::raw(height as u16, width as u16)
    };
    let mut rgb = vec![0; height * width * 3];
    resize_rgb8(&small, photo, &mut rgb)?;
    draw(&mut rgb, [height, width], seen(preprocess, sides), shares);
    let mut file = Vec::new();
    PngEncoder::new(&mut file).write_image(
        &rgb,
        width as u32,
        height as u32,
        ExtendedColorType::Rgb8,
    )?;
    Ok(file)
}

/// Draws over `rgb: [height, width, 3]`, of which `seen` has start and length of the rows and columns that
/// the model saw, as parts of the whole.
fn draw(rgb: &mut [u8], [height, width]: [usize; 2], seen: [[f32; 2]; 2], shares: Shares<'_>) {
    let largest = shares.values.iter().copied().fold(0.0, f32::max);
    for (i, pixel) in rgb.chunks_exact_mut(3).enumerate() {
        let place =
            [(i / width, height), (i % width, width)].map(|(at, of)| (at as f32 + 0.5) / of as f32);
        let inside: [f32; 2] = core::array::from_fn(|a| (place[a] - seen[a][0]) / seen[a][1]);
        let [r, g, b] = [0, 1, 2].map(|c| f32::from(pixel[c]));
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        let color = match inside.iter().all(|part| (0.0..=1.0).contains(part)) {
            true => {
                let at = core::array::from_fn(|a| inside[a] * shares.shape[a] as f32);
                viridis(if largest > 0.0 { shares.at(at) / largest } else { 0.0 })
            }
            false => [0.0; 3],
        };
        for (c, value) in pixel.iter_mut().enumerate() {
            *value = ((grey + color[c]) / 2.0) as u8;
        }
    }
}

/// The color of a share of 0 to 1; less is as 0.
fn viridis(share: f32) -> [f32; 3] {
    let last = VIRIDIS.len() - 1;
    let at = share.clamp(0.0, 1.0) * last as f32;
    let first = (at as usize).min(last - 1);
    core::array::from_fn(|c| {
        let [a, b] = [VIRIDIS[first][c], VIRIDIS[first + 1][c]];
        a + (b - a) * (at - first as f32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DARK: [u8; 3] = [34, 0, 42];
    const LIGHT: [u8; 3] = [126, 115, 18];

    #[test]
    fn shares_are_drawn_where_they_were_seen() {
        let draw = |values: &[f32], seen| {
            let mut rgb = [0; 4 * 3];
            let shares = Shares { shape: [1, values.len()], values };
            super::draw(&mut rgb, [1, 4], seen, shares);
            rgb.as_chunks::<3>().0.to_vec()
        };
        let whole = [[0.0, 1.0]; 2];
        let black = [0; 3];
        assert_eq!(draw(&[-1.0, 2.0, 0.0, 2.0], whole), [DARK, LIGHT, DARK, LIGHT]);
        // Beyond the centers of the outer pixels, and where nothing speaks for the class.
        assert_eq!(draw(&[3.0], whole), [LIGHT; 4]);
        assert_eq!(draw(&[-3.0, 0.0], whole), [DARK; 4]);
        assert_eq!(draw(&[0.0, 4.0], [[0.0, 1.0], [0.25, 0.5]]), [black, DARK, LIGHT, black]);
        // With borders, the map is larger than the photo.
        let outside = [9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 9.0, 9.0];
        assert_eq!(draw(&outside, [[0.0, 1.0], [-0.5, 2.0]]), [DARK; 4]);
        let between = Shares { shape: [2, 2], values: &[0.0, 1.0, 2.0, 3.0] };
        for (place, want) in
            [([0.0, 0.0], 0.0), ([1.0, 1.0], 1.5), ([0.5, 1.25], 0.75), ([9.0, 0.5], 2.0)]
        {
            assert_eq!(between.at(place), want);
        }
        let none = Shares { shape: [0, 0], values: &[] };
        assert_eq!(none.at([1.0, 1.0]), 0.0);
    }
}
