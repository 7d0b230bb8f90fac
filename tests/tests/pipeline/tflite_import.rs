//! Models of TensorFlow Lite compute here what they compute there; see `fixtures/tflite/README.md`.

use artifact::Preprocess;
use convert::pipeline::{Options, convert};
use edge_tests::{fixture, npy};
use network::evaluate::evaluate;
use network::model::FloatModel;
use runtime::{AlignedBuf, Model, Session};
use zoo::{Head, Hints, Imported, open_any};

fn import(file: &str) -> FloatModel {
    match open_any(&fixture("tflite").join(file), Head::Required, &Hints::default()).unwrap() {
        Imported::Graph(model) => *model,
        Imported::Checkpoint(_) => panic!("{file} is taken for a checkpoint"),
    }
}

/// Pictures, and what is expected of each.
fn golden(logits: &str) -> Vec<(Vec<f32>, Vec<f32>)> {
    let (shape, pictures) = npy("tflite/input.npy");
    let (_, logits) = npy(format!("tflite/{logits}"));
    let (len, classes) = (pictures.len() / shape[0], logits.len() / shape[0]);
    let pictures = pictures.chunks(len).map(<[f32]>::to_vec);
    pictures.zip(logits.chunks(classes).map(<[f32]>::to_vec)).collect()
}

/// Logarithms of probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let sum = logits.iter().map(|x| x.exp()).sum::<f32>().ln();
    logits.iter().map(|x| x - sum).collect()
}

#[test]
fn floats_are_those_of_tensorflow() {
    let [exact, rounded] = [import("float.tflite"), import("int8_weights.tflite")];
    // It begins with a Rescaling of bytes.
    for model in [&exact, &rounded] {
        assert_eq!(
            (model.preprocess, model.is_preprocess_assumed),
            (Preprocess::raw(20, 20), false)
        );
    }
    let mut worst = 0.0f32;
    for (picture, want) in golden("logits.npy") {
        let near = |model: &FloatModel, tolerance: f32| {
            let have = log_softmax(&evaluate(&model.graph, &picture));
            let error = have.iter().zip(&want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error <= tolerance, "{have:?}, TensorFlow has {want:?}");
            error
        };
        near(&exact, 1e-4);
        worst = worst.max(near(&rounded, 0.1));
    }
    // Its weights are others.
    assert!(worst > 1e-3, "{worst}");
}

#[test]
fn int8_keeps_the_scales_of_the_file() {
    let model = import("int8.tflite");
    assert!(!model.is_preprocess_assumed);
    assert_eq!(model.preprocess, Preprocess::raw(20, 20));
    // No pictures: nothing is left to be measured.
    let converted = convert(&model, &[], Options::default(), |_, _| ()).unwrap();
    let scale = converted.int8.as_ref().unwrap().quants.last().unwrap().scale;
    let file = AlignedBuf::from_slice(&converted.emitted.bytes);
    let device = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(device.arena_len());
    let mut session = Session::new(&device, &mut arena).unwrap();
    for (picture, want) in golden("int8_logits.npy") {
        let mut input = session.input_mut();
        picture.iter().enumerate().for_each(|(i, v)| input.set(i, *v));
        let have: Vec<f32> = session.run().iter().collect();
        let steps = have.iter().zip(&want).map(|(a, b)| ((a - b) / scale).abs());
        let most = steps.fold(0.0, f32::max);
        // Sums are rounded once here, twice or three times there.
        assert!(most < 4.5, "{most} steps: {have:?}, TensorFlow Lite has {want:?}");
    }
}
