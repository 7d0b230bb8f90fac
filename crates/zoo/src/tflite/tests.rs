use super::*;
use artifact::Preprocess;
use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, WIPOffset};
use network::activation::Activation;
use network::evaluate::evaluate;

type Offset = WIPOffset<TableFinishedWIPOffset>;
type Builder = FlatBufferBuilder<'static>;

const FLOAT32: i8 = 0;
const INT32: i8 = 2;
const UINT8: i8 = 3;
const INT16: i8 = 7;
const INT8: i8 = 9;

const CONV_2D: i8 = 3;
const DEQUANTIZE: i8 = 6;
const FULLY_CONNECTED: i8 = 9;
const RELU6: i8 = 21;
const RESHAPE: i8 = 22;
const SOFTMAX: i8 = 25;
const PAD: i8 = 34;
const STRIDED_SLICE: i8 = 45;
const MEAN: i8 = 40;
const QUANTIZE: i8 = 114;

/// A `Tensor`.
#[derive(Clone)]
struct Value {
    shape: Vec<i32>,
    tensor_type: i8,
    data: Vec<u8>,
    /// Scale and zero point.
    quant: Option<(f32, i64)>,
}

fn value(shape: &[i32], tensor_type: i8, quant: Option<(f32, i64)>) -> Value {
    Value { shape: shape.into(), tensor_type, data: Vec::new(), quant }
}

fn ints(values: &[i32]) -> Value {
    let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Value { data, ..value(&[values.len() as i32], INT32, None) }
}

/// A table with these fields, by their numbers.
fn table(builder: &mut Builder, fields: impl FnOnce(&mut Builder)) -> Offset {
    let start = builder.start_table();
    fields(builder);
    builder.end_table(start)
}

/// Where field `number` stands in the list of fields.
const fn slot(number: u16) -> u16 {
    4 + 2 * number
}

/// A file; the first tensor is the input, the last one the output. Layers are operators with their
/// operands and results.
fn file(values: &[Value], layers: &[(i8, &[i32], &[i32])]) -> Vec<u8> {
    file_of(values, layers, &[values.len() as i32 - 1])
}

/// The same with outputs of choice.
fn file_of(values: &[Value], layers: &[(i8, &[i32], &[i32])], outputs: &[i32]) -> Vec<u8> {
    let b = &mut FlatBufferBuilder::new();
    let mut buffers = vec![table(b, |_| ())];
    let mut tensors = Vec::new();
    for value in values {
        let mut buffer = 0u32;
        if !value.data.is_empty() {
            let data = b.create_vector(&value.data);
            buffer = buffers.len() as u32;
            buffers.push(table(b, |b| b.push_slot_always(slot(0), data)));
        }
        let shape = b.create_vector(&value.shape);
        let name = b.create_string("value");
        let quant = value.quant.map(|(scale, zero)| {
            let (scale, zero) = (b.create_vector(&[scale]), b.create_vector(&[zero]));
            table(b, |b| {
                b.push_slot_always(slot(2), scale);
                b.push_slot_always(slot(3), zero);
            })
        });
        tensors.push(table(b, |b| {
            b.push_slot_always(slot(0), shape);
            b.push_slot_always(slot(1), value.tensor_type);
            b.push_slot_always(slot(2), buffer);
            b.push_slot_always(slot(3), name);
            if let Some(quant) = quant {
                b.push_slot_always(slot(4), quant);
            }
        }));
    }
    let (mut codes, mut operators) = (Vec::new(), Vec::new());
    for (i, (operator, inputs, outputs)) in layers.iter().enumerate() {
        codes.push(table(b, |b| b.push_slot_always(slot(0), *operator)));
        let (inputs, outputs) = (b.create_vector(inputs), b.create_vector(outputs));
        operators.push(table(b, |b| {
            b.push_slot_always(slot(0), i as u32);
            b.push_slot_always(slot(1), inputs);
            b.push_slot_always(slot(2), outputs);
        }));
    }
    let (tensors, operators) = (b.create_vector(&tensors), b.create_vector(&operators));
    let (inputs, outputs) = (b.create_vector(&[0i32]), b.create_vector(outputs));
    let graph = table(b, |b| {
        b.push_slot_always(slot(0), tensors);
        b.push_slot_always(slot(1), inputs);
        b.push_slot_always(slot(2), outputs);
        b.push_slot_always(slot(3), operators);
    });
    let (codes, graphs, buffers) =
        (b.create_vector(&codes), b.create_vector(&[graph]), b.create_vector(&buffers));
    let root = table(b, |b| {
        b.push_slot_always(slot(0), 3u32);
        b.push_slot_always(slot(1), codes);
        b.push_slot_always(slot(2), graphs);
        b.push_slot_always(slot(4), buffers);
    });
    b.finish(root, Some("TFL3"));
    b.finished_data().to_vec()
}

