//! Photos → `.mpk` → `.edge` → class, in process, on what the repository ships.

use artifact::Artifact;
use convert::accuracy::predict;
use convert::pipeline::{Converted, Options, Quantize, convert};
use convert::quantize::Method;
use convert::target::Target;
use dataset::samples::{normalize, stored_samples};
use dataset::{CacheSize, Dataset, Pictures, ReadOptions, fit};
use network::checkpoint::Checkpoint;
use network::evaluate::evaluate;
use network::model::FloatModel;
use runtime::workers::{Inline, Threads, Workers};
use runtime::{AlignedBuf, Isa, Model, Session};
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What fine-tuning starts from for small pictures.
const BUILTIN: &str = "resnet_20_cifar10";
/// That of the firmware.
const SMALL: &str = "resnet_8_cifar10";

fn shipped(name: &str) -> Checkpoint {
    Checkpoint::load(&repository().join(format!("models/{name}.mpk"))).unwrap()
}

fn shipped_edge(name: &str, target: Target) -> Vec<u8> {
    let kind = match target {
        Target::Host => "edge",
        Target::CortexM => "cortex-m.edge",
    };
    std::fs::read(repository().join(format!("models/{name}.{kind}"))).unwrap()
}

/// The samples stored in the shipped checkpoint: real CIFAR-10 training pictures.
fn sample_pictures(checkpoint: &Checkpoint) -> Pictures {
    let p = &checkpoint.preprocess;
    let mut pictures = Pictures::new(*p);
    for sample in &checkpoint.samples {
        let picture = picture::decode(&sample.png).unwrap();
        pictures.push(&fit(picture.view().unwrap(), p).unwrap(), sample.label, 0);
    }
    pictures
}

/// CIFAR-10's test pictures, where the data set is at hand.
pub(crate) fn cifar_test(checkpoint: &Checkpoint) -> Option<(tempfile::TempDir, Pictures)> {
    let archive = repository().join("../shared/data/cifar-10-batches-bin.tar.xz");
    if !archive.is_file() {
        println!("SKIPPED on CIFAR-10: {} is not there", archive.display());
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("tar")
        .args(["-xJf".as_ref(), archive.as_os_str(), "-C".as_ref(), dir.path().as_os_str()])
        .status()
        .unwrap();
    assert!(status.success(), "tar cannot unpack {}", archive.display());
    let options = ReadOptions {
        preprocess: checkpoint.preprocess,
        val_split: 0.0,
        seed: 0,
        classes: Some(10),
        cache: CacheSize::All,
    };
    let data = Dataset::read(dir.path(), &options).unwrap();
    Some((dir, data.val))
}

/// With the pictures that the checkpoint has.
fn converted(checkpoint: &Checkpoint, options: Options) -> Converted {
    let samples = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
    let model = FloatModel::from_checkpoint(checkpoint).unwrap();
    convert(&model, &samples, options, |_, _| ()).unwrap()
}

#[test]
fn the_shipped_files_belong_together() {
    let files = [(BUILTIN, Target::Host), (SMALL, Target::Host), (SMALL, Target::CortexM)];
    for (name, target) in files {
        let checkpoint = shipped(name);
        let edge = shipped_edge(name, target);
        let artifact = Artifact::parse(&edge).unwrap();
        assert_eq!(artifact.labels().collect::<Vec<_>>(), checkpoint.labels);
        assert_eq!(artifact.meta().preprocess, checkpoint.preprocess);
        let again = converted(&checkpoint, Options { target, ..Options::default() });
        assert!(
            again.emitted.bytes == edge,
            "{name}, {target:?}: convert no longer writes the shipped file"
        );
    }
}

#[test]
fn number_formats_agree_with_the_graph() {
    let checkpoint = shipped(BUILTIN);
    let pictures = sample_pictures(&checkpoint);
    for (quantize, bound) in [
        (Quantize::None, 1e-4),
        (Quantize::Fp16, 0.03),
        (Quantize::Bf16, 0.2),
        (Quantize::Int8, 0.8),
    ] {
        let converted = converted(&checkpoint, Options { quantize, ..Options::default() });
        let got = predict(&converted.emitted.bytes, &pictures).unwrap();
        let mut worst = 0f32;
        for i in 0..16 {
            let input = normalize(&pictures.get(i).unwrap(), &checkpoint.preprocess);
            let want = evaluate(&converted.graph, &input);
            for (a, b) in got.logits[i * want.len()..].iter().zip(&want) {
                worst = worst.max((a - b).abs());
            }
        }
        assert!(worst <= bound, "{quantize:?}: logits differ by {worst}, allowed {bound}");
    }
}

/// Int8 logits of every picture.
fn logits(
    file: &[u8],
    pictures: &Pictures,
    count: usize,
    isa: Isa,
    workers: &dyn Workers,
) -> Vec<i8> {
    let file = AlignedBuf::from_slice(file);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa).with_workers(workers);
    let mut out = Vec::new();
    for i in 0..count {
        let picture = normalize(&pictures.get(i).unwrap(), &model.meta().preprocess);
        let mut input = session.input_mut();
        for (i, v) in picture.iter().enumerate() {
            input.set(i, *v);
        }
        out.extend_from_slice(session.run().as_i8().unwrap());
    }
    out
}

