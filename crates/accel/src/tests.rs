//! Against Burn's own operations and finite differences, at every vector width and number type.

mod depthwise;

use super::{
    Activation, Map, Normalization, Precision, Window, planar, supports, weight, winograd,
};
use crate::conv::{self, Source};
use crate::dispatch::Level;
use crate::element::{Element, LANES};
use crate::frame::Planes;
use crate::geometry::Geometry;
use crate::norm::{self, Extent, Mask, Norm, Others};
use crate::processes::AllReduce;
use burn::tensor::activation::relu;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, module};
use half::bf16;
use std::sync::{Barrier, Mutex};

/// Deterministic values in −1..1.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values = noise(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32 values")
}

fn gradient<const D: usize>(of: &Tensor<D>, gradients: &burn::tensor::Gradients) -> Vec<f32> {
    flat(of.grad(gradients).expect("a gradient"))
}

/// Largest difference is at most `share` of the largest value.
fn assert_within(share: f32, name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}: length");
    let scale = expected.iter().fold(1e-3_f32, |max, v| max.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(error <= share, "{name}[{i}]: {found} instead of {expected}, scale {scale}");
    }
}

fn norm(v: &[f32]) -> f32 {
    v.iter().map(|v| v * v).sum::<f32>().sqrt()
}

/// Cosine of the angle between two directions.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    dot / (norm(a) * norm(b))
}

/// What precisions may differ from f32 by.
const PRECISIONS: [(Precision, f32); 2] = [(Precision::F32, 1e-4), (Precision::Bf16, 2e-2)];

/// Images, channels in and out, height, width, filter, stride, and padding before and after.
const SHAPES: [[usize; 9]; 29] = [
    [4, 3, 16, 32, 32, 3, 1, 1, 1],
    [4, 1, 16, 28, 28, 3, 1, 1, 1],
    [3, 16, 16, 32, 32, 3, 1, 1, 1],
    [3, 16, 32, 32, 32, 3, 2, 1, 1],
    [5, 32, 32, 16, 16, 3, 1, 1, 1],
    [37, 32, 64, 16, 16, 3, 2, 1, 1],
    [70, 64, 64, 8, 8, 3, 1, 1, 1],
    [3, 16, 32, 32, 32, 1, 2, 0, 0],
    [3, 32, 64, 16, 16, 1, 2, 0, 0],
    [2, 3, 64, 56, 56, 7, 2, 3, 3],
    [2, 3, 10, 33, 35, 7, 2, 3, 3],
    [2, 5, 7, 13, 9, 3, 1, 1, 1],
    [2, 5, 7, 13, 9, 3, 2, 1, 1],
    [2, 5, 7, 12, 10, 3, 2, 1, 1],
    [2, 5, 7, 12, 10, 3, 2, 0, 1],
    [1, 1, 1, 1, 1, 1, 1, 0, 0],
    [1, 2, 3, 5, 4, 3, 1, 0, 0],
    [2, 2, 3, 7, 6, 5, 3, 2, 2],
    [2, 2, 3, 8, 11, 2, 3, 0, 0],
    [2, 4, 4, 6, 6, 1, 1, 1, 1],
    [2, 4, 4, 6, 6, 2, 1, 2, 2],
    [2, 3, 5, 7, 7, 3, 2, 0, 0],
    [2, 8, 16, 14, 14, 1, 1, 0, 0],
    [3, 12, 20, 7, 7, 3, 1, 1, 1],
    [2, 40, 48, 57, 57, 3, 1, 1, 1],
    [2, 300, 270, 7, 7, 3, 1, 1, 1],
    [3, 32, 40, 14, 27, 3, 1, 0, 1],
    [19, 50, 33, 8, 7, 3, 1, 2, 2],
    [1, 32, 32, 64, 60, 3, 1, 2, 0],
];

fn window([_, _, _, _, _, filter, stride, before, after]: [usize; 9]) -> Window {
    Window { filter, stride, padding: [(before, after); 2] }
}

