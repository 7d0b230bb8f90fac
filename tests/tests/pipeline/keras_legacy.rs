//! ResNets of plain Keras layers in `.h5` files; see `fixtures/keras_legacy/README.md`.

use crate::engines;
use crate::whole_path::cifar_test;
use artifact::Preprocess;
use convert::accuracy::predict;
use convert::pipeline::{Options, Quantize, convert};
use edge_tests::{fixture, npy, resnet};
use network::checkpoint::Checkpoint;
use network::model::FloatModel;
use network::padding::ConvPadding;
use std::path::Path;
use zoo::{Head, load};

fn matches_keras(model: &str) -> Checkpoint {
    let checkpoint = load(&fixture(format!("keras_legacy/{model}.h5")), Head::Required).unwrap();
    let (shape, pictures) = npy(format!("keras_legacy/{model}_input.npy"));
    let (_, logits) = npy(format!("keras_legacy/{model}_logits.npy"));
    let p = checkpoint.preprocess;
    assert_eq!([2, p.height.into(), p.width.into(), 3], shape[..]);
    assert_eq!(resnet(&checkpoint).padding, ConvPadding::Same);
    let largest = logits.iter().fold(1f32, |m, v| m.max(v.abs()));
    for (engine, got) in engines::logits(&checkpoint, &shape, &pictures) {
        assert_eq!(got.len(), logits.len());
        for (a, b) in got.iter().zip(&logits) {
            assert!((a - b).abs() <= 1e-5 * largest, "{model}, {engine}: {a}, Keras has {b}");
        }
    }
    checkpoint
}

#[test]
fn uneven_padding_and_folded_biases() {
    for model in ["even", "odd"] {
        let checkpoint = matches_keras(model);
        assert_eq!(resnet(&checkpoint).stackwise_num_filters, [4, 6, 8]);
        assert_eq!(
            (checkpoint.preprocess.scale, checkpoint.preprocess.offset),
            ([1.0; 3], [0.0; 3])
        );
        assert_eq!(checkpoint.labels[4], "class 4");
    }
}

#[test]
fn bottlenecks_behind_a_pooled_stem() {
    let checkpoint = matches_keras("bottleneck");
    assert_eq!(resnet(&checkpoint).stackwise_num_blocks, [2, 1]);
    let p: Preprocess = checkpoint.preprocess;
    assert!((p.scale[0] - 1.0 / 127.5).abs() < 1e-9 && p.offset == [-1.0; 3], "{p:?}");
}

/// MLPerf Tiny's ResNet-8 and CIFAR-10's test pictures, where both are at hand.
#[test]
fn mlperf_tiny_keeps_its_accuracy() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let model = shared.join("models/mlperf-tiny/pretrainedResnet.h5");
    if !model.is_file() {
        println!("SKIPPED: {} is not there", model.display());
        return;
    }
    let checkpoint = load(&model, Head::Required).unwrap();
    let Some((_folder, pictures)) = cifar_test(&checkpoint) else { return };
    assert_eq!(pictures.len(), 10_000);
    // The classes are in CIFAR-10's own order.
    let options = Options { quantize: Quantize::None, ..Options::default() };
    let converted =
        convert(&FloatModel::from_checkpoint(&checkpoint).unwrap(), &[], options, |_, _| ())
            .unwrap();
    let predictions = predict(&converted.emitted.bytes, &pictures).unwrap();
    let accuracy = predictions.accuracy(&pictures.labels);
    assert!(accuracy >= 0.865, "{accuracy}");
    // The trainer's network says the same.
    let hundred = (0..100).flat_map(|i| pictures.get(i).unwrap().into_owned());
    let normalized: Vec<f32> = hundred.map(f32::from).collect();
    let logits = engines::burn(&checkpoint, &[100, 32, 32, 3], &normalized);
    for (a, b) in logits.iter().zip(&predictions.logits) {
        assert!((a - b).abs() <= 1e-3 * b.abs().max(1.0), "{a} in the trainer, {b} on the device");
    }
}
