//! ResNets as Burn modules, with KerasHub's semantics.
//!
//! The layers follow [`ResNetConfig`]: `stem`, `blocks`, pooling, head. Version 1 blocks
//! are `conv·bn·relu … conv·bn`, added to the shortcut and rectified; version 2 blocks
//! normalize and rectify first, project from that, and only add.

mod checkpointing;
mod grey;
mod layers;
mod ops;
mod rounding;
mod weights;

pub use checkpointing::ForwardPass;
pub use grey::make_grey;
pub(crate) use layers::replace;
pub use layers::{BatchNorm, Conv, ConvBn, Dense, Init, InitRule, Role, Tensors, Visitor};
use ops::Map;
use rounding::{Rounding, extremes, rounded, rounded_weights};
pub use weights::{LoadError, load_tensors, save_tensors};

use accel::{Precision, Window};
use burn::module::{Module, Param, RunningState};
use burn::tensor::{Device, Tensor};
use network::padding::{ConvPadding, same_padding};
use network::resnet::{BlockSpec, Pooling, ResNetConfig, SHORTCUT_POOL};
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
}

impl Mode<'_> {
    /// The map that layer `name` writes, as the device stores it.
    fn stored(self, x: Map, name: &str) -> Map {
        let Some(rounding) = self.rounding else { return x };
        let learns = self.blends && x.is_autodiff();
        x.rounded(|extremes| rounding.range(name, learns.then(extremes)))
    }
}

/// One residual block.
#[derive(Module, Debug)]
pub struct Block {
    /// Version 2: batch-norm and ReLU on the block's input.
    pre: Option<BatchNorm>,
    convs: Vec<ConvBn>,
    /// Stride of a vd shortcut's average pool.
    shortcut_pool: Option<usize>,
    projection: Option<ConvBn>,
}

impl Block {
    fn new(spec: &BlockSpec, v2: bool, init: Init, device: &Device) -> Self {
        let last = spec.convs.len() - 1;
        let convs = spec.convs.iter().enumerate().map(|(n, conv)| {
            let bn = (!v2 || n < last).then(|| format!("{}_{}_bn", spec.name, n + 1));
            ConvBn::new(conv, bn, init, device)
        });
        let projection = spec.projection.as_ref().map(|conv| {
            let bn = (!v2).then(|| format!("{}_0_bn", spec.name));
            ConvBn::new(conv, bn, init, device)
        });
        let pre = v2.then(|| {
            let name = format!("{}_pre_activation_bn", spec.name);
            BatchNorm::new(name, spec.convs[0].c_in, device)
        });
        Self { pre, convs: convs.collect(), shortcut_pool: spec.shortcut_pool, projection }
    }

    fn forward(&self, x: Map, mode: Mode<'_>) -> Map {
        // Version 2 projects the pre-activation but its identity shortcut taps the raw input.
        let (x, shortcut) = match (&self.pre, &self.projection) {
            (None, _) => x.fork(),
            (Some(bn), Some(_)) => bn.stored(x, mode).fork(),
            (Some(bn), None) => {
                let (x, shortcut) = x.fork();
                (bn.stored(x, mode), shortcut)
            }
        };
        let shortcut = match &self.projection {
            Some(projection) => {
                let x = match self.shortcut_pool {
                    Some(stride) => shortcut_pool(shortcut, stride),
                    None => shortcut,
                };
                projection.forward(x, None, false, mode)
            }
            None => shortcut,
        };
        let Some((last, first)) = self.convs.split_last() else { return shortcut };
        let y = first.iter().fold(x, |y, conv| conv.forward(y, None, true, mode));
        last.forward(y, Some(shortcut), self.pre.is_none(), mode)
    }
}

/// Mean of the real pixels of each 2×2 window, the last one clipped at the map's end.
fn shortcut_pool(x: Map, stride: usize) -> Map {
    let padding = x.size().map(|size| same_padding(size, SHORTCUT_POOL, stride));
    x.average_pool(&Window { filter: SHORTCUT_POOL, stride, padding })
}

/// A ResNet classifier.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Vec<ConvBn>,
    stem_pool: bool,
    /// The stem's pool is padded as TensorFlow's "same".
    same: bool,
    blocks: Vec<Block>,
    /// Number of blocks up to the end of each stack.
    stack_ends: Vec<usize>,
    post: Option<BatchNorm>,
    max_pooling: bool,
    head: Dense,
    /// Fast maps are of bf16.
    bf16: bool,
    /// Weights and maps are rounded as int8 does, in training and in use.
    #[module(skip)]
    rounding: Option<Arc<Rounding>>,
}

