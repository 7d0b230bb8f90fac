//! `--heatmap`: what is written where, and what is refused.

use crate::{Bench, GREEN, Outcome, RED, encode};
use edge_classify::{EXIT_ANSWER, EXIT_ERROR};
use image::{ImageFormat, RgbImage};
use std::fs;

/// Of an 8×8 map.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.edge");

/// Runs the program with that model; `@` is replaced by the folder.
fn run(bench: &Bench, args: &[&str]) -> Outcome {
    let folder = bench.folder.path().to_str().unwrap();
    let mut whole = vec!["edge-classify".to_string(), format!("--model={MODEL}")];
    whole.extend(args.iter().map(|a| a.replace('@', folder)));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = edge_classify::run(whole, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code, out: text(out), err: text(err) }
}

/// Twice as wide as high, so that a quarter is cropped away on either side.
fn wide() -> Vec<u8> {
    let photo = RgbImage::from_fn(128, 64, |x, _| if x < 64 { RED } else { GREEN });
    encode(photo, ImageFormat::Png)
}

#[test]
fn a_photo_is_drawn_in_its_own_frame() {
    let bench = Bench::new();
    bench.put("wide.png", wide());
    let o = run(&bench, &["--json", "--top=1", "--heatmap=@/heat.png", "@/wide.png"]);
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
    let json = &o.json()[0];
    let heat = &json["heatmap"];
    assert_eq!(heat["class"], json["classes"][0]["label"]);
    assert_eq!((&heat["width"], &heat["height"]), (&8.into(), &8.into()));
    assert_eq!(heat["seen"], serde_json::json!([0.25, 0.0, 0.5, 1.0]));
    assert_eq!(heat["values"].as_array().unwrap().len(), 64);
    let drawn = image::open(bench.path("heat.png")).unwrap().to_rgb8();
    assert_eq!(drawn.dimensions(), (128, 64));
    let is_grey = |x: u32| drawn.get_pixel(x, 32).0.iter().all(|v| *v == drawn.get_pixel(x, 32)[0]);
    assert_eq!([0, 31, 32, 95, 96, 127].map(is_grey), [true, true, false, false, true, true]);

    let other = run(&bench, &["--json", "--class=ship", "--heatmap=@/heat.png", "@/wide.png"]);
    assert_eq!(other.json()[0]["heatmap"]["class"], "ship");
    let plain = run(&bench, &["--json", "@/wide.png"]);
    assert_eq!(plain.json()[0].get("heatmap"), None);
}

#[test]
fn several_photos_make_a_folder() {
    let bench = Bench::new();
    for name in ["in/a/1.png", "in/b/1.png", "in/b/1.jpg", "2.png"] {
        bench.put(name, wide());
    }
    bench.put("in/b/broken.png", "no picture");
    let o = run(&bench, &["--quiet", "--heatmap=@/out", "@/in", "@/2.png"]);
    assert_eq!(o.code, EXIT_ERROR, "one is broken, the others have maps");
    for name in ["a/1.png", "b/1.png", "b/1-2.png", "2.png"] {
        assert!(image::open(bench.path("out").join(name)).is_ok(), "{name}");
    }
    assert_eq!(fs::read_dir(bench.path("out/b")).unwrap().count(), 2);
    let o = run(&bench, &["--heatmap=@/out/a", "@/2.png"]);
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
    assert!(bench.path("out/a/2.png").exists());
}

#[test]
fn what_cannot_be_drawn_is_refused_before() {
    let bench = Bench::new();
    bench.put("wide.png", wide());
    bench.put("other.png", wide());
    let both = ["@/wide.png", "@/other.png"];
    for (args, want) in [
        (vec!["--heatmap=@/heat.jpg", both[0]], "a heat map is written as .png"),
        (vec!["--heatmap=@/wide.png", both[0]], "it would take the place of the picture"),
        (vec!["--heatmap=@", both[0]], "it would take the place of the picture"),
        (vec!["--heatmap=@/other.png", both[0], both[1]], "it must be a folder"),
        (
            vec!["--heatmap=@/new.png", "--class=nothing", both[0]],
            "the model has no class \"nothing\"",
        ),
        (vec!["--class=ship", both[0]], "--heatmap"),
    ] {
        let o = run(&bench, &args);
        assert_eq!((o.code, o.out.as_str()), (EXIT_ERROR, ""), "{args:?}");
        assert!(o.err.contains(want), "{}", o.err);
    }
    let o = bench.run(&["--heatmap=@/new.png", both[0]]);
    assert_eq!((o.code, o.out.as_str()), (EXIT_ERROR, ""));
    assert!(o.err.contains("must be an average over a whole map and one dense layer"), "{}", o.err);
    assert!(!bench.path("new.png").exists());
    assert_eq!(fs::read(bench.path("wide.png")).unwrap(), wide());
}