fn stock_conv(x: Tensor<4>, w: Tensor<4>, window: &Window) -> Tensor<4> {
    let options = ConvOptions {
        stride: [window.stride; 2],
        padding: window.padding,
        dilation: [1; 2],
        groups: 1,
    };
    module::conv2d(x, w, None, options)
}

#[test]
fn convolution_and_gradients_match_the_stock_operations() {
    let device = Device::flex().autodiff();
    for shape in SHAPES {
        let [n, i, o, h, w, k, ..] = shape;
        let window = window(shape);
        let run = |convolve: &dyn Fn(Tensor<4>, Tensor<4>) -> Tensor<4>| {
            let x = tensor([n, i, h, w], 1, &device).require_grad();
            let weight = tensor([o, i, k, k], 2, &device).require_grad();
            let y = convolve(x.clone(), weight.clone());
            let dy = tensor(y.dims(), 3, &device);
            let gradients = (y.clone() * dy).sum().backward();
            [flat(y), gradient(&x, &gradients), gradient(&weight, &gradients)]
        };
        let expected = run(&|x, w| stock_conv(x, w, &window));
        for (precision, share) in PRECISIONS {
            let map = run(&|x, w| {
                Map::from_planar(x, precision).convolve(w, &window, false).into_planar()
            });
            let pictures =
                run(&|x, w| Map::convolve_pictures(x, w, &window, false, precision).into_planar());
            for (kind, found) in [("map", map), ("pictures", pictures)] {
                for (name, (found, expected)) in
                    ["y", "dx", "dw"].iter().zip(found.iter().zip(&expected))
                {
                    let name = format!("{shape:?} {precision:?} {kind} {name}");
                    assert_within(share, &name, found, expected);
                }
            }
        }
    }
}

/// Convolution and both gradients of one instruction set, from sums over taps or from values at points.
fn convolve_at<E: Element>(level: Level, g: &Geometry, at_points: bool) -> [Vec<f32>; 3] {
    let extent = |channels, planes| Extent { images: g.images, channels, planes };
    let (input, output) = (extent(g.c_in, g.input()), extent(g.c_out, g.output()));
    let blocks = |e: &Extent, seed| {
        planar::to_blocks::<E>(e, &noise(e.images * e.channels * e.planes.pixels(), seed))
    };
    let (x, dy) = (blocks(&input, 4), blocks(&output, 6));
    let w = noise(g.c_out * g.per_filter(), 5);
    let source = Source::Map { values: &x, transform: None };
    let mut none = vec![(); g.images];
    let (y, dx, dw) = if at_points {
        (
            winograd::forward(level, g, source, &w, &mut none, |_, _| {}),
            winograd::input_gradient(level, g, &w, &dy, &mut none, |_, _| {}),
            winograd::weight_gradient(level, g, (&x, None), &dy),
        )
    } else {
        (
            conv::forward(level, g, source, &w, &mut none, |_, _, _| {}),
            conv::input_gradient(level, g, &w, &dy, &mut none, |_, _| {}),
            weight::weight_gradient(level, g, source, &dy),
        )
    };
    [planar::from_blocks::<E>(&output, &y), planar::from_blocks::<E>(&input, &dx), dw.to_vec()]
}

#[test]
fn every_instruction_set_gives_the_same_convolution() {
    for shape in SHAPES {
        let [images, c_in, c_out, height, width, filter, stride, before, after] = shape;
        let out = [height, width].map(|size| (size + before + after - filter) / stride + 1);
        let (size, pad) = ([height, width], [before; 2]);
        let g = Geometry {
            images,
            c_in,
            c_out,
            size,
            out,
            filter,
            stride,
            pad,
            planar: false,
            depthwise: false,
        };
        let expected = convolve_at::<f32>(Level::detect(), &g, false);
        for level in Level::available() {
            for at_points in [false, true].into_iter().take(1 + usize::from(winograd::suits(&g))) {
                let single = convolve_at::<f32>(level, &g, at_points);
                let half = convolve_at::<bf16>(level, &g, at_points);
                let name = format!("{shape:?} {level:?}, at points: {at_points}");
                for i in 0..3 {
                    assert_within(1e-4, &name, &single[i], &expected[i]);
                    assert_within(2e-2, &format!("{name} bf16"), &half[i], &expected[i]);
                }
            }
        }
    }
}

