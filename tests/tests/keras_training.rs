//! Gradients, batch statistics, optimizer steps, schedules, losses and metrics are Keras'; see
//! `fixtures/keras/README.md`.

use burn::module::{Module, Param, RunningState};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use convert::import::{Head, load};
use edge_tests::{fixture, npy, read};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use trainer::resnet::{ResNet, Role, Visitor, save_tensors};
use trainer::train::{Schedule, Sgd, SgdConfig, argmax, cross_entropy, network, rank, targets};

/// Classes of the six training pictures.
const LABELS: [u32; 6] = [0, 3, 9, 1, 1, 5];

/// Values by canonical name, in the checkpoint's layout.
type Bundle = BTreeMap<String, Vec<f32>>;

/// A bundle under Keras' names: convolutions HWIO, dense (in, out).
fn bundle(path: PathBuf) -> Bundle {
    let bytes = read(path);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let (values, _) = view.data().as_chunks();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let (layer, part) = name.split_once('/').unwrap();
        if part != "kernel" {
            return (format!("{layer}.{}", part.trim_start_matches("moving_")), values);
        }
        let outputs = *view.shape().last().unwrap();
        let column = |o: usize| values.iter().skip(o).step_by(outputs).copied();
        (format!("{layer}.weight"), (0..outputs).flat_map(column).collect())
    };
    file.tensors().into_iter().map(entry).collect()
}

/// Relative to the largest value of the tensor.
fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}[{i}] is {a}, Keras has {b}");
    }
}

/// Gradients in the checkpoint's layout.
struct Collect<'a>(&'a Gradients, Bundle);

impl Visitor for Collect<'_> {
    fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
        let gradient = value.val().grad(self.0).unwrap();
        let gradient = if D == 4 { gradient.swap_dims(1, 2).swap_dims(2, 3) } else { gradient };
        self.1.insert(name.into(), gradient.into_data().iter::<f32>().collect());
    }
    fn statistic(&mut self, _: &str, _: &RunningState<Tensor<1>>) {}
}

