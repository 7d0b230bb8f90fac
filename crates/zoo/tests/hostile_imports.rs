//! Models of others that are cut, damaged or forged: a clear error with the path in it, and no
//! more memory than the file's own size calls for.
#![expect(unsafe_code, reason = "measuring allocations needs a global allocator")]

#[path = "../../network/tests/counting/mod.rs"]
mod counting;

use convert::emit::edge::Format;
use convert::emit::onnx::{Form, to_onnx};
use formats::onnx as proto;
use network::architecture::Architecture;
use network::init::random_checkpoint;
use network::model::FloatModel;
use network::random::Rng;
use prost::Message;
use std::path::{Path, PathBuf};
use zoo::{Head, Hints, Imported, open_any};

/// One file of each kind, small enough to be read some hundred times; those of ONNX are made.
const FILES: [&str; 11] = [
    "keras/v2_bottleneck/classifier.keras",
    "keras_legacy/odd.h5",
    "keras_mobile/v3.keras",
    "burn/tiny.bpk",
    "tflite/int8.tflite",
    "torch/training.pt",
    "torch/tiny.th",
    "torch/mobilenets/mobilenet_v3_small.safetensors",
    "keras/v1_basic/weights_timm_names.safetensors",
    "float.onnx",
    "int8.onnx",
];

