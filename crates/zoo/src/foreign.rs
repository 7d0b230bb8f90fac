//! Files and folders of kinds that are not read, told by their contents, and the way to one that is.

use crate::ImportError;
use image::ImageFormat;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// As many bytes tell what a text is.
const TEXT_LEN: usize = 4096;

const TO_ONNX: &str =
    "take the ONNX, TensorFlow Lite, Keras or PyTorch model that it was made from";
const AS_PICTURE: &str = "a picture, where a model is wanted";

/// What a file is that is no model of ours, or of the kinds that are imported.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Option<String> {
    let name = path.display();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_LEN)]).to_lowercase();
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let unpack = |kind: &str| format!("a {kind} archive: unpack it, and name what is in it");
    let what = if bytes.is_empty() {
        "an empty file".into()
    } else if starts(&artifact::header::MAGIC) {
        "a device file (.edge), which is already converted: edge-classify --model runs it; to convert \
         or train, name the checkpoint (.mpk) or the model that it was made from"
            .into()
    } else if text.starts_with("version https://git-lfs") {
        "only the pointer that Git LFS leaves for a file: `git lfs pull` fetches the file".into()
    } else if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "a web page, no model: download the file itself (at GitHub: \"raw\")".into()
    } else if text.starts_with('<') && text.contains("<net ") && text.contains("<layers") {
        format!("an OpenVINO model, and OpenVINO writes no other kind: {TO_ONNX}")
    } else if bytes.get(4..8) == Some(b"ORTM") {
        format!(
            "a model in ONNX Runtime's own format; this makes ONNX of it: python -c 'import \
             onnxruntime as o; s = o.SessionOptions(); s.optimized_model_filepath = \"model.onnx\"; \
             s.graph_optimization_level = o.GraphOptimizationLevel.ORT_DISABLE_ALL; \
             s.add_session_config_entry(\"session.save_model_format\", \"ONNX\"); \
             o.InferenceSession(\"{name}\", s)'"
        )
    } else if starts(b"ptrt") || starts(b"ftrt") {
        format!("a TensorRT engine, which is code for one GPU: {TO_ONNX}")
    } else if starts(b"7767517") || starts(&7_767_517u32.to_le_bytes()) {
        format!("an ncnn model, which nothing turns back: {TO_ONNX}")
    } else if text.starts_with('{') {
        json(path, bytes)
    } else if starts(b"\x1f\x8b") || starts(b"BZh") || starts(b"\xfd7zXZ") {
        unpack("compressed")
    } else if starts(b"7z\xbc\xaf") || starts(b"Rar!") || bytes.get(257..262) == Some(b"ustar") {
        unpack("packed")
    } else if starts(b"\x93NUMPY") {
        "an array of numpy, no model".into()
    } else if starts(b"GGUF") || starts(b"ggml") {
        "a language model (GGUF), no classifier of pictures".into()
    } else if let [0x80, 2..=5, ..] = bytes {
        format!(
            "a pickle of Python; this makes a state dict of one: python -c 'import pickle, torch; d = \
             pickle.load(open(\"{name}\", \"rb\")); torch.save({{k: torch.as_tensor(v) for k, v in \
             d.items()}}, \"weights.pth\")'"
        )
    } else if image::guess_format(bytes).is_ok_and(|f| f != ImageFormat::Tga)
        || bytes.get(4..8) == Some(b"ftyp")
    {
        AS_PICTURE.into()
    } else {
        return protobuf(path, bytes);
    };
    Some(what)
}

/// What a file is that is too long to be read, by its start alone.
pub(crate) fn too_long(path: &Path, error: &ImportError) -> Option<String> {
    let is_too_long = |e: &io::Error| e.kind() == io::ErrorKind::FileTooLarge;
    if !matches!(error, ImportError::Io { source, .. } if is_too_long(source)) {
        return None;
    }
    let mut start = Vec::new();
    File::open(path).ok()?.take(TEXT_LEN as u64).read_to_end(&mut start).ok()?;
    file(path, &start)
}

/// What a folder is that holds no model of the kinds that are imported.
pub(crate) fn folder(dir: &Path) -> Option<String> {
    let name = dir.display();
    let has = |name: &str| dir.join(name).exists();
    let with = |extension: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.into_iter().find(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)))
    };
    if has("model.weights.h5") {
        // It is told what it lacks as a preset.
        None
    } else if has("saved_model.pb") {
        Some(saved_model(dir))
    } else if has("Manifest.json") && has("Data") {
        Some(core_ml())
    } else if has("model.json") {
        std::fs::read(dir.join("model.json"))
            .ok()
            .map(|bytes| json(&dir.join("model.json"), &bytes))
    } else if let Some(model) =
        ["mpk", "keras", "h5", "onnx", "tflite", "safetensors", "pth", "pt", "bin", "edge", "xml"]
            .iter()
            .find_map(|extension| with(extension))
    {
        let file = model.display();
        Some(format!("a folder that is no model itself; name the file in it, such as {file}"))
    } else if ["jpg", "jpeg", "png"].iter().any(|extension| with(extension).is_some()) {
        Some(format!("{AS_PICTURE}: a folder of them ({name})"))
    } else {
        None
    }
}

