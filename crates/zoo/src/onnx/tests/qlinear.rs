//! Operators of integers, and those of onnxruntime's own.

use super::*;

/// An operator of onnxruntime's own.
fn own(mut node: proto::Node) -> proto::Node {
    node.domain = "com.microsoft".into();
    node
}

/// Of both forms of the network.
fn constants() -> Vec<proto::Tensor> {
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
    constants
}

fn max_pool(from: &str) -> proto::Node {
    node("MaxPool", &[from], "p").ints("kernel_shape", &[2, 2])
}

/// The network in operators of integers.
fn operators() -> Vec<proto::Node> {
    vec![
        node("QuantizeLinear", &["x", "xs", "xz"], "xq"),
        node("QLinearConv", &["xq", "xs", "xz", "w", "ws", "wz", "cs", "cz", "b"], "cq"),
        node("QLinearConv", &["xq", "xs", "xz", "w", "ws", "wz", "cs", "cz", "b"], "eq"),
        own(node("QLinearAdd", &["cq", "cs", "cz", "eq", "cs", "cz", "as", "az"], "aq")),
        max_pool("aq"),
        own(node("QLinearGlobalAveragePool", &["p", "as", "az", "gs", "gz"], "gq")),
        node("Flatten", &["gq"], "row"),
        own(node("QGemm", &["row", "gs", "gz", "v", "vs", "vz", "d", "ys", "yz"], "yq"))
            .int("transB", 1),
        node("DequantizeLinear", &["yq", "ys", "yz"], "y"),
    ]
}

/// The network in floats between pairs of operators.
fn in_pairs() -> Vec<proto::Node> {
    let quantized = |from: &str, scale: &str, to: &str| {
        let [s, z] = ["s", "z"].map(|part| format!("{scale}{part}"));
        pair(from, &s, &z, to)
    };
    let mut qdq = quantized("x", "x", "xd").to_vec();
    qdq.extend([
        node("DequantizeLinear", &["w", "ws", "wz"], "wd").int("axis", 0),
        node("DequantizeLinear", &["b", "bs"], "bd").int("axis", 0),
        node("Conv", &["xd", "wd", "bd"], "conv"),
    ]);
    qdq.extend(quantized("conv", "c", "cd"));
    qdq.push(node("Conv", &["xd", "wd", "bd"], "again"));
    qdq.extend(quantized("again", "c", "ed"));
    qdq.push(node("Add", &["cd", "ed"], "sum"));
    qdq.extend(quantized("sum", "a", "ad"));
    qdq.push(max_pool("ad"));
    // The pool's own, which the other form leaves away.
    qdq.extend(quantized("p", "a", "pd"));
    qdq.push(node("GlobalAveragePool", &["pd"], "mean"));
    qdq.extend(quantized("mean", "g", "gd"));
    qdq.extend([
        node("Flatten", &["gd"], "row"),
        node("DequantizeLinear", &["v", "vs", "vz"], "vd"),
        node("DequantizeLinear", &["d", "ds"], "dd"),
        node("Gemm", &["row", "vd", "dd"], "gemm").int("transB", 1),
    ]);
    qdq.extend(quantized("gemm", "y", "y"));
    qdq
}

/// The same network in both forms of quantized files.
#[test]
fn operators_of_integers_are_read_as_qdq() {
    let convert = |nodes: &[proto::Node]| {
        let model = import(&file(&[1, 3, 2, 2], nodes.to_vec(), constants())).unwrap();
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
    let (nodes, quants) = convert(&operators());
    assert_eq!((nodes, quants), convert(&in_pairs()));
}

#[test]
fn damaged_operators_of_integers() {
    // Scales that a thousand nodes share are not multiplied a thousand times.
    let mut large = file(&[1, 3, 2, 2], operators()[..1].to_vec(), constants());
    if let Some(graph) = &mut large.graph {
        graph.initializer.push(tensor("many", &[40_000], &[1.0; 40_000]));
        graph.node.extend((0..1000).map(|i| {
            let operands = ["xq", "xs", "xz", "w", "many", "wz", "cs", "cz", "b"];
            node("QLinearConv", &operands, &format!("y{i}"))
        }));
    }
    refused(&large, "(QLinearConv): scales are read more often than the file");
    // What is missing is named.
    let mut damaged = operators();
    damaged[1].input.truncate(4);
    let error = import(&file(&[1, 3, 2, 2], damaged, constants())).unwrap_err();
    assert!(error.contains("QLinearConv") && error.contains("operand 4"), "{error}");
}

/// What onnxruntime makes of a model and saves: operators in one, and maps laid out for its CPU.
#[test]
fn operators_in_one_and_maps_the_other_way_round() {
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
    refused(&file(&[1, 3, 1, 1], vec![strange], vec![ones()]), "the activation `Tanh`");

    // From NCHW to NHWC, there a convolution, a maximum and a mean, and back.
    let last = |node: proto::Node| own(node).int("channels_last", 1);
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q"),
        node("Transpose", &["q"], "t").ints("perm", &[0, 2, 3, 1]),
        last(node("QLinearConv", &["t", "s", "z", "wq", "ws", "z", "s", "z"], "c")),
        own(node("NhwcMaxPool", &["c"], "m")).ints("kernel_shape", &[1, 2]),
        last(node("QLinearGlobalAveragePool", &["m", "s", "z", "s", "z"], "p")),
        node("Transpose", &["p"], "n").ints("perm", &[0, 3, 1, 2]),
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
        own(node("QLinearAdd", &["x", "s", "z", "k", "ks", "kz", "one", "z"], "q")),
        node("DequantizeLinear", &["q", "one", "z"], "d"),
        node("GlobalMaxPool", &["d"], "y"),
    ];
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