fn fixture(file: &str) -> Vec<u8> {
    if file.ends_with(".onnx") {
        return onnx_of(file == "int8.onnx");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A small ResNet as ONNX.
fn onnx_of(is_int8: bool) -> Vec<u8> {
    let mut config = Architecture::named("resnet_8_cifar", 2).unwrap();
    let family = config.family.resnet_mut().unwrap();
    family.input_conv_filters = vec![4];
    family.stackwise_num_filters = vec![4, 8, 8];
    let model = FloatModel::from_checkpoint(&random_checkpoint(config, 8, 1).unwrap()).unwrap();
    let mut graph = model.graph.clone();
    convert::optimize::optimize(&mut graph);
    let quants = vec![artifact::Quant { scale: 0.05, zero_point: -3 }; graph.nodes.len()];
    let format = if is_int8 { Format::I8(&quants) } else { Format::F32 };
    to_onnx(&graph, format, Form::Qdq, &model.labels, &model.preprocess)
}

/// How many rounds: as many as the test says, or times the variable `ROUNDS`.
fn rounds(count: usize) -> usize {
    let times = std::env::var("ROUNDS").ok().and_then(|times| times.parse().ok());
    count * times.unwrap_or(1)
}

/// A place for files of the extension that `file` has.
fn place(file: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model").with_extension(Path::new(file).extension().unwrap());
    (dir, path)
}

/// The error of these bytes, `None` where they are accepted; never a panic.
fn error_of(path: &Path, bytes: &[u8]) -> Option<String> {
    std::fs::write(path, bytes).unwrap();
    let (asked, result) = counting::allocated(|| open_any(path, Head::Required, &Hints::default()));
    assert!(asked < 64 * bytes.len() + (8 << 20), "{asked} bytes for a file of {}", bytes.len());
    match result {
        Ok(Imported::Checkpoint(checkpoint)) => {
            checkpoint.into_draft().check().unwrap();
            None
        }
        Ok(Imported::Graph(model)) => {
            assert!(model.preprocess.is_valid());
            None
        }
        Err(error) => {
            let (error, path) = (error.to_string(), path.display().to_string());
            assert!(error.starts_with(&path) && error.len() > path.len() + 8, "{error}");
            Some(error)
        }
    }
}

#[test]
fn cut_files_are_refused() {
    for file in FILES {
        let (whole, (_dir, path)) = (fixture(file), place(file));
        let starts = (0..64).chain((64..4096).step_by(97));
        let ends = whole.len() - 64..whole.len();
        for len in starts.chain((4096..whole.len()).step_by(whole.len() / 200)).chain(ends) {
            let error = error_of(&path, &whole[..len]);
            assert!(error.is_some(), "{file} is accepted after {len} bytes");
        }
        assert_eq!(error_of(&path, &whole), None, "{file}");
    }
}

#[test]
fn bit_flips_never_panic() {
    for file in FILES {
        let (mut bytes, (_dir, path)) = (fixture(file), place(file));
        let bits = bytes.len() * 8;
        // Densely where headers are, at both ends, and here and there between.
        let ends = (0..6000).step_by(37).chain((bits - 6000..bits).step_by(37));
        for bit in ends.chain((6000..bits - 6000).step_by(bits / 300)) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            error_of(&path, &bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn compressed_members_are_named() {
    let file = FILES[0];
    let (mut bytes, (_dir, path)) = (fixture(file), place(file));
    // The method stands 10 bytes after the start of each entry of the directory.
    let entries: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    for at in entries {
        bytes[at + 10] = 8;
    }
    let error = error_of(&path, &bytes).unwrap();
    assert!(error.contains("`config.json`: compressed"), "{error}");
}

#[test]
fn sizes_in_the_directory_are_not_believed() {
    let file = FILES[0];
    let (mut bytes, (_dir, path)) = (fixture(file), place(file));
    let entries: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    for at in entries {
        // Compressed and plain size, 4 GiB less two bytes.
        bytes[at + 20..at + 28].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff]);
    }
    error_of(&path, &bytes).unwrap();
}

/// Lists that are kept at every length, dicts that hold each other, names that are shared.
#[test]
fn pickles_share_what_they_keep() {
    let (_dir, path) = place("x.th");
    // What torch.save writes before the state dict.
    let start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02";
    let kept: Vec<u8> =
        (0..20_000u32).flat_map(|i| [&b"Nar"[..], &i.to_le_bytes()].concat()).collect();
    let name = [&b"X\0\0\x02\0"[..], &[b'n'; 0x20000], b"q\0"].concat();
    let named = b"h\0}q\x01(h\0h\x01u".repeat(5000);
    let lists = b"]".repeat(200_000);
    for body in
        [[b"]", &kept[..]].concat(), [&b"}("[..], &name, b"N", &named, b"u"].concat(), lists]
    {
        let bytes = [&start[..], &body, b".\x80\x02]."].concat();
        error_of(&path, &bytes).unwrap();
    }
}

/// A directory whose entries all lead to the largest member.
#[test]
fn members_that_lie_upon_each_other_are_refused() {
    let (mut bytes, (_dir, path)) = (fixture("torch/tiny.pt"), place("x.pt"));
    let at = |bytes: &[u8], from: usize, len: usize| -> usize {
        bytes[from..from + len].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
    };
    let entries: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    let storages = entries.iter().copied().filter(|e| {
        let name = &bytes[e + 46..e + 46 + at(&bytes, e + 28, 2)];
        name.windows(6).any(|part| part == b"/data/")
    });
    let storages: Vec<usize> = storages.collect();
    let largest = *storages.iter().max_by_key(|e| at(&bytes, **e + 24, 4)).unwrap();
    for entry in storages {
        // Checksum and sizes, and where the member begins.
        bytes.copy_within(largest + 16..largest + 28, entry + 16);
        bytes.copy_within(largest + 42..largest + 46, entry + 42);
    }
    let error = error_of(&path, &bytes).unwrap();
    assert!(error.contains("lie upon each other") || error.contains("overlap"), "{error}");
}

/// A file of ONNX that takes a picture of 4×4 pixels and gives back what its last node computes.
fn onnx_file(node: Vec<proto::Node>, initializer: Vec<proto::Tensor>) -> Vec<u8> {
    let output = node.last().and_then(|n| n.output.first()).map_or("y", String::as_str);
    let graph = proto::Graph {
        input: vec![proto::ValueInfo::tensor("x", proto::FLOAT, &[1, 3, 4, 4])],
        output: vec![proto::ValueInfo::tensor(output, proto::FLOAT, &[])],
        node,
        initializer,
        ..Default::default()
    };
    let opset = proto::OperatorSet { domain: None, version: Some(13) };
    let model = proto::Model {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset],
        ..Default::default()
    };
    model.encode_to_vec()
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> proto::Node {
    proto::Node::new(op_type, inputs, output)
}

fn floats(name: &str, dims: &[i64], numbers: usize) -> proto::Tensor {
    let numbers: Vec<f32> = (0..numbers).map(|i| i as f32 * 0.5 - 1.0).collect();
    proto::Tensor::floats(name, dims, &numbers)
}

/// Small files that ask for terabytes, and many nodes that each make much of what they share.
#[test]
fn onnx_that_asks_for_too_much_is_refused() {
    let (_dir, path) = place("m.onnx");
    let far = 1 << 42;
    let reduced = node("ReduceSum", &["e", "i"], "y");
    let chain = |op_type: &str, first: &str, more: &[&str]| -> Vec<proto::Node> {
        let name = |i: usize| if i == 0 { first.to_owned() } else { format!("n{i}") };
        let link = |i| node(op_type, &[&[name(i).as_str()], more].concat(), &name(i + 1));
        (0..2000).map(link).collect()
    };
    let joined = [&["c"; 5000][..]].concat();
    for (nodes, constants) in [
        (vec![reduced], vec![floats("e", &[far, 0], 0), proto::Tensor::ints("i", &[1], &[1])]),
        (vec![node("ConstantOfShape", &["i"], "y")], vec![proto::Tensor::ints("i", &[1], &[far])]),
        (
            vec![node("Expand", &["f", "i"], "y")],
            vec![floats("f", &[1], 1), proto::Tensor::ints("i", &[2], &[1 << 21, 1 << 21])],
        ),
        (
            vec![node("Pad", &["x", "i"], "y")],
            vec![proto::Tensor::ints("i", &[8], &[0, far, 0, 0, 0, far, 0, 0])],
        ),
        (
            vec![node("Conv", &["x", "w"], "c"), node("Concat", &joined, "y")],
            vec![floats("w", &[20_000, 3, 1, 1], 60_000)],
        ),
        (
            [vec![node("Conv", &["x", "w"], "c")], chain("Neg", "c", &[])].concat(),
            vec![floats("w", &[20_000, 3, 1, 1], 60_000)],
        ),
        (chain("Conv", "x", &["w"]), vec![floats("w", &[3, 3, 100, 100], 90_000)]),
        (chain("Add", "f", &["f"]), vec![floats("f", &[50_000], 50_000)]),
        (chain("Concat", "f", &["f", "f"]), vec![floats("f", &[1000], 1000)]),
    ] {
        error_of(&path, &onnx_file(nodes, constants)).unwrap();
    }
}

/// Nodes without inputs, outputs or names, and with attributes and operands of all kinds.
#[test]
fn random_onnx_never_panics() {
    const OPERATORS: &str = "Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant \
        ConstantOfShape Conv DequantizeLinear Div Dropout Equal Exp Expand Flatten Floor Gather GatherND \
        Gemm GlobalAveragePool GlobalMaxPool Identity If Log LogSoftmax MatMul Max MaxPool Mod Mul Neg Pad \
        Pow QuantizeLinear Range ReduceL2 ReduceMax ReduceMean ReduceSum Relu Reshape Shape Size Slice \
        Softmax Split Squeeze Sub Sum Transpose Unsqueeze Where QLinearConv QLinearAdd QGemm FusedConv \
        QLinearAveragePool NhwcMaxPool QLinearSoftmax QLinearMatMul";
    const ATTRIBUTES: &str = "axis axes perm strides kernel_shape pads dilations group ceil_mode to start \
        end starts ends steps split keepdims allowzero auto_pad count_include_pad transA transB alpha \
        epsilon shape min max value value_ints value_floats mode block_size output_dtype channels_last \
        batch_dims activation noop_with_empty_axes then_branch";
    const NUMBERS: [i64; 16] =
        [0, 1, 2, 3, 4, 5, -1, -2, -4, 7, 255, 256, 1 << 32, i64::MAX, i64::MIN, i64::MIN + 1];
    let operators: Vec<&str> = OPERATORS.split_whitespace().collect();
    let attributes: Vec<&str> = ATTRIBUTES.split_whitespace().collect();
    let (_dir, path) = place("m.onnx");
    let mut rng = Rng::keyed(&[11]);
    for _ in 0..rounds(6000) {
        let pick = |rng: &mut Rng| NUMBERS[rng.below(NUMBERS.len())];
        let few = |rng: &mut Rng| -> Vec<i64> { (0..rng.below(5)).map(|_| pick(rng)).collect() };
        let list = few(&mut rng);
        let constants = vec![
            proto::Tensor::ints("i", &[list.len() as i64], &list),
            proto::Tensor::ints("one", &[], &[pick(&mut rng)]),
            proto::Tensor::ints("z", &[1], &[rng.below(3) as i64]),
            floats("f", &[], 1),
            floats("c", &[3], 3),
            floats("m", &[1, 3, 1, 1], 3),
            floats("w", &[3, 3, 1, 1], 9),
            floats("k", &[2, 3, 2, 2], 24),
            floats("d", &[3, 4], 12),
            floats("none", &[0], 0),
            floats("far", &[1 << 40, 0], 0),
            floats("near", &[0, 1 << 15], 0),
        ];
        let mut names: Vec<String> = constants.iter().map(|t| t.name.clone()).collect();
        names.extend(["x".into(), "x".into(), "x".into(), String::new()]);
        let mut nodes = Vec::new();
        for n in 0..1 + rng.below(6) {
            let inputs: Vec<String> = (0..[1, 1, 2, 2, 2, 3, 4, 5, 9, 0][rng.below(10)])
                .map(|_| names[names.len() - 1 - rng.below(names.len())].clone())
                .collect();
            let output = if rng.below(40) == 0 { String::new() } else { format!("y{n}") };
            let attribute = |rng: &mut Rng| proto::Attribute {
                name: attributes[rng.below(attributes.len())].into(),
                i: (rng.below(3) > 0).then(|| pick(rng)),
                f: (rng.below(3) > 0).then_some(0.5),
                ints: few(rng),
                t: (rng.below(8) == 0).then(|| constants[rng.below(constants.len())].clone()),
                ..Default::default()
            };
            nodes.push(proto::Node {
                op_type: operators[rng.below(operators.len())].into(),
                input: inputs,
                output: if rng.below(40) == 0 { Vec::new() } else { vec![output.clone()] },
                attribute: (0..rng.below(4)).map(|_| attribute(&mut rng)).collect(),
                ..Default::default()
            });
            names.extend([output.clone(), output.clone(), output]);
        }
        error_of(&path, &onnx_file(nodes, constants));
    }
}
