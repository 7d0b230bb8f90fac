//! What int8 costs, through the program. `convert report` names the layer that it hurts, and its page
//! holds what its JSON holds; `--max-drop` keeps what loses too much from being written.

use artifact::{Artifact, Dtype};
use convert::cli::run;
use convert::emit::edge::Attributes;
use convert::emit::edge::Format;
use convert::emit::onnx::{Form, to_onnx};
use convert::pipeline::{Options, convert};
use convert::quantize::{Method, measure};
use convert::target::Target;
use dataset::samples::stored_samples;
use network::checkpoint::Checkpoint;
use network::model::FloatModel;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/resnet_8_cifar10.mpk")
}

#[test]
fn a_spoiled_layer_loses_most() {
    let checkpoint = Checkpoint::load(&model()).unwrap();
    let mut pictures = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
    pictures.truncate(16);
    let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
    let options = Options { method: Method::Mse, ..Options::default() };
    let converted = convert(&model, &pictures, options, |_, _| ()).unwrap();
    let attributes = Attributes::of(&model, Target::Host, false);
    let sound = converted.int8.as_ref().unwrap();
    let measured = |quants: Option<(usize, f32)>| {
        let mut int8 = sound.clone();
        if let Some((id, factor)) = quants {
            int8.quants[id].scale *= factor;
        }
        measure(&converted.graph, &int8, &pictures, &attributes, |_, _| ()).unwrap()
    };
    let before = measured(None);
    assert!(before.agreement() > 0.9);
    for layer in &before.layers[1..] {
        let db = layer.sqnr_db.unwrap();
        assert!((20.0..60.0).contains(&db) && layer.cosine > 0.99, "{layer:?}");
        assert!(layer.saturated < 0.002, "{layer:?}");
    }
    let id = 5;
    // Steps of sixteen times the size cost 24 dB of the rounding there.
    let coarse = measured(Some((id, 16.0)));
    let lost = |m: &convert::quantize::Measured| {
        let by = |l: &convert::quantize::LayerError| l.lost_db.unwrap_or(f64::NEG_INFINITY);
        let worst = m.layers.iter().max_by(|a, b| by(a).total_cmp(&by(b))).unwrap();
        (worst.name.clone(), by(worst))
    };
    let name = &before.layers[id].name;
    let (worst, db) = lost(&coarse);
    assert!(worst == *name && db > 10.0, "{worst} {db}");
    // A sixteenth of the range clips most of what is large.
    let clipped = measured(Some((id, 1.0 / 16.0)));
    assert!(clipped.layers[id].saturated > 0.1, "{:?}", clipped.layers[id]);
    assert_eq!(lost(&clipped).0, *name);
}

#[test]
fn page_and_json_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let [page, json] = ["r.html", "r.json"].map(|name| dir.path().join(name));
    let model = model();
    let args = ["convert", "report", model.to_str().unwrap(), "--calibration-pictures", "8"];
    let mut out = Vec::new();
    let outputs = ["-o", page.to_str().unwrap(), "--json", json.to_str().unwrap()];
    assert_eq!(run(args.iter().chain(&outputs), &mut out), 0, "{}", String::from_utf8_lossy(&out));
    let html = std::fs::read_to_string(&page).unwrap();
    let figures: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let layers = figures["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 12);
    for layer in layers {
        assert!(html.contains(layer["name"].as_str().unwrap()), "{layer}");
        assert!(String::from_utf8_lossy(&out).contains(layer["name"].as_str().unwrap()));
    }
    assert_eq!(figures["pictures"].as_array().unwrap().len(), 8);
    assert_eq!(html.matches("<figure>").count(), 8);
    assert!(!html.contains("<script") && !html.contains("http:"), "loads something");
    // A name that says something else is refused before anything is computed.
    assert_eq!(run(["convert", "report", "missing.mpk", "-o", "r.txt"], &mut out), 2);
}

/// A folder of some of the checkpoint's pictures, by class.
fn photos(dir: &Path) -> PathBuf {
    let checkpoint = Checkpoint::load(&model()).unwrap();
    let photos = dir.join("photos");
    for (i, sample) in checkpoint.samples.iter().take(60).enumerate() {
        let class = photos.join(&checkpoint.labels[sample.label as usize]);
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join(format!("{i}.png")), &sample.png).unwrap();
    }
    photos
}

/// A network that was quantized elsewhere, with far too large steps for one map.
#[test]
fn a_map_that_int8_spoils_is_kept_in_floats() {
    const SPOILED: &str = "stack1_block0_1_conv";
    let checkpoint = Checkpoint::load(&model()).unwrap();
    let pictures = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
    let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
    let options = Options { method: Method::Mse, ..Options::default() };
    let converted = convert(&model, &pictures, options, |_, _| ()).unwrap();
    let mut int8 = converted.int8.unwrap();
    let id = int8.graph.nodes.iter().position(|n| n.name == SPOILED).unwrap();
    int8.quants[id].scale *= 60.0;
    let format = Format::I8(&int8.quants);
    let onnx = to_onnx(&int8.graph, format, Form::Qdq, &model.labels, &model.preprocess);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("spoiled.onnx");
    std::fs::write(&source, onnx).unwrap();

    let photos = photos(dir.path());
    for (target, panels) in [("host", 16), ("cortex-m", 4)] {
        let file = dir.path().join(format!("{target}.edge"));
        let [from, photos, to] = [&source, &photos, &file].map(|p| p.to_str().unwrap().to_owned());
        let args = ["convert", &from, "--target", target, "-o", &to, "--calibration", &photos];
        let mut out = Vec::new();
        let code = run(args.iter().chain(&["--eval", &photos, "--max-drop", "2"]), &mut out);
        let said = String::from_utf8(out).unwrap();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("with `{SPOILED}`")), "{said}");
        assert!(said.contains("more than --max-drop 2") && said.contains("int8 with floats"));
        let bytes = std::fs::read(&file).unwrap();
        let artifact = Artifact::parse(&bytes).unwrap();
        let header = artifact.header();
        assert_eq!((header.dtype, header.nr, header.has_floats), (Dtype::I8, panels, true));
        // Most of it is still int8.
        let floats = artifact.ops().filter(|op| op.output().quant.is_float());
        let (macs, all) =
            (floats.map(|op| op.macs()).sum::<u64>(), artifact.ops().map(|o| o.macs()));
        assert!(macs > 0 && macs * 2 < all.sum(), "{said}");
    }
}

