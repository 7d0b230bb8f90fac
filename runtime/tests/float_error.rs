//! Law: convolutions of floats stay within a stated error of the exact sum, in every number format
//! and on every instruction set.

mod one_op;

use artifact::{Clamp, Curve, Dtype, Quant, Shape};
use half::{bf16, f16};
use one_op::{Case, Noise, conv_float, for_each_tap, gated, lookup};
use runtime::workers::{Inline, Threads, Workers};
use runtime::{AlignedBuf, Isa, Model, Session};

/// Largest error of a sum relative to that of its terms' sizes; the weights are exact. Where the CPU
/// multiplies halves, activations are rounded to their 11 or 8 bits, and so by up to 2⁻¹¹ or 2⁻⁸ of
/// themselves, and f16 sums round again.
fn bound(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F16 => (-9f64).exp2(),
        Dtype::Bf16 => (-8f64).exp2(),
        Dtype::F32 | Dtype::I8 => (-20f64).exp2(),
    }
}

/// Partial tiles and panels, channels that leave pairs and chunks of 32 and 64 partly empty.
fn cases() -> Vec<Case> {
    let base = Case::BASE;
    let pointwise = Case { filter: [1, 1], padding: [0; 4], ..base };
    vec![
        Case { residual: true, clamp: Clamp::Relu, ..base },
        Case { input: [13, 11, 3], filter: [7, 7], stride: [2, 2], padding: [3; 4], ..base },
        Case { input: [13, 11, 1], filter: [7, 7], stride: [2, 2], padding: [3; 4], ..base },
        Case { input: [4, 9, 23], c_out: 20, stride: [2, 1], ..base },
        Case { input: [7, 7, 64], c_out: 65, ..base },
        Case { input: [3, 4, 69], c_out: 33, ..base },
        Case { input: [3, 3, 1], ..base },
        Case { input: [6, 5, 100], c_out: 130, ..pointwise },
        Case { input: [1, 1, 513], c_out: 10, ..pointwise },
        Case { input: [8, 8, 7], c_out: 80, clamp: Clamp::Relu, ..pointwise },
        Case { clamp: Clamp::Bounds { low: -1.0, high: 6.0 }, ..base },
        Case { input: [5, 7, 48], c_out: 48, groups: 2, ..base },
        Case { input: [5, 7, 32], c_out: 32, groups: 8, ..base },
        Case { input: [9, 11, 24], c_out: 24, groups: 24, ..base },
        Case { input: [9, 11, 40], c_out: 40, groups: 40, stride: [2, 2], ..base },
        Case { input: [9, 11, 8], c_out: 8, groups: 8, filter: [5, 5], padding: [2; 4], ..base },
        Case { input: [9, 11, 18], c_out: 18, groups: 18, filter: [5, 5], stride: [2, 2], ..base },
        Case { input: [6, 7, 17], c_out: 17, groups: 17, filter: [2, 4], ..base },
    ]
}

/// Runs a file and returns the output of its first operator.
fn first_output(file: &[u8], x: &[f32], isa: Isa, workers: &dyn Workers) -> Vec<f32> {
    output(1, file, x, isa, workers)
}

/// Runs a file and returns a value of it.
fn output(index: usize, file: &[u8], x: &[f32], isa: Isa, workers: &dyn Workers) -> Vec<f32> {
    let file = AlignedBuf::from_slice(file);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa).with_workers(workers);
    let mut input = session.input_mut();
    for (i, x) in x.iter().enumerate() {
        input.set(i, *x);
    }
    let mut out = Vec::new();
    session.run_observed(|seen| {
        if seen.index == index {
            out = seen.iter().collect();
        }
    });
    out
}

#[test]
fn gates_are_products() {
    let mut noise = Noise(8);
    for (shape, in_place, clamp) in [
        (Shape::new(3, 5, 1), false, Clamp::None),
        (Shape::new(7, 2, 20), true, Clamp::Bounds { low: 1.0, high: 6.0 }),
        (Shape::new(1, 1, 33), false, Clamp::Relu),
    ] {
        let x: Vec<f32> = (0..shape.len()).map(|_| noise.unit() * 8.0).collect();
        let c = usize::from(shape.c);
        let largest =
            |i: usize| x.iter().skip(i % c).step_by(c).fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        let want = |(i, x): (usize, &f32)| {
            let y = x * largest(i);
            let [low, high] = clamp.bounds();
            y.max(low).min(high)
        };
        let want: Vec<f32> = x.iter().enumerate().map(want).collect();
        for (dtype, nr) in [(Dtype::F32, 4), (Dtype::F16, 16), (Dtype::Bf16, 16)] {
            let (file, _) = gated(shape, nr, dtype, [Quant::NONE; 2], in_place, clamp);
            let index = if shape.pixels() > 1 { 2 } else { 1 };
            for isa in Isa::available() {
                let got = output(index, &file, &x, isa, &Inline);
                assert_eq!(got, want, "{shape:?} {dtype:?} {}", isa.name());
            }
        }
    }
}

