//! Imported presets compute what KerasHub computes, and so do the trainer's networks; see `fixtures/keras/README.md`.

use crate::engines;
use artifact::Preprocess;
use burn::tensor::Device;
use convert::optimize::optimize;
use dataset::fit;
use dataset::samples::normalize;
use edge_tests::{changed, fixture, npy, read, resnet};
use network::architecture::Architecture;
use network::blueprint::Pooling;
use network::checkpoint::{self, Checkpoint};
use runtime::Isa;
use runtime::preprocess::RgbView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zoo::keras::to_preset;
use zoo::keras::weights::layer_order;
use zoo::{Head, load};

/// Absolute, on logits of order 10.
const TOLERANCE: f32 = 1e-4;

/// The model's preset directory.
fn preset(model: &str) -> PathBuf {
    fixture("keras").join(model).join("preset")
}

fn golden(model: &str, file: &str) -> (Vec<usize>, Vec<f32>) {
    npy(Path::new("keras").join(model).join(file))
}

/// The preset, for inputs that are preprocessed already.
fn checkpoint(model: &str, height: usize, width: usize) -> Checkpoint {
    let (height, width) = (height.try_into().unwrap(), width.try_into().unwrap());
    plain(load(&preset(model), Head::Required).unwrap(), height, width)
}

/// That takes tensors as they come.
fn plain(checkpoint: Checkpoint, height: u16, width: u16) -> Checkpoint {
    let preprocess = Preprocess::normalized(height, width, [0.0; 3], [1.0; 3]);
    changed(checkpoint, |draft| draft.preprocess = preprocess)
}

fn assert_close(what: &str, logits: &[f32], expected: &[f32]) {
    assert_eq!(logits.len(), expected.len());
    for (class, (a, b)) in logits.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "{what}: class {class} is {a}, KerasHub has {b}");
    }
}

fn matches_keras(model: &str) {
    for suffix in ["", "_odd"] {
        let (shape, pictures) = golden(model, &format!("input{suffix}.npy"));
        let (_, logits) = golden(model, &format!("logits{suffix}.npy"));
        let checkpoint = checkpoint(model, shape[1], shape[2]);
        for (engine, got) in engines::logits(&checkpoint, &shape, &pictures) {
            assert_close(engine, &got, &logits);
        }
    }
    raw_pictures_match_keras(model);
    feature_maps_match_keras(model);
    max_pooling_matches_keras(model);
}

/// The map behind each stack.
fn feature_maps_match_keras(model: &str) {
    let (shape, pictures) = golden(model, "input_odd.npy");
    let checkpoint = checkpoint(model, shape[1], shape[2]);
    let device = Device::flex();
    let net = trainer::train::network(&checkpoint, &device).unwrap();
    let maps = net.pyramid(engines::planes(&shape, &pictures));
    assert_eq!(maps.len(), resnet(&checkpoint).stackwise_num_blocks.len());
    for (i, map) in maps.into_iter().enumerate() {
        let (shape, want) = golden(model, &format!("pyramid_P{}_odd.npy", i + 2));
        let map = map.permute([0, 2, 3, 1]);
        assert_eq!(map.dims().to_vec(), shape);
        let got: Vec<f32> = map.into_data().iter::<f32>().collect();
        // Relative to the largest value: these maps are not yet averaged.
        let largest = want.iter().fold(1f32, |m, v| m.max(v.abs()));
        for (at, (a, b)) in got.iter().zip(&want).enumerate() {
            let close = (a - b).abs() <= 1e-5 * largest;
            assert!(close, "{model}: P{}[{at}] is {a}, KerasHub has {b}", i + 2);
        }
    }
}

/// With a head that hands the pooled features through.
fn max_pooling_matches_keras(model: &str) {
    let (shape, pictures) = golden(model, "input_odd.npy");
    let (_, pooled) = golden(model, "pooled_max_odd.npy");
    let checkpoint = changed(self::checkpoint(model, shape[1], shape[2]), |draft| {
        let features = draft.config.blueprint().features();
        draft.config.pooling = Pooling::Max;
        draft.config.classes = features;
        draft.labels = (0..features).map(|i| format!("feature {i}")).collect();
        let mut identity = vec![0.0; features * features];
        identity.iter_mut().step_by(features + 1).for_each(|v| *v = 1.0);
        let weight = checkpoint::Tensor::from_f32(&[features, features], &identity);
        let bias = checkpoint::Tensor::from_f32(&[features], &vec![0.0; features]);
        draft.tensors.insert("predictions.weight".into(), weight);
        draft.tensors.insert("predictions.bias".into(), bias);
    });
    for (engine, logits) in engines::logits(&checkpoint, &shape, &pictures) {
        assert_close(engine, &logits, &pooled);
    }
}

