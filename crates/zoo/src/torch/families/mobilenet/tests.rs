//! What PyTorch's packages compute, and what is written for them.

use crate::torch::to_safetensors;
use crate::{Head, Hints, Imported, open_any};
use network::architecture::{Architecture, Family};
use network::checkpoint::{Assumption, Checkpoint, TrainingRecord};
use network::evaluate::evaluate;
use network::init::random_checkpoint;
use network::padding::ConvPadding;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/torch")
}

/// The checkpoint of a file or folder.
fn import(path: &Path, hints: &Hints) -> Result<Checkpoint, String> {
    match open_any(path, Head::Required, hints).map_err(|e| e.to_string())? {
        Imported::Checkpoint(checkpoint) => Ok(*checkpoint),
        Imported::Graph(_) => Err("no checkpoint".into()),
    }
}

/// The largest difference between our logits of a picture and those in a file's metadata, relative to the
/// largest logit.
fn difference(checkpoint: &Checkpoint, file: &Path, picture: &Path) -> f64 {
    let bytes = std::fs::read(file).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let theirs = &header.metadata().as_ref().unwrap()["logits"];
    let theirs: Vec<f64> = serde_json::from_str(theirs).unwrap();
    // Behind the header of numpy's format.
    let picture = std::fs::read(picture).unwrap().split_off(128);
    let picture: Vec<f32> =
        picture.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let ours = evaluate(&checkpoint.graph().unwrap(), &picture);
    assert_eq!(ours.len(), theirs.len(), "{}", file.display());
    assert!(ours.iter().all(|x| x.is_finite()), "{}", file.display());
    let apart = ours.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - b).abs());
    apart.fold(0.0, f64::max) / theirs.iter().fold(0.0, |m: f64, x| m.max(x.abs()))
}

/// `tests/fixtures/torch/mobilenet.py` made them.
#[test]
fn networks_compute_what_pytorch_computes() {
    let published = [
        ("mobilenet_v2", "strides and activations of mobilenet_v2"),
        ("mobilenet_v3_small", "strides and activations of mobilenet_v3_small"),
        ("efficientnet_b0", "strides and activations of efficientnet_b0"),
        ("timm_mobilenetv1", "strides and activations of mobilenet_v1, even padding"),
        ("timm_mobilenetv2", "strides and activations of mobilenet_v2, even padding"),
        ("timm_mobilenetv3_large", "strides and activations of mobilenet_v3_large, even padding"),
        ("tf_mobilenetv3_small_minimal", "(minimalistic), TensorFlow's padding and ε"),
        ("tf_efficientnet_lite0", "of efficientnet_lite0, TensorFlow's padding and ε"),
        ("transformers_v1", "strides and activations of mobilenet_v1, TensorFlow's padding"),
        ("transformers_v2", "strides and activations of mobilenet_v2, TensorFlow's padding"),
        ("strides_1_2_2_1", "a stem of stride 2, ReLU6"),
    ];
    for (name, said) in published {
        let strides =
            name.strip_prefix("strides_").map(|s| s.split('_').map(|s| s.parse().unwrap()));
        let hints = Hints {
            size: Some(32),
            stack_strides: strides.map(Iterator::collect),
            ..Hints::default()
        };
        let file = fixtures().join(format!("mobilenets/{name}.safetensors"));
        let found = import(&file, &hints).unwrap_or_else(|e| panic!("{e}"));
        let line = Assumption::line(&found.assumed).unwrap();
        assert!(line.contains(said), "{line}");
        let apart = difference(&found, &file, &fixtures().join("input.npy"));
        println!("{name}: {apart:.1e}");
        assert!(apart < 1e-5, "{name}: {apart}");
    }
}

