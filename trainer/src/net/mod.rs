//! Networks as Burn modules: the layers of a [`Blueprint`], computed in
//! the steps of a `plan`, on Burn's tensors and on fast maps alike.

mod checkpointing;
mod grey;
mod layers;
mod map;
mod plan;
mod rounding;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;

pub use checkpointing::ForwardPass;
pub use grey::make_grey;
pub use layers::{BatchNorm, Conv, Dense, Init, InitRule, Role, Tensors, Visitor};
pub(crate) use layers::{replace, set_statistic};
use map::Map;
use plan::{Plan, Step, StepOp};
use rounding::{Rounding, rounded_weights};
pub(crate) use statistics::Watch;
pub use weights::{LoadError, load_tensors, save_tensors};

use accel::{Precision, Window};
use artifact::PoolKind;
use burn::module::{Module, Param, RunningState};
use burn::tensor::{Device, Tensor};
use network::architecture::Architecture;
use network::blueprint::{Blueprint, HEAD};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a network computes.
#[derive(Debug, Clone, Copy)]
struct Mode<'a> {
    /// Of fast maps.
    precision: Precision,
    /// Batch statistics are blended into the running ones.
    blends: bool,
    /// Weights and maps are rounded as int8 does.
    rounding: Option<&'a Rounding>,
    /// Keeps what batch-norms read.
    watch: Option<&'a Watch>,
}

impl Mode<'_> {
    /// The map that layer `name` writes, as the device stores it.
    fn stored(self, x: Map, name: &str) -> Map {
        let Some(rounding) = self.rounding else { return x };
        let learns = self.blends && x.is_autodiff();
        x.rounded(|extremes| rounding.range(name, learns.then(extremes)))
    }
}

/// A classifier.
#[derive(Module, Debug)]
pub struct Network {
    convs: Vec<Conv>,
    norms: Vec<BatchNorm>,
    denses: Vec<Dense>,
    head: Dense,
    /// Fast maps are of bf16.
    bf16: bool,
    /// Nothing before the head learns.
    frozen: bool,
    #[module(skip)]
    plan: Arc<Plan>,
    /// Weights and maps are rounded as int8 does, in training and in use.
    #[module(skip)]
    rounding: Option<Arc<Rounding>>,
}

impl Network {
    /// A network with fresh weights.
    ///
    /// # Errors
    /// What [`Architecture::check`] refuses, and layers that cannot be trained.
    pub fn new(config: &Architecture, init: Init, device: &Device) -> Result<Self, String> {
        config.check()?;
        Self::of(&config.blueprint(), init, device)
    }

    /// # Errors
    /// Layers that cannot be trained.
    fn of(blueprint: &Blueprint, init: Init, device: &Device) -> Result<Self, String> {
        let plan = Plan::new(blueprint)?;
        let convs = plan.convs.iter();
        let norms = plan.norms.iter();
        let dense = |name: &str, sizes| Dense::new(name, sizes, init.seed, device);
        Ok(Self {
            convs: convs.map(|(name, spec)| Conv::new(name, spec, init, device)).collect(),
            norms: norms.map(|(name, c)| BatchNorm::new(name, *c, device)).collect(),
            denses: plan.denses.iter().map(|(name, sizes)| dense(name, *sizes)).collect(),
            head: dense(HEAD, plan.head),
            bf16: false,
            frozen: false,
            plan: Arc::new(plan),
            rounding: None,
        })
    }

