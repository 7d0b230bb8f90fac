//! Optimizers as Keras computes them: SGD and Adam with decoupled decay, clipping, gradient
//! accumulation and an average of the weights.
//!
//! Per step and tensor, with gradient `g` and rate `lr`:
//!
//! ```text
//! g ← mean of the accumulated gradients, clipped
//! w ← w − w·decay·lr
//! SGD:  v ← μ·v − lr·g         w ← w + v          (Nesterov: w ← w + μ·v − lr·g)
//! Adam: m ← m + (1 − β₁)(g − m)   s ← s + (1 − β₂)(g² − s)
//!       w ← w − lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√s + ε)
//! a ← d·a + (1 − d)·w          (the average; a = w after the first step)
//! ```
//!
//! The rate is inside SGD's velocity and the decay outside of it; both differ from PyTorch.

use crate::distributed;
use crate::net::{Role, Tensors, Visitor, is_head, replace, set_statistic};
use accel::{Adam, Sgd};
use burn::module::{Param, RunningState};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a gradient becomes a change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the velocity that survives a step, μ.
        momentum: f64,
        /// Look ahead along the velocity.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2014); with weight decay, AdamW (Loshchilov and Hutter 2017).
    Adam {
        /// Share of the mean gradient that survives a step.
        beta_1: f64,
        /// Share of the mean squared gradient that survives a step.
        beta_2: f64,
        /// Keeps the divisor from zero.
        epsilon: f64,
    },
}

impl Rule {
    /// Adam with Keras' constants.
    pub const ADAM: Self = Self::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 };
}

/// How gradients are kept small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Each tensor's gradient to this Euclidean norm: Keras' `clipnorm`.
    Norm(f64),
    /// All gradients together: `global_clipnorm`, PyTorch's `clip_grad_norm_`.
    GlobalNorm(f64),
    /// Each value to this magnitude: `clipvalue`.
    Value(f64),
}

/// Exponential moving average of the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Average {
    /// Share of the average that survives a step.
    pub decay: f64,
    /// Steps after which the average replaces the weights, Keras' `ema_overwrite_frequency`.
    pub overwrite: Option<u64>,
}

/// Constants of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerConfig {
    /// From gradient to change.
    pub rule: Rule,
    /// Decoupled weight decay of convolutions and the head.
    pub weight_decay: f64,
    /// Batch-norms and biases decay, too, as in Keras. Pulling them to zero regularizes
    /// nothing and costs accuracy.
    pub decay_all: bool,
    /// Factor on the rate of everything but the head.
    pub backbone_rate: f64,
    /// Clipping.
    pub clip: Option<Clip>,
    /// Averaging.
    pub average: Option<Average>,
    /// Gradients that make one step.
    pub accumulate: u32,
}

impl OptimizerConfig {
    /// `rule` alone.
    pub fn plain(rule: Rule) -> Self {
        Self {
            rule,
            weight_decay: 0.0,
            decay_all: false,
            backbone_rate: 1.0,
            clip: None,
            average: None,
            accumulate: 1,
        }
    }
}

/// What an optimizer remembers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// SGD's velocity, `v`; Adam's mean gradient, `m`.
    Momentum,
    /// Adam's mean squared gradient, `s`.
    Square,
    /// Average of the weight or statistic, `a`.
    Average,
}

/// Values of one slot as little-endian f32, flat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values(#[serde(with = "serde_bytes")] Vec<u8>);

impl Values {
    /// Whether these are the values of a tensor with `len` elements.
    pub(super) fn fits(&self, len: Option<usize>) -> bool {
        len.is_some_and(|len| self.0.len() == 4 * len)
    }
}

/// An optimizer's memory as it is saved: steps done, and slots by tensor name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Steps done.
    pub steps: u64,
    /// By slot and tensor.
    pub slots: BTreeMap<Slot, BTreeMap<String, Values>>,
}

/// The optimizer and what it remembers. All tensors are flat and without autodiff.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    steps: u64,
    slots: BTreeMap<(Slot, String), Tensor<1>>,
    pending: BTreeMap<String, Tensor<1>>,
    pending_count: u32,
}

