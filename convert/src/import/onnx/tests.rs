use super::*;
use crate::emit::edge::Format;
use crate::emit::onnx::{Form, to_onnx};
use crate::graph::{NodeOp, evaluate};
use crate::init::random_checkpoint;
use crate::resnet::ResNetConfig;

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
    onnx("m.onnx".as_ref(), &model.encode_to_vec(), None).map_err(|e| e.to_string())
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
        let mut config = ResNetConfig::named(name, 1).unwrap();
        config.channels = channels;
        config.classes = 5;
        let checkpoint = random_checkpoint(config, 33, 7).unwrap();
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        let bytes = to_onnx(&model.graph, Format::F32, Form::Qdq, &model.labels, &model.preprocess);
        let again = onnx("m.onnx".as_ref(), &bytes, None).unwrap();
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
    for dims in [&[1, 1, 4, 5][..], &[1, 4, 5, 1], &[-1, 1, 4, 5]] {
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
    assert_eq!(paddings, [border, border, Padding::default()]);
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
    let mut strange = node("GroupNormalization", &["x"], "last");
    strange.name = "stem/norm".into();
    let mut foreign = node("Conv", &["x"], "other");
    foreign.domain = "com.microsoft".into();
    let w = || tensor("w", &[1, 3, 1, 1], &[1.0; 3]);
    let cases = [
        (
            pooled(vec![strange, foreign]),
            vec![],
            "`stem/norm` (GroupNormalization)\n  node `other` (Conv)",
        ),
        (
            pooled(vec![with_int(node("Conv", &["x", "w"], "last"), "group", 3)]),
            vec![w()],
            "3 groups",
        ),
        (
            pooled(vec![with_ints(node("Conv", &["x", "w"], "last"), "dilations", &[2, 2])]),
            vec![w()],
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
            "but only a row is read",
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
    let model = onnx("m.onnx".as_ref(), &open, Some(6)).unwrap();
    assert_eq!(model.graph.input_shape(), Shape::new(6, 6, 3));
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
    let options = crate::pipeline::Options::default();
    // Without pictures: there is nothing to measure.
    let converted = crate::pipeline::convert(&model, &[], options, |_, _| ()).unwrap();
    let quant = |scale| artifact::Quant { scale, zero_point: -128 };
    assert_eq!(converted.int8.unwrap().quants, [quant(0.5), quant(2.0), quant(2.0)]);
    let NodeOp::Conv2d(conv) = &converted.graph.nodes[1].op else { panic!("a convolution") };
    assert!(conv.relu);
    assert_eq!(conv.weight_scales, [0.25, 1.0, 0.125]);
    assert_eq!(conv.weights[..3], [25.0, -12.5, 1.75]);

    let predict = |input: &[f32]| {
        let file = runtime::AlignedBuf::from_slice(&converted.emitted.bytes);
        let model = runtime::Model::new(&file).unwrap();
        let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
        let mut session = runtime::Session::new(&model, &mut arena).unwrap();
        crate::quantize::set_input(&mut session, input);
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
        onnx(&dir.path().join("m.onnx"), &bytes, None).map_err(|e| e.to_string())
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
    let mut config = ResNetConfig::named("resnet_8_cifar", 1).unwrap();
    config.classes = 2;
    let checkpoint = random_checkpoint(config, 8, 1).unwrap();
    let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
    let bytes = to_onnx(&model.graph, Format::F32, Form::Qdq, &model.labels, &model.preprocess);
    let path = Path::new("m.onnx");
    for end in (0..bytes.len()).step_by(997) {
        let _ =
            onnx(path, &bytes[..end], None).map(|m| evaluate(&m.graph, &[0.5; 8 * 8 * 3]).len());
    }
    let mut damaged = bytes.clone();
    for at in (0..bytes.len()).step_by(211) {
        damaged[at] ^= 1 << (at % 8);
        let _ = onnx(path, &damaged, None);
        damaged[at] = bytes[at];
    }
    assert!(onnx(path, b"no model", None).unwrap_err().to_string().contains("no ONNX model"));
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
        let options = crate::pipeline::Options::default();
        let converted = crate::pipeline::convert(&model, &[], options, |_, _| ()).unwrap();
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
        assert!(error.contains("computes nothing"), "{error}");
    }
}
