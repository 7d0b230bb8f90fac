//! Against Burn's own operations, and a convolution written out, at every vector width.

use super::conv::{self, Geometry};
use super::dispatch::Level;
use super::norm::{self, Extent, Settings};
use super::{batch_norm_relu, conv2d, supports};
use crate::distributed::AllReduce;
use burn::tensor::activation::relu;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, module};
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

/// Largest difference is at most 1e-4 of the largest value.
fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}: length");
    let scale = expected.iter().fold(1e-3_f32, |max, v| max.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(error <= 1e-4, "{name}[{i}]: {found} instead of {expected}, scale {scale}");
    }
}

/// Images, channels in and out, height, width, filter, stride, padding.
const SHAPES: [[usize; 8]; 22] = [
    [4, 3, 16, 32, 32, 3, 1, 1],
    [3, 16, 16, 32, 32, 3, 1, 1],
    [3, 16, 32, 32, 32, 3, 2, 1],
    [5, 32, 32, 16, 16, 3, 1, 1],
    [37, 32, 64, 16, 16, 3, 2, 1],
    [70, 64, 64, 8, 8, 3, 1, 1],
    [3, 16, 32, 32, 32, 1, 2, 0],
    [3, 32, 64, 16, 16, 1, 2, 0],
    [2, 3, 64, 56, 56, 7, 2, 3],
    [2, 3, 10, 33, 35, 7, 2, 3],
    [2, 5, 7, 13, 9, 3, 1, 1],
    [2, 5, 7, 13, 9, 3, 2, 1],
    [2, 5, 7, 12, 10, 3, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 0],
    [1, 2, 3, 5, 4, 3, 1, 0],
    [2, 2, 3, 7, 6, 5, 3, 2],
    [2, 2, 3, 8, 11, 2, 3, 0],
    [2, 4, 4, 6, 6, 1, 1, 1],
    [2, 4, 4, 6, 6, 2, 1, 2],
    [2, 3, 5, 7, 7, 3, 2, 0],
    [2, 8, 16, 14, 14, 1, 1, 0],
    [3, 12, 20, 7, 7, 3, 1, 1],
];

fn geometry([images, c_in, c_out, height, width, filter, stride, pad]: [usize; 8]) -> Geometry {
    Geometry { images, c_in, c_out, height, width, filter, stride, pad }
}

#[test]
fn convolution_and_gradients_match_the_stock_operations() {
    let device = Device::flex().autodiff();
    for shape in SHAPES {
        let [n, i, o, h, w, k, stride, pad] = shape;
        let (height, width) = geometry(shape).output();
        let run = |fast: bool| {
            let x = tensor([n, i, h, w], 1, &device).require_grad();
            let weight = tensor([o, i, k, k], 2, &device).require_grad();
            let y = if fast {
                conv2d(x.clone(), weight.clone(), stride, pad)
            } else {
                let options = ConvOptions {
                    stride: [stride; 2],
                    padding: [(pad, pad); 2],
                    dilation: [1; 2],
                    groups: 1,
                };
                module::conv2d(x.clone(), weight.clone(), None, options)
            };
            let dy = tensor([n, o, height, width], 3, &device);
            let gradients = (y.clone() * dy).sum().backward();
            let dx = x.grad(&gradients).expect("gradient of x");
            let dw = weight.grad(&gradients).expect("gradient of w");
            [flat(y), flat(dx), flat(dw)]
        };
        let (found, expected) = (run(true), run(false));
        for (name, (found, expected)) in ["y", "dx", "dw"].iter().zip(found.iter().zip(&expected)) {
            assert_close(&format!("{shape:?} {name}"), found, expected);
        }
    }
}

#[test]
fn every_vector_width_gives_the_same_convolution() {
    for shape in SHAPES {
        let g = geometry(shape);
        let (height, width) = g.output();
        let x = noise(g.images * g.c_in * g.height * g.width, 4);
        let w = noise(g.c_out * g.c_in * g.filter * g.filter, 5);
        let dy = noise(g.images * g.c_out * height * width, 6);
        let run = |level| {
            [
                conv::forward(level, &g, &x, &w),
                conv::input_gradient(level, &g, &w, &dy),
                conv::weight_gradient(level, &g, &x, &dy),
            ]
        };
        let expected = run(Level::detect());
        for level in Level::available() {
            for (found, expected) in run(level).iter().zip(&expected) {
                assert_close(&format!("{shape:?} {level:?}"), found, expected);
            }
        }
    }
}

