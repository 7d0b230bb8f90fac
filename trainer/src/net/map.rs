//! What flows between layers: the fast maps of [`accel`] where they run, Burn's tensors elsewhere.

use super::rounding::{extremes, rounded};
use accel::{Normalization, Precision, Window};
use artifact::Curve;
use burn::tensor::activation::{gelu, relu, sigmoid, silu};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Gradients, Tensor, module};
use network::activation::Activation;
use network::blueprint::Pooling;

/// A feature map.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none is in a list")]
pub(super) enum Map {
    /// `[N, C, H, W]`.
    Stock(Tensor<4>),
    Fast(accel::Map),
}

impl Map {
    /// As `[N, C, H, W]`.
    pub(super) fn into_planar(self) -> Tensor<4> {
        match self {
            Self::Stock(x) => x,
            Self::Fast(x) => x.into_planar(),
        }
    }

    /// The same map with nothing left to apply.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Stock(x) => Self::Stock(x),
            Self::Fast(x) => Self::Fast(x.settled()),
        }
    }

    /// The map for two uses that both take part in what is differentiated.
    pub(super) fn fork(self) -> (Self, Self) {
        match self {
            Self::Stock(x) => (Self::Stock(x.clone()), Self::Stock(x)),
            Self::Fast(x) => {
                let (x, again) = x.fork();
                (Self::Fast(x), Self::Fast(again))
            }
        }
    }

    /// A leaf of the gradient graph with the same values.
    pub(super) fn require_grad(self) -> Self {
        match self {
            Self::Stock(x) => Self::Stock(x.detach().require_grad()),
            Self::Fast(x) => Self::Fast(x.require_grad()),
        }
    }

    /// The gradient of a leaf, zero where it has none.
    pub(super) fn gradient(&self, gradients: &mut Gradients) -> Self {
        match self {
            Self::Stock(x) => {
                let found = x.grad_remove(gradients);
                Self::Stock(Tensor::from_inner(
                    found.unwrap_or_else(|| x.clone().inner().zeros_like()),
                ))
            }
            Self::Fast(x) => Self::Fast(x.gradient(gradients)),
        }
    }

    /// A scalar whose gradient with respect to this map is `weights`; its value says nothing.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub(super) fn weighted_sum(self, weights: Self) -> Tensor<1> {
        match (self, weights) {
            (Self::Fast(x), Self::Fast(weights)) => x.weighted_sum(weights),
            (x, weights) => (x.into_planar() * weights.into_planar()).sum(),
        }
    }

    /// Height and width.
    pub(super) fn size(&self) -> [usize; 2] {
        match self {
            Self::Stock(x) => {
                let [_, _, height, width] = x.dims();
                [height, width]
            }
            Self::Fast(x) => x.size(),
        }
    }

    pub(super) fn is_autodiff(&self) -> bool {
        match self {
            Self::Stock(x) => x.device().is_autodiff(),
            Self::Fast(x) => x.is_autodiff(),
        }
    }

    /// Convolution without bias, `w: [O, I, k, k]`, or `[C, 1, k, k]` of each channel by itself;
    /// `moments`: those of the result will be needed. Pictures become maps of `precision`.
    pub(super) fn convolve(
        self,
        w: Tensor<4>,
        window: &Window,
        moments: bool,
        precision: Precision,
    ) -> Self {
        match self {
            Self::Fast(x) => Self::Fast(x.convolve(w, window, moments)),
            Self::Stock(x) if accel::supports(&x.device()) => {
                Self::Fast(if x.dims()[1] == w.dims()[1] {
                    accel::Map::convolve_pictures(x, w, window, moments, precision)
                } else {
                    accel::Map::from_planar(x, precision).convolve(w, window, moments)
                })
            }
            Self::Stock(x) => {
                let options = ConvOptions {
                    stride: [window.stride; 2],
                    padding: window.padding,
                    dilation: [1; 2],
                    groups: x.dims()[1] / w.dims()[1],
                };
                Self::Stock(module::conv2d(x, w, None, options))
            }
        }
    }

    /// `act(γ·(x − mean)/√(variance + ε) + β [+ residual])` with the batch's own mean and biased
    /// variance over N, H and W; also returns those, without gradients.
    pub(super) fn normalize_batch(
        self,
        [gamma, beta]: [Tensor<1>; 2],
        epsilon: f64,
        residual: Option<Self>,
        activation: Activation,
    ) -> (Self, Tensor<1>, Tensor<1>) {
        match self {
            Self::Stock(x) => {
                let out = module::batch_norm_train(x, gamma, beta, epsilon);
                let y = join(out.output, residual, activation);
                (Self::Stock(y), out.mean, out.variance)
            }
            Self::Fast(mut x) => {
                let (mean, variance) = x.moments();
                let norm = Normalization {
                    mean: mean.clone(),
                    variance: variance.clone(),
                    gamma,
                    beta,
                    activation: fast(activation),
                    epsilon,
                    fixed: false,
                };
                (Self::Fast(plus(x.normalized(norm), residual)), mean, variance)
            }
        }
    }

    /// The same with statistics that are constants.
    pub(super) fn normalize_fixed(
        self,
        [gamma, beta]: [Tensor<1>; 2],
        [mean, variance]: [Tensor<1>; 2],
        epsilon: f64,
        residual: Option<Self>,
        activation: Activation,
    ) -> Self {
        match self {
            Self::Stock(x) => {
                // One multiplication and one addition per value: y = a·x + (β − a·mean).
                let channels = gamma.dims()[0];
                let a = gamma / (variance + epsilon).sqrt();
                let b = beta - a.clone() * mean;
                let shape = [1, channels, 1, 1];
                Self::Stock(join(x * a.reshape(shape) + b.reshape(shape), residual, activation))
            }
            Self::Fast(x) => {
                let norm = Normalization {
                    mean,
                    variance,
                    gamma,
                    beta,
                    activation: fast(activation),
                    epsilon,
                    fixed: true,
                };
                Self::Fast(plus(x.normalized(norm), residual))
            }
        }
    }

    /// A function of each number.
    pub(super) fn activated(self, activation: Activation) -> Self {
        match self {
            x if activation.is_none() => x,
            Self::Stock(x) => Self::Stock(activate(x, activation)),
            Self::Fast(x) => Self::Fast(x.activated(fast(activation))),
        }
    }

    /// Products with a factor for each channel of each picture, a map of one pixel.
    pub(super) fn gated(self, factors: Self) -> Self {
        let factors = factors.into_planar();
        match self {
            Self::Stock(x) => Self::Stock(x * factors),
            Self::Fast(x) => {
                let [n, channels, ..] = factors.dims();
                Self::Fast(x.gated(factors.reshape([n, channels])))
            }
        }
    }

    /// One pixel of all.
    pub(super) fn pooled(self, pooling: Pooling) -> Self {
        let pooled = match pooling {
            Pooling::Avg => self.mean(),
            Pooling::Max => self.max(),
        };
        Self::pixel(pooled)
    }

    /// Numbers `[N, C]` as maps of one pixel.
    pub(super) fn pixel(numbers: Tensor<2>) -> Self {
        let [n, channels] = numbers.dims();
        Self::Stock(numbers.reshape([n, channels, 1, 1]))
    }

    /// The numbers `[N, C·H·W]`.
    pub(super) fn numbers(self) -> Tensor<2> {
        let x = self.into_planar();
        let [n, channels, height, width] = x.dims();
        x.reshape([n, channels * height * width])
    }

    /// `x + residual`.
    pub(super) fn plus(self, residual: Self) -> Self {
        match self {
            Self::Stock(x) => Self::Stock(x + residual.into_planar()),
            Self::Fast(x) => Self::Fast(plus(x, Some(residual))),
        }
    }

    /// The map in the 256 steps of the range that `range` makes of its extremes, if it does.
    pub(super) fn rounded(
        self,
        range: impl FnOnce(&dyn Fn() -> [f32; 2]) -> Option<[f32; 2]>,
    ) -> Self {
        match self {
            Self::Stock(x) => {
                let range = range(&|| extremes(&x));
                Self::Stock(range.map_or(x.clone(), |range| rounded(x, range)))
            }
            Self::Fast(x) => Self::Fast(x.change(|x| {
                let range = range(&|| extremes(&x));
                range.map_or(x.clone(), |range| rounded(x, range))
            })),
        }
    }

    /// Largest value of each window.
    pub(super) fn max_pool(self, window: &Window) -> Self {
        let stock = |x| {
            // Burn pads with −∞.
            let mut options = MaxPoolOptions::new([window.filter; 2]);
            options.stride = [window.stride; 2];
            options.padding = window.padding;
            module::max_pool2d(x, options)
        };
        match self {
            Self::Stock(x) => Self::Stock(stock(x)),
            Self::Fast(x) => Self::Fast(match x.clone().max_pool(window) {
                Some(y) => y,
                None => planar(x, stock),
            }),
        }
    }

    /// Mean of the pixels of each window that there are.
    pub(super) fn average_pool(self, window: &Window) -> Self {
        let stock = |x| {
            let mut options = AvgPoolOptions::new([window.filter; 2]);
            options.stride = [window.stride; 2];
            options.padding = window.padding;
            options.count_include_pad = false;
            module::avg_pool2d(x, options)
        };
        match self {
            Self::Stock(x) => Self::Stock(stock(x)),
            Self::Fast(x) => Self::Fast(planar(x, stock)),
        }
    }

    /// Mean over the pixels, `[N, C]`.
    fn mean(self) -> Tensor<2> {
        match self {
            Self::Stock(x) => {
                let [n, channels, height, width] = x.dims();
                x.reshape([n, channels, height * width]).mean_dim(2).reshape([n, channels])
            }
            Self::Fast(x) => x.mean(),
        }
    }

    /// Largest of the pixels, `[N, C]`.
    fn max(self) -> Tensor<2> {
        let x = self.into_planar();
        let [n, channels, height, width] = x.dims();
        x.reshape([n, channels, height * width]).max_dim(2).reshape([n, channels])
    }
}

