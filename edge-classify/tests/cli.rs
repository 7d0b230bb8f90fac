//! The whole program in process: pictures that are odd, broken or hostile, and its output.

use artifact::writer::{Blob, Contents, write};
use artifact::{
    Dtype, Fit, Interpolation, Meta, Op, Padding, Place, Pool2d, PoolKind, Preprocess, Quant,
    Requant, Shape,
};
use edge_classify::{EXIT_ANSWER, EXIT_ERROR, EXIT_NO_CLASS};
use image::{
    DynamicImage, Frame, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb,
    RgbImage, Rgba, RgbaImage,
};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const RED: Rgb<u8> = Rgb([255, 0, 0]);
const GREEN: Rgb<u8> = Rgb([0, 255, 0]);
const BLUE: Rgb<u8> = Rgb([0, 0, 255]);

/// A model that names the color in the upper left: 2 × 2 nearest pixels, of which a pool with
/// a window of one takes the first. Logits are `20 · (v / 255) − 10`. Grey with one label.
fn corner_model<const N: usize>(labels: [&str; N]) -> Vec<u8> {
    let shape = |side| Shape::new(side, side, N as u16);
    let place = |offset, side| Place { offset, shape: shape(side), quant: Quant::NONE };
    let (input, output) = (place(0, 2), place(128, 1));
    let pool = Pool2d {
        kind: PoolKind::Max,
        input,
        output,
        filter: [1, 1],
        stride: [2, 2],
        padding: Padding::same(0),
        requant: Requant::new(1.0).unwrap(),
    };
    let preprocess = Preprocess {
        fit: Fit::Stretch,
        interpolation: Interpolation::Nearest,
        scale: [20.0 / 255.0; 3],
        offset: [-10.0; 3],
        ..Preprocess::raw(2, 2)
    };
    let meta = Meta {
        name: "corner",
        input,
        output,
        preprocess,
        dataset: "none",
        metrics: "",
        tool: "test",
        label_count: N as u32,
    };
    write(Contents {
        dtype: Dtype::F32,
        nr: 16,
        arena_len: 256,
        meta,
        labels: &labels,
        ops: &[Op::Pool2d(pool)],
        blob: Blob::new(),
    })
    .unwrap()
}

/// A folder with the model in it.
struct Bench {
    folder: TempDir,
}

struct Outcome {
    code: u8,
    out: String,
    err: String,
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
            whole.extend([format!("--model={folder}/corner.edge"), "--threads=1".into()]);
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
        let json: Value = serde_json::from_str(&o.out).unwrap();
        json[0]["classes"][0]["label"].as_str().unwrap().into()
    }

    /// What is said of a picture that cannot be read.
    fn refusal_of(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        self.put(name, bytes);
        let o = self.run(&["--json", &format!("@/{name}")]);
        assert_eq!(o.code, EXIT_ERROR, "{name}: {}", o.out);
        assert!(o.err.contains(name), "{}", o.err);
        let json: Value = serde_json::from_str(&o.out).unwrap();
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
fn formats_told_by_contents() {
    let bench = Bench::new();
    for format in
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::WebP]
    {
        let bytes = encode(quadrants(32, 32), format);
        assert_eq!(bench.label_of("wrong-suffix.txt", bytes), "red", "{format:?}");
    }
}

#[test]
fn exif_orientation_is_applied() {
    let bench = Bench::new();
    // As stored: red, green / blue, blue.
    let wanted = ["red", "red", "green", "blue", "blue", "red", "blue", "blue", "green"];
    for (orientation, want) in wanted.iter().enumerate() {
        let name = format!("{orientation}.jpg");
        assert_eq!(bench.label_of(&name, jpeg_turned(orientation as u8)), *want, "{orientation}");
    }
}

#[test]
fn odd_pixel_formats() {
    let bench = Bench::new();
    let png = |picture: DynamicImage| encode(picture, ImageFormat::Png);
    assert_eq!(bench.label_of("1x1.png", png(RgbImage::from_pixel(1, 1, GREEN).into())), "green");
    let wide: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_pixel(3, 3, Rgb([0, 300, 65_535]));
    assert_eq!(bench.label_of("16-bit.png", png(wide.into())), "blue");

    // On white all are equal; the lower index comes first.
    bench.put("clear.png", png(RgbaImage::from_pixel(2, 2, Rgba([0, 0, 255, 0])).into()));
    bench.put("grey.png", png(GrayImage::from_pixel(2, 2, Luma([255])).into()));
    bench.put("grey-alpha.png", png(GrayAlphaImage::from_pixel(2, 2, LumaA([0, 0])).into()));
    for name in ["clear.png", "grey.png", "grey-alpha.png"] {
        let o = bench.run(&["--logits", &format!("@/{name}")]);
        assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
        let json: Value = serde_json::from_str(&o.out).unwrap();
        for logit in json["logits"][0].as_array().unwrap() {
            assert!((logit.as_f64().unwrap() - 10.0).abs() < 1e-5, "{name}: {}", o.out);
        }
    }
}

