//! Mixup and CutMix: pictures blended in pairs, and their targets with them.
//!
//! A batch is mixed with itself backwards and with one share for all, as timm does.

use super::scaled;
use network::random::Rng;

/// How batches are mixed; 0 leaves a method out. With both, each batch takes one by a coin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mix {
    /// α of mixup's Beta(α, α) (Zhang et al. 2017).
    pub mixup: f64,
    /// α of CutMix's Beta(α, α) (Yun et al. 2019).
    pub cutmix: f64,
}

impl Mix {
    /// Whether batches are mixed at all.
    pub const fn mixes(self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }

    /// Mixes the batch `pixels: [N, 3, height, width]` in place, as one of height and width `frame`
    /// is mixed; returns how much of each picture is its own, the rest being of the picture as far from
    /// the end as it is from the start.
    pub(in crate::data) fn apply(
        self,
        pixels: &mut [f32],
        shape: [usize; 4],
        frame: [usize; 2],
        rng: &mut Rng,
    ) -> f32 {
        let [count, channels, height, width] = shape;
        if !self.mixes() {
            return 1.0;
        }
        let (mixup, cutmix) = (self.mixup > 0.0, self.cutmix > 0.0);
        let cut = cutmix && (!mixup || rng.unit() < 0.5);
        let own = beta(if cut { self.cutmix } else { self.mixup }, rng) as f32;
        let drawn = if cut {
            Window::draw(frame[0], frame[1], own, rng)
        } else {
            Window { top: 0, left: 0, bottom: frame[0], right: frame[1] }
        };
        // Inside the window, how much stays.
        let (keep, own) =
            if cut { (0.0, 1.0 - drawn.share(frame[0], frame[1])) } else { (own, own) };
        let window = drawn.scaled(frame, [height, width]);
        let len = channels * height * width;
        let (front, back) = pixels.split_at_mut(count / 2 * len);
        // An odd batch's middle picture is its own partner.
        let back = &mut back[count % 2 * len..];
        for (a, b) in front.chunks_exact_mut(len).zip(back.chunks_exact_mut(len).rev()) {
            for row in window.rows(channels, height, width) {
                for (a, b) in a[row.clone()].iter_mut().zip(&mut b[row]) {
                    (*a, *b) = (keep * *a + (1.0 - keep) * *b, keep * *b + (1.0 - keep) * *a);
                }
            }
        }
        own
    }
}

/// A part of a picture; ends are exclusive.
struct Window {
    top: usize,
    left: usize,
    bottom: usize,
    right: usize,
}

impl Window {
    /// About `1 − own` of the picture, around a place drawn anywhere in it and clipped.
    fn draw(height: usize, width: usize, own: f32, rng: &mut Rng) -> Self {
        let side = f64::from((1.0 - own).max(0.0).sqrt());
        let mut span = |len: usize| {
            let half = (len as f64 * side) as usize / 2;
            let center = rng.below(len);
            (center.saturating_sub(half), (center + half).min(len))
        };
        let ((top, bottom), (left, right)) = (span(height), span(width));
        Self { top, left, bottom, right }
    }

    /// The same part of pictures of another size.
    fn scaled(&self, frame: [usize; 2], size: [usize; 2]) -> Self {
        let place = |at, axis: usize| scaled(at, frame[axis], size[axis]);
        Self {
            top: place(self.top, 0),
            left: place(self.left, 1),
            bottom: place(self.bottom, 0),
            right: place(self.right, 1),
        }
    }

    fn share(&self, height: usize, width: usize) -> f32 {
        let area = (self.bottom - self.top) * (self.right - self.left);
        area as f32 / (height * width) as f32
    }

    /// Its rows as ranges of a picture's planes.
    fn rows(
        &self,
        channels: usize,
        height: usize,
        width: usize,
    ) -> impl Iterator<Item = core::ops::Range<usize>> {
        let (left, right) = (self.left, self.right);
        let (top, bottom) = (self.top, self.bottom);
        (0..channels).flat_map(move |c| {
            (top..bottom).map(move |y| {
                let start = (c * height + y) * width;
                start + left..start + right
            })
        })
    }
}

/// A draw of Beta(α, α), by Jöhnk's method (1964), for α in `0..=1`.
fn beta(alpha: f64, rng: &mut Rng) -> f64 {
    // At α = 1 half of the tries succeed, and more below; the bound is for unlucky generators.
    for _ in 0..64 {
        let (x, y) = (rng.unit().powf(1.0 / alpha), rng.unit().powf(1.0 / alpha));
        if x + y <= 1.0 && x + y > 0.0 {
            return x / (x + y);
        }
    }
    0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let shape = [5, 1, 4, 6];
        for mix in [Mix { mixup: 0.4, cutmix: 0.0 }, Mix { mixup: 0.0, cutmix: 1.0 }] {
            for seed in 0..200 {
                // Picture i is filled with i, so that its mean tells what it is made of.
                let mut pixels: Vec<f32> = (0..5).flat_map(|i| [i as f32; 24]).collect();
                let own = mix.apply(&mut pixels, shape, [4, 6], &mut Rng::keyed(&[seed]));
                for (i, picture) in pixels.chunks_exact(24).enumerate() {
                    let mean = picture.iter().sum::<f32>() / 24.0;
                    let want = own * i as f32 + (1.0 - own) * (4 - i) as f32;
                    assert!((mean - want).abs() < 1e-4, "{mix:?}: {mean}, expected {want}");
                }
            }
        }
    }

    #[test]
    fn beta_is_symmetric_with_the_right_spread() {
        for alpha in [0.2, 1.0] {
            let mut rng = Rng::keyed(&[8]);
            let draws: Vec<f64> = (0..20_000).map(|_| beta(alpha, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 20_000.0;
            assert!((mean - 0.5).abs() < 0.01, "{mean}");
            // 1 / (4(2α + 1))
            assert!((variance - 0.25 / (2.0 * alpha + 1.0)).abs() < 0.01, "{variance}");
        }
    }
}
