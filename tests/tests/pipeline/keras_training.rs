//! Gradients, batch statistics, optimizer steps, schedules, losses and metrics are Keras'; see
//! `fixtures/keras/README.md`.

use burn::module::{Module, Param, RunningState};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use edge_tests::{fixture, npy, read};
use network::architecture::Architecture;
use network::checkpoint;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use trainer::net::{Init, Network, Role, Tensors, Visitor, load_tensors, save_tensors};
use trainer::train::{
    Average, Clip, Optimizer, OptimizerConfig, Rule, Schedule, argmax, cross_entropy,
    cross_entropy_of_probabilities, network, rank, targets,
};
use zoo::{Head, load};

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
        let layer = if layer == "dense" { "predictions" } else { layer };
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

fn tensors(net: &Network) -> Bundle {
    save_tensors(net).into_iter().map(|(name, tensor)| (name, tensor.to_f32())).collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// A short training run of Keras'.
struct Training {
    golden: &'static str,
    net: Network,
    labels: Vec<u32>,
    classes: usize,
    /// Rate of each step, from 0.
    rate: fn(u64) -> f64,
    /// The head ends in a softmax, and the loss takes its probabilities.
    softmax: bool,
}

impl Training {
    fn matches_keras(mut self) {
        let golden = |file: &str| PathBuf::from("keras/train").join(self.golden).join(file);
        let device = Device::flex().autodiff();
        let (shape, pictures) = npy(golden("x.npy"));
        let x = Tensor::<1>::from_data(
            TensorData::new(pictures, [shape.iter().product::<usize>()]),
            &device,
        );
        let x = x.reshape([shape[0], shape[1], shape[2], 3]).permute([0, 3, 1, 2]);
        let meta: Value = serde_json::from_slice(&read(golden("meta.json"))).unwrap();
        let mut optimizer = Optimizer::new(OptimizerConfig {
            weight_decay: 5e-4,
            decay_all: true,
            ..OptimizerConfig::plain(Rule::Sgd { momentum: 0.9, nesterov: false })
        });
        // In the guide's network, rounding decides which of two nearly equal pixels learns, and whether a unit
        // of its last, tiny maps is above zero: PyTorch in double precision is as far from Keras. The other
        // networks hold the bound.
        let later = |step| if self.softmax && step > 0 { 4e-2 } else { 1e-4 };
        let answer = |logits: Tensor<2>| if self.softmax { softmax(logits, 1) } else { logits };
        for (step, record) in meta["records"].as_array().unwrap().iter().enumerate() {
            let scores = answer(self.net.forward(x.clone()));
            let target = targets(&self.labels, self.classes, 0.1, &device);
            let loss = match self.softmax {
                true => cross_entropy_of_probabilities(scores.clone(), target),
                false => cross_entropy(scores.clone(), target),
            };
            let gradients = loss.backward();
            let want = record["loss_before_update"].as_f64().unwrap() as f32;
            assert_close("loss", &values(loss.inner()), &[want], later(step));
            if step == 0 {
                let (_, want) = npy(golden("train_pred_step0.npy"));
                assert_close("training-mode output", &values(scores.inner()), &want, 1e-4);
                let want = golden("grads_step0.safetensors");
                if fixture(&want).exists() {
                    let mut collect = Collect(&gradients, Bundle::new());
                    self.net.visit_tensors(&mut collect);
                    let want = bundle(want);
                    assert!(collect.1.keys().eq(want.keys()));
                    for (name, want) in &want {
                        let what = format!("gradient of {name}");
                        assert_close(&what, &collect.1[name], want, later(1));
                    }
                }
            }
            optimizer.step(&mut self.net, gradients, (self.rate)(step as u64));
            if step == 0 {
                let got = tensors(&self.net.valid());
                for (name, want) in bundle(golden("bn_stats_after_step1.safetensors")) {
                    assert_close(&name, &got[&name], &want, 1e-4);
                }
            }
        }
        let net = self.net.valid();
        let want = golden("weights_final.safetensors");
        if fixture(&want).exists() {
            let got = tensors(&net);
            let want = bundle(want);
            assert!(got.keys().eq(want.keys()));
            for (name, want) in &want {
                assert_close(&format!("final {name}"), &got[name], want, later(9));
            }
        }
        let (_, want) = npy(golden("infer_pred_final.npy"));
        let got = values(answer(net.forward(x.inner())));
        assert_close("final output", &got, &want, later(9));
    }
}

/// Three steps of SGD on six pictures.
fn trains_as_keras(golden: &'static str) {
    let preset = fixture("keras").join(golden).join("preset");
    let checkpoint = load(&preset, Head::Required).unwrap();
    let net = network(&checkpoint, &Device::flex().autodiff()).unwrap();
    let labels = LABELS.to_vec();
    Training { golden, net, labels, classes: 10, rate: |_| 0.01, softmax: false }.matches_keras();
}

/// The guide's third section: five steps of its network, loss, schedule and optimizer on raw
/// pixels. The third picture's label lies beyond the classes; dropout was off.
#[test]
fn the_guides_network_trains_as_in_keras() {
    let device = Device::flex().autodiff();
    let config = Architecture::by_name("kerashub_guide", 101).unwrap();
    let mut net = Network::new(&config, Init::he(0), &device).unwrap();
    let shapes: BTreeMap<_, _> = config.blueprint().tensors().collect();
    let start = bundle("keras/train/guide_scratch/weights_step0.safetensors".into());
    let start: BTreeMap<_, _> = start
        .iter()
        .map(|(name, values)| (name.clone(), checkpoint::Tensor::from_f32(&shapes[name], values)))
        .collect();
    load_tensors(&mut net, &start, false).unwrap();
    let rate = |t| Schedule { target: 0.01, warmup: 2, hold: 2, total: 8 }.at(t);
    let labels = vec![3, 100, 101, 0];
    let golden = "guide_scratch";
    Training { golden, net, labels, classes: 101, rate, softmax: true }.matches_keras();
}

/// One tensor of Keras' optimizer table.
struct Vector(Param<Tensor<1>>);

impl Tensors for Vector {
    fn visit_tensors<V: Visitor>(&mut self, visitor: &mut V) {
        visitor.parameter("w", Role::Weight, &mut self.0);
    }
}

#[test]
fn optimizers_are_keras() {
    let golden: Value = serde_json::from_slice(&read("keras/optimizer/trajectories.json")).unwrap();
    let device = Device::flex().autodiff();
    let vector = |value: &Value| -> Tensor<1> {
        let values: Vec<f32> = serde_json::from_value(value.clone()).unwrap();
        Tensor::from_data(TensorData::new(values, [4]), &device)
    };
    let mut names = Vec::new();
    for run in golden["runs"].as_array().unwrap() {
        let name = run["name"].as_str().unwrap();
        let c = &run["config"];
        let number = |key: &str| c[key].as_f64();
        let mut config = OptimizerConfig::plain(match number("beta_1") {
            Some(beta_1) => Rule::Adam {
                beta_1,
                beta_2: number("beta_2").unwrap(),
                epsilon: number("epsilon").unwrap(),
            },
            None => Rule::Sgd {
                momentum: number("momentum").unwrap_or(0.0),
                nesterov: c["nesterov"].as_bool().unwrap_or(false),
            },
        });
        config.weight_decay = number("weight_decay").unwrap_or(0.0);
        config.clip = (number("clipnorm").map(Clip::Norm))
            .or(number("global_clipnorm").map(Clip::GlobalNorm))
            .or(number("clipvalue").map(Clip::Value));
        config.average = c["use_ema"].as_bool().unwrap_or(false).then(|| Average {
            decay: number("ema_momentum").unwrap(),
            overwrite: c["ema_overwrite_frequency"].as_u64(),
        });
        config.accumulate = c["gradient_accumulation_steps"].as_u64().unwrap_or(1) as u32;
        let schedule = Schedule { target: 0.01, warmup: 2, hold: 2, total: 8 };
        if name == "guide_schedule" {
            config.rule = Rule::Sgd { momentum: 0.9, nesterov: false };
            config.weight_decay = 5e-4;
        }
        let mut w = Vector(Param::from_tensor(vector(&golden["w0"])));
        let mut optimizer = Optimizer::new(config);
        let steps = golden["grads"].as_array().unwrap().iter();
        for (t, (gradient, want)) in steps.zip(run["trajectory"].as_array().unwrap()).enumerate() {
            let rate = number("learning_rate").unwrap_or_else(|| schedule.at(t as u64));
            // The gradient of Σ w·g is g.
            let gradients = (w.0.val() * vector(gradient)).sum().backward();
            optimizer.step(&mut w, gradients, rate);
            let got = values(w.0.val().inner());
            let want: Vec<f32> = serde_json::from_value(want["w"].clone()).unwrap();
            assert_close(&format!("{name} after step {t}"), &got, &want, 1e-6);
        }
        names.push(name);
    }
    assert_eq!(names.len(), 14, "{names:?}");
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
    let labels: Vec<u32> = serde_json::from_value(golden["labels"].clone()).unwrap();
    let device = Device::flex();
    for (source, scores) in [
        ("logits", "logits"),
        ("probs", "probs"),
        ("unnormalised_positive", "unnormalised"),
        ("logits_WRONGLY_as_probs", "logits"),
    ] {
        let loss = match source {
            "logits" => cross_entropy,
            _ => cross_entropy_of_probabilities,
        };
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[scores].clone()).unwrap();
        for smoothing in ["0.0", "0.1", "0.3"] {
            // A label beyond the classes has no target, as the guide's one-hot makes of it.
            for (kind, first) in [("onehot", labels[0]), ("first_row_all_zero", 99)] {
                let key = format!("cce/{source}/{kind}/ls{smoothing}");
                let result = &golden["results"][&key];
                let want: Vec<f32> = serde_json::from_value(result["per_sample"].clone()).unwrap();
                for (i, (row, want)) in rows.iter().zip(&want).enumerate() {
                    let label = if i == 0 { first } else { labels[i] };
                    let smoothing = smoothing.parse().unwrap();
                    let target = targets(&[label], row.len(), smoothing, &device);
                    let data = TensorData::new(row.clone(), [1, row.len()]);
                    let got = values(loss(Tensor::from_data(data, &device), target))[0];
                    assert!((got - want).abs() <= 1e-5, "{key} {i}: {got}, Keras has {want}");
                }
            }
        }
    }
    clipped_probabilities_teach_nothing(&golden["results"]["guide_finetune_logits_as_probs"]);
}

/// The guide's second section feeds logits to a loss of probabilities.
fn clipped_probabilities_teach_nothing(golden: &Value) {
    let device = Device::flex().autodiff();
    let table = |key: &str| -> Tensor<2> {
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[key].clone()).unwrap();
        Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), 2]), &device)
    };
    let logits = table("logits").require_grad();
    let loss = cross_entropy_of_probabilities(logits.clone(), table("true"));
    let want = golden["mean"].as_f64().unwrap() as f32;
    assert_close("mean", &values(loss.clone().inner()), &[want], 1e-5);
    let gradient = values(logits.grad(&loss.backward()).unwrap());
    let want: Vec<Vec<f32>> = serde_json::from_value(golden["grad_wrt_logits"].clone()).unwrap();
    assert_close("gradient", &gradient, &want.concat(), 1e-5);
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
