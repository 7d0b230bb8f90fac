//! Convolutions and pools at borders.

use super::*;

/// As tf2onnx writes Keras' ZeroPadding2D before a convolution and before a pool.
#[test]
fn borders_join_the_window_that_reads_them() {
    let ones = tensor("w", &[1, 3, 3, 3], &[1.0; 27]);
    let nodes = vec![
        node("Transpose", &["x"], "t").ints("perm", &[0, 3, 1, 2]),
        node("Pad", &["t", "pads"], "padded"),
        node("Conv", &["padded", "w"], "c").ints("strides", &[2, 2]),
        node("Relu", &["c"], "r"),
        node("Pad", &["r", "pads"], "padded2"),
        node("MaxPool", &["padded2"], "m").ints("kernel_shape", &[3, 3]),
        node("ReduceMean", &["m"], "y").ints("axes", &[2, 3]),
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

/// Channels that a file picks have to be copied before they are weighed; their border stays.
#[test]
fn borders_around_picked_channels() {
    let nodes = vec![
        node("Slice", &["x", "one", "three", "one"], "part"),
        node("Pad", &["part", "pads"], "padded"),
        node("Conv", &["padded", "w"], "c"),
        node("ReduceSum", &["c"], "y").ints("axes", &[2, 3]).int("keepdims", 0),
    ];
    let constants = vec![
        shape("one", &[1]),
        shape("three", &[3]),
        shape("pads", &[0, 0, 1, 0, 0, 0, 1, 1]),
        tensor("w", &[1, 2, 3, 2], &[1.0; 12]),
    ];
    // Rows and columns that 3×2 windows see of 2×2 pixels with a border: both rows twice, columns
    // once and twice.
    let value = |y: usize, x: usize, c: usize| ((y * 2 + x) * 3 + c) as f32;
    let sum: f32 = (0..2)
        .flat_map(|y| {
            (0..2).flat_map(move |x| [1, 2].map(|c| value(y, x, c) * (1 + x) as f32 * 2.0))
        })
        .sum();
    assert_eq!(logits(&file(&[1, 3, 2, 2], nodes, constants)), [sum]);
}

/// A dilated filter is one with zeros between its taps.
#[test]
fn dilated_filters() {
    let weights: Vec<f32> = (0..54).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    for (dilations, groups) in [([2, 2], 1), ([1, 3], 1), ([4, 2], 1), ([2, 2], 3), ([2, 4], 3)] {
        let (c_out, c_in) = if groups == 1 { (2, 3) } else { (6, 1) };
        let [h, w] = dilations.map(|d| 2 * d + 1);
        let mut wide = vec![0.0; (c_out * c_in * h * w) as usize];
        for (i, weight) in weights.iter().enumerate() {
            let (filter, y, x) = (i as i64 / 9, i as i64 / 3 % 3, i as i64 % 3);
            wide[((filter * h + y * dilations[0]) * w + x * dilations[1]) as usize] = *weight;
        }
        let pads = [dilations[0], 1, 1, dilations[1]];
        let scores = |dilations: &[i64], weights: proto::Tensor, same: bool| {
            let mut conv = node("Conv", &["x", "w"], "c").int("group", groups);
            conv = conv.ints("dilations", dilations).ints("strides", &[1, 2]);
            conv = match same {
                true => with_text(conv, "auto_pad", "SAME_UPPER"),
                false => conv.ints("pads", &pads),
            };
            let most = node("ReduceMax", &["c"], "y").ints("axes", &[2, 3]).int("keepdims", 0);
            logits(&file(&[1, 3, 9, 9], vec![conv, most], vec![weights]))
        };
        for same in [false, true] {
            let narrow = tensor("w", &[c_out, c_in, 3, 3], &weights);
            let want = scores(&[1, 1], tensor("w", &[c_out, c_in, h, w], &wide), same);
            assert_eq!(scores(&dilations, narrow, same), want, "{dilations:?} of {groups}");
            assert!(want.iter().any(|score| *score != want[0]));
        }
    }
    let filter = |dilations: &[i64]| {
        let conv = node("Conv", &["x", "w"], "c").ints("dilations", dilations);
        let nodes = vec![conv, node("GlobalMaxPool", &["c"], "y")];
        file(&[1, 3, 19, 19], nodes, vec![tensor("w", &[2, 3, 3, 3], &weights)])
    };
    for dilations in [[5, 5], [1, i64::MAX], [0, 1], [1, -1]] {
        refused(&filter(&dilations), "(Conv): a filter of [3, 3] dilated by");
    }
    refused(&filter(&[5, 5]), "an output stride of 32");
    refused(&filter(&[2]), "dilations [2], but two numbers are wanted");
    let pool =
        node("MaxPool", &["x"], "y").ints("kernel_shape", &[2, 2]).ints("dilations", &[2, 2]);
    refused(&file(&[1, 3, 3, 3], vec![pool], vec![]), "dilated pools are not read");
}

/// Zeros that a pool sees: around a map with negative numbers, and in means that count them.
#[test]
fn pools_see_zeros() {
    // Channel 0 of a 3×4 map is −1, −2, … −12, the others are zero.
    let minus = tensor("w", &[3, 3, 1, 1], &[-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let one = tensor("one", &[3, 1, 1], &[-1.0, 0.0, 0.0]);
    let third = tensor("third", &[1], &[1.0 / 3.0]);
    let windows = |node: proto::Node| node.ints("kernel_shape", &[2, 3]);
    let strided = |node: proto::Node| windows(node).ints("strides", &[2, 2]);
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
        nodes.push(node("Gemm", &["row", "g"], "y").int("transB", 1));
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
    let own = mean("a").int("count_include_pad", 1).ints("pads", &[1, 1, 0, 0]);
    near(all(own, &[0; 4], 4), &counted);
}

#[test]
fn windows_at_the_border() {
    // Of a 1×5 map, channel 0 of the last column of what windows of two see.
    let row = |op: proto::Node| {
        let gemm = node("Gemm", &["row", "w"], "y").int("transB", 1);
        vec![op, node("Flatten", &["p"], "row"), gemm]
    };
    let pool =
        |kind: &str| node(kind, &["x"], "p").ints("kernel_shape", &[1, 2]).ints("strides", &[1, 2]);
    for (op, columns, last) in [
        (pool("MaxPool"), 2, 3.0),
        (pool("MaxPool").int("ceil_mode", 1), 3, 4.0),
        (pool("AveragePool").int("ceil_mode", 1), 3, 4.0),
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

/// By the definition, of a map of one channel whose pixels are numbered.
fn means(
    len: [i64; 2],
    filter: [i64; 2],
    stride: [i64; 2],
    pads: [i64; 4],
    ceil: bool,
    counts: bool,
) -> Vec<f32> {
    let sizes: Vec<i64> = (0..2)
        .map(|i| {
            let padded = len[i] + pads[i] + pads[i + 2];
            let rest = padded - filter[i];
            let mut n =
                if ceil { (rest + stride[i] - 1) / stride[i] } else { rest / stride[i] } + 1;
            if ceil && (n - 1) * stride[i] >= len[i] + pads[i] {
                n -= 1;
            }
            n
        })
        .collect();
    let mut out = Vec::new();
    for y in 0..sizes[0] {
        for x in 0..sizes[1] {
            let (top, left) = (y * stride[0] - pads[0], x * stride[1] - pads[1]);
            let (mut sum, mut real, mut padded) = (0.0, 0, 0);
            for row in top..top + filter[0] {
                for column in left..left + filter[1] {
                    if row < len[0] + pads[2] && column < len[1] + pads[3] {
                        padded += 1;
                    }
                    if (0..len[0]).contains(&row) && (0..len[1]).contains(&column) {
                        real += 1;
                        sum += (row * len[1] + column) as f32;
                    }
                }
            }
            out.push(sum / if counts { padded } else { real } as f32);
        }
    }
    out
}

/// A mean is over the cells of the padded map where borders count, never over those that only
/// `ceil_mode` adds: PyTorch's and onnxruntime's rule, and ONNX's from version 19 on.
#[test]
fn average_pools_divide_by_cells_of_the_padded_map() {
    let mut seen = 0;
    for (len, filter, stride, pads) in [
        ([5, 5], [2, 2], [2, 2], [0; 4]),
        ([6, 6], [3, 3], [2, 2], [1; 4]),
        ([7, 4], [3, 2], [3, 2], [1, 0, 1, 1]),
        ([4, 9], [2, 4], [3, 3], [0, 1, 1, 2]),
        ([5, 6], [3, 3], [4, 3], [2, 0, 0, 2]),
        ([4, 4], [4, 3], [3, 2], [0, 1, 3, 0]),
    ] {
        for (ceil, counts) in [(false, false), (false, true), (true, false), (true, true)] {
            let want = means(len, filter, stride, pads, ceil, counts);
            let mut pool = node("AveragePool", &["one"], "p").ints("kernel_shape", &filter);
            pool = pool.ints("strides", &stride).ints("pads", &pads);
            pool = pool.int("ceil_mode", ceil.into());
            pool = pool.int("count_include_pad", counts.into());
            // Channel 0 of the picture is three times the pixel's number.
            let nodes = vec![
                node("Mul", &["x", "third"], "one"),
                pool,
                node("Flatten", &["p"], "row"),
                node("Gemm", &["row", "w"], "y").int("transB", 1),
            ];
            let n = want.len();
            let mut weights = vec![0.0; n * 3 * n];
            for i in 0..n {
                weights[i * 3 * n + i] = 1.0;
            }
            let constants = vec![
                tensor("third", &[1], &[1.0 / 3.0]),
                tensor("w", &[n as i64, 3 * n as i64], &weights),
            ];
            let have = logits(&file(&[1, 3, len[0], len[1]], nodes, constants));
            for (a, b) in have.iter().zip(&want) {
                assert!(
                    (a - b).abs() < 1e-4,
                    "{len:?} {filter:?} {pads:?} {ceil} {counts}: {a}, not {b}"
                );
            }
            seen += usize::from(have.len() == n);
        }
    }
    assert_eq!(seen, 24);
}

/// As PyTorch's older exporter computes the borders of `ZeroPad2d((0, 1, 0, 1))`.
#[test]
fn borders_are_computed() {
    let mut zeros = node("ConstantOfShape", &["four"], "zeros");
    let value = Some(shape("", &[0]));
    zeros.attribute.push(proto::Attribute { name: "value".into(), t: value, ..Default::default() });
    let nodes = vec![
        zeros,
        node("Concat", &["sides", "zeros"], "all").int("axis", 0),
        node("Reshape", &["all", "pairs"], "table"),
        node("Slice", &["table", "last", "least", "first", "last"], "turned"),
        node("Transpose", &["turned"], "columns").ints("perm", &[1, 0]),
        node("Reshape", &["columns", "last"], "flat"),
        node("Cast", &["flat"], "pads").int("to", proto::INT64.into()),
        node("Pad", &["x", "pads"], "padded"),
        node("Conv", &["padded", "w"], "c"),
        node("GlobalMaxPool", &["c"], "y"),
    ];
    let constants = vec![
        shape("four", &[4]),
        shape("sides", &[0, 1, 0, 1]),
        shape("pairs", &[-1, 2]),
        shape("last", &[-1]),
        shape("first", &[0]),
        shape("least", &[i64::MIN + 1]),
        tensor("w", &[1, 3, 2, 2], &[1.0; 12]),
    ];
    let model = file(&[1, 3, 2, 2], nodes, constants);
    let graph = import(&model).unwrap().graph;
    let NodeOp::Conv2d(conv) = &graph.nodes[1].op else { panic!("a convolution") };
    assert_eq!(conv.padding, Padding { top: 0, left: 0, bottom: 1, right: 1 });
    // The whole picture at once is the most: 0 to 11.
    assert_eq!(score(&model), 66.0);
}
