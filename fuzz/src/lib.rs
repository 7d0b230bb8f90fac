//! What the fuzzer and the tests of the workspace feed with any bytes: each target takes them as a file of its
//! kind, which is refused with an error or is consistent. Nothing here may panic, hang, or take more memory
//! than the file announced.

use convert::pipeline::{Options, Quantize, convert};
use network::checkpoint::{Assumption, Checkpoint};
use network::model::FloatModel;
use runtime::preprocess::resize_rgb8;
use runtime::teach::{Patch, Taught};
use runtime::{AlignedBuf, Isa, Model, Session};
use std::path::{Path, PathBuf};
use zoo::{Channels, Head, Hints, Imported, open_any};

/// A target: its name, that of a file for it, and what takes the bytes.
pub type Target = (&'static str, &'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("artifact", "m.edge", artifact),
    ("burnpack", "m.bpk", |data| import(data, "bpk")),
    ("checkpoint", "m.mpk", checkpoint),
    ("folder", "folder", folder),
    ("hdf5", "m.h5", |data| import(data, "h5")),
    ("keras", "m.keras", |data| import(data, "keras")),
    ("onnx", "m.onnx", |data| import(data, "onnx")),
    ("patch", "m.patch", patch),
    ("pickle", "m.th", |data| import(data, "th")),
    ("picture", "p.jpg", picture),
    ("safetensors", "m.safetensors", |data| import(data, "safetensors")),
    ("tflite", "m.tflite", |data| import(data, "tflite")),
    ("torch", "m.pt", |data| import(data, "pt")),
];

/// Most work that is done with what is accepted: what a file announces is the caller's to bound.
const MAX_WORK: u64 = 1 << 24;

