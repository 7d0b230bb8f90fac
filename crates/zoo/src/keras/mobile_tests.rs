//! MobileNets and EfficientNets compute here what they compute in Keras; see
//! `fixtures/keras_mobile/README.md`.

use crate::{Head, Hints, Imported, load, open_any, read};
use artifact::Preprocess;
use dataset::samples::normalize;
use network::architecture::Family;
use network::evaluate::evaluate;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A file of the fixtures, or of the folder that `tests/packages/keras_mobilenets.py` made.
fn fixture(file: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras_mobile");
    std::env::var("KERAS_MOBILENETS").map_or(fixtures, Into::into).join(file)
}

#[derive(Deserialize)]
struct Expected {
    file: String,
    shape: [u16; 3],
    low: f32,
    high: f32,
    logits: Vec<f64>,
    /// Whether it is a network of no family.
    #[serde(default)]
    graph: bool,
}

impl Expected {
    fn bytes(&self) -> Vec<u8> {
        let len: usize = self.shape.iter().map(|&side| usize::from(side)).product();
        (0..len as u64).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect()
    }

    /// What the network takes of that picture: a model that scales pictures itself has it as its
    /// preprocessing.
    fn input(&self, preprocess: &Preprocess) -> Vec<f32> {
        let bytes = self.bytes();
        if self.high == 255.0 {
            return normalize(&bytes, preprocess);
        }
        let value = |byte: &u8| f32::from(*byte) / 255.0 * (self.high - self.low) + self.low;
        bytes.iter().map(value).collect()
    }

    fn assert_near(&self, logits: &[f32]) {
        let logits = scores(logits.iter().map(|v| f64::from(*v)));
        let wanted = scores(self.logits.iter().copied());
        assert_eq!(logits.len(), wanted.len(), "{}", self.file);
        let differences = logits.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
        let most = wanted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = wanted.iter().copied().fold(f64::INFINITY, f64::min);
        let worst = differences.fold(0.0, f64::max) / (most - least);
        println!("{:32} {:?} {worst:.1e}", self.file, self.shape);
        assert!(worst <= 1e-4, "{}: {worst} of {wanted:?}", self.file);
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
    for wanted in expected().iter().filter(|wanted| !wanted.graph) {
        let file = &wanted.file;
        let [height, width, _] = wanted.shape;
        let checkpoint = load(&fixture(file), Head::Required).unwrap();
        let sized = checkpoint.edit(|draft| {
            (draft.preprocess.height, draft.preprocess.width) = (height, width);
            Ok(())
        });
        let checkpoint = sized.unwrap();
        assert!(matches!(checkpoint.config.family, Family::MobileNet(_)), "{file}");
        let input = wanted.input(&checkpoint.preprocess);
        wanted.assert_near(&evaluate(&checkpoint.graph().unwrap(), &input));
    }
}

/// Whatever they are made of.
#[test]
fn graphs_compute_what_keras_computes() {
    for wanted in expected().iter().filter(|wanted| wanted.graph) {
        let found = open_any(&fixture(&wanted.file), Head::Required, &Hints::default()).unwrap();
        let Imported::Graph(model) = found else { panic!("{} is a checkpoint", wanted.file) };
        let input = wanted.input(&model.preprocess);
        wanted.assert_near(&evaluate(&model.graph, &input));
    }
}

/// A base is fine-tuned, whether its weights alone were saved or all of it.
#[test]
fn bases_without_a_head_become_checkpoints() {
    for file in ["base", "base/model.weights.h5"] {
        let path = fixture(file);
        assert!(load(&path, Head::Required).is_err(), "{file}");
        let hints = Hints { size: Some(32), ..Hints::default() };
        let Imported::Checkpoint(base) = open_any(&path, Head::Optional, &hints).unwrap() else {
            panic!("{file} is a graph")
        };
        let p = base.preprocess;
        assert_eq!((p.height, p.scale, p.offset), (32, [1.0 / 127.5; 3], [-1.0; 3]), "{file}");
        assert_eq!(base.config.classes, 1, "{file}");
    }
}

/// The files of MobileNets without scaling say by the names of their layers how they are prepared for.
#[test]
fn preprocessing_follows_from_names() {
    for file in ["v1.keras", "v2_odd.h5"] {
        let found = open_any(&fixture(file), Head::Required, &Hints::default()).unwrap();
        let Imported::Graph(model) = &found else { panic!("{file} is a checkpoint") };
        assert!(model.notes.iter().any(|note| note.contains("-1 to 1")), "{file}");
        let p = found.into_checkpoint(Path::new(file)).unwrap().preprocess;
        assert_eq!((p.scale, p.offset), ([1.0 / 127.5; 3], [-1.0; 3]), "{file}");
    }
}
