//! Training-mode batch normalization with residual addition and ReLU in the same pass.
//!
//! Moments are taken per image and channel, where a plane of pixels fits the cache, and joined
//! in f64 in the order of the images, so that results do not depend on threads.

use super::dispatch::{Kernel, Level, accumulate, mul_add, total};
use crate::distributed::AllReduce;
use crate::distributed::statistics::{join_moments, join_sums};
use rayon::prelude::*;

/// Sizes of the input: `pixels` is height times width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) pixels: usize,
}

impl Extent {
    fn image(&self) -> usize {
        self.channels * self.pixels
    }

    /// Values of this process that share a mean.
    fn population(&self) -> f64 {
        (self.images * self.pixels) as f64
    }

    fn is_empty(&self) -> bool {
        self.images * self.channels * self.pixels == 0
    }
}

/// What follows the normalization, the ε under the root, and the processes whose pictures share
/// a mean with this one's; `None` where it has the whole batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) relu: bool,
    pub(super) epsilon: f64,
    pub(super) others: Option<&'a dyn AllReduce>,
}

/// `(mean, biased variance)` of every channel.
fn moments(
    level: Level,
    extent: &Extent,
    others: Option<&dyn AllReduce>,
    x: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let Extent { channels, pixels, .. } = *extent;
    let mut parts = vec![[0.0; 2]; extent.images * channels];
    x.par_chunks(extent.image()).zip(parts.par_chunks_mut(channels)).for_each(|(x, parts)| {
        level.run(PlaneMoments { x, pixels, parts });
    });
    let planes = pixels as f64;
    let (mut mean, mut squares): (Vec<f64>, Vec<f64>) = (0..channels)
        .map(|channel| {
            let own = || parts.iter().skip(channel).step_by(channels);
            let mean = own().map(|[mean, _]| f64::from(*mean)).sum::<f64>() / extent.images as f64;
            // Squares around each plane's own mean, moved to the common one.
            let squares: f64 = own()
                .map(|[own, squares]| {
                    f64::from(*squares) + planes * (f64::from(*own) - mean).powi(2)
                })
                .sum();
            (mean, squares)
        })
        .unzip();
    let mut population = extent.population();
    if let Some(others) = others {
        population = join_moments(others, population, &mut mean, &mut squares);
    }
    let rounded = |(mean, squares): (&f64, &f64)| (*mean as f32, (squares / population) as f32);
    mean.iter().zip(&squares).map(rounded).unzip()
}

/// `(y, mean, biased variance)` of `y = act(γ·(x − mean)/√(variance + ε) + β [+ residual])`.
pub(super) fn forward(
    level: Level,
    extent: &Extent,
    settings: Settings<'_>,
    x: &[f32],
    [gamma, beta]: [&[f32]; 2],
    residual: Option<&[f32]>,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut y = vec![0.0; x.len()];
    if extent.is_empty() {
        return (y, vec![0.0; extent.channels], vec![0.0; extent.channels]);
    }
    let (mean, variance) = moments(level, extent, settings.others, x);
    let scales: Vec<Affine> = gamma
        .iter()
        .zip(beta)
        .zip(mean.iter().zip(&variance))
        .map(|((&gamma, &beta), (&mean, &variance))| {
            let inverse = 1.0 / (f64::from(variance) + settings.epsilon).sqrt();
            Affine { center: mean, scale: (f64::from(gamma) * inverse) as f32, shift: beta }
        })
        .collect();
    y.par_chunks_mut(extent.image()).zip(x.par_chunks(extent.image())).enumerate().for_each(
        |(image, (y, x))| {
            let residual = residual.map(|r| &r[image * extent.image()..][..extent.image()]);
            let pixels = extent.pixels;
            level.run(Apply { x, residual, relu: settings.relu, scales: &scales, pixels, y });
        },
    );
    (y, mean, variance)
}

/// Gradients of [`forward`].
#[derive(Debug)]
pub(super) struct Gradients {
    pub(super) dx: Vec<f32>,
    pub(super) dgamma: Vec<f32>,
    pub(super) dbeta: Vec<f32>,
}

