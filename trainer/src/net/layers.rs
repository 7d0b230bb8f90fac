//! Convolution, batch-norm and dense head, each with its canonical tensor name.

use super::map::Map;
use super::{Mode, rounded_weights};
use accel::Window;
use artifact::layout::{Dtype, FilterLayout};
use burn::module::{Module, ModuleMapper, Param, RunningState};
use burn::tensor::{Device, Tensor, TensorData};
use network::activation::Activation;
use network::blueprint::{BATCH_NORM_EPSILON, ConvSpec, WindowSpec};
use network::padding::ConvPadding;
use network::random::{Rng, fnv1a};

/// Share of the old running statistic that survives a step: `m ← 0.9·m + 0.1·batch`.
const MOMENTUM: f64 = 0.9;

/// What a parameter is, which decides weight decay and learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Convolution or dense weight: decays.
    Weight,
    /// Batch-norm γ or β, or a bias: does not decay.
    Scale,
}

/// Visits every tensor of a network under its checkpoint name, in a fixed order.
pub trait Visitor {
    /// A trainable tensor in Burn's layout.
    fn parameter<const D: usize>(&mut self, name: &str, role: Role, value: &mut Param<Tensor<D>>);
    /// A running statistic `[C]`.
    fn statistic(&mut self, name: &str, value: &RunningState<Tensor<1>>);
}

/// What has tensors with names.
pub trait Tensors {
    /// Shows every tensor to `visitor`, in the order of the layers.
    fn visit_tensors<V: Visitor>(&mut self, visitor: &mut V);
}

/// Replaces a parameter's value, keeping its identity and whether it trains.
pub(crate) fn replace<const D: usize>(param: &mut Param<Tensor<D>>, value: Tensor<D>) {
    let trains = param.is_require_grad();
    *param = param.clone().map(|_| value.set_require_grad(trains));
}

/// How fresh weights are drawn; the head's are always Glorot's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitRule {
    /// Normal over the fan-out, `σ = √(2 / (k²·O))`, which keeps the gradient's scale through
    /// ReLU layers (He et al. 2015).
    He,
    /// Uniform, `±√(6 / (k²·(I + O)))` (Glorot and Bengio 2010): Keras' default.
    Glorot,
}

/// Fresh weights: the same give the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// Of convolutions.
    pub rule: InitRule,
    /// Of every draw.
    pub seed: u64,
}

impl Init {
    /// He's rule.
    pub fn he(seed: u64) -> Self {
        Self { rule: InitRule::He, seed }
    }
}

/// A random tensor of `shape` with `draw` for each element, keyed by seed and name.
fn random<const D: usize>(
    name: &str,
    seed: u64,
    shape: [usize; D],
    device: &Device,
    draw: impl Fn(&mut Rng) -> f64,
) -> Param<Tensor<D>> {
    let mut rng = Rng::keyed(&[seed, fnv1a(name.as_bytes())]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw(&mut rng) as f32).collect();
    Param::from_data(TensorData::new(values, shape), device)
}

fn constant(value: f32, len: usize, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(vec![value; len], [len]), device)
}

/// Convolution without bias.
#[derive(Module, Debug)]
pub struct Conv {
    /// `[O, I / groups, k, k]`.
    pub weight: Param<Tensor<4>>,
    name: String,
    stride: usize,
    /// Padded as TensorFlow's "same".
    same: bool,
}

impl Conv {
    /// Fresh weights.
    pub fn new(layer: &str, spec: &ConvSpec, init: Init, device: &Device) -> Self {
        let name = format!("{layer}.weight");
        let WindowSpec { filter, stride, padding } = spec.window;
        let shape = [spec.c_out, spec.c_in / spec.groups, filter, filter];
        let area = (filter * filter) as f64 / spec.groups as f64;
        let weight = match init.rule {
            InitRule::He => {
                let sigma = (2.0 / (area * spec.c_out as f64)).sqrt();
                random(&name, init.seed, shape, device, |rng| sigma * rng.normal())
            }
            InitRule::Glorot => {
                let limit = (6.0 / (area * (spec.c_in + spec.c_out) as f64)).sqrt();
                random(&name, init.seed, shape, device, |rng| limit * (2.0 * rng.unit() - 1.0))
            }
        };
        Self { weight, name, stride, same: padding == ConvPadding::Same }
    }

    /// Maps of `I` channels to `O`; `moments`: those of the result will be needed.
    pub(super) fn forward(&self, x: Map, moments: bool, mode: Mode<'_>) -> Map {
        let weight = self.weight.val();
        let [c_out, c_in, filter, _] = weight.dims();
        let weight = match mode.rounding {
            None => weight,
            Some(_) => {
                // The device has OHWI, and takes the taps of a row for one where they are short.
                let taps = filter * filter;
                let order: Vec<usize> =
                    (0..taps * c_in).map(|i| i % c_in * taps + i / c_in).collect();
                let dtype = Dtype::I8;
                let layout = FilterLayout { kh: filter, kw: filter, c_in, c_out, nr: 16, dtype };
                rounded_weights(weight, &order, layout.taps().1)
            }
        };
        let padding = if self.same { ConvPadding::Same } else { ConvPadding::Symmetric };
        let sides = |size| padding.sides(size, filter, self.stride);
        let window = Window { filter, stride: self.stride, padding: x.size().map(sides) };
        x.convolve(weight, &window, moments, mode.precision)
    }

