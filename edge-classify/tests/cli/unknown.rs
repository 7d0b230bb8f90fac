//! Models that tell unknown pictures.

use crate::corner::red_model;
use crate::watch::{Watching, save};
use crate::{Bench, GREEN, RED, encode};
use edge_classify::{EXIT_ANSWER, EXIT_NO_CLASS};
use image::{ImageFormat, RgbImage};
use std::io::Read;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.put("corner.edge", red_model());
    for (name, color) in [("green.png", GREEN), ("red.png", RED)] {
        bench.put(name, encode(RgbImage::from_pixel(2, 2, color), ImageFormat::Png));
    }
    bench
}

#[test]
fn unknown_pictures_are_told_in_every_form() {
    let bench = bench();
    let lines = |args: &[&str]| {
        let o = bench.run(&[args, &["@/green.png", "@/red.png", "--quiet"]].concat());
        let text = o.out.replace(bench.folder.path().to_str().unwrap(), "");
        (o.code, text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (code, said) = lines(&["--top=1"]);
    assert_eq!(code, EXIT_ANSWER);
    assert_eq!(said, ["/green.png: unknown (nearest: green, 100 %)", "/red.png: red 100.0 %"]);
    // An unknown picture is of no class that likely.
    assert_eq!(lines(&["--threshold=0.5"]).0, EXIT_NO_CLASS);
    assert_eq!(bench.run(&["--threshold=0.5", "@/red.png"]).code, EXIT_ANSWER);

    let json = bench.run(&["--json", "@/green.png", "@/red.png"]).json();
    assert_eq!((&json[0]["unknown"], &json[1]["unknown"]), (&true.into(), &false.into()));
    assert_eq!(json[0]["classes"][0]["label"], "green");
    assert!(
        json[0]["distance"].as_f64().unwrap() > 100.0 && json[1]["distance"].as_f64() < Some(1.0)
    );

    let (_, said) = lines(&["--csv", "--top=1"]);
    assert_eq!(said[0], "file,label,probability,distance,error");
    assert!(said[1].starts_with("\"/green.png\",\"green\",1,1"), "{said:?}");
    assert!(said[2].starts_with("\"/red.png\",\"red\",1,0"), "{said:?}");
    // Other models have nothing to say of it.
    bench.put("corner.edge", crate::corner_model(["red", "green", "blue"]));
    let json = bench.run(&["--json", "@/green.png"]).json();
    assert!(json[0].get("unknown").is_none() && json[0].get("distance").is_none(), "{json}");
}

#[test]
fn drift_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut watching = Watching::start_with(dir.path(), ["--top", "1"], &red_model());
    watching.next();
    for i in 0..20 {
        save(&watching.folder, &format!("{i}.png"), GREEN);
    }
    for _ in 0..20 {
        assert_eq!(watching.next()["unknown"], true);
    }
    watching.child.kill().unwrap();
    let mut said = String::new();
    watching.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    watching.child.wait().unwrap();
    assert!(said.lines().count() == 1 && said.contains("drift: pictures are 1.5"), "{said}");
}