#[test]
fn lookups_are_close_to_the_formula() {
    let shape = Shape::new(11, 23, 8);
    let x: Vec<f32> = (0..shape.len()).map(|i| (i as f32 - 1000.0) / 10.0).collect();
    for curve in Curve::ALL {
        for (dtype, nr, in_place) in [(Dtype::F32, 4, true), (Dtype::F16, 16, false)] {
            let file = lookup(shape, nr, dtype, curve, &[], in_place);
            for isa in Isa::available() {
                let got = output(1, &file, &x, isa, &Inline);
                for (x, got) in x.iter().zip(got) {
                    let want = formula(curve, f64::from(*x));
                    let error = (f64::from(got) - want).abs() / want.abs().max(1.0);
                    assert!(error < (-21f64).exp2(), "{curve:?}({x}) = {got}, not {want}");
                }
            }
        }
    }
}

/// As the curves' documentation says.
fn formula(curve: Curve, x: f64) -> f64 {
    let step = (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match curve {
        Curve::HardSwish => x * step,
        Curve::HardSigmoid => step,
        Curve::Sigmoid => sigmoid,
        Curve::Silu => x * sigmoid,
        Curve::Gelu => x * 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
    }
}

#[test]
fn convolutions_are_close_to_the_formula() {
    let threads = Threads::new(2).unwrap().with_grain(0);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let mut noise = Noise(5);
        let mut worst = vec![0f64; Isa::available().count()];
        for case in cases() {
            let (per_output, outputs) = (case.per_output(), usize::from(case.c_out));
            let weights: Vec<f32> = (0..per_output * outputs)
                .map(|_| match dtype {
                    Dtype::F16 => f16::from_f32(noise.unit()).to_f32(),
                    Dtype::Bf16 => bf16::from_f32(noise.unit()).to_f32(),
                    Dtype::F32 | Dtype::I8 => noise.unit(),
                })
                .collect();
            let bias: Vec<f32> = (0..outputs).map(|_| noise.unit()).collect();
            let len = case.input.iter().map(|d| usize::from(*d)).product();
            let x: Vec<f32> = (0..len).map(|_| noise.unit() * 8.0).collect();
            // The exact sum, and that of its terms' sizes.
            let mut want = Vec::new();
            let (h, w) = (usize::from(case.output().h), usize::from(case.output().w));
            for i in 0..h * w * outputs {
                let (pixel, o) = (i / outputs, i % outputs);
                let mut terms = vec![f64::from(bias[o])];
                for_each_tap(&case, [pixel / w, pixel % w, o], |at, weight| {
                    terms.push(f64::from(x[at]) * f64::from(weights[weight]));
                });
                if case.residual {
                    terms.push(f64::from(x[i]));
                }
                let (sum, size) = terms.iter().fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
                let [low, high] = case.clamp.bounds().map(f64::from);
                want.push((sum.max(low).min(high), size));
            }
            for nr in [4, 16] {
                let file = conv_float(&case, nr, dtype, &weights, &bias);
                for (isa, worst) in Isa::available().zip(&mut worst) {
                    for workers in [&Inline as &dyn Workers, &threads] {
                        let got = first_output(&file, &x, isa, workers);
                        assert_eq!(got.len(), want.len());
                        for (got, (want, size)) in got.iter().zip(&want) {
                            let error = (f64::from(*got) - want).abs() / size;
                            assert!(
                                error <= bound(dtype),
                                "{case:?} {dtype:?} NR {nr} {}: {got} for {want}, off by {error}",
                                isa.name()
                            );
                            *worst = worst.max(error);
                        }
                    }
                }
            }
        }
        for (isa, worst) in Isa::available().zip(worst) {
            println!(
                "{dtype:?} {}: 2^{:.1} of at most 2^{}",
                isa.name(),
                worst.log2(),
                bound(dtype).log2()
            );
        }
    }
}
