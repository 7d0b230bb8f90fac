//! Convolution and batch normalization for training on a CPU, several times faster than the
//! Flex backend's own: a Burn backend extension with hand-written kernels and gradients.
//!
//! Results are the same bits for any number of threads; work runs in the Rayon pool in force.

mod conv;
mod dispatch;
mod extension;
mod norm;

#[cfg(test)]
mod tests;

use burn::backend::Dispatch;
use burn::tensor::{Device, FloatDType, Tensor};
use core::sync::atomic::{AtomicBool, Ordering};
use extension::Accelerated;

/// Set by [`disable`].
static DISABLED: AtomicBool = AtomicBool::new(false);

/// Leaves everything to the backend's own operations from now on, in the whole process, so that
/// they can be compared with: [`supports`] accepts no device any more.
pub fn disable() {
    DISABLED.store(true, Ordering::Relaxed);
}

/// Whether [`conv2d`] and [`batch_norm_relu`] run on this device: Flex, plain or with
/// autodiff, with f32 as its float type; none after [`disable`].
pub fn supports(device: &Device) -> bool {
    if DISABLED.load(Ordering::Relaxed) {
        return false;
    }
    let plain = device.clone().without_autodiff();
    plain == Device::flex() && matches!(device.settings().float_dtype, FloatDType::F32)
}

/// Convolution without bias: `x: [N, I, H, W]` and `w: [O, I, k, k]` to `[N, O, H', W']` with
/// `H' = (H + 2·pad − k)/stride + 1`; `pad` zeros on every side.
///
/// # Panics
///
/// If the device is not one that [`supports`] accepts, the filter is not square, larger than
/// the padded input or of other channels than it, or `stride` is zero.
pub fn conv2d(x: Tensor<4>, w: Tensor<4>, stride: usize, pad: usize) -> Tensor<4> {
    let [_, channels, height, width] = x.dims();
    let [_, inputs, k, across] = w.dims();
    assert!(stride > 0, "conv2d: stride is zero");
    assert!(k > 0 && k == across, "conv2d: the filter is {k}×{across}, not square");
    assert_eq!(channels, inputs, "conv2d: channels of input and filter");
    assert!(
        height.min(width) + 2 * pad >= k,
        "conv2d: a {k}×{k} filter on {height}×{width} pixels with padding {pad}"
    );
    let y =
        <Dispatch as Accelerated>::accel_conv2d(x.into_dispatch(), w.into_dispatch(), stride, pad);
    Tensor::from_dispatch(y)
}

/// `y = act(γ·(x − mean)/√(variance + ε) + β [+ residual])` with the batch's own mean and
/// biased variance over N, H and W; `act` is ReLU where `relu`.
///
/// `x` and `residual: [N, C, H, W]`, `gamma` and `beta: [C]`. Returns `y`, mean and variance
/// `[C]`, the last two without gradients.
///
/// # Panics
///
/// If the device is not one that [`supports`] accepts or the shapes do not match.
pub fn batch_norm_relu(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    residual: Option<Tensor<4>>,
    relu: bool,
    eps: f64,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let channels = x.dims()[1];
    assert_eq!(gamma.dims(), [channels], "batch_norm_relu: scales for {channels} channels");
    assert_eq!(beta.dims(), [channels], "batch_norm_relu: shifts for {channels} channels");
    if let Some(residual) = &residual {
        assert_eq!(residual.dims(), x.dims(), "batch_norm_relu: residual and input");
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    let (y, mean, variance) = match residual {
        Some(residual) => {
            let residual = residual.into_dispatch();
            <Dispatch as Accelerated>::accel_norm_add(x, gamma, beta, residual, relu, eps)
        }
        None => <Dispatch as Accelerated>::accel_norm(x, gamma, beta, relu, eps),
    };
    (Tensor::from_dispatch(y), Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}
