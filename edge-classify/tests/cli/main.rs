//! The whole program in process: pictures that are odd, broken or hostile, and its output.

mod bench;
mod corner;
mod csv;
mod heatmap;
mod pictures;
mod teach;
mod unknown;
mod watch;

use corner::corner_model;
use edge_classify::{EXIT_ANSWER, EXIT_ERROR, EXIT_NO_CLASS};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RED: Rgb<u8> = Rgb([255, 0, 0]);
const GREEN: Rgb<u8> = Rgb([0, 255, 0]);
const BLUE: Rgb<u8> = Rgb([0, 0, 255]);

/// A folder with the model in it.
struct Bench {
    folder: TempDir,
}

struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        bench.put("corner.edge", corner_model(["red", "green", "blue"]));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs the program with the model and these arguments; `@` is replaced by the folder.
    fn run(&self, args: &[&str]) -> Outcome {
        let folder = self.folder.path().to_str().unwrap();
        let mut whole = vec!["edge-classify".to_string()];
        whole.extend(args.iter().map(|a| a.replace('@', folder)));
        if args.first() != Some(&"bench") {
            whole.push(format!("--model={folder}/corner.edge"));
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = edge_classify::run(whole, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code, out: text(out), err: text(err) }
    }

    /// The likeliest label of one picture.
    fn label_of(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        self.put(name, bytes);
        let o = self.run(&["--json", &format!("@/{name}")]);
        assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""), "{name}");
        let json = o.json();
        json[0]["classes"][0]["label"].as_str().unwrap().into()
    }

    /// What is said of a picture that cannot be read.
    fn refusal_of(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        self.put(name, bytes);
        let o = self.run(&["--json", &format!("@/{name}")]);
        assert_eq!(o.code, EXIT_ERROR, "{name}: {}", o.out);
        assert!(o.err.contains(name), "{}", o.err);
        let json = o.json();
        assert!(json[0]["file"].as_str().unwrap().ends_with(name));
        assert!(json[0].get("classes").is_none());
        json[0]["error"].as_str().unwrap().into()
    }
}

fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Red upper left, green upper right, blue below.
fn quadrants(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => RED,
        (false, true) => GREEN,
        _ => BLUE,
    })
}

