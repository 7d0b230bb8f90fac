//! Batch normalization with residual addition and activation in the same pass.
//!
//! Moments are taken of each picture while it is in the cache, around the picture's own mean, and
//! joined in f64 in the order of the pictures, so that they neither cancel nor depend on threads.

use crate::activation::Activation;
use crate::dispatch::{Kernel, Level, Simd};
use crate::element::{Element, LANES, Line};
use crate::frame::{Affine, Planes};
use crate::processes::AllReduce;
use crate::recycle::{self, Numbers};
use crate::statistics;
use burn::tensor::Shape;
use rayon::prelude::*;

/// Sizes of a feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) images: usize,
    /// Channels in use; the last block may have more lanes.
    pub(super) channels: usize,
    pub(super) planes: Planes,
}

impl Extent {
    /// Of a map `[N, blocks, H, W, LANES]`.
    pub(super) fn of(map: &Shape, channels: usize) -> Self {
        let planes = Planes { blocks: map[1], height: map[2], width: map[3] };
        Self { images: map[0], channels, planes }
    }

    /// Values of a picture.
    fn picture(&self) -> usize {
        self.planes.lines() * LANES
    }

    /// Values of this process that share a mean.
    fn population(&self) -> f64 {
        (self.images * self.planes.pixels()) as f64
    }

    /// Whether there is nothing to compute.
    pub(super) fn is_empty(&self) -> bool {
        self.images * self.planes.lines() == 0
    }

    /// Room for one result for each block of each picture.
    pub(super) fn parts(&self) -> Vec<Part> {
        vec![[[0.0; LANES]; 2]; self.images * self.planes.blocks]
    }
}

/// Two sums over the pixels of a block: mean and squares around it, or a gradient's sum and its
/// product with the centered input.
pub(super) type Part = [Line; 2];

/// A channel's statistics.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    /// `[C]`.
    pub(super) mean: Vec<f32>,
    /// Biased, `[C]`.
    pub(super) variance: Vec<f32>,
}

/// Mean and squares around it of each block of a picture.
pub(super) struct PictureMoments<'a, E: Element> {
    pub(super) picture: &'a [Line<E>],
    /// Pixels of a block.
    pub(super) pixels: usize,
    pub(super) parts: &'a mut [Part],
}

/// Pixels summed before their sum is added to the others: long chains of additions lose bits.
pub(super) const RUN: usize = 64;

impl<E: Element> Kernel for PictureMoments<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let zero = simd.load(&[0.0; LANES]);
        for (block, part) in self.picture.chunks_exact(self.pixels).zip(self.parts) {
            let mut total = zero;
            for run in block.chunks(RUN) {
                // Two sums, to hide the latency of an addition.
                let mut sums = [zero; 2];
                let (pairs, rest) = run.as_chunks::<2>();
                for [first, second] in pairs {
                    sums[0] = simd.add(sums[0], E::load(simd, first));
                    sums[1] = simd.add(sums[1], E::load(simd, second));
                }
                for x in rest {
                    sums[0] = simd.add(sums[0], E::load(simd, x));
                }
                total = simd.add(simd.add(total, sums[0]), sums[1]);
            }
            let mut mean = simd.store(total);
            for sum in &mut mean {
                *sum /= self.pixels as f32;
            }
            let center = simd.load(&mean);
            let mut total = zero;
            for run in block.chunks(RUN) {
                let mut sums = [zero; 2];
                let (pairs, rest) = run.as_chunks::<2>();
                for [first, second] in pairs {
                    let first = simd.sub(E::load(simd, first), center);
                    let second = simd.sub(E::load(simd, second), center);
                    sums[0] = simd.fma(first, first, sums[0]);
                    sums[1] = simd.fma(second, second, sums[1]);
                }
                for x in rest {
                    let x = simd.sub(E::load(simd, x), center);
                    sums[0] = simd.fma(x, x, sums[0]);
                }
                total = simd.add(simd.add(total, sums[0]), sums[1]);
            }
            *part = [mean, simd.store(total)];
        }
    }
}

