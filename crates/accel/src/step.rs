//! Optimizer steps, each in one pass over memory.

use crate::dispatch::{Kernel, Level, Simd};
use crate::recycle::{self, Numbers};
use rayon::prelude::*;

/// Values that one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// How SGD makes a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub rate: f64,
    /// Share of the velocity that survives.
    pub momentum: f64,
    /// Look ahead along the velocity.
    pub nesterov: bool,
    /// Share of the weight that survives its decay.
    pub kept: f64,
}

/// How Adam makes a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate, corrected for means that began at zero.
    pub rate: f64,
    /// Shares of the mean gradient and mean squared gradient that survive.
    pub betas: [f64; 2],
    /// Keeps the divisor from zero.
    pub epsilon: f64,
    /// Share of the weight that survives its decay.
    pub kept: f64,
}

/// The weights after a step; `velocity` is updated.
pub(super) fn sgd(
    level: Level,
    step: Sgd,
    [weight, gradient]: [&[f32]; 2],
    velocity: &mut [f32],
) -> Numbers<f32> {
    let mut out = recycle::take_parameters(weight.len());
    let sources = weight.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
    let results = out.par_chunks_mut(CHUNK).zip(velocity.par_chunks_mut(CHUNK));
    results.zip(sources).for_each(|((out, velocity), (weight, gradient))| {
        level.run(SgdChunk { step, weight, gradient, velocity, out });
    });
    out
}

struct SgdChunk<'a> {
    step: Sgd,
    weight: &'a [f32],
    gradient: &'a [f32],
    velocity: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for SgdChunk<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { step, weight, gradient, velocity, out } = self;
        let (rate, momentum, kept) = (step.rate as f32, step.momentum as f32, step.kept as f32);
        let sources = weight.iter().zip(gradient);
        for ((out, velocity), (weight, gradient)) in out.iter_mut().zip(velocity).zip(sources) {
            let pull = -rate * gradient;
            *velocity = simd.mul_add(momentum, *velocity, pull);
            let change =
                if step.nesterov { simd.mul_add(momentum, *velocity, pull) } else { *velocity };
            *out = simd.mul_add(kept, *weight, change);
        }
    }
}

/// The weights after a step; the `means` of gradient and squared gradient are updated.
pub(super) fn adam(
    level: Level,
    step: Adam,
    [weight, gradient]: [&[f32]; 2],
    [mean, square]: [&mut [f32]; 2],
) -> Numbers<f32> {
    let mut out = recycle::take_parameters(weight.len());
    let sources = weight.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
    let means = mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK));
    let results = out.par_chunks_mut(CHUNK).zip(means);
    results.zip(sources).for_each(|((out, (mean, square)), (weight, gradient))| {
        level.run(AdamChunk { step, weight, gradient, mean, square, out });
    });
    out
}

struct AdamChunk<'a> {
    step: Adam,
    weight: &'a [f32],
    gradient: &'a [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for AdamChunk<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { step, weight, gradient, mean, square, out } = self;
        let (rate, epsilon, kept) = (step.rate as f32, step.epsilon as f32, step.kept as f32);
        let [beta_1, beta_2] = step.betas;
        let (fresh_1, fresh_2) = ((1.0 - beta_1) as f32, (1.0 - beta_2) as f32);
        let (beta_1, beta_2) = (beta_1 as f32, beta_2 as f32);
        let means = mean.iter_mut().zip(square);
        let sources = weight.iter().zip(gradient);
        for ((out, (mean, square)), (weight, gradient)) in out.iter_mut().zip(means).zip(sources) {
            *mean = simd.mul_add(beta_1, *mean, fresh_1 * gradient);
            *square = simd.mul_add(beta_2, *square, fresh_2 * (gradient * gradient));
            let change = -rate * *mean / (square.sqrt() + epsilon);
            *out = simd.mul_add(kept, *weight, change);
        }
    }
}

/// `average ← average + (value − average)·share`: what does not change is exactly its own average.
pub(super) fn blend(level: Level, average: &mut [f32], value: &[f32], share: f64) {
    let share = share as f32;
    average.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK)).for_each(|(average, value)| {
        level.run(BlendChunk { average, value, share });
    });
}

struct BlendChunk<'a> {
    average: &'a mut [f32],
    value: &'a [f32],
    share: f32,
}

impl Kernel for BlendChunk<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (average, value) in self.average.iter_mut().zip(self.value) {
            *average = simd.mul_add(value - *average, self.share, *average);
        }
    }
}