    pub(super) fn show<V: Visitor>(&mut self, visitor: &mut V) {
        visitor.parameter(&self.name, Role::Weight, &mut self.weight);
    }
}

/// Batch normalization: batch statistics while training, running ones otherwise.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale γ `[C]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift β `[C]`.
    pub beta: Param<Tensor<1>>,
    /// Running mean `[C]`.
    pub mean: RunningState<Tensor<1>>,
    /// Running biased variance `[C]`.
    pub variance: RunningState<Tensor<1>>,
    pub(super) name: String,
    frozen: bool,
}

impl BatchNorm {
    /// γ = 1, β = 0, mean 0, variance 1.
    pub fn new(name: &str, channels: usize, device: &Device) -> Self {
        let plain = device.clone().inner();
        Self {
            gamma: Param::from_tensor(constant(1.0, channels, device)),
            beta: Param::from_tensor(constant(0.0, channels, device)),
            mean: RunningState::new(constant(0.0, channels, &plain)),
            variance: RunningState::new(constant(1.0, channels, &plain)),
            name: name.into(),
            frozen: false,
        }
    }

    /// `act(bn(x) [+ residual])`. A frozen layer uses its running statistics even in
    /// training, as Keras does.
    pub(super) fn forward(
        &self,
        x: Map,
        residual: Option<Map>,
        activation: Activation,
        mode: Mode<'_>,
    ) -> Map {
        let parameters = [self.gamma.val(), self.beta.val()];
        if self.uses_batch(&x) {
            let (y, mean, variance) =
                x.normalize_batch(parameters, BATCH_NORM_EPSILON, residual, activation);
            if mode.blends {
                blend(&self.mean, mean);
                blend(&self.variance, variance);
            }
            return y;
        }
        let statistics = [self.mean.value(), self.variance.value()];
        x.normalize_fixed(parameters, statistics, BATCH_NORM_EPSILON, residual, activation)
    }

    /// Whether the map's own statistics are used.
    pub(super) fn uses_batch(&self, x: &Map) -> bool {
        x.is_autodiff() && !self.frozen
    }

    pub(super) fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    pub(super) fn show<V: Visitor>(&mut self, visitor: &mut V) {
        visitor.parameter(&format!("{}.gamma", self.name), Role::Scale, &mut self.gamma);
        visitor.parameter(&format!("{}.beta", self.name), Role::Scale, &mut self.beta);
        visitor.statistic(&format!("{}.mean", self.name), &self.mean);
        visitor.statistic(&format!("{}.variance", self.name), &self.variance);
    }
}

fn blend(running: &RunningState<Tensor<1>>, batch: Tensor<1>) {
    let old = running.value().inner();
    set_statistic(running, old.mul_scalar(MOMENTUM) + batch.inner().mul_scalar(1.0 - MOMENTUM));
}

/// Sets a running statistic, also in the network's clones. Burn's own `update` is of several threads
/// that train one network, whose numbers only its feature `std` knows.
pub(crate) fn set_statistic(running: &RunningState<Tensor<1>>, value: Tensor<1>) {
    struct Set(Tensor<1>);
    impl ModuleMapper for Set {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, old, mapper) = param.consume();
            Param::from_mapped_value(id, self.0.clone().reshape(old.dims()), mapper)
        }
    }
    running.clone().map(&mut Set(value));
}

/// `y = x·Wᵀ + b`: the classification head, and the layers of gates.
#[derive(Module, Debug)]
pub struct Dense {
    /// `[outputs, inputs]`.
    pub weight: Param<Tensor<2>>,
    /// `[outputs]`.
    pub bias: Param<Tensor<1>>,
    name: String,
}

impl Dense {
    /// Glorot-uniform weights, `±√(6 / (in + out))`, and zero biases, as Keras' Dense.
    pub fn new(name: &str, [inputs, outputs]: [usize; 2], seed: u64, device: &Device) -> Self {
        let limit = (6.0 / (inputs + outputs) as f64).sqrt();
        let draw = |rng: &mut Rng| limit * (2.0 * rng.unit() - 1.0);
        let weight = format!("{name}.weight");
        Self {
            weight: random(&weight, seed, [outputs, inputs], device, draw),
            bias: Param::from_tensor(constant(0.0, outputs, device)),
            name: name.into(),
        }
    }

    /// `x: [N, inputs]` to `[N, outputs]`; with weights of int8's steps where `rounds`.
    pub fn forward(&self, x: Tensor<2>, rounds: bool) -> Tensor<2> {
        let weight = self.weight.val();
        let weight = if rounds {
            let features = weight.dims()[1];
            rounded_weights(weight, &(0..features).collect::<Vec<_>>(), features)
        } else {
            weight
        };
        x.matmul(weight.transpose()) + self.bias.val().unsqueeze::<2>()
    }

    pub(super) fn show<V: Visitor>(&mut self, visitor: &mut V) {
        visitor.parameter(&format!("{}.weight", self.name), Role::Weight, &mut self.weight);
        visitor.parameter(&format!("{}.bias", self.name), Role::Scale, &mut self.bias);
    }
}
