//! Stochastic gradient descent with momentum, as Keras computes it.
//!
//! Per step and tensor: `w ← w − w·decay·lr`, then `v ← μ·v − lr·g` and `w ← w + v`. The
//! rate is inside the velocity and the decay outside it; both differ from PyTorch.

use crate::resnet::{ResNet, Role, Visitor, is_head, replace};
use burn::module::{Param, RunningState};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Constants of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Share of the velocity that survives a step, μ.
    pub momentum: f64,
    /// Decoupled weight decay of convolutions and the head.
    pub weight_decay: f64,
    /// Batch-norms and biases decay, too, as in Keras. Pulling them to zero regularizes
    /// nothing and costs accuracy.
    pub decay_all: bool,
    /// Factor on the rate of everything but the head.
    pub backbone_rate: f64,
}

/// A velocity as little-endian f32 values, flat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Velocity(#[serde(with = "serde_bytes")] Vec<u8>);

impl Velocity {
    /// Whether this is the velocity of a tensor with `len` elements.
    pub(super) fn fits(&self, len: Option<usize>) -> bool {
        len.is_some_and(|len| self.0.len() == 4 * len)
    }
}

/// The optimizer and its velocities by tensor name.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    velocities: BTreeMap<String, Tensor<1>>,
}

impl Sgd {
    /// All velocities zero.
    pub fn new(config: SgdConfig) -> Self {
        Self { config, velocities: BTreeMap::new() }
    }

    /// The velocities, to be saved.
    pub fn state(&self) -> BTreeMap<String, Velocity> {
        let entry = |(name, v): (&String, &Tensor<1>)| {
            let bytes = v.to_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
            (name.clone(), Velocity(bytes))
        };
        self.velocities.iter().map(entry).collect()
    }

    /// Continues with saved velocities.
    pub fn restore(&mut self, state: BTreeMap<String, Velocity>, device: &Device) {
        let device = device.clone().inner();
        let entry = |(name, v): (String, Velocity)| {
            let values: Vec<f32> =
                v.0.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let len = values.len();
            (name, Tensor::from_data(TensorData::new(values, [len]), &device))
        };
        self.velocities = state.into_iter().map(entry).collect();
    }

    /// One step at rate `rate`; parameters without a gradient stay.
    pub fn step(&mut self, net: &mut ResNet, gradients: Gradients, rate: f64) {
        net.visit_tensors(&mut Step { sgd: self, gradients, rate });
    }
}

struct Step<'a> {
    sgd: &'a mut Sgd,
    gradients: Gradients,
    rate: f64,
}

impl Visitor for Step<'_> {
    fn parameter<const D: usize>(&mut self, name: &str, role: Role, value: &mut Param<Tensor<D>>) {
        let config = self.sgd.config;
        let weight = value.val();
        let Some(gradient) = weight.grad_remove(&mut self.gradients) else { return };
        let rate = if is_head(name) { self.rate } else { self.rate * config.backbone_rate };
        let mut weight = weight.inner();
        let shape = weight.dims();
        if (role == Role::Weight || config.decay_all) && config.weight_decay != 0.0 {
            weight = weight.mul_scalar(1.0 - config.weight_decay * rate);
        }
        let pull = gradient.mul_scalar(-rate).reshape([-1]);
        let velocity = match self.sgd.velocities.remove(name) {
            Some(old) => old.mul_scalar(config.momentum) + pull,
            None => pull,
        };
        self.sgd.velocities.insert(name.into(), velocity.clone());
        replace(value, (weight + velocity.reshape(shape)).autodiff());
    }

    fn statistic(&mut self, _: &str, _: &RunningState<Tensor<1>>) {}
}