fn saved_model(dir: &Path) -> String {
    format!(
        "a SavedModel of TensorFlow; this makes ONNX of it: python -m tf2onnx.convert --saved-model {} \
         --output model.onnx",
        dir.display()
    )
}

fn core_ml() -> String {
    format!("a Core ML model, and coremltools writes no other kind: {TO_ONNX}")
}

fn json(path: &Path, bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let has = |key: &str| value.get(key).is_some();
    if has("weightsManifest") || has("modelTopology") {
        let name = path.display();
        return format!(
            "a model of TensorFlow.js; this makes ONNX of it: python -m tf2onnx.convert --tfjs {name} \
             --output model.onnx"
        );
    }
    if has("class_name") || has("architecture") || has("model_type") {
        return "the description of a model, without its weights: name the folder that both are in"
            .into();
    }
    "JSON, no model".into()
}

/// What a zip archive of these members is, of which none is what `torch.save` writes.
pub(crate) fn zip(names: &[String]) -> String {
    let any =
        |end: &str| names.iter().any(|name| name == end || name.ends_with(&format!("/{end}")));
    if any("models/model.json") || any("serialized_exported_program.json") {
        "a program of torch.export; this makes a state dict of it: python -c 'import torch; \
         torch.save(torch.export.load(FILE).state_dict, \"weights.pth\")'"
            .into()
    } else if names.iter().any(|name| name.contains("com.apple.CoreML")) {
        core_ml()
    } else if names.iter().any(|name| name.ends_with(".npy")) {
        "arrays of numpy, no model".into()
    } else {
        "a zip archive that is no model: unpack it, and name what is in it".into()
    }
}

/// TensorFlow's and Core ML's models, which are protobuf, by the numbers of their fields.
fn protobuf(path: &Path, bytes: &[u8]) -> Option<String> {
    let fields = fields(bytes)?;
    let is = |known: &[Field]| fields.iter().all(|field| known.contains(field));
    let has = |field: Field| fields.contains(&field);
    if bytes.starts_with(&[0x08, 1]) && is(&[(1, 0), (2, 2)]) && has((2, 2)) {
        return Some(saved_model(path.parent()?));
    }
    if has((1, 0)) && has((2, 2)) && fields.iter().any(|(n, wire)| *n >= 200 && *wire == 2) {
        return Some(core_ml());
    }
    if !(is(&[(1, 2), (2, 2), (3, 0), (4, 2)]) && has((1, 2))) {
        return None;
    }
    // Nodes, each of which has a name and an operator.
    let (mut input, mut output, mut rest) = (None, None, bytes);
    while let Some((number, node, after)) = field(rest) {
        rest = after;
        if number == (1, 2) {
            let ((1, 2), name, more) = field(node)? else { return None };
            let ((2, 2), operator, _) = field(more)? else { return None };
            output = Some(name);
            input = input.or((operator == b"Placeholder").then_some(name));
        }
    }
    let name = |name: Option<&[u8]>| {
        String::from_utf8_lossy(name.unwrap_or_default()).escape_debug().to_string()
    };
    Some(format!(
        "a graph of TensorFlow; this makes ONNX of it: python -m tf2onnx.convert --graphdef {} --inputs \
         {}:0 --outputs {}:0 --output model.onnx",
        path.display(),
        name(input),
        name(output)
    ))
}

/// A field's number and wire type.
type Field = (u64, u8);

/// The different fields of a message; `None` where it is none.
fn fields(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (field, _, rest) = field(bytes)?;
        bytes = rest;
        if !fields.contains(&field) {
            fields.push(field);
        }
        // No message has as many.
        if fields.len() > 100 {
            return None;
        }
    }
    Some(fields)
}

