//! `edge-classify bench`.

use crate::Bench;
use edge_classify::EXIT_ANSWER;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn prints_one_line() {
    let bench = Bench::new();
    let o = bench.run(&["bench", "--json", "@/corner.edge", "--threads", "1", "--runs", "3"]);
    assert_eq!((o.code, o.err.as_str(), o.out.lines().count()), (EXIT_ANSWER, "", 1));
    let json = o.json();
    for key in ["median_ms", "min_ms", "load_ms"] {
        assert!(json[key].as_f64().unwrap() >= 0.0, "{key}");
    }
    assert!(json.get("layers").is_none());
    let o = bench.run(&["bench", "--layers", "--json", "@/corner.edge", "--runs", "3"]);
    let json = o.json();
    assert_eq!(json["layers"][0]["operator"], "max_pool2d");
    assert_eq!(json["layers"][0]["output"], serde_json::json!([1, 1, 3]));
    let o = bench.run(&["bench", "@/corner.edge", "--threads=2", "--isa=scalar", "--layers"]);
    assert!(o.out.contains("2 thread(s) with scalar"), "{}", o.out);
    let row = o.out.lines().find(|line| line.contains("max_pool2d")).unwrap();
    assert!(row.contains(" 2x2x3       1x1x3    1x1 "), "{}", o.out);
}

/// Of a microcontroller's model, in which convolutions take turns, too: all the work is somewhere.
#[test]
fn times_operators_that_take_turns() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.cortex-m.edge");
    let o = Bench::new().run(&["bench", "--layers", "--json", model, "--runs", "2"]);
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
    let json = o.json();
    let layers = json["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["median_ms"].as_f64().unwrap() > 0.0), "{}", o.out);
    let macs = layers.iter().map(|layer| layer["macs"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(macs, 12_501_632);
    let kernels = layers.iter().filter(|layer| layer["kernel"] == "columns").count();
    assert_eq!(kernels, 7, "{}", o.out);
}

/// The program itself, with another Python: it starts itself to measure itself.
#[cfg(unix)]
fn compare(bench: &Bench, python: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_edge-classify"))
        .args(["bench", "--threads", "1", "--runs", "3", "--rounds", "2"])
        .arg(bench.path("corner.edge"))
        .args(more)
        .env("PYTHON", python)
        .current_dir(bench.folder.path())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[cfg(unix)]
#[test]
fn compares_with_what_is_installed() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new();
    bench.put("x.onnx", "not a model");
    bench.put("x.tflite", "not a model");
    // Has one engine, lacks another, and a third breaks; what the real ones say to that.
    let python = bench.put(
        "python",
        "#!/bin/sh\n\
         case $3 in\n\
         onnxruntime) echo noise; echo '{\"median_ms\":7.5,\"min_ms\":7,\"load_ms\":9,\"rss_mb\":null}';;\n\
         openvino) exit 3;;\n\
         *) echo trace >&2; echo 'ValueError: no such model' >&2; exit 1;;\n\
         esac\n",
    );
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let models = ["--compare", "x.onnx", "--compare", "x.tflite"];
    let (code, out, err) = compare(&bench, &python, &[&models[..], &["--json"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let rows: Value = serde_json::from_str(&out).unwrap();
    let row = |engine: &str| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["engine"] == engine).unwrap().clone()
    };
    assert!(row("edge-classify")["median_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(row("onnxruntime")["median_ms"], 7.5);
    assert!(row("openvino")["error"].as_str().unwrap().contains("pip install openvino"));
    assert_eq!(row("litert")["error"], "ValueError: no such model");
    assert!(row("tract").get("median_ms").is_none());
    let (_, table, _) = compare(&bench, &python, &models);
    assert!(table.contains("onnxruntime         7.500      7.000"), "{table}");

    // Without any Python the others are named all the same.
    let (code, out, _) = compare(&bench, Path::new("/no/python"), &models);
    assert_eq!(code, Some(0));
    assert!(out.contains("/no/python: No such file"), "{out}");
    for (file, want) in [("y.onnx", "no such file"), ("corner.edge", "want an .onnx or .tflite")] {
        let (code, out, err) = compare(&bench, &python, &["--compare", file]);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(err.contains(file) && err.contains(want), "{err}");
    }
}

/// Python files that lie in the current folder are not run.
#[cfg(unix)]
#[test]
fn compare_runs_nothing_of_the_current_folder() {
    let bench = Bench::new();
    let model = bench.put("x.onnx", "not a model");
    for module in ["numpy", "json", "os", "time", "onnxruntime", "sitecustomize"] {
        bench.put(&format!("{module}.py"), "open('was_run', 'w')");
    }
    let (_, out, _) =
        compare(&bench, Path::new("python3"), &["--compare", model.to_str().unwrap()]);
    assert!(out.contains("onnxruntime"), "{out}");
    assert!(!bench.path("was_run").exists());
}
