//! A picture of float pixels and its geometry: crops, mirror images, affine maps.
//!
//! Keras' conventions: pixel centers lie on integers, and an affine map tells for each output
//! pixel where in the input to sample.

/// Channels of a picture.
const RGB: usize = 3;

/// RGB pixels as floats on the scale 0..=255.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width, 3]`.
    pub pixels: Vec<f32>,
}

/// What lies outside of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// One value.
    Constant(f32),
    /// The nearest edge pixel.
    Nearest,
    /// The picture again, as on tiles.
    Wrap,
    /// Its mirror image, the edge pixel twice: `c b a | a b c | c b a`.
    Reflect,
}

impl Fill {
    /// Which of `len` pixels lies at `i`; `None` where the constant does.
    fn index(self, i: i64, len: usize) -> Option<usize> {
        let n = len as i64;
        let inside = match self {
            Self::Constant(_) => i,
            Self::Nearest => i.clamp(0, n - 1),
            Self::Wrap => i.rem_euclid(n),
            Self::Reflect => {
                let i = i.rem_euclid(2 * n);
                i.min(2 * n - 1 - i)
            }
        };
        usize::try_from(inside).ok().filter(|i| *i < len)
    }
}

/// How values between pixels are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// The nearest pixel.
    Nearest,
    /// A weighted mean of the four pixels around.
    Bilinear,
}

/// Output pixel `(x, y)` samples the input at `(a·x + b·y + c, d·x + e·y + f)`: `[a, b, c, d,
/// e, f]`.
pub type Affine = [f64; 6];

/// The map `[a, b, d, e]` about the centre of a picture.
pub fn about_center(linear: [f64; 4], height: usize, width: usize) -> Affine {
    let [a, b, d, e] = linear;
    let (x, y) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
    [a, b, x - (a * x + b * y), d, e, y - (d * x + e * y)]
}

/// Turns a picture by `angle` in radians, counter-clockwise on the screen.
pub fn rotation(angle: f64, height: usize, width: usize) -> Affine {
    let (sin, cos) = angle.sin_cos();
    about_center([cos, -sin, sin, cos], height, width)
}

impl Raster {
    /// From 8-bit pixels `[height, width, 3]`, or `[height, width]` of luma, which all channels get.
    pub fn from_rgb8(pixels: &[u8], height: usize, width: usize) -> Self {
        let times = if pixels.len() == height * width { RGB } else { 1 };
        let pixels = pixels.iter().flat_map(|&v| core::iter::repeat_n(f32::from(v), times));
        Self { height, width, pixels: pixels.collect() }
    }

    /// Rounded to 8 bits, values beyond them clipped.
    pub fn to_rgb8(&self) -> Vec<u8> {
        self.pixels.iter().map(|v| v.round_ties_even().clamp(0.0, 255.0) as u8).collect()
    }

    /// The pixels one by one.
    pub(super) fn pixels_mut(&mut self) -> &mut [[f32; RGB]] {
        self.pixels.as_chunks_mut().0
    }

    fn at(&self, y: usize, x: usize) -> [f32; RGB] {
        let i = (y * self.width + x) * RGB;
        [self.pixels[i], self.pixels[i + 1], self.pixels[i + 2]]
    }

    /// Left and right exchanged.
    pub fn flip_horizontal(&mut self) {
        let width = self.width;
        self.pixels_mut().chunks_exact_mut(width).for_each(<[_]>::reverse);
    }

    /// Top and bottom exchanged.
    pub fn flip_vertical(&mut self) {
        let (height, width) = (self.height, self.width);
        let mut rows: Vec<_> = self.pixels_mut().chunks_exact_mut(width).collect();
        let (upper, lower) = rows.split_at_mut(height / 2);
        for (a, b) in upper.iter_mut().zip(lower.iter_mut().rev()) {
            a.swap_with_slice(b);
        }
    }

    /// The part of `height` rows and `width` columns from row `top` and column `left` on, as
    /// far as the picture reaches.
    #[must_use]
    pub fn slice(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        let (top, left) = (top.min(self.height - 1), left.min(self.width - 1));
        let (height, width) = (height.min(self.height - top), width.min(self.width - left));
        let rows = (top..top + height).flat_map(|y| {
            let start = (y * self.width + left) * RGB;
            &self.pixels[start..start + width * RGB]
        });
        Self { height, width, pixels: rows.copied().collect() }
    }

    /// Samples the picture at the places that `map` tells; the size stays.
    #[must_use]
    pub fn transform(&self, map: Affine, fill: Fill, sampling: Sampling) -> Self {
        // In single precision, as Keras: its rounding decides at the edge and between pixels.
        let [a, b, c, d, e, f] = map.map(|v| v as f32);
        let place = |x: usize, y: usize| {
            let (x, y) = (x as f32, y as f32);
            (f64::from(a * x + b * y + c), f64::from(d * x + e * y + f))
        };
        self.sample(place, self.height, self.width, fill, sampling)
    }