#[test]
fn palette() {
    // A 2 × 2 PNG of a 2-color palette (red, half-transparent blue), all pixels the second.
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        bytes.extend((data.len() as u32).to_be_bytes());
        let body = [name, data].concat();
        bytes.extend(&body);
        bytes.extend(crc32(&body).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 2, 8, 3, 0, 0, 0]);
    chunk(b"PLTE", &[255, 0, 0, 0, 0, 255]);
    chunk(b"tRNS", &[255, 128]);
    // Stored deflate: rows of a filter byte and two pixels, then Adler-32.
    let rows = [0, 1, 1, 0, 1, 1];
    let (a, b) = rows.iter().fold((1u32, 0u32), |(a, b), v| (a + v, b + a + v));
    let mut data = vec![0x78, 1, 1, 6, 0, !6, 0xff];
    data.extend(rows.map(|v| v as u8));
    data.extend((b << 16 | a).to_be_bytes());
    chunk(b"IDAT", &data);
    chunk(b"IEND", &[]);
    assert_eq!(Bench::new().label_of("palette.png", bytes), "blue");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

#[test]
fn animation_is_noted() {
    let bench = Bench::new();
    let mut bytes = Vec::new();
    let frame = |color: [u8; 4]| Frame::new(RgbaImage::from_pixel(4, 4, Rgba(color)));
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    encoder.encode_frames([frame([0, 255, 0, 255]), frame([255, 0, 0, 255])]).unwrap();
    drop(encoder);
    bench.put("moving.gif", bytes);
    let o = bench.run(&["@/moving.gif"]);
    assert_eq!(o.code, EXIT_ANSWER);
    assert!(o.out.contains("moving.gif: green 100.0 %"), "{}", o.out);
    assert!(o.err.contains("moving.gif: animated; only its first frame"), "{}", o.err);
    bench.put("still.gif", encode(quadrants(4, 4), ImageFormat::Gif));
    assert_eq!(bench.run(&["@/still.gif"]).err, "");
}

#[test]
fn what_is_no_picture_is_named() {
    let bench = Bench::new();
    for (name, bytes, want) in [
        ("empty.jpg", &b""[..], "empty"),
        ("page.jpg", b"<!DOCTYPE html><html></html>", "web page"),
        ("indented.jpg", b"\n  <html>", "web page"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("scan.jpg", b"%PDF-1.7", "PDF"),
        ("scan.tif", b"II*\0\x08\0\0\0", "TIFF"),
        ("text.png", b"hello", "not a picture"),
        ("magic.png", b"\x89PNG\r\n\x1a\n", "damaged picture"),
    ] {
        let got = bench.refusal_of(name, bytes);
        assert!(got.to_lowercase().contains(&want.to_lowercase()), "{name}: {got}");
    }
}

#[test]
fn truncated_pictures_are_refused() {
    let bench = Bench::new();
    let noise =
        RgbImage::from_fn(48, 48, |x, y| Rgb([((x * 37) ^ (y * 11)) as u8, x as u8, y as u8]));
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let bytes = encode(noise.clone(), format);
        for len in [3, 12, 30, bytes.len() / 2, bytes.len() * 9 / 10] {
            bench.refusal_of("cut.bin", &bytes[..len]);
        }
    }
}