fn tensors(net: &ResNet) -> Bundle {
    save_tensors(net).into_iter().map(|(name, tensor)| (name, tensor.to_f32())).collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Three steps of SGD on six pictures.
fn trains_as_keras(model: &str) {
    let golden = |file: &str| PathBuf::from("keras/train").join(model).join(file);
    let preset = fixture("keras").join(model).join("preset");
    let checkpoint = load(&preset, Head::Required).unwrap();
    let device = Device::flex().autodiff();
    let mut net = network(&checkpoint, &device).unwrap();
    let (shape, pictures) = npy(golden("x.npy"));
    let x = Tensor::<1>::from_data(
        TensorData::new(pictures, [shape.iter().product::<usize>()]),
        &device,
    );
    let x = x.reshape([shape[0], shape[1], shape[2], 3]).permute([0, 3, 1, 2]);
    let meta: Value = serde_json::from_slice(&read(golden("meta.json"))).unwrap();
    let config =
        SgdConfig { momentum: 0.9, weight_decay: 5e-4, decay_all: true, backbone_rate: 1.0 };
    let mut sgd = Sgd::new(config);
    for (step, record) in meta["records"].as_array().unwrap().iter().enumerate() {
        let logits = net.forward(x.clone());
        let loss = cross_entropy(logits.clone(), targets(&LABELS, 10, 0.1, &device));
        let gradients = loss.backward();
        let want = record["loss_before_update"].as_f64().unwrap() as f32;
        assert_close("loss", &values(loss.inner()), &[want], 1e-4);
        if step == 0 {
            let (_, want) = npy(golden("train_pred_step0.npy"));
            assert_close("training-mode logits", &values(logits.inner()), &want, 1e-4);
            let mut collect = Collect(&gradients, Bundle::new());
            net.visit_tensors(&mut collect);
            let want = bundle(golden("grads_step0.safetensors"));
            assert!(collect.1.keys().eq(want.keys()));
            for (name, want) in &want {
                assert_close(&format!("gradient of {name}"), &collect.1[name], want, 1e-4);
            }
        }
        sgd.step(&mut net, gradients, 0.01);
        if step == 0 {
            let got = tensors(&net.valid());
            for (name, want) in bundle(golden("bn_stats_after_step1.safetensors")) {
                assert_close(&name, &got[&name], &want, 1e-4);
            }
        }
    }
    let net = net.valid();
    let got = tensors(&net);
    let want = bundle(golden("weights_final.safetensors"));
    assert!(got.keys().eq(want.keys()));
    for (name, want) in &want {
        assert_close(&format!("final {name}"), &got[name], want, 1e-4);
    }
    let (_, want) = npy(golden("infer_pred_final.npy"));
    assert_close("final logits", &values(net.forward(x.inner())), &want, 1e-4);
}

#[test]
fn v1_basic_trains_as_in_keras() {
    trains_as_keras("v1_basic");
}

#[test]
fn v2_bottleneck_trains_as_in_keras() {
    trains_as_keras("v2_bottleneck");
}

#[test]
fn schedules_are_keras_hubs() {
    let cases: Vec<Value> =
        serde_json::from_slice(&read("keras/schedule/warmup_cosine.json")).unwrap();
    for case in cases {
        let steps = |key: &str| case[key].as_u64().unwrap();
        let schedule = Schedule {
            target: case["target_lr"].as_f64().unwrap(),
            warmup: steps("warmup_steps"),
            hold: steps("hold"),
            total: steps("total_steps"),
        };
        for (t, want) in case["lr_by_step"].as_array().unwrap().iter().enumerate() {
            // Where no step is left for the cosine, Keras divides by zero; we hold the rate.
            let want = want.as_f64().unwrap_or(schedule.target);
            let got = schedule.at(t as u64);
            assert!((got - want).abs() <= 1e-8, "{schedule:?} at {t}: {got}, Keras has {want}");
        }
    }
}

#[test]
fn losses_are_keras() {
    let golden: Value = serde_json::from_slice(&read("keras/losses/losses.json")).unwrap();
    let rows: Vec<Vec<f32>> = serde_json::from_value(golden["logits"].clone()).unwrap();
    let labels: Vec<u32> = serde_json::from_value(golden["labels"].clone()).unwrap();
    let device = Device::flex();
    let row = |i: usize| {
        Tensor::<2>::from_data(TensorData::new(rows[i].clone(), [1, rows[i].len()]), &device)
    };
    for smoothing in ["0.0", "0.1", "0.3"] {
        // A label beyond the classes has no target, as the guide's one-hot makes of it.
        for (kind, first) in [("onehot", labels[0]), ("first_row_all_zero", 99)] {
            let key = format!("cce/logits/{kind}/ls{smoothing}");
            let result = &golden["results"][&key];
            let want: Vec<f32> = serde_json::from_value(result["per_sample"].clone()).unwrap();
            for (i, want) in want.iter().enumerate() {
                let label = if i == 0 { first } else { labels[i] };
                let smoothing = smoothing.parse().unwrap();
                let target = targets(&[label], rows[i].len(), smoothing, &device);
                let got = values(cross_entropy(row(i), target));
                assert!((got[0] - want).abs() <= 1e-5, "{key} {i}: {}, Keras has {want}", got[0]);
            }
        }
    }
}

#[test]
fn metrics_are_keras() {
    let golden: Value = serde_json::from_slice(&read("keras/metrics/metrics.json")).unwrap();
    let labels: Vec<u32> = serde_json::from_value(golden["true"].clone()).unwrap();
    // "NaN" stands for itself.
    let number = |v: &Value| v.as_f64().map_or(f32::NAN, |v| v as f32);
    let rows = golden["pred"].as_array().unwrap().iter();
    let rows: Vec<Vec<f32>> =
        rows.map(|row| row.as_array().unwrap().iter().map(number).collect()).collect();
    let per_sample = |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let results = &golden["results"];
    for k in [1, 2, 3, 5] {
        let got: Vec<f32> = rows
            .iter()
            .zip(&labels)
            .map(|(scores, &label)| f32::from(u8::from(rank(scores, label) < k)))
            .collect();
        assert_eq!(got, per_sample(&results[format!("sparse_top{k}")]), "top {k}");
    }
    let got: Vec<f32> = rows
        .iter()
        .zip(&labels)
        .map(|(scores, &label)| f32::from(u8::from(argmax(scores) == label as usize)))
        .collect();
    assert_eq!(got, per_sample(&results["sparse_categorical_accuracy"]));
}
