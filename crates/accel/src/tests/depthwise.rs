//! Depthwise convolutions, activations and gates.

use super::{
    Activation, Map, Normalization, PRECISIONS, Precision, Window, assert_within, cosine, flat,
    gradient, noise, norm, tensor,
};
use crate::depthwise;
use crate::dispatch::Level;
use crate::element::{Element, LANES};
use crate::frame::{Affine, Transform};
use crate::geometry::Geometry;
use crate::norm::Extent;
use crate::planar;
use artifact::Curve;
use burn::tensor::activation::{gelu, sigmoid, silu};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, module};
use half::bf16;

const RELU6: Activation = Activation::Clamp([0.0, 6.0]);

/// Images, channels, height, width, filter, stride, and padding before and after.
const SHAPES: [[usize; 8]; 18] = [
    [2, 16, 16, 16, 3, 1, 1, 1],
    [3, 8, 9, 7, 3, 1, 1, 1],
    [2, 24, 13, 30, 3, 1, 1, 1],
    [2, 40, 12, 12, 3, 2, 1, 1],
    [2, 40, 12, 11, 3, 2, 0, 1],
    [3, 17, 15, 15, 3, 2, 1, 1],
    [2, 24, 14, 14, 5, 1, 2, 2],
    [2, 16, 15, 14, 5, 2, 2, 2],
    [2, 16, 14, 14, 5, 2, 1, 2],
    [2, 33, 10, 9, 7, 1, 3, 3],
    [2, 16, 10, 9, 7, 2, 2, 3],
    [4, 40, 1, 1, 3, 1, 1, 1],
    [4, 40, 1, 1, 5, 2, 2, 2],
    [2, 8, 2, 3, 3, 2, 1, 1],
    [2, 20, 6, 5, 1, 1, 0, 0],
    [2, 20, 6, 5, 2, 3, 0, 0],
    [2, 4, 6, 6, 3, 1, 0, 0],
    // Several strips.
    [1, 16, 70, 150, 3, 2, 1, 1],
];

fn window([_, _, _, _, filter, stride, before, after]: [usize; 8]) -> Window {
    Window { filter, stride, padding: [(before, after); 2] }
}

fn stock_activation(x: Tensor<4>, activation: Activation) -> Tensor<4> {
    let step = |x: Tensor<4>| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    match activation {
        Activation::Clamp([low, high]) => x.clamp(low, high),
        Activation::Curve(Curve::HardSwish) => x.clone() * step(x),
        Activation::Curve(Curve::HardSigmoid) => step(x),
        Activation::Curve(Curve::Sigmoid) => sigmoid(x),
        Activation::Curve(Curve::Silu) => silu(x),
        Activation::Curve(Curve::Gelu) => gelu(x),
    }
}

/// All activations that networks have.
fn activations() -> impl Iterator<Item = Activation> {
    let clamps = [Activation::NONE, Activation::RELU, RELU6, Activation::Clamp([-1.5, 2.7])];
    clamps.into_iter().chain(Curve::ALL.map(Activation::Curve))
}

/// Normalizes a map by its own statistics.
fn normalize(mut map: Map, [gamma, beta]: [&Tensor<1>; 2], activation: Activation) -> Map {
    let (mean, variance) = map.moments();
    let (gamma, beta) = (gamma.clone(), beta.clone());
    let (epsilon, fixed) = (1e-3, false);
    map.normalized(Normalization { mean, variance, gamma, beta, activation, epsilon, fixed })
}