#[test]
fn values_at_points_lose_few_bits() {
    let g = Geometry {
        images: 2,
        c_in: 256,
        c_out: 64,
        size: [28; 2],
        out: [28; 2],
        filter: 3,
        stride: 1,
        pad: [1; 2],
        planar: false,
        depthwise: false,
    };
    let [sums, found] =
        [false, true].map(|at_points| convolve_at::<f32>(Level::detect(), &g, at_points));
    for (name, (found, sums)) in ["y", "dx", "dw"].iter().zip(found.iter().zip(&sums)) {
        assert_within(5e-6, name, found, sums);
    }
}

/// A stem, a block with a shortcut and a pool, as the fast operations compute them.
fn network(
    x: Tensor<4>,
    [stem, first, second]: [&Tensor<4>; 3],
    [gamma, beta]: [&Tensor<1>; 2],
    precision: Precision,
) -> Tensor<2> {
    let window = |filter, stride, pad| Window { filter, stride, padding: [(pad, pad); 2] };
    let normalize = |mut map: Map, activation| {
        let (mean, variance) = map.moments();
        let (gamma, beta) = (gamma.clone(), beta.clone());
        map.normalized(Normalization {
            mean,
            variance,
            gamma,
            beta,
            activation,
            epsilon: 1e-3,
            fixed: false,
        })
    };
    let x = Map::convolve_pictures(x, stem.clone(), &window(3, 1, 1), true, precision);
    let x = normalize(x, Activation::RELU).max_pool(&window(3, 2, 1)).expect("a rectified map");
    let y = normalize(x.clone().convolve(first.clone(), &window(3, 1, 1), true), Activation::RELU);
    let y = normalize(y.convolve(second.clone(), &window(3, 1, 1), true), Activation::RELU);
    y.plus(x).mean()
}

/// The same of Burn's operations.
fn stock_network(
    x: Tensor<4>,
    [stem, first, second]: [&Tensor<4>; 3],
    [gamma, beta]: [&Tensor<1>; 2],
) -> Tensor<2> {
    let window = Window { filter: 3, stride: 1, padding: [(1, 1); 2] };
    let normalize =
        |x: Tensor<4>| module::batch_norm_train(x, gamma.clone(), beta.clone(), 1e-3).output;
    let x = relu(normalize(stock_conv(x, stem.clone(), &window)));
    let mut options = MaxPoolOptions::new([3, 3]);
    options.stride = [2, 2];
    options.padding = [(1, 1); 2];
    let x = module::max_pool2d(x, options);
    let y = relu(normalize(stock_conv(x.clone(), first.clone(), &window)));
    let y = relu(normalize(stock_conv(y, second.clone(), &window)) + x);
    let [n, c, h, w] = y.dims();
    y.reshape([n, c, h * w]).mean_dim(2).reshape([n, c])
}

type Run<'a> = &'a dyn Fn(Tensor<4>, [&Tensor<4>; 3], [&Tensor<1>; 2]) -> Tensor<2>;

/// Output and all gradients of a network.
fn differentiate(
    shape: [usize; 4],
    channels: usize,
    run: Run<'_>,
) -> Vec<(&'static str, Vec<f32>)> {
    let device = Device::flex().autodiff();
    let weight =
        |inputs, seed| (tensor([channels, inputs, 3, 3], seed, &device) * 0.3).require_grad();
    let x = tensor(shape, 1, &device).require_grad();
    let (stem, first, second) = (weight(shape[1], 2), weight(channels, 3), weight(channels, 4));
    let gamma = (tensor([channels], 5, &device) + 1.5).require_grad();
    let beta = tensor([channels], 6, &device).require_grad();
    let y = run(x.clone(), [&stem, &first, &second], [&gamma, &beta]);
    let gradients = (y.clone() * tensor(y.dims(), 7, &device)).sum().backward();
    vec![
        ("y", flat(y)),
        ("dx", gradient(&x, &gradients)),
        ("dw stem", gradient(&stem, &gradients)),
        ("dw first", gradient(&first, &gradients)),
        ("dw second", gradient(&second, &gradients)),
        ("dgamma", gradient(&gamma, &gradients)),
        ("dbeta", gradient(&beta, &gradients)),
    ]
}

