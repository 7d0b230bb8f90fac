use super::*;
use convert::emit::edge::Format;
use convert::emit::onnx::{Form, to_onnx};
use network::activation::Activation;
use network::architecture::Architecture;
use network::evaluate::evaluate;
use network::graph::NodeOp;
use network::init::random_checkpoint;

mod forms;

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> proto::Tensor {
    proto::Tensor {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: Some(proto::FLOAT),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn shape(name: &str, values: &[i64]) -> proto::Tensor {
    proto::Tensor {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: Some(proto::INT64),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> proto::Node {
    proto::Node {
        op_type: op_type.into(),
        input: inputs.iter().map(|&i| i.into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn with_ints(mut node: proto::Node, name: &str, ints: &[i64]) -> proto::Node {
    node.attribute.push(proto::Attribute {
        name: name.into(),
        ints: ints.to_vec(),
        ..Default::default()
    });
    node
}

fn with_text(mut node: proto::Node, name: &str, text: &str) -> proto::Node {
    node.attribute.push(proto::Attribute {
        name: name.into(),
        s: text.into(),
        ..Default::default()
    });
    node
}

fn with_int(mut node: proto::Node, name: &str, i: i64) -> proto::Node {
    node.attribute.push(proto::Attribute { name: name.into(), i: Some(i), ..Default::default() });
    node
}

/// A file with the input `x` of these dimensions, where −1 is open, and the output `y`.
fn file(dims: &[i64], node: Vec<proto::Node>, initializer: Vec<proto::Tensor>) -> proto::Model {
    let dim = dims.iter().map(|&d| proto::Dimension { dim_value: (d >= 0).then_some(d) }).collect();
    let tensor_type = proto::TensorType {
        elem_type: Some(proto::FLOAT),
        shape: Some(proto::TensorShape { dim }),
    };
    let info = |name: &str| proto::ValueInfo {
        name: name.into(),
        r#type: Some(proto::Type { tensor_type: Some(tensor_type.clone()) }),
    };
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
    let gemm = || with_int(node("Gemm", &["row", "w"], "y"), "transB", 1);
    for at in 0..12 {
        let nodes = vec![node("Flatten", &["x"], "row"), gemm()];
        // NCHW: channel, row, column.
        let (c, pixel) = (at / 4, at % 4);
        let nchw = file(&[1, 3, 2, 2], nodes.clone(), vec![pick(at)]);
        assert_eq!(logits(&nchw), [(pixel * 3 + c) as f32]);
        let nhwc = file(&[1, 2, 2, 3], nodes, vec![pick(at)]);
        assert_eq!(logits(&nhwc), [at as f32]);
        let turned = vec![
            with_ints(node("Transpose", &["x"], "t"), "perm", &[0, 3, 1, 2]),
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
        with_ints(node("Unsqueeze", &["n"], "n1"), "axes", &[0]),
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

/// As tf2onnx writes Keras' ZeroPadding2D before a convolution and before a pool.
#[test]
fn borders_join_the_window_that_reads_them() {
    let ones = tensor("w", &[1, 3, 3, 3], &[1.0; 27]);
    let nodes = vec![
        with_ints(node("Transpose", &["x"], "t"), "perm", &[0, 3, 1, 2]),
        node("Pad", &["t", "pads"], "padded"),
        with_ints(node("Conv", &["padded", "w"], "c"), "strides", &[2, 2]),
        node("Relu", &["c"], "r"),
        node("Pad", &["r", "pads"], "padded2"),
        with_ints(node("MaxPool", &["padded2"], "m"), "kernel_shape", &[3, 3]),
        with_ints(node("ReduceMean", &["m"], "y"), "axes", &[2, 3]),
    ];
    let pads = shape("pads", &[0, 0, 1, 1, 0, 0, 0, 0]);
    let model = file(&[1, 4, 4, 3], nodes.clone(), vec![ones.clone(), pads.clone()]);
    let graph = import(&model).unwrap().graph;
    let paddings: Vec<Padding> = (graph.nodes.iter())
        .filter_map(|n| match &n.op {
            NodeOp::Conv2d(conv) => Some(conv.padding),
            NodeOp::Pool2d { padding, .. } => Some(*padding),
            _ => None,
        })
        .collect();
    let border = Padding { top: 1, left: 1, bottom: 0, right: 0 };
    assert_eq!(paddings, [border, border]);
    // The largest of four windows is the last, of the rows and columns 1 to 3.
    let sum: usize = (1..4)
        .flat_map(|y| (1..4).flat_map(move |x| (0..3).map(move |c| (y * 4 + x) * 3 + c)))
        .sum();
    assert_eq!(logits(&model), [sum as f32]);
}

/// Zeros that a pool sees: around a map with negative numbers, and in means that count them.
#[test]
fn pools_see_zeros() {
    // Channel 0 of a 3×4 map is −1, −2, … −12, the others are zero.
    let minus = tensor("w", &[3, 3, 1, 1], &[-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let one = tensor("one", &[3, 1, 1], &[-1.0, 0.0, 0.0]);
    let third = tensor("third", &[1], &[1.0 / 3.0]);
    let windows = |node: proto::Node| with_ints(node, "kernel_shape", &[2, 3]);
    let strided = |node: proto::Node| with_ints(windows(node), "strides", &[2, 2]);
    // All numbers of channel 0 of the pooled map, weighed by 1, 10, 100, …
    let all = |pool: proto::Node, pads: &[i64; 4], len: usize| {
        let mut nodes = vec![
            node("Mul", &["x", "third"], "s"),
            node("Conv", &["s", "w"], "c"),
            node("Add", &["c", "one"], "a"),
        ];
        let [top, left, bottom, right] = *pads;
        let pads = shape("pads", &[0, 0, top, left, 0, 0, bottom, right]);
        nodes.push(node("Pad", &["a", "pads"], "padded"));
        nodes.push(pool);
        nodes.push(node("Flatten", &["p"], "row"));
        nodes.push(with_int(node("Gemm", &["row", "g"], "y"), "transB", 1));
        let weights: Vec<f32> =
            (0..3 * len).map(|i| if i < len { 10f32.powi(i as i32) } else { 0.0 }).collect();
        let g = tensor("g", &[1, 3 * len as i64], &weights);
        let constants = vec![minus.clone(), one.clone(), third.clone(), pads, g];
        logits(&file(&[1, 3, 3, 4], nodes, constants))[0]
    };
    let near = |have: f32, numbers: &[f32]| {
        let want: f32 = numbers.iter().rev().fold(0.0, |sum, n| sum * 10.0 + n);
        assert!((have - want).abs() <= 1e-3 * want.abs().max(1.0), "{have}, not {want}");
    };
    let max = |operand: &str| strided(node("MaxPool", &[operand], "p"));
    // A border above and on the left: windows of rows −1..1, 1..3 and columns −1..2, 1..4.
    near(all(max("padded"), &[1, 1, 0, 0], 4), &[0.0, 0.0, 0.0, -6.0]);
    // Below and on the right, also more than any window reaches.
    near(all(max("padded"), &[0, 0, 1, 0], 2), &[-1.0, 0.0]);
    near(all(max("padded"), &[0, 0, 2, 0], 2), &[-1.0, 0.0]);
    near(all(max("padded"), &[0, 0, 0, 1], 2), &[-1.0, 0.0]);
    // Means count the zeros of a Pad, and their own where they are told to.
    let mean = |operand: &str| strided(node("AveragePool", &[operand], "p"));
    let counted = [
        -(1.0 + 2.0) / 6.0,
        -(2.0 + 3.0 + 4.0) / 6.0,
        -(5.0 + 6.0 + 9.0 + 10.0) / 6.0,
        -(6.0 + 7.0 + 8.0 + 10.0 + 11.0 + 12.0) / 6.0,
    ];
    near(all(mean("padded"), &[1, 1, 0, 0], 4), &counted);
    let own = with_ints(with_int(mean("a"), "count_include_pad", 1), "pads", &[1, 1, 0, 0]);
    near(all(own, &[0; 4], 4), &counted);
}

#[test]
fn windows_at_the_border() {
    // Of a 1×5 map, channel 0 of the last column of what windows of two see.
    let row = |op: proto::Node| {
        let gemm = with_int(node("Gemm", &["row", "w"], "y"), "transB", 1);
        vec![op, node("Flatten", &["p"], "row"), gemm]
    };
    let pool = |kind: &str| {
        with_ints(with_ints(node(kind, &["x"], "p"), "kernel_shape", &[1, 2]), "strides", &[1, 2])
    };
    for (op, columns, last) in [
        (pool("MaxPool"), 2, 3.0),
        (with_int(pool("MaxPool"), "ceil_mode", 1), 3, 4.0),
        (with_int(pool("AveragePool"), "ceil_mode", 1), 3, 4.0),
        (with_text(pool("MaxPool"), "auto_pad", "SAME_UPPER"), 3, 4.0),
        (with_text(pool("AveragePool"), "auto_pad", "VALID"), 2, 2.5),
        (with_text(pool("AveragePool"), "auto_pad", "SAME_LOWER"), 3, 3.5),
    ] {
        let mut weights = vec![0.0; columns * 3];
        weights[columns - 1] = 1.0;
        let w = tensor("w", &[1, columns as i64 * 3], &weights);
        let name = format!("{} {:?}", op.op_type, op.attribute);
        // Channel 0 of column i is 3·i.
        assert_eq!(logits(&file(&[1, 3, 1, 5], row(op), vec![w])), [last * 3.0], "{name}");
    }
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
    let error = import(&file(&[1, 3, 1, 2], nodes, constants(&[1, 1, 3]))).unwrap_err();
    assert!(error.contains("one number a channel"), "{error}");
}

#[test]
fn refusals_name_the_node_and_the_remedy() {
    let pooled = |mut nodes: Vec<proto::Node>| {
        nodes.push(node("GlobalAveragePool", &["last"], "y"));
        nodes
    };
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
        (
            pooled(vec![with_int(node("Conv", &["x", "w"], "last"), "group", 3)]),
            vec![w()],
            "3 groups",
        ),
        (
            pooled(vec![with_ints(node("Conv", &["x", "w"], "last"), "dilations", &[2, 2])]),
            vec![tensor("w", &[1, 3, 2, 2], &[1.0; 12])],
            "dilated",
        ),
        (pooled(vec![node("Conv", &["x", "x"], "last")]), vec![], "no constant"),
        (pooled(vec![node("Relu", &["nowhere"], "last")]), vec![], "`nowhere`"),
        (pooled(vec![node("Mul", &["x", "x"], "last")]), vec![], "only their sum"),
        (
            pooled(vec![node("Clip", &["x", "low", "high"], "last")]),
            vec![tensor("low", &[], &[0.0]), tensor("high", &[], &[6.0])],
            "only a ReLU",
        ),
        (vec![node("Relu", &["x"], "y")], vec![], "no score for each class"),
        (vec![node("Identity", &["w"], "y")], vec![w()], "depends on no picture"),
        (
            pooled(vec![node("Conv", &["x", "w"], "last")]),
            vec![tensor("w", &[1, 3, 1, 1], &[1.0, f32::NAN, 1.0])],
            "a weight that is NaN",
        ),
        (
            pooled(vec![with_ints(node("Conv", &["x", "w"], "last"), "pads", &[i64::MAX; 4])]),
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
    let whole = || pooled(vec![node("Relu", &["x"], "last")]);
    for (dims, what) in [
        (&[1, 4, 4, 4][..], "[1, 3, height, width]"),
        (&[1, 3, -1, -1], "--input-size"),
        (&[8, 3, 4, 4], "one picture"),
        (&[1, 3], "[1, 3, height, width]"),
        (&[1, 3, 70_000, 4], "--input-size"),
    ] {
        let error = import(&file(dims, whole(), vec![])).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    let open = file(&[-1, 3, -1, -1], whole(), vec![]).encode_to_vec();
    let model =
        onnx("m.onnx".as_ref(), &open, &Hints { size: Some(6), ..Hints::default() }).unwrap();
    assert_eq!(model.graph.input_shape(), Shape::new(6, 6, 3));
    // As transformers exports it: the first convolution says how many channels there are.
    let conv = || {
        let padded = with_ints(node("Conv", &["x", "k"], "c"), "pads", &[1; 4]);
        vec![padded, node("GlobalAveragePool", &["c"], "p"), node("Flatten", &["p"], "y")]
    };
    let filters = |c: usize| vec![tensor("k", &[2, c as i64, 3, 3], &vec![1.0; 18 * c])];
    for (channels, dims) in [(3, [-1; 4]), (1, [-1; 4]), (3, [-1, -1, 6, 6])] {
        let open = file(&dims, conv(), filters(channels)).encode_to_vec();
        let model =
            onnx("m.onnx".as_ref(), &open, &Hints { size: Some(6), ..Hints::default() }).unwrap();
        assert_eq!(model.graph.input_shape(), Shape::new(6, 6, channels as u16));
    }
    let two = file(&[-1; 4], conv(), filters(2)).encode_to_vec();
    assert!(onnx("m.onnx".as_ref(), &two, &Hints { size: Some(6), ..Hints::default() }).is_err());
    let mut old = file(&[1, 3, 4, 4], whole(), vec![]);
    old.opset_import[0].version = Some(3);
    assert!(import(&old).unwrap_err().contains("another opset"));
}

fn bytes(name: &str, dims: &[i64], data_type: i32, values: &[i32]) -> proto::Tensor {
    proto::Tensor {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        int32_data: values.to_vec(),
        ..Default::default()
    }
}

/// As onnxruntime writes a quantized model: integers and their scales stay what they are.
#[test]
fn quantized_models_keep_their_numbers() {
    // Three outputs of 1×1 filters, each with a scale of its own; the ReLU is in the zero point.
    let weights = [100, -50, 7, 1, 2, 3, -127, 127, 0];
    let nodes = vec![
        node("QuantizeLinear", &["x", "xs", "xz"], "xq"),
        node("DequantizeLinear", &["xq", "xs", "xz"], "xd"),
        with_int(node("DequantizeLinear", &["w", "ws", "wz"], "wd"), "axis", 0),
        node("Conv", &["xd", "wd"], "c"),
        node("QuantizeLinear", &["c", "cs", "cz"], "cq"),
        node("DequantizeLinear", &["cq", "cs", "cz"], "cd"),
        node("GlobalAveragePool", &["cd"], "g"),
        node("QuantizeLinear", &["g", "cs", "cz"], "gq"),
        node("DequantizeLinear", &["gq", "cs", "cz"], "y"),
    ];
    let constants = vec![
        tensor("xs", &[], &[0.5]),
        bytes("xz", &[], proto::UINT8, &[0]),
        bytes("w", &[3, 3, 1, 1], proto::INT8, &weights),
        tensor("ws", &[3], &[0.25, 1.0, 0.125]),
        bytes("wz", &[3], proto::INT8, &[0; 3]),
        tensor("cs", &[], &[2.0]),
        bytes("cz", &[], proto::INT8, &[-128]),
    ];
    let model = import(&file(&[1, 3, 2, 2], nodes, constants)).unwrap();
    let options = convert::pipeline::Options::default();
    // Without pictures: there is nothing to measure.
    let converted = convert::pipeline::convert(&model, &[], options, |_, _| ()).unwrap();
    let quant = |scale| artifact::Quant { scale, zero_point: -128 };
    assert_eq!(converted.int8.unwrap().quants, [quant(0.5), quant(2.0), quant(2.0)]);
    let NodeOp::Conv2d(conv) = &converted.graph.nodes[1].op else { panic!("a convolution") };
    assert_eq!(conv.activation, Activation::RELU);
    assert_eq!(conv.weight_scales, [0.25, 1.0, 0.125]);
    assert_eq!(conv.weights[..3], [25.0, -12.5, 1.75]);

    let predict = |input: &[f32]| {
        let file = runtime::AlignedBuf::from_slice(&converted.emitted.bytes);
        let model = runtime::Model::new(&file).unwrap();
        let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
        let mut session = runtime::Session::new(&model, &mut arena).unwrap();
        convert::quantize::set_input(&mut session, input);
        session.run().as_i8().unwrap().to_vec()
    };
    // Pixels of 8, 4 and 2 as stored numbers 16, 8, 4: sums 1228, 44, −1016 in steps of 0.125,
    // 0.5 and 0.0625, that is 153.5, 22 and less than nothing, in steps of 2.
    let pixels = [8.0, 4.0, 2.0].repeat(4);
    assert_eq!(predict(&pixels), [-128 + 77, -128 + 11, -128]);
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

/// The same network in both forms of quantized files.
#[test]
fn operators_of_integers_are_read_as_qdq() {
    let scaled = |name: &str, scale: f32, zero: i32| {
        let (s, z) = (format!("{name}s"), format!("{name}z"));
        [tensor(&s, &[], &[scale]), bytes(&z, &[], proto::INT8, &[zero])]
    };
    let mut constants: Vec<proto::Tensor> =
        [("x", 0.5, -128), ("c", 2.0, -3), ("a", 3.0, 4), ("g", 0.7, 0), ("y", 0.9, 1)]
            .into_iter()
            .flat_map(|(name, scale, zero)| scaled(name, scale, zero))
            .collect();
    constants.extend([
        bytes("w", &[3, 3, 1, 1], proto::INT8, &[100, -50, 7, 1, 2, 3, -127, 127, 0]),
        tensor("ws", &[3], &[0.25, 1.0, 0.125]),
        bytes("wz", &[3], proto::INT8, &[0; 3]),
        bytes("b", &[3], proto::INT32, &[8, -100, 1000]),
        tensor("bs", &[3], &[0.125, 0.5, 0.0625]),
        bytes("v", &[2, 3], proto::INT8, &[10, -20, 30, 40, 50, -60]),
        tensor("vs", &[], &[0.01]),
        bytes("vz", &[], proto::INT8, &[0]),
        bytes("d", &[2], proto::INT32, &[100, -200]),
        tensor("ds", &[], &[0.01 * 0.7]),
    ]);
    let quantized = |from: &str, scale: &str, to: &str| {
        let [s, z] = ["s", "z"].map(|part| format!("{scale}{part}"));
        [
            node("QuantizeLinear", &[from, &s, &z], &format!("{to}q")),
            node("DequantizeLinear", &[&format!("{to}q"), &s, &z], to),
        ]
    };
    let whole = |mut operator: proto::Node| {
        operator.domain = "com.microsoft".into();
        operator
    };
    let pool = |from: &str| with_ints(node("MaxPool", &[from], "p"), "kernel_shape", &[2, 2]);
    let mut qdq = quantized("x", "x", "xd").to_vec();
    qdq.extend([
        with_int(node("DequantizeLinear", &["w", "ws", "wz"], "wd"), "axis", 0),
        with_int(node("DequantizeLinear", &["b", "bs"], "bd"), "axis", 0),
        node("Conv", &["xd", "wd", "bd"], "conv"),
    ]);
    qdq.extend(quantized("conv", "c", "cd"));
    qdq.push(node("Conv", &["xd", "wd", "bd"], "again"));
    qdq.extend(quantized("again", "c", "ed"));
    qdq.push(node("Add", &["cd", "ed"], "sum"));
    qdq.extend(quantized("sum", "a", "ad"));
    qdq.push(pool("ad"));
    // The pool's own, which the other form leaves away.
    qdq.extend(quantized("p", "a", "pd"));
    qdq.push(node("GlobalAveragePool", &["pd"], "mean"));
    qdq.extend(quantized("mean", "g", "gd"));
    qdq.extend([
        node("Flatten", &["gd"], "row"),
        node("DequantizeLinear", &["v", "vs", "vz"], "vd"),
        node("DequantizeLinear", &["d", "ds"], "dd"),
        with_int(node("Gemm", &["row", "vd", "dd"], "gemm"), "transB", 1),
    ]);
    qdq.extend(quantized("gemm", "y", "y"));
    let operators = vec![
        node("QuantizeLinear", &["x", "xs", "xz"], "xq"),
        node("QLinearConv", &["xq", "xs", "xz", "w", "ws", "wz", "cs", "cz", "b"], "cq"),
        node("QLinearConv", &["xq", "xs", "xz", "w", "ws", "wz", "cs", "cz", "b"], "eq"),
        whole(node("QLinearAdd", &["cq", "cs", "cz", "eq", "cs", "cz", "as", "az"], "aq")),
        pool("aq"),
        whole(node("QLinearGlobalAveragePool", &["p", "as", "az", "gs", "gz"], "gq")),
        node("Flatten", &["gq"], "row"),
        with_int(
            whole(node("QGemm", &["row", "gs", "gz", "v", "vs", "vz", "d", "ys", "yz"], "yq")),
            "transB",
            1,
        ),
        node("DequantizeLinear", &["yq", "ys", "yz"], "y"),
    ];
    let convert = |nodes: &[proto::Node]| {
        let model = import(&file(&[1, 3, 2, 2], nodes.to_vec(), constants.clone())).unwrap();
        let options = convert::pipeline::Options::default();
        let converted = convert::pipeline::convert(&model, &[], options, |_, _| ()).unwrap();
        let convs: Vec<_> = (converted.graph.nodes.iter())
            .map(|n| match &n.op {
                NodeOp::Conv2d(c) => {
                    (n.quant, c.weights.clone(), c.bias.clone(), c.weight_scales.clone())
                }
                _ => (n.quant, Vec::new(), Vec::new(), Vec::new()),
            })
            .collect();
        (convs, converted.int8.unwrap().quants)
    };
    let (nodes, quants) = convert(&operators);
    assert_eq!((nodes, quants), convert(&qdq));
    // Scales that a thousand nodes share are not multiplied a thousand times.
    let mut large = file(&[1, 3, 2, 2], vec![operators[0].clone()], constants.clone());
    if let Some(graph) = &mut large.graph {
        graph.initializer.push(tensor("many", &[40_000], &[1.0; 40_000]));
        graph.node.extend((0..1000).map(|i| {
            let operands = ["xq", "xs", "xz", "w", "many", "wz", "cs", "cz", "b"];
            node("QLinearConv", &operands, &format!("y{i}"))
        }));
    }
    let error = import(&large).unwrap_err();
    assert!(error.contains("(QLinearConv): scales are read more often than the file"), "{error}");
    // What is missing is named.
    let mut damaged = operators;
    damaged[1].input.truncate(4);
    let error = import(&file(&[1, 3, 2, 2], damaged, constants.clone())).unwrap_err();
    assert!(error.contains("QLinearConv") && error.contains("operand 4"), "{error}");
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
        vec![with_int(node("Cast", &["soft"], "y"), "to", proto::DOUBLE.into())],
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
                let softmax = with_int(node(softmax, &["row"], "soft"), "axis", axis);
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
            with_int(softmax(), "axis", 0),
            node("Identity", &["soft"], "y"),
            "node `soft` (Softmax): over the axis 0, but one over the classes is read",
        ),
    ] {
        let error = import(&head(softmax, &[tail])).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    for op_type in ["Softmax", "Relu"] {
        let mut nothing = node(op_type, &["x"], "y");
        nothing.output.clear();
        let error = import(&file(&[1, 3, 4, 4], vec![nothing], vec![])).unwrap_err();
        assert!(error.contains("depends on no picture"), "{error}");
    }
}

/// The operators that quantize `from` by the constants `scale` and `zero`, and take it back as `to`.
fn pair(from: &str, scale: &str, zero: &str, to: &str) -> [proto::Node; 2] {
    let stored = format!("{to} stored");
    [
        node("QuantizeLinear", &[from, scale, zero], &stored),
        node("DequantizeLinear", &[&stored, scale, zero], to),
    ]
}

fn convolution(graph: &Graph, at: usize) -> &network::graph::Conv {
    match &graph.nodes[at].op {
        NodeOp::Conv2d(conv) => conv,
        _ => panic!("a convolution"),
    }
}

/// As QAT of PyTorch, TensorRT and `AddQDQPairToWeight` write weights: floats that the file quantizes.
#[test]
fn weights_in_floats_are_rounded_as_the_file_says() {
    let along = |axis: i64, mut nodes: [proto::Node; 2]| {
        nodes.iter_mut().for_each(|n| n.attribute.push(proto::Attribute::int("axis", axis)));
        nodes
    };
    let mut nodes = pair("x", "one", "z", "xd").to_vec();
    nodes.extend(along(0, pair("w", "ws", "wz", "wd")));
    nodes.push(node("Conv", &["xd", "wd"], "c"));
    nodes.extend(pair("c", "two", "z", "cd"));
    nodes.push(node("GlobalMaxPool", &["cd"], "p"));
    nodes.push(node("Flatten", &["p"], "row"));
    // Along the columns of what is multiplied from the right; zero points are left out.
    nodes.extend(along(1, pair("v", "vs", "", "vd")));
    nodes.push(node("MatMul", &["row", "vd"], "m"));
    nodes.extend(pair("m", "two", "z", "y"));
    // The operators of onnxruntime are the same.
    for node in nodes.iter_mut().filter(|n| n.op_type.ends_with("Linear")) {
        node.domain = "com.microsoft".into();
    }
    let constants = vec![
        tensor("one", &[], &[1.0]),
        tensor("two", &[1], &[2.0]),
        bytes("z", &[], proto::INT8, &[0]),
        // Halves go to even numbers, and what is too large is clamped.
        tensor("w", &[2, 3, 1, 1], &[0.25, 0.75, -0.3, 1.0, -9.0, 99.0]),
        tensor("ws", &[2], &[0.5, 0.0625]),
        bytes("wz", &[2], proto::INT8, &[0, 0]),
        tensor("v", &[2, 3], &[4.0, 5.0, 6.0, 0.0, 2.6, 255.0]),
        tensor("vs", &[3], &[1.0, 2.0, 0.5]),
    ];
    let model = file(&[1, 3, 2, 2], nodes, constants);
    let mut graph = import(&model).unwrap().graph;
    let conv = convolution(&graph, 1);
    assert_eq!(conv.weights, [0.0, 1.0, -0.5, 1.0, -8.0, 127.0 * 0.0625]);
    assert_eq!(conv.weight_scales, [0.5, 0.0625]);
    let dense = convolution(&graph, 3);
    // Without a zero point, bytes are stored: to 255, which int8 has no steps for.
    assert_eq!(dense.weights, [4.0, 0.0, 4.0, 2.0, 6.0, 127.5]);
    assert_eq!(dense.weight_scales, [1.0, 2.0, 0.0]);
    let quants: Vec<_> = graph.nodes.iter().map(|n| n.quant.map(|q| q.scale)).collect();
    assert_eq!(quants, [Some(1.0), Some(2.0), None, Some(2.0)]);

    // A batch-norm behind them changes their steps and not what is stored.
    let op = NodeOp::BatchNorm {
        gamma: vec![-3.0, 0.5, 1.0],
        beta: vec![0.0; 3],
        mean: vec![0.0; 3],
        variance: vec![1.0; 3],
        epsilon: 0.0,
    };
    graph.push("norm", op, &[3]).unwrap();
    convert::optimize::optimize(&mut graph);
    let dense = convolution(&graph, 3);
    assert_eq!(dense.weights, [-12.0, 0.0, 2.0, 1.0, 6.0, 127.5]);
    assert_eq!(dense.weight_scales, [3.0, 1.0, 0.0]);
}

/// As PyTorch exports models that it has converted: what is stored is cast to what it is.
#[test]
fn what_is_stored_may_be_cast_to_bytes() {
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q"),
        with_int(node("Cast", &["q"], "c"), "to", proto::UINT8.into()),
        node("ConstantOfShape", &["none"], "zeros"),
        with_int(node("Cast", &["zeros"], "zero"), "to", proto::UINT8.into()),
        node("DequantizeLinear", &["c", "s", "zero"], "d"),
        node("GlobalMaxPool", &["d"], "y"),
    ];
    let constants =
        vec![tensor("s", &[], &[0.5]), bytes("z", &[], proto::UINT8, &[0]), shape("none", &[])];
    let graph = import(&file(&[1, 3, 2, 2], nodes, constants)).unwrap().graph;
    assert_eq!(graph.nodes[0].quant, Some(artifact::Quant { scale: 0.5, zero_point: -128 }));
    let nodes = vec![
        with_int(node("Cast", &["x"], "c"), "to", proto::UINT8.into()),
        node("GlobalMaxPool", &["c"], "y"),
    ];
    let error = import(&file(&[1, 3, 2, 2], nodes, vec![])).unwrap_err();
    assert!(error.contains("(Cast): casts to integers"), "{error}");
}

/// Bytes around a zero point: what int8 has no steps for is rounded anew, channel by channel.
#[test]
fn weights_of_unsigned_bytes() {
    let model = |zero: i32| {
        let nodes = vec![
            node("DequantizeLinear", &["w", "ws", "wz"], "wd"),
            node("Conv", &["x", "wd"], "c"),
            node("GlobalMaxPool", &["c"], "y"),
        ];
        let constants = vec![
            bytes("w", &[2, 3, 1, 1], proto::UINT8, &[0, 128, 255, 100, 101, 99]),
            tensor("ws", &[], &[0.5]),
            bytes("wz", &[], proto::UINT8, &[zero]),
        ];
        import(&file(&[1, 3, 2, 2], nodes, constants)).unwrap().graph
    };
    for (zero, scale) in [(128, 0.5), (100, 0.0), (0, 0.0)] {
        let graph = model(zero);
        let conv = convolution(&graph, 1);
        let weights = [0, 128, 255, 100, 101, 99].map(|q| (q - zero) as f32 * 0.5);
        assert_eq!((&conv.weights[..], &conv.weight_scales[..]), (&weights[..], &[scale; 2][..]));
        let quants = [artifact::Quant { scale: 1.0, zero_point: 0 }; 3];
        let int8 = convert::emit::edge::int8_weights_of(&graph, 1, conv, &quants);
        let row = |o: usize| weights[o * 3..][..3].iter().fold(0.0f32, |m, w| m.max(w.abs()));
        for (i, (w, q)) in weights.iter().zip(&int8.values).enumerate() {
            let error = (w - f32::from(*q) * int8.scales[i / 3]).abs();
            assert!(error <= row(i / 3) / 127.0, "{w} as {q} of {:?}", int8.scales);
        }
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
    let error = import(&file(&[1, 3, 1, 1], circle, vec![])).unwrap_err();
    assert!(error.contains("reads `y`, which nothing before it computes"), "{error}");
}

/// Weights of 16 bits are floats here.
#[test]
fn weights_of_16_bits_are_not_rounded_again() {
    let nodes = vec![
        node("DequantizeLinear", &["w", "ws"], "wd"),
        node("Conv", &["x", "wd"], "c"),
        node("GlobalMaxPool", &["c"], "y"),
    ];
    let constants = vec![
        bytes("w", &[1, 3, 1, 1], proto::INT16, &[-32_768, 5, 32_767]),
        tensor("ws", &[], &[0.25]),
    ];
    let graph = import(&file(&[1, 3, 2, 2], nodes, constants)).unwrap().graph;
    let conv = convolution(&graph, 1);
    assert_eq!(conv.weights, [-8192.0, 1.25, 8191.75]);
    assert!(conv.weight_scales.is_empty());
}

/// `DedicatedQDQPair`: each reader of a value has a QuantizeLinear of its own.
#[test]
fn readers_with_pairs_of_their_own_share_a_value() {
    let mut nodes = pair("x", "one", "z", "xd").to_vec();
    nodes.push(node("Conv", &["xd", "w"], "c"));
    nodes.extend(pair("c", "one", "low", "a"));
    nodes.extend(pair("c", "one", "low", "b"));
    nodes.push(node("Conv", &["a", "w"], "d"));
    nodes.extend(pair("d", "one", "z", "dd"));
    nodes.push(node("Add", &["dd", "b"], "sum"));
    nodes.extend(pair("sum", "one", "low", "e"));
    nodes.push(node("GlobalMaxPool", &["e"], "y"));
    let mut w = vec![0.0; 9];
    (0..3).for_each(|c| w[c * 4] = if c == 1 { -1.0 } else { 1.0 });
    let constants = vec![
        tensor("one", &[], &[1.0]),
        bytes("z", &[], proto::INT8, &[0]),
        bytes("low", &[], proto::INT8, &[-128]),
        tensor("w", &[3, 3, 1, 1], &w),
    ];
    let model = import(&file(&[1, 3, 1, 1], nodes, constants)).unwrap();
    let mut graph = model.graph.clone();
    convert::optimize::optimize(&mut graph);
    // Nothing below zero is stored, so that there were ReLUs.
    assert!(graph.nodes.iter().all(|n| !matches!(n.op, NodeOp::Activation(_) | NodeOp::Add)));
    assert_eq!(evaluate(&graph, &[3.0, 5.0, -7.0]), [6.0, 0.0, 0.0]);
}

/// As PyTorch writes activations of 7 bits for x86: uint8 that is clamped to 127.
#[test]
fn bytes_of_seven_bits_end_where_int8_does() {
    let model = |zero: i32, low: i32, high: i32| {
        let [q, mut dq] = pair("c", "one", "z", "cd");
        dq.input[0] = "narrow".into();
        let nodes = vec![
            node("Conv", &["x", "w"], "c"),
            node("Identity", &["z again"], "z"),
            q,
            node("Clip", &["cd stored", "low", "high"], "narrow"),
            dq,
            node("GlobalMaxPool", &["cd"], "y"),
        ];
        let constants = vec![
            tensor("w", &[1, 3, 1, 1], &[1.0; 3]),
            tensor("one", &[], &[1.0]),
            bytes("z again", &[], proto::UINT8, &[zero]),
            bytes("low", &[], proto::UINT8, &[low]),
            bytes("high", &[], proto::UINT8, &[high]),
        ];
        import(&file(&[1, 3, 1, 1], nodes, constants))
    };
    for (zero, value) in [(0, 0.0), (60, -3.0)] {
        let graph = model(zero, 0, 127).unwrap().graph;
        let quant = graph.nodes[graph.output()].quant.or(graph.nodes[graph.output() - 1].quant);
        assert_eq!(quant.unwrap(), artifact::Quant { scale: 1.0, zero_point: zero as i8 });
        assert_eq!(evaluate(&graph, &[-1.0; 3]), [value]);
        assert_eq!(quant.unwrap().quantize(1e6), 127);
    }
    assert_eq!(evaluate(&model(0, 0, 255).unwrap().graph, &[-1.0; 3]), [0.0]);
    // Behind a pool, nothing is below zero.
    let pooled = vec![
        node("GlobalMaxPool", &["x"], "p"),
        node("QuantizeLinear", &["p", "one", "z"], "q"),
        node("Clip", &["q", "", "high"], "narrow"),
        node("DequantizeLinear", &["narrow", "one", "z"], "y"),
    ];
    let constants = vec![
        tensor("one", &[], &[1.0]),
        bytes("z", &[], proto::UINT8, &[0]),
        bytes("high", &[], proto::UINT8, &[127]),
    ];
    let graph = import(&file(&[1, 3, 2, 2], pooled, constants)).unwrap().graph;
    let quant = artifact::Quant { scale: 1.0, zero_point: 0 };
    assert_eq!((graph.nodes.len(), graph.nodes[1].quant), (2, Some(quant)));
    let error = model(0, 0, 15).unwrap_err();
    let what = "(Clip): clamps what is stored to [0.0, 15.0]; quantize it to 8 bits";
    assert!(error.contains(what), "{error}");
}

#[test]
fn other_integers_than_those_of_8_bits_are_named() {
    let constants = |z: proto::Tensor| vec![tensor("s", &[], &[0.5]), z];
    let none = || shape("none", &[0]);
    let with = |name: &str, i: i64| {
        let mut nodes = pair("x", "s", "", "d");
        nodes[0].attribute.push(proto::Attribute::int(name, i));
        nodes
    };
    let remedy = "quantize it to 8 bits (onnxruntime: activation_type=QuantType.QInt8), or export it in \
                  floats";
    for (pair, constants, what) in [
        (
            pair("x", "s", "z", "d"),
            constants(bytes("z", &[], proto::INT16, &[0])),
            format!("node `d stored` (QuantizeLinear): stores values in int16; {remedy}"),
        ),
        (
            pair("x", "s", "z", "d"),
            constants(bytes("z", &[], proto::UINT16, &[7])),
            format!("stores values in uint16; {remedy}"),
        ),
        (with("output_dtype", 5), constants(none()), format!("stores values in int16; {remedy}")),
        (
            with("block_size", 16),
            constants(none()),
            format!("is quantized in blocks, which int8 has not; {remedy}"),
        ),
        (
            pair("x", "s", "z", "d"),
            constants(bytes("z", &[], 22, &[0])),
            "constant `z`: numbers in int4, which are not read; export the model in floats, or"
                .into(),
        ),
        (
            pair("x", "s", "z", "d"),
            vec![tensor("s", &[0], &[]), bytes("z", &[], proto::INT8, &[0])],
            "1 zero points for 0 scales".into(),
        ),
    ] {
        let mut nodes = pair.to_vec();
        nodes.push(node("GlobalMaxPool", &["d"], "y"));
        let error = import(&file(&[1, 3, 4, 4], nodes, constants)).unwrap_err();
        assert!(error.contains(&what), "{error}");
    }
    // Quantized while it runs.
    let mut nodes = vec![node("DynamicQuantizeLinear", &["x"], "q")];
    nodes.push(node("GlobalMaxPool", &["q"], "y"));
    let error = import(&file(&[1, 3, 4, 4], nodes, vec![])).unwrap_err();
    assert!(error.contains("take the model in floats, or quantize_static"), "{error}");
}

/// What onnxruntime makes of a model and saves: operators in one, and maps laid out for its CPU.
#[test]
fn operators_in_one_and_maps_the_other_way_round() {
    let own = |mut node: proto::Node| {
        node.domain = "com.microsoft".into();
        node
    };
    let ones = || tensor("w", &[3, 3, 1, 1], &[1.0; 9]);
    // relu(x ∗ w + b + x), and no activation.
    for (activation, want) in [(Some("Relu"), [7.0, 8.0, 0.0]), (None, [7.0, 8.0, -101.0])] {
        let mut fused = own(node("FusedConv", &["x", "w", "b", "x"], "c"));
        if let Some(activation) = activation {
            fused = with_text(fused, "activation", activation);
        }
        let nodes = vec![fused, node("GlobalMaxPool", &["c"], "y")];
        let constants = vec![ones(), tensor("b", &[3], &[0.0, 0.0, -110.0])];
        let graph = import(&file(&[1, 3, 1, 1], nodes, constants)).unwrap().graph;
        assert_eq!(evaluate(&graph, &[1.0, 2.0, 3.0]), want);
    }
    let strange = with_text(own(node("FusedConv", &["x", "w"], "y")), "activation", "Tanh");
    let error = import(&file(&[1, 3, 1, 1], vec![strange], vec![ones()])).unwrap_err();
    assert!(error.contains("the activation `Tanh`"), "{error}");

    // From NCHW to NHWC, there a convolution, a maximum and a mean, and back.
    let last = |node: proto::Node| with_int(own(node), "channels_last", 1);
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q"),
        with_ints(node("Transpose", &["q"], "t"), "perm", &[0, 2, 3, 1]),
        last(node("QLinearConv", &["t", "s", "z", "wq", "ws", "z", "s", "z"], "c")),
        with_ints(own(node("NhwcMaxPool", &["c"], "m")), "kernel_shape", &[1, 2]),
        last(node("QLinearGlobalAveragePool", &["m", "s", "z", "s", "z"], "p")),
        with_ints(node("Transpose", &["p"], "n"), "perm", &[0, 3, 1, 2]),
        node("DequantizeLinear", &["n", "s", "z"], "y"),
    ];
    let constants = vec![
        tensor("s", &[], &[1.0]),
        bytes("z", &[], proto::INT8, &[0]),
        bytes("wq", &[1, 3, 1, 1], proto::INT8, &[1, 2, 3]),
        tensor("ws", &[], &[2.0]),
    ];
    let graph = import(&file(&[1, 3, 2, 2], nodes, constants)).unwrap().graph;
    // Largest of each row: of the second pixel, (3 + 2·4 + 3·5)·2, and of the fourth.
    let input: Vec<f32> = (0..12).map(|i| i as f32).collect();
    assert_eq!(evaluate(&graph, &input), [(52.0 + (9.0 + 20.0 + 33.0) * 2.0) / 2.0]);
    let quants = graph.nodes.iter().filter(|n| n.quant.is_some());
    assert_eq!((quants.count(), graph.nodes.len()), (3, 4));
}

/// `QLinearAdd` of a constant, and a picture that is given in integers.
#[test]
fn constants_and_pictures_in_integers_are_real_numbers() {
    let nodes = vec![
        node("QLinearAdd", &["x", "s", "z", "k", "ks", "kz", "one", "z"], "q"),
        node("DequantizeLinear", &["q", "one", "z"], "d"),
        node("GlobalMaxPool", &["d"], "y"),
    ];
    let nodes: Vec<_> = nodes
        .into_iter()
        .map(|n| proto::Node {
            domain: if n.op_type == "QLinearAdd" { "com.microsoft".into() } else { String::new() },
            ..n
        })
        .collect();
    let constants = vec![
        tensor("s", &[], &[1.0 / 255.0]),
        bytes("z", &[], proto::UINT8, &[0]),
        bytes("k", &[3, 1, 1], proto::INT8, &[2, 4, 6]),
        tensor("ks", &[], &[0.25]),
        bytes("kz", &[], proto::INT8, &[2]),
        tensor("one", &[], &[1.0]),
    ];
    let model = import(&file(&[1, 3, 1, 1], nodes, constants)).unwrap();
    let prepared = Preprocess::normalized(1, 1, [0.0; 3], [1.0; 3]);
    assert_eq!((model.preprocess, model.is_preprocess_assumed), (prepared, false));
    assert_eq!(evaluate(&model.graph, &[0.5, 0.5, 0.5]), [0.5, 1.0, 1.5]);
}

/// A file that quantizes some of its layers: the others keep floats, unless there are pictures to
/// measure them on.
#[test]
fn layers_that_a_file_leaves_in_floats_stay_so() {
    let identity = |name: &str| {
        let mut w = vec![0.0; 9];
        (0..3).for_each(|c| w[c * 4] = 1.0);
        tensor(name, &[3, 3, 1, 1], &w)
    };
    let int8 = bytes("w", &[3, 3, 1, 1], proto::INT8, &[64, 0, 0, 0, 64, 0, 0, 0, 64]);
    let weights = || node("DequantizeLinear", &["w", "ws"], "wd");
    let constants = vec![
        int8,
        tensor("ws", &[], &[1.0 / 64.0]),
        identity("f"),
        tensor("s", &[], &[1.0]),
        tensor("coarse", &[], &[3.0]),
        bytes("z", &[], proto::INT8, &[0]),
    ];
    let quants_of = |nodes: Vec<proto::Node>, pictures: &[Vec<f32>]| {
        let model = import(&file(&[1, 3, 2, 2], nodes, constants.clone())).unwrap();
        let options = convert::pipeline::Options::default();
        let converted = convert::pipeline::convert(&model, pictures, options, |_, _| ())?;
        let int8 = converted.int8.unwrap();
        let nodes = int8.graph.nodes.iter().zip(&int8.quants);
        let have: Vec<_> = nodes.map(|(n, q)| (n.name.clone(), q.is_float())).collect();
        let file = runtime::AlignedBuf::from_slice(&converted.emitted.bytes);
        let model = runtime::Model::new(&file).unwrap();
        let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
        let mut session = runtime::Session::new(&model, &mut arena).unwrap();
        // 7.3 is rounded to 7 where it is stored.
        convert::quantize::set_input(&mut session, &[7.3; 12]);
        let logits: Vec<f32> = session.run().iter().collect();
        Ok::<_, convert::pipeline::ConvertError>((have, logits))
    };
    let names = |have: &[(String, bool)]| {
        have.iter().map(|(n, f)| format!("{n}{}", if *f { "*" } else { "" })).collect::<Vec<_>>()
    };
    // In the middle.
    let mut middle = pair("x", "s", "z", "xd").to_vec();
    middle.extend([weights(), node("Conv", &["xd", "wd"], "a")]);
    middle.extend(pair("a", "s", "z", "ad"));
    middle.push(node("Conv", &["ad", "f"], "b"));
    middle.push(node("Conv", &["b", "f"], "c"));
    middle.extend(pair("c", "s", "z", "cd"));
    middle.push(node("Conv", &["cd", "wd"], "d"));
    middle.extend(pair("d", "s", "z", "dd"));
    middle.push(node("GlobalMaxPool", &["dd"], "y"));
    let (have, logits) = quants_of(middle.clone(), &[]).unwrap();
    assert_eq!(names(&have), ["input", "a", "a.float*", "b*", "c*", "c.int8", "d", "y"]);
    assert_eq!(logits, [7.0; 3]);
    let (have, _) = quants_of(middle, &[vec![7.0; 12]]).unwrap();
    assert_eq!(names(&have), ["input", "a", "b", "c", "d", "y"]);
    // First and last, as is often advised: the input is a float, too, where nothing tells its range.
    let mut ends = vec![weights(), node("Conv", &["x", "f"], "a")];
    ends.extend(pair("a", "s", "z", "ad"));
    ends.push(node("Conv", &["ad", "wd"], "b"));
    ends.extend(pair("b", "s", "z", "bd"));
    ends.push(node("GlobalMaxPool", &["bd"], "p"));
    ends.push(node("Conv", &["p", "f"], "y"));
    let (have, logits) = quants_of(ends, &[]).unwrap();
    assert_eq!(names(&have), ["input*", "a*", "a.int8", "b", "p", "p.float*", "y*"]);
    assert_eq!(logits, [7.0; 3]);
    // What is computed in floats is stored as the file says, here in steps of 3.
    let mut stored = pair("x", "s", "z", "xd").to_vec();
    stored.extend([weights(), node("Conv", &["xd", "wd"], "a")]);
    stored.extend(pair("a", "s", "z", "ad"));
    stored.push(node("Conv", &["ad", "f"], "b"));
    stored.extend(pair("b", "coarse", "z", "bd"));
    stored.push(node("Conv", &["bd", "f"], "c"));
    stored.push(node("GlobalMaxPool", &["c"], "p"));
    stored.extend(pair("p", "s", "z", "y"));
    let (have, logits) = quants_of(stored, &[]).unwrap();
    let casts = ["input", "a", "a.float*", "b*", "b.int8", "b.float*", "c*", "c.int8", "p"];
    assert_eq!(names(&have), casts);
    assert_eq!(logits, [6.0; 3]);
    // Weights alone leave everything to be measured.
    let only = vec![weights(), node("Conv", &["x", "wd"], "a"), node("GlobalMaxPool", &["a"], "y")];
    assert!(quants_of(only, &[]).unwrap_err().to_string().contains("--calibration"));
}