/// What is compared, by its name.
type Results = Vec<(&'static str, Vec<f32>)>;

/// `act(norm(dw(act(norm(x)))))` and all gradients, by fast operations of a precision or by Burn's.
fn differentiate(shape: [usize; 8], activation: Activation, fast: Option<Precision>) -> Results {
    let device = Device::flex().autodiff();
    let [n, c, h, w, k, ..] = shape;
    let window = window(shape);
    let x = tensor([n, c, h, w], 1, &device).require_grad();
    let weight = tensor([c, 1, k, k], 2, &device).require_grad();
    let gamma = (tensor([c], 3, &device) * 2.0 + 3.0).require_grad();
    let beta = tensor([c], 4, &device).require_grad();
    let parameters = [&gamma, &beta];
    let y = match fast {
        Some(precision) => {
            let map = normalize(Map::from_planar(x.clone(), precision), parameters, activation);
            let map = map.convolve(weight.clone(), &window, true);
            normalize(map, parameters, activation).into_planar()
        }
        None => {
            let normalize = |x: Tensor<4>| {
                let y = module::batch_norm_train(x, gamma.clone(), beta.clone(), 1e-3).output;
                stock_activation(y, activation)
            };
            let options = ConvOptions {
                stride: [window.stride; 2],
                padding: window.padding,
                dilation: [1; 2],
                groups: c,
            };
            normalize(module::conv2d(normalize(x.clone()), weight.clone(), None, options))
        }
    };
    let gradients = (y.clone() * tensor(y.dims(), 5, &device)).sum().backward();
    vec![
        ("y", flat(y)),
        ("dx", gradient(&x, &gradients)),
        ("dw", gradient(&weight, &gradients)),
        ("dgamma", gradient(&gamma, &gradients)),
        ("dbeta", gradient(&beta, &gradients)),
    ]
}

/// In f32 nearly the same; in bf16 a rounded value may fall on the other side of a bound, hence
/// directions.
fn assert_same(precision: Precision, name: &str, found: &Results, expected: &Results) {
    for ((part, found), (_, expected)) in found.iter().zip(expected) {
        let name = format!("{name} {precision:?} {part}");
        if precision == Precision::F32 {
            assert_within(5e-4, &name, found, expected);
            continue;
        }
        let apart = norm(&found.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>());
        let cosine = cosine(found, expected);
        // Gradients of an input that is normalized nearly cancel where a mean is of few numbers.
        assert!(cosine > 0.95 || apart < 0.05, "{name}: direction off by {cosine}, {apart}");
    }
}

#[test]
fn normalized_filters_and_their_gradients_match_the_stock_operations() {
    for shape in SHAPES {
        let expected = differentiate(shape, RELU6, None);
        for (precision, _) in PRECISIONS {
            let found = differentiate(shape, RELU6, Some(precision));
            assert_same(precision, &format!("{shape:?}"), &found, &expected);
        }
    }
}

#[test]
fn every_activation_is_applied_where_maps_are_read() {
    for activation in activations() {
        for shape in [[3, 24, 9, 10, 3, 1, 1, 1], [2, 20, 11, 9, 5, 2, 2, 2]] {
            let expected = differentiate(shape, activation, None);
            for (precision, _) in PRECISIONS {
                let found = differentiate(shape, activation, Some(precision));
                assert_same(precision, &format!("{shape:?} {activation:?}"), &found, &expected);
            }
        }
    }
}

/// Convolution, both gradients and the sums of a normalization's gradient of an instruction set.
fn filter_at<E: Element>(level: Level, g: &Geometry) -> [Vec<f32>; 5] {
    let extent = |planes| Extent { images: g.images, channels: g.c_in, planes };
    let (input, output) = (extent(g.input()), extent(g.output()));
    let blocks = |e: &Extent, seed| {
        planar::to_blocks::<E>(e, &noise(e.images * e.channels * e.planes.pixels(), seed))
    };
    let (x, dy) = (blocks(&input, 4), blocks(&output, 6));
    let w = noise(g.c_in * g.per_filter(), 5);
    let affine = [0, 1, 2].map(|i| Affine {
        center: [0.1; LANES],
        scale: [1.5 + i as f32; LANES],
        shift: [0.2; LANES],
    });
    let activation = Activation::Curve(Curve::Silu);
    let transform = Some(Transform { affine: &affine, activation });
    let mut parts = output.parts();
    let y = depthwise::forward(level, g, (&x, transform), &w, Some(&mut parts));
    let moments = parts.as_flattened().as_flattened().to_vec();
    let mut parts = input.parts();
    let (dx, dw) = depthwise::gradients(level, g, (&x, transform), &w, &dy, &mut parts);
    let (y, dx) = (planar::from_blocks::<E>(&output, &y), planar::from_blocks::<E>(&input, &dx));
    [y, moments, dx, dw.to_vec(), parts.as_flattened().as_flattened().to_vec()]
}

#[test]
fn every_instruction_set_gives_the_same_filters() {
    for shape in SHAPES {
        let [images, channels, height, width, filter, stride, before, after] = shape;
        let out = [height, width].map(|size| (size + before + after - filter) / stride + 1);
        let g = Geometry {
            images,
            c_in: channels,
            c_out: channels,
            size: [height, width],
            out,
            filter,
            stride,
            pad: [before; 2],
            planar: false,
            depthwise: true,
        };
        let expected = filter_at::<f32>(Level::detect(), &g);
        for level in Level::available() {
            let (single, half) = (filter_at::<f32>(level, &g), filter_at::<bf16>(level, &g));
            for i in 0..5 {
                assert_within(1e-4, &format!("{shape:?} {level:?}"), &single[i], &expected[i]);
                assert_within(5e-2, &format!("{shape:?} {level:?} bf16"), &half[i], &expected[i]);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let shape = [3, 4, 7, 7];
    let run = |w: &Tensor<4>, gamma: &Tensor<1>, device: &Device, activation| {
        let window = Window { filter: 3, stride: 2, padding: [(0, 1); 2] };
        let beta = tensor([4], 3, device);
        let map = Map::from_planar(tensor(shape, 1, device), Precision::F32);
        let map = normalize(map, [gamma, &beta], activation);
        let map = normalize(map.convolve(w.clone(), &window, true), [gamma, &beta], activation);
        (map.mean() * tensor([3, 4], 4, device)).sum()
    };
    for activation in activations() {
        let device = Device::flex().autodiff();
        let w = tensor([4, 1, 3, 3], 2, &device).require_grad();
        let gamma = (tensor([4], 5, &device) + 1.5).require_grad();
        let gradients = run(&w, &gamma, &device, activation).backward();
        let device = Device::flex();
        let values = [flat(w.clone()), flat(gamma.clone())];
        let found = [gradient(&w, &gradients), gradient(&gamma, &gradients)].concat();
        let scale = found.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
        // A step that keeps rounding small; kinks may lie within it, hence the median.
        let step = 2e-3;
        let mut errors: Vec<f32> = (0..found.len())
            .map(|i| {
                let at = |by| {
                    let mut values = values.concat();
                    values[i] += by;
                    let (w, gamma) = values.split_at(36);
                    let w = TensorData::new(w.to_vec(), [4, 1, 3, 3]);
                    let gamma = TensorData::new(gamma.to_vec(), [4]);
                    let gamma = Tensor::from_data(gamma, &device);
                    let loss = run(&Tensor::from_data(w, &device), &gamma, &device, activation);
                    f64::from(loss.into_scalar::<f32>())
                };
                let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
                (slope as f32 - found[i]).abs() / scale
            })
            .collect();
        errors.sort_by(f32::total_cmp);
        assert!(errors[errors.len() / 2] < 2e-3, "{activation:?}: half is off by {errors:?}");
        assert!(errors[errors.len() * 9 / 10] < 3e-2, "{activation:?}: off by {errors:?}");
    }
}

#[test]
fn thread_count_does_not_change_a_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| {
                let silu = Activation::Curve(Curve::Silu);
                let one = differentiate([5, 40, 33, 31, 3, 1, 1, 1], RELU6, Some(precision));
                (one, differentiate([5, 72, 17, 16, 5, 2, 2, 2], silu, Some(precision)))
            })
        };
        let one = run(1);
        for threads in [2, 3, 5] {
            assert!(run(threads) == one, "{threads} threads in {precision:?}");
        }
    }
}