#[test]
fn a_network_and_its_gradients_match_the_stock_operations() {
    for (shape, channels) in [([5, 3, 16, 16], 16), ([3, 1, 13, 9], 7), ([4, 3, 30, 34], 40)] {
        let expected = differentiate(shape, channels, &|x, w, n| stock_network(x, w, n));
        let found = differentiate(shape, channels, &|x, w, n| network(x, w, n, Precision::F32));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert_within(1e-4, &format!("{shape:?} {name}"), found, expected);
        }
        // A rounded value may fall on the other side of a ReLU or be another window's largest.
        let found = differentiate(shape, channels, &|x, w, n| network(x, w, n, Precision::Bf16));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let cosine = cosine(found, expected);
            assert!(cosine > 0.98, "{shape:?} bf16 {name}: direction off by {cosine}");
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let device = Device::flex();
    let x = tensor([3, 2, 8, 8], 1, &device);
    let loss = |w: &Tensor<4>, gamma: &Tensor<1>| {
        let others = [tensor([4, 4, 3, 3], 3, &device), tensor([4, 4, 3, 3], 4, &device)];
        let beta = tensor([4], 6, &device);
        let y = network(x.clone(), [w, &others[0], &others[1]], [gamma, &beta], Precision::F32);
        flat(y).iter().zip(noise(12, 7)).map(|(y, d)| f64::from(*y) * f64::from(d)).sum::<f64>()
    };
    let (w, gamma) = (tensor([4, 2, 3, 3], 2, &device), tensor([4], 5, &device) + 1.5);
    let auto = device.clone().autodiff();
    let (dw, dgamma) = {
        let w = tensor([4, 2, 3, 3], 2, &auto).require_grad();
        let gamma = (tensor([4], 5, &auto) + 1.5).require_grad();
        let others = [tensor([4, 4, 3, 3], 3, &auto), tensor([4, 4, 3, 3], 4, &auto)];
        let beta = tensor([4], 6, &auto);
        let x = tensor([3, 2, 8, 8], 1, &auto);
        let y = network(x, [&w, &others[0], &others[1]], [&gamma, &beta], Precision::F32);
        let gradients = (y * tensor([3, 4], 7, &auto)).sum().backward();
        (gradient(&w, &gradients), gradient(&gamma, &gradients))
    };
    // A step that keeps rounding small; kinks of the ReLU may lie within it, hence the median.
    let step = 2e-3;
    let nudged = |values: &[f32], at: usize, by: f32| {
        let mut values = values.to_vec();
        values[at] += by;
        values
    };
    let (w, gamma_values) = (flat(w), flat(gamma.clone()));
    let mut errors = Vec::new();
    let scale = dw.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    for (i, dw) in dw.iter().enumerate() {
        let at = |by| {
            let w = Tensor::from_data(TensorData::new(nudged(&w, i, by), [4, 2, 3, 3]), &device);
            loss(&w, &gamma)
        };
        let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
        errors.push((slope as f32 - dw).abs() / scale);
    }
    for (i, dgamma) in dgamma.iter().enumerate() {
        let at = |by| {
            let values = nudged(&gamma_values, i, by);
            let gamma = Tensor::from_data(TensorData::new(values, [4]), &device);
            loss(&Tensor::from_data(TensorData::new(w.clone(), [4, 2, 3, 3]), &device), &gamma)
        };
        let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
        errors.push((slope as f32 - dgamma).abs() / scale);
    }
    errors.sort_by(f32::total_cmp);
    assert!(errors[errors.len() / 2] < 2e-3, "half of the slopes are off by {errors:?}");
    assert!(errors[errors.len() * 9 / 10] < 2e-2, "slopes are off by {errors:?}");
}

