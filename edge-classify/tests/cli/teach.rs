//! `teach`, and `--patch`.

use crate::corner::red_model;
use crate::{BLUE, Bench, GREEN, Outcome, RED, encode};
use edge_classify::{EXIT_ANSWER, EXIT_ERROR};
use image::{ImageFormat, Rgb, RgbImage};
use std::fs;

/// A folder with the model that knows red, and pictures of one color.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.put("corner.edge", red_model());
    let teal = Rgb([0, 250, 128]);
    for (name, color) in [
        ("red", RED),
        ("green", GREEN),
        ("blue", BLUE),
        ("teals/1", teal),
        ("teals/2", Rgb([0, 248, 130])),
        ("other", Rgb([1, 249, 126])),
    ] {
        let picture = RgbImage::from_pixel(2, 2, color);
        bench.put(&format!("{name}.png"), encode(picture, ImageFormat::Png));
    }
    bench
}

fn teach(bench: &Bench, args: &[&str]) -> Outcome {
    bench.run(&[&["teach"], args].concat())
}

fn said(bench: &Bench, args: &[&str]) -> String {
    let o = bench.run(&[&["--quiet", "--top=1"], args].concat());
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""), "{args:?}");
    o.out.replace(bench.folder.path().to_str().unwrap(), "")
}

#[test]
fn a_class_is_added() {
    let bench = bench();
    assert_eq!(said(&bench, &["@/other.png"]), "/other.png: unknown (nearest: green, 100 %)\n");
    let o = teach(&bench, &["--label=teal", "@/teals", "-o", "@/m.patch"]);
    assert_eq!(
        (o.code, o.err.as_str()),
        (EXIT_ANSWER, "edge-classify: few pictures: 2; better 8 or more\n")
    );
    assert!(
        o.out.ends_with("m.patch: teal of 2 pictures; 43 bytes, give them with --patch\n"),
        "{}",
        o.out
    );
    let patched = ["--patch=@/m.patch", "@/other.png", "@/red.png", "@/blue.png"];
    let lines = said(&bench, &patched);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], "/other.png: teal 100.0 %");
    assert_eq!(lines[1], "/red.png: red 100.0 %");
    assert!(lines[2].starts_with("/blue.png: unknown (nearest: "), "{lines:?}");
    let json = bench.run(&["--json", "--patch=@/m.patch", "@/other.png"]).json();
    assert_eq!(json[0]["classes"][0]["label"], "teal");
    assert_eq!(json[0]["unknown"], false);
    // Scores of the model's own classes stay as they are.
    let logits = |args: &[&str]| bench.run(&[&["--logits", "@/other.png"], args].concat()).json();
    let [with, without] = [logits(&["--patch=@/m.patch"]), logits(&[])];
    let [with, without] = [&with, &without].map(|json| json["logits"][0].as_array().unwrap());
    assert_eq!((&with[..3], with.len()), (&without[..], 4));
    // Whatever computes it.
    for isa in ["--isa=scalar", "--threads=2"] {
        teach(&bench, &["--label=teal", isa, "@/teals", "-o", "@/n.patch"]);
        assert_eq!(
            fs::read(bench.path("m.patch")).unwrap(),
            fs::read(bench.path("n.patch")).unwrap()
        );
    }
}

#[test]
fn classes_are_replaced_and_kept() {
    let bench = bench();
    let o = teach(&bench, &["--replace=blue", "--label=teal", "@/teals", "-o", "@/m.patch"]);
    assert_eq!(o.code, EXIT_ANSWER, "{}", o.err);
    let o = teach(&bench, &["--patch=@/m.patch", "--label=sky", "@/blue.png", "-o", "@/m.patch"]);
    assert_eq!(o.code, EXIT_ANSWER, "{}", o.err);
    let patched = ["--patch=@/m.patch", "@/other.png", "@/blue.png"];
    assert_eq!(said(&bench, &patched), "/other.png: teal 100.0 %\n/blue.png: sky 100.0 %\n");
    // What was taught is taught anew, at its place.
    let o =
        teach(&bench, &["--patch=@/m.patch", "--replace=teal", "@/other.png", "-o", "@/n.patch"]);
    assert_eq!(o.code, EXIT_ANSWER, "{}", o.err);
    assert_eq!(said(&bench, &["--patch=@/n.patch", "@/other.png"]), "/other.png: teal 100.0 %\n");
    assert_eq!(
        fs::read(bench.path("m.patch")).unwrap().len(),
        fs::read(bench.path("n.patch")).unwrap().len()
    );
    let json = bench.run(&["--logits", "--patch=@/n.patch", "@/other.png"]).json();
    assert_eq!(json["logits"][0].as_array().unwrap().len(), 4);
}