#[test]
fn sums_are_activated_and_maps_gated() {
    let device = Device::flex().autodiff();
    let shape = [3, 24, 6, 5];
    for activation in activations() {
        let run = |fast: bool| {
            let x = tensor(shape, 1, &device).require_grad();
            let residual = (tensor(shape, 2, &device) * 2.0).require_grad();
            let factors = tensor([3, 24], 3, &device).require_grad();
            let gamma = tensor([24], 4, &device).require_grad();
            let beta = tensor([24], 5, &device).require_grad();
            let y = if fast {
                let map = |x: &Tensor<4>| Map::from_planar(x.clone(), Precision::F32);
                let y = normalize(map(&x), [&gamma, &beta], activation).plus(map(&residual));
                y.gated(factors.clone()).into_planar()
            } else {
                let y =
                    module::batch_norm_train(x.clone(), gamma.clone(), beta.clone(), 1e-3).output;
                let y = stock_activation(y + residual.clone(), activation);
                y * factors.clone().reshape([3, 24, 1, 1])
            };
            let gradients = (y.clone() * tensor(shape, 6, &device)).sum().backward();
            vec![
                ("y", flat(y)),
                ("dx", gradient(&x, &gradients)),
                ("dresidual", gradient(&residual, &gradients)),
                ("dfactors", gradient(&factors, &gradients)),
                ("dgamma", gradient(&gamma, &gradients)),
                ("dbeta", gradient(&beta, &gradients)),
            ]
        };
        assert_same(Precision::F32, &format!("{activation:?}"), &run(true), &run(false));
    }
}