fn import(bytes: &[u8]) -> Result<FloatModel, String> {
    tflite("m.tflite".as_ref(), bytes, &Hints::default()).map_err(|e| e.to_string())
}

/// As the converter writes int8 with ends of all three kinds: what is before and behind the int8
/// network only changes its numbers' format.
#[test]
fn softmax_between_ends_of_any_format_is_read() {
    let bytes = Some((1.0 / 255.0, -128));
    let probabilities = Some((1.0 / 256.0, -128));
    let inner = |input: Value, output: Value| {
        vec![
            input,
            value(&[1, 2, 2, 3], INT8, bytes),
            ints(&[1, 2]),
            value(&[1, 3], INT8, Some((0.5 / 255.0, -128))),
            value(&[1, 3], INT8, probabilities),
            output,
        ]
    };
    let [picture, scores] = [&[1, 2, 2, 3][..], &[1, 3]];
    for (input, output, first, last) in [
        (value(picture, FLOAT32, None), value(scores, FLOAT32, None), QUANTIZE, DEQUANTIZE),
        (
            value(picture, UINT8, Some((1.0 / 255.0, 0))),
            value(scores, UINT8, Some((1.0 / 256.0, 0))),
            QUANTIZE,
            QUANTIZE,
        ),
        (value(picture, INT8, bytes), value(scores, INT8, probabilities), QUANTIZE, QUANTIZE),
    ] {
        let layers: [(i8, &[i32], &[i32]); 4] =
            [(first, &[0], &[1]), (MEAN, &[1, 2], &[3]), (SOFTMAX, &[3], &[4]), (last, &[4], &[5])];
        let model = import(&file(&inner(input, output), &layers)).unwrap();
        // Zero to one is what the first scale holds.
        let prepared = Preprocess::normalized(2, 2, [0.0; 3], [1.0; 3]);
        assert_eq!((model.preprocess, model.is_preprocess_assumed), (prepared, false));
        let quants: Vec<_> = model.graph.nodes.iter().map(|n| n.quant.map(|q| q.scale)).collect();
        assert_eq!(quants, [Some(1.0 / 255.0), Some(0.5 / 255.0)]);
        let input = [0.0, 0.5, 1.0].repeat(4);
        assert_eq!(evaluate(&model.graph, &input), [0.0, 0.5, 1.0]);
    }
}

/// As old converters write weights: bytes around a zero point.
#[test]
fn weights_of_unsigned_bytes() {
    let weights =
        Value { data: vec![0, 100, 102, 200, 255, 100], ..value(&[2, 3], UINT8, Some((0.5, 100))) };
    let values = [
        value(&[1, 1, 1, 3], UINT8, Some((1.0, 0))),
        weights,
        value(&[1, 2], UINT8, Some((1.0, 128))),
    ];
    let graph = import(&file(&values, &[(FULLY_CONNECTED, &[0, 1], &[2])])).unwrap().graph;
    // (−50, 0, 1) and (50, 77.5, 0).
    assert_eq!(evaluate(&graph, &[1.0, 2.0, 4.0]), [-46.0, 205.0]);
}

/// A clamp at six, where nothing above can be stored, is one at zero; else it is named.
#[test]
fn a_clamp_at_six_stays_one() {
    let values = [
        value(&[1, 2, 2, 3], INT8, Some((1.0 / 255.0, -128))),
        value(&[1, 2, 2, 3], INT8, Some((7.0 / 255.0, -128))),
        ints(&[1, 2]),
        value(&[1, 3], INT8, Some((7.0 / 255.0, -128))),
    ];
    let model = import(&file(&values, &[(RELU6, &[0], &[1]), (MEAN, &[1, 2], &[3])])).unwrap();
    let clamp = network::graph::NodeOp::Activation(Activation::RELU6);
    assert_eq!(model.graph.nodes[1].op, clamp);
}

