//! Feature maps and what can be done to them.

use super::pool;
use crate::activation::Activation;
use crate::element::LANES;
use crate::extension::{Accelerated, Rule, Task};
use crate::geometry::Geometry;
use burn::backend::Dispatch;
use burn::tensor::{DType, Gradients, Tensor};
use core::fmt::{Display, Formatter};
use serde::Serialize;

/// Number type of feature maps and their gradients; weights, statistics and sums are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of precision.
    #[default]
    F32,
    /// 8 bits of precision and half the memory; fast where the processor multiplies them
    /// (AVX-512 BF16).
    Bf16,
}

impl Display for Precision {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// Pixels of padding before and after an axis.
pub type Sides = (usize, usize);

/// A window that slides over rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns of the window.
    pub filter: usize,
    /// Pixels from one to the next.
    pub stride: usize,
    /// Above and below, left and right.
    pub padding: [Sides; 2],
}

impl Window {
    /// Height and width of the result for an input of `size`.
    ///
    /// # Panics
    ///
    /// If the window has no stride or is larger than the padded input.
    fn out(&self, size: [usize; 2]) -> [usize; 2] {
        let Self { filter, stride, padding } = *self;
        assert!(stride > 0 && filter > 0, "window of {filter} with stride {stride}");
        [0, 1].map(|axis| {
            let padded = size[axis] + padding[axis].0 + padding[axis].1;
            assert!(padded >= filter, "a window of {filter} on {padded} padded pixels");
            (padded - filter) / stride + 1
        })
    }

    fn before(&self) -> [usize; 2] {
        self.padding.map(|(before, _)| before)
    }
}

/// `act(γ·(x − mean)/√(variance + ε) + β)`; all tensors `[C]`.
#[derive(Debug, Clone)]
pub struct Normalization {
    /// Means; without gradient.
    pub mean: Tensor<1>,
    /// Biased variances; without gradient.
    pub variance: Tensor<1>,
    /// Scales γ.
    pub gamma: Tensor<1>,
    /// Shifts β.
    pub beta: Tensor<1>,
    /// Of the normalized numbers.
    pub activation: Activation,
    /// ε.
    pub epsilon: f64,
    /// Mean and variance are constants; otherwise they are the map's own, and its gradient goes
    /// through them.
    pub fixed: bool,
}

impl Normalization {
    fn rule(&self) -> Rule {
        Rule { activation: self.activation, epsilon: self.epsilon, fixed: self.fixed }
    }
}

/// A feature map of `[N, C, H, W]`, kept as `[N, ⌈C/16⌉, H, W, 16]`, perhaps with a normalization
/// that whatever reads it applies.
#[derive(Debug, Clone)]
pub struct Map {
    values: Tensor<5>,
    channels: usize,
    moments: Option<(Tensor<1>, Tensor<1>)>,
    norm: Option<Normalization>,
}

impl Map {
    /// Convolution without bias of pictures `[N, I, H, W]` with `w: [O, I, k, k]`; with `moments`,
    /// [`Self::moments`] of the result are taken on the way.
    ///
    /// # Panics
    ///
    /// If the device is not one that [`supports`](crate::supports) accepts, or shapes do not fit.
    pub fn convolve_pictures(
        x: Tensor<4>,
        w: Tensor<4>,
        window: &Window,
        moments: bool,
        precision: Precision,
    ) -> Self {
        let [images, channels, height, width] = x.dims();
        let shape = geometry(images, channels, [height, width], &w, window, true);
        let task = Task { shape, moments, bf16: precision == Precision::Bf16 };
        let found =
            <Dispatch as Accelerated>::accel_conv(x.into_dispatch(), w.into_dispatch(), task);
        Self::with_moments(found, &task)
    }

    /// Convolution without bias with `w: [O, I, k, k]`, or with `[C, 1, k, k]` of each of several
    /// channels by itself.
    ///
    /// # Panics
    ///
    /// If shapes do not fit.
    pub fn convolve(self, w: Tensor<4>, window: &Window, moments: bool) -> Self {
        let [images, _, height, width, _] = self.values.dims();
        let shape = geometry(images, self.channels, [height, width], &w, window, false);
        let task = Task { shape, moments, bf16: self.is_bf16() };
        let (x, w) = (self.values.into_dispatch(), w.into_dispatch());
        let found = match self.norm {
            None => <Dispatch as Accelerated>::accel_conv(x, w, task),
            Some(n) => {
                let rule = n.rule();
                let [mean, variance, gamma, beta] =
                    [n.mean, n.variance, n.gamma, n.beta].map(Tensor::into_dispatch);
                <Dispatch as Accelerated>::accel_norm_conv(
                    x,
                    mean,
                    variance,
                    gamma,
                    beta,
                    w,
                    (rule, task),
                )
            }
        };
        Self::with_moments(found, &task)
    }