#[test]
fn constant_statistics_have_no_gradient() {
    let device = Device::flex().autodiff();
    let shape = [3, 20, 6, 5];
    let (mean, variance) = (tensor([20], 8, &device), tensor([20], 9, &device).abs() + 0.5);
    let run = |fast: bool| {
        let x = tensor(shape, 1, &device).require_grad();
        let gamma = tensor([20], 2, &device).require_grad();
        let beta = tensor([20], 3, &device).require_grad();
        let y = if fast {
            let norm = Normalization {
                mean: mean.clone(),
                variance: variance.clone(),
                gamma: gamma.clone(),
                beta: beta.clone(),
                activation: Activation::RELU,
                epsilon: 1e-3,
                fixed: true,
            };
            Map::from_planar(x.clone(), Precision::F32).normalized(norm).into_planar()
        } else {
            let wide = |t: Tensor<1>| t.reshape([1, 20, 1, 1]);
            let scale = gamma.clone() / (variance.clone() + 1e-3).sqrt();
            relu((x.clone() - wide(mean.clone())) * wide(scale) + wide(beta.clone()))
        };
        let gradients = (y.clone() * tensor(shape, 5, &device)).sum().backward();
        let of =
            [gradient(&x, &gradients), gradient(&gamma, &gradients), gradient(&beta, &gradients)];
        (flat(y), of)
    };
    let ((y, found), (expected_y, expected)) = (run(true), run(false));
    assert_within(1e-5, "y", &y, &expected_y);
    for (name, (found, expected)) in
        ["dx", "dgamma", "dbeta"].iter().zip(found.iter().zip(&expected))
    {
        assert_within(1e-4, name, found, expected);
    }
}

#[test]
fn thread_count_does_not_change_a_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| {
                // Wide enough for a weight gradient whose channels are shared out.
                differentiate([37, 3, 16, 16], 96, &|x, w, n| network(x, w, n, precision))
            })
        };
        let one = run(1);
        for threads in [2, 3, 5] {
            assert!(run(threads) == one, "{threads} threads in {precision:?}");
        }
    }
}

/// A thread that sums with others as a process does.
#[derive(Debug)]
struct Peer<'a> {
    rank: usize,
    /// What each one brings.
    values: &'a Mutex<Vec<Vec<f64>>>,
    barrier: &'a Barrier,
}

impl AllReduce for Peer<'_> {
    fn sum(&self, values: &mut [f64]) {
        self.values.lock().unwrap()[self.rank] = values.to_vec();
        self.barrier.wait();
        for (i, value) in values.iter_mut().enumerate() {
            *value = self.values.lock().unwrap().iter().map(|v| v[i]).sum();
        }
        self.barrier.wait();
    }

    fn processes(&self) -> usize {
        self.values.lock().unwrap().len()
    }
}