/// Int8 that loses more than it may is not written.
#[test]
fn too_great_a_loss_ends_in_floats_or_in_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let photos = photos(dir.path());
    let convert = |target: &str, most: &str| {
        let file = dir.path().join(format!("{target}{most}.edge"));
        let most = format!("--max-drop={most}");
        let [model, photos, to] =
            [&model(), &photos, &file].map(|p| p.to_str().unwrap().to_owned());
        let args = ["convert", &model, "--target", target, "--eval", &photos, &most, "-o", &to];
        let mut out = Vec::new();
        let code = run(args, &mut out);
        let dtype = std::fs::read(&file).ok().map(|f| Artifact::parse(&f).unwrap().header().dtype);
        (code, dtype, String::from_utf8(out).unwrap())
    };
    let (code, dtype, _) = convert("host", "50");
    assert_eq!((code, dtype), (0, Some(Dtype::I8)));
    // Less than nothing is always too much.
    let (code, dtype, said) = convert("host", "-50");
    assert_eq!((code, dtype), (0, Some(Dtype::F16)), "{said}");
    assert!(said.contains("more than --max-drop -50") && said.contains("fp16"), "{said}");
    let (code, dtype, said) = convert("cortex-m", "-50");
    assert_eq!((code, dtype), (1, None), "{said}");
    assert!(said.contains("--qat"), "{said}");
}

/// What `inspect` prints of a device file names its layers, and both names and numbers choose them.
#[test]
fn inspected_layers_can_be_computed_in_floats() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let mut out = Vec::new();
        let code = run(["convert"].iter().chain(args), &mut out);
        (code, String::from_utf8(out).unwrap())
    };
    let model = model();
    let model = model.to_str().unwrap();
    let write = |name: &str, layers: &[&str]| {
        let file = dir.path().join(name).to_str().unwrap().to_owned();
        let args =
            [&[model, "--target", "cortex-m", "--no-verify", "-o", &file][..], layers].concat();
        assert_eq!(said(&args).0, 0);
        file
    };
    let int8 = write("int8.edge", &[]);
    let (code, table) = said(&["inspect", &int8]);
    assert_eq!(code, 0);
    let line = table.lines().find(|line| line.contains("predictions")).unwrap();
    let number = line.split_whitespace().next().unwrap();
    let named = write("named.edge", &["--float-layers", "stack1_block0_1_conv,predictions"]);
    let numbered = write("numbered.edge", &["--float-layers", &format!("3,{number}")]);
    assert!(std::fs::read(&named).unwrap() == std::fs::read(numbered).unwrap());
    // Casts have neither a number nor a name.
    let (_, table) = said(&["inspect", &named]);
    let floats = table.lines().find(|line| line.contains("predictions")).unwrap();
    assert_eq!(floats.split_whitespace().next(), Some(number), "{table}");
    assert!(floats.contains("in floats"), "{floats}");
}

/// Both are wrong; what is asked of the layers is found out after converting.
#[test]
fn a_missing_folder_is_noticed_before_converting() {
    let dir = tempfile::tempdir().unwrap();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_convert"))
        .arg(model())
        .args(["--eval", "nosuch", "--float-layers", "none", "-o", "m.edge"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("nosuch: No such file") && !said.contains("layer"), "{said}");
}

/// Nothing of what follows is found out after the minutes that a model takes: there is none.
#[test]
fn what_could_not_be_read_or_written_is_refused_before_the_model_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder.edge")).unwrap();
    let program = env!("CARGO_BIN_EXE_convert");
    for (args, want) in [
        ("none.mpk -o folder.edge", "convert: --output folder.edge: it is a folder"),
        ("none.mpk -o none/m.edge", "convert: --output none/m.edge: there is no folder none;"),
        ("none.mpk -o none/p --keras-preset", "convert: --output none/p: there is no folder none;"),
        ("none.mpk --calibration none", "convert: --calibration none: No such file"),
        ("none.mpk --eval none", "convert: --eval none: No such file"),
        ("none.mpk --labels none", "convert: --labels none: No such file"),
        ("report none.mpk --calibration none", "convert: --calibration none: No such file"),
        ("report none.mpk --json none/r.json", "convert: --json none/r.json: there is no folder"),
        ("none.mpk -o m.edge", "convert: `none.mpk`: no such file"),
    ] {
        let mut command = std::process::Command::new(program);
        let said = command.args(args.split(' ')).current_dir(dir.path()).output().unwrap();
        assert_eq!(said.status.code(), Some(2), "{args}");
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.starts_with(want), "{args}: {said}");
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn layers_that_are_misspelled_are_guessed() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convert"));
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.edge");
    command.arg(model()).args(["--float-layers", "conv1-conv", "-o"]).arg(output);
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(
        said.contains("--float-layers: no layer `conv1-conv` (did you mean conv1_conv?)"),
        "{said}"
    );
    assert!(!said.contains("calibrating"), "before anything is measured: {said}");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_convert"));
    let said = command.args(["init", "resnet18"]).output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("resnet18: not known (did you mean resnet_18?)"), "{said}");
}