/// The parts of one channel, picture by picture.
fn channel(parts: &[Part], blocks: usize, channel: usize) -> impl Iterator<Item = [f64; 2]> {
    let own = parts.iter().skip(channel / LANES).step_by(blocks);
    own.map(move |part| part.map(|line| f64::from(line[channel % LANES])))
}

/// Processes whose pictures share a batch's statistics with this one's; `None` where it has the
/// whole batch.
pub(super) type Others<'a> = Option<&'a dyn AllReduce>;

/// Joins the moments `all` of `count` pixels of a block with those of some more.
pub(super) fn merge_moments(all: &mut Part, count: usize, own: &Part, more: usize) {
    let share = more as f32 / (count + more) as f32;
    for l in 0..LANES {
        let apart = own[0][l] - all[0][l];
        all[0][l] += apart * share;
        all[1][l] += own[1][l] + apart * apart * share * count as f32;
    }
}

/// Joins what [`PictureMoments`] found in all pictures.
pub(super) fn join_moments(extent: &Extent, parts: &[Part], others: Others<'_>) -> Moments {
    let blocks = extent.planes.blocks;
    let pixels = extent.planes.pixels() as f64;
    let images = extent.images.max(1) as f64;
    let (mut means, mut squares): (Vec<f64>, Vec<f64>) = (0..extent.channels)
        .map(|c| {
            let own = || channel(parts, blocks, c);
            let mean = own().map(|[mean, _]| mean).sum::<f64>() / images;
            // Squares around each picture's own mean, moved to the common one.
            let moved = |[own, squares]: [f64; 2]| squares + pixels * (own - mean).powi(2);
            (mean, own().map(moved).sum::<f64>())
        })
        .unzip();
    let mut population = extent.population();
    if let Some(others) = others {
        population = statistics::join_moments(others, population, &mut means, &mut squares);
    }
    let population = population.max(1.0);
    Moments {
        mean: means.iter().map(|mean| *mean as f32).collect(),
        variance: squares.iter().map(|squares| (squares / population) as f32).collect(),
    }
}

/// Moments of a whole map.
pub(super) fn moments<E: Element>(
    level: Level,
    extent: &Extent,
    others: Others<'_>,
    x: &[E],
) -> Moments {
    let mut parts = extent.parts();
    if !extent.is_empty() {
        let pictures: &[Line<E>] = x.as_chunks().0;
        let (lines, pixels) = (extent.planes.lines(), extent.planes.pixels());
        let parts = parts.par_chunks_mut(extent.planes.blocks);
        pictures.par_chunks(lines).zip(parts).for_each(|(picture, parts)| {
            level.run(PictureMoments { picture, pixels, parts });
        });
    }
    join_moments(extent, &parts, others)
}

/// Statistics and parameters of a normalization, `[C]` each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm<'a> {
    pub(super) mean: &'a [f32],
    pub(super) variance: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) epsilon: f64,
    /// The statistics are constants, not the input's own.
    pub(super) fixed: bool,
}

