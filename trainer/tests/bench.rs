//! What `bench` prints, and what it refuses.

use burn::tensor::Device;
use serde_json::Value;

fn bench(more: &[&str]) -> anyhow::Result<String> {
    let args = ["trainer", "bench", "--arch", "resnet_8_cifar"];
    let mut out = Vec::new();
    let status = trainer::run([&args[..], more].concat(), &mut out)?;
    assert_eq!(status, 0, "{more:?}");
    Ok(String::from_utf8(out)?)
}

/// The printed line, its measured numbers checked and taken out.
fn settings(more: &[&str]) -> Value {
    let line =
        bench(&[&["--batch", "8", "--steps", "2", "--threads", "1", "--json"], more].concat())
            .unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    let mut value: Value = serde_json::from_str(&line).unwrap();
    let number = |path: &str| value.pointer(path).and_then(Value::as_f64).unwrap();
    let (median, min) = (number("/step_ms/median"), number("/step_ms/min"));
    assert!(0.0 < min && min <= median, "{line}");
    let rate = number("/images_per_s");
    assert!((rate * median / 8e3 - 1.0).abs() < 1e-9, "{line}");
    if cfg!(target_os = "linux") {
        assert!(number("/peak_mb") > 1.0, "{line}");
    } else {
        assert!(value["peak_mb"].is_null(), "{line}");
    }
    let fields = value.as_object_mut().unwrap();
    for measured in ["step_ms", "images_per_s", "peak_mb"] {
        fields.remove(measured);
    }
    value
}

/// One test, because `--stock` holds for the rest of the process.
#[test]
fn prints_one_line_of_what_it_measured() {
    let mut expected = serde_json::json!({
        "arch": "resnet_8_cifar", "size": 32, "batch": 8, "steps": 2, "threads": 1,
        "backend": "flex", "precision": "f32", "stock": false, "checkpointing": false,
    });
    assert_eq!(settings(&["--precision", "f32"]), expected);
    let line = bench(&["--batch", "2", "--steps", "1", "--size", "16", "--threads", "1"]).unwrap();
    assert!(line.starts_with("resnet_8_cifar at 16x16, batch 2: "), "{line}");
    assert!(line.contains(" of 1 on 1 thread(s) with flex in f32"), "{line}");

    let table =
        bench(&["--batch", "8", "--steps", "2", "--size", "16", "--threads", "1", "--layers"]);
    let table = table.unwrap();
    for part in ["inner loop alone: ", "\nconv 3x3/1 16>16 to 16x16 ", "\nbetween them "] {
        assert!(table.contains(part), "{table}");
    }

    assert!(accel::supports(&Device::flex()));
    expected["stock"] = true.into();
    assert_eq!(settings(&["--stock"]), expected);
    assert!(!accel::supports(&Device::flex()));
}

#[cfg(not(feature = "ndarray"))]
#[test]
fn the_other_backend_says_how_to_get_it() {
    let error = bench(&["--backend", "ndarray"]).unwrap_err().to_string();
    assert!(
        error.contains("--backend ndarray") && error.contains("`--features ndarray`"),
        "{error}"
    );
}

#[cfg(feature = "ndarray")]
#[test]
fn the_other_backend_is_never_accelerated() {
    let settings = settings(&["--backend", "ndarray"]);
    assert_eq!((&settings["backend"], &settings["stock"]), (&"ndarray".into(), &true.into()));
}

#[test]
fn refusals_name_the_option() {
    let refusal = |more: &[&str]| bench(more).unwrap_err().to_string();
    for (name, value) in [
        ("--steps", "0"),
        ("--batch", "1"),
        ("--batch", "5000"),
        ("--size", "7"),
        ("--threads", "0"),
    ] {
        let error = refusal(&[name, value]);
        assert!(error.contains(&format!("{name} {value}")), "{error}");
    }
    let error = trainer::run(["trainer", "bench", "--arch", "vgg"], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("resnet_20_cifar"), "{error}");
}
