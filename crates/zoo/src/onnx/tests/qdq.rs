//! Quantized models: floats between operators that quantize, and those that take it back.

use super::*;
use network::activation::Activation;

fn convolution(graph: &Graph, at: usize) -> &network::graph::Conv {
    match &graph.nodes[at].op {
        NodeOp::Conv2d(conv) => conv,
        _ => panic!("a convolution"),
    }
}

/// Logits of a device file.
fn predict(edge: &[u8], input: &[f32]) -> Vec<f32> {
    let file = runtime::AlignedBuf::from_slice(edge);
    let model = runtime::Model::new(&file).unwrap();
    let mut arena = runtime::AlignedBuf::zeroed(model.arena_len());
    let mut session = runtime::Session::new(&model, &mut arena).unwrap();
    convert::quantize::set_input(&mut session, input);
    session.run().iter().collect()
}

/// As onnxruntime writes a quantized model: integers and their scales stay what they are.
#[test]
fn quantized_models_keep_their_numbers() {
    // Three outputs of 1×1 filters, each with a scale of its own; the ReLU is in the zero point.
    let weights = [100, -50, 7, 1, 2, 3, -127, 127, 0];
    let nodes = vec![
        node("QuantizeLinear", &["x", "xs", "xz"], "xq"),
        node("DequantizeLinear", &["xq", "xs", "xz"], "xd"),
        node("DequantizeLinear", &["w", "ws", "wz"], "wd").int("axis", 0),
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

    // Pixels of 8, 4 and 2 as stored numbers 16, 8, 4: sums 1228, 44, −1016 in steps of 0.125,
    // 0.5 and 0.0625, that is 153.5, 22 and less than nothing, in steps of 2.
    let pixels = [8.0, 4.0, 2.0].repeat(4);
    assert_eq!(predict(&converted.emitted.bytes, &pixels), [154.0, 22.0, 0.0]);
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
        node("Cast", &["q"], "c").int("to", proto::UINT8.into()),
        node("ConstantOfShape", &["none"], "zeros"),
        node("Cast", &["zeros"], "zero").int("to", proto::UINT8.into()),
        node("DequantizeLinear", &["c", "s", "zero"], "d"),
        node("GlobalMaxPool", &["d"], "y"),
    ];
    let constants =
        vec![tensor("s", &[], &[0.5]), bytes("z", &[], proto::UINT8, &[0]), shape("none", &[])];
    let graph = import(&file(&[1, 3, 2, 2], nodes, constants)).unwrap().graph;
    assert_eq!(graph.nodes[0].quant, Some(artifact::Quant { scale: 0.5, zero_point: -128 }));
    let nodes = vec![
        node("Cast", &["x"], "c").int("to", proto::UINT8.into()),
        node("GlobalMaxPool", &["c"], "y"),
    ];
    refused(&file(&[1, 3, 2, 2], nodes, vec![]), "(Cast): casts to integers");
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
    // Of each output, where its own weights are near enough to the zero point.
    for (zero, scales) in [(128, [0.5, 0.5]), (100, [0.0, 0.5]), (0, [0.0, 0.5])] {
        let graph = model(zero);
        let conv = convolution(&graph, 1);
        let weights = [0, 128, 255, 100, 101, 99].map(|q| (q - zero) as f32 * 0.5);
        assert_eq!((&conv.weights[..], &conv.weight_scales[..]), (&weights[..], &scales[..]));
        let quants = [artifact::Quant { scale: 1.0, zero_point: 0 }; 3];
        let int8 = convert::int8::int8_weights_of(&graph, 1, conv, &quants);
        let row = |o: usize| weights[o * 3..][..3].iter().fold(0.0f32, |m, w| m.max(w.abs()));
        for (i, (w, q)) in weights.iter().zip(&int8.values).enumerate() {
            let error = (w - f32::from(*q) * int8.scales[i / 3]).abs();
            assert!(error <= row(i / 3) / 127.0, "{w} as {q} of {:?}", int8.scales);
        }
    }
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
        refused(&file(&[1, 3, 4, 4], nodes, constants), &what);
    }
    // Quantized while it runs.
    let mut nodes = vec![node("DynamicQuantizeLinear", &["x"], "q")];
    nodes.push(node("GlobalMaxPool", &["q"], "y"));
    refused(&file(&[1, 3, 4, 4], nodes, vec![]), "take the model in floats, or quantize_static");
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
        // 7.3 is rounded to 7 where it is stored.
        Ok::<_, convert::pipeline::ConvertError>((
            have,
            predict(&converted.emitted.bytes, &[7.3; 12]),
        ))
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