impl Norm<'_> {
    /// `1/√(variance + ε)` of a channel.
    fn inverse(&self, channel: usize) -> f64 {
        1.0 / (f64::from(self.variance[channel]) + self.epsilon).sqrt()
    }

    /// As a multiplication and an addition; zero in lanes without a channel.
    pub(super) fn affine(&self) -> Vec<Affine> {
        let zero = [0.0; LANES];
        let none = Affine { center: zero, scale: zero, shift: zero };
        let mut blocks = vec![none; self.gamma.len().div_ceil(LANES)];
        for c in 0..self.gamma.len() {
            let (block, l) = (&mut blocks[c / LANES], c % LANES);
            block.center[l] = self.mean[c];
            block.scale[l] = (f64::from(self.gamma[c]) * self.inverse(c)) as f32;
            block.shift[l] = self.beta[c];
        }
        blocks
    }

    /// What the sums of a gradient come to. Gradients of γ and β are sums over this process's
    /// pictures alone, for those of all parameters are summed at the end of a step.
    pub(super) fn slopes(&self, extent: &Extent, parts: &[Part], others: Others<'_>) -> Slopes {
        let (channels, blocks) = (extent.channels, extent.planes.blocks);
        let mut sums: Vec<f64> = (0..2 * channels)
            .map(|i| channel(parts, blocks, i % channels).map(|part| part[i / channels]).sum())
            .collect();
        let own = sums.clone();
        let mut count = extent.population();
        if let Some(others) = others.filter(|_| !self.fixed) {
            count = statistics::join_sums(others, count, &mut sums);
        }
        let count = count.max(1.0);
        let zero = [0.0; LANES];
        let mut slopes = Slopes {
            blocks: vec![Slope { center: zero, dy: zero, x: zero, constant: zero }; blocks],
            dgamma: Vec::with_capacity(channels),
            dbeta: Vec::with_capacity(channels),
        };
        for c in 0..channels {
            let inverse = self.inverse(c);
            let scale = f64::from(self.gamma[c]) * inverse;
            let (slope, l) = (&mut slopes.blocks[c / LANES], c % LANES);
            // dx = γ/σ·(dy − mean(dy) − x̂·mean(dy·x̂)) with x̂ = (x − mean)/σ.
            slope.center[l] = self.mean[c];
            slope.dy[l] = scale as f32;
            if !self.fixed {
                let (plain, centered) = (sums[c] / count, sums[channels + c] / count);
                slope.x[l] = (-scale * inverse * inverse * centered) as f32;
                slope.constant[l] = (-scale * plain) as f32;
            }
            slopes.dgamma.push((own[channels + c] * inverse) as f32);
            slopes.dbeta.push(own[c] as f32);
        }
        slopes
    }
}

/// `dx = dy·d + x·(x − center) + constant`, the input gradient of one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slope {
    center: Line,
    dy: Line,
    x: Line,
    constant: Line,
}

impl Slope {
    #[inline(always)]
    fn apply<E: Element, S: Simd>(&self, simd: S, dy: &Line<E>, x: &Line<E>) -> Line<E> {
        let centered = simd.sub(E::load(simd, x), simd.load(&self.center));
        let rest = simd.fma(centered, simd.load(&self.x), simd.load(&self.constant));
        E::store(simd, simd.fma(E::load(simd, dy), simd.load(&self.dy), rest))
    }
}

/// Gradients of the parameters, and the way to the input's.
#[derive(Debug)]
pub(super) struct Slopes {
    blocks: Vec<Slope>,
    /// `[C]`.
    pub(super) dgamma: Vec<f32>,
    /// `[C]`.
    pub(super) dbeta: Vec<f32>,
}

/// `act(norm(x) [+ residual])`
pub(super) fn apply<E: Element>(
    level: Level,
    extent: &Extent,
    affine: &[Affine],
    x: &[E],
    residual: Option<&[E]>,
    activation: Activation,
) -> Numbers<E> {
    let mut y = recycle::take(x.len());
    let len = extent.picture();
    if !extent.is_empty() {
        y.par_chunks_mut(len).zip(x.par_chunks(len)).enumerate().for_each(|(image, (y, x))| {
            level.run(Apply {
                x: x.as_chunks().0,
                residual: residual.map(|r| r[image * len..][..len].as_chunks().0),
                activation,
                affine,
                pixels: extent.planes.pixels(),
                y: y.as_chunks_mut().0,
            });
        });
    }
    y
}

/// [`apply`] to one picture.
pub(super) struct Apply<'a, E: Element> {
    pub(super) x: &'a [Line<E>],
    pub(super) residual: Option<&'a [Line<E>]>,
    pub(super) activation: Activation,
    pub(super) affine: &'a [Affine],
    pub(super) pixels: usize,
    pub(super) y: &'a mut [Line<E>],
}

