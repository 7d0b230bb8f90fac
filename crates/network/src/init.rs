//! Models with random weights: what an architecture costs, known before anyone trains it.

use crate::activation::Activation;
use crate::architecture::{Architecture, default_preprocess};
use crate::blueprint::{Blueprint, Layer, LayerOp};
use crate::checkpoint::{Checkpoint, Draft, Sample, Tensor, TrainingRecord};
use crate::random::{Rng, fnv1a};
use std::collections::{BTreeMap, BTreeSet};

/// Pictures stored for calibration, and the squares along each side of one.
const SAMPLES: u32 = 8;
const SQUARES: usize = 8;

/// How much of its input a residual block adds, so that sums stay small in deep networks.
const BRANCH: f64 = 0.25;

/// The variance of weights, times their number in a sum, that keeps a map's size: of what is rectified,
/// of what a smooth function such as SiLU left small, and of what is neither.
const RECTIFIED: f64 = 2.0;
const CURVED: f64 = 2.4;
const LINEAR: f64 = 1.0;
/// How much larger it is behind a gate, whose factors are about a half.
const GATED: f64 = 4.0;

/// A model with weights drawn from `seed`, for square inputs of `side` pixels.
///
/// Weights have the spread of He et al. (2015) for what they read, batch-norms statistics near those of trained
/// networks, and the samples for calibration are squares of random colours. The model knows
/// nothing, but runs as fast and takes as much memory as a trained one.
///
/// # Errors
/// An architecture or a size that cannot be, as text.
pub fn random_checkpoint(config: Architecture, side: u16, seed: u64) -> Result<Checkpoint, String> {
    config.check()?;
    let net = config.blueprint();
    let (last, gains) = (branch_ends(&net), gains(&net));
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut rng = Rng::keyed(&[seed, fnv1a(name.as_bytes())]);
        let inputs: usize = shape.iter().skip(1).product();
        let branch = if last.contains(&name) { BRANCH } else { 1.0 };
        let gain = gains.get(&name).copied().unwrap_or(RECTIFIED);
        let spread = branch * (gain / inputs as f64).sqrt();
        let mut draw = || match name.rsplit('.').next() {
            Some("weight") => spread * rng.normal(),
            Some("gamma" | "variance") => 0.5 + rng.unit(),
            _ => 0.1 * rng.normal(),
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw() as f32).collect();
        (name, Tensor::from_f32(&shape, &values))
    };
    let draft = Draft {
        samples: (0..SAMPLES).map(|i| sample(i, side, seed)).collect::<Result<_, _>>()?,
        training: TrainingRecord { dataset: "none".into(), seed, ..TrainingRecord::default() },
        ..with_tensors(config, side, tensor)
    };
    draft.check()
}

/// Weights of the convolutions whose results are added to a shortcut.
fn branch_ends(net: &Blueprint) -> BTreeSet<String> {
    let sums = net.layers.iter().filter(|layer| matches!(layer.op, LayerOp::Add));
    let ends = sums.filter_map(|sum| {
        let mut end = &net.layers[*sum.inputs.last()?];
        while !matches!(end.op, LayerOp::Conv(_)) {
            end = &net.layers[*end.inputs.first()?];
        }
        Some(format!("{}.weight", end.name))
    });
    ends.collect()
}

/// By name, the variance of weights times their number in a sum, which what they read asks for.
fn gains(net: &Blueprint) -> BTreeMap<String, f64> {
    let readers = net.layers.iter().filter(|layer| !layer.inputs.is_empty());
    let gain = |layer: &Layer| {
        let (mut x, mut gated) = (&net.layers[layer.inputs[0]], 1.0);
        if x.op == LayerOp::Gate {
            (x, gated) = (&net.layers[x.inputs[0]], GATED);
        }
        let plain = match x.op {
            LayerOp::BatchNorm | LayerOp::Add => LINEAR,
            LayerOp::Activation(Activation::Curve(_)) => CURVED,
            _ => RECTIFIED,
        };
        (format!("{}.weight", layer.name), gated * plain)
    };
    readers.map(gain).collect()
}

/// A checkpoint of `tensor`s, without pictures.
fn with_tensors(
    config: Architecture,
    side: u16,
    tensor: impl Fn((String, Vec<usize>)) -> (String, Tensor),
) -> Draft {
    let labels = (0..config.classes).map(|class| format!("class {class}")).collect();
    let preprocess = config.preprocess(default_preprocess(side));
    let tensors = config.blueprint().tensors().map(tensor).collect();
    Draft::new(config, labels, preprocess, tensors)
}

/// A picture of squares of random colours.
fn sample(index: u32, side: u16, seed: u64) -> Result<Sample, String> {
    let mut rng = Rng::keyed(&[seed, fnv1a(b"sample"), index.into()]);
    let colours: Vec<[u8; 3]> =
        (0..SQUARES * SQUARES).map(|_| [0; 3].map(|_: u8| rng.below(256) as u8)).collect();
    let square = |at: u16| usize::from(at) * SQUARES / usize::from(side);
    let pixels: Vec<u8> = (0..side)
        .flat_map(|y| (0..side).map(move |x| (y, x)))
        .flat_map(|(y, x)| colours[square(y) * SQUARES + square(x)])
        .collect();
    Sample::encode(0, &pixels, side, side)
        .map_err(|e| format!("a sample of {side} x {side} pixels: {e}"))
}
