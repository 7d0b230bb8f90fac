//! From a blueprint to what is computed at once: a convolution with the batch-norm, the sum and the
//! activation that follow it.

use artifact::PoolKind;
use core::ops::Range;
use network::activation::Activation;
use network::blueprint::{Blueprint, ConvSpec, LayerId, LayerOp, Pooling, WindowSpec};

/// What a network computes, in order.
#[derive(Debug)]
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
    pub(super) pooling: Pooling,
    /// Features and classes of the head.
    pub(super) head: [usize; 2],
}

/// One computation.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) op: StepOp,
    pub(super) x: LayerId,
    /// Added at the end.
    pub(super) residual: Option<LayerId>,
    /// Nothing below zero is left.
    pub(super) rectifies: bool,
    /// The value that it makes.
    pub(super) y: LayerId,
}

#[derive(Debug)]
pub(super) enum StepOp {
    /// A convolution and the batch-norm that alone reads it, by their numbers.
    Conv { conv: usize, norm: Option<usize> },
    /// A batch-norm by itself.
    Norm(usize),
    /// Largest or mean of each window.
    Pool(PoolKind, WindowSpec),
}

impl Plan {
    /// # Errors
    /// Layers that are not trained, by name.
    pub(super) fn new(net: &Blueprint) -> Result<Self, String> {
        let [.., pooler, head] = &net.layers[..] else { return Err("without layers".into()) };
        let (LayerOp::GlobalPool(pooling), LayerOp::Dense { inputs, outputs }) =
            (pooler.op, head.op)
        else {
            return Err("a network that does not end in pooling and a dense layer".into());
        };
        let mut planner = Planner { net, is_made: vec![false; net.layers.len()] };
        planner.is_made[Blueprint::INPUT] = true;
        let (mut steps, mut convs, mut norms) = (Vec::new(), Vec::new(), Vec::new());
        for id in 1..net.layers.len() - 2 {
            if !planner.is_made[id] {
                steps.push(planner.step(id, &mut convs, &mut norms)?);
            }
        }
        let mut uses = vec![0; net.layers.len()];
        steps.iter().flat_map(|s: &Step| s.residual.into_iter().chain([s.x])).for_each(|x| {
            uses[x] += 1;
        });
        let segment = |step: &Step| net.cuts.partition_point(|&cut| cut < step.y);
        let segments = (0..=net.cuts.len()).map(|n| {
            steps.partition_point(|step| segment(step) < n)
                ..steps.partition_point(|step| segment(step) <= n)
        });
        Ok(Self {
            segments: segments.collect(),
            stages: (0..net.cuts.len()).filter(|&n| net.stages.contains(&net.cuts[n])).collect(),
            steps,
            uses,
            convs,
            norms,
            pooling,
            head: [inputs, outputs],
        })
    }
}

/// Which layers have become part of a step.
struct Planner<'a> {
    net: &'a Blueprint,
    is_made: Vec<bool>,
}

impl Planner<'_> {
    /// The step that starts with a layer, and takes in what follows.
    fn step(
        &mut self,
        id: LayerId,
        convs: &mut Vec<(String, ConvSpec)>,
        norms: &mut Vec<(String, usize)>,
    ) -> Result<Step, String> {
        let layer = &self.net.layers[id];
        self.is_made[id] = true;
        let mut add_norm = |id: LayerId| {
            let layer = &self.net.layers[id];
            norms.push((layer.name.clone(), layer.channels));
            norms.len() - 1
        };
        let (mut y, mut residual) = (id, None);
        let op = match layer.op {
            LayerOp::Conv(conv) if conv.groups == 1 => {
                convs.push((layer.name.clone(), conv));
                let norm = self.next(y).filter(|&n| self.net.layers[n].op == LayerOp::BatchNorm);
                y = norm.unwrap_or(y);
                StepOp::Conv { conv: convs.len() - 1, norm: norm.map(&mut add_norm) }
            }
            LayerOp::BatchNorm => StepOp::Norm(add_norm(id)),
            LayerOp::Pool { kind, window } => StepOp::Pool(kind, window),
            _ => return Err(format!("layer `{}`, which is not trained by itself", layer.name)),
        };
        self.is_made[y] = true;
        if let (StepOp::Conv { .. }, Some(sum)) = (&op, self.next(y))
            && self.net.layers[sum].op == LayerOp::Add
        {
            let other = self.net.layers[sum].inputs.iter().find(|&&x| x != y);
            if let Some(&other) = other.filter(|&&x| self.is_made[x]) {
                (y, residual) = (sum, Some(other));
                self.is_made[y] = true;
            }
        }
        // The clamp is part of a normalization.
        let clamps = matches!(op, StepOp::Conv { norm: Some(_), .. } | StepOp::Norm(_));
        let mut rectifies = false;
        if let Some(next) = self.next(y).filter(|_| clamps)
            && let LayerOp::Activation(activation) = self.net.layers[next].op
        {
            if activation != Activation::RELU {
                return Err(format!(
                    "layer `{}`, but only ReLU is trained",
                    self.net.layers[next].name
                ));
            }
            (y, rectifies) = (next, true);
            self.is_made[y] = true;
        }
        Ok(Step { op, x: layer.inputs[0], residual, rectifies, y })
    }

    /// The layer that alone reads a value, unless a step may be cut between them.
    fn next(&self, y: LayerId) -> Option<LayerId> {
        self.net.reader(y).filter(|_| !self.net.cuts.contains(&y))
    }
}