#[test]
fn what_cannot_be_taught_is_refused() {
    let bench = bench();
    teach(&bench, &["--label=teal", "@/teals", "-o", "@/m.patch"]);
    bench.put("broken.png", "no picture");
    bench.put("short.patch", &fs::read(bench.path("m.patch")).unwrap()[..40]);
    for (args, want) in [
        (&["@/teals", "-o", "@/x.patch"][..], "--label"),
        (&["--label=red", "@/teals", "-o", "@/x.patch"], "--replace \"red\""),
        (
            &["--label=teal", "--patch=@/m.patch", "@/teals", "-o", "@/x.patch"],
            "--replace \"teal\"",
        ),
        (&["--replace=pink", "@/teals", "-o", "@/x.patch"], "the model has no class \"pink\""),
        (&["--label=", "@/teals", "-o", "@/x.patch"], "1 to 256"),
        (&["--label=x", "@/broken.png", "-o", "@/x.patch"], "nothing was taught: "),
        (&["--label=x", "--patch=@/short.patch", "@/teals", "-o", "@/x.patch"], "truncated: 40"),
        (&["--label=x", "--patch=@/red.png", "@/teals", "-o", "@/x.patch"], "not a patch"),
    ] {
        let o = teach(&bench, args);
        assert_eq!((o.code, o.out.as_str()), (EXIT_ERROR, ""), "{args:?}");
        assert!(o.err.contains(want), "{args:?}: {}", o.err);
        assert!(!bench.path("x.patch").exists());
    }
    let o = bench.run(&["--patch=@/m.patch", "--heatmap=@/h.png", "@/red.png"]);
    assert!(o.code == EXIT_ERROR && o.err.contains("--heatmap"), "{}", o.err);
    // Another model, and one that cannot learn.
    bench.put("corner.edge", crate::corner::red_model_of(["red", "green", "pink"]));
    let o = bench.run(&["--patch=@/m.patch", "@/red.png"]);
    assert!(o.code == EXIT_ERROR && o.err.contains("belongs to another model"), "{}", o.err);
    bench.put("corner.edge", crate::corner_model(["red", "green", "blue"]));
    let o = teach(&bench, &["--label=teal", "@/teals", "-o", "@/x.patch"]);
    assert!(o.code == EXIT_ERROR && o.err.contains("convert it with --unknown"), "{}", o.err);
    let o = bench.run(&["--patch=@/m.patch", "@/red.png"]);
    assert!(o.code == EXIT_ERROR && o.err.contains("convert it with --unknown"), "{}", o.err);
}

#[test]
fn signatures_of_patches_are_checked() {
    use ed25519_dalek::pkcs8::EncodePublicKey;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    use ed25519_dalek::{Signer, SigningKey};
    let bench = bench();
    let [maker, device] = [7, 8].map(|byte| SigningKey::from_bytes(&[byte; 32]));
    for (name, key) in [("maker.pem", &maker), ("device.pem", &device)] {
        bench.put(name, key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap());
    }
    let signed = |key: &SigningKey| {
        let sign = |bytes: &[u8]| key.sign(bytes).to_bytes();
        let patch = fs::read(bench.path("plain.patch")).unwrap();
        artifact::patch::resign(&patch, sign).unwrap()
    };
    teach(&bench, &["--label=teal", "@/teals", "-o", "@/plain.patch"]);
    bench.put("maker.patch", signed(&maker));
    bench.put("device.patch", signed(&device));
    // The signature of the model changes nothing of what belongs to it.
    let sign = |bytes: &[u8]| maker.sign(bytes).to_bytes();
    bench.put("corner.edge", artifact::writer::rewrite(&red_model(), Some(sign)).unwrap());
    let run = |args: &[&str]| {
        let o = bench.run(&[&["--quiet", "--key=@/maker.pem", "@/other.png"], args].concat());
        (o.code, o.err)
    };
    assert_eq!(run(&["--patch=@/maker.patch"]).0, EXIT_ANSWER);
    assert_eq!(run(&["--patch=@/device.patch", "--patch-key=@/device.pem"]).0, EXIT_ANSWER);
    for (args, want) in [
        (&["--patch=@/plain.patch"][..], "the patch is not signed; sign it with `convert sign`"),
        (&["--patch=@/device.patch"], "the signature is not that of the key"),
        (&["--patch=@/maker.patch", "--patch-key=@/device.pem"], "the signature is not that"),
    ] {
        let (code, said) = run(args);
        assert!(code == EXIT_ERROR && said.contains(want), "{args:?}: {said}");
    }
}