impl ResNet {
    /// A network with fresh weights.
    ///
    /// # Errors
    /// What [`ResNetConfig::check`] refuses.
    pub fn new(config: &ResNetConfig, init: Init, device: &Device) -> Result<Self, String> {
        config.check()?;
        let v2 = config.use_pre_activation;
        let stem = config.stem();
        let last = stem.len() - 1;
        let stem = stem.iter().enumerate().map(|(i, conv)| {
            let bn = (!v2 || i < last).then(|| format!("conv{}_bn", i + 1));
            ConvBn::new(conv, bn, init, device)
        });
        Ok(Self {
            stem: stem.collect(),
            stem_pool: config.stem_pool,
            same: config.padding == ConvPadding::Same,
            blocks: config.blocks().iter().map(|b| Block::new(b, v2, init, device)).collect(),
            stack_ends: (1..=config.stackwise_num_blocks.len())
                .map(|stacks| config.stackwise_num_blocks[..stacks].iter().sum())
                .collect(),
            post: v2.then(|| BatchNorm::new("post_bn".into(), config.features(), device)),
            max_pooling: config.pooling == Pooling::Max,
            head: Dense::new(config.features(), config.classes, init.seed, device),
            bf16: false,
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
        let Some(rounding) = &self.rounding else { return self.head.forward(features, false) };
        let stored = |x: Tensor<2>, name| {
            let seen = x.device().is_autodiff().then(|| extremes(&x));
            match rounding.range(name, seen) {
                Some(range) => rounded(x, range),
                None => x,
            }
        };
        stored(self.head.forward(stored(features, "pooler"), true), "predictions")
    }

    /// Pictures `[N, 3, H, W]` to pooled features `[N, features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let mode = self.mode();
        let x = self.blocks.iter().fold(self.stem(x, mode), |x, block| block.forward(x, mode));
        self.pool(x, mode)
    }

    /// The map behind each stack, KerasHub's pyramid P2, P3, …: of version 2 before the last
    /// batch-norm.
    pub fn pyramid(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mode = self.mode();
        let mut x = self.stem(x, mode);
        let mut maps = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, mode);
            if self.stack_ends.contains(&(i + 1)) {
                maps.push(x.clone().into_planar());
            }
        }
        maps
    }

    fn mode(&self) -> Mode<'_> {
        Mode { precision: self.precision(), blends: true, rounding: self.rounding.as_deref() }
    }

    /// The last block's map to features.
    fn pool(&self, x: Map, mode: Mode<'_>) -> Tensor<2> {
        let x = match &self.post {
            Some(bn) => bn.stored(x, mode),
            None => x,
        };
        if self.max_pooling { x.max() } else { x.mean() }
    }

    fn stem(&self, x: Tensor<4>, mode: Mode<'_>) -> Map {
        let mut x = Map::Stock(x);
        for (i, conv) in self.stem.iter().enumerate() {
            // Version 2 leaves its last stem convolution bare.
            let relu = self.post.is_none() || i + 1 < self.stem.len();
            x = conv.forward(x, None, relu, mode);
        }
        if self.stem_pool {
            // What is outside of the map is never the largest: version 2's rule, and no
            // difference after the ReLU of version 1.
            let sides = |size| layers::padding(self.same).sides(size, 3, 2);
            x = x.clone().max_pool(&Window { filter: 3, stride: 2, padding: x.size().map(sides) });
        }
        // The first block's convolution and its shortcut both read it.
        x.settled()
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
        self.visit_tensors(&mut Freeze(frozen));
        let convs =
            self.blocks.iter_mut().flat_map(|b| b.convs.iter_mut().chain(&mut b.projection));
        self.stem.iter_mut().chain(convs).for_each(|conv| conv.set_frozen(frozen));
        let alone = self.blocks.iter_mut().filter_map(|b| b.pre.as_mut());
        alone.chain(&mut self.post).for_each(|bn| bn.set_frozen(frozen));
    }
}

impl Tensors for ResNet {
    fn visit_tensors<V: Visitor>(&mut self, visitor: &mut V) {
        for conv in &mut self.stem {
            conv.show(visitor);
        }
        for block in &mut self.blocks {
            if let Some(bn) = &mut block.pre {
                bn.show(visitor);
            }
            for conv in block.convs.iter_mut().chain(&mut block.projection) {
                conv.show(visitor);
            }
        }
        if let Some(bn) = &mut self.post {
            bn.show(visitor);
        }
        self.head.show(visitor);
    }
}

/// Whether a tensor belongs to the classification head.
pub(crate) fn is_head(name: &str) -> bool {
    name.starts_with("predictions.")
}
