//! What is refused, and what it says.

use super::*;

fn pooled(mut nodes: Vec<proto::Node>) -> Vec<proto::Node> {
    nodes.push(node("GlobalAveragePool", &["last"], "y"));
    nodes
}

#[test]
fn refusals_name_the_node_and_the_remedy() {
    let mut strange = node("GroupNormalization", &["other"], "last");
    strange.name = "stem/norm".into();
    let mut foreign = node("Conv", &["x"], "other");
    foreign.domain = "com.microsoft".into();
    let w = || tensor("w", &[1, 3, 1, 1], &[1.0; 3]);
    let cases = [
        (
            pooled(vec![strange, foreign]),
            vec![],
            "`other` (Conv)\n  node `stem/norm` (GroupNormalization)\ntake a network without them",
        ),
        (pooled(vec![node("Conv", &["x", "w"], "last").int("group", 3)]), vec![w()], "3 groups"),
        (
            pooled(vec![node("Conv", &["x", "w"], "last").ints("dilations", &[9, 9])]),
            vec![tensor("w", &[1, 3, 2, 2], &[1.0; 12])],
            "dilated",
        ),
        (pooled(vec![node("Conv", &["x", "x"], "last")]), vec![], "no constant"),
        (pooled(vec![node("Relu", &["nowhere"], "last")]), vec![], "`nowhere`"),
        (pooled(vec![node("Mul", &["x", "x"], "last")]), vec![], "only a factor for each channel"),
        (
            pooled(vec![node("Clip", &["x", "low", "high"], "last")]),
            vec![tensor("low", &[], &[6.0]), tensor("high", &[], &[0.0])],
            "between which there is nothing",
        ),
        (vec![node("Relu", &["x"], "y")], vec![], "no score for each class"),
        (vec![node("Identity", &["w"], "y")], vec![w()], "depends on no picture"),
        (
            pooled(vec![node("Conv", &["x", "w"], "last")]),
            vec![tensor("w", &[1, 3, 1, 1], &[1.0, f32::NAN, 1.0])],
            "a weight that is NaN",
        ),
        (
            pooled(vec![node("Conv", &["x", "w"], "last").ints("pads", &[i64::MAX; 4])]),
            vec![w()],
            "pads",
        ),
        (
            pooled(vec![node("Reshape", &["x", "s"], "last")]),
            vec![shape("s", &[i64::MAX, i64::MAX, -1])],
            "makes [9223372036854775807, 9223372036854775807, -1]",
        ),
        (
            pooled(vec![node("Conv", &["x", "w"], "last")]),
            vec![tensor("w", &[1, 3, 1, 1], &[1.0; 2])],
            "constant `w`: 2 numbers for dimensions [1, 3, 1, 1]",
        ),
        (
            pooled(vec![node("Conv", &["x", "w"], "last")]),
            vec![tensor("w", &[i64::MAX, 8, 8, 8], &[])],
            "constant `w`",
        ),
    ];
    for (nodes, constants, what) in cases {
        let error = import(&file(&[1, 3, 4, 4], nodes, constants)).unwrap_err();
        assert!(error.starts_with("m.onnx: ") && error.contains(what), "{error}");
    }
    let mut old = file(&[1, 3, 4, 4], pooled(vec![node("Relu", &["x"], "last")]), vec![]);
    old.opset_import[0].version = Some(3);
    assert!(import(&old).unwrap_err().contains("another opset"));
}

/// Sizes that are given, and channels that the first convolution tells.
#[test]
fn what_an_input_leaves_open() {
    let whole = || pooled(vec![node("Relu", &["x"], "last")]);
    for (dims, what) in [
        (&[1, 4, 4, 4][..], "[1, 3, height, width]"),
        (&[1, 3, -1, -1], "--input-size"),
        (&[8, 3, 4, 4], "one picture"),
        (&[1, 3], "[1, 3, height, width]"),
        (&[1, 3, 70_000, 4], "--input-size"),
    ] {
        refused(&file(dims, whole(), vec![]), what);
    }
    let sized = |bytes: &[u8]| {
        let hints = Hints { size: Some(6), ..Hints::default() };
        onnx("m.onnx".as_ref(), bytes, &hints).ok().map(|model| model.graph.input_shape())
    };
    let open = file(&[-1, 3, -1, -1], whole(), vec![]).encode_to_vec();
    assert_eq!(sized(&open).unwrap(), Shape::new(6, 6, 3));
    // As transformers exports it: the first convolution says how many channels there are.
    let conv = || {
        let padded = node("Conv", &["x", "k"], "c").ints("pads", &[1; 4]);
        vec![padded, node("GlobalAveragePool", &["c"], "p"), node("Flatten", &["p"], "y")]
    };
    let filters = |c: usize| vec![tensor("k", &[2, c as i64, 3, 3], &vec![1.0; 18 * c])];
    for (channels, dims) in [(3, [-1; 4]), (1, [-1; 4]), (3, [-1, -1, 6, 6])] {
        let open = file(&dims, conv(), filters(channels)).encode_to_vec();
        assert_eq!(sized(&open).unwrap(), Shape::new(6, 6, channels as u16));
    }
    let two = file(&[-1; 4], conv(), filters(2)).encode_to_vec();
    assert!(sized(&two).is_none());
}