/// An operation of Burn's on a fast map.
fn planar(x: accel::Map, operation: impl Fn(Tensor<4>) -> Tensor<4>) -> accel::Map {
    let precision = x.precision();
    accel::Map::from_planar(operation(x.into_planar()), precision)
}

fn plus(x: accel::Map, residual: Option<Map>) -> accel::Map {
    match residual {
        None => x,
        Some(Map::Fast(residual)) => x.plus(residual),
        Some(Map::Stock(residual)) => {
            let precision = x.precision();
            x.plus(accel::Map::from_planar(residual, precision))
        }
    }
}

/// `act(x [+ residual])`.
fn join(x: Tensor<4>, residual: Option<Map>, activation: Activation) -> Tensor<4> {
    let x = match residual {
        Some(residual) => x + residual.into_planar(),
        None => x,
    };
    activate(x, activation)
}

/// An activation as fast maps have it.
fn fast(activation: Activation) -> accel::Activation {
    match activation {
        Activation::None => accel::Activation::NONE,
        Activation::Clamp { low, high } => accel::Activation::Clamp([low, high]),
        Activation::Curve(curve) => accel::Activation::Curve(curve),
    }
}

/// A function of each number, of Burn's operations.
fn activate(x: Tensor<4>, activation: Activation) -> Tensor<4> {
    let step = |x: Tensor<4>| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    match activation {
        Activation::None => x,
        Activation::RELU => relu(x),
        Activation::Clamp { low, high } => x.clamp(low, high),
        Activation::Curve(Curve::HardSwish) => x.clone() * step(x),
        Activation::Curve(Curve::HardSigmoid) => step(x),
        Activation::Curve(Curve::Sigmoid) => sigmoid(x),
        Activation::Curve(Curve::Silu) => silu(x),
        Activation::Curve(Curve::Gelu) => gelu(x),
    }
}
