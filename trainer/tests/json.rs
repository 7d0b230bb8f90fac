//! What machines are told, and what `--quiet` leaves.

mod pictures;

use serde_json::Value;
use std::path::Path;

/// What it writes to standard output.
fn said(args: &[&str]) -> String {
    let mut out = Vec::new();
    trainer::run(["trainer"].iter().chain(args), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn machines_are_told_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, model) = (path("data"), path("model.mpk"));
    pictures::write(Path::new(&data), 12);
    let photo = format!("{data}/dark/0.png");
    let run = path("run");
    let args = ["train", "--epochs", "2", "--batch", "8", "--size", "16", "--data", &data];
    let more = ["--out", &run, "-o", &model, "--predict", &photo, "--json"];
    let text = said(&[&args[..], &more].concat());
    let told: Value = serde_json::from_str(&text).unwrap();
    for (pointer, want) in [
        ("/model", Value::from(model.clone())),
        ("/folder", run.clone().into()),
        ("/report", format!("{run}/report.html").into()),
        ("/epochs/1/epoch", 2.into()),
        ("/validation/pictures", 4.into()),
        ("/test", Value::Null),
        ("/predictions/0/file", photo.clone().into()),
    ] {
        assert_eq!(told.pointer(pointer), Some(&want), "{pointer} in {text}");
    }
    let told: Value =
        serde_json::from_str(&said(&["eval", "--model", &model, "--data", &data, "--json"]))
            .unwrap();
    assert!(told["evaluation"]["accuracy"].is_number() && told["notes"].is_array(), "{told}");

    let again = ["--overwrite", "--out", &run, "-o", &model, "--quiet"];
    let text = said(&[&args[..], &again].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with(&format!("{model}: epoch ")), "{text}");
    let text = said(&["eval", "--model", &model, "--data", &data, "--quiet"]);
    assert!(text.starts_with("accuracy "), "{text}");
}
