//! Files of every version are read, and can be made new; see `fixtures/versions/README.md`.

use artifact::Artifact;
use artifact::header::{LEAST_VERSION, OLDEST_VERSION, VERSION};
use convert::cli;
use edge_tests::{changed, fixture, npy, read};
use network::checkpoint::{self, Checkpoint};
use std::path::Path;

/// Runs a program in process: its exit status, and what it said.
fn convert(args: &[&str]) -> (u8, String) {
    let mut out = Vec::new();
    let code = cli::run(["convert"].iter().chain(args), &mut out);
    (code, String::from_utf8(out).unwrap())
}

fn classify(args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = edge_classify::run(["edge-classify"].iter().chain(args), &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// What a model computes of the fixture's pictures.
fn logits(model: &str) -> Vec<f32> {
    logits_of(model, &text(fixture("tflite/input.npy")))
}

fn logits_of(model: &str, input: &str) -> Vec<f32> {
    let (code, out, err) = classify(&["--model", model, "--logits", "--tensor", input]);
    assert_eq!(code, 0, "{err}");
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rows = value["logits"].as_array().unwrap().iter();
    rows.flat_map(|row| row.as_array().unwrap()).map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn device_files_of_every_version_are_read_and_upgraded() {
    let (_, wanted) = npy("versions/logits.npy");
    let dir = tempfile::tempdir().unwrap();
    for version in OLDEST_VERSION..=LEAST_VERSION {
        let old = fixture("versions").join(format!("{version}.edge"));
        assert_eq!(read(&old)[8..10], version.to_le_bytes());
        assert_eq!(logits(&text(&old)), wanted, "version {version}");
        let new = text(dir.path().join(format!("{version}.edge")));
        assert_eq!(convert(&["upgrade", &text(&old), "-o", &new]).0, 0);
        assert_eq!(read(&new)[8..10], LEAST_VERSION.to_le_bytes());
        assert_eq!(logits(&new), wanted, "upgraded from {version}");
    }
    // What only newer versions have.
    for version in [7, 8, VERSION] {
        let (_, wanted) = npy(format!("versions/{version}-logits.npy"));
        let file = text(fixture("versions").join(format!("{version}.edge")));
        assert_eq!(read(&file)[8..10], u16::to_le_bytes(version));
        assert_eq!(logits_of(&file, &text(fixture("versions/7-input.npy"))), wanted);
        let mut older = read(&file);
        older[8..10].copy_from_slice(&u16::to_le_bytes(version - 1));
        artifact::writer::seal(&mut older);
        assert!(Artifact::parse(&older).is_err());
    }
    // A signature leaves what tells unknown pictures as it is.
    let known = text(fixture("versions/9.edge"));
    let (key, signed) = (text(fixture("versions/private.pem")), text(dir.path().join("9.edge")));
    assert_eq!(convert(&["sign", &known, "--key", &key, "-o", &signed]).0, 0);
    let input = text(fixture("versions/7-input.npy"));
    let said = |model: &str| classify(&["--model", model, "--json", "--tensor", &input]);
    assert!(said(&known).1.contains("\"unknown\":false"), "{:?}", said(&known));
    assert_eq!(said(&known), said(&signed));
    // Its last layer is computed in floats, so that logits are not rounded to steps.
    let floats = text(fixture("versions/6-floats.edge"));
    let step =
        Artifact::parse(&read(fixture("versions/6.edge"))).unwrap().meta().output.quant.scale;
    let found = logits(&floats);
    assert!(found != wanted && found.len() == wanted.len());
    for (a, b) in found.iter().zip(&wanted) {
        assert!((a - b).abs() <= 0.6 * step, "{a} for {b} in steps of {step}");
    }
    // Newer and older ones are told from damaged ones.
    for (version, what) in
        [(VERSION + 1, "update"), (OLDEST_VERSION - 1, "convert the model again")]
    {
        let mut file = read(fixture("versions/4.edge"));
        file[8..10].copy_from_slice(&version.to_le_bytes());
        let strange = dir.path().join("strange.edge");
        std::fs::write(&strange, file).unwrap();
        let (code, _, err) = classify(&["--model", &text(&strange), "x.png"]);
        assert!(code == 2 && err.contains(what), "{err}");
    }
}

#[test]
fn checkpoints_of_every_version_are_read_and_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    for version in 1..=checkpoint::VERSION {
        let old = fixture("versions").join(format!("{version}.mpk"));
        let before = Checkpoint::load(&old).unwrap();
        assert_eq!(before.version, version);
        let new = dir.path().join("new.mpk");
        assert_eq!(convert(&["upgrade", &text(&old), "-o", &text(&new)]).0, 0);
        let after = Checkpoint::load(&new).unwrap();
        assert_eq!(after, changed(before, |draft| draft.version = checkpoint::VERSION));
    }
}

#[test]
fn signed_models_are_told_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let [private, public] =
        ["private.pem", "public.pem"].map(|f| text(fixture("versions").join(f)));
    let model = text(fixture("versions/4.edge"));
    let signed = text(dir.path().join("signed.edge"));
    let (code, said) = convert(&["sign", &model, "--key", &private, "-o", &signed]);
    assert_eq!(code, 0, "{said}");
    // Signatures of Ed25519 are the same each time.
    assert_eq!(read(&signed), read(fixture("versions").join(format!("{LEAST_VERSION}.edge"))));
    let picture = text(fixture("../../samples/pictures/chelsea.png"));
    let with_key = |model: &str| classify(&["--model", model, "--key", &public, &picture]);
    assert_eq!(with_key(&signed).0, 0);
    // The signature stands for nothing where nobody asks.
    assert_eq!(classify(&["--model", &signed, &picture]).0, 0);

    let (code, _, err) = with_key(&model);
    assert!(code == 2 && err.contains("not signed"), "{err}");
    // Not one bit can be changed: not with a new checksum, not in the signature.
    let sound = read(&signed);
    let end = sound.len() - 64;
    for (at, reseals) in [(end - 1, true), (end - 1, false), (end, false), (end + 40, false)] {
        let mut file = sound.clone();
        file[at] ^= 4;
        if reseals {
            artifact::writer::seal(&mut file[..end]);
        }
        let changed = text(dir.path().join("changed.edge"));
        std::fs::write(&changed, file).unwrap();
        let (code, out, err) = with_key(&changed);
        assert!(code == 2 && err.contains("signature is not that of the key"), "{out} {err}");
    }
    // Without its signature, the file is cut off.
    let cut = text(dir.path().join("cut.edge"));
    std::fs::write(&cut, &sound[..end]).unwrap();
    let (code, _, err) = with_key(&cut);
    assert!(code == 2 && err.contains("truncated"), "{err}");
    // Keys the wrong way round.
    assert_eq!(convert(&["sign", &model, "--key", &public, "-o", &cut]).0, 2);
    let (code, _, err) = classify(&["--model", &signed, "--key", &private, &picture]);
    assert!(code == 2 && err.contains("no public key"), "{err}");
}
