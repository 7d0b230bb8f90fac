//! The many forms in which exporters write the same.

use super::*;
use crate::Channels;

fn with_graph(mut node: proto::Node, name: &str, graph: proto::Graph) -> proto::Node {
    node.attribute.push(proto::Attribute {
        name: name.into(),
        g: Some(Box::new(graph)),
        ..Default::default()
    });
    node
}

/// Of a 2×3 map, whose channels have the means 7.5, 8.5, 9.5.
#[test]
fn heads_pool_in_many_ways() {
    let axes =
        |node: proto::Node, axes: &[i64], keep: i64| node.ints("axes", axes).int("keepdims", keep);
    let mean = |from: &str, to: &str| node("ReduceMean", &[from], to);
    let pooled = || node("GlobalAveragePool", &["x"], "p");
    let forms: Vec<Vec<proto::Node>> = vec![
        vec![axes(mean("x", "row"), &[2, 3], 0)],
        vec![axes(mean("x", "row"), &[-1, -2], 0)],
        vec![axes(mean("x", "m"), &[3], 0), axes(mean("m", "row"), &[2], 0)],
        vec![
            axes(mean("x", "m"), &[2], 1),
            axes(mean("m", "n"), &[3], 1),
            node("Flatten", &["n"], "row"),
        ],
        vec![node("Reshape", &["x", "to"], "m"), axes(mean("m", "row"), &[-1], 0)],
        vec![axes(node("ReduceSum", &["x"], "s"), &[2, 3], 0), node("Div", &["s", "six"], "row")],
        // All dimensions of one are left away, also the pictures'.
        vec![pooled(), node("Squeeze", &["p"], "row")],
        vec![
            pooled(),
            node("Squeeze", &["p"], "s").ints("axes", &[3]),
            node("Squeeze", &["s"], "row").ints("axes", &[2]),
        ],
        vec![
            pooled(),
            node("Gather", &["p", "zero"], "g").int("axis", 3),
            node("Gather", &["g", "zero"], "row").int("axis", 2),
        ],
        vec![
            node("Transpose", &["x"], "t").ints("perm", &[0, 2, 3, 1]),
            axes(mean("t", "row"), &[1, 2], 0),
        ],
        // Rows and columns in each other's place.
        vec![
            node("Transpose", &["x"], "t").ints("perm", &[3, 0, 2, 1]),
            axes(mean("t", "row"), &[0, 2], 0),
        ],
    ];
    let constants = || {
        vec![
            shape("to", &[0, 3, -1]),
            scalar("zero", 0),
            tensor("six", &[], &[6.0]),
            tensor("w", &[3, 2], &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
            tensor("b", &[2], &[0.5, 10.0]),
        ]
    };
    for mut nodes in forms {
        let names: Vec<String> = nodes.iter().map(|n| n.op_type.clone()).collect();
        nodes.push(node("MatMul", &["row", "w"], "product"));
        nodes.push(node("Add", &["b", "product"], "y"));
        let model = file(&[1, 3, 2, 3], nodes, constants());
        assert_eq!(logits(&model), [8.0, 18.5], "{names:?}");
        // Columns and rows are one pool.
        let pools = import(&model).unwrap();
        let pools = pools.graph.nodes.iter().filter(|n| matches!(n.op, NodeOp::Pool2d { .. }));
        assert!(names.len() == 4 || pools.count() <= 2);
    }
    // A dense layer of each pixel, channels last.
    let nodes = vec![
        node("Transpose", &["x"], "t").ints("perm", &[0, 2, 3, 1]),
        node("MatMul", &["t", "w"], "product"),
        node("Add", &["product", "b"], "m"),
        axes(mean("m", "y"), &[1, 2], 0),
    ];
    assert_eq!(logits(&file(&[1, 3, 2, 3], nodes, constants())), [8.0, 18.5]);
    // Over channels, which is no pool.
    refused(
        &file(&[1, 3, 2, 3], vec![axes(mean("x", "y"), &[1], 0)], vec![]),
        "reduces the dimensions [1]",
    );
    // Directly on channels that come last, rows would be averaged with them.
    refused(
        &file(&[1, 2, 4, 3], vec![node("GlobalAveragePool", &["x"], "y")], vec![]),
        "reduces the dimensions",
    );
}

/// `x · relu6(x + 3) / 6`, divided before the product or after it.
#[test]
fn hard_swish_of_sums_and_bounds() {
    let numbers = [("three", 3.0), ("zero", 0.0), ("six", 6.0), ("sixth", 1.0 / 6.0)];
    let constants: Vec<_> = numbers.iter().map(|&(name, v)| tensor(name, &[], &[v])).collect();
    let raised = [node("Sub", &["x", "six"], "m"), node("Add", &["m", "three"], "raised")];
    let bounded = node("Clip", &["raised", "zero", "six"], "bounded");
    let less = |from: &str| node("Div", &[from, "six"], "less");
    for (rest, curves) in [
        ([node("Mul", &["bounded", "m"], "product"), less("product")], 1),
        ([less("bounded"), node("Mul", &["m", "less"], "less product")], 1),
        ([node("Mul", &["bounded", "sixth"], "less"), node("Mul", &["m", "less"], "product")], 1),
        // Another map than the one that is bounded.
        ([node("Mul", &["x", "bounded"], "product"), less("product")], 0),
    ] {
        let last = rest[1].output[0].clone();
        let mut nodes = [&raised[..], core::slice::from_ref(&bounded), &rest].concat();
        nodes.push(node("ReduceMean", &[&last], "y").ints("axes", &[2, 3]).int("keepdims", 0));
        let model = file(&[1, 3, 2, 2], nodes, constants.clone());
        if curves == 0 {
            refused(&model, "multiplies maps");
            continue;
        }
        let graph = import(&model).unwrap().graph;
        let is_curve = |n: &&Node| matches!(n.op, NodeOp::Activation(Activation::HARD_SWISH));
        assert_eq!(graph.nodes.iter().filter(is_curve).count(), curves);
        let want = |first: usize| {
            let each = (0..4).map(|pixel| (first + 3 * pixel) as f32 - 6.0);
            each.map(|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0).sum::<f32>() / 4.0
        };
        for (have, want) in logits(&model).iter().zip((0..3).map(want)) {
            assert!((have - want).abs() < 1e-5, "{have} {want}");
        }
    }
}

/// Of some channels of a map, which are copied once.
#[test]
fn hard_swish_of_picked_channels() {
    let numbers = [("three", 3.0), ("zero", 0.0), ("six", 6.0), ("eight", 8.0)];
    let constants = numbers.iter().map(|&(name, v)| tensor(name, &[], &[v]));
    let constants: Vec<_> = constants.chain([shape("first", &[1]), shape("end", &[3])]).collect();
    let nodes = vec![
        node("Sub", &["x", "eight"], "m"),
        node("Slice", &["m", "first", "end", "first"], "part"),
        node("Add", &["part", "three"], "raised"),
        node("Clip", &["raised", "zero", "six"], "bounded"),
        node("Mul", &["part", "bounded"], "product"),
        node("Div", &["product", "six"], "less"),
        node("Add", &["less", "part"], "sum"),
        node("ReduceMean", &["sum"], "y").ints("axes", &[2, 3]).int("keepdims", 0),
    ];
    let model = file(&[1, 3, 2, 2], nodes, constants);
    let graph = import(&model).unwrap().graph;
    let is_curve = |n: &&Node| matches!(n.op, NodeOp::Activation(Activation::HARD_SWISH));
    assert_eq!(graph.nodes.iter().filter(is_curve).count(), 1);
    assert_eq!(graph.nodes.iter().filter(|n| matches!(n.op, NodeOp::Conv2d(_))).count(), 1);
    let want = |first: usize| {
        let each = (0..4).map(|pixel| (first + 3 * pixel) as f32 - 8.0);
        each.map(|x| x + x * (x + 3.0).clamp(0.0, 6.0) / 6.0).sum::<f32>() / 4.0
    };
    for (have, want) in logits(&model).iter().zip((1..3).map(want)) {
        assert!((have - want).abs() < 1e-5, "{have} {want}");
    }
}

/// As ShuffleNets mix the channels of their groups.
#[test]
fn channels_are_shuffled() {
    let mut six = [0.0; 18];
    for (o, times) in [1.0, 1.0, 1.0, 10.0, 10.0, 10.0].into_iter().enumerate() {
        six[o * 3 + o % 3] = times;
    }
    let constants = || {
        vec![
            shape("apart", &[1, 2, 3, 1, 2]),
            shape("thirds", &[0, 3, 2, 1, 2]),
            shape("together", &[1, -1, 1, 2]),
            shape("last apart", &[1, 1, 2, 2, 3]),
            shape("last together", &[1, 1, 2, 6]),
            tensor("six", &[6, 3, 1, 1], &six),
        ]
    };
    let reshape = |from: &str, to: &str, output: &str| node("Reshape", &[from, to], output);
    let order = |from: &str, output: &str, perm: &[i64]| {
        node("Transpose", &[from], output).ints("perm", perm)
    };
    let pooled = |mut nodes: Vec<proto::Node>| {
        nodes.insert(0, node("Conv", &["x", "six"], "c"));
        nodes.push(node("GlobalAveragePool", &["s"], "y"));
        file(&[1, 3, 1, 2], nodes, constants())
    };
    let shuffle = |apart: &str| {
        let swap = order("a", "t", &[0, 2, 1, 3, 4]);
        vec![reshape("c", apart, "a"), swap, reshape("t", "together", "s")]
    };
    // The channels have the means 1.5, 2.5, 3.5, 15, 25, 35.
    assert_eq!(logits(&pooled(shuffle("apart"))), [1.5, 15.0, 2.5, 25.0, 3.5, 35.0]);
    assert_eq!(logits(&pooled(shuffle("thirds"))), [1.5, 3.5, 25.0, 2.5, 15.0, 35.0]);
    let last = vec![
        order("c", "n", &[0, 2, 3, 1]),
        reshape("n", "last apart", "a"),
        order("a", "t", &[0, 1, 2, 4, 3]),
        reshape("t", "last together", "m"),
        order("m", "s", &[0, 3, 1, 2]),
    ];
    assert_eq!(logits(&pooled(last)), [1.5, 15.0, 2.5, 25.0, 3.5, 35.0]);
    // Twice, and the second half of it.
    let mut twice = shuffle("apart");
    twice.extend([reshape("s", "thirds", "b"), order("b", "u", &[0, 2, 1, 3, 4])]);
    twice[2].output = vec!["r".into()];
    twice[3].input[0] = "r".into();
    twice.push(reshape("u", "together", "v"));
    let parts = proto::Node { output: vec!["p".into(), "s".into()], ..node("Split", &["v"], "") };
    twice.push(parts.int("axis", 1));
    assert_eq!(logits(&pooled(twice)), [15.0, 25.0, 35.0]);

    let mut other = shuffle("apart");
    other[1] = order("a", "t", &[0, 1, 3, 2, 4]);
    refused(&pooled(other), "node `s` (Reshape): reads channels apart from each other");
    let mut other = shuffle("apart");
    other[1] = node("Relu", &["a"], "t");
    refused(&pooled(other), "node `t` (Relu): operand 0 has channels in groups, [1, 2, 3, 1, 2]");
}

#[test]
fn sums_of_several_maps() {
    for (operands, times) in [(&["x"][..], 1.0), (&["x", "x", "x"], 3.0)] {
        let mean = node("ReduceMean", &["s"], "y").ints("axes", &[2, 3]).int("keepdims", 0);
        let model = file(&[1, 3, 2, 3], vec![node("Sum", operands, "s"), mean], Vec::new());
        assert_eq!(logits(&model), [7.5 * times, 8.5 * times, 9.5 * times]);
    }
}

/// A map whose channels are weighed by what is computed of their means, as in
/// squeeze-and-excitation; in both layouts and orders.
#[test]
fn gates() {
    let squeezed =
        |axes: &[i64]| node("ReduceMean", &["m"], "p").ints("axes", axes).int("keepdims", 1);
    // Pixels 0, 1, 2 and 3, 4, 5: means 1.5, 2.5, 3.5, and negative ones are clamped.
    let constants = |layout: &[i64]| vec![tensor("less", layout, &[2.0, 1.0, 1.0])];
    let gate = |operands: [&str; 2], axes: &[i64]| {
        vec![
            squeezed(axes),
            node("Sub", &["p", "less"], "q"),
            node("Relu", &["q"], "s"),
            node("Mul", &operands, "g"),
            node("ReduceSum", &["g"], "y").ints("axes", axes).int("keepdims", 0),
        ]
    };
    for operands in [["m", "s"], ["s", "m"]] {
        let mut nodes = vec![node("Identity", &["x"], "m")];
        nodes.extend(gate(operands, &[2, 3]));
        let model = file(&[1, 3, 1, 2], nodes, constants(&[1, 3, 1, 1]));
        assert_eq!(logits(&model), [0.0, 7.5, 17.5]);
        let mut nodes = vec![node("Identity", &["x"], "m")];
        nodes.extend(gate(operands, &[1, 2]));
        let model = file(&[1, 1, 2, 3], nodes, constants(&[3]));
        assert_eq!(logits(&model), [0.0, 7.5, 17.5]);
        let graph = import(&model).unwrap().graph;
        // What is written is read again.
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let preprocess = Preprocess::raw(1, 2);
        let bytes = to_onnx(&graph, Format::F32, Form::Qdq, &labels, &preprocess);
        let again = onnx("m.onnx".as_ref(), &bytes, &Hints::default()).unwrap();
        assert_eq!(evaluate(&again.graph, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), [0.0, 7.5, 17.5]);
    }
    // A row is aligned at its end, where the map has columns.
    let nodes = vec![
        node("GlobalAveragePool", &["x"], "p"),
        node("Flatten", &["p"], "s"),
        node("Mul", &["x", "s"], "g"),
        node("GlobalMaxPool", &["g"], "y"),
    ];
    refused(&file(&[1, 3, 2, 3], nodes, vec![]), "only a factor for each channel");
}

/// Every second pixel between channels of zeros, in the forms in which CIFAR's ResNets are written.
#[test]
fn shortcuts_without_parameters() {
    let every_second = || node("Slice", &["r", "starts", "ends", "axes", "steps"], "s");
    let pool =
        || node("AveragePool", &["r"], "s").ints("kernel_shape", &[1, 1]).ints("strides", &[2, 2]);
    let concat = |parts: &[&str]| node("Concat", parts, "d").int("axis", 1);
    let forms = vec![
        vec![every_second(), node("Pad", &["s", "pads"], "d")],
        vec![pool(), node("Pad", &["s", "pads"], "d")],
        vec![every_second(), concat(&["zeros1", "s", "zeros2"])],
        vec![pool(), node("Mul", &["s", "none"], "z"), concat(&["zeros1", "s", "z"])],
        vec![
            every_second(),
            node("Shape", &["s"], "size"),
            node("ConstantOfShape", &["size"], "z"),
            concat(&["zeros1", "s", "z"]),
        ],
    ];
    for mut nodes in forms {
        let names: Vec<String> = nodes.iter().map(|n| n.op_type.clone()).collect();
        nodes.insert(0, node("Relu", &["x"], "r"));
        nodes.push(node("Flatten", &["d"], "row"));
        nodes.push(node("Gemm", &["row", "w"], "y").int("transB", 1));
        // Of channels of 2×2 pixels, the last pixel of the second that is none of zeros; and those.
        let count =
            if names.last().is_some_and(|n| n == "Concat") && names.len() > 2 { 7 } else { 6 };
        let mut weights = vec![0.0; count * 4];
        weights[2 * 4 + 3] = 1.0;
        weights[..4].fill(100.0);
        weights[16..].fill(100.0);
        let constants = vec![
            shape("starts", &[0, 0]),
            shape("ends", &[i64::MAX; 2]),
            shape("axes", &[2, 3]),
            shape("steps", &[2, 2]),
            shape("pads", &[0, 1, 0, 0, 0, 2, 0, 0]),
            tensor("none", &[], &[0.0]),
            tensor("zeros1", &[1, 1, 2, 2], &[0.0; 4]),
            tensor("zeros2", &[1, 2, 2, 2], &[0.0; 8]),
            tensor("w", &[1, weights.len() as i64], &weights),
        ];
        let model = file(&[1, 3, 3, 3], nodes, constants);
        // Pixel (2, 2), channel 1.
        assert_eq!(score(&model), 25.0, "{names:?}");
    }
    // One convolution instead of all that, where pixels are only picked.
    let nodes = vec![
        node("Relu", &["x"], "r"),
        every_second(),
        node("Pad", &["s", "pads"], "d"),
        node("GlobalMaxPool", &["d"], "y"),
    ];
    let constants = vec![
        shape("starts", &[0, 0]),
        shape("ends", &[i64::MAX; 2]),
        shape("axes", &[2, 3]),
        shape("steps", &[2, 2]),
        shape("pads", &[0, 1, 0, 0, 0, 2, 0, 0]),
    ];
    let mut graph = import(&file(&[1, 3, 3, 3], nodes, constants)).unwrap().graph;
    convert::optimize::optimize(&mut graph);
    let strides: Vec<[u16; 2]> = (graph.nodes.iter())
        .filter_map(|n| match &n.op {
            NodeOp::Conv2d(conv) => Some(conv.stride),
            _ => None,
        })
        .collect();
    assert_eq!(strides, [[2, 2]]);
    let zeros = evaluate(&graph, &[-1.0; 27]);
    assert_eq!(zeros, [0.0; 6]);
}

/// Red and blue change places inside of the network, in every way that is met.
#[test]
fn channels_in_another_order() {
    let forms: Vec<Vec<proto::Node>> = vec![
        vec![node("Gather", &["t", "reversed"], "r").int("axis", 1)],
        vec![node("Slice", &["t", "last", "least", "one", "last"], "r")],
        vec![
            proto::Node {
                output: vec!["b".into(), "g".into(), "a".into()],
                ..node("Split", &["t"], "").int("axis", 1)
            },
            node("Concat", &["a", "g", "b"], "r").int("axis", 1),
        ],
        // Each channel by itself, and joined again.
        vec![
            node("Gather", &["t", "second"], "g0").int("axis", 1),
            node("Unsqueeze", &["g0"], "g").ints("axes", &[1]),
            node("Slice", &["t", "two", "three", "one"], "a"),
            node("Slice", &["t", "zero", "one", "one"], "b"),
            node("Concat", &["a", "g", "b"], "r").int("axis", 1),
        ],
    ];
    let constants = || {
        vec![
            shape("reversed", &[2, 1, 0]),
            shape("last", &[-1]),
            shape("least", &[i64::MIN + 1]),
            shape("zero", &[0]),
            shape("one", &[1]),
            shape("two", &[2]),
            shape("three", &[3]),
            scalar("second", 1),
            tensor("mean", &[3, 1, 1], &[10.0, 20.0, 30.0]),
            tensor("w", &[2, 3, 1, 1], &[1.0, 0.0, 0.0, 1.0, 2.0, 4.0]),
        ]
    };
    for nhwc in [false, true] {
        for form in &forms {
            let names: Vec<String> = form.iter().map(|n| n.op_type.clone()).collect();
            let first = if nhwc {
                node("Transpose", &["x"], "t").ints("perm", &[0, 3, 1, 2])
            } else {
                node("Identity", &["x"], "t")
            };
            let mut nodes = vec![first];
            nodes.extend(form.iter().cloned());
            nodes.push(node("Sub", &["r", "mean"], "s"));
            nodes.push(node("Conv", &["s", "w"], "c"));
            nodes.push(node("GlobalMaxPool", &["c"], "y"));
            let dims = if nhwc { [1, 1, 1, 3] } else { [1, 3, 1, 1] };
            let graph = import(&file(&dims, nodes, constants())).unwrap().graph;
            // Blue 7 − 10, green 5 − 20, red 3 − 30.
            assert_eq!(evaluate(&graph, &[3.0, 5.0, 7.0]), [-3.0, -141.0], "{names:?}");
            assert!(graph.nodes.len() <= 4, "{names:?}");
        }
    }
    // Each channel is normalized by itself.
    let mut nodes = Vec::new();
    for (i, from, to) in [("0", "zero", "one"), ("1", "one", "two"), ("2", "two", "three")] {
        nodes.push(node("Slice", &["x", from, to, "one"], &format!("a{i}")));
        nodes.push(node("Mul", &[&format!("a{i}"), &format!("f{i}")], &format!("b{i}")));
    }
    nodes.push(node("Concat", &["b2", "b1", "b0"], "r").int("axis", 1));
    nodes.push(node("Conv", &["r", "w"], "c"));
    nodes.push(node("GlobalMaxPool", &["c"], "y"));
    let mut numbers = constants();
    numbers.extend(["f0", "f1", "f2"].map(|f| tensor(f, &[], &[f.as_bytes()[1].into()])));
    let graph = import(&file(&[1, 3, 1, 1], nodes, numbers)).unwrap().graph;
    // 7·50, 5·49 and 3·48.
    assert_eq!(evaluate(&graph, &[3.0, 5.0, 7.0]), [350.0, 350.0 + 490.0 + 576.0]);
}

/// A network that takes BGR takes RGB with `--channels bgr`.
#[test]
fn colors_are_turned_around_at_the_input() {
    let nodes = vec![
        node("Sub", &["x", "mean"], "s"),
        node("Conv", &["s", "w"], "c"),
        node("GlobalMaxPool", &["c"], "y"),
    ];
    let constants = vec![
        tensor("mean", &[3, 1, 1], &[10.0, 20.0, 30.0]),
        tensor("w", &[1, 3, 1, 1], &[1.0, 2.0, 4.0]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, file(&[1, 3, 1, 1], nodes, constants).encode_to_vec()).unwrap();
    let read = |channels| {
        let hints = Hints { channels, ..Hints::default() };
        crate::open_any(&path, crate::Head::Required, &hints).unwrap()
    };
    let score = |channels, picture: &[f32]| {
        evaluate(&read(channels).to_float_model().unwrap().graph, picture)
    };
    assert_eq!(score(None, &[7.0, 5.0, 3.0]), [-3.0 - 30.0 - 108.0]);
    assert_eq!(score(Some(Channels::Bgr), &[3.0, 5.0, 7.0]), [-3.0 - 30.0 - 108.0]);
}

/// What is normalized inside tells what comes in.
#[test]
fn networks_that_normalize_themselves() {
    let taken = |element: i32, before: Vec<proto::Node>| {
        let mut nodes = before;
        nodes.push(node("Conv", &["n", "w"], "c"));
        nodes.push(node("GlobalMaxPool", &["c"], "y"));
        let constants = vec![
            tensor("caffe", &[3, 1, 1], &[103.939, 116.779, 123.68]),
            tensor("255", &[], &[255.0]),
            tensor("127.5", &[], &[127.5]),
            tensor("one", &[], &[1.0]),
            tensor("two", &[], &[2.0]),
            tensor("half", &[3, 1, 1], &[0.485, 0.456, 0.406]),
            tensor("quarter", &[3, 1, 1], &[0.229, 0.224, 0.225]),
            tensor("w", &[1, 3, 1, 1], &[1.0; 3]),
        ];
        let mut model = file(&[1, 3, 2, 2], nodes, constants);
        let info = &mut model.graph.as_mut().unwrap().input[0];
        info.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = Some(element);
        let model = import(&model).unwrap();
        (!model.is_preprocess_assumed).then_some(model.preprocess)
    };
    let (raw, unit) =
        (Some(Preprocess::raw(2, 2)), Some(Preprocess::normalized(2, 2, [0.0; 3], [1.0; 3])));
    let two = |a: proto::Node, b: proto::Node| vec![a, b];
    let float = proto::FLOAT;
    assert_eq!(taken(float, vec![node("Sub", &["x", "caffe"], "n")]), raw);
    assert_eq!(taken(float, vec![node("Div", &["x", "255"], "n")]), raw);
    assert_eq!(
        taken(float, two(node("Div", &["x", "127.5"], "a"), node("Sub", &["a", "one"], "n"))),
        raw
    );
    assert_eq!(
        taken(float, two(node("Sub", &["x", "half"], "a"), node("Div", &["a", "quarter"], "n"))),
        unit
    );
    assert_eq!(
        taken(float, two(node("Mul", &["x", "two"], "a"), node("Sub", &["a", "one"], "n"))),
        unit
    );
    assert_eq!(taken(proto::UINT8, vec![node("Cast", &["x"], "n").int("to", 1)]), raw);
    // Nothing is said.
    assert_eq!(taken(float, vec![node("Relu", &["x"], "n")]), None);
    assert_eq!(taken(float, vec![node("Identity", &["x"], "n")]), None);
}

/// A picture alone, without a dimension that counts pictures.
#[test]
fn a_picture_without_its_dimension() {
    let nodes = vec![
        node("Unsqueeze", &["x"], "u").ints("axes", &[0]),
        node("Transpose", &["u"], "t").ints("perm", &[0, 3, 1, 2]),
        node("GlobalMaxPool", &["t"], "y"),
    ];
    assert_eq!(logits(&file(&[2, 2, 3], nodes, vec![])), [9.0, 10.0, 11.0]);
}

/// The scores are found among other outputs, whatever their order.
#[test]
fn several_outputs() {
    let nodes = || {
        vec![
            node("Conv", &["x", "c"], "features"),
            node("GlobalMaxPool", &["features"], "pooled"),
            node("Flatten", &["pooled"], "embedding"),
            node("Gemm", &["embedding", "w"], "scores").int("transB", 1),
            node("Softmax", &["scores"], "probabilities"),
            node("ArgMax", &["scores"], "best"),
            node("Gemm", &["embedding", "v"], "other").int("transB", 1),
            node("Gemm", &["embedding", "v"], "more").int("transB", 1),
            node("LpNormalization", &["embedding"], "normalized"),
        ]
    };
    let read = |outputs: &[&str], wanted: Option<&str>| {
        let constants = vec![
            tensor("c", &[3, 3, 1, 1], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
            tensor("w", &[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            tensor("v", &[1, 3], &[1.0; 3]),
        ];
        let mut model = file(&[1, 3, 1, 1], nodes(), constants);
        let graph = model.graph.as_mut().unwrap();
        let info = |name: &&str| {
            let dims: &[i64] = if *name == "features" { &[1, 3, 1, 1] } else { &[] };
            let element = if *name == "best" { proto::INT64 } else { proto::FLOAT };
            proto::ValueInfo { r#type: None, ..proto::ValueInfo::tensor(name, element, dims) }
        };
        graph.output = outputs.iter().map(info).collect();
        let hints = Hints { output_node: wanted.map(Into::into), ..Hints::default() };
        onnx("m.onnx".as_ref(), &model.encode_to_vec(), &hints).map_err(|e| e.to_string())
    };
    for outputs in [
        &["scores"][..],
        &["scores", "embedding"],
        &["embedding", "scores"],
        &["features", "embedding", "scores"],
        &["scores", "probabilities"],
        &["probabilities", "scores"],
        &["best", "scores"],
        &["scores", "best", "features"],
        &["normalized", "scores"],
    ] {
        let model = read(outputs, None).unwrap();
        assert_eq!(evaluate(&model.graph, &[1.0, 2.0, 3.0]), [1.0, 2.0], "{outputs:?}");
        let said = model.notes.iter().any(|n| n.contains("of several outputs"));
        assert_eq!(said, outputs.len() > 1, "{outputs:?}");
    }
    let error = read(&["other", "more"], None).unwrap_err();
    assert!(error.contains("`other`") && error.contains("--output-node"), "{error}");
    let other = read(&["other", "more"], Some("other")).unwrap();
    assert_eq!(evaluate(&other.graph, &[1.0, 2.0, 3.0]), [6.0]);
    let error = read(&["other", "scores"], Some("none")).unwrap_err();
    assert!(error.contains("no output `none`; there are `other`, `scores`"), "{error}");
    let error = read(&["other", "scores"], Some("Score")).unwrap_err();
    assert!(error.contains("no output `Score` (did you mean scores?); there are"), "{error}");
}

/// Where a condition is known, its branch is taken.
#[test]
fn branches_with_known_conditions() {
    let branch = |op: proto::Node| {
        let output = op.output[0].clone();
        proto::Graph {
            node: vec![op],
            output: vec![proto::ValueInfo { name: output, r#type: None }],
            ..Default::default()
        }
    };
    let nodes = |condition: &str| {
        let mut choice = node("If", &[condition], "row");
        choice = with_graph(
            choice,
            "then_branch",
            branch(node("Squeeze", &["p"], "a").ints("axes", &[2, 3])),
        );
        choice = with_graph(choice, "else_branch", branch(node("Relu", &["nowhere"], "b")));
        vec![
            node("GlobalMaxPool", &["x"], "p"),
            node("Shape", &["p"], "s"),
            node("Gather", &["s", "last"], "n").int("axis", 0),
            node("Equal", &["n", "one"], "is"),
            choice,
            node("Gemm", &["row", "w"], "y").int("transB", 1),
        ]
    };
    let constants =
        || vec![scalar("last", 3), scalar("one", 1), tensor("w", &[1, 3], &[1.0, 10.0, 100.0])];
    assert_eq!(score(&file(&[1, 3, 1, 2], nodes("is"), constants())), 543.0);
    refused(
        &file(&[1, 3, 1, 2], nodes("p"), constants()),
        "a condition that depends on the picture",
    );
}

/// Pooled maps side by side before a dense layer, as fastai's heads have them.
#[test]
fn pooled_maps_side_by_side() {
    let nodes = vec![
        node("GlobalMaxPool", &["x"], "a"),
        node("GlobalAveragePool", &["x"], "b"),
        node("Concat", &["a", "b"], "c").int("axis", 1),
        node("Flatten", &["c"], "row"),
        node("Gemm", &["row", "w"], "y").int("transB", 1),
    ];
    let w = tensor("w", &[1, 6], &[1.0, 0.0, 0.0, 0.0, 0.0, 10.0]);
    // The largest number of channel 0, and the mean of channel 2.
    assert_eq!(score(&file(&[1, 3, 1, 2], nodes, vec![w])), 3.0 + 35.0);
    let nodes = vec![
        node("Conv", &["x", "w"], "a"),
        node("Relu", &["a"], "b"),
        node("Concat", &["a", "b"], "c").int("axis", 1),
        node("GlobalMaxPool", &["c"], "y"),
    ];
    let w = tensor("w", &[20, 3, 1, 1], &[1.0; 60]);
    refused(&file(&[1, 3, 1, 2], nodes, vec![w]), "node `c` (Concat): joins maps side by side");
}
