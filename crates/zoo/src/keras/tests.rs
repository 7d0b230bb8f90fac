//! Models in the forms that Keras saves compute here what they compute there; see
//! `fixtures/keras_forms/README.md`.

use super::applications::Family;
use super::arrays::Arrays;
use super::config::Object;
use super::layers::Network;
use super::rewrite::rewrite;
use super::saved::scale_inside;
use crate::{Head, Hints, Imported, load, open_any, read};
use artifact::Preprocess;
use dataset::samples::normalize;
use formats::hdf5;
use network::architecture::Architecture;
use network::evaluate::evaluate;
use network::graph::NodeOp;
use network::init::random_checkpoint;
use network::model::FloatModel;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(file)
}

#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    low: f32,
    high: f32,
    logits: Vec<f64>,
    #[serde(default)]
    caffe: bool,
    #[serde(default)]
    trains: bool,
}

impl Expected {
    fn bytes(&self) -> Vec<u8> {
        let len: usize = self.shape.iter().product();
        (0..len as u64).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect()
    }

    /// What the network takes; of one that takes blue, green and red as Caffe does, what it takes here.
    fn input(&self) -> Vec<f32> {
        let value = |byte: &u8| f32::from(*byte) / 255.0 * (self.high - self.low) + self.low;
        let mut values: Vec<f32> = self.bytes().iter().map(value).collect();
        if self.caffe {
            for pixel in values.as_chunks_mut::<3>().0 {
                pixel.iter_mut().zip([123.68, 116.779, 103.939]).for_each(|(v, mean)| *v -= mean);
            }
        }
        values
    }

    /// Logits up to a number that all have in common.
    fn assert_near(&self, logits: &[f32], what: &str) {
        let scores = |logits: Vec<f64>| {
            let sum = logits.iter().map(|v| v.exp()).sum::<f64>().ln();
            logits.into_iter().map(|v| v - sum).collect::<Vec<f64>>()
        };
        let logits = scores(logits.iter().map(|v| f64::from(*v)).collect());
        let wanted = scores(self.logits.clone());
        assert_eq!(logits.len(), wanted.len(), "{what}");
        for (a, b) in logits.iter().zip(&wanted) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: {a}, Keras has {b}");
        }
    }
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&read(&fixture("keras_forms/expected.json")).unwrap()).unwrap()
}

fn graph(path: &Path, hints: &Hints) -> FloatModel {
    match open_any(path, Head::Required, hints).unwrap() {
        Imported::Graph(model) => *model,
        Imported::Checkpoint(_) => panic!("{} is taken for a checkpoint", path.display()),
    }
}

#[test]
fn all_forms_compute_what_keras_computes() {
    for (file, wanted) in expected() {
        let hints = Hints { size: Some(wanted.shape[0] as u16), ..Hints::default() };
        // Only weights do not say the size.
        let hints = if wanted.caffe { hints } else { Hints::default() };
        let model = graph(&fixture("keras_forms").join(&file), &hints);
        wanted.assert_near(&evaluate(&model.graph, &wanted.input()), &file);
    }
}

/// A network that rescales pictures is given them as they are.
#[test]
fn what_rescales_inside_stays_inside() {
    for file in ["nested.keras", "nested.h5", "normalized.keras", "caffe.keras"] {
        let model = graph(&fixture("keras_forms").join(file), &Hints::default());
        let p = model.preprocess;
        assert_eq!((p.scale, p.offset), ([1.0; 3], [0.0; 3]), "{file}");
        assert!(!model.is_preprocess_assumed, "{file}");
    }
    let model = graph(&fixture("keras_forms/base.keras"), &Hints::default());
    assert!(model.is_preprocess_assumed);
}

