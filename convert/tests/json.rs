//! What machines are told, and what `--quiet` leaves.

use convert::cli::run;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/resnet_8_cifar10.mpk")
}

/// What it writes to standard output, with status 0.
fn said(args: &[&str]) -> String {
    let mut out = Vec::new();
    let args: Vec<&str> = ["convert"].iter().chain(args).copied().collect();
    assert_eq!(run(args, &mut out), 0, "{}", String::from_utf8_lossy(&out));
    String::from_utf8(out).unwrap()
}

#[test]
fn machines_are_told_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (source, edge, photos) =
        (model().to_str().unwrap().to_owned(), path("m.edge"), path("photos"));
    let checkpoint = network::checkpoint::Checkpoint::load(&model()).unwrap();
    for (i, sample) in checkpoint.samples.iter().take(20).enumerate() {
        let class = Path::new(&photos).join(&checkpoint.labels[sample.label as usize]);
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join(format!("{i}.png")), &sample.png).unwrap();
    }
    let text = said(&[&source, "--json", "-o", &edge, "--eval", &photos, "--no-verify"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    let bytes = std::fs::metadata(&edge).unwrap().len();
    for (pointer, want) in [
        ("/source", Value::from(source.clone())),
        ("/output", edge.clone().into()),
        ("/kind", "edge".into()),
        ("/format", "int8".into()),
        ("/bytes", bytes.into()),
        ("/model/file_bytes", bytes.into()),
        ("/model/operators/0/name", "conv1_conv".into()),
    ] {
        assert_eq!(told.pointer(pointer), Some(&want), "{pointer} in {text}");
    }
    assert!(told["accuracy"]["device"].as_f64().unwrap() > 0.8, "{text}");
    assert!(told["accuracy"]["agreement"].as_f64().unwrap() > 0.8, "{text}");
    let notes = told["notes"].as_array().unwrap();
    let has = |what: &str| notes.iter().any(|note| note.as_str().unwrap().contains(what));
    assert!(has("ranges of activations: "), "{notes:?}");

    for (name, kind) in [("m.onnx", "onnx"), ("m.mpk", "mpk"), ("m.safetensors", "safetensors")] {
        let told: Value =
            serde_json::from_str(&said(&[&source, "--json", "-o", &path(name)])).unwrap();
        assert_eq!(told["kind"], kind);
        assert_eq!(told["bytes"], std::fs::metadata(path(name)).unwrap().len());
    }
    for (file, pointer, want) in [
        (&edge, "/device_file/dtype", Value::from("I8")),
        (&source, "/checkpoint/architecture", "resnet_8_cifar".into()),
        (&path("m.onnx"), "/network/input/2", 3.into()),
    ] {
        let told: Value = serde_json::from_str(&said(&["inspect", file, "--json"])).unwrap();
        assert_eq!(told.pointer(pointer), Some(&want), "{pointer} in {told}");
    }

    let text = said(&[&source, "--quiet", "-o", &edge, "--no-verify"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("m.edge (") && text.ends_with(" bytes)\n"), "{text}");
}

#[test]
fn a_file_has_the_options() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (edge, settings) = (path("m.edge"), path("c.toml"));
    let file = format!(
        "model = {:?}\noutput = {edge:?}\nquantize = \"fp16\"\nquiet = true\nfloat-layers = []\n",
        model()
    );
    std::fs::write(&settings, &file).unwrap();
    let line = said(&["--config", &settings]);
    assert!(line.contains("m.edge (") && line.lines().count() == 1, "{line}");
    said(&["--config", &settings, "--quantize", "int8"]);
    let told: Value = serde_json::from_str(&said(&["inspect", &edge, "--json"])).unwrap();
    assert_eq!(told["device_file"]["dtype"], "I8");
    let said = |file: &str| {
        std::fs::write(&settings, file).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convert"));
        let output = command.args(["--config", &settings]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let want = format!("convert: {settings}:2: no option `calibrate` (did you mean calibration?)");
    assert!(said("model = \"m\"\ncalibrate = \"d\"\n").starts_with(&want));
    let want = format!("convert: {settings}:2: --eval none: ");
    assert!(said("model = \"m\"\neval = \"none\"\n").starts_with(&want));
}
