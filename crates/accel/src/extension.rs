//! The kernels as operations of Burn backends.

use crate::activation::Activation;
use crate::geometry::Geometry;
use crate::pool::Window;
use crate::step::{Adam, Sgd};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// Feature map, mean and biased variance of its channels.
pub(super) type WithMoments<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// How maps are normalized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rule {
    /// Of the normalized numbers.
    pub(super) activation: Activation,
    /// Added to the variance.
    pub(super) epsilon: f64,
    /// Mean and variance are constants, not the map's own.
    pub(super) fixed: bool,
}

impl Rule {
    /// Whether its output tells which gradients pass.
    pub(super) fn reads_output(&self) -> bool {
        matches!(self.activation, Activation::Clamp(_)) && !self.activation.is_none()
    }
}

/// What a convolution has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) shape: Geometry,
    /// Compute the moments of the result; without, they are empty.
    pub(super) moments: bool,
    /// The result of planar input is bf16; other results are of their input's type.
    pub(super) bf16: bool,
}

/// Operations with a gradient, as the `Dispatch` backend offers them. Maps are
/// `[N, blocks, H, W, LANES]`, f32 or bf16, statistics and parameters f32.
#[backend_extension(Autodiff, Flex)]
pub(super) trait Accelerated: Backend {
    /// Convolution of planar pictures or of a map.
    fn accel_conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        task: Task,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Convolution of the normalized map.
    fn accel_norm_conv(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        w: FloatTensor<Self>,
        how: (Rule, Task),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The normalized map.
    fn accel_norm(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self>;

    /// The normalized map plus a residual, before it is clamped.
    fn accel_norm_add(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self>;

    /// Largest values of the normalized map.
    fn accel_norm_max(
        x: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        rule: Rule,
        window: Window,
    ) -> FloatTensor<Self>;

    /// Mean and biased variance, without gradients.
    fn accel_moments(
        x: FloatTensor<Self>,
        channels: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The map twice, for two uses that both take part in the result.
    fn accel_fork(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Zero, `[1]`, whose gradient with respect to `x` is `dy`: where a backward pass begins.
    fn accel_root(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Weights and velocity after a step along `gradient`; all flat, f32 and without gradients.
    fn accel_sgd(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        step: Sgd,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The same with Adam's mean gradient and mean squared gradient.
    fn accel_adam(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: Adam,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// `average + (value − average)·share`, as flat.
    fn accel_blend(
        average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        share: f64,
    ) -> FloatTensor<Self>;

    /// Mean over the pixels, f32 `[N, C]`.
    fn accel_mean(x: FloatTensor<Self>, channels: usize) -> FloatTensor<Self>;

    /// `[N, C, H, W]` to a map.
    fn accel_to_blocks(x: FloatTensor<Self>, bf16: bool) -> FloatTensor<Self>;

    /// A map to f32 `[N, C, H, W]`.
    fn accel_from_blocks(x: FloatTensor<Self>, channels: usize) -> FloatTensor<Self>;
}
