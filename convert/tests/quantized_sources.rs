//! Models that were quantized elsewhere, through the program.

use convert::cli::run;
use convert::verify::HAS_TRACT;
use runtime::{AlignedBuf, Model, Session};
use std::path::Path;

/// Exit status and what was printed.
fn program(args: &[&str]) -> (u8, String) {
    let mut out = Vec::new();
    let status = run(["convert"].iter().chain(args), &mut out);
    (status, String::from_utf8(out).unwrap())
}

/// Logits of a picture of noise.
fn logits(edge: &Path) -> Vec<f32> {
    let file = AlignedBuf::from_slice(&std::fs::read(edge).unwrap());
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap();
    let mut input = session.input_mut();
    (0..32 * 32 * 3).for_each(|i| input.set(i, (i * 37 % 101) as f32 / 40.0 - 1.2));
    session.run().iter().collect()
}

/// As ONNX, a model with layers in floats is one that another tool has quantized in part.
#[test]
fn layers_in_floats_survive_a_file_of_others() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.mpk");
    let dir = tempfile::tempdir().unwrap();
    let [onnx, direct, again] =
        ["mixed.onnx", "direct.edge", "again.edge"].map(|f| dir.path().join(f));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (onnx_name, direct_name, again_name) = (text(&onnx), text(&direct), text(&again));
    let floats = ["--float-layers", "stack1_block0_1_conv,predictions", "--quantize", "int8"];
    for output in [&onnx_name, &direct_name] {
        let args = [&[source, "-o", output, "--no-verify"][..], &floats].concat();
        assert_eq!(program(&args).0, 0);
    }
    let (status, said) = program(&[&onnx_name, "-o", &again_name]);
    assert_eq!(status, 0);
    let line = said.lines().find(|line| line.starts_with("in floats: "));
    assert_eq!(line.map(|line| line.matches('`').count()), Some(4), "{said}");
    assert!(said.contains("equal"), "not verified: {said}");
    assert!(!said.contains("is quantized: in floats"), "{said}");
    // Of noise, quantized networks cut off so much that they may differ in all.
    assert!(!HAS_TRACT || said.contains("not compared: tract would need pictures"), "{said}");
    let (have, want) = (logits(&again), logits(&direct));
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (a, b) in have.iter().zip(&want) {
        assert!((a - b).abs() <= 1e-3 * largest, "{have:?}, not {want:?}");
    }

    // All in floats is another network, which is said.
    let (status, said) = program(&[&onnx_name, "-o", &again_name, "--quantize", "none"]);
    assert!(status == 0 && said.contains("is quantized: in floats, nothing is rounded"), "{said}");
    assert!(!HAS_TRACT || said.contains("not compared: tract rounds what is quantized"), "{said}");
    // What the file leaves in floats cannot be chosen anew without pictures.
    let args = [&onnx_name, "-o", &again_name, "--float-layers", "conv1_conv"];
    assert_eq!(program(&args).0, 2);
}
