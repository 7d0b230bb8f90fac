//! Law: int8 bytes are the formula's, on every instruction set and thread count.

mod one_op;

use artifact::{Dtype, Quant};
use one_op::{Case, Fill, Noise, affine_i8, casts, conv_i8, gated, reference_conv_i8};
use runtime::workers::{Inline, Threads, Workers};
use runtime::{AlignedBuf, Isa, Model, Session, Shape};

/// Shapes that straddle the tile edges: 8 and 6 pixels, 1, 2 and 4 panels of 16, groups of 4.
fn cases() -> Vec<Case> {
    let base = Case::BASE;
    let mut cases = vec![
        base,
        Case { residual: true, relu: true, ..base },
        Case { residual: true, c_out: 16, filter: [1, 1], padding: [0; 4], ..base },
        Case { input: [9, 9, 3], c_out: 17, stride: [2, 2], relu: true, ..base },
        Case { input: [13, 11, 3], filter: [7, 7], stride: [2, 2], padding: [3; 4], ..base },
        Case { input: [9, 9, 1], c_out: 17, relu: true, ..base },
        Case { input: [13, 11, 1], filter: [7, 7], stride: [2, 2], padding: [3; 4], ..base },
        Case { input: [1, 1, 64], c_out: 10, filter: [1, 1], padding: [0; 4], ..base },
        Case { input: [4, 4, 5], c_out: 33, padding: [0, 1, 1, 0], ..base },
        Case { input: [6, 3, 2], c_out: 1, filter: [2, 3], padding: [0; 4], ..base },
        Case { input: [8, 8, 7], c_out: 80, filter: [1, 1], padding: [0; 4], relu: true, ..base },
        Case { input: [7, 7, 64], c_out: 64, residual: true, ..base },
        Case { input: [4, 9, 68], c_out: 20, ..base },
        Case { input: [4, 9, 23], c_out: 20, stride: [2, 1], ..base },
    ];
    for c_out in [1, 15, 16, 31, 48, 63, 64, 65, 100, 128] {
        cases.push(Case { c_out, input: [3, 5, 4], ..base });
    }
    for width in 1..=20 {
        cases.push(Case { input: [2, width, 8], c_out: 20, ..base });
    }
    // Whole and partial tiles and groups of tiles, several bands; sums close to what is allowed.
    for (input, c_out) in [
        ([1, 1, 16], 16),
        ([4, 4, 16], 16),
        ([5, 7, 32], 48),
        ([14, 14, 48], 16),
        ([60, 9, 16], 32),
        ([9, 45, 16], 16),
        ([10, 6, 112], 16),
    ] {
        let fast = Case { input, c_out, winograd: true, ..base };
        let same = c_out == input[2];
        cases.extend([fast, Case { padding: [0, 1, 2, 1], relu: true, ..fast }]);
        cases.push(Case { residual: same, relu: true, ..fast });
    }
    let small = cases.clone().into_iter().map(|case| Case { small: true, ..case });
    cases.extend(small);
    cases
}

/// Runs a file and returns the output of its first operator.
fn first_output(file: &[u8], x: &[i8], isa: Isa, workers: &dyn Workers) -> Vec<i8> {
    let file = AlignedBuf::from_slice(file);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa).with_workers(workers);
    let zero_point = i32::from(model.meta().input.quant.zero_point);
    let mut input = session.input_mut();
    for (i, q) in x.iter().enumerate() {
        input.set(i, (i32::from(*q) - zero_point) as f32);
    }
    let mut out = Vec::new();
    session.run_observed(|seen| {
        if seen.index == 1 {
            let zero_point = f32::from(seen.place.quant.zero_point);
            out = seen.iter().map(|v| (v + zero_point) as i8).collect();
        }
    });
    out
}

