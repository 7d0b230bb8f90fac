//! MobileNets and EfficientNets compute here what they compute in Keras; see
//! `fixtures/keras_mobile/README.md`.

use crate::{Head, load, read};
use dataset::samples::normalize;
use network::architecture::Family;
use network::checkpoint::Checkpoint;
use network::evaluate::evaluate;
use serde::Deserialize;
use std::path::{Path, PathBuf};

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras_mobile").join(file)
}

#[derive(Deserialize)]
struct Expected {
    file: String,
    shape: [u16; 3],
    low: f32,
    high: f32,
    logits: Vec<f64>,
}

impl Expected {
    fn bytes(&self) -> Vec<u8> {
        let len: usize = self.shape.iter().map(|&side| usize::from(side)).product();
        (0..len as u64).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect()
    }

    /// What the network takes of that picture: a model that scales pictures itself has it as its
    /// preprocessing.
    fn input(&self, checkpoint: &Checkpoint) -> Vec<f32> {
        let bytes = self.bytes();
        if self.high == 255.0 {
            return normalize(&bytes, &checkpoint.preprocess);
        }
        let value = |byte: &u8| f32::from(*byte) / 255.0 * (self.high - self.low) + self.low;
        bytes.iter().map(value).collect()
    }
}

fn expected() -> Vec<Expected> {
    let path = fixture("expected.json");
    serde_json::from_slice(&read(&path).unwrap()).unwrap()
}

/// Logits up to a number that all have in common.
fn scores(logits: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let logits: Vec<f64> = logits.into_iter().collect();
    let sum = logits.iter().map(|v| v.exp()).sum::<f64>().ln();
    logits.into_iter().map(|v| v - sum).collect()
}

#[test]
fn checkpoints_compute_what_keras_computes() {
    for wanted in expected() {
        let file = &wanted.file;
        let [height, width, _] = wanted.shape;
        let checkpoint = load(&fixture(file), Head::Required).unwrap();
        let sized = checkpoint.edit(|draft| {
            (draft.preprocess.height, draft.preprocess.width) = (height, width);
            Ok(())
        });
        let checkpoint = sized.unwrap();
        assert!(matches!(checkpoint.config.family, Family::MobileNet(_)), "{file}");
        let input = wanted.input(&checkpoint);
        let logits = evaluate(&checkpoint.graph().unwrap(), &input);
        let logits = scores(logits.into_iter().map(f64::from));
        let wanted = scores(wanted.logits.clone());
        assert_eq!(logits.len(), wanted.len(), "{file}");
        for (a, b) in logits.iter().zip(&wanted) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{file}: {a}, Keras has {b}");
        }
    }
}
