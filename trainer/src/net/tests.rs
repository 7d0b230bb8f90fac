//! Networks of every operator that is trained.

use super::*;
use artifact::{Curve, Shape};
use burn::tensor::{Gradients, TensorData};
use network::activation::Activation;
use network::blueprint::{ConvSpec, LayerId, LayerOp, Pooling, WindowSpec};
use network::evaluate::evaluate;
use network::padding::ConvPadding;
use network::random::Rng;

const SIDE: usize = 19;
const PICTURES: usize = 4;

fn window(filter: usize, stride: usize, padding: ConvPadding) -> WindowSpec {
    WindowSpec { filter, stride, padding }
}

fn activated(net: &mut Blueprint, x: LayerId, activation: Activation) -> LayerId {
    let name = format!("{}_act", net.layers[x].name);
    net.per_channel(name, LayerOp::Activation(activation), x)
}

/// A convolution, its batch-norm and an activation; without channels, a depthwise one.
fn conv(
    net: &mut Blueprint,
    name: &str,
    x: LayerId,
    channels: Option<usize>,
    window: WindowSpec,
    activation: Activation,
) -> LayerId {
    let c_in = net.layers[x].channels;
    let y = net.conv(name, x, channels.unwrap_or(c_in), window);
    if channels.is_none() {
        net.layers[y].op = LayerOp::Conv(ConvSpec { c_in, c_out: c_in, window, groups: c_in });
    }
    let y = net.batch_norm(format!("{name}_bn"), y);
    if activation.is_none() { y } else { activated(net, y, activation) }
}

fn dense(net: &mut Blueprint, name: &str, x: LayerId, outputs: usize) -> LayerId {
    let inputs = net.layers[x].channels;
    let y = net.per_channel(name, LayerOp::Dense { inputs, outputs }, x);
    net.layers[y].channels = outputs;
    y
}

/// A squeeze-and-excite block between others, with a dense layer before the head.
fn blueprint() -> Blueprint {
    let mut net = Blueprint::new("all", 3);
    let same = ConvPadding::Same;
    let symmetric = ConvPadding::Symmetric;
    let stem = window(3, 2, same);
    let x = conv(&mut net, "stem", Blueprint::INPUT, Some(12), stem, Activation::HARD_SWISH);
    net.cuts.push(x);
    let y = conv(&mut net, "expand", x, Some(24), window(1, 1, same), Activation::SILU);
    let y = conv(&mut net, "filter", y, None, window(5, 2, same), Activation::HARD_SWISH);
    let squeezed = net.per_channel("squeeze", LayerOp::GlobalPool(Pooling::Avg), y);
    let factors = dense(&mut net, "reduce", squeezed, 8);
    let factors = activated(&mut net, factors, Activation::RELU);
    let factors = dense(&mut net, "excite", factors, 24);
    let factors = activated(&mut net, factors, Activation::HARD_SIGMOID);
    let gated = net.per_channel("gate", LayerOp::Gate, y);
    net.layers[gated].inputs.push(factors);
    let x = conv(&mut net, "project", gated, Some(16), window(1, 1, same), Activation::None);
    net.cuts.push(x);
    let y = conv(&mut net, "wide", x, Some(40), window(1, 1, symmetric), Activation::RELU6);
    let y = conv(&mut net, "again", y, None, window(3, 1, symmetric), Activation::RELU6);
    let y = conv(&mut net, "narrow", y, Some(16), window(1, 1, symmetric), Activation::None);
    let y = net.add("sum", x, y);
    net.cuts.push(y);
    let pooled = net.per_channel("pooler", LayerOp::GlobalPool(Pooling::Avg), y);
    let y = dense(&mut net, "last", pooled, 20);
    let y = activated(&mut net, y, Activation::Curve(Curve::Gelu));
    dense(&mut net, HEAD, y, 5);
    net
}

fn pictures(device: &Device) -> (Vec<f32>, Tensor<4>) {
    let mut rng = Rng::keyed(&[7]);
    let numbers: Vec<f32> = (0..PICTURES * 3 * SIDE * SIDE).map(|_| rng.normal() as f32).collect();
    let data = TensorData::new(numbers.clone(), [PICTURES, 3, SIDE, SIDE]);
    (numbers, Tensor::from_data(data, device))
}