/// What rescales pictures becomes preprocessing of a checkpoint, which computes the same.
#[test]
fn nested_and_rescaled_resnets_can_be_trained_further() {
    for (file, wanted) in expected() {
        let loaded = load(&fixture("keras_forms").join(&file), Head::Required);
        if !wanted.trains {
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("cannot be trained further"), "{file}: {error}");
            continue;
        }
        // Only weights do not say the size.
        let sized = loaded.unwrap().edit(|draft| {
            draft.preprocess.height = wanted.shape[0] as u16;
            draft.preprocess.width = wanted.shape[1] as u16;
            Ok(())
        });
        let checkpoint = sized.unwrap();
        let filters = if wanted.caffe { [4, 5] } else { [4, 6] };
        assert_eq!(
            checkpoint.config.family.resnet().unwrap().stackwise_num_filters,
            filters,
            "{file}"
        );
        let graph = checkpoint.graph().unwrap();
        let p = checkpoint.preprocess;
        let offset = if wanted.caffe || file == "caffe.keras" {
            [-123.68, -116.779, -103.939]
        } else {
            [-1.0; 3]
        };
        let input = if wanted.high == 255.0 {
            assert_eq!(p.offset, offset, "{file}");
            normalize(&wanted.bytes(), &p)
        } else {
            wanted.input()
        };
        wanted.assert_near(&evaluate(&graph, &input), &file);
    }
}

/// A folder with what a `.keras` file has in it.
#[test]
fn unpacked_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = read(&fixture("keras_forms/nested.keras")).unwrap();
    let mut archive = formats::archive::Archive::open(&bytes).unwrap();
    for name in ["config.json", "model.weights.h5"] {
        std::fs::write(dir.path().join(name), archive.member(name).unwrap()).unwrap();
    }
    let unpacked = graph(dir.path(), &Hints::default());
    let whole = graph(&fixture("keras_forms/nested.keras"), &Hints::default());
    assert!(unpacked.graph.nodes == whole.graph.nodes);
}

/// Known by its layers' names, blue, green and red become red, green and blue less Caffe's means.
#[test]
fn networks_of_keras_applications_are_prepared_for() {
    let wanted = &expected()["application.weights.h5"];
    let hints = Hints { size: Some(32), ..Hints::default() };
    let model = graph(&fixture("keras_forms/application.weights.h5"), &hints);
    let p = model.preprocess;
    assert_eq!((p.scale, p.offset), ([1.0; 3], [-123.68, -116.779, -103.939]));
    assert!(model.notes[0].contains("blue, green and red"), "{:?}", model.notes);
    wanted.assert_near(&evaluate(&model.graph, &normalize(&wanted.bytes(), &p)), "of a picture");

    let p = graph(&fixture("keras_forms/application_v2.h5"), &Hints::default()).preprocess;
    assert_eq!((p.scale, p.offset), ([1.0 / 127.5; 3], [-1.0; 3]));
    // Without a size, that of the pretrained ones.
    let open = graph(&fixture("keras_forms/application.weights.h5"), &Hints::default());
    assert_eq!((open.preprocess.height, open.graph.input_shape().h), (224, 224));
    assert!(open.notes[1].contains("--input-size"), "{:?}", open.notes);
}

/// As Keras itself, which has it in the network.
#[test]
fn preprocessing_moves_inside() {
    let config = Architecture::named("resnet_8_cifar", 4).unwrap();
    let checkpoint = random_checkpoint(config, 32, 5).unwrap().edit(|draft| {
        draft.preprocess = Preprocess::normalized(32, 32, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]);
        Ok(())
    });
    let checkpoint = checkpoint.unwrap();
    let outside = FloatModel::from_checkpoint(&checkpoint).unwrap();
    let mut inside = outside.clone();
    scale_inside(&mut inside);
    assert!(matches!(inside.graph.nodes[1].op, NodeOp::BatchNorm { .. }));
    let bytes: Vec<u8> = (0..32 * 32 * 3).map(|i| (i % 251) as u8).collect();
    let of = |model: &FloatModel| evaluate(&model.graph, &normalize(&bytes, &model.preprocess));
    for (a, b) in of(&inside).iter().zip(of(&outside)) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a}, {b}");
    }
    // And back.
    let again = Imported::Graph(Box::new(inside)).into_checkpoint(Path::new("x")).unwrap();
    for (a, b) in again.preprocess.scale.iter().zip(checkpoint.preprocess.scale) {
        assert!((a - b).abs() <= 1e-6 * b, "{a}, {b}");
    }
    assert!(
        again.tensors["stack1_block0_0_conv.weight"]
            == checkpoint.tensors["stack1_block0_0_conv.weight"]
    );
}