impl Optimizer {
    /// Nothing to remember yet.
    pub fn new(config: OptimizerConfig) -> Self {
        Self {
            config,
            steps: 0,
            slots: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_count: 0,
        }
    }

    /// What to save. Gradients of an unfinished step are not part of it: call
    /// [`Self::finish`] first.
    pub fn memory(&self) -> Memory {
        let mut slots: BTreeMap<Slot, BTreeMap<String, Values>> = BTreeMap::new();
        for ((slot, name), tensor) in &self.slots {
            let bytes = tensor.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
            slots.entry(*slot).or_default().insert(name.clone(), Values(bytes));
        }
        Memory { steps: self.steps, slots }
    }

    /// Continues with what was saved.
    pub fn restore(&mut self, memory: Memory, device: &Device) {
        let device = device.clone().inner();
        self.steps = memory.steps;
        let slots = memory.slots.into_iter();
        let all = slots.flat_map(|(slot, tensors)| tensors.into_iter().map(move |t| (slot, t)));
        let entry = |(slot, (name, Values(bytes)))| {
            let values: Vec<f32> =
                bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let len = values.len();
            ((slot, name), Tensor::from_data(TensorData::new(values, [len]), &device))
        };
        self.slots = all.map(entry).collect();
    }

    /// Takes gradients, and where they complete a step, makes it at rate `rate`. Parameters
    /// without a gradient stay.
    pub fn step(&mut self, net: &mut impl Tensors, gradients: Gradients, rate: f64) {
        self.gather(net, gradients);
        self.pending_count += 1;
        if self.pending_count >= self.config.accumulate {
            self.finish(net, rate);
        }
    }

    /// Takes gradients of some parameters, of which others come with [`Self::step`].
    pub fn gather(&mut self, net: &mut impl Tensors, gradients: Gradients) {
        net.visit_tensors(&mut Accumulate { optimizer: self, gradients });
    }

    /// Makes a step of what gradients there are, fewer than usual at the end of an epoch.
    pub fn finish(&mut self, net: &mut impl Tensors, rate: f64) {
        if self.pending_count == 0 {
            return;
        }
        let mut gradients = core::mem::take(&mut self.pending);
        distributed::sum_gradients(&mut gradients);
        if self.pending_count > 1 {
            let count = f64::from(self.pending_count);
            gradients = gradients.into_iter().map(|(n, g)| (n, g.div_scalar(count))).collect();
        }
        self.pending_count = 0;
        if let Some(clip) = self.config.clip {
            clip.apply(&mut gradients);
        }
        self.steps += 1;
        net.visit_tensors(&mut Update { optimizer: self, gradients, rate });
    }

    /// Puts the average in place of the weights and statistics of `net`, a plain copy; `None`
    /// where none is kept.
    pub fn averaged<T: Tensors>(&self, mut net: T) -> Option<T> {
        self.config.average?;
        net.visit_tensors(&mut PutAverage(self));
        Some(net)
    }

    fn slot(&mut self, slot: Slot, name: &str) -> Option<Tensor<1>> {
        self.slots.remove(&(slot, name.to_owned()))
    }

    /// The slot, zero before the first step.
    fn slot_like(&mut self, slot: Slot, name: &str, like: &Tensor<1>) -> Tensor<1> {
        self.slot(slot, name).unwrap_or_else(|| like.zeros_like())
    }

    fn keep(&mut self, slot: Slot, name: &str, value: Tensor<1>) {
        self.slots.insert((slot, name.to_owned()), value);
    }