impl<E: Element> Kernel for Apply<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, residual, activation, affine, pixels, y } = self;
        let blocks = y.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels)).zip(affine);
        for (block, ((y, x), affine)) in blocks.enumerate() {
            match residual {
                Some(residual) => {
                    let residual = &residual[block * pixels..][..pixels];
                    for ((y, x), residual) in y.iter_mut().zip(x).zip(residual) {
                        let sum = affine.apply(simd, E::load(simd, x));
                        let sum = simd.add(sum, E::load(simd, residual));
                        *y = E::store(simd, activation.apply(simd, sum));
                    }
                }
                None => {
                    for (y, x) in y.iter_mut().zip(x) {
                        let value = affine.apply(simd, E::load(simd, x));
                        *y = E::store(simd, activation.apply(simd, value));
                    }
                }
            }
        }
    }
}

/// Adds the values of a map to those of another.
pub(super) fn add_to<E: Element>(level: Level, sums: &mut [E], x: &[E]) {
    /// Values that one thread takes at a time.
    const CHUNK: usize = LANES << 10;

    sums.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(sums, x)| {
        level.run(AddTo { sums: sums.as_chunks_mut().0, x: x.as_chunks().0 });
    });
}

struct AddTo<'a, E: Element> {
    sums: &'a mut [Line<E>],
    x: &'a [Line<E>],
}

impl<E: Element> Kernel for AddTo<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (sum, x) in self.sums.iter_mut().zip(self.x) {
            *sum = E::store(simd, simd.add(E::load(simd, sum), E::load(simd, x)));
        }
    }
}

/// Which gradients pass.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mask<'a, E> {
    /// All.
    None,
    /// Those of outputs between bounds.
    Output(&'a [Line<E>], [f32; 2]),
    /// Those of the function's inputs, the normalized numbers, times its slope.
    Input(&'a [Affine], Activation),
}

impl<'a, E> Mask<'a, E> {
    /// Of an activation of normalized numbers.
    pub(super) fn of(affine: &'a [Affine], activation: Activation) -> Self {
        if activation.is_none() { Self::None } else { Self::Input(affine, activation) }
    }
}

/// Masks `dy` of one picture and adds it, plain and times the centered input, to each block's part.
pub(super) struct MaskedSums<'a, E: Element> {
    pub(super) x: &'a [Line<E>],
    pub(super) mask: Mask<'a, E>,
    /// Of each block.
    pub(super) centers: &'a [Affine],
    pub(super) pixels: usize,
    pub(super) dy: &'a mut [Line<E>],
    pub(super) parts: &'a mut [Part],
}

impl<E: Element> Kernel for MaskedSums<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, mask, centers, pixels, dy, parts } = self;
        let zero = simd.load(&[0.0; LANES]);
        let blocks = dy.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
        for (block, (((dy, x), center), part)) in blocks.zip(centers).zip(parts).enumerate() {
            let center = simd.load(&center.center);
            let mut total = [simd.load(&part[0]), simd.load(&part[1])];
            for (run, (dy, x)) in dy.chunks_mut(RUN).zip(x.chunks(RUN)).enumerate() {
                let mut sums = [zero; 2];
                match mask {
                    Mask::None => {
                        for (dy, x) in dy.iter_mut().zip(x) {
                            let (d, x) = (E::load(simd, dy), E::load(simd, x));
                            *dy = keep::<E, S>(simd, d, simd.sub(x, center), &mut sums);
                        }
                    }
                    Mask::Output(y, bounds) => {
                        let y = &y[block * pixels + run * RUN..][..dy.len()];
                        for ((dy, x), y) in dy.iter_mut().zip(x).zip(y) {
                            let d = simd.where_between(bounds, E::load(simd, y), E::load(simd, dy));
                            let x = simd.sub(E::load(simd, x), center);
                            *dy = keep::<E, S>(simd, d, x, &mut sums);
                        }
                    }
                    Mask::Input(affine, activation) => {
                        let affine = &affine[block];
                        for (dy, x) in dy.iter_mut().zip(x) {
                            let x = E::load(simd, x);
                            let y = affine.apply(simd, x);
                            let d = activation.slope(simd, y, E::load(simd, dy));
                            *dy = keep::<E, S>(simd, d, simd.sub(x, center), &mut sums);
                        }
                    }
                }
                total = [simd.add(total[0], sums[0]), simd.add(total[1], sums[1])];
            }
            *part = [simd.store(total[0]), simd.store(total[1])];
        }
    }
}