#[test]
fn convolutions_equal_the_formula() {
    // However small the work, so that there is something to compare.
    let threads = Threads::new(2).unwrap().with_grain(0);
    let mut noise = Noise(1);
    for case in cases() {
        for fill in Fill::ALL {
            for nr in [4, 16] {
                let model = conv_i8(&case, nr, fill, &mut noise);
                let len = case.input.iter().map(|d| usize::from(*d)).product::<usize>();
                let x: Vec<i8> = (0..len).map(|_| fill.i8(&mut noise)).collect();
                let want = reference_conv_i8(&case, &model, &x);
                for isa in Isa::available() {
                    for workers in [&Inline as &dyn Workers, &threads] {
                        let got = first_output(&model.file, &x, isa, workers);
                        let threads = workers.threads();
                        assert_eq!(
                            got,
                            want,
                            "{case:?} {fill:?} NR {nr} {} × {threads}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "Quantization")]
fn sums_beyond_those_of_winograd_are_refused() {
    let case = Case { input: [4, 4, 128], winograd: true, ..cases()[0] };
    conv_i8(&case, 16, Fill::Highest, &mut Noise(3));
}

#[test]
fn affines_equal_the_formula() {
    let mut noise = Noise(2);
    for (channels, relu) in [(1, false), (16, true), (20, false), (64, true)] {
        for nr in [4, 16] {
            let shape = Shape::new(3, 5, channels);
            let (file, op, values) = affine_i8(shape, nr, relu, &mut noise);
            let x: Vec<i8> = (0..shape.len()).map(|_| noise.i8()).collect();
            let low = if relu { i32::from(op.output.quant.zero_point) } else { -128 };
            let want: Vec<i8> = x
                .iter()
                .enumerate()
                .map(|(i, x)| {
                    let [a, b] = values[i % usize::from(channels)];
                    let steps = (i32::from(*x) - i32::from(op.input.quant.zero_point)) * a + b;
                    let y = i32::from(op.output.quant.zero_point) + ((steps + (1 << 11)) >> 12);
                    y.clamp(low, 127) as i8
                })
                .collect();
            for isa in Isa::available() {
                assert_eq!(first_output(&file, &x, isa, &Inline), want, "{}", isa.name());
            }
        }
    }
}

#[test]
fn gates_equal_the_formula() {
    let threads = Threads::new(2).unwrap().with_grain(0);
    let mut noise = Noise(6);
    for (shape, in_place, relu) in [
        (Shape::new(3, 5, 1), false, false),
        (Shape::new(3, 5, 16), true, true),
        (Shape::new(7, 2, 20), true, false),
        (Shape::new(19, 17, 67), false, true),
        (Shape::new(1, 1, 33), false, false),
    ] {
        for (nr, fill) in [4, 16].into_iter().flat_map(|nr| Fill::ALL.map(|fill| (nr, fill))) {
            let quants = [-3, 11].map(|zero_point| Quant { scale: 1.0, zero_point });
            let (file, op) = gated(shape, nr, Dtype::I8, quants, in_place, relu);
            let x: Vec<i8> = (0..shape.len()).map(|_| fill.i8(&mut noise)).collect();
            let c = usize::from(shape.c);
            let largest = |i: usize| x.iter().skip(i % c).step_by(c).max().map_or(0, |q| *q);
            let real = |q: i8| i32::from(q) + 3;
            let want = |(i, q): (usize, &i8)| {
                let y = op.requant.apply(real(*q) * real(largest(i)));
                y.clamp(if relu { 0 } else { -128 - 11 }, 127 - 11) as f32
            };
            let want: Vec<f32> = x.iter().enumerate().map(want).collect();
            let reals: Vec<f32> = x.iter().map(|q| real(*q) as f32).collect();
            for isa in Isa::available() {
                for workers in [&Inline as &dyn Workers, &threads] {
                    let got = outputs(&file, &reals, isa, workers);
                    assert_eq!(got[got.len() - 2], want, "{shape:?} {fill:?} {nr} {}", isa.name());
                }
            }
        }
    }
}

/// All values of a file of real numbers.
fn outputs(file: &[u8], x: &[f32], isa: Isa, workers: &dyn Workers) -> Vec<Vec<f32>> {
    let file = AlignedBuf::from_slice(file);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa).with_workers(workers);
    let mut input = session.input_mut();
    x.iter().enumerate().for_each(|(i, v)| input.set(i, *v));
    let mut seen = Vec::new();
    session.run_observed(|value| seen.push(value.iter().collect()));
    seen
}

#[test]
fn this_machine_is_named() {
    let names: Vec<&str> = Isa::available().map(Isa::name).collect();
    println!("instruction sets tested: {}", names.join(", "));
    assert_eq!(names.last(), Some(&"scalar"));
}

#[test]
fn casts_equal_the_formula() {
    let threads = Threads::new(2).unwrap().with_grain(0);
    let mut noise = Noise(4);
    let quants = [(0.5, -3), (0.37, 11)].map(|(scale, zero_point)| Quant { scale, zero_point });
    for (shape, nr) in [(Shape::new(3, 5, 7), 4), (Shape::new(19, 17, 16), 16)] {
        let file = AlignedBuf::from_slice(&casts(shape, nr, quants));
        let model = Model::new(&file).unwrap();
        let x: Vec<f32> = (0..shape.len()).map(|_| quants[0].dequantize(noise.i8())).collect();
        let want: Vec<f32> =
            x.iter().map(|v| quants[1].dequantize(quants[1].quantize(*v))).collect();
        for isa in Isa::available() {
            for workers in [&Inline as &dyn Workers, &threads] {
                let mut arena = AlignedBuf::zeroed(model.arena_len());
                let session = Session::new(&model, &mut arena).unwrap();
                let mut session = session.with_isa(isa).with_workers(workers);
                let mut input = session.input_mut();
                x.iter().enumerate().for_each(|(i, v)| input.set(i, *v));
                let mut seen: Vec<Vec<f32>> = Vec::new();
                session.run_observed(|value| seen.push(value.iter().collect()));
                assert_eq!(seen[1], x, "to floats, {}", isa.name());
                assert_eq!(seen[2], want, "to int8, {}", isa.name());
            }
        }
    }
}
