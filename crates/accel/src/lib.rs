//! Convolution, batch normalization and pooling for training on a CPU, several times faster than
//! the Flex backend's own: a Burn backend extension with hand-written kernels and gradients.
//!
//! A [`Map`] keeps 16 channels of a pixel side by side, so that every inner loop is over whole
//! vectors and no picture's edge costs anything. A normalization is not computed by itself but
//! while the next operation reads the map: the normalized map needs no place in memory, and its
//! gradient's sums are taken while the gradient is in the cache.
//!
//! Results are the same bits for any number of threads; work runs in the Rayon pool in force.

mod activation;
mod conv;
mod depthwise;
mod dispatch;
mod element;
mod extension;
mod flex;
mod frame;
mod geometry;
mod gradient;
mod map;
mod norm;
mod planar;
mod pool;
pub mod processes;
mod recycle;
pub mod statistics;
mod step;
pub mod trace;
mod weight;
mod winograd;

#[cfg(test)]
mod tests;

pub use activation::Activation;
pub use map::{Map, Normalization, Precision, Sides, Window};
pub use step::{Adam, Sgd};

use burn::backend::Dispatch;
use burn::tensor::{Device, FloatDType, Tensor};
use core::sync::atomic::{AtomicBool, Ordering};
use dispatch::Level;
use extension::Accelerated;

/// Set by [`disable`].
static DISABLED: AtomicBool = AtomicBool::new(false);

/// Leaves everything to the backend's own operations from now on, in the whole process, so that
/// they can be compared with: [`supports`] accepts no device any more.
pub fn disable() {
    DISABLED.store(true, Ordering::Relaxed);
}

/// Whether [`Map`]s can be on this device: Flex, plain or with autodiff, with f32 as its float
/// type; none after [`disable`].
pub fn supports(device: &Device) -> bool {
    if DISABLED.load(Ordering::Relaxed) {
        return false;
    }
    let plain = device.clone().without_autodiff();
    plain == Device::flex() && matches!(device.settings().float_dtype, FloatDType::F32)
}

/// Weights and velocity after a step along `gradient`, all `[N]` and without autodiff; the device
/// must be one that [`supports`] accepts.
pub fn sgd([weight, gradient, velocity]: [Tensor<1>; 3], step: Sgd) -> [Tensor<1>; 2] {
    let [weight, gradient, velocity] = [weight, gradient, velocity].map(Tensor::into_dispatch);
    let (weight, velocity) = <Dispatch as Accelerated>::accel_sgd(weight, gradient, velocity, step);
    [weight, velocity].map(Tensor::from_dispatch)
}

/// Weights, mean gradient and mean squared gradient after a step along `gradient`, as [`sgd`].
pub fn adam([weight, gradient, mean, square]: [Tensor<1>; 4], step: Adam) -> [Tensor<1>; 3] {
    let [weight, gradient, mean, square] =
        [weight, gradient, mean, square].map(Tensor::into_dispatch);
    let (weight, mean, square) =
        <Dispatch as Accelerated>::accel_adam(weight, gradient, mean, square, step);
    [weight, mean, square].map(Tensor::from_dispatch)
}

/// `average + (value − average)·share`, as [`sgd`].
pub fn blend(average: Tensor<1>, value: Tensor<1>, share: f64) -> Tensor<1> {
    let (average, value) = (average.into_dispatch(), value.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Accelerated>::accel_blend(average, value, share))
}

/// Instruction sets that this processor has, best first.
pub fn instruction_sets() -> Vec<&'static str> {
    Level::available().map(Level::name).collect()
}

/// Computes with the instruction set of this name, of [`instruction_sets`], instead of the best, in
/// the whole process; `false` where there is none, or others were used already.
pub fn use_instruction_set(name: &str) -> bool {
    Level::available().find(|level| level.name() == name).is_some_and(Level::choose)
}

/// Whether this processor multiplies numbers of this precision at its full rate.
pub fn is_fast(precision: Precision) -> bool {
    precision == Precision::F32 || Level::detect().has_bf16()
}
