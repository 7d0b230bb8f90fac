//! Saved Keras models compute here what they compute there; see `fixtures/keras/README.md`.

use crate::engines;
use artifact::Preprocess;
use edge_tests::{changed, fixture, npy};
use network::blueprint::Pooling;
use network::checkpoint::Checkpoint;
use zoo::{Head, load};

fn import(file: &str) -> Checkpoint {
    load(&fixture(file), Head::Required).unwrap()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let exp: Vec<f32> = logits.iter().map(|v| v.exp()).collect();
    exp.iter().map(|v| v / exp.iter().sum::<f32>()).collect()
}

#[test]
fn a_sequential_model_matches_keras() {
    let checkpoint = import("keras/sequential/model.keras");
    assert_eq!(checkpoint.config.pooling, Pooling::Max);
    // Nothing in the model rescales.
    assert_eq!((checkpoint.preprocess.scale, checkpoint.preprocess.offset), ([1.0; 3], [0.0; 3]));
    assert_eq!((checkpoint.preprocess.height, checkpoint.labels.len()), (224, 5));
    let (shape, pictures) = npy("keras/sequential/input.npy");
    let (_, output) = npy("keras/sequential/output.npy");
    let preprocess = Preprocess { height: 32, width: 32, ..checkpoint.preprocess };
    let checkpoint = changed(checkpoint, |draft| draft.preprocess = preprocess);
    for (engine, logits) in engines::logits(&checkpoint, &shape, &pictures) {
        let got: Vec<f32> = logits.chunks_exact(5).flat_map(softmax).collect();
        for (a, b) in got.iter().zip(&output) {
            assert!((a - b).abs() <= 1e-4, "{engine}: {a}, Keras has {b}");
        }
    }
}

#[test]
fn a_saved_classifier_is_its_preset() {
    let saved = import("keras/v2_bottleneck/classifier.keras");
    let preset = import("keras/v2_bottleneck/preset");
    let preset = changed(preset, |draft| draft.config.name = "classifier".into());
    assert!(saved == preset);
}
