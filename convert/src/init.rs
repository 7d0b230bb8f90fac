//! Models with random weights: what an architecture costs, known before anyone trains it.

use crate::checkpoint::{Checkpoint, FORMAT, Sample, Tensor, TrainingRecord, VERSION};
use crate::graph::Graph;
use crate::optimize::optimize;
use crate::random::{Rng, fnv1a};
use crate::resnet::{ResNetConfig, default_preprocess};
use std::collections::BTreeSet;

/// Pictures stored for calibration, and the squares along each side of one.
const SAMPLES: u32 = 8;
const SQUARES: usize = 8;

/// How much of its input a residual block adds, so that sums stay small in deep networks.
const BRANCH: f64 = 0.25;

/// A model with weights drawn from `seed`, for square inputs of `side` pixels.
///
/// Weights have the spread of He et al. (2015), batch-norms statistics near those of trained
/// networks, and the samples for calibration are squares of random colours. The model knows
/// nothing, but runs as fast and takes as much memory as a trained one.
///
/// # Errors
/// An architecture or a size that cannot be, as text.
pub fn random_checkpoint(config: ResNetConfig, side: u16, seed: u64) -> Result<Checkpoint, String> {
    config.check()?;
    let last: BTreeSet<String> = config
        .blocks()
        .iter()
        .filter_map(|b| Some(format!("{}.weight", b.convs.last()?.name)))
        .collect();
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut rng = Rng::keyed(&[seed, fnv1a(name.as_bytes())]);
        let inputs: usize = shape.iter().skip(1).product();
        let branch = if last.contains(&name) { BRANCH } else { 1.0 };
        let spread = branch * (2.0 / inputs as f64).sqrt();
        let mut draw = || match name.rsplit('.').next() {
            Some("weight") => spread * rng.normal(),
            Some("gamma" | "variance") => 0.5 + rng.unit(),
            _ => 0.1 * rng.normal(),
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw() as f32).collect();
        (name, Tensor::from_f32(&shape, &values))
    };
    let checkpoint = Checkpoint {
        samples: (0..SAMPLES).map(|i| sample(i, side, seed)).collect::<Result<_, _>>()?,
        training: TrainingRecord { dataset: "none".into(), seed, ..TrainingRecord::default() },
        ..with_tensors(config, side, tensor)
    };
    checkpoint.check()?;
    Ok(checkpoint)
}

/// An architecture's optimized layers, of zeros.
pub(crate) fn layers(config: ResNetConfig, side: u16) -> Option<Graph> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let zeros = vec![0.0; shape.iter().product()];
        (name, Tensor::from_f32(&shape, &zeros))
    };
    let mut graph = Graph::from_checkpoint(&with_tensors(config, side, tensor)).ok()?;
    optimize(&mut graph);
    Some(graph)
}

fn with_tensors(
    config: ResNetConfig,
    side: u16,
    tensor: impl Fn((String, Vec<usize>)) -> (String, Tensor),
) -> Checkpoint {
    Checkpoint {
        format: FORMAT.into(),
        version: VERSION,
        labels: (0..config.classes).map(|class| format!("class {class}")).collect(),
        preprocess: config.preprocess(default_preprocess(side)),
        tensors: config.tensor_shapes().into_iter().map(tensor).collect(),
        samples: Vec::new(),
        training: TrainingRecord::default(),
        assumed: Vec::new(),
        config,
    }
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

#[cfg(test)]
mod tests {
    use super::random_checkpoint;
    use crate::model::FloatModel;
    use crate::pipeline::{Options, Quantize, convert, stored_samples};
    use crate::quantize::Method;
    use crate::resnet::ResNetConfig;
    use runtime::{AlignedBuf, Model, Session};

    fn logits(name: &str, channels: usize, seed: u64, quantize: Quantize) -> Vec<f32> {
        let config = ResNetConfig { channels, ..ResNetConfig::named(name, 5).unwrap() };
        let checkpoint = random_checkpoint(config, 32, seed).unwrap();
        let samples = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
        let options = Options { quantize, method: Method::Mse, ..Options::default() };
        let converted = convert(
            &FloatModel::from_checkpoint(&checkpoint).unwrap(),
            &samples,
            options,
            |_, _| (),
        )
        .unwrap();
        let file = AlignedBuf::from_slice(&converted.emitted.bytes);
        let model = Model::new(&file).unwrap();
        let mut arena = AlignedBuf::zeroed(model.arena_len());
        let mut session = Session::new(&model, &mut arena).unwrap();
        let mut input = session.input_mut();
        samples[0].iter().enumerate().for_each(|(i, v)| input.set(i, *v));
        session.run().iter().collect()
    }

    #[test]
    fn random_models_convert_and_answer() {
        for (name, channels) in
            [("resnet_8_cifar", 3), ("resnet_8_cifar", 1), ("resnet_v2_50", 3), ("resnet_vd_18", 3)]
        {
            let float = logits(name, channels, 1, Quantize::None);
            let scale = float.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            assert!(scale > 0.1 && scale < 100.0, "{name}: {float:?}");
            let int8 = logits(name, channels, 1, Quantize::Int8);
            for (f, q) in float.iter().zip(&int8) {
                assert!((f - q).abs() < 0.2 * scale, "{name}: {float:?} and {int8:?}");
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let of = |seed| logits("resnet_8_cifar", 3, seed, Quantize::None);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn impossible_models_are_refused() {
        let unknown = ResNetConfig::named("resnet_9000", 10).unwrap_err();
        assert!(unknown.contains("resnet_9000") && unknown.contains("resnet_50"), "{unknown}");
        let none = random_checkpoint(ResNetConfig::named("resnet_18", 0).unwrap(), 224, 0);
        assert!(none.is_err());
    }
}