/// `d` as it is stored; adds that, plain and times the centered `x`, to `sums`.
#[inline(always)]
fn keep<E: Element, S: Simd>(
    simd: S,
    d: S::Vector,
    x: S::Vector,
    [plain, centered]: &mut [S::Vector; 2],
) -> Line<E> {
    let stored = E::store(simd, d);
    let d = E::load(simd, &stored);
    *plain = simd.add(*plain, d);
    *centered = simd.fma(d, x, *centered);
    stored
}

/// [`MaskedSums`] of all pictures.
pub(super) fn masked_sums<E: Element>(
    level: Level,
    extent: &Extent,
    centers: &[Affine],
    x: &[E],
    mask: Mask<'_, E>,
    dy: &mut [E],
) -> Vec<Part> {
    let mut parts = extent.parts();
    if extent.is_empty() {
        return parts;
    }
    let len = extent.picture();
    let each = parts.par_chunks_mut(extent.planes.blocks);
    dy.par_chunks_mut(len).zip(x.par_chunks(len)).zip(each).enumerate().for_each(
        |(image, ((dy, x), parts))| {
            let lines = extent.planes.lines();
            let mask = match mask {
                Mask::Output(y, bounds) => Mask::Output(&y[image * lines..][..lines], bounds),
                other => other,
            };
            level.run(MaskedSums {
                x: x.as_chunks().0,
                mask,
                centers,
                pixels: extent.planes.pixels(),
                dy: dy.as_chunks_mut().0,
                parts,
            });
        },
    );
    parts
}

/// The input gradient from the masked gradient of the output.
pub(super) fn input_slopes<E: Element>(
    level: Level,
    extent: &Extent,
    slopes: &Slopes,
    x: &[E],
    dy: &[E],
) -> Numbers<E> {
    let mut dx = recycle::take(x.len());
    if !extent.is_empty() {
        let len = extent.picture();
        let pixels = extent.planes.pixels();
        let inputs = x.par_chunks(len).zip(dy.par_chunks(len));
        dx.par_chunks_mut(len).zip(inputs).for_each(|(dx, (x, dy))| {
            let (x, dy) = (x.as_chunks().0, dy.as_chunks().0);
            let dx = dx.as_chunks_mut().0;
            level.run(InputSlopes { x, dy: Some(dy), slopes: &slopes.blocks, pixels, dx });
        });
    }
    dx
}

/// The same in place of the gradient of the output.
pub(super) fn input_slopes_in_place<E: Element>(
    level: Level,
    extent: &Extent,
    slopes: &Slopes,
    x: &[E],
    dy: &mut [E],
) {
    if !extent.is_empty() {
        let len = extent.picture();
        let pixels = extent.planes.pixels();
        dy.par_chunks_mut(len).zip(x.par_chunks(len)).for_each(|(dx, x)| {
            let (x, dx) = (x.as_chunks().0, dx.as_chunks_mut().0);
            level.run(InputSlopes { x, dy: None, slopes: &slopes.blocks, pixels, dx });
        });
    }
}

/// The input gradient of one picture.
struct InputSlopes<'a, E: Element> {
    x: &'a [Line<E>],
    /// Gradient of the output; where there is none, it is in `dx`.
    dy: Option<&'a [Line<E>]>,
    slopes: &'a [Slope],
    pixels: usize,
    dx: &'a mut [Line<E>],
}

impl<E: Element> Kernel for InputSlopes<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, dy, slopes, pixels, dx } = self;
        let blocks = dx.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels)).zip(slopes);
        for (block, ((dx, x), own)) in blocks.enumerate() {
            match dy {
                Some(dy) => {
                    let dy = &dy[block * pixels..][..pixels];
                    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                        *dx = own.apply(simd, dy, x);
                    }
                }
                None => {
                    for (dx, x) in dx.iter_mut().zip(x) {
                        *dx = own.apply(simd, dx, x);
                    }
                }
            }
        }
    }
}