#[test]
fn thread_count_does_not_change_a_bit() {
    let device = Device::flex().autodiff();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let x = tensor([37, 8, 16, 16], 1, &device).require_grad();
            let w = tensor([16, 8, 3, 3], 2, &device).require_grad();
            let gamma = tensor([16], 3, &device).require_grad();
            let beta = tensor([16], 4, &device).require_grad();
            let y = conv2d(x.clone(), w.clone(), 1, 1);
            let (y, mean, _) = batch_norm_relu(y, gamma.clone(), beta.clone(), None, true, 1e-3);
            let y = conv2d(y, tensor([16, 16, 3, 3], 5, &device), 2, 1);
            let gradients = (y.clone() * y.clone()).sum().backward();
            let gradient = |t: Option<Vec<f32>>| t.expect("a gradient");
            [
                flat(y),
                flat(mean),
                gradient(x.grad(&gradients).map(flat)),
                gradient(w.grad(&gradients).map(flat)),
                gradient(gamma.grad(&gradients).map(flat)),
                gradient(beta.grad(&gradients).map(flat)),
            ]
        })
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn batch_norm_and_gradients_match_the_stock_operations() {
    let device = Device::flex().autodiff();
    let shapes = [[4, 16, 8, 8], [3, 5, 7, 9], [2, 3, 1, 1], [16, 4, 32, 32], [2, 2, 5, 13]];
    for shape in shapes {
        for (residual, rectify) in [(false, false), (false, true), (true, false), (true, true)] {
            let run = |fast: bool| {
                let x = (tensor(shape, 1, &device) * 3.0 + 5.0).require_grad();
                let gamma = tensor([shape[1]], 2, &device).require_grad();
                let beta = tensor([shape[1]], 3, &device).require_grad();
                let skip = tensor(shape, 4, &device).require_grad();
                let add = residual.then(|| skip.clone());
                let (y, mean, variance) = if fast {
                    batch_norm_relu(x.clone(), gamma.clone(), beta.clone(), add, rectify, 1e-3)
                } else {
                    let out =
                        module::batch_norm_train(x.clone(), gamma.clone(), beta.clone(), 1e-3);
                    let y = match add {
                        Some(skip) => out.output + skip,
                        None => out.output,
                    };
                    (if rectify { relu(y) } else { y }, out.mean, out.variance)
                };
                let gradients = (y.clone() * tensor(shape, 5, &device)).sum().backward();
                let mut parts = vec![
                    ("y", flat(y)),
                    ("mean", flat(mean)),
                    ("variance", flat(variance)),
                    ("dx", flat(x.grad(&gradients).expect("gradient of x"))),
                    ("dgamma", flat(gamma.grad(&gradients).expect("gradient of gamma"))),
                    ("dbeta", flat(beta.grad(&gradients).expect("gradient of beta"))),
                ];
                if residual {
                    let skip = skip.grad(&gradients).expect("gradient of the residual");
                    parts.push(("dresidual", flat(skip)));
                }
                parts
            };
            for ((name, found), (_, expected)) in run(true).iter().zip(&run(false)) {
                let name = format!("{shape:?} residual {residual} relu {rectify}: {name}");
                assert_close(&name, found, expected);
            }
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
    let (channels, pixels) = (5, 63);
    let image = channels * pixels;
    let x: Vec<f32> = noise(7 * image, 1).iter().map(|v| v * 3.0 + 50.0).collect();
    let dy = noise(7 * image, 2);
    let [gamma, beta] = [3, 4].map(|seed| noise(channels, seed));
    // Images first..last; returns y, mean, variance, dx, dγ, dβ.
    let run = |[first, last]: [usize; 2], others: Option<&dyn AllReduce>| {
        let extent = Extent { images: last - first, channels, pixels };
        let settings = Settings { relu: true, epsilon: 1e-3, others };
        let own = first * image..last * image;
        let x = &x[own.clone()];
        let level = Level::detect();
        let (y, mean, variance) = norm::forward(level, &extent, settings, x, [&gamma, &beta], None);
        let mut dy = dy[own].to_vec();
        let saved = [&gamma[..], &mean, &variance];
        let g = norm::backward(level, &extent, settings, x, Some(&y), &mut dy, saved);
        [y, mean, variance, g.dx, g.dgamma, g.dbeta]
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
        assert_close(name, &found, &whole[i]);
    }
}

#[test]
fn variance_survives_a_large_mean() {
    let device = Device::flex();
    let x = tensor([8, 1, 16, 16], 7, &device);
    let ones = || Tensor::<1>::ones([1], &device);
    let variance = |x: Tensor<4>| flat(batch_norm_relu(x, ones(), ones(), None, false, 1e-3).2)[0];
    // Steps of 2⁻¹⁰ stay exact after the shift.
    let x = (x * 1024.0).round() / 1024.0;
    let (near, far) = (variance(x.clone()), variance(x + 4096.0));
    assert!((near / far - 1.0).abs() < 1e-3, "{near} and {far}");
}

#[test]
fn a_gradient_used_twice_is_not_overwritten() {
    // The residual and the output share one gradient where the sum of both is differentiated.
    let device = Device::flex().autodiff();
    let x = tensor([2, 2, 4, 4], 1, &device).require_grad();
    let skip = tensor([2, 2, 4, 4], 2, &device).require_grad();
    let ones = || Tensor::<1>::ones([2], &device);
    let (y, ..) = batch_norm_relu(x, ones(), ones(), None, true, 1e-3);
    let gradients = (y + skip.clone()).sum().backward();
    assert_eq!(flat(skip.grad(&gradients).expect("a gradient")), vec![1.0; 64]);
}

#[test]
fn only_flex_in_f32_is_supported() {
    assert!(supports(&Device::flex()));
    assert!(supports(&Device::flex().autodiff()));
}