    /// Stretches the picture to another size, bilinear with half-pixel centers.
    #[must_use]
    pub fn resize(&self, height: usize, width: usize) -> Self {
        if (height, width) == (self.height, self.width) {
            return self.clone();
        }
        let (sx, sy) = (self.width as f64 / width as f64, self.height as f64 / height as f64);
        let place = |x: usize, y: usize| {
            let center = |i: usize, scale: f64| (i as f64 + 0.5) * scale - 0.5;
            (center(x, sx), center(y, sy))
        };
        // Beyond the edge there is nothing but the edge: the same as leaving those taps out.
        self.sample(place, height, width, Fill::Nearest, Sampling::Bilinear)
    }

    /// Where the largest centred box of the aspect ratio `height : width` lies: top, left,
    /// rows, columns.
    pub fn aspect_box(&self, height: usize, width: usize) -> [usize; 4] {
        let rows = (self.width * height / width.max(1)).clamp(1, self.height);
        let columns = (self.height * width / height.max(1)).clamp(1, self.width);
        [(self.height - rows) / 2, (self.width - columns) / 2, rows, columns]
    }

    /// Cuts to the aspect ratio of the new size, then resizes.
    #[must_use]
    pub fn resize_cropped(self, height: usize, width: usize) -> Self {
        if (height, width) == (self.height, self.width) {
            return self;
        }
        let [top, left, rows, columns] = self.aspect_box(height, width);
        self.slice(top, left, rows, columns).resize(height, width)
    }

    fn sample(
        &self,
        place: impl Fn(usize, usize) -> (f64, f64),
        height: usize,
        width: usize,
        fill: Fill,
        sampling: Sampling,
    ) -> Self {
        let mut pixels = Vec::with_capacity(height * width * RGB);
        for y in 0..height {
            for x in 0..width {
                let (x, y) = place(x, y);
                pixels.extend(match sampling {
                    Sampling::Nearest => {
                        // Half away from zero, as Keras rounds.
                        self.filled(y.round() as i64, x.round() as i64, fill)
                    }
                    Sampling::Bilinear => self.blend((x, y), fill),
                });
            }
        }
        Self { height, width, pixels }
    }

    /// The pixel at row `y` and column `x`, or what lies there instead.
    fn filled(&self, y: i64, x: i64, fill: Fill) -> [f32; RGB] {
        match (fill.index(y, self.height), fill.index(x, self.width), fill) {
            (Some(y), Some(x), _) => self.at(y, x),
            (_, _, Fill::Constant(value)) => [value; RGB],
            // No other fill is ever outside.
            _ => [0.0; RGB],
        }
    }

    fn blend(&self, (x, y): (f64, f64), fill: Fill) -> [f32; RGB] {
        let (left, top) = (x.floor(), y.floor());
        let (wx, wy) = ((x - left) as f32, (y - top) as f32);
        let (left, top) = (left as i64, top as i64);
        let mut sum = [0.0; RGB];
        for (dy, wy) in [(0, 1.0 - wy), (1, wy)] {
            for (dx, wx) in [(0, 1.0 - wx), (1, wx)] {
                let pixel = self.filled(top + dy, left + dx, fill);
                for (s, v) in sum.iter_mut().zip(pixel) {
                    *s += wy * wx * v;
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Raster {
        let pixels = values.iter().flat_map(|v| [*v; RGB]).collect();
        Raster { height: 1, width: values.len(), pixels }
    }

    fn red(raster: &Raster) -> Vec<f32> {
        raster.pixels.iter().step_by(RGB).copied().collect()
    }

    #[test]
    fn fills_beyond_the_edge() {
        let shift = |fill, by| {
            let moved = row(&[1.0, 2.0, 3.0]).transform(
                [1.0, 0.0, by, 0.0, 1.0, 0.0],
                fill,
                Sampling::Nearest,
            );
            red(&moved)
        };
        assert_eq!(shift(Fill::Constant(9.0), -2.0), [9.0, 9.0, 1.0]);
        assert_eq!(shift(Fill::Nearest, -2.0), [1.0, 1.0, 1.0]);
        assert_eq!(shift(Fill::Wrap, -2.0), [2.0, 3.0, 1.0]);
        assert_eq!(shift(Fill::Reflect, -2.0), [2.0, 1.0, 1.0]);
        assert_eq!(shift(Fill::Reflect, 5.0), [1.0, 1.0, 2.0]);
        assert_eq!(shift(Fill::Constant(9.0), f64::MAX), [9.0; 3]);
    }

    #[test]
    fn flips_are_their_own_inverse() {
        let picture = Raster { height: 3, width: 2, pixels: (0..18).map(|v| v as f32).collect() };
        let mut turned = picture.clone();
        turned.flip_vertical();
        assert_eq!(turned.at(0, 1), picture.at(2, 1));
        turned.flip_horizontal();
        assert_eq!(turned.at(0, 0), picture.at(2, 1));
        turned.flip_vertical();
        turned.flip_horizontal();
        assert_eq!(turned, picture);
    }

    #[test]
    fn resizing_keeps_the_edges() {
        assert_eq!(red(&row(&[0.0, 4.0]).resize(1, 4)), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(red(&row(&[0.0, 2.0, 4.0, 6.0]).resize(1, 2)), [1.0, 5.0]);
    }
}