    /// The weight, of which the decay leaves the share `kept`, after a step along `gradient`.
    fn update(
        &mut self,
        name: &str,
        weight: Tensor<1>,
        gradient: Tensor<1>,
        rate: f64,
        kept: f64,
    ) -> Tensor<1> {
        let fast = accel::supports(&weight.device());
        match self.config.rule {
            Rule::Sgd { momentum, nesterov } => {
                let velocity = self.slot_like(Slot::Momentum, name, &weight);
                let step = Sgd { rate, momentum, nesterov, kept };
                let [weight, velocity] = match fast {
                    true => accel::sgd([weight, gradient, velocity], step),
                    false => stock_sgd([weight, gradient, velocity], step),
                };
                self.keep(Slot::Momentum, name, velocity);
                weight
            }
            Rule::Adam { beta_1, beta_2, epsilon } => {
                let mean = self.slot_like(Slot::Momentum, name, &weight);
                let square = self.slot_like(Slot::Square, name, &weight);
                let t = self.steps as f64;
                let rate = rate * (1.0 - beta_2.powf(t)).sqrt() / (1.0 - beta_1.powf(t));
                let step = Adam { rate, betas: [beta_1, beta_2], epsilon, kept };
                let [weight, mean, square] = match fast {
                    true => accel::adam([weight, gradient, mean, square], step),
                    false => stock_adam([weight, gradient, mean, square], step),
                };
                self.keep(Slot::Momentum, name, mean);
                self.keep(Slot::Square, name, square);
                weight
            }
        }
    }

    /// Blends `value` into its average; returns what the value becomes.
    fn average(&mut self, name: &str, value: Tensor<1>) -> Tensor<1> {
        let Some(Average { decay, overwrite }) = self.config.average else { return value };
        let average = match self.slot(Slot::Average, name) {
            Some(old) if accel::supports(&old.device()) => {
                accel::blend(old, value.clone(), 1.0 - decay)
            }
            // In this form, what does not change is exactly its own average.
            Some(old) => old.clone() + (value.clone() - old).mul_scalar(1.0 - decay),
            None => value.clone(),
        };
        let value = match overwrite {
            Some(every) if self.steps.is_multiple_of(every) => average.clone(),
            _ => value,
        };
        self.keep(Slot::Average, name, average);
        value
    }
}

/// [`accel::sgd`] of Burn's own operations.
fn stock_sgd([weight, gradient, velocity]: [Tensor<1>; 3], step: Sgd) -> [Tensor<1>; 2] {
    let pull = gradient.mul_scalar(-step.rate);
    let velocity = velocity.mul_scalar(step.momentum) + pull.clone();
    let change = match step.nesterov {
        true => velocity.clone().mul_scalar(step.momentum) + pull,
        false => velocity.clone(),
    };
    [weight.mul_scalar(step.kept) + change, velocity]
}

/// [`accel::adam`] of Burn's own operations.
fn stock_adam([weight, gradient, mean, square]: [Tensor<1>; 4], step: Adam) -> [Tensor<1>; 3] {
    let blend = |old: Tensor<1>, value: Tensor<1>, beta: f64| {
        old.mul_scalar(beta) + value.mul_scalar(1.0 - beta)
    };
    let [beta_1, beta_2] = step.betas;
    let mean = blend(mean, gradient.clone(), beta_1);
    let square = blend(square, gradient.clone() * gradient, beta_2);
    let change =
        mean.clone().mul_scalar(step.rate) / square.clone().sqrt().add_scalar(step.epsilon);
    [weight.mul_scalar(step.kept) - change, mean, square]
}

impl Clip {
    fn apply(self, gradients: &mut BTreeMap<String, Tensor<1>>) {
        match self {
            Self::Value(most) => {
                for g in gradients.values_mut() {
                    *g = g.clone().clamp(-most, most);
                }
            }
            Self::Norm(most) => {
                for g in gradients.values_mut() {
                    *g = shortened(g, squared_norm(g).sqrt(), most);
                }
            }
            Self::GlobalNorm(most) => {
                let norm = gradients.values().map(squared_norm).sum::<f64>().sqrt();
                for g in gradients.values_mut() {
                    *g = shortened(g, norm, most);
                }
            }
        }
    }
}

fn squared_norm(gradient: &Tensor<1>) -> f64 {
    f64::from((gradient.clone() * gradient.clone()).sum().into_scalar::<f32>())
}

/// `gradient` scaled so that `norm` becomes at most `most`.
fn shortened(gradient: &Tensor<1>, norm: f64, most: f64) -> Tensor<1> {
    match norm > most {
        true => gradient.clone().mul_scalar(most / norm),
        false => gradient.clone(),
    }
}