fn numbers(x: Tensor<2>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn networks_compute_what_their_blueprint_means() {
    let (net, device) = (blueprint(), Device::flex());
    let trained = Network::of(&net, Init::he(3), &device.clone().autodiff()).unwrap();
    // Statistics of pictures, not zeros and ones.
    trained.forward(pictures(&device.clone().autodiff()).1);
    let mut tensors = save_tensors(&trained);
    assert_eq!(
        tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect::<BTreeMap<_, _>>(),
        net.tensors().collect()
    );
    let shape = Shape { h: SIDE as u16, w: SIDE as u16, c: 3 };
    let graph = net.graph(shape, |name, _| Ok(tensors.remove(&name).unwrap().to_f32())).unwrap();
    let (values, x) = pictures(&device);
    let found = numbers(trained.valid().forward(x));
    for (picture, found) in values.chunks(3 * SIDE * SIDE).zip(found.chunks(5)) {
        let hwc: Vec<f32> =
            (0..picture.len()).map(|i| picture[i % 3 * SIDE * SIDE + i / 3]).collect();
        for (found, expected) in found.iter().zip(evaluate(&graph, &hwc)) {
            assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
        }
    }
}

/// The network with one tensor moved by `by` along what `direction` draws.
fn moved(net: &Network, name: &str, by: f64) -> Network {
    struct Move<'a>(&'a str, f64);
    impl Visitor for Move<'_> {
        fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
            if name == self.0 {
                let old = value.val().inner();
                let new = old.clone() + direction(name, old) * self.1;
                replace(value, Tensor::from_inner(new));
            }
        }
        fn statistic(&mut self, _: &str, _: &RunningState<Tensor<1>>) {}
    }
    let mut net = net.clone();
    net.visit_tensors(&mut Move(name, by));
    net
}

fn direction<const D: usize>(name: &str, like: Tensor<D>) -> Tensor<D> {
    let mut rng = Rng::keyed(&[9, network::random::fnv1a(name.as_bytes())]);
    let shape = like.dims();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &like.device())
}

/// Gradients of all tensors along the direction.
fn slopes(net: &Network, gradients: &[Gradients]) -> Vec<(String, f64)> {
    struct Along<'a>(&'a [Gradients], Vec<(String, f64)>);
    impl Visitor for Along<'_> {
        fn parameter<const D: usize>(&mut self, name: &str, _: Role, value: &mut Param<Tensor<D>>) {
            let value = value.val();
            let found = self.0.iter().find_map(|gradients| value.grad(gradients));
            let found = found.unwrap_or_else(|| panic!("{name} has no gradient"));
            let along = found * direction(name, value.inner());
            self.1.push((name.into(), f64::from(along.sum().into_scalar::<f32>())));
        }
        fn statistic(&mut self, _: &str, _: &RunningState<Tensor<1>>) {}
    }
    let mut along = Along(gradients, Vec::new());
    net.clone().visit_tensors(&mut along);
    along.1
}

#[test]
fn every_layer_learns_by_its_slope() {
    let device = Device::flex().autodiff();
    let net = Network::of(&blueprint(), Init::he(3), &device).unwrap();
    let (_, x) = pictures(&device);
    let weights = direction("weights", Tensor::<2>::zeros([PICTURES, 5], &device));
    let loss = |net: &Network| (net.forward(x.clone()) * weights.clone()).sum();
    let found = [false, true].map(|checkpointing| {
        let forward = net.forward_pass(x.clone(), checkpointing);
        let loss = (net.classify(forward.features()) * weights.clone()).sum();
        let mut gradients = loss.backward();
        let mut all = forward.backward(&net, &mut gradients);
        all.push(gradients);
        slopes(&net, &all)
    });
    assert_eq!(found[0], found[1], "checkpointing");
    // Kinks lie within steps that rounding allows.
    let (step, largest) = (1e-4, found[0].iter().fold(0.0, |most, (_, s)| s.abs().max(most)));
    for (name, found) in &found[0] {
        let [up, down] =
            [step, -step].map(|by| f64::from(loss(&moved(&net, name, by)).into_scalar::<f32>()));
        let expected = (up - down) / (2.0 * step);
        let error = (found - expected).abs() / expected.abs().max(0.1 * largest);
        assert!(error < 0.15, "{name}: {found} instead of {expected}");
    }
}

#[test]
fn rounded_networks_compute_nearly_the_same() {
    let device = Device::flex().autodiff();
    let mut net = Network::of(&blueprint(), Init::he(3), &device).unwrap();
    let (_, x) = pictures(&device);
    let plain = numbers(net.forward(x.clone()));
    net.set_rounding(Some(BTreeMap::new()));
    let rounded = numbers(net.forward(x));
    let names: Vec<String> = net.ranges().into_keys().collect();
    for name in ["filter.weight", "squeeze", "reduce", "excite", "gate", "pooler", "last"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>().sqrt();
    let apart: Vec<f32> = plain.iter().zip(&rounded).map(|(a, b)| a - b).collect();
    let apart = norm(&apart) / norm(&plain);
    assert!((1e-4..0.1).contains(&apart), "{apart}");
}

#[test]
fn what_has_no_kernels_is_refused_by_name() {
    let mut net = blueprint();
    let grouped = net.layers.iter_mut().find(|layer| layer.name == "again").unwrap();
    if let LayerOp::Conv(conv) = &mut grouped.op {
        conv.groups = 4;
    }
    let error = Network::of(&net, Init::he(3), &Device::flex()).unwrap_err();
    assert!(error.contains("`again`"), "{error}");
}