/// Int8 device files of the small model, or of its grey form: for hosts, for hosts with integers alone,
/// for microcontrollers.
fn small(checkpoint: &Checkpoint) -> [Vec<u8>; 3] {
    [(Target::Host, false), (Target::Host, true), (Target::CortexM, false)].map(
        |(target, fixed_point)| {
            let options = Options { target, fixed_point, ..Options::default() };
            if checkpoint.config.channels == 3 {
                return match fixed_point {
                    true => converted(checkpoint, options).emitted.bytes,
                    false => shipped_edge(SMALL, target),
                };
            }
            let samples = stored_samples(&checkpoint.samples, &checkpoint.preprocess).unwrap();
            let options = Options { method: Method::Mse, ..options };
            let model = FloatModel::from_checkpoint(checkpoint).unwrap();
            convert(&model, &samples[..32], options, |_, _| ()).unwrap().emitted.bytes
        },
    )
}

#[test]
fn int8_logits_are_the_same_bytes_everywhere() {
    let checkpoint = shipped(SMALL);
    the_same_bytes_everywhere(&checkpoint);
    the_same_bytes_everywhere(&trainer::net::make_grey(checkpoint).unwrap());
}

fn the_same_bytes_everywhere(checkpoint: &Checkpoint) {
    let pictures = match cifar_test(checkpoint) {
        Some((_dir, pictures)) => pictures,
        None => sample_pictures(checkpoint),
    };
    let count = pictures.len().min(1000);
    let [file, fixed_point, cortex_m] = small(checkpoint);
    // However small the work, so that there is something to compare.
    let threads = Threads::new(2).unwrap().with_grain(0);
    let all = [file, fixed_point].map(|file| {
        assert_eq!(Artifact::parse(&file).unwrap().meta().preprocess, checkpoint.preprocess);
        let want = logits(&file, &pictures, count, Isa::SCALAR, &Inline);
        assert!(want.iter().any(|l| *l != want[0]));
        for isa in Isa::available() {
            for workers in [&Inline as &dyn Workers, &threads] {
                let got = logits(&file, &pictures, count, isa, workers);
                assert!(got == want, "{} on {} threads", isa.name(), workers.threads());
            }
        }
        want
    });
    let device = logits(&cortex_m, &pictures, count, Isa::SCALAR, &Inline);
    assert!(device == all[1], "panels of 4");
    // Floats round few numbers another way.
    let steps = |(a, b): (&i8, &i8)| (i32::from(*a) - i32::from(*b)).abs();
    let far = all[0].iter().zip(&device).map(steps).filter(|steps| *steps > 1).count();
    assert!(all[0] != device && far * 20 < device.len(), "{far} of {}", device.len());
    println!("{count} pictures, {} instruction sets", Isa::available().count());
}