/// Gradients of [`forward`]; `y` is its output, needed where a ReLU follows. Those of γ and β are
/// sums over this process's pictures alone.
///
/// `dy` becomes its part that passed the ReLU, which is the gradient of the residual.
pub(super) fn backward(
    level: Level,
    extent: &Extent,
    settings: Settings<'_>,
    x: &[f32],
    y: Option<&[f32]>,
    dy: &mut [f32],
    [gamma, mean, variance]: [&[f32]; 3],
) -> Gradients {
    let Extent { channels, pixels, .. } = *extent;
    let mut dx = vec![0.0; x.len()];
    if extent.is_empty() {
        return Gradients { dx, dgamma: vec![0.0; channels], dbeta: vec![0.0; channels] };
    }
    let image = extent.image();
    let mut parts = vec![[0.0; 2]; extent.images * channels];
    dy.par_chunks_mut(image)
        .zip(x.par_chunks(image))
        .zip(parts.par_chunks_mut(channels))
        .enumerate()
        .for_each(|(b, ((dy, x), parts))| {
            let y = y.map(|y| &y[b * image..][..image]);
            level.run(MaskedSums { x, y, mean, pixels, dy, parts });
        });

    let mut dgamma = Vec::with_capacity(channels);
    let mut dbeta = Vec::with_capacity(channels);
    let mut slopes = Vec::with_capacity(channels);
    let inverse = |c: usize| 1.0 / (f64::from(variance[c]) + settings.epsilon).sqrt();
    let mut sums = Vec::with_capacity(2 * channels + 1);
    for c in 0..channels {
        let own = || parts.iter().skip(c).step_by(channels);
        let plain: f64 = own().map(|[plain, _]| f64::from(*plain)).sum();
        let centered: f64 = own().map(|[_, centered]| f64::from(*centered)).sum();
        dgamma.push((centered * inverse(c)) as f32);
        dbeta.push(plain as f32);
        sums.extend([plain, centered]);
    }
    let mut population = extent.population();
    if let Some(others) = settings.others {
        population = join_sums(others, population, &mut sums);
    }
    for (c, [plain, centered]) in sums.as_chunks::<2>().0.iter().enumerate() {
        let inverse = inverse(c);
        let scale = f64::from(gamma[c]) * inverse;
        // dx = γ/σ·(dy − mean(dy) − x̂·mean(dy·x̂)) with x̂ = (x − mean)/σ.
        slopes.push(Slope {
            center: mean[c],
            dy: scale as f32,
            x: (-scale * inverse * inverse * centered / population) as f32,
            constant: (-scale * plain / population) as f32,
        });
    }
    let dy = &*dy;
    dx.par_chunks_mut(image)
        .zip(x.par_chunks(image))
        .zip(dy.par_chunks(image))
        .for_each(|((dx, x), dy)| level.run(InputSlopes { x, dy, slopes: &slopes, pixels, dx }));
    Gradients { dx, dgamma, dbeta }
}

/// Sums of a plane keep this many vectors apart, to hide the latency of an addition.
const APART: usize = 4;

/// Mean and squares around it of each plane.
struct PlaneMoments<'a> {
    x: &'a [f32],
    pixels: usize,
    parts: &'a mut [[f32; 2]],
}

impl Kernel for PlaneMoments<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const L: usize, const M: usize>(self) {
        for (x, part) in self.x.chunks_exact(self.pixels).zip(self.parts) {
            let (vectors, rest) = x.as_chunks::<L>();
            let (blocks, vectors) = vectors.as_chunks::<APART>();
            let mut sums = [[0.0; L]; APART];
            for block in blocks {
                for a in 0..APART {
                    for l in 0..L {
                        sums[a][l] += block[a][l];
                    }
                }
            }
            for vector in vectors {
                for l in 0..L {
                    sums[0][l] += vector[l];
                }
            }
            let mean = (joined(sums) + rest.iter().sum::<f32>()) / self.pixels as f32;

            let mut sums = [[0.0; L]; APART];
            for block in blocks {
                for a in 0..APART {
                    let d = block[a].map(|x| x - mean);
                    accumulate::<FMA, L>(&mut sums[a], &d, &d);
                }
            }
            for vector in vectors {
                let d = vector.map(|x| x - mean);
                accumulate::<FMA, L>(&mut sums[0], &d, &d);
            }
            let rest: f32 = rest.iter().map(|x| (x - mean) * (x - mean)).sum();
            *part = [mean, joined(sums) + rest];
        }
    }
}