/// From 8-bit pictures of another size: the preset's own preprocessing and `predict`.
fn raw_pictures_match_keras(model: &str) {
    let bytes = read(Path::new("keras").join(model).join("raw_u8.npy"));
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (height, width) = (50, 41);
    let pixels = &bytes[10 + header_len..];
    assert_eq!(pixels.len(), 2 * height * width * 3);
    let (_, inputs) = golden(model, "raw_preprocessed_from_u8.npy");
    let (_, logits) = golden(model, "raw_predict_u8.npy");
    let checkpoint = load(&preset(model), Head::Required).unwrap();
    let p = checkpoint.preprocess;
    let mut graph = checkpoint.graph().unwrap();
    optimize(&mut graph);
    let device_file = engines::device_file(&graph, &checkpoint);
    for (i, picture) in pixels.chunks_exact(height * width * 3).enumerate() {
        let view = RgbView::new(picture, width, height, width * 3).unwrap();
        let input = normalize(&fit(view, &p).unwrap(), &p);
        let expected = &inputs[i * input.len()..][..input.len()];
        for (at, (a, b)) in input.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 1e-5, "{model}: input {at} is {a}, KerasHub has {b}");
        }
        let got = engines::run(&device_file, &input, Isa::detect());
        assert_close(model, &got, &logits[i * 10..][..10]);
    }
}

#[test]
fn v1_basic() {
    matches_keras("v1_basic");
}

#[test]
fn v1_bottleneck() {
    matches_keras("v1_bottleneck");
}

#[test]
fn v2_bottleneck() {
    matches_keras("v2_bottleneck");
}

#[test]
fn vd_bottleneck() {
    matches_keras("vd_bottleneck");
}

/// bfloat16 weights are exact in f32; KerasHub computed with them in bfloat16, 3e-2 relative.
#[test]
fn bfloat16_weights() {
    let checkpoint =
        plain(load(&preset("v2_bottleneck_bfloat16"), Head::Required).unwrap(), 32, 32);
    let (shape, pictures) = golden("v2_bottleneck", "input.npy");
    let (_, logits) = golden("v2_bottleneck_bfloat16", "logits.npy");
    let largest = logits.iter().fold(0f32, |m, v| m.max(v.abs()));
    let got = engines::burn(&checkpoint, &shape, &pictures);
    for (a, b) in got.iter().zip(&logits) {
        assert!((a - b).abs() <= 0.03 * largest, "{a}, KerasHub has {b}");
    }
}

/// KerasHub rounds the head's inputs to 8 bits as well, which moves its logits by about 1 %.
#[test]
fn int8_heads() {
    let dir = tempfile::tempdir().unwrap();
    let backbone = preset("v2_bottleneck");
    for (from, files) in [
        (backbone, &["config.json", "task.json", "image_converter.json", "model.weights.h5"][..]),
        (fixture("keras/v2_bottleneck_int8"), &["task.weights.h5"]),
    ] {
        for file in files {
            std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
        }
    }
    let checkpoint = plain(load(dir.path(), Head::Required).unwrap(), 32, 32);
    let (shape, pictures) = golden("v2_bottleneck", "input.npy");
    let (_, logits) = golden("v2_bottleneck_int8", "logits.npy");
    let largest = logits.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (a, b) in engines::burn(&checkpoint, &shape, &pictures).iter().zip(&logits) {
        assert!((a - b).abs() <= 0.01 * largest, "{a}, KerasHub has {b}");
    }
}

/// For every preset there is: which layer is `conv2d_7`.
#[test]
fn layers_are_numbered_as_keras_does() {
    let orders: BTreeMap<String, BTreeMap<String, Vec<String>>> =
        serde_json::from_slice(&read("keras/h5_index_orders.json")).unwrap();
    for (name, classes) in orders {
        let config = Architecture::by_name(&name, 1000);
        let ours = layer_order(&config.unwrap_or_else(|| panic!("{name} is not known")));
        for (class, layers) in classes {
            assert_eq!(ours[class.as_str()], layers, "{name}: {class}");
        }
    }
}

/// Given a file's name and bytes: what it becomes, or `None` to leave it away.
type Change<'a> = dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>> + 'a;