/// A JPEG with an EXIF block that holds nothing but the orientation.
fn jpeg_turned(orientation: u8) -> Vec<u8> {
    let jpeg = encode(quadrants(64, 32), ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    exif.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xff, 0xe1]);
    bytes.extend((exif.len() as u16 + 2).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

#[test]
fn the_run_goes_on() {
    let bench = Bench::new();
    bench.put("p/b.png", encode(quadrants(4, 4), ImageFormat::Png));
    bench.put("p/a.jpg", b"<html>");
    bench.put("p/c/deep.JPG", jpeg_turned(2));
    bench.put("p/notes.txt", "not listed");
    bench.put("p/.hidden.png", "not listed");
    #[cfg(unix)]
    std::os::unix::fs::symlink(bench.path("p"), bench.path("p/loop")).unwrap();
    let o = bench.run(&["--json", "@/missing.jpg", "@/p"]);
    assert_eq!(o.code, EXIT_ERROR);
    let json = o.json();
    let files: Vec<&str> = json.as_array().unwrap().iter().map(file_name).collect();
    assert_eq!(files, ["missing.jpg", "a.jpg", "b.png", "deep.JPG"]);
    assert_eq!(json[2]["classes"][0]["label"], "red");
    assert_eq!(json[3]["classes"][0]["label"], "green");
    let failed = |o: &Outcome| o.err.lines().filter(|line| line.contains("g: ")).count();
    assert_eq!(failed(&o), 2, "{}", o.err);

    fs::create_dir(bench.path("none")).unwrap();
    let o = bench.run(&["@/none"]);
    assert_eq!(o.code, EXIT_ERROR);
    assert!(o.err.contains("none: no pictures in this folder"), "{}", o.err);
}

/// What is in folders beside pictures is counted and named, and no failure.
#[test]
fn what_is_skipped_is_named() {
    let bench = Bench::new();
    bench.put("p/a.png", encode(quadrants(4, 4), ImageFormat::Png));
    for i in 0..5 {
        bench.put(&format!("p/phone{i}.HEIC"), b"\0\0\0\x18ftypheic\0\0\0\0");
    }
    bench.put("p/new.avif", b"\0\0\0\x18ftypavif\0\0\0\0");
    bench.put("p/deep/scan.tif", b"II*\0\x08\0\0\0");
    bench.put("p/it's.txt", "text");
    bench.put("p/odd", jpeg_turned(1));
    bench.put("p/.DS_Store", "not named");
    bench.put("p/Thumbs.db", "not named");
    #[cfg(unix)]
    std::os::unix::fs::symlink(bench.path("gone.jpg"), bench.path("p/link.jpg")).unwrap();
    let o = bench.run(&["@/p"]);
    assert_eq!((o.code, o.out.lines().count()), (EXIT_ANSWER, 1), "{}", o.out);
    for want in [
        "skipped 5 files: a HEIC picture",
        "/p/phone2.HEIC\n",
        "and 2 more",
        "skipped 1 file: an AVIF picture",
        "skipped 1 file: a TIFF or raw picture",
        "/p/deep/scan.tif",
        "skipped 1 file: not a picture",
        "/p/it's.txt",
        "skipped 1 file: a picture whose name does not end so",
        #[cfg(unix)]
        "skipped 1 file: a link that leads nowhere",
    ] {
        assert!(o.err.contains(want), "{want}: {}", o.err);
    }
    assert!(!o.err.contains("DS_Store") && !o.err.contains("Thumbs"), "{}", o.err);
}

/// Several at a time, in their order.
#[test]
fn answers_do_not_depend_on_threads() {
    let bench = Bench::new();
    for i in 0..50 {
        let file = encode(quadrants(4 + i * 7 % 11, 5), ImageFormat::Png);
        bench.put(&format!("p/{i:02}.png"), if i % 10 == 3 { &file[..40] } else { &file });
    }
    let one = bench.run(&["@/p", "--json", "--threads=1"]);
    assert!(one.err.contains("50 pictures in "), "{}", one.err);
    let json = one.json();
    let names: Vec<&str> = json.as_array().unwrap().iter().map(file_name).collect();
    assert!(names.len() == 50 && names.is_sorted(), "{}", one.out);
    for threads in ["2", "3", "64"] {
        let o = bench.run(&["@/p", "--json", "--threads", threads]);
        assert_eq!((o.code, &o.out), (EXIT_ERROR, &one.out), "{threads}");
    }
}

fn file_name(item: &Value) -> &str {
    Path::new(item["file"].as_str().unwrap()).file_name().unwrap().to_str().unwrap()
}

#[test]
fn top_threshold_and_time() {
    let bench = Bench::new();
    bench.put("grey.png", encode(RgbImage::from_pixel(2, 2, Rgb([9; 3])), ImageFormat::Png));
    bench.put("red.png", encode(quadrants(4, 4), ImageFormat::Png));
    let o = bench.run(&["--top", "2", "@/grey.png"]);
    assert!(o.out.ends_with("grey.png: red 33.3 %, green 33.3 %\n"), "{}", o.out);
    let o = bench.run(&["--threshold", "0.9", "@/grey.png", "@/red.png"]);
    assert_eq!(o.code, EXIT_NO_CLASS);
    assert!(o.out.contains("no class above the threshold (likeliest: red 33.3 %)"), "{}", o.out);
    assert!(o.out.ends_with("red.png: red 100.0 %\n"), "{}", o.out);
    let o = bench.run(&["--threshold", "0.9", "@/red.png", "--time"]);
    assert_eq!(o.code, EXIT_ANSWER);
    assert!(o.out.contains("(decode ") && o.out.contains(" ms, run "), "{}", o.out);
    let o = bench.run(&["--threshold=0.9", "--json", "--time", "@/grey.png"]);
    assert_eq!(o.code, EXIT_NO_CLASS);
    let json = o.json();
    assert_eq!(json[0]["classes"].as_array().unwrap().len(), 0);
    assert!(json[0]["ms"]["run"].is_number());
}

#[test]
fn labels_and_names_cannot_command_the_terminal() {
    let bench = Bench::new();
    bench.put("corner.edge", corner_model(["\u{1b}[2J\u{202e}red", "g\nreen", "\"blue\""]));
    let name = "p\u{1b}[31m\u{202e}.png";
    bench.put(name, encode(quadrants(4, 4), ImageFormat::Png));
    for args in [&["@"][..], &["--json", "@"]] {
        let o = bench.run(args);
        assert_eq!(o.code, EXIT_ANSWER);
        assert!(!o.out.contains(['\u{1b}', '\u{202e}']), "{}", o.out);
    }
    let o = bench.run(&["--json", "@"]);
    let json = o.json();
    assert_eq!(file_name(&json[0]), name);
    assert_eq!(json[0]["classes"][0]["label"], "\u{1b}[2J\u{202e}red");
}

#[test]
fn tensors() {
    let bench = Bench::new();
    let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
    bench.put("two.npy", npy("(2, 2, 2, 3)", &values));
    bench.put("one.npy", npy("(2, 2, 3)", &values[..12]));
    let o = bench.run(&["--tensor", "@/two.npy", "--logits"]);
    assert_eq!(o.out, "{\"logits\":[[0.0,1.0,2.0],[12.0,13.0,14.0]]}\n");
    let o = bench.run(&["--tensor", "@/one.npy", "--logits"]);
    assert_eq!(o.out, "{\"logits\":[[0.0,1.0,2.0]]}\n");
    let o = bench.run(&["--tensor", "@/one.npy", "--top", "1"]);
    assert!(o.out.ends_with("one.npy[0]: blue 66.5 %\n"), "{}", o.out);

    for (shape, len, want) in [
        ("(3, 2, 2)", 12, "the model wants [2, 2, 3]"),
        ("(1, 1, 2, 2, 3)", 12, "the model wants"),
        ("(2, 3)", 6, "the model wants"),
        ("(2, 2, 3)", 11, "needs 48 bytes"),
    ] {
        bench.put("bad.npy", npy(shape, &values[..len]));
        let o = bench.run(&["--tensor", "@/bad.npy", "--logits"]);
        assert_eq!((o.code, o.out.as_str()), (EXIT_ERROR, ""), "{shape}");
        assert!(o.err.contains("bad.npy") && o.err.contains(want), "{}", o.err);
    }
}

/// Of any picture its luma, of tensors also those without the dimension of one channel, or with it
/// where PyTorch has it.
#[test]
fn grey_models() {
    let bench = Bench::new();
    bench.put("corner.edge", corner_model(["light"]));
    let logit = |luma: f32| luma * (20.0 / 255.0) - 10.0;
    let color = RgbImage::from_pixel(4, 4, Rgb([200, 100, 50]));
    bench.put("color.png", encode(DynamicImage::ImageRgb8(color), ImageFormat::Png));
    let grey = GrayImage::from_pixel(3, 5, Luma([77]));
    bench.put("grey.png", encode(DynamicImage::ImageLuma8(grey), ImageFormat::Png));
    let o = bench.run(&["--logits", "@/color.png", "@/grey.png"]);
    // Pillow has 124 of the first one.
    assert_eq!(
        o.out,
        format!("{{\"logits\":[[{}],[{}]]}}\n", logit(124.0), logit(77.0)),
        "{}",
        o.err
    );

    let values: Vec<f32> = (1..13).map(|v| v as f32).collect();
    for (shape, len, want) in [
        ("(3, 2, 2, 1)", 12, "[1.0],[5.0],[9.0]"),
        ("(3, 1, 2, 2)", 12, "[1.0],[5.0],[9.0]"),
        ("(3, 2, 2)", 12, "[1.0],[5.0],[9.0]"),
        ("(1, 2, 2)", 4, "[1.0]"),
        ("(2, 2, 1)", 4, "[1.0]"),
        ("(2, 2)", 4, "[1.0]"),
    ] {
        bench.put("x.npy", npy(shape, &values[..len]));
        let o = bench.run(&["--tensor", "@/x.npy", "--logits"]);
        assert_eq!(o.out, format!("{{\"logits\":[{want}]}}\n"), "{shape}: {}", o.err);
    }
    for (shape, len) in [("(2, 2, 3)", 12), ("(1, 3, 1, 2, 2)", 12), ("(4,)", 4)] {
        bench.put("x.npy", npy(shape, &values[..len]));
        let o = bench.run(&["--tensor", "@/x.npy", "--logits"]);
        assert!(o.code == EXIT_ERROR && o.err.contains("the model wants [2, 2, 1]"), "{}", o.err);
    }
}

#[test]
fn usage_errors() {
    let bench = Bench::new();
    for (args, want) in [
        (&[][..], "FILE"),
        (&["--top", "0", "x"][..], "from 1 to 100"),
        (&["--threshold", "nan", "x"][..], "from 0 to 1"),
        (&["--isa", "mmx", "x"][..], "scalar"),
        (&["--threads", "0", "x"][..], "0"),
        (&["--keep", "2", "x"][..], "--watch"),
        (&["bench", "@/missing.edge"][..], "missing.edge"),
    ] {
        let o = bench.run(args);
        assert_eq!((o.code, o.out.as_str()), (EXIT_ERROR, ""), "{args:?}");
        assert!(o.err.contains(want), "{args:?}: {}", o.err);
    }
    bench.put("corner.edge", "not a model");
    let o = bench.run(&["x.jpg"]);
    assert_eq!(o.code, EXIT_ERROR);
    assert!(o.err.contains("corner.edge: truncated"), "{}", o.err);
    // Not read to its end to know that.
    let huge = fs::File::create(bench.path("corner.edge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let o = bench.run(&["x.jpg"]);
    assert!(o.err.contains("corner.edge: not an .edge"), "{}", o.err);
    let o = bench.run(&["--help"]);
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
    assert!(o.out.contains("put on white"));
}