/// The input of the network is its size, whatever its preprocessor makes.
#[test]
fn image_shapes_are_honored() {
    let from = fixture("keras/v1_basic/preset");
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = super::json(&path).unwrap();
    config["config"]["image_shape"] = serde_json::json!([48, 40, 3]);
    std::fs::write(&path, config.to_string()).unwrap();
    let p = load(dir.path(), Head::Required).unwrap().preprocess;
    assert_eq!((p.height, p.width), (48, 40));
    let hints = Hints { size: Some(36), ..Hints::default() };
    let Imported::Checkpoint(c) = open_any(dir.path(), Head::Required, &hints).unwrap() else {
        panic!("no checkpoint");
    };
    assert_eq!((c.preprocess.height, c.preprocess.width), (36, 36));
}

/// The first layer that is not read is named, with what is, and a way out.
#[test]
fn other_networks_are_refused() {
    let contents = hdf5::parse(read(&fixture("keras_legacy/even.h5")).unwrap()).unwrap();
    let model = contents.model_config.clone().unwrap();
    let arrays = Arrays::new(contents);
    let error = |from: &str, to: &str| {
        assert!(model.contains(from), "{from} is not in {model}");
        let model: Object<_> = serde_json::from_str(&model.replacen(from, to, 1)).unwrap();
        let network = Network::new(&model);
        let rewritten = network.and_then(|n| rewrite(&n, &arrays, Family::of(&n), None));
        rewritten.map(|_| ()).expect_err(to)
    };
    for (from, to, wanted) in [
        ("\"Functional\"", "\"Own\"", "a Own, expected a functional or sequential model; in Keras"),
        ("\"InputLayer\"", "\"Masking\"", "reads what no other layer computes"),
        ("\"Conv2D\"", "\"Conv2DTranspose\"", "layer `conv2d` (Conv2DTranspose)"),
        ("\"Conv2D\"", "\"Own\"", "model.export(\"model.onnx\", format=\"onnx\")"),
        ("\"padding\": \"same\"", "\"padding\": \"causal\"", "padding causal"),
        ("\"channels_last\"", "\"channels_first\"", "channels first"),
        ("\"axis\": -1", "\"axis\": 1", "expected one over channels"),
        ("\"relu\"", "\"selu\"", "the activation selu is not read"),
        ("\"softmax\"", "\"sigmoid\"", "ends in sigmoid"),
    ] {
        let text = error(from, to);
        assert!(text.contains(wanted), "{to}: {text}");
    }
}

/// Keras before 3.6 writes no names: the numbers alone must lead to the same tensors.
#[test]
fn numbers_do_where_names_are_missing() {
    let fixtures = fixture("keras");
    for model in ["v1_basic", "v1_bottleneck", "v2_bottleneck", "vd_bottleneck"] {
        let dir = fixtures.join(model).join("preset");
        let whole = super::preset(&dir, Head::Required).unwrap();
        let config: Object<serde_json::Value> = super::json(&dir.join("config.json")).unwrap();
        let backbone = super::Backbone::read(&config.class_name, config.config).unwrap();
        let places = super::Places::of(&whole.config, &backbone);
        let (mut found, mut extra) = (BTreeMap::new(), Vec::new());
        for file in ["model.weights.h5", "task.weights.h5"] {
            let mut contents = hdf5::parse(read(&dir.join(file)).unwrap()).unwrap();
            assert!(!contents.names.is_empty());
            contents.names.clear();
            super::weights::collect(contents, &places, &mut found, &mut extra);
        }
        assert!(found == whole.tensors && extra.is_empty(), "{model}");
    }
}

/// A layer that a few bytes call again and again is not copied each time, nor are endless names.
#[test]
fn calls_do_not_multiply_descriptions() {
    let error = |name: &str, calls: usize| {
        let long = "note".repeat(20_000);
        let call = serde_json::json!([["input", 0, 0, {}]]);
        let config = serde_json::json!({ "name": "model", "layers": [
            { "class_name": "InputLayer", "name": "input", "config": { "batch_shape": [null, 8, 8, 3] } },
            { "class_name": "ReLU", "name": name, "config": { "note": long }, "inbound_nodes": vec![call; calls] },
        ], "output_layers": [[name, calls - 1, 0]] });
        Network::new(&Object { class_name: "Functional".into(), config }).map(|_| ())
    };
    assert_eq!(error("r", 2), Ok(()));
    assert!(error("r", 1000).unwrap_err().contains("again and again"));
    assert!(error(&"r".repeat(2000), 1).unwrap_err().contains("name of 2000 bytes"));
}
