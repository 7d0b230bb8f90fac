//! Exported ONNX computes the same in another engine, tract.

use convert::emit::edge::Format;
use convert::emit::onnx::{Form, to_onnx};
use convert::optimize::optimize;
use convert::pipeline::{Options, convert};
use edge_tests::changed;
use network::architecture::resnet::{BlockType, BottleneckStride, ResNetConfig};
use network::architecture::{Architecture, Family};
use network::blueprint::Pooling;
use network::checkpoint::Checkpoint;
use network::evaluate::evaluate;
use network::graph::Graph;
use network::init::random_checkpoint;
use network::model::FloatModel;
use network::padding::ConvPadding;
use network::random::Rng;
use runtime::{AlignedBuf, Model, Session};
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, Tensor as TractTensor, tvec,
};
use zoo::{Head, Hints, Imported, open_any};

/// Absolute and relative.
const TOLERANCE: f32 = 1e-4;

fn checkpoint(block_type: BlockType, v2: bool, padding: ConvPadding) -> Checkpoint {
    let resnet = ResNetConfig {
        input_conv_filters: vec![4],
        input_conv_kernel_sizes: vec![3],
        stem_stride: 1,
        stem_pool: true,
        stackwise_num_filters: vec![4, 6],
        stackwise_num_blocks: vec![1, 2],
        stackwise_num_strides: vec![1, 2],
        block_type,
        use_pre_activation: v2,
        padding,
        expansion: 4,
        bottleneck_stride: BottleneckStride::default(),
    };
    let config = Architecture {
        channels: if v2 { 1 } else { 3 },
        pooling: if v2 { Pooling::Max } else { Pooling::Avg },
        ..Architecture::new("tiny", 5, Family::ResNet(resnet))
    };
    changed(random_checkpoint(config, 18, 3).unwrap(), |draft| {
        draft.preprocess.height = 16;
        draft.labels = (0..5).map(|i| format!("class \"{i}\"")).collect();
    })
}

fn nchw(graph: &Graph, nhwc: &[f32]) -> TractTensor {
    let shape = graph.input_shape();
    let (h, w, c) = (usize::from(shape.h), usize::from(shape.w), usize::from(shape.c));
    let values: Vec<f32> = (0..c).flat_map(|ch| nhwc.iter().skip(ch).step_by(c).copied()).collect();
    TractTensor::from_shape(&[1, c, h, w], &values).unwrap()
}

/// What tract makes of a file: logits of a picture.
fn tract(onnx: &[u8]) -> impl Fn(TractTensor) -> Vec<f32> {
    let model = tract_onnx::onnx().model_for_read(&mut &*onnx).unwrap().into_optimized().unwrap();
    let model = model.into_runnable().unwrap();
    move |picture| {
        let outputs = model.run(tvec!(picture.into())).unwrap();
        outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
    }
}

fn matches_tract(graph: &Graph, checkpoint: &Checkpoint) {
    let onnx = to_onnx(graph, Format::F32, Form::Qdq, &checkpoint.labels, &checkpoint.preprocess);
    let tract = tract(&onnx);
    for seed in 0..3 {
        let picture = Rng::keyed(&[seed]).around(graph.input_shape().len(), 0.0, 1.0);
        let logits = tract(nchw(graph, &picture));
        assert_eq!(logits.len(), checkpoint.labels.len());
        for (a, b) in logits.iter().zip(&evaluate(graph, &picture)) {
            assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "tract has {a}, we have {b}");
        }
    }
}

fn exports(block_type: BlockType, use_pre_activation: bool) {
    for padding in [ConvPadding::Symmetric, ConvPadding::Same] {
        let checkpoint = checkpoint(block_type, use_pre_activation, padding);
        let mut graph = checkpoint.graph().unwrap();
        matches_tract(&graph, &checkpoint);
        optimize(&mut graph);
        matches_tract(&graph, &checkpoint);
    }
}

#[test]
fn v1() {
    exports(BlockType::BottleneckBlock, false);
}

#[test]
fn v2() {
    exports(BlockType::BottleneckBlock, true);
}

/// The shortcut averages windows that reach over the map's edge.
#[test]
fn vd() {
    exports(BlockType::BottleneckBlockVd, false);
}

/// Int8 as QDQ, through tract and back: tract computes nearly the same, and what is imported again
/// gives the same int8 scores.
#[test]
fn int8() {
    for v2 in [false, true] {
        let checkpoint = checkpoint(BlockType::BottleneckBlock, v2, ConvPadding::Symmetric);
        let model = FloatModel::from_checkpoint(&checkpoint).unwrap();
        let len = model.graph.input_shape().len();
        let pictures: Vec<Vec<f32>> =
            (0..6).map(|seed| Rng::keyed(&[seed]).around(len, 0.0, 1.0)).collect();
        let converted = convert(&model, &pictures, Options::default(), |_, _| ()).unwrap();
        let int8 = converted.int8.as_ref().unwrap();
        let format = Format::I8(&int8.quants);
        let onnx = to_onnx(&int8.graph, format, Form::Qdq, &model.labels, &model.preprocess);

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("int8.onnx");
        std::fs::write(&file, &onnx).unwrap();
        let Imported::Graph(again) = open_any(&file, Head::Required, &Hints::default()).unwrap()
        else {
            panic!("an ONNX file is no checkpoint")
        };
        // Without pictures: all ranges are in the file.
        let again = convert(&again, &[], Options::default(), |_, _| ()).unwrap();

        let tract = tract(&onnx);
        let step = int8.quants.last().unwrap().scale;
        for picture in &pictures {
            let ours = scores(&converted.emitted.bytes, picture);
            assert_eq!(scores(&again.emitted.bytes, picture), ours, "v2: {v2}");
            let logits = tract(nchw(&converted.graph, picture));
            // Each layer rounds once; floats before it may take the other side.
            for (a, b) in logits.iter().zip(&ours) {
                assert!(
                    (a - b).abs() <= 6.0 * step,
                    "tract has {a}, we have {b} in steps of {step}"
                );
            }
        }
    }
}

fn scores(edge: &[u8], picture: &[f32]) -> Vec<f32> {
    let file = AlignedBuf::from_slice(edge);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap();
    let mut input = session.input_mut();
    picture.iter().enumerate().for_each(|(i, &v)| input.set(i, v));
    session.run().iter().collect()
}