#[test]
fn a_shared_batch_is_normalized_as_a_whole() {
    let channels = 21;
    let planes = Planes { blocks: 2, height: 7, width: 9 };
    let picture = planes.lines() * LANES;
    let x: Vec<f32> = noise(7 * picture, 1).iter().map(|v| v * 3.0 + 50.0).collect();
    let dy = noise(7 * picture, 2);
    let [gamma, beta] = [3, 4].map(|seed| noise(channels, seed));
    // Pictures first..last; returns y, mean, variance, dx, dγ, dβ.
    let run = |[first, last]: [usize; 2], others: Others<'_>| {
        let extent = Extent { images: last - first, channels, planes };
        let own = first * picture..last * picture;
        let (level, x) = (Level::detect(), &x[own.clone()]);
        let moments = norm::moments(level, &extent, others, x);
        let norm = Norm {
            mean: &moments.mean,
            variance: &moments.variance,
            gamma: &gamma,
            beta: &beta,
            epsilon: 1e-3,
            fixed: false,
        };
        let affine = norm.affine();
        let y = norm::apply(level, &extent, &affine, x, None, Activation::RELU);
        let mut dy = dy[own].to_vec();
        let mask = Mask::Output(y.as_chunks().0, [0.0, f32::INFINITY]);
        let parts = norm::masked_sums(level, &extent, &affine, x, mask, &mut dy);
        let slopes = norm.slopes(&extent, &parts, others);
        let dx = norm::input_slopes(level, &extent, &slopes, x, &dy).to_vec();
        let y = y.to_vec();
        [y, moments.mean, moments.variance, dx, slopes.dgamma, slopes.dbeta]
    };
    let shares = [[0, 3], [3, 4], [4, 7]];
    let (values, barrier) = (Mutex::new(vec![Vec::new(); 3]), Barrier::new(3));
    let peer = |rank| Peer { rank, values: &values, barrier: &barrier };
    let parts = std::thread::scope(|scope| {
        let start = |rank: usize| {
            let peer = peer(rank);
            scope.spawn(move || run(shares[rank], Some(&peer)))
        };
        [0, 1, 2].map(start).map(|thread| thread.join().unwrap())
    });
    let whole = run([0, 7], None);
    for (i, name) in ["y", "mean", "variance", "dx", "dgamma", "dbeta"].iter().enumerate() {
        let found: Vec<f32> = match i {
            0 | 3 => parts.iter().flat_map(|part| part[i].clone()).collect(),
            1 | 2 => {
                assert!(parts.iter().all(|part| part[i] == parts[0][i]), "{name}");
                parts[0][i].clone()
            }
            _ => (0..channels).map(|c| parts.iter().map(|part| part[i][c]).sum()).collect(),
        };
        assert_within(1e-4, name, &found, &whole[i]);
    }
}

#[test]
fn variance_survives_a_large_mean() {
    let device = Device::flex();
    let x = tensor([8, 1, 16, 16], 7, &device);
    let variance = |x: Tensor<4>| flat(Map::from_planar(x, Precision::F32).moments().1)[0];
    // Steps of 2⁻¹⁰ stay exact after the shift.
    let x = (x * 1024.0).round() / 1024.0;
    let (near, far) = (variance(x.clone()), variance(x + 4096.0));
    assert!((near / far - 1.0).abs() < 1e-3, "{near} and {far}");
}

#[test]
fn a_gradient_used_twice_is_not_overwritten() {
    // The residual and the output share one gradient where the sum of both is differentiated.
    let device = Device::flex().autodiff();
    let x = tensor([2, LANES, 4, 4], 1, &device).require_grad();
    let skip = tensor([2, LANES, 4, 4], 2, &device).require_grad();
    let ones = || Tensor::<1>::ones([LANES], &device);
    let mut map = Map::from_planar(x, Precision::F32);
    let (mean, variance) = map.moments();
    let norm = Normalization {
        mean,
        variance,
        gamma: ones(),
        beta: ones(),
        activation: Activation::RELU,
        epsilon: 1e-3,
        fixed: false,
    };
    let y = map.normalized(norm).settled();
    let sum = y.plus(Map::from_planar(skip.clone(), Precision::F32)).into_planar();
    let gradients = sum.sum().backward();
    assert_eq!(gradient(&skip, &gradients), vec![1.0; 2 * LANES * 16]);
}

#[test]
fn a_diverged_map_stays_recognizable() {
    let device = Device::flex();
    let mut values = noise(2 * 16 * 36, 1);
    values[5] = f32::NAN;
    let x = Tensor::<4>::from_data(TensorData::new(values, [2, 16, 6, 6]), &device);
    let ones = || Tensor::<1>::ones([16], &device);
    let norm = Normalization {
        mean: ones(),
        variance: ones(),
        gamma: ones(),
        beta: ones(),
        activation: Activation::RELU,
        epsilon: 1e-3,
        fixed: true,
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let map = Map::from_planar(x.clone(), precision).normalized(norm.clone());
        let window = Window { filter: 3, stride: 2, padding: [(1, 1); 2] };
        let pooled = map.max_pool(&window).expect("a rectified map").mean();
        assert!(flat(pooled)[0].is_nan(), "NaN is lost in {precision:?}");
    }
}

#[test]
fn only_flex_in_f32_is_supported() {
    assert!(supports(&Device::flex()));
    assert!(supports(&Device::flex().autodiff()));
}
