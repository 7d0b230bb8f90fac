//! The logits of a model by everything here that computes them.

use burn::tensor::{Device, Tensor, TensorData};
use convert::emit::edge::{Attributes, Format, to_edge};
use convert::optimize::optimize;
use network::checkpoint::Checkpoint;
use network::evaluate::evaluate;
use network::graph::Graph;
use runtime::{AlignedBuf, Isa, Model, Session};

/// Each implementation's name and its logits of pictures `[N, H, W, 3]`, preprocessed.
pub(crate) fn logits(
    checkpoint: &Checkpoint,
    shape: &[usize],
    pictures: &[f32],
) -> Vec<(&'static str, Vec<f32>)> {
    let picture_len = shape[1..].iter().product();
    assert_eq!(pictures.len() / picture_len, shape[0]);
    let each = |f: &dyn Fn(&[f32]) -> Vec<f32>| pictures.chunks(picture_len).flat_map(f).collect();
    let graph = checkpoint.graph().unwrap();
    let mut optimized = graph.clone();
    optimize(&mut optimized);
    let file = device_file(&optimized, checkpoint);
    let mut all = vec![
        ("the graph", each(&|picture| evaluate(&graph, picture))),
        ("the optimized graph", each(&|picture| evaluate(&optimized, picture))),
        ("the trainer's network", burn(checkpoint, shape, pictures)),
    ];
    for isa in Isa::available() {
        all.push((isa.name(), each(&|picture| run(&file, picture, isa))));
    }
    all
}

/// The graph as an f32 device file.
pub(crate) fn device_file(graph: &Graph, checkpoint: &Checkpoint) -> Vec<u8> {
    let attributes = Attributes {
        labels: &checkpoint.labels,
        preprocess: checkpoint.preprocess,
        dataset: "",
        metrics: "",
        nr: 16,
        winograd: true,
        fixed_point: false,
    };
    to_edge(graph, Format::F32, &attributes).unwrap().bytes
}

/// Logits of a device file, through the runtime.
pub(crate) fn run(file: &[u8], picture: &[f32], isa: Isa) -> Vec<f32> {
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

/// Pictures `[N, H, W, 3]` as `[N, 3, H, W]`.
pub(crate) fn planes(shape: &[usize], pictures: &[f32]) -> Tensor<4> {
    let data = TensorData::new(pictures.to_vec(), [pictures.len()]);
    let x = Tensor::<1>::from_data(data, &Device::flex());
    x.reshape([shape[0], shape[1], shape[2], 3]).permute([0, 3, 1, 2])
}

/// Logits of pictures `[N, H, W, 3]` from the trainer's network, in inference mode.
pub(crate) fn burn(checkpoint: &Checkpoint, shape: &[usize], pictures: &[f32]) -> Vec<f32> {
    let net = trainer::train::network(checkpoint, &Device::flex()).unwrap();
    net.forward(planes(shape, pictures)).into_data().iter::<f32>().collect()
}