#[test]
fn claims_of_huge_sizes_are_refused() {
    let bench = Bench::new();
    for (side, want) in [(16_384u32, "512 MiB"), (40_000, "32768"), (u32::MAX, "picture")] {
        let mut header = b"IHDR".to_vec();
        header.extend([side.to_be_bytes(), side.to_be_bytes()].concat());
        header.extend([8, 2, 0, 0, 0]);
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
        bytes.extend(&header);
        bytes.extend(crc32(&header).to_be_bytes());
        // The first data chunk's head, so that the decoder starts.
        bytes.extend(b"\0\0\0\x10IDATx\x9c");
        let got = bench.refusal_of("bomb.png", bytes);
        assert!(got.contains(want), "{got}");
    }
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
    let json: Value = serde_json::from_str(&o.out).unwrap();
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
    let json: Value = serde_json::from_str(&o.out).unwrap();
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
    let json: Value = serde_json::from_str(&o.out).unwrap();
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
fn bench_prints_one_line() {
    let bench = Bench::new();
    let o = bench.run(&["bench", "--json", "@/corner.edge", "--threads", "1", "--runs", "3"]);
    assert_eq!((o.code, o.err.as_str(), o.out.lines().count()), (EXIT_ANSWER, "", 1));
    let json: Value = serde_json::from_str(&o.out).unwrap();
    for key in ["median_ms", "min_ms", "load_ms"] {
        assert!(json[key].as_f64().unwrap() >= 0.0, "{key}");
    }
    assert!(json.get("layers").is_none());
    let o = bench.run(&["bench", "--layers", "--json", "@/corner.edge", "--runs", "3"]);
    let json: Value = serde_json::from_str(&o.out).unwrap();
    assert_eq!(json["layers"][0]["operator"], "max_pool2d");
    assert_eq!(json["layers"][0]["output"], serde_json::json!([1, 1, 3]));
    let o = bench.run(&["bench", "@/corner.edge", "--threads=2", "--isa=scalar", "--layers"]);
    assert!(o.out.contains("2 thread(s) with scalar"), "{}", o.out);
    assert!(o.out.contains("max_pool2d        2x2x3       1x1x3    1x1"), "{}", o.out);
}

/// Of a microcontroller's model, in which convolutions take turns, too: all the work is somewhere.
#[test]
fn bench_times_operators_that_take_turns() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/resnet_8_cifar10.cortex-m.edge");
    let o = Bench::new().run(&["bench", "--layers", "--json", model, "--runs", "2"]);
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
    let json: Value = serde_json::from_str(&o.out).unwrap();
    let layers = json["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["median_ms"].as_f64().unwrap() > 0.0), "{}", o.out);
    let macs = layers.iter().map(|layer| layer["macs"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(macs, 12_501_632);
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
fn bench_compares_with_what_is_installed() {
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

/// A picture of one color.
fn save(folder: &Path, name: &str, color: Rgb<u8>) {
    let picture = encode(RgbImage::from_pixel(4, 4, color), ImageFormat::Png);
    fs::write(folder.join(name), picture).unwrap();
}

/// The real program, since it only ends when it is killed, and the folder below `dir` that it watches.
fn watching(dir: &Path, options: [&str; 2]) -> (PathBuf, Child) {
    let (model, folder) = (dir.join("corner.edge"), dir.join("camera"));
    fs::write(&model, corner_model(["red", "green", "blue"])).unwrap();
    fs::create_dir(&folder).unwrap();
    save(&folder, "before.png", RED);
    let mut program = Command::new(env!("CARGO_BIN_EXE_edge-classify"));
    program.arg("--model").arg(&model).arg("--watch").arg(&folder).arg("--json").args(options);
    // Named, so that it is known when the folder is watched.
    program.arg(folder.join("before.png"));
    let child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (folder, child)
}

#[test]
fn watches_a_folder() {
    let dir = TempDir::new().unwrap();
    let (folder, mut child) = watching(dir.path(), ["--top", "1"]);
    let save = |name, color| save(&folder, name, color);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let said = |item: &Value| {
        let label = item["classes"][0]["label"].as_str().unwrap_or("none").to_owned();
        (file_name(item).to_owned(), label)
    };
    // The picture that was named; from now on the folder is watched.
    assert_eq!(said(&next()), ("before.png".into(), "red".into()));
    save("new.png", GREEN);
    assert_eq!(said(&next()), ("new.png".into(), "green".into()));
    save("new.png", BLUE);
    assert_eq!(said(&next()), ("new.png".into(), "blue".into()));
    fs::write(folder.join("notes.txt"), "no picture's name").unwrap();
    fs::write(folder.join("broken.jpg"), "no picture").unwrap();
    let item = next();
    assert_eq!(file_name(&item), "broken.jpg");
    assert!(item["error"].as_str().unwrap().contains("not a picture"), "{item}");
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(i32::from(EXIT_ERROR)));
    let mut complaint = String::new();
    child.stderr.unwrap().read_to_string(&mut complaint).unwrap();
    assert!(complaint.contains("camera"), "{complaint}");
    assert!(complaint.contains("skipped 1 file") && complaint.contains("notes.txt"), "{complaint}");
}

/// Only what was answered is deleted, and of that not the newest.
#[test]
fn keeps_the_newest_of_a_folder() {
    let dir = TempDir::new().unwrap();
    let (folder, mut child) = watching(dir.path(), ["--keep", "2"]);
    let save = |name, color| save(&folder, name, color);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(file_name(&next()), "before.png");
    fs::write(folder.join("broken.jpg"), "no picture").unwrap();
    fs::write(folder.join("notes.txt"), "text").unwrap();
    assert_eq!(file_name(&next()), "broken.jpg");
    for name in ["1.png", "2.png", "3.png", "4.png"] {
        save(name, BLUE);
        assert_eq!(file_name(&next()), name);
    }
    // Deleted after the answer, before the next look.
    save("5.png", RED);
    assert_eq!(file_name(&next()), "5.png");
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "3.png")
        .collect();
    left.sort();
    assert_eq!(left, ["4.png", "5.png", "before.png", "broken.jpg", "notes.txt"]);
    child.kill().unwrap();
    child.wait().unwrap();
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
    let o = bench.run(&["--help"]);
    assert_eq!((o.code, o.err.as_str()), (EXIT_ANSWER, ""));
    assert!(o.out.contains("put on white"));
}