/// Numbers in another file: only below the model's folder, and only as many as there are.
#[test]
fn numbers_of_other_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("w.bin"), [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64]).unwrap();
    let read = |location: &str, length: &str| {
        let mut w = tensor("w", &[1, 3, 1, 1], &[]);
        w.data_location = Some(proto::EXTERNAL);
        w.external_data = [("location", location), ("offset", "0"), ("length", length)]
            .map(|(key, value)| proto::StringEntry { key: key.into(), value: value.into() })
            .to_vec();
        let nodes = vec![node("Conv", &["x", "w"], "c"), node("GlobalMaxPool", &["c"], "y")];
        let bytes = file(&[1, 3, 1, 1], nodes, vec![w]).encode_to_vec();
        onnx(&dir.path().join("m.onnx"), &bytes, &Hints::default()).map_err(|e| e.to_string())
    };
    let graph = read("w.bin", "12").unwrap().graph;
    assert_eq!(evaluate(&graph, &[1.0, 10.0, 100.0]), [321.0]);
    for (location, length, what) in [
        ("w.bin", "16", "ends after 12 bytes"),
        ("w.bin", "99999999999999999999", "length"),
        ("../w.bin", "12", "not below the model's folder"),
        ("/etc/passwd", "12", "not below the model's folder"),
        ("gone.bin", "12", "gone.bin"),
    ] {
        let error = read(location, length).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        let other = tempfile::tempdir().unwrap();
        std::fs::rename(dir.path().join("w.bin"), other.path().join("w.bin")).unwrap();
        symlink(other.path().join("w.bin"), dir.path().join("w.bin")).unwrap();
        let error = read("w.bin", "12").unwrap_err();
        assert!(error.contains("a link out of the model's folder"), "{error}");
        // As Hugging Face's caches have them: both are links into one folder.
        std::fs::write(other.path().join("m"), "").unwrap();
        symlink(other.path().join("m"), dir.path().join("m.onnx")).unwrap();
        read("w.bin", "12").unwrap();
        std::fs::remove_file(dir.path().join("w.bin")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("w.bin")).status();
        assert!(made.unwrap().success());
        assert!(read("w.bin", "12").unwrap_err().contains("is no file"));
    }
}

/// Damaged files are errors, never panics.
#[test]
fn damaged_files() {
    let mut config = Architecture::named("resnet_8_cifar", 1).unwrap();
    config.classes = 2;
    let checkpoint = random_checkpoint(config, 8, 1).unwrap();
    let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
    let bytes = to_onnx(&model.graph, Format::F32, Form::Qdq, &model.labels, &model.preprocess);
    let path = Path::new("m.onnx");
    for end in (0..bytes.len()).step_by(997) {
        let _ = onnx(path, &bytes[..end], &Hints::default())
            .map(|m| evaluate(&m.graph, &[0.5; 8 * 8 * 3]).len());
    }
    let mut damaged = bytes.clone();
    for at in (0..bytes.len()).step_by(211) {
        damaged[at] ^= 1 << (at % 8);
        let _ = onnx(path, &damaged, &Hints::default());
        damaged[at] = bytes[at];
    }
    assert!(
        onnx(path, b"no model", &Hints::default())
            .unwrap_err()
            .to_string()
            .contains("no ONNX model")
    );
}

/// A small file makes no large numbers.
#[test]
fn far_more_numbers_than_the_file_has() {
    let doubled = |times: usize| {
        let mut nodes = vec![node("Concat", &["w", "w"], "c0")];
        for i in 1..times {
            let before = format!("c{}", i - 1);
            nodes.push(node("Concat", &[&before, &before], &format!("c{i}")));
        }
        nodes.push(node("Add", &["x", &format!("c{}", times - 1)], "y"));
        nodes
    };
    let w = || tensor("w", &[4], &[1.0; 4]);
    let wide =
        |op: &str, operands: &[&str]| vec![node(op, operands, "v"), node("Add", &["x", "v"], "y")];
    let pool = |node: proto::Node| {
        node.ints("kernel_shape", &[200, 200]).ints("pads", &[100; 4]).int("count_include_pad", 1)
    };
    let many = tensor("many", &[20_000, 3, 1, 1], &[0.0; 60_000]);
    for (nodes, constants, what) in [
        (doubled(40), vec![w()], "numbers"),
        (wide("Expand", &["w", "huge"]), vec![w(), shape("huge", &[1 << 40, 4])], "makes"),
        (wide("ConstantOfShape", &["huge"]), vec![shape("huge", &[i64::MAX; 8])], "makes"),
        (
            wide("Range", &["low", "high", "step"]),
            vec![scalar("low", 0), scalar("high", i64::MAX), scalar("step", 1)],
            "a range",
        ),
        (
            wide("Range", &["low", "high", "low"]),
            vec![scalar("low", 0), scalar("high", 3)],
            "a range",
        ),
        (
            vec![node("Conv", &["x", "many"], "c"), pool(node("AveragePool", &["c"], "y"))],
            vec![many.clone()],
            "too many",
        ),
        (
            vec![node("Conv", &["x", "many"], "c"), node("Pad", &["c", "pads"], "y")],
            vec![many, shape("pads", &[0, 1 << 40, 0, 0, 0, 0, 0, 0])],
            "too many",
        ),
    ] {
        refused(&file(&[1, 3, 4, 4], nodes, constants), what);
    }
    let mut nodes = vec![node("Unsqueeze", &["w", "at"], "u0")];
    for i in 1..300 {
        nodes.push(node("Unsqueeze", &[&format!("u{}", i - 1), "at"], &format!("u{i}")));
    }
    nodes.push(node("Add", &["x", "u299"], "y"));
    refused(&file(&[1, 3, 4, 4], nodes, vec![w(), shape("at", &[0])]), "dimensions");
}