    fn with_moments(
        (values, mean, variance): crate::extension::WithMoments<Dispatch>,
        task: &Task,
    ) -> Self {
        Self {
            values: Tensor::from_dispatch(values),
            channels: task.shape.c_out,
            moments: task
                .moments
                .then(|| (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))),
            norm: None,
        }
    }

    /// Pictures `[N, C, H, W]` as a map.
    pub fn from_planar(x: Tensor<4>, precision: Precision) -> Self {
        let channels = x.dims()[1];
        let bf16 = precision == Precision::Bf16;
        let values = <Dispatch as Accelerated>::accel_to_blocks(x.into_dispatch(), bf16);
        Self { values: Tensor::from_dispatch(values), channels, moments: None, norm: None }
    }

    /// The map for two uses, whose gradients are added faster than those of clones. Both must take
    /// part in what is differentiated.
    pub fn fork(self) -> (Self, Self) {
        let Self { values, channels, moments, norm } = self;
        let (x, again) = <Dispatch as Accelerated>::accel_fork(values.into_dispatch());
        let map = |values| Self {
            values: Tensor::from_dispatch(values),
            channels,
            moments: moments.clone(),
            norm: norm.clone(),
        };
        (map(x), map(again))
    }

    /// A leaf of the gradient graph with the same values.
    pub fn require_grad(self) -> Self {
        let map = self.settled();
        Self { values: map.values.detach().require_grad(), moments: None, ..map }
    }

    /// The gradient of a leaf, zero where it has none.
    pub fn gradient(&self, gradients: &mut Gradients) -> Self {
        let found = self.values.grad_remove(gradients);
        let values = found.unwrap_or_else(|| self.values.clone().inner().zeros_like());
        let values = Tensor::from_inner(values);
        Self { values, channels: self.channels, moments: None, norm: None }
    }

    /// A scalar whose gradient with respect to this map is `weights`; its value says nothing.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn weighted_sum(self, weights: Self) -> Tensor<1> {
        let (x, weights) = (self.settled().values, weights.settled().values);
        assert_eq!(x.dims(), weights.dims(), "map and weights");
        let (x, weights) = (x.into_dispatch(), weights.into_dispatch());
        Tensor::from_dispatch(<Dispatch as Accelerated>::accel_root(x, weights))
    }

    /// As f32 `[N, C, H, W]`.
    pub fn into_planar(self) -> Tensor<4> {
        let map = self.settled();
        let x = map.values.into_dispatch();
        Tensor::from_dispatch(<Dispatch as Accelerated>::accel_from_blocks(x, map.channels))
    }

    /// Number type of the map.
    pub fn precision(&self) -> Precision {
        if self.is_bf16() { Precision::Bf16 } else { Precision::F32 }
    }

    fn is_bf16(&self) -> bool {
        self.values.dtype() == DType::BF16
    }

    /// Whether the device records gradients.
    pub fn is_autodiff(&self) -> bool {
        self.values.device().is_autodiff()
    }

    /// Channels `C`.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        let [_, _, height, width, _] = self.values.dims();
        [height, width]
    }

    /// Mean and biased variance `[C]` over N, H and W, without gradients; over all processes
    /// where there are [several](crate::processes).
    pub fn moments(&mut self) -> (Tensor<1>, Tensor<1>) {
        if self.norm.is_some() {
            *self = self.clone().settled();
        }
        let (values, channels) = (&self.values, self.channels);
        let found = self.moments.get_or_insert_with(|| {
            let x = values.clone().into_dispatch();
            let (mean, variance) = <Dispatch as Accelerated>::accel_moments(x, channels);
            (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
        });
        found.clone()
    }

    /// The normalized map; it is computed where it is read.
    ///
    /// # Panics
    ///
    /// If the normalization is not for as many channels.
    pub fn normalized(self, norm: Normalization) -> Self {
        assert_eq!(norm.gamma.dims(), [self.channels], "scales for {} channels", self.channels);
        assert_eq!(norm.beta.dims(), [self.channels], "shifts for {} channels", self.channels);
        let map = self.settled();
        Self { norm: Some(norm), moments: None, ..map }
    }

    /// The same map with nothing left to apply.
    pub fn settled(self) -> Self {
        let Some(n) = self.norm else { return self };
        let (rule, x) = (n.rule(), self.values.into_dispatch());
        let [mean, variance, gamma, beta] =
            [n.mean, n.variance, n.gamma, n.beta].map(Tensor::into_dispatch);
        let y = <Dispatch as Accelerated>::accel_norm(x, mean, variance, gamma, beta, rule);
        Self { values: Tensor::from_dispatch(y), moments: None, norm: None, ..self }
    }

    /// `act(self + residual)`, where the activation is that of the pending normalization; it comes
    /// after the addition. Without a normalization, the sum.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn plus(self, residual: Self) -> Self {
        let residual = residual.settled().values;
        assert_eq!(residual.dims(), self.values.dims(), "residual and map");
        let activation = self.norm.as_ref().map_or(Activation::NONE, |n| n.activation);
        if let (Activation::Curve(_), Some(norm)) = (activation, self.norm.clone()) {
            // The slope of a curve is found from what it was applied to.
            let norm = Some(Normalization { activation: Activation::NONE, ..norm });
            let residual = Self { values: residual, norm: None, moments: None, ..self };
            return Self { norm, ..self }.plus(residual).activated(activation);
        }
        let values = match self.norm {
            None => self.values + residual,
            Some(n) => {
                let (rule, x) = (n.rule(), self.values.into_dispatch());
                let [mean, variance, gamma, beta, residual] = [
                    n.mean.into_dispatch(),
                    n.variance.into_dispatch(),
                    n.gamma.into_dispatch(),
                    n.beta.into_dispatch(),
                    residual.into_dispatch(),
                ];
                Tensor::from_dispatch(<Dispatch as Accelerated>::accel_norm_add(
                    x, mean, variance, gamma, beta, residual, rule,
                ))
            }
        };
        Self { values, moments: None, norm: None, ..self }
    }

    /// The activation of each number, computed where the map is read.
    #[must_use]
    pub fn activated(self, activation: Activation) -> Self {
        let device = self.values.device();
        let constant = |value: f32| Tensor::<1>::full([self.channels], value, &device);
        let (mean, beta, variance, gamma) =
            (constant(0.0), constant(0.0), constant(1.0), constant(1.0));
        let (epsilon, fixed) = (0.0, true);
        self.normalized(Normalization { mean, variance, gamma, beta, activation, epsilon, fixed })
    }

    /// Largest value in each window of a map with a pending normalization; `None` for other maps.
    ///
    /// # Panics
    ///
    /// If the window is larger than the padded map or than 255 pixels.
    pub fn max_pool(self, window: &Window) -> Option<Self> {
        let n = self.norm.clone()?;
        assert!(window.filter <= 15, "a window of {} pixels", window.filter);
        let out = window.out(self.size());
        let Window { filter, stride, .. } = *window;
        let window = pool::Window { filter, stride, pad: window.before(), out };
        let (rule, x) = (n.rule(), self.values.into_dispatch());
        let [mean, variance, gamma, beta] =
            [n.mean, n.variance, n.gamma, n.beta].map(Tensor::into_dispatch);
        let y =
            <Dispatch as Accelerated>::accel_norm_max(x, mean, variance, gamma, beta, rule, window);
        Some(Self { values: Tensor::from_dispatch(y), moments: None, norm: None, ..self })
    }

    /// The map after an operation of Burn's on its values, which must leave zeros as they are.
    pub fn change(self, operation: impl FnOnce(Tensor<5>) -> Tensor<5>) -> Self {
        let map = self.settled();
        Self { values: operation(map.values), moments: None, ..map }
    }

    /// Products with `factors`, one for each channel of each picture, `[N, C]`.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn gated(self, factors: Tensor<2>) -> Self {
        let [images, blocks, ..] = self.values.dims();
        assert_eq!(factors.dims(), [images, self.channels], "factors and map");
        let absent = Tensor::zeros([images, blocks * LANES - self.channels], &factors.device());
        let factors = Tensor::cat(vec![factors, absent], 1).reshape([images, blocks, 1, 1, LANES]);
        self.change(|x| {
            let dtype = x.dtype();
            x * factors.cast(dtype)
        })
    }

    /// Mean over the pixels, `[N, C]`.
    pub fn mean(self) -> Tensor<2> {
        let map = self.settled();
        let x = map.values.into_dispatch();
        Tensor::from_dispatch(<Dispatch as Accelerated>::accel_mean(x, map.channels))
    }
}

fn geometry(
    images: usize,
    channels: usize,
    size: [usize; 2],
    w: &Tensor<4>,
    window: &Window,
    planar: bool,
) -> Geometry {
    let [c_out, c_in, filter, across] = w.dims();
    let depthwise = !planar && channels > 1 && [c_out, c_in] == [channels, 1];
    assert!(depthwise || channels == c_in, "{channels} channels, filters of {c_in}");
    assert_eq!([filter, across], [window.filter; 2], "filter and window");
    Geometry {
        images,
        c_in: channels,
        c_out,
        size,
        out: window.out(size),
        filter,
        stride: window.stride,
        pad: window.before(),
        planar,
        depthwise,
    }
}

const _: () = assert!(LANES == 16, "the documentation of `Map` says so");
