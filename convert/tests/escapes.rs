//! What a file says is shown, never obeyed: neither by a terminal nor as a line of its own.

use artifact::text::is_obeyed;
use network::architecture::Architecture;
use network::checkpoint::Draft;
use network::init::random_checkpoint;
use std::path::Path;

const NASTY: &str = "a\u{1b}]0;title\u{7}\u{1b}[31m\u{202e}\u{2066}\u{9b}1m\r\nforged: line";

/// What `convert inspect` prints.
fn inspected(path: &Path) -> String {
    let mut out = Vec::new();
    let status = convert::cli::run(["convert", "inspect", path.to_str().unwrap()], &mut out);
    assert_eq!(status, 0);
    String::from_utf8(out).unwrap()
}

#[test]
fn names_in_models_are_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let sound = || {
        let mut config = Architecture::named("resnet_8_cifar", 1).unwrap();
        config.classes = 2;
        random_checkpoint(config, 8, 1).unwrap().into_draft()
    };
    let lines = |spoil: fn(&mut Draft)| {
        let [mpk, edge] = ["m.mpk", "m.edge"].map(|name| dir.path().join(name));
        let mut draft = sound();
        spoil(&mut draft);
        draft.check().unwrap().save(&mpk).unwrap();
        let mut out = Vec::new();
        let args = ["convert", "--quantize", "none", "-o", edge.to_str().unwrap()];
        let args = args.into_iter().chain([mpk.to_str().unwrap()]);
        assert_eq!(convert::cli::run(args, &mut out), 0);
        let text = [inspected(&mpk), inspected(&edge), String::from_utf8(out).unwrap()].concat();
        assert!(text.chars().all(|c| c == '\n' || !is_obeyed(c)), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{text}");
        text.lines().count()
    };
    let usual = lines(|draft| {
        draft.training.dataset = "photos".into();
        draft.training.base = "base".into();
        draft.training.options.insert("lr".into(), "1".into());
        draft.tensors.insert("more".into(), draft.tensors["predictions.bias"].clone());
    });
    let spoiled = lines(|draft| {
        let nasty = || NASTY.to_owned();
        draft.config.name = nasty();
        draft.labels = vec![nasty(), format!("{NASTY}2")];
        draft.training.dataset = nasty();
        draft.training.fingerprint = nasty();
        draft.training.base = nasty();
        draft.training.options.insert(nasty(), nasty());
        draft.tensors.insert(nasty(), draft.tensors["predictions.bias"].clone());
    });
    assert_eq!(spoiled, usual);
}