struct Accumulate<'a> {
    optimizer: &'a mut Optimizer,
    gradients: Gradients,
}

impl Visitor for Accumulate<'_> {
    fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
        let Some(gradient) = value.val().grad_remove(&mut self.gradients) else { return };
        let gradient = gradient.reshape([-1]);
        let pending = &mut self.optimizer.pending;
        let sum = match pending.remove(name) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        pending.insert(name.into(), sum);
    }

    fn statistic(&mut self, _: &str, _: &RunningState<Tensor<1>>) {}
}

struct Update<'a> {
    optimizer: &'a mut Optimizer,
    gradients: BTreeMap<String, Tensor<1>>,
    rate: f64,
}

impl Visitor for Update<'_> {
    fn parameter<const D: usize>(&mut self, name: &str, role: Role, value: &mut Param<Tensor<D>>) {
        let config = self.optimizer.config;
        let weight = value.val();
        let shape = weight.dims();
        let plain = weight.inner().reshape([-1]);
        let Some(gradient) = self.gradients.remove(name) else {
            // A frozen tensor is its own average.
            self.optimizer.average(name, plain);
            return;
        };
        let rate = if is_head(name) { self.rate } else { self.rate * config.backbone_rate };
        let decays = role == Role::Weight || config.decay_all;
        let kept = if decays { 1.0 - config.weight_decay * rate } else { 1.0 };
        let weight = self.optimizer.update(name, plain, gradient, rate, kept);
        let weight = self.optimizer.average(name, weight);
        replace(value, weight.reshape(shape).autodiff());
    }

    fn statistic(&mut self, name: &str, value: &RunningState<Tensor<1>>) {
        // Only the average of statistics is kept; Keras' overwriting is of variables alone.
        if self.optimizer.config.average.is_some() {
            let plain = value.value().inner();
            self.optimizer.average(name, plain);
        }
    }
}

struct PutAverage<'a>(&'a Optimizer);

impl PutAverage<'_> {
    fn find(&self, name: &str) -> Option<Tensor<1>> {
        self.0.slots.get(&(Slot::Average, name.to_owned())).cloned()
    }
}

impl Visitor for PutAverage<'_> {
    fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
        if let Some(average) = self.find(name) {
            let shape = value.val().dims();
            replace(value, average.reshape(shape));
        }
    }

    fn statistic(&mut self, name: &str, value: &RunningState<Tensor<1>>) {
        if let Some(average) = self.find(name) {
            set_statistic(value, average);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_steps_are_the_stock_ones() {
        let device = Device::flex();
        for len in [1, 15, 16, 33, 20_000, 50_001] {
            let tensor = |seed: u64| {
                let values = (0..len as u64)
                    .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.3);
                Tensor::<1>::from_data(TensorData::new(values.collect(), [len]), &device)
            };
            let all = || [1, 2, 3].map(tensor);
            let mut pairs = Vec::new();
            for nesterov in [false, true] {
                let step = Sgd { rate: 0.1, momentum: 0.9, nesterov, kept: 0.99 };
                pairs.extend(accel::sgd(all(), step).into_iter().zip(stock_sgd(all(), step)));
            }
            let step = Adam { rate: 0.1, betas: [0.9, 0.999], epsilon: 1e-7, kept: 0.99 };
            let all = || [tensor(1), tensor(2), tensor(3), tensor(4).abs()];
            pairs.extend(accel::adam(all(), step).into_iter().zip(stock_adam(all(), step)));
            let [average, value] = [tensor(1), tensor(2)];
            let blended = average.clone() + (value.clone() - average.clone()).mul_scalar(0.1);
            pairs.push((accel::blend(average.clone(), value, 0.1), blended));
            // What somebody else holds is not overwritten.
            pairs.push((average, tensor(1)));
            for (found, expected) in pairs {
                let error = (found - expected.clone()).abs() / expected.abs().add_scalar(1.0);
                let error = error.max().into_scalar::<f32>();
                assert!(error < 1e-6, "{len} values: {error}");
            }
        }
    }
}