#[inline(always)]
fn joined<const L: usize>([a, b, c, d]: [[f32; L]; APART]) -> f32 {
    let mut sum = a;
    for l in 0..L {
        sum[l] = (a[l] + b[l]) + (c[l] + d[l]);
    }
    total(sum)
}

/// `scale·(x − center) + shift`.
#[derive(Debug, Clone, Copy)]
struct Affine {
    center: f32,
    scale: f32,
    shift: f32,
}

/// The normalization itself, the residual and the ReLU of one image.
struct Apply<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    relu: bool,
    scales: &'a [Affine],
    pixels: usize,
    y: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const L: usize, const M: usize>(self) {
        let planes = self.y.chunks_exact_mut(self.pixels).zip(self.x.chunks_exact(self.pixels));
        for (c, ((y, x), affine)) in planes.zip(self.scales).enumerate() {
            let Affine { center, scale, shift } = *affine;
            // Without a ReLU the floor is one that no value falls below; NaN stays NaN.
            let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
            match self.residual {
                Some(residual) => {
                    let residual = &residual[c * self.pixels..][..self.pixels];
                    for ((y, x), r) in y.iter_mut().zip(x).zip(residual) {
                        let value = mul_add::<FMA>(x - center, scale, shift) + r;
                        *y = if value < floor { floor } else { value };
                    }
                }
                None => {
                    for (y, x) in y.iter_mut().zip(x) {
                        let value = mul_add::<FMA>(x - center, scale, shift);
                        *y = if value < floor { floor } else { value };
                    }
                }
            }
        }
    }
}

/// Masks `dy` by the ReLU and sums it, plain and times the centered input, for each plane.
struct MaskedSums<'a> {
    x: &'a [f32],
    y: Option<&'a [f32]>,
    mean: &'a [f32],
    pixels: usize,
    dy: &'a mut [f32],
    parts: &'a mut [[f32; 2]],
}

impl Kernel for MaskedSums<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const L: usize, const M: usize>(self) {
        let Self { x, y, mean, pixels, dy, parts } = self;
        if let Some(y) = y {
            for (dy, y) in dy.iter_mut().zip(y) {
                *dy = if *y > 0.0 { *dy } else { 0.0 };
            }
        }
        let planes = dy.chunks_exact(pixels).zip(x.chunks_exact(pixels));
        for (((dy, x), &mean), part) in planes.zip(mean).zip(parts) {
            let (d_vectors, d_rest) = dy.as_chunks::<L>();
            let (x_vectors, x_rest) = x.as_chunks::<L>();
            let (d_blocks, d_vectors) = d_vectors.as_chunks::<APART>();
            let (x_blocks, x_vectors) = x_vectors.as_chunks::<APART>();
            let mut plain = [[0.0; L]; APART];
            let mut centered = [[0.0; L]; APART];
            for (d, x) in d_blocks.iter().zip(x_blocks) {
                for a in 0..APART {
                    for l in 0..L {
                        plain[a][l] += d[a][l];
                    }
                    accumulate::<FMA, L>(&mut centered[a], &d[a], &x[a].map(|x| x - mean));
                }
            }
            for (d, x) in d_vectors.iter().zip(x_vectors) {
                for l in 0..L {
                    plain[0][l] += d[l];
                }
                accumulate::<FMA, L>(&mut centered[0], d, &x.map(|x| x - mean));
            }
            let rest = d_rest.iter().zip(x_rest);
            *part = [
                joined(plain) + d_rest.iter().sum::<f32>(),
                joined(centered) + rest.map(|(d, x)| d * (x - mean)).sum::<f32>(),
            ];
        }
    }
}

/// `dx = dy·d + x·(x − center) + constant`, the input gradient of one channel.
#[derive(Debug, Clone, Copy)]
struct Slope {
    center: f32,
    dy: f32,
    x: f32,
    constant: f32,
}

/// The input gradient of one image.
struct InputSlopes<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    slopes: &'a [Slope],
    pixels: usize,
    dx: &'a mut [f32],
}

impl Kernel for InputSlopes<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const L: usize, const M: usize>(self) {
        let Self { x, dy, slopes, pixels, dx } = self;
        let planes =
            dx.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels)).zip(dy.chunks_exact(pixels));
        for (((dx, x), dy), slope) in planes.zip(slopes) {
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                let rest = mul_add::<FMA>(x - slope.center, slope.x, slope.constant);
                *dx = mul_add::<FMA>(*dy, slope.dy, rest);
            }
        }
    }
}
