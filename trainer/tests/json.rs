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

#[test]
fn a_run_is_repeated_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    pictures::write(Path::new(&data), 12);
    let [first, second] = ["first", "second"].map(path);
    let models = [format!("{first}.mpk"), format!("{second}.mpk")];
    let args = ["--epochs", "2", "--batch", "8", "--size", "16", "--augment", "flip,color=0.2"];
    let args = [&["train", "--data", &data, "--lr", "0.05", "--seed", "3"][..], &args].concat();
    said(&[&args[..], &["--out", &first, "-o", &models[0]]].concat());
    let settings = format!("{first}/run.toml");
    said(&["train", "--config", &settings, "--out", &second, "-o", &models[1]]);
    let read = |name: &String| std::fs::read(name).unwrap();
    assert!(read(&models[0]) == read(&models[1]), "another model");
    let text = |folder: &str| std::fs::read_to_string(format!("{folder}/run.toml")).unwrap();
    let options = |text: String| text.lines().skip(1).map(String::from).collect::<Vec<_>>();
    let of_first: Vec<_> = options(text(&first));
    assert!(of_first.contains(&"augment = \"flip,color=0.2\"".into()), "{of_first:?}");
    let same = |line: &String| !line.starts_with("model-out");
    let both = [of_first, options(text(&second))];
    let both = both.map(|lines| lines.into_iter().filter(same).collect::<Vec<_>>());
    assert_eq!(both[0], both[1]);

    // What the program finds out itself has its line, too.
    std::fs::write(&settings, "data = \"none\"\n\narch = \"resnet8_cifar\"\n").unwrap();
    let error = trainer::run(["trainer", "train", "--config", &settings], &mut Vec::new());
    let error = page::terminal::describe(&error.unwrap_err());
    let want =
        format!("{settings}:3: --arch resnet8_cifar: not known (did you mean resnet_8_cifar?)");
    assert!(error.starts_with(&want), "{error}");
}
