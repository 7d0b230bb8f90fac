//! Graphs of our own networks, as other formats have them, are these networks.

use super::recognize;
use crate::Head;
use artifact::{PoolKind, Shape};
use network::activation::Activation;
use network::architecture::{Architecture, Family};
use network::checkpoint::Checkpoint;
use network::evaluate::evaluate;
use network::graph::{Graph, Node, NodeOp};
use network::init::random_checkpoint;
use network::model::FloatModel;
use network::padding::ConvPadding;
use std::path::Path;

/// A graph whose batch-norms went into the convolutions before them, as converters leave it.
fn folded(graph: &Graph) -> Graph {
    let mut out = Graph { name: graph.name.clone(), nodes: Vec::new() };
    let mut places: Vec<usize> = Vec::new();
    for node in &graph.nodes {
        if let NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon } = &node.op {
            let place = places[node.inputs[0]];
            let NodeOp::Conv2d(conv) = &mut out.nodes[place].op else { panic!("no convolution") };
            let row = conv.row_len();
            for (c, bias) in conv.bias.iter_mut().enumerate() {
                let factor = gamma[c] / (variance[c] + epsilon).sqrt();
                conv.weights[c * row..][..row].iter_mut().for_each(|w| *w *= factor);
                *bias = beta[c] + (*bias - mean[c]) * factor;
            }
            places.push(place);
            continue;
        }
        places.push(out.nodes.len());
        let inputs = node.inputs.iter().map(|&x| places[x]).collect();
        out.nodes.push(Node { name: format!("n{}", places.len()), inputs, ..node.clone() });
    }
    out
}

fn made(name: &str, padding: ConvPadding, channels: usize) -> Checkpoint {
    let mut config = Architecture::named(name, 3).unwrap();
    let Family::MobileNet(mobilenet) = &mut config.family else { panic!("no MobileNet") };
    mobilenet.padding = padding;
    random_checkpoint(Architecture { channels, dropout: 0.0, ..config }, 32, 1).unwrap()
}

fn picture(shape: Shape) -> Vec<f32> {
    (0..shape.len()).map(|i| (i * 7 % 23) as f32 / 11.0 - 1.0).collect()
}

#[test]
fn folded_networks_are_known_again() {
    for (name, padding, channels) in [
        ("mobilenet_v1_025", ConvPadding::Same, 3),
        ("mobilenet_v1_025", ConvPadding::Symmetric, 1),
        ("mobilenet_v2_035", ConvPadding::Same, 3),
        ("mobilenet_v2_050", ConvPadding::Symmetric, 3),
        ("mobilenet_v3_small_050", ConvPadding::Same, 3),
        ("mobilenet_v3_large_035", ConvPadding::Symmetric, 3),
        ("efficientnet_b0", ConvPadding::Same, 3),
        ("efficientnet_lite0", ConvPadding::Symmetric, 3),
    ] {
        let checkpoint = made(name, padding, channels);
        let graph = folded(&checkpoint.graph().unwrap());
        let found = recognize(Path::new("x"), &FloatModel::new(graph.clone()), Head::Required);
        let found = found.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.config, checkpoint.config, "{name}");
        let input = picture(graph.input_shape());
        let [ours, theirs] = [found.graph().unwrap(), graph].map(|graph| evaluate(&graph, &input));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{name}: {a} {b}");
        }
        // As it was, batch-norms and all, and with what an importer leaves behind.
        let mut graph = checkpoint.graph().unwrap();
        for node in graph.nodes.iter_mut().skip(3) {
            node.inputs.iter_mut().for_each(|x| *x += usize::from(*x > 2));
        }
        let unread = Node { op: NodeOp::Activation(Activation::SIGMOID), ..graph.nodes[3].clone() };
        graph.nodes.insert(3, unread);
        let found = recognize(Path::new("x"), &FloatModel::new(graph), Head::Required).unwrap();
        assert!(found.tensors == checkpoint.tensors, "{name}");
    }
}

#[test]
fn features_alone_have_no_head() {
    let checkpoint = made("mobilenet_v2_035", ConvPadding::Same, 3);
    let mut graph = folded(&checkpoint.graph().unwrap());
    graph.nodes.pop();
    let model = FloatModel::new(graph);
    let error = recognize(Path::new("x"), &model, Head::Required).unwrap_err().to_string();
    assert!(error.contains("it ends in features, not in scores"), "{error}");
    let found = recognize(Path::new("x"), &model, Head::Optional).unwrap();
    assert_eq!((found.config.classes, found.labels.len()), (1, 1));
    let Family::MobileNet(config) = &found.config.family else { panic!("no MobileNet") };
    assert_eq!(config.blocks.len(), 17);
}

#[test]
fn what_fits_nowhere_is_named() {
    type Change = fn(&mut Node);
    let changes: [(&str, &str, Change); 4] = [
        ("block3_depthwise_act", "is relu6, not silu", |node| {
            node.op = NodeOp::Activation(Activation::SILU);
        }),
        ("block5_depthwise_conv", "another filter, stride, padding or width", |node| {
            if let NodeOp::Conv2d(conv) = &mut node.op {
                (conv.padding.top, conv.padding.bottom) = (2, 0);
            }
        }),
        ("pooler", "is one of another window or padding", |node| {
            if let NodeOp::Pool2d { filter, padding, .. } = &mut node.op {
                (*filter, padding.top) = ([2, 1], 1);
            }
        }),
        ("pooler", "no pooling reads", |node| {
            node.op = NodeOp::Activation(Activation::RELU);
        }),
    ];
    for (name, said, change) in changes {
        let checkpoint = made("mobilenet_v2_035", ConvPadding::Same, 3);
        let mut graph = checkpoint.graph().unwrap();
        change(graph.nodes.iter_mut().find(|node| node.name == name).unwrap());
        let found = recognize(Path::new("x"), &FloatModel::new(graph), Head::Required);
        let error = found.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("cannot be trained further"), "{error}");
    }
}

/// Networks whose scores come by other ways than ours are not taken for ours.
#[test]
fn other_pools_make_other_networks() {
    let checkpoint = made("mobilenet_v1_025", ConvPadding::Same, 3);
    let mut graph = checkpoint.graph().unwrap();
    for node in &mut graph.nodes {
        if let NodeOp::Pool2d { kind, .. } = &mut node.op {
            *kind = PoolKind::Max;
        }
    }
    let found = recognize(Path::new("x"), &FloatModel::new(graph), Head::Required).unwrap();
    assert_eq!(found.config.pooling, network::blueprint::Pooling::Max);
}
