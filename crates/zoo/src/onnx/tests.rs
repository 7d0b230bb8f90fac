use super::*;
use convert::emit::edge::Format;
use convert::emit::onnx::{Form, to_onnx};
use network::activation::Activation;
use network::architecture::Architecture;
use network::evaluate::evaluate;
use network::graph::{Node, NodeOp};
use network::init::random_checkpoint;

mod forms;
mod qdq;
mod qlinear;
mod refusals;
mod windows;

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> proto::Tensor {
    proto::Tensor::floats(name, dims, values)
}

fn shape(name: &str, values: &[i64]) -> proto::Tensor {
    proto::Tensor::ints(name, &[values.len() as i64], values)
}

fn scalar(name: &str, value: i64) -> proto::Tensor {
    proto::Tensor { dims: Vec::new(), ..shape(name, &[value]) }
}

fn bytes(name: &str, dims: &[i64], data_type: i32, values: &[i32]) -> proto::Tensor {
    let int32_data = values.to_vec();
    proto::Tensor { int32_data, ..proto::Tensor::raw(name, dims, data_type, Vec::new()) }
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> proto::Node {
    proto::Node::new(op_type, inputs, output)
}

fn with_text(mut node: proto::Node, name: &str, text: &str) -> proto::Node {
    node.attribute.push(proto::Attribute {
        name: name.into(),
        s: text.into(),
        ..Default::default()
    });
    node
}

/// A file with the input `x` of these dimensions, where −1 is open, and the output `y`.
fn file(dims: &[i64], node: Vec<proto::Node>, initializer: Vec<proto::Tensor>) -> proto::Model {
    let info = |name: &str| proto::ValueInfo::tensor(name, proto::FLOAT, dims);
    let graph = proto::Graph {
        node,
        initializer,
        input: vec![info("x")],
        output: vec![info("y")],
        ..Default::default()
    };
    proto::Model {
        ir_version: Some(8),
        opset_import: vec![proto::OperatorSet { domain: None, version: Some(13) }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn import(model: &proto::Model) -> Result<FloatModel, String> {
    onnx("m.onnx".as_ref(), &model.encode_to_vec(), &Hints::default()).map_err(|e| e.to_string())
}

/// Logits for an input that counts, in the order of the graph: NHWC.
fn logits(model: &proto::Model) -> Vec<f32> {
    let graph = import(model).unwrap().graph;
    let input: Vec<f32> = (0..graph.input_shape().len()).map(|i| i as f32).collect();
    evaluate(&graph, &input)
}

/// The only number of a file whose output is one, for an input that counts.
fn score(model: &proto::Model) -> f32 {
    let scores = logits(model);
    assert_eq!(scores.len(), 1);
    scores[0]
}

/// Refuses a file for a reason that has these words.
#[track_caller]
fn refused(model: &proto::Model, what: &str) {
    let error = import(model).unwrap_err();
    assert!(error.contains(what), "{error}");
}

/// The operators that quantize `from` by the constants `scale` and `zero`, and take it back as `to`.
fn pair(from: &str, scale: &str, zero: &str, to: &str) -> [proto::Node; 2] {
    let stored = format!("{to} stored");
    [
        node("QuantizeLinear", &[from, scale, zero], &stored),
        node("DequantizeLinear", &[&stored, scale, zero], to),
    ]
}

#[test]
fn what_is_exported_is_read_again() {
    for (name, channels) in [
        ("resnet_8_cifar", 3),
        ("resnet_8_cifar", 1),
        ("resnet_18", 3),
        ("resnet_v2_50", 3),
        ("resnet_vd_18", 3),
    ] {
        let mut config = Architecture::named(name, 1).unwrap();
        config.channels = channels;
        config.classes = 5;
        let checkpoint = random_checkpoint(config, 33, 7).unwrap();
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        let bytes = to_onnx(&model.graph, Format::F32, Form::Qdq, &model.labels, &model.preprocess);
        let again = onnx("m.onnx".as_ref(), &bytes, &Hints::default()).unwrap();
        assert_eq!((&again.labels, again.preprocess), (&model.labels, model.preprocess));
        assert!(!again.is_preprocess_assumed);
        let input: Vec<f32> =
            (0..33 * 33 * channels).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        assert_eq!(evaluate(&again.graph, &input), evaluate(&model.graph, &input), "{name}");
    }
}

/// One channel in both layouts, prepared as 0 to 1 where the file does not say.
#[test]
fn grey_networks() {
    let weights: Vec<f32> = (0..40).map(|i| (i % 7) as f32).collect();
    let nodes = || vec![node("Reshape", &["x", "s"], "flat"), node("MatMul", &["flat", "w"], "y")];
    for dims in
        [&[1, 1, 4, 5][..], &[1, 4, 5, 1], &[-1, 1, 4, 5], &[1, 4, 5], &[-1, 4, 5], &[4, 5, 1]]
    {
        let constants = vec![shape("s", &[-1, 20]), tensor("w", &[20, 2], &weights)];
        let mut model = file(dims, nodes(), constants);
        model
            .metadata_props
            .push(proto::StringEntry { key: "labels".into(), value: "[\"off\", \"on\"]".into() });
        let found = import(&model).unwrap();
        assert_eq!(found.graph.input_shape(), Shape::new(4, 5, 1), "{dims:?}");
        assert_eq!(found.labels, ["off", "on"]);
        let p = found.preprocess;
        assert!(found.is_preprocess_assumed && p.grey, "{p:?}");
        assert_eq!((p.scale[0], p.offset[0]), (1.0 / 255.0, 0.0));
        let score =
            |class: u16| (0..20).map(|i: u16| f32::from(i * ((2 * i + class) % 7))).sum::<f32>();
        assert_eq!(logits(&model), [score(0), score(1)], "{dims:?}");
    }
}

/// Of a 2×2 map of three channels, in both layouts: flattened, the file's order of weights counts.
#[test]
fn rows_keep_their_order() {
    // The weights name the place of the number that they pick, in the file's order.
    let pick = |at: usize| {
        let mut weights = [0.0; 12];
        weights[at] = 1.0;
        tensor("w", &[1, 12], &weights)
    };
    let gemm = || node("Gemm", &["row", "w"], "y").int("transB", 1);
    for at in 0..12 {
        let nodes = vec![node("Flatten", &["x"], "row"), gemm()];
        // NCHW: channel, row, column.
        let (c, pixel) = (at / 4, at % 4);
        let nchw = file(&[1, 3, 2, 2], nodes.clone(), vec![pick(at)]);
        assert_eq!(logits(&nchw), [(pixel * 3 + c) as f32]);
        let nhwc = file(&[1, 2, 2, 3], nodes, vec![pick(at)]);
        assert_eq!(logits(&nhwc), [at as f32]);
        let turned = vec![
            node("Transpose", &["x"], "t").ints("perm", &[0, 3, 1, 2]),
            node("Reshape", &["t", "s"], "row"),
            gemm(),
        ];
        let turned = file(&[1, 2, 2, 3], turned, vec![pick(at), shape("s", &[0, -1])]);
        assert_eq!(logits(&turned), [(pixel * 3 + c) as f32]);
    }
}

/// As old exporters of open batches write a flattening.
#[test]
fn shapes_are_computed() {
    let nodes = vec![
        node("GlobalAveragePool", &["x"], "p"),
        node("Shape", &["p"], "s"),
        node("Gather", &["s", "zero"], "n"),
        node("Unsqueeze", &["n"], "n1").ints("axes", &[0]),
        node("Concat", &["n1", "open"], "to"),
        node("Reshape", &["p", "to"], "row"),
        node("MatMul", &["row", "w"], "product"),
        node("Add", &["product", "b"], "scores"),
        node("Softmax", &["scores"], "y"),
    ];
    let mut zero = shape("zero", &[0]);
    zero.dims.clear();
    let constants = vec![
        zero,
        shape("open", &[-1]),
        tensor("w", &[3, 2], &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        tensor("b", &[2], &[0.5, 10.0]),
    ];
    // Means of 0, 3, 6, 9 and of 1, 4, 7, 10.
    assert_eq!(logits(&file(&[-1, 3, 2, 2], nodes, constants)), [5.0, 15.5]);
}

#[test]
fn constants_a_channel() {
    // (x − mean) / deviation inside of the network, on both sides of the operator.
    let nodes = vec![
        node("Sub", &["x", "mean"], "a"),
        node("Div", &["a", "deviation"], "b"),
        node("Mul", &["two", "b"], "c"),
        node("Sub", &["one", "c"], "d"),
        node("GlobalMaxPool", &["d"], "y"),
    ];
    let constants = |layout: &[i64]| {
        vec![
            tensor("mean", layout, &[0.0, 1.0, 2.0]),
            tensor("deviation", layout, &[1.0, 2.0, 4.0]),
            tensor("two", &[], &[2.0]),
            tensor("one", &[1], &[1.0]),
        ]
    };
    for layout in [&[1, 3, 1, 1][..], &[3, 1, 1]] {
        let model = file(&[1, 3, 1, 2], nodes.clone(), constants(layout));
        // Pixels are 0, 1, 2 and 3, 4, 5.
        assert_eq!(logits(&model), [1.0, 1.0, 1.0]);
    }
    refused(&file(&[1, 3, 1, 2], nodes, constants(&[1, 1, 3])), "one number a channel");
}

/// Probabilities that are stored, cast, copied or laid out again: the logits before them are read.
#[test]
fn softmax_need_not_be_the_last_node() {
    let head = |softmax: proto::Node, tail: &[proto::Node]| {
        let mut nodes = vec![node("GlobalMaxPool", &["x"], "p"), node("Flatten", &["p"], "row")];
        nodes.push(softmax);
        nodes.extend(tail.iter().cloned());
        let mut zero = shape("axis", &[0]);
        zero.dims = vec![1];
        let constants = vec![
            tensor("s", &[], &[1.0 / 256.0]),
            bytes("z", &[], proto::UINT8, &[0]),
            shape("to", &[1, 3]),
            zero,
        ];
        file(&[1, 3, 1, 2], nodes, constants)
    };
    let tails = [
        vec![node("Identity", &["soft"], "y")],
        vec![node("Cast", &["soft"], "y").int("to", proto::DOUBLE.into())],
        vec![
            node("QuantizeLinear", &["soft", "s", "z"], "q"),
            node("DequantizeLinear", &["q", "s", "z"], "y"),
        ],
        vec![node("QuantizeLinear", &["soft", "s", "z"], "y")],
        vec![node("Cast", &["soft"], "c"), node("Reshape", &["c", "to"], "y")],
    ];
    for softmax in ["Softmax", "LogSoftmax"] {
        for tail in &tails {
            for axis in [-1, 1] {
                let softmax = node(softmax, &["row"], "soft").int("axis", axis);
                let model = import(&head(softmax, tail)).unwrap();
                // Neither the scale nor the zero point of probabilities says anything of logits.
                assert_eq!(model.graph.nodes[1].quant, None);
                assert_eq!(
                    evaluate(&model.graph, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
                    [3.0, 4.0, 5.0]
                );
            }
        }
    }
    let softmax = || node("Softmax", &["row"], "soft");
    for (softmax, tail, what) in [
        (softmax(), node("Relu", &["soft"], "y"), "node `y` (Relu): computes with what a softmax"),
        (softmax(), node("Add", &["soft", "row"], "y"), "node `y` (Add): computes with what a"),
        (softmax(), node("Add", &["row", "soft"], "y"), "node `y` (Add): computes with what a"),
        (softmax(), node("Softmax", &["soft"], "y"), "node `y` (Softmax): computes with what a"),
        (
            softmax().int("axis", 0),
            node("Identity", &["soft"], "y"),
            "node `soft` (Softmax): over the axis 0, but one over the classes is read",
        ),
    ] {
        refused(&head(softmax, &[tail]), what);
    }
    for op_type in ["Softmax", "Relu"] {
        let mut nothing = node(op_type, &["x"], "y");
        nothing.output.clear();
        refused(&file(&[1, 3, 4, 4], vec![nothing], vec![]), "depends on no picture");
    }
}

/// Some tools append nodes that others before them read; a circle is none of a network.
#[test]
fn nodes_may_stand_in_any_order() {
    let nodes = vec![
        node("Add", &["r", "r"], "s"),
        node("Identity", &["s"], "y"),
        node("Relu", &["p"], "r"),
        node("GlobalMaxPool", &["x"], "p"),
    ];
    assert_eq!(logits(&file(&[1, 3, 1, 1], nodes.clone(), vec![])), [0.0, 2.0, 4.0]);
    let circle = vec![node("Relu", &["y"], "r"), node("Relu", &["r"], "y")];
    refused(&file(&[1, 3, 1, 1], circle, vec![]), "reads `y`, which nothing before it computes");
}
