//! Learning curves of the fast operators are those of Burn's own.

use accel::Precision;
use artifact::Preprocess;
use burn::tensor::{Device, Tensor, TensorData};
use network::architecture::Architecture;
use std::path::Path;
use std::sync::Arc;
use trainer::data::{Batches, CacheSize, Dataset, Loading, Order, ReadOptions, Share};
use trainer::net::{Init, Network};
use trainer::train::{Optimizer, OptimizerConfig, Rule, cross_entropy, targets};

const STEPS: usize = 200;
const CLASSES: usize = 10;
const RESNET: &str = "resnet_8_cifar";
const MOBILE: &str = "mobilenet_v2_050";

/// Losses of the first steps of a network on the sample photos.
fn losses(name: &str, steps: usize, precision: Precision, checkpointing: bool) -> Vec<f64> {
    let preprocess = Preprocess::normalized(32, 32, [0.45; 3], [0.25; 3]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/fashion/train");
    let options =
        ReadOptions { preprocess, val_split: 0.0, seed: 0, classes: None, cache: CacheSize::Auto };
    let pictures = Arc::new(Dataset::read(&folder, &options).unwrap().train);
    let device = Device::flex().autodiff();
    let config = Architecture::by_name(name, CLASSES).unwrap();
    let mut net = Network::new(&config, Init::he(1), &device).unwrap();
    net.set_precision(precision);
    let rule = Rule::Sgd { momentum: 0.9, nesterov: false };
    let mut optimizer = Optimizer::new(OptimizerConfig::plain(rule));
    let batches = (0..).flat_map(|epoch| {
        let augment = "light".parse().unwrap();
        let order = Order::Shuffled { seed: 1, epoch, augment, share: Share::WHOLE };
        Batches::start(
            pictures.clone(),
            Loading { preprocess, batch: 64, side: None, frame: None, order },
        )
    });
    let mut losses = Vec::new();
    for batch in batches.take(steps) {
        let batch = batch.unwrap();
        let x = Tensor::<4>::from_data(TensorData::new(batch.pixels, batch.shape), &device);
        let target = targets(&batch.labels, CLASSES, 0.0, &device);
        let forward = net.forward_pass(x, checkpointing);
        let cost = cross_entropy(net.classify(forward.features()), target);
        let mut gradients = cost.backward();
        for part in forward.backward(&net, &mut gradients) {
            optimizer.gather(&mut net, part);
        }
        // Rounding grows with the rate and in small batches: at 4e-4 and 32 pictures to 1.03e-3 with
        // AVX-512, at these to 2.6e-4.
        optimizer.step(&mut net, gradients, 3.5e-4);
        losses.push(f64::from(cost.into_scalar::<f32>()));
    }
    losses
}

/// One test, because [`accel::disable`] holds for the rest of the process.
#[test]
fn two_hundred_steps_are_those_of_the_stock_operators() {
    let fast = losses(RESNET, STEPS, Precision::F32, false);
    assert!(fast == losses(RESNET, STEPS, Precision::F32, true), "checkpointing");
    let bf16 = losses(RESNET, STEPS, Precision::Bf16, false);
    let mobile = losses(MOBILE, 2, Precision::F32, false);
    assert!(mobile == losses(MOBILE, 2, Precision::F32, true), "checkpointing");
    accel::disable();
    for (fast, stock) in mobile.iter().zip(losses(MOBILE, 2, Precision::F32, false)) {
        // Maps of one pixel have statistics of few numbers, which amplify rounding: 3.7e-3 was seen.
        assert!((fast - stock).abs() < 1e-2 * stock, "{MOBILE}: {fast} instead of {stock}");
    }
    let stock = losses(RESNET, STEPS, Precision::F32, false);
    assert!(
        stock[..10] == losses(RESNET, 10, Precision::F32, true),
        "checkpointing with stock operators"
    );
    let worst = |found: &[f64]| {
        let errors = found.iter().zip(&stock).map(|(a, b)| (a - b).abs() / b);
        errors.fold(0.0, f64::max)
    };
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let [first, last] = [&stock[..20], &stock[STEPS - 20..]].map(mean);
    assert!(last < 0.8 * first, "learnt from {first} to {last}");
    assert!(worst(&fast) < 1e-3, "f32: {}", worst(&fast));
    assert!(worst(&bf16) < 5e-2, "bf16: {}", worst(&bf16));
    println!("f32 {:.1e}, bf16 {:.1e}", worst(&fast), worst(&bf16));
}