    /// Pictures `[N, 3, H, W]`, preprocessed, to logits `[N, classes]`.
    ///
    /// On an autodiff device batch-norms use and update batch statistics; elsewhere they use
    /// the running ones. `module.valid()` makes the evaluating copy.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(x))
    }

    /// Pooled features `[N, features]` to logits `[N, classes]`.
    pub fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        let logits = self.head.forward(features, self.rounding.is_some());
        self.mode().stored(Map::pixel(logits), HEAD).numbers()
    }

    /// Adds what each batch-norm reads of pictures `[N, 3, H, W]` to `watch`.
    pub(crate) fn watch(&self, x: Tensor<4>, watch: &Watch) {
        self.features_in(x, Mode { watch: Some(watch), ..self.mode() });
    }

    /// Pictures `[N, 3, H, W]` to pooled features `[N, features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        self.features_in(x, self.mode())
    }

    fn features_in(&self, x: Tensor<4>, mode: Mode<'_>) -> Tensor<2> {
        let last = self.plan.segments.len() - 1;
        let x = (0..last).fold(Map::Stock(x), |x, n| self.segment(n, x, mode));
        self.pool(x, mode)
    }

    /// The map behind each stage, KerasHub's pyramid P2, P3, …: of ResNets of version 2 before the
    /// last batch-norm.
    pub fn pyramid(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mode = self.mode();
        let mut maps = Vec::new();
        let mut x = Map::Stock(x);
        for n in 0..self.plan.segments.len() - 1 {
            x = self.segment(n, x, mode);
            if self.plan.stages.contains(&n) {
                maps.push(x.clone().into_planar());
            }
        }
        maps
    }

    fn mode(&self) -> Mode<'_> {
        let rounding = self.rounding.as_deref();
        Mode { precision: self.precision(), blends: true, rounding, watch: None }
    }

    /// From the map behind the last cut to features.
    fn pool(&self, x: Map, mode: Mode<'_>) -> Tensor<2> {
        self.steps(self.plan.segments.len() - 1, x, mode).numbers()
    }

    /// From the map of one cut to that of the next, which is kept as it is: several may read it.
    fn segment(&self, n: usize, x: Map, mode: Mode<'_>) -> Map {
        self.steps(n, x, mode).settled()
    }

    /// The value of the last step of segment `n`, whose input is `x`; without steps, `x`.
    fn steps(&self, n: usize, x: Map, mode: Mode<'_>) -> Map {
        let steps = &self.plan.steps[self.plan.segments[n].clone()];
        let Some((last, others)) = steps.split_last() else { return x };
        // Values that are still to be read, and how often.
        let input = others.first().unwrap_or(last).x;
        let mut values = BTreeMap::from([(input, (self.plan.uses[input], x))]);
        for step in others {
            let y = self.step(step, &mut values, mode);
            values.insert(step.y, (self.plan.uses[step.y], y));
        }
        self.step(last, &mut values, mode)
    }

    fn step(&self, step: &Step, values: &mut BTreeMap<usize, (usize, Map)>, mode: Mode<'_>) -> Map {
        let x = take(values, step.x);
        let activation = step.activation;
        let y = match step.op {
            StepOp::Conv { conv, norm } => {
                let (conv, bn) = (&self.convs[conv], norm.map(|norm| &self.norms[norm]));
                let moments = bn.is_some_and(|bn| bn.uses_batch(&x));
                let y = conv.forward(x, moments, mode);
                let y = match (bn, mode.watch) {
                    (Some(bn), Some(watch)) => watch.see(&bn.name, y),
                    _ => y,
                };
                let residual = step.other.map(|id| take(values, id));
                match (bn, residual) {
                    (Some(bn), residual) => bn.forward(y, residual, activation, mode),
                    (None, Some(residual)) => y.plus(residual).activated(activation),
                    (None, None) => y.activated(activation),
                }
            }
            StepOp::Norm(norm) => self.norms[norm].forward(x, None, activation, mode),
            StepOp::Dense(dense) => {
                let y = self.denses[dense].forward(x.numbers(), mode.rounding.is_some());
                Map::pixel(y).activated(activation)
            }
            StepOp::Pool(kind, spec) => {
                let sides = |size| spec.padding.sides(size, spec.filter, spec.stride);
                let padding = x.size().map(sides);
                let window = Window { filter: spec.filter, stride: spec.stride, padding };
                return match kind {
                    // What is outside of the map is never the largest.
                    PoolKind::Max => x.max_pool(&window),
                    PoolKind::Average => x.average_pool(&window),
                };
            }
            StepOp::GlobalPool(pooling) => x.pooled(pooling),
            StepOp::Gate => match step.other.map(|id| take(values, id)) {
                Some(factors) => x.gated(factors).activated(activation),
                None => x,
            },
            StepOp::Activation => x.activated(activation),
        };
        mode.stored(y, &step.name)
    }

    /// Number type of feature maps on devices that have [fast maps](accel); weights are
    /// always f32.
    pub fn precision(&self) -> Precision {
        if self.bf16 { Precision::Bf16 } else { Precision::F32 }
    }

    /// Chooses [`Self::precision`].
    pub fn set_precision(&mut self, precision: Precision) {
        self.bf16 = precision == Precision::Bf16;
    }

    /// Lets the network compute as int8 will: weights and maps are rounded to its steps. Ranges of
    /// maps are learned from the batches that it trains on, beginning with those given.
    pub fn set_rounding(&mut self, ranges: Option<BTreeMap<String, [f32; 2]>>) {
        self.rounding = ranges.map(|ranges| Arc::new(Rounding::new(ranges)));
    }

    /// Ranges of maps that were learned; none of a network that does not round.
    pub fn ranges(&self) -> BTreeMap<String, [f32; 2]> {
        self.rounding.as_ref().map_or_else(BTreeMap::new, |rounding| rounding.ranges())
    }

    /// Stops everything but the head from learning, batch-norms keeping their statistics; or
    /// lets it learn again.
    pub fn set_backbone_frozen(&mut self, frozen: bool) {
        struct Freeze(bool);
        impl Visitor for Freeze {
            fn parameter<const D: usize>(
                &mut self,
                name: &str,
                _: Role,
                value: &mut Param<Tensor<D>>,
            ) {
                if !is_head(name) {
                    *value = value.clone().set_require_grad(!self.0);
                }
            }
            fn statistic(&mut self, _: &str, _: &RunningState<Tensor<1>>) {}
        }
        self.frozen = frozen;
        self.visit_tensors(&mut Freeze(frozen));
        self.norms.iter_mut().for_each(|bn| bn.set_frozen(frozen));
    }
}

/// A value for one of the steps that read it.
fn take(values: &mut BTreeMap<usize, (usize, Map)>, id: usize) -> Map {
    // A plan reads nothing that is not made before, nor more often than it counts.
    let (uses, map) = values.remove(&id).expect("a value that was made");
    if uses <= 1 {
        return map;
    }
    let (map, again) = map.fork();
    values.insert(id, (uses - 1, again));
    map
}

impl Tensors for Network {
    fn visit_tensors<V: Visitor>(&mut self, visitor: &mut V) {
        self.convs.iter_mut().for_each(|conv| conv.show(visitor));
        self.norms.iter_mut().for_each(|bn| bn.show(visitor));
        self.denses.iter_mut().for_each(|dense| dense.show(visitor));
        self.head.show(visitor);
    }
}

/// Whether a tensor belongs to the classification head.
pub(crate) fn is_head(name: &str) -> bool {
    name.strip_prefix(HEAD).is_some_and(|rest| rest.starts_with('.'))
}