/// The first field, what it holds, and what follows it.
fn field(bytes: &[u8]) -> Option<(Field, &[u8], &[u8])> {
    let (key, rest) = varint(bytes)?;
    let (number, wire) = (key >> 3, (key & 7) as u8);
    let (len, rest) = match wire {
        0 => (rest.len() - varint(rest)?.1.len(), rest),
        1 => (8, rest),
        2 => {
            let (len, rest) = varint(rest)?;
            (usize::try_from(len).ok()?, rest)
        }
        5 => (4, rest),
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    (number > 0).then_some(((number, wire), contents, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = 1 + bytes.iter().take(10).position(|b| b & 0x80 == 0)?;
    let parts = bytes[..len].iter().enumerate();
    let value = parts.fold(0, |value, (i, b)| value | u64::from(b & 0x7f) << (7 * i).min(63));
    Some((value, &bytes[len..]))
}

#[cfg(test)]
mod tests {
    use crate::{Head, Hints, open_any};

    /// What is said of a file of these bytes.
    fn said(name: &str, bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        open_any(&path, Head::Required, &Hints::default()).unwrap_err().to_string()
    }

    fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, contents) in fields {
            let mut key = number << 3 | 2;
            while key >= 0x80 {
                out.push(key as u8 | 0x80);
                key >>= 7;
            }
            out.push(key as u8);
            out.push(contents.len() as u8);
            out.extend(*contents);
        }
        out
    }

    #[test]
    fn kinds_that_are_not_read_are_told_by_their_contents_with_a_way_out() {
        let node =
            |name: &str, operator: &str| message(&[(1, name.as_bytes()), (2, operator.as_bytes())]);
        let [first, last] = [node("input", "Placeholder"), node("scores", "Identity")];
        let graph = message(&[(1, &first), (1, &last), (4, b"\x08\x01")]);
        let saved = [b"\x08\x01".to_vec(), message(&[(2, b"\x0a\x02\xff\xfe")])].concat();
        let core = [b"\x08\x05".to_vec(), message(&[(2, b"\xff\xfe"), (403, b"")])].concat();
        let xml = b"<?xml version=\"1.0\"?>\n<net name=\"r\" version=\"11\">\n<layers>";
        let graph_model =
            br#"{"format": "graph-model", "modelTopology": {}, "weightsManifest": []}"#;
        for (bytes, kind, way) in [
            (&xml[..], "OpenVINO", "take the ONNX"),
            (b"\x18\0\0\0ORTM\0\0\0\0", "ONNX Runtime's own", "session.save_model_format"),
            (&graph, "a graph of TensorFlow", "--inputs input:0 --outputs scores:0"),
            (&saved, "SavedModel", "tf2onnx.convert --saved-model"),
            (&core, "Core ML", "take the ONNX"),
            (b"ftrt\0\0\0\0", "TensorRT", "take the ONNX"),
            (b"7767517\n75 83\nInput data 0 1", "ncnn", "take the ONNX"),
            (graph_model, "TensorFlow.js", "tf2onnx.convert --tfjs"),
            (b"\x80\x04\x95\x01\0\0\0\0\0\0\0}.", "a pickle", "torch.save"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS", "git lfs pull"),
            (b"<!DOCTYPE html><html>", "a web page", "raw"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0", "archive", "unpack"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture", "a model is wanted"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture", "a model is wanted"),
            (b"\x8fEDGE\r\n\x1a\x06\0", "a device file", "edge-classify"),
            (br#"{"model_type": "resnet"}"#, "description", "name the folder"),
            (b"", "an empty file", ""),
        ] {
            // Whatever the name says.
            for name in ["model.bin", "model.mpk", "model.pth"] {
                let said = said(name, bytes);
                assert!(said.contains(kind) && said.contains(way), "{kind}: {said}");
                assert!(said.contains(name) && !said.contains("train it again"), "{said}");
            }
        }
    }

    #[test]
    fn archives_are_told_by_their_members() {
        let zip =
            |members: &[&str]| super::zip(&members.iter().map(|m| (*m).into()).collect::<Vec<_>>());
        assert!(zip(&["r/archive_format", "r/models/model.json"]).contains("torch.export.load"));
        assert!(zip(&["Data/com.apple.CoreML/model.mlmodel"]).contains("Core ML"));
        assert!(zip(&["photos/a.jpg"]).contains("unpack it"));
    }

    #[test]
    fn folders_that_are_not_read_are_told_as_well() {
        for (file, kind, way) in [
            ("saved_model.pb", "SavedModel", "tf2onnx.convert --saved-model"),
            ("photo.jpg", "a picture", "a folder of them"),
            ("net.pth", "no model itself", "net.pth"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(file), b"\x08\x01").unwrap();
            let said =
                open_any(dir.path(), Head::Required, &Hints::default()).unwrap_err().to_string();
            assert!(said.contains(kind) && said.contains(way), "{said}");
        }
        let package = tempfile::tempdir().unwrap();
        std::fs::write(package.path().join("Manifest.json"), b"{}").unwrap();
        std::fs::create_dir(package.path().join("Data")).unwrap();
        let said =
            open_any(package.path(), Head::Required, &Hints::default()).unwrap_err().to_string();
        assert!(said.contains("Core ML"), "{said}");
    }
}
