//! MobileNets and EfficientNets compute here what they compute in Keras; see
//! `fixtures/keras_mobile/README.md`.

use super::arrays::Arrays;
use super::layers::Network;
use super::wiring;
use crate::{Head, Hints, Imported, load, open_any, read};
use artifact::Preprocess;
use dataset::samples::normalize;
use formats::hdf5;
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

/// One that differs in anything is not taken for what its layers are called.
#[test]
fn others_with_the_same_names_are_no_checkpoints() {
    let contents = hdf5::parse(read(&fixture("v2_odd.h5")).unwrap()).unwrap();
    let model = contents.model_config.clone().unwrap();
    let arrays = Arrays::new(contents);
    let read = |model: &str| {
        let network = Network::new(&serde_json::from_str(model).unwrap()).unwrap();
        let whole =
            wiring::whole(Path::new("x"), &network, &arrays, Head::Required, &Hints::default());
        whole.unwrap().is_some()
    };
    assert!(read(&model));
    for (from, to) in [
        ("\"strides\": [2, 2]", "\"strides\": [1, 1]"),
        ("\"dilation_rate\": [1, 1]", "\"dilation_rate\": [2, 2]"),
        ("\"padding\": [[1, 1], [1, 1]]", "\"padding\": [[0, 1], [0, 1]]"),
        ("\"padding\": \"same\"", "\"padding\": \"valid\""),
        ("\"max_value\": 6.0", "\"max_value\": 4.0"),
        ("\"class_name\": \"ReLU\"", "\"class_name\": \"Own\""),
        ("\"class_name\": \"Add\"", "\"class_name\": \"Multiply\""),
        ("\"epsilon\": 0.001", "\"epsilon\": 0.01"),
        ("\"GlobalAveragePooling2D\"", "\"Flatten\""),
        ("block_1_project_BN", "block_1_another_BN"),
        ("\"activation\": \"softmax\"", "\"activation\": \"sigmoid\""),
    ] {
        assert!(model.contains(from), "{from} is not in {model}");
        let all = if from.starts_with("block") { usize::MAX } else { 1 };
        assert!(!read(&model.replacen(from, to, all)), "{to}");
    }
}