#[test]
fn what_is_not_read_is_named_with_a_remedy() {
    let picture = || value(&[1, 2, 2, 3], FLOAT32, None);
    let row = |tensor_type, quant| value(&[1, 12], tensor_type, quant);
    for (values, layers, what) in [
        (
            vec![picture(), row(INT16, Some((0.5, 0)))],
            vec![(RESHAPE, &[0][..], &[1][..])],
            "`value` is a map with numbers of int16, but 8 bits are read; convert it again",
        ),
        (vec![picture(), row(FLOAT32, None)], vec![(RESHAPE, &[], &[1])], "RESHAPE without an"),
        (
            vec![picture(), ints(&[0; 8]), row(FLOAT32, None)],
            vec![(PAD, &[], &[2])],
            "operand 1 is no constant",
        ),
        (vec![picture(), row(FLOAT32, None)], vec![(CONV_2D, &[], &[1])], "operand 0"),
        (
            vec![picture(), row(FLOAT32, None)],
            vec![(RESHAPE, &[0], &[])],
            "nothing before it computes",
        ),
        (vec![picture(), row(FLOAT32, None)], vec![(RESHAPE, &[7], &[1])], "tensor 7"),
    ] {
        let error = import(&file(&values, &layers)).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
}

/// A list that thousands of tensors or layers share takes its memory once.
#[test]
fn shared_lists_are_not_copied_for_each_that_has_them() {
    // One tensor with 4,000 dimensions, to which 4,000 entries lead.
    let long = file(&[value(&vec![1; 4000], FLOAT32, None)], &[]);
    let count = 4000u32;
    let at = |bytes: &[u8], at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    // The list of tensors holds one distance; a longer one is appended and takes its place.
    let root = at(&long, 0) as usize;
    let field = |table: usize, number: usize| {
        let list = table - at(&long, table) as i32 as usize;
        table
            + usize::from(u16::from_le_bytes(*long[list + 4 + 2 * number..].first_chunk().unwrap()))
    };
    let follow = |place: usize| place + at(&long, place) as usize;
    let graph = follow(follow(field(root, 2)) + 4);
    let tensors = field(graph, 0);
    let tensor = follow(follow(tensors) + 4);
    let mut shared = long.clone();
    let list = shared.len();
    shared[tensors..tensors + 4].copy_from_slice(&((list - tensors) as u32).to_le_bytes());
    shared.extend(count.to_le_bytes());
    for _ in 0..count {
        // Backwards, which the format has no word for but wraps around.
        let distance = (tensor as u32).wrapping_sub(shared.len() as u32);
        shared.extend(distance.to_le_bytes());
    }
    let error = import(&shared).unwrap_err();
    assert!(error.contains("damaged"), "{error}");
}

/// The scores are found among other outputs.
#[test]
fn several_outputs() {
    let floats = |shape: &[i32], data: &[f32]| Value {
        data: data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..value(shape, FLOAT32, None)
    };
    let values = [
        value(&[1, 2, 2, 3], FLOAT32, None),
        ints(&[1, 2]),
        value(&[1, 3], FLOAT32, None),
        floats(&[2, 3], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        floats(&[2], &[0.0, 1.0]),
        value(&[1, 2], FLOAT32, None),
    ];
    let layers: [(i8, &[i32], &[i32]); 2] =
        [(MEAN, &[0, 1], &[2]), (FULLY_CONNECTED, &[2, 3, 4], &[5])];
    for outputs in [&[5][..], &[2, 5], &[5, 2]] {
        let model = import(&file_of(&values, &layers, outputs)).unwrap();
        let picture: Vec<f32> = (0..12).map(|i| i as f32).collect();
        assert_eq!(evaluate(&model.graph, &picture), [4.5, 7.5], "{outputs:?}");
        assert_eq!(model.notes.len(), usize::from(outputs.len() > 1), "{:?}", model.notes);
    }
}

/// Red and blue change places, as Keras' `preprocess_input` does it.
#[test]
fn channels_in_another_order() {
    let values = [
        value(&[1, 2, 2, 3], FLOAT32, None),
        ints(&[0, 0, 0, -1]),
        ints(&[1, 2, 2, -4]),
        ints(&[1, 1, 1, -1]),
        value(&[1, 2, 2, 3], FLOAT32, None),
        ints(&[1, 2]),
        value(&[1, 3], FLOAT32, None),
    ];
    let layers: [(i8, &[i32], &[i32]); 2] =
        [(STRIDED_SLICE, &[0, 1, 2, 3], &[4]), (MEAN, &[4, 5], &[6])];
    let graph = import(&file(&values, &layers)).unwrap().graph;
    let picture: Vec<f32> = (0..12).map(|i| i as f32).collect();
    assert_eq!(evaluate(&graph, &picture), [6.5, 5.5, 4.5]);
}