/// An `.edge` file: refused, or run on every instruction set, in int8 with the same bytes.
fn artifact(data: &[u8]) {
    let mut file = AlignedBuf::from_slice(data);
    // The checksum guards against damage; a fuzzer would never get past it.
    artifact::writer::seal(&mut file);
    let model = match Model::new(&file) {
        Ok(model) => model,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let work = |op: artifact::Op| {
        op.macs() + op.input().shape.len() as u64 * op.output().shape.len() as u64
    };
    if model.arena_len() > 1 << 20 || model.ops().map(work).sum::<u64>() > MAX_WORK {
        return;
    }
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let is_exact = model.dtype() == artifact::Dtype::I8 && !model.has_float_layers();
    let mut bytes = None;
    for isa in Isa::available() {
        let mut session = Session::new(&model, &mut arena).expect("the model's own size");
        session = session.with_isa(isa);
        for i in 0..session.input_mut().len() {
            session.input_mut().set(i, i as f32 - 8.0);
        }
        let logits = session.run();
        assert_eq!(logits.iter().count(), model.labels().count());
        if let Some(found) = logits.as_i8().filter(|_| is_exact) {
            let bytes = bytes.get_or_insert_with(|| found.to_vec());
            assert_eq!(bytes, found, "{}", isa.name());
        }
        assert_eq!(session.distance().is_some(), model.has_known());
    }
    let needed = match runtime::heat::arena_len(&model) {
        Ok(needed) => needed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut arena = AlignedBuf::zeroed(needed);
    let session = Session::new(&model, &mut arena).expect("more than its size");
    if let Ok(mut session) = session.with_heat() {
        session.run();
        let [h, w] = session.heat_shape().expect("a network with heat");
        let mut heat = vec![0.0; h * w];
        for class in 0..model.classes() {
            session.heat(class, &mut heat).expect("a class of the model");
        }
    }
}

/// What a model was taught: refused, or scored beside the model's classes.
fn patch(data: &[u8]) {
    let file = AlignedBuf::from_slice(include_bytes!("../../tests/fixtures/versions/9.edge"));
    let model = Model::new(&file).expect("a sound model");
    let mut data = data.to_vec();
    // A fuzzer would never find the model's own, nor the checksum.
    if let Some(identity) = data.get_mut(16..24) {
        identity.copy_from_slice(&model.identity().to_le_bytes());
    }
    artifact::patch::seal(&mut data);
    let Ok(patch) = Patch::parse(&data) else { return };
    let Ok(taught) = Taught::new(&model, &patch) else { return };
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let session = Session::new(&model, &mut arena).expect("the model's own size");
    let scores = session.taught(&taught).expect("the model's own session");
    assert_eq!(scores.iter().count(), taught.len());
    assert!((0..taught.len()).all(|index| !taught.label(index).is_empty()));
}

/// An `.mpk` checkpoint: refused, or consistent, and written as it was read.
fn checkpoint(data: &[u8]) {
    match Checkpoint::from_bytes(data, "fuzz.mpk") {
        Ok(checkpoint) => {
            known(&checkpoint);
            let path = scratch().join("written.mpk");
            let written = |checkpoint: &Checkpoint| {
                checkpoint.save(&path).expect("the folder is ours");
                std::fs::read(&path).expect("it was just written")
            };
            let bytes = written(&checkpoint);
            let again = Checkpoint::load(&path).expect("it was read before");
            // Records may have numbers that are not equal to themselves.
            assert!(written(&again) == bytes, "a checkpoint is written otherwise than it was read");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A checkpoint is consistent and can be converted; what its record says can be shown.
fn known(checkpoint: &Checkpoint) {
    checkpoint.fits().expect("reading has checked it");
    let shown = format!("{} {}", checkpoint.origin(), checkpoint.training.validation);
    assert!(shown.len() > 1 && checkpoint.numbers() > 0);
    if let Ok(model) = FloatModel::from_checkpoint(checkpoint) {
        converted(&model);
    }
}

/// A picture: refused, or upright RGB that every preprocessing reads; from a file the same.
fn picture(data: &[u8]) {
    let path = scratch().join("picture");
    std::fs::write(&path, data).expect("the folder is ours");
    let opened = picture::open(&path);
    assert!(!picture::describe(&path).expect("the file is there").is_empty());
    let Ok(picture) = picture::decode(data) else {
        assert!(!opened.expect_err("from memory it is refused").to_string().is_empty());
        return;
    };
    assert_eq!(opened.expect("from memory it is read").note, picture.note);
    let view = picture.view().expect("a decoded picture has pixels");
    let p = runtime::Preprocess::normalized(8, 8, [0.5; 3], [0.5; 3]);
    resize_rgb8(&p, view, &mut [0; 8 * 8 * 3]).expect("the output has the right size");
}

/// A file of another's model: refused, or consistent.
fn import(data: &[u8], extension: &str) {
    let path = scratch().join("model").with_extension(extension);
    std::fs::write(&path, data).expect("the folder is ours");
    opened(&path);
}

/// A folder of timm, transformers or KerasHub: its kind, then the length (32 bits) and the bytes of each
/// file that such a folder has.
fn folder(data: &[u8]) {
    const FILES: [&[&str]; 2] = [
        &["config.json", "preprocessor_config.json", "model.safetensors"],
        &[
            "config.json",
            "task.json",
            "image_converter.json",
            "model.weights.h5",
            "task.weights.h5",
        ],
    ];
    let [kind, rest @ ..] = data else { return };
    let dir = scratch().join(format!("folder{}", kind % 2));
    std::fs::create_dir_all(&dir).expect("the folder is ours");
    let mut rest = rest;
    for name in FILES[usize::from(kind % 2)] {
        let (len, tail) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let len = (u32::from_le_bytes(*len) as usize).min(tail.len());
        let (bytes, tail) = tail.split_at(len);
        rest = tail;
        let file = dir.join(name);
        match bytes {
            [] => drop(std::fs::remove_file(file)),
            bytes => std::fs::write(file, bytes).expect("the folder is ours"),
        }
    }
    opened(&dir);
}

/// A folder of this thread's own.
fn scratch() -> PathBuf {
    thread_local! {
        static FOLDER: PathBuf = tempfile::tempdir().expect("a folder for the files").keep();
    }
    FOLDER.with(Clone::clone)
}

/// Opens what an importer reads, as what is converted and as what is trained, with all that a user may say.
fn opened(path: &Path) {
    let found = match open_any(path, Head::Optional, &Hints::default()) {
        Ok(found) => found,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    match &found {
        Imported::Checkpoint(checkpoint) => {
            known(checkpoint);
            assert_ne!(Assumption::line(&checkpoint.assumed).as_deref(), Some(""));
        }
        Imported::Graph(model) => {
            assert!(model.preprocess.is_valid());
            converted(model);
        }
    }
    if let Ok(checkpoint) = found.into_checkpoint(path) {
        checkpoint.fits().expect("recognizing has checked it");
    }
    let channels = Some(Channels::Bgr);
    for (head, hints) in [
        (Head::Required, Hints { channels, size: Some(40), ..Hints::default() }),
        (Head::Optional, Hints { stem_pool: Some(false), ..Hints::default() }),
    ] {
        match open_any(path, head, &hints) {
            Ok(Imported::Checkpoint(checkpoint)) => {
                checkpoint.fits().expect("reading has checked it")
            }
            Ok(Imported::Graph(model)) => assert!(model.preprocess.is_valid()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// What is accepted becomes a file that our own reader takes, or is refused with an error.
fn converted(model: &FloatModel) {
    if model.graph.macs() > MAX_WORK || model.graph.nodes.len() > 1000 {
        return;
    }
    for (quantize, direct) in [(Quantize::None, false), (Quantize::Fp16, true)] {
        let options = Options { quantize, direct, ..Options::default() };
        if let Ok(converted) = convert(model, &[], options, |_, _| ()) {
            artifact(&converted.emitted.bytes);
        }
    }
}