/// A folder's config says what no tensor shows.
#[test]
fn folders_say_how_they_are_padded() {
    let dir = tempfile::tempdir().unwrap();
    let timm = |architecture: &str| {
        format!(
            r#"{{"architecture": "{architecture}", "pretrained_cfg": {{"input_size": [3, 32, 32],
                "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}}}"#
        )
    };
    let transformers =
        |more: &str| format!(r#"{{"model_type": "mobilenet_v2", "hidden_act": "relu6", {more}}}"#);
    let lite = "tf_efficientnet_lite0";
    let tensorflow = r#""tf_padding": true, "layer_norm_eps": 0.001"#;
    for (file, config, is_right) in [
        (lite, timm(lite), true),
        (lite, timm("efficientnet_lite0"), false),
        ("timm_mobilenetv2", timm("mobilenetv2_100"), true),
        ("transformers_v2", transformers(tensorflow), true),
        ("transformers_v2", transformers(r#""tf_padding": false"#), false),
        ("transformers_v2", transformers(r#""layer_norm_eps": 0.1"#), false),
    ] {
        std::fs::write(dir.path().join("config.json"), &config).unwrap();
        let place = dir.path().join("model.safetensors");
        std::fs::copy(fixtures().join(format!("mobilenets/{file}.safetensors")), &place).unwrap();
        let found = import(dir.path(), &Hints { size: Some(32), ..Hints::default() }).unwrap();
        assert!(found.assumed.iter().all(|a| a.option == Assumption::STATISTICS), "{config}");
        let apart = difference(&found, &place, &fixtures().join("input.npy"));
        assert_eq!(apart < 1e-5, is_right, "{config}: {apart}");
    }
    for (more, said) in [
        (r#""hidden_act": "relu6", "output_stride": 16"#, "output_stride 16, which dilates"),
        (r#""hidden_act": "gelu""#, "only relu6 is read"),
    ] {
        let config = format!(r#"{{"model_type": "mobilenet_v1", {more}}}"#);
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let error = import(dir.path(), &Hints::default()).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

/// Networks of the real packages: `tests/packages/mobilenet_agreement.py` makes them, and reads what is
/// written of them here.
#[test]
#[ignore = "it needs the folder that a script makes"]
fn real_networks_compute_what_pytorch_computes() {
    let folder = PathBuf::from(std::env::var("MOBILENETS").unwrap());
    let hints = Hints { size: Some(72), ..Hints::default() };
    let mut failed = Vec::new();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder.join("nets")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let found = match import(&path, &hints) {
            Ok(found) => found,
            Err(error) => {
                println!("{name:40} refused: {error}");
                failed.extend((!name.contains("refused")).then_some(name));
                continue;
            }
        };
        let file = if path.is_dir() { path.join("model.safetensors") } else { path };
        let apart = difference(&found, &file, &folder.join("input.npy"));
        let back = match to_safetensors(&found) {
            Ok(bytes) => {
                std::fs::write(folder.join(format!("back/{name}.safetensors")), bytes).unwrap();
                "written".into()
            }
            Err(error) => error.to_string(),
        };
        println!("{name:40} imported {apart:.1e}, {back}");
        if apart > 1e-3 || name.contains("refused") {
            failed.push(name);
        }
    }
    assert_eq!(failed, [""; 0]);
}

/// What is written is read again, with labels, preprocessing and padding.
#[test]
fn state_dicts_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("back.safetensors");
    for (name, padding) in [
        ("mobilenet_v1_025", ConvPadding::Symmetric),
        ("mobilenet_v2_035", ConvPadding::Symmetric),
        ("mobilenet_v3_small_050", ConvPadding::Symmetric),
        ("mobilenet_v3_large_035", ConvPadding::Same),
        ("efficientnet_b1", ConvPadding::Symmetric),
        ("efficientnet_lite0", ConvPadding::Same),
    ] {
        let mut config = Architecture::named(name, 3).unwrap();
        if let Family::MobileNet(mobilenet) = &mut config.family {
            mobilenet.padding = padding;
        }
        config.name = "back".into();
        let made = random_checkpoint(config, 32, 1).unwrap();
        // The rest is what a state dict does not hold.
        let made = made.edit(|draft| {
            draft.samples.clear();
            draft.training = TrainingRecord::default();
            Ok(())
        });
        let made = made.unwrap();
        std::fs::write(&path, to_safetensors(&made).unwrap()).unwrap();
        let found = import(&path, &Hints::default()).unwrap();
        assert!(found.assumed.is_empty());
        assert_eq!(found.config, made.config, "{name}");
        if padding == ConvPadding::Symmetric {
            assert!(found == made, "{name}");
        }
        let picture: Vec<f32> = (0..32 * 32 * 3).map(|i| (i % 23) as f32 / 11.0 - 1.0).collect();
        let [ours, theirs] = [&made, &found].map(|c| evaluate(&c.graph().unwrap(), &picture));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{name}: {a} {b}");
        }
    }
}

#[test]
fn what_no_package_has_is_not_written() {
    type Change = fn(&mut network::architecture::mobilenet::MobileNetConfig);
    let changes: [(&str, Change); 4] = [
        ("TensorFlow's padding", |c| c.padding = ConvPadding::Same),
        ("a stem of another stride", |c| c.stem_stride = 1),
        ("other blocks, strides or activations", |c| c.blocks[4].stride = 2),
        ("other blocks, strides or activations", |c| {
            c.activation = network::activation::Activation::RELU;
        }),
    ];
    for (what, change) in changes {
        let mut config = Architecture::named("mobilenet_v2_035", 3).unwrap();
        let Family::MobileNet(mobilenet) = &mut config.family else { panic!("no MobileNet") };
        change(mobilenet);
        let written = to_safetensors(&random_checkpoint(config, 32, 1).unwrap());
        let error = written.err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn what_shapes_do_not_show_is_asked_for() {
    let file = |name: &str| fixtures().join(format!("mobilenets/{name}.safetensors"));
    let none = Hints::default();
    for (name, hints, said) in [
        ("strides_1_2_2_1", none.clone(), "the strides of its 4 stacks with --stack-strides"),
        (
            "strides_1_2_2_1",
            Hints { stack_strides: Some(vec![1, 2]), ..none.clone() },
            "strides of 2 stacks, found 4",
        ),
        (
            "mobilenet_v2",
            Hints { stem_pool: Some(true), ..none.clone() },
            "--stem-pool is for ResNets",
        ),
        (
            "timm_mobilenetv1",
            Hints { bottleneck_stride: Some(Default::default()), ..none.clone() },
            "--bottleneck-stride is for ResNets",
        ),
    ] {
        let error = import(&file(name), &hints).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let hints =
        Hints { stem_stride: Some(1), stack_strides: Some(vec![1, 1, 1, 2, 1, 2, 1]), ..none };
    for name in ["mobilenet_v2", "timm_mobilenetv2", "transformers_v2"] {
        let found = import(&file(name), &hints).unwrap();
        let Family::MobileNet(config) = &found.config.family else { panic!("no MobileNet") };
        let strided = config.blocks.iter().enumerate().filter(|(_, block)| block.stride == 2);
        assert_eq!(strided.map(|(n, _)| n).collect::<Vec<_>>(), [6, 13], "{name}");
        assert_eq!(config.stem_stride, 1);
        let line = Assumption::line(&found.assumed).unwrap();
        assert!(line.contains("assumed: activations of mobilenet_v2"), "{line}");
    }
}
