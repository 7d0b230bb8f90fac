//! From a blueprint to what is computed at once: a convolution with the batch-norm, the sum and the
//! activation that follow it.

use artifact::PoolKind;
use core::ops::Range;
use network::activation::Activation;
use network::blueprint::{Blueprint, ConvSpec, Layer, LayerId, LayerOp, Pooling, WindowSpec};

/// What a network computes, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Steps up to each cut, and those behind the last one.
    pub(super) segments: Vec<Range<usize>>,
    /// Segments that end a stage.
    pub(super) stages: Vec<usize>,
    /// Steps that read each value.
    pub(super) uses: Vec<usize>,
    /// Convolutions with weights, by number.
    pub(super) convs: Vec<(String, ConvSpec)>,
    /// Batch-norms and their channels, by number.
    pub(super) norms: Vec<(String, usize)>,
    /// Dense layers before the head, their inputs and outputs, by number.
    pub(super) denses: Vec<(String, [usize; 2])>,
    /// Features and classes of the head.
    pub(super) head: [usize; 2],
}

/// One computation.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) op: StepOp,
    pub(super) x: LayerId,
    /// Added, or what a gate multiplies with.
    pub(super) other: Option<LayerId>,
    /// At the end.
    pub(super) activation: Activation,
    /// What the value is called where the device stores it.
    pub(super) name: String,
    /// The value that it makes.
    pub(super) y: LayerId,
}

#[derive(Debug)]
pub(super) enum StepOp {
    /// A convolution and the batch-norm that alone reads it, by their numbers.
    Conv { conv: usize, norm: Option<usize> },
    /// A batch-norm by itself.
    Norm(usize),
    /// A dense layer, by its number, of pooled values.
    Dense(usize),
    /// Largest or mean of each window.
    Pool(PoolKind, WindowSpec),
    /// Largest or mean of all pixels.
    GlobalPool(Pooling),
    /// Products with a pooled value.
    Gate,
    /// Nothing but the activation.
    Activation,
}

impl Plan {
    /// # Errors
    /// Layers that are not trained, by name.
    pub(super) fn new(net: &Blueprint) -> Result<Self, String> {
        let Some(LayerOp::Dense { inputs, outputs }) = net.layers.last().map(|layer| layer.op)
        else {
            return Err("a network that does not end in a dense layer".into());
        };
        let mut plan = Self { head: [inputs, outputs], ..Self::default() };
        let mut planner = Planner { net, is_made: vec![false; net.layers.len()] };
        planner.is_made[Blueprint::INPUT] = true;
        for id in 1..net.layers.len() - 1 {
            if !planner.is_made[id] {
                let step = planner.step(id, &mut plan)?;
                plan.steps.push(step);
            }
        }
        let steps = &plan.steps;
        plan.uses = vec![0; net.layers.len()];
        for x in steps.iter().flat_map(|step| step.other.into_iter().chain([step.x])) {
            plan.uses[x] += 1;
        }
        let segment = |step: &Step| net.cuts.partition_point(|&cut| cut < step.y);
        let segments = (0..=net.cuts.len()).map(|n| {
            steps.partition_point(|step| segment(step) < n)
                ..steps.partition_point(|step| segment(step) <= n)
        });
        plan.segments = segments.collect();
        plan.stages = (0..net.cuts.len()).filter(|&n| net.stages.contains(&net.cuts[n])).collect();
        Ok(plan)
    }

    fn add_conv(&mut self, layer: &Layer, conv: ConvSpec) -> usize {
        self.convs.push((layer.name.clone(), conv));
        self.convs.len() - 1
    }

    fn add_norm(&mut self, layer: &Layer) -> usize {
        self.norms.push((layer.name.clone(), layer.channels));
        self.norms.len() - 1
    }

    fn add_dense(&mut self, layer: &Layer, sizes: [usize; 2]) -> usize {
        self.denses.push((layer.name.clone(), sizes));
        self.denses.len() - 1
    }
}

/// Which layers have become part of a step.
struct Planner<'a> {
    net: &'a Blueprint,
    is_made: Vec<bool>,
}

impl Planner<'_> {
    /// The step that starts with a layer, and takes in what follows.
    fn step(&mut self, id: LayerId, plan: &mut Plan) -> Result<Step, String> {
        let layer = &self.net.layers[id];
        self.is_made[id] = true;
        let (mut y, mut other, mut name) = (id, None, layer.name.clone());
        let mut activation = Activation::None;
        let op = match layer.op {
            LayerOp::Conv(conv) if trains(conv) => {
                name.push_str(".weight");
                let norm = self.next(y).filter(|&n| self.net.layers[n].op == LayerOp::BatchNorm);
                y = norm.unwrap_or(y);
                let conv = plan.add_conv(layer, conv);
                StepOp::Conv { conv, norm: norm.map(|n| plan.add_norm(&self.net.layers[n])) }
            }
            LayerOp::BatchNorm => StepOp::Norm(plan.add_norm(layer)),
            LayerOp::Dense { inputs, outputs } => {
                StepOp::Dense(plan.add_dense(layer, [inputs, outputs]))
            }
            LayerOp::Pool { kind, window } => StepOp::Pool(kind, window),
            LayerOp::GlobalPool(pooling) => StepOp::GlobalPool(pooling),
            LayerOp::Gate => {
                other = Some(layer.inputs[1]);
                StepOp::Gate
            }
            LayerOp::Activation(own) => {
                activation = own;
                StepOp::Activation
            }
            _ => return Err(format!("layer `{}`, which is not trained by itself", layer.name)),
        };
        self.is_made[y] = true;
        if let (StepOp::Conv { .. }, Some(sum)) = (&op, self.next(y))
            && self.net.layers[sum].op == LayerOp::Add
        {
            let residual = self.net.layers[sum].inputs.iter().find(|&&x| x != y);
            if let Some(&residual) = residual.filter(|&&x| self.is_made[x]) {
                (y, other) = (sum, Some(residual));
                self.is_made[y] = true;
            }
        }
        let ends = !matches!(op, StepOp::Pool(..) | StepOp::GlobalPool(_) | StepOp::Activation);
        if let Some(next) = self.next(y).filter(|_| ends)
            && let LayerOp::Activation(own) = self.net.layers[next].op
        {
            (y, activation) = (next, own);
            self.is_made[y] = true;
        }
        Ok(Step { op, x: layer.inputs[0], other, activation, name, y })
    }

    /// The layer that alone reads a value, unless a step may be cut between them.
    fn next(&self, y: LayerId) -> Option<LayerId> {
        self.net.reader(y).filter(|_| !self.net.cuts.contains(&y))
    }
}

/// Whether there are kernels for a convolution: of all channels, or of each by itself.
fn trains(conv: ConvSpec) -> bool {
    conv.groups == 1 || [conv.c_in, conv.c_out] == [conv.groups; 2]
}
