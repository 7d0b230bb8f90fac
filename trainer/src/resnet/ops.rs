//! The two operators that training spends its time in: the fast ones of [`accel`] where they
//! run, Burn's own elsewhere.

use crate::accel;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;

/// Convolution without bias. `x: [N, C, H, W]`, `w: [O, C, k, k]`, `pad` zeros on every side.
pub(super) fn conv2d(x: Tensor<4>, w: Tensor<4>, stride: usize, pad: usize) -> Tensor<4> {
    if accel::supports(&x.device()) {
        return accel::conv2d(x, w, stride, pad);
    }
    let options =
        ConvOptions { stride: [stride; 2], padding: [(pad, pad); 2], dilation: [1; 2], groups: 1 };
    module::conv2d(x, w, None, options)
}

/// `y = act(γ·(x − mean)/√(var + ε) + β [+ residual])` with the batch's own mean and biased
/// variance over N, H and W; returns `y`, mean and variance, the last two without gradients.
pub(super) fn batch_norm_relu(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    residual: Option<Tensor<4>>,
    relu: bool,
    epsilon: f64,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    if accel::supports(&x.device()) {
        return accel::batch_norm_relu(x, gamma, beta, residual, relu, epsilon);
    }
    let out = module::batch_norm_train(x, gamma, beta, epsilon);
    (join(out.output, residual, relu), out.mean, out.variance)
}

/// `act(x [+ residual])`.
pub(super) fn join(x: Tensor<4>, residual: Option<Tensor<4>>, rectify: bool) -> Tensor<4> {
    let x = match residual {
        Some(residual) => x + residual,
        None => x,
    };
    if rectify { relu(x) } else { x }
}