#[test]
fn presets_say_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |change: &Change<'_>| {
        for entry in std::fs::read_dir(preset("v1_basic")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let to = dir.path().join(&name);
            match change(&name, std::fs::read(entry.path()).unwrap()) {
                Some(bytes) => std::fs::write(to, bytes).unwrap(),
                None => drop(std::fs::remove_file(to)),
            }
        }
        load(dir.path(), Head::Required).map_err(|e| e.to_string())
    };
    let edited = |file: &'static str, from: &'static str, to: &'static str| {
        move |name: &str, bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes).replace(from, to);
            Some(if name == file { text.into_bytes() } else { bytes })
        }
    };
    let error = |change: &Change<'_>| copy(change).unwrap_err();

    let loaded = copy(&|_, bytes| Some(bytes)).unwrap();
    assert_eq!(loaded.labels[9], "class 9");
    assert_eq!(loaded.preprocess.interpolation, artifact::Interpolation::Bicubic);
    assert_eq!(loaded.config.pooling, Pooling::Avg);

    let text = error(&edited("task.json", "\"num_classes\": 10", "\"num_classes\": 12"));
    assert!(text.contains("`predictions.bias` has shape [10], not [12]"), "{text}");
    // 64, 16 filters and 1, 2 blocks; a third block has no weights.
    let blocks = "\"stackwise_num_blocks\": [\n            1,\n            2";
    let text = error(&edited("config.json", blocks, "\"stackwise_num_blocks\": [1, 3"));
    assert!(text.contains("`stack1_block2_1_conv.weight` [16, 3, 3, 16] is missing"), "{text}");
    let text = error(&edited("config.json", blocks, "\"stackwise_num_blocks\": [1, 1"));
    assert!(text.contains("layers/conv2d_6/vars/0` [3, 3, 16, 16] belongs to no layer"), "{text}");
    let text = error(&edited("config.json", "ResNetBackbone", "ViTBackbone"));
    assert!(text.contains("ViTBackbone") && text.contains("config.json"), "{text}");
    let text = error(&edited("image_converter.json", "bicubic", "area"));
    assert!(text.contains("`area`") && text.contains("lanczos3"), "{text}");
    let text = error(&edited("image_converter.json", "{", "["));
    assert!(text.contains("image_converter.json"), "{text}");
    let text = error(&|name, bytes| (name != "task.json").then_some(bytes));
    assert!(text.contains("backbone without a head"), "{text}");
    let headless = load(dir.path(), Head::Optional).unwrap();
    assert_eq!(headless.config.classes, 1);
    let text = error(&|name, bytes| (name != "model.weights.h5").then_some(bytes));
    assert!(text.contains("model.weights.h5"), "{text}");
    for len in [0, 7, 8, 100, 5000, 300_000] {
        let text = error(&|name, mut bytes| {
            if name == "model.weights.h5" {
                bytes.truncate(len);
            }
            Some(bytes)
        });
        assert!(text.contains("model.weights.h5"), "{len}: {text}");
    }
    let alone = load(&preset("v1_basic").join("model.weights.h5"), Head::Required);
    let text = alone.unwrap_err().to_string();
    assert!(text.contains("name the folder of a KerasHub preset"), "{text}");
    let text = error(&|name, bytes| (name != "config.json").then_some(bytes));
    assert!(text.contains("without config.json"), "{text}");
}

/// A backbone too large for one file is sharded, and names its files in an index.
#[test]
fn shards_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(preset("v1_basic")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let name = name.replace("model.weights.h5", "model_00000.weights.h5");
        std::fs::copy(entry.path(), dir.path().join(name)).unwrap();
    }
    let index = |file: &str| {
        let text = format!("{{\"weight_map\": {{\"/layers/conv2d/vars\": [\"{file}\"]}}}}");
        std::fs::write(dir.path().join("model.weights.json"), text).unwrap();
        load(dir.path(), Head::Required)
    };
    let whole = load(&preset("v1_basic"), Head::Required).unwrap();
    assert!(index("model_00000.weights.h5").unwrap().tensors == whole.tensors);
    let error = index("../model_00000.weights.h5").unwrap_err().to_string();
    assert!(error.contains("outside of its folder"), "{error}");
}

/// All sixteen presets are known by name.
#[test]
fn presets_have_names() {
    let presets: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&read("keras/presets.json")).unwrap();
    assert_eq!(presets.len(), 16);
    for (name, preset) in presets {
        let ours = Architecture::by_name(&name, 1000).unwrap_or_else(|| panic!("{name}"));
        ours.check().unwrap();
        let ours = ours.family.resnet().unwrap();
        let want = &preset["backbone"];
        assert_eq!(serde_json::to_value(ours.block_type).unwrap(), want["block_type"], "{name}");
        let same = |key: &str, list: &[usize]| {
            assert_eq!(serde_json::to_value(list).unwrap(), want[key], "{name}: {key}");
        };
        same("input_conv_filters", &ours.input_conv_filters);
        same("input_conv_kernel_sizes", &ours.input_conv_kernel_sizes);
        same("stackwise_num_filters", &ours.stackwise_num_filters);
        same("stackwise_num_blocks", &ours.stackwise_num_blocks);
        same("stackwise_num_strides", &ours.stackwise_num_strides);
    }
    assert_eq!(Architecture::by_name("resnet_19_imagenet", 10), None);
}

#[test]
fn exported_presets_are_what_was_imported() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["v1_basic", "v1_bottleneck", "v2_bottleneck", "vd_bottleneck"] {
        let checkpoint = load(&preset(model), Head::Required).unwrap();
        // Imports are named after their folder.
        let out = dir.path().join(model).join("preset");
        std::fs::create_dir(out.parent().unwrap()).unwrap();
        to_preset(&checkpoint, &out).unwrap();
        assert!(load(&out, Head::Required).unwrap() == checkpoint, "{model}");
        let again = to_preset(&checkpoint, &out).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
    }
    let small = load(&fixture("torch/tiny.pt"), Head::Required).unwrap();
    let error = to_preset(&small, &dir.path().join("small")).unwrap_err().to_string();
    assert!(error.contains("keeps the picture's size"), "{error}");
    assert!(!dir.path().join("small").exists());
}
