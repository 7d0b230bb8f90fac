//! Gradient checkpointing (Chen et al. 2016): of the maps of a step, only those at cuts
//! stay in memory; the backward pass computes those between them once more. It takes about a
//! third more time and gives the same bits.

use super::map::Map;
use super::{Mode, Network};
use burn::module::Module;
use burn::tensor::{Gradients, Tensor};

/// A forward pass up to the features.
#[derive(Debug)]
pub struct ForwardPass {
    features: Tensor<2>,
    /// What is computed again; `None` where the graph goes on beyond the features.
    checkpoints: Option<Checkpoints>,
}

/// What the backward pass goes on from.
#[derive(Debug)]
struct Checkpoints {
    pictures: Tensor<4>,
    /// The map at each cut but the last.
    maps: Vec<Map>,
    /// The input of the pooling.
    last: Map,
}

impl Network {
    /// The forward pass of [`features`](Self::features), for pictures `[N, 3, H, W]` on an
    /// autodiff device, with or without checkpointing.
    pub fn forward_pass(&self, pictures: Tensor<4>, checkpointing: bool) -> ForwardPass {
        // Of what does not learn, no maps are kept anyway.
        if !checkpointing || self.frozen {
            return ForwardPass { features: self.features(pictures), checkpoints: None };
        }
        let mode = self.mode();
        // Where no parameter wants a gradient, nothing is kept for it. Statistics are shared.
        let net = self.clone().no_grad();
        let mut last = net.segment(0, Map::Stock(pictures.clone()), mode);
        let mut maps = Vec::new();
        for n in 1..net.plan.segments.len() - 1 {
            let y = net.segment(n, last.clone(), mode);
            maps.push(core::mem::replace(&mut last, y));
        }
        let features = net.pool(last.clone(), mode).require_grad();
        ForwardPass { features, checkpoints: Some(Checkpoints { pictures, maps, last }) }
    }
}

impl ForwardPass {
    /// Pooled features `[N, features]`.
    pub fn features(&self) -> Tensor<2> {
        self.features.clone()
    }

    /// The gradients that `gradients`, of what was computed with the features, lacks: with
    /// checkpointing those of all parameters of `net` before the features, each in one of the
    /// results. None where the features had no part in it.
    pub fn backward(self, net: &Network, gradients: &mut Gradients) -> Vec<Gradients> {
        let Some(Checkpoints { pictures, maps, last }) = self.checkpoints else {
            return Vec::new();
        };
        let Some(gradient) = self.features.grad_remove(gradients) else { return Vec::new() };
        // The statistics of this batch are blended into the running ones already.
        let mode = Mode { blends: false, ..net.mode() };
        let pooled = |x| (net.pool(x, mode) * Tensor::from_inner(gradient)).sum();
        let (mut dy, found) = differentiate(last, pooled);
        let mut all = vec![found];
        for (n, x) in (1..).zip(maps).collect::<Vec<_>>().into_iter().rev() {
            let (dx, found) = differentiate(x, |x| net.segment(n, x, mode).weighted_sum(dy));
            dy = dx;
            all.push(found);
        }
        all.push(net.segment(0, Map::Stock(pictures), mode).weighted_sum(dy).backward());
        all
    }
}

/// Gradients of a scalar function of `x`, that of `x` apart.
fn differentiate(x: Map, scalar: impl FnOnce(Map) -> Tensor<1>) -> (Map, Gradients) {
    let x = x.require_grad();
    let mut gradients = scalar(x.clone()).backward();
    (x.gradient(&mut gradients), gradients)
}
