//! The float graph computes what KerasHub computes; see `fixtures/keras/README.md`.

use artifact::Preprocess;
use convert::checkpoint::{Checkpoint, FORMAT, Tensor, TrainingRecord, VERSION};
use convert::emit::edge::{Attributes, Format, to_edge};
use convert::graph::{Graph, evaluate};
use convert::optimize::optimize;
use convert::resnet::{Pooling, ResNetConfig};
use runtime::{AlignedBuf, Isa, Model, Session};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Absolute, on logits of order 10.
const TOLERANCE: f32 = 1e-4;

fn read(model: &str, file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("fixtures/keras").join(model).join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Dimensions and values of a C-ordered f32 `.npy` file.
fn npy(model: &str, file: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = read(model, file);
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = str::from_utf8(&bytes[10..10 + header_len]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    (shape, floats(&bytes[10 + header_len..]))
}

fn config(model: &str) -> ResNetConfig {
    let preset: serde_json::Value = serde_json::from_slice(&read(model, "config.json")).unwrap();
    let keras = &preset["config"];
    let sizes = |key: &str| serde_json::from_value(keras[key].clone()).unwrap();
    ResNetConfig {
        name: model.into(),
        input_conv_filters: sizes("input_conv_filters"),
        input_conv_kernel_sizes: sizes("input_conv_kernel_sizes"),
        stem_stride: 2,
        stem_pool: true,
        stackwise_num_filters: sizes("stackwise_num_filters"),
        stackwise_num_blocks: sizes("stackwise_num_blocks"),
        stackwise_num_strides: sizes("stackwise_num_strides"),
        block_type: serde_json::from_value(keras["block_type"].clone()).unwrap(),
        use_pre_activation: keras["use_pre_activation"].as_bool().unwrap(),
        pooling: Pooling::Avg,
        classes: 10,
    }
}

/// Brings the output dimension of a kernel, its last one, to the front: HWIO becomes OHWI and
/// (in, out) becomes (out, in).
fn output_first(shape: &[usize], values: &[f32]) -> Tensor {
    let (&outputs, rest) = shape.split_last().unwrap();
    let weights: Vec<f32> =
        (0..outputs).flat_map(|o| values.iter().skip(o).step_by(outputs).copied()).collect();
    Tensor::from_f32(&[&[outputs], rest].concat(), &weights)
}

fn checkpoint(model: &str, height: usize, width: usize) -> Checkpoint {
    let bytes = read(model, "weights_keras_names.safetensors");
    let mut tensors = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let values = floats(view.data());
        let (layer, part) = name.split_once('/').unwrap();
        let (part, tensor) = match part {
            "kernel" => ("weight", output_first(view.shape(), &values)),
            other => {
                let part = other.strip_prefix("moving_").unwrap_or(other);
                (part, Tensor::from_f32(view.shape(), &values))
            }
        };
        tensors.insert(format!("{layer}.{part}"), tensor);
    }
    let config = config(model);
    let (height, width) = (height.try_into().unwrap(), width.try_into().unwrap());
    Checkpoint {
        format: FORMAT.into(),
        version: VERSION,
        labels: (0..config.classes).map(|i| format!("class {i}")).collect(),
        preprocess: Preprocess::normalized(height, width, [0.0; 3], [1.0; 3]),
        config,
        tensors,
        samples: Vec::new(),
        training: TrainingRecord::default(),
    }
}

fn assert_close(what: &str, logits: &[f32], expected: &[f32]) {
    assert_eq!(logits.len(), expected.len());
    for (class, (a, b)) in logits.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "{what}: class {class} is {a}, KerasHub has {b}");
    }
}

/// The graph as an f32 device file.
fn device_file(graph: &Graph, checkpoint: &Checkpoint) -> Vec<u8> {
    let attributes = Attributes {
        labels: &checkpoint.labels,
        preprocess: checkpoint.preprocess,
        dataset: "",
        metrics: "",
        nr: 16,
    };
    to_edge(graph, Format::F32, &attributes).unwrap().bytes
}

/// Logits of a device file, through the runtime.
fn run(file: &[u8], picture: &[f32], isa: Isa) -> Vec<f32> {
    let file = AlignedBuf::from_slice(file);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa);
    let mut input = session.input_mut();
    for (i, value) in picture.iter().enumerate() {
        input.set(i, *value);
    }
    session.run().iter().collect()
}

fn matches_keras(model: &str) {
    for suffix in ["", "_odd"] {
        let (shape, pictures) = npy(model, &format!("input{suffix}.npy"));
        let (_, logits) = npy(model, &format!("logits{suffix}.npy"));
        let checkpoint = checkpoint(model, shape[1], shape[2]);
        let graph = Graph::from_checkpoint(&checkpoint).unwrap();
        let mut optimized = graph.clone();
        optimize(&mut optimized);
        let device_file = device_file(&optimized, &checkpoint);
        let picture_len = shape[1..].iter().product();
        assert_eq!(pictures.len() / picture_len, shape[0]);
        for (picture, expected) in pictures.chunks_exact(picture_len).zip(logits.chunks_exact(10)) {
            assert_close(model, &evaluate(&graph, picture), expected);
            assert_close(model, &evaluate(&optimized, picture), expected);
            for isa in Isa::available() {
                assert_close(isa.name(), &run(&device_file, picture, isa), expected);
            }
        }
    }
}

#[test]
fn v1_basic() {
    matches_keras("v1_basic");
}

#[test]
fn v1_bottleneck() {
    matches_keras("v1_bottleneck");
}

#[test]
fn v2_bottleneck() {
    matches_keras("v2_bottleneck");
}

#[test]
fn vd_bottleneck() {
    matches_keras("vd_bottleneck");
}