#[test]
fn the_shipped_models_are_as_good_as_they_say() {
    let Some((_dir, pictures)) = cifar_test(&shipped(BUILTIN)) else { return };
    assert_eq!(pictures.len(), 10_000);
    for (name, accuracy) in ACCURACY {
        let checkpoint = shipped(name);
        assert_eq!(checkpoint.preprocess, shipped(BUILTIN).preprocess);
        let converted = converted(&checkpoint, Options::default());
        let right = |file: &[u8]| predict(file, &pictures).unwrap().accuracy(&pictures.labels);
        let float = right(&converted.float.bytes);
        let int8 = right(&shipped_edge(name, Target::Host));
        println!("{name} on CIFAR-10: f32 {:.2} %, int8 {:.2} %", float * 100.0, int8 * 100.0);
        assert!(int8 >= accuracy, "{name}: int8 {int8}, expected at least {accuracy}");
        assert!(float - int8 <= 0.005, "{name}: int8 loses {} points", (float - int8) * 100.0);
    }
}

/// Of the shipped int8 models on CIFAR-10's 10,000 test pictures, see `models/README.md`.
const ACCURACY: [(&str, f64); 2] = [(BUILTIN, 0.92), (SMALL, 0.89)];

/// Runs a program in process and returns its output.
fn program(run: impl FnOnce(Vec<String>, &mut Vec<u8>) -> u8, args: &[&str]) -> String {
    let mut out = Vec::new();
    let status = run(args.iter().map(|a| (*a).to_owned()).collect(), &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(status, 0, "{args:?}: {text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn photos_become_a_classifier() {
    become_a_classifier(&[]);
    become_a_classifier(&["--grey"]);
}

fn become_a_classifier(options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let photos = repository().join("samples/fashion");
    let (mpk, edge) = (dir.path().join("m.mpk"), dir.path().join("m.edge"));
    let run = dir.path().join("run");
    let train = ["trainer", "finetune", "--classes", "10", "--epochs", "4", "--seed", "3"];
    let places = ["--data", text(&photos), "--out", text(&run), "-o", text(&mpk)];
    let args = [&train[..], options, &places].concat();
    let log = program(|a, out| trainer::run(a, out).unwrap(), &args);
    assert_eq!(log.contains(" in all, peak memory "), cfg!(target_os = "linux"), "{log}");
    let table = program(
        |a, out| convert::cli::run(a, out),
        &["convert", text(&mpk), "-o", text(&edge), "--eval", text(&photos)],
    );
    assert!(table.contains("accuracy on 100 pictures"), "{table}");
    let input = if options.is_empty() { "32×32×3" } else { "32×32×1" };
    let inspected =
        program(|a, out| convert::cli::run(a, out), &["convert", "inspect", text(&mpk)]);
    assert!(inspected.contains(input), "{inspected}");
    let photo = photos.join("val/trouser/000.png");
    let answer = program(
        |a, out| edge_classify::run(a, out, &mut Vec::new()),
        &["edge-classify", "--json", "--model", text(&edge), text(&photo)],
    );
    let json: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(json[0]["classes"].as_array().unwrap().len(), 3, "{answer}");
}

/// Photos start from the MobileNets that are built in, which the result shows.
#[test]
fn photos_start_from_imagenet() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    for (class, photo) in [("cat", "chelsea.png"), ("coffee", "coffee.png")] {
        let whole = image::open(repository().join("samples/pictures").join(photo)).unwrap();
        std::fs::create_dir_all(photos.join(class)).unwrap();
        for i in 0..5 {
            let part = whole.crop_imm(20 * i, 10 * i, 300, 250);
            part.save(photos.join(class).join(format!("{i}.jpg"))).unwrap();
        }
    }
    for (options, origin, input) in [
        (&[][..], "mobilenet_v2_1.0_224_quant", "64×64×3"),
        (&["--target", "cortex-m"], "mobilenet_v1_0.25_128_quant", "64×64×3"),
    ] {
        let mpk = dir.path().join(format!("{origin}.mpk"));
        let run = dir.path().join(origin);
        let train = ["trainer", "finetune", "--size", "64", "--epochs", "1", "--val-split", "0.2"];
        let places = ["--data", text(&photos), "--out", text(&run), "-o", text(&mpk)];
        let log = program(
            |a, out| trainer::run(a, out).unwrap(),
            &[&train[..], options, &places].concat(),
        );
        assert!(log.contains(origin) && log.contains("head fitted to"), "{log}");
        // Parts of two photos are told apart.
        assert!(log.contains("accuracy 100.00 %"), "{log}");
        let inspected =
            program(|a, out| convert::cli::run(a, out), &["convert", "inspect", text(&mpk)]);
        assert!(inspected.contains(input), "{inspected}");
    }
}

/// What is built in says what these are, as far as a thousand classes do.
#[test]
fn the_built_in_model_names_what_photos_show() {
    for (photo, label) in
        [("chelsea.png", "tiger_cat"), ("coffee.png", "espresso"), ("rocket.jpg", "missile")]
    {
        let photo = repository().join("samples/pictures").join(photo);
        let answer = program(
            |a, out| edge_classify::run(a, out, &mut Vec::new()),
            &["edge-classify", "--json", "--top", "1", text(&photo)],
        );
        let json: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(json[0]["classes"][0]["label"], label, "{answer}");
    }
}

/// The shipped MobileNets are what `convert` makes of the files that they come from.
#[test]
fn the_shipped_mobilenets_are_tensorflows() {
    let sources = repository().join("../shared/models/mobilenet");
    if !sources.is_dir() {
        println!("SKIPPED: {} is not there", sources.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (source, name) in [
        ("mobilenet_v2_1.0_224_quant", "mobilenet_v2"),
        ("mobilenet_v1_0.25_128_quant", "mobilenet_v1_025"),
    ] {
        for kind in ["mpk", "edge"] {
            let file = dir.path().join(format!("{name}.{kind}"));
            let source = sources.join(format!("{source}.tflite"));
            let args = ["convert", text(&source), "-o", text(&file)];
            program(|a, out| convert::cli::run(a, out), &args);
            let shipped = repository().join(format!("models/{name}.{kind}"));
            let same = std::fs::read(&file).unwrap() == std::fs::read(&shipped).unwrap();
            assert!(same, "convert no longer writes {}", shipped.display());
        }
    }
}

#[test]
fn a_preset_says_the_same_in_the_trainer_and_on_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let preset = repository().join("tests/fixtures/keras/v2_bottleneck/preset");
    let edge = dir.path().join("m.edge");
    let args = ["convert", "--quantize", "none", text(&preset), "-o", text(&edge)];
    program(|a, out| convert::cli::run(a, out), &args);
    let photo = repository().join("samples/pictures/chelsea.png");
    let parse = |answer: String| serde_json::from_str::<serde_json::Value>(&answer).unwrap();
    let trained = parse(program(
        |a, out| trainer::run(a, out).unwrap(),
        &["trainer", "classify", "--preset", text(&preset), "--top", "10", "--json", text(&photo)],
    ));
    let device = parse(program(
        |a, out| edge_classify::run(a, out, &mut Vec::new()),
        &["edge-classify", "--model", text(&edge), "--top", "10", "--json", text(&photo)],
    ));
    let (trained, device) = (&trained[0]["classes"], &device[0]["classes"]);
    assert_eq!(trained.as_array().unwrap().len(), 10);
    for (a, b) in trained.as_array().unwrap().iter().zip(device.as_array().unwrap()) {
        assert_eq!(a["name"], b["label"]);
        let (a, b) = (a["probability"].as_f64().unwrap(), b["probability"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-4, "{a} in the trainer, {b} on the device");
    }
    // Fine-tuning starts from a preset as from a checkpoint, with a new head.
    let photos = repository().join("samples/fashion");
    let tuned = dir.path().join("tuned.mpk");
    let run = dir.path().join("run");
    let args = ["trainer", "finetune", "--preset", text(&preset), "--epochs", "1", "--seed", "1"];
    let places = ["--data", text(&photos), "--out", text(&run), "-o", text(&tuned)];
    program(|a, out| trainer::run(a, out).unwrap(), &[&args[..], &places].concat());
    assert_eq!(Checkpoint::load(&tuned).unwrap().labels[0], "ankle-boot");
}
