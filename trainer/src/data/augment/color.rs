//! Changes of color, tone and sharpness. Pixels are on the scale 0..=255 and stay there.

use super::Raster;

/// Luma of an RGB pixel (ITU-R BT.601).
fn luma([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

impl Raster {
    /// Replaces each pixel, clipped.
    fn map_pixels(&mut self, f: impl Fn([f32; 3]) -> [f32; 3]) {
        for pixel in self.pixels_mut() {
            *pixel = f(*pixel).map(|v| v.clamp(0.0, 255.0));
        }
    }

    /// `v · factor`.
    pub(super) fn brightness(&mut self, factor: f32) {
        self.map_pixels(|p| p.map(|v| v * factor));
    }

    /// Each value's distance from the picture's mean luma, times `factor`.
    pub(super) fn contrast(&mut self, factor: f32) {
        let count = self.pixels.len() as f32 / 3.0;
        let mean = self.pixels_mut().iter().map(|p| luma(*p)).sum::<f32>() / count;
        self.map_pixels(|p| p.map(|v| mean + (v - mean) * factor));
    }

    /// Each value's distance from the pixel's luma, times `factor`; 0 makes it grey.
    pub(super) fn saturation(&mut self, factor: f32) {
        self.map_pixels(|p| {
            let grey = luma(p);
            p.map(|v| grey + (v - grey) * factor)
        });
    }

    /// Turns hues by `turn` of the color circle, about the grey axis.
    pub(super) fn hue(&mut self, turn: f32) {
        let (sin, cos) = (turn * core::f32::consts::TAU).sin_cos();
        // Rodrigues' rotation about (1, 1, 1)/√3.
        let (same, third) = (cos + (1.0 - cos) / 3.0, (1.0 - cos) / 3.0);
        let (less, more) = (third - sin / 3f32.sqrt(), third + sin / 3f32.sqrt());
        self.map_pixels(|[r, g, b]| {
            [
                same * r + less * g + more * b,
                more * r + same * g + less * b,
                less * r + more * g + same * b,
            ]
        });
    }

    /// Between a smoothed copy (0), the picture (1) and beyond. Edge pixels stay.
    pub(super) fn sharpness(&mut self, factor: f32) {
        let source = self.clone();
        let (width, height) = (self.width, self.height);
        for y in 1..height.saturating_sub(1) {
            for x in 1..width.saturating_sub(1) {
                for c in 0..3 {
                    let at = |y: usize, x: usize| source.pixels[(y * width + x) * 3 + c];
                    let around: f32 = (y - 1..=y + 1)
                        .flat_map(|y| (x - 1..=x + 1).map(move |x| (y, x)))
                        .map(|(y, x)| at(y, x))
                        .sum();
                    let own = at(y, x);
                    // The centre counts five times of thirteen.
                    let smooth = (around + 4.0 * own) / 13.0;
                    self.pixels[(y * width + x) * 3 + c] =
                        (smooth + (own - smooth) * factor).clamp(0.0, 255.0);
                }
            }
        }
    }

    /// Keeps the `bits` highest bits of each value.
    pub(super) fn posterize(&mut self, bits: u32) {
        let step = 2f32.powi(8 - bits.min(8) as i32);
        self.map_pixels(|p| p.map(|v| (v / step).floor() * step));
    }

    /// Inverts values from `threshold` on.
    pub(super) fn solarize(&mut self, threshold: f32) {
        self.map_pixels(|p| p.map(|v| if v >= threshold { 255.0 - v } else { v }));
    }

    /// Stretches each channel to the whole scale.
    pub(super) fn auto_contrast(&mut self) {
        for c in 0..3 {
            let values = || self.pixels.iter().skip(c).step_by(3);
            let low = values().fold(f32::INFINITY, |m, v| m.min(*v));
            let high = values().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            if high > low {
                let scale = 255.0 / (high - low);
                self.pixels.iter_mut().skip(c).step_by(3).for_each(|v| *v = (*v - low) * scale);
            }
        }
    }

    /// Spreads each channel's values so that all levels are about equally frequent.
    pub(super) fn equalize(&mut self) {
        for c in 0..3 {
            let level = |v: f32| v.round().clamp(0.0, 255.0) as usize;
            let mut counts = [0usize; 256];
            self.pixels.iter().skip(c).step_by(3).for_each(|v| counts[level(*v)] += 1);
            let total = self.pixels.len() / 3;
            let first = counts.iter().copied().find(|n| *n > 0).unwrap_or(0);
            if total <= first {
                // One level only: nothing to spread.
                continue;
            }
            let mut below = 0;
            let table = counts.map(|n| {
                below += n;
                255.0 * (below.saturating_sub(first)) as f32 / (total - first) as f32
            });
            self.pixels.iter_mut().skip(c).step_by(3).for_each(|v| *v = table[level(*v)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Raster {
        let pixels = (0..27).map(|i| (i * 37 % 256) as f32).collect();
        Raster { height: 3, width: 3, pixels }
    }

    fn changed(change: impl Fn(&mut Raster)) -> Raster {
        let mut raster = picture();
        change(&mut raster);
        raster
    }

    #[test]
    fn neutral_factors_change_nothing() {
        let close = |a: &Raster| {
            let same = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3;
            assert!(a.pixels.iter().zip(&picture().pixels).all(same), "{a:?}");
        };
        close(&changed(|r| r.brightness(1.0)));
        close(&changed(|r| r.contrast(1.0)));
        close(&changed(|r| r.saturation(1.0)));
        close(&changed(|r| r.hue(0.0)));
        close(&changed(|r| r.hue(1.0)));
        close(&changed(|r| r.sharpness(1.0)));
        close(&changed(|r| r.posterize(8)));
        close(&changed(|r| r.solarize(256.0)));
    }

    #[test]
    fn extremes_are_what_they_say() {
        assert!(changed(|r| r.brightness(0.0)).pixels.iter().all(|v| *v == 0.0));
        let grey = changed(|r| r.saturation(0.0));
        assert!(grey.pixels.as_chunks::<3>().0.iter().all(|p| (p[0] - p[2]).abs() < 1e-3));
        assert!(changed(|r| r.posterize(1)).pixels.iter().all(|v| *v == 0.0 || *v == 128.0));
        assert_eq!(changed(|r| r.solarize(0.0)).pixels[1], 255.0 - 37.0);
        // A third of the circle: red becomes green.
        let mut red = Raster { height: 1, width: 1, pixels: vec![200.0, 0.0, 0.0] };
        red.hue(1.0 / 3.0);
        assert!((red.pixels[1] - 200.0).abs() < 1e-3, "{red:?}");
        for stretched in [changed(Raster::auto_contrast), changed(Raster::equalize)] {
            assert!(stretched.pixels.contains(&0.0) && stretched.pixels.contains(&255.0));
        }
    }
}
