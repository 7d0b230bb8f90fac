//! Law: int8 bytes are the formula's, on every instruction set and thread count.

mod one_op;

use artifact::params::ParamsForm;
use artifact::writer::{Statistics, seal, with_known};
use artifact::{Artifact, ArtifactError, Clamp, Curve, Dtype, Quant};
use one_op::{
    Case, Fill, Form, Noise, affine_i8, casts, conv_i8, gated, lookup, reference_conv_i8,
};
use runtime::workers::{Inline, Threads, Workers};
use runtime::{AlignedBuf, Isa, Model, Session, Shape};

const BOUNDS: Clamp = Clamp::Bounds { low: -20.0, high: 70.0 };

/// Depthwise filters that have kernels of their own, and others; panels and tiles that are not full,
/// windows over every border.
fn depthwise() -> Vec<Case> {
    let of = |input: [u16; 3], filter: u16, stride: u16, before: u8, after: u8| Case {
        input,
        c_out: input[2],
        groups: input[2],
        filter: [filter; 2],
        stride: [stride; 2],
        padding: [before, before, after, after],
        ..Case::BASE
    };
    let mut cases = Vec::new();
    for c in [2, 3, 8, 16, 24, 40, 67, 96] {
        cases.extend([of([6, 9, c], 3, 1, 1, 1), of([7, 10, c], 3, 2, 0, 1)]);
    }
    for (size, c) in [([1, 1], 24), ([2, 2], 16), ([3, 1], 8), ([19, 21], 12), ([5, 37], 20)] {
        let [h, w] = size;
        for (filter, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (2, 1), (4, 3)] {
            let after = filter / 2;
            cases.push(of([h, w, c], filter, stride, (filter - 1) as u8 / 2, after as u8));
        }
    }
    // Registers of 64 channels, or of several pixels; windows larger than the map.
    for c in [8, 16, 32, 64, 72, 96, 112, 136, 160] {
        for (h, w) in [(1, 8), (2, 9), (5, 3), (6, 19), (9, 24)] {
            cases.push(of([h, w, c], 3, 1, 1, 1));
            cases.push(Case { clamp: BOUNDS, ..of([h, w, c], 3, 2, 1, 1) });
            cases.push(Case { clamp: Clamp::Relu, ..of([h, w, c], 5, 1, 2, 2) });
            cases.push(of([h, w, c], 5, 2, 2, 2));
        }
    }
    cases.push(Case { residual: true, clamp: Clamp::Relu, ..of([9, 9, 20], 3, 1, 1, 1) });
    cases.push(Case { residual: true, clamp: BOUNDS, ..of([9, 9, 20], 5, 1, 2, 2) });
    cases.push(Case { filter: [3, 5], padding: [1, 2, 1, 2], ..of([6, 7, 18], 3, 1, 1, 1) });
    cases.push(Case { stride: [1, 2], ..of([6, 7, 18], 3, 1, 1, 1) });
    // Too large for a filter of that kind.
    cases.push(of([9, 9, 8], 9, 1, 4, 4));
    cases
}

/// Panels of one group, of several, and across groups; more outputs than inputs and the other way.
fn grouped() -> Vec<Case> {
    let of = |c_in: u16, c_out: u16, groups: u16| Case {
        input: [5, 7, c_in],
        c_out,
        groups,
        ..Case::BASE
    };
    let pointwise = |case: Case| Case { filter: [1, 1], padding: [0; 4], ..case };
    vec![
        of(64, 64, 2),
        of(32, 32, 8),
        of(48, 48, 2),
        of(40, 40, 5),
        of(6, 10, 2),
        of(12, 60, 3),
        of(60, 12, 3),
        of(8, 24, 8),
        pointwise(of(64, 96, 4)),
        pointwise(of(9, 27, 3)),
        Case { stride: [2, 2], clamp: BOUNDS, ..of(96, 96, 6) },
        Case { residual: true, clamp: Clamp::Relu, ..of(64, 64, 4) },
    ]
}

/// Weights of another's network: whose pairs do not fit everywhere, here and there, or hardly
/// anywhere; groups that are more than a word's, or than are looked at; short rows of a filter.
fn quantized_elsewhere() -> Vec<Case> {
    let pointwise = |h: u16, w: u16, c_in: u16, c_out: u16| Case {
        input: [h, w, c_in],
        c_out,
        filter: [1, 1],
        padding: [0; 4],
        ..Case::BASE
    };
    let square =
        |h: u16, w: u16, c_in: u16, c_out: u16| Case { input: [h, w, c_in], c_out, ..Case::BASE };
    let shapes = [
        pointwise(5, 5, 64, 64),
        pointwise(1, 1, 128, 100),
        pointwise(2, 2, 96, 64),
        pointwise(6, 7, 68, 80),
        pointwise(5, 9, 276, 72),
        Case { stride: [2, 2], ..pointwise(9, 11, 132, 64) },
        pointwise(3, 7, 10_300, 16),
        square(6, 7, 64, 128),
        square(7, 7, 24, 20),
        square(9, 9, 5, 33),
        square(6, 7, 28, 64),
        square(6, 7, 26, 80),
        Case { stride: [2, 2], ..square(9, 11, 68, 64) },
        Case { residual: true, clamp: Clamp::Relu, ..square(7, 7, 64, 64) },
        Case { filter: [7, 7], stride: [2, 2], padding: [3; 4], ..square(13, 17, 3, 64) },
        Case { groups: 2, ..square(6, 6, 128, 128) },
        Case { groups: 2, residual: true, ..pointwise(6, 6, 160, 160) },
    ];
    let few = [1, 12, 50, 300];
    shapes.iter().flat_map(|case| few.map(|elsewhere| Case { elsewhere, ..*case })).collect()
}

/// Shapes that straddle the tile edges: 8 and 6 pixels, 1, 2 and 4 panels of 16, groups of 4.
fn cases() -> Vec<Case> {
    let base = Case::BASE;
    let mut cases = vec![
        base,
        Case { residual: true, clamp: Clamp::Relu, ..base },
        Case { residual: true, c_out: 16, filter: [1, 1], padding: [0; 4], ..base },
        Case { input: [9, 9, 3], c_out: 17, stride: [2, 2], clamp: Clamp::Relu, ..base },
        Case { input: [13, 11, 3], filter: [7, 7], stride: [2, 2], padding: [3; 4], ..base },
        Case { input: [9, 9, 1], c_out: 17, clamp: Clamp::Relu, ..base },
        Case { input: [13, 11, 1], filter: [7, 7], stride: [2, 2], padding: [3; 4], ..base },
        Case { input: [1, 1, 64], c_out: 10, filter: [1, 1], padding: [0; 4], ..base },
        Case { input: [4, 4, 5], c_out: 33, padding: [0, 1, 1, 0], ..base },
        Case { input: [6, 3, 2], c_out: 1, filter: [2, 3], padding: [0; 4], ..base },
        Case {
            input: [8, 8, 7],
            c_out: 80,
            filter: [1, 1],
            padding: [0; 4],
            clamp: Clamp::Relu,
            ..base
        },
        Case { input: [7, 7, 64], c_out: 64, residual: true, ..base },
        Case { input: [4, 9, 68], c_out: 20, ..base },
        Case { input: [4, 9, 23], c_out: 20, stride: [2, 1], ..base },
        Case { residual: true, clamp: BOUNDS, ..base },
    ];
    cases.extend(depthwise().into_iter().chain(grouped()));
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
        cases.extend([fast, Case { padding: [0, 1, 2, 1], clamp: Clamp::Relu, ..fast }]);
        cases.push(Case { residual: same, clamp: Clamp::Relu, ..fast });
    }
    let small = cases.clone().into_iter().map(|case| Case { small: true, ..case });
    cases.extend(small);
    cases.extend(quantized_elsewhere());
    cases
}

/// Runs a file and returns the output of its first operator.
fn first_output(file: &[u8], x: &[i8], isa: Isa, workers: &dyn Workers) -> Vec<i8> {
    let file = AlignedBuf::from_slice(file);
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa).with_workers(workers);
    let quant = model.meta().input.quant;
    let mut input = session.input_mut();
    x.iter().enumerate().for_each(|(i, q)| input.set(i, quant.dequantize(*q)));
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
            let forms = [
                (4, Form::Planes),
                (4, Form::Short),
                (16, Form::Planes),
                (16, Form::Scales),
                (16, Form::RoundedScales),
            ];
            for (nr, form) in forms {
                let case = Case { form, ..case };
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
fn scales_are_checked() {
    let case = Case { form: Form::Scales, residual: true, ..Case::BASE };
    let file = conv_i8(&case, 16, Fill::Random, &mut Noise(5)).file;
    let artifact = Artifact::parse(&file).unwrap();
    let conv = *artifact.ops().next().unwrap().conv().unwrap();
    assert_eq!(conv.params_form(16, Dtype::I8), Some(ParamsForm::Scales));
    assert_eq!(artifact.header().version, 8);
    let scale = artifact.header().blob_offset() + conv.params.offset as usize + 16 * 4;
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut file);
        Artifact::parse(&file).map(|_| ())
    };
    let bad = Err(ArtifactError::Quantization { op: 0 });
    // Sums of 144 products and the bias have 22 bits.
    for scale_of in [0.0, f32::MIN_POSITIVE, 1.0, 255.0] {
        assert_eq!(changed(scale, &scale_of.to_le_bytes()), Ok(()), "{scale_of}");
    }
    for scale_of in [256.0, -1.0, -0.0, f32::MAX, f32::INFINITY, f32::NAN] {
        assert_eq!(changed(scale, &scale_of.to_le_bytes()), bad, "{scale_of}");
    }
    assert_eq!(changed(8, &[7]), Err(ArtifactError::Record { op: 0 }));

    let file =
        conv_i8(&Case { form: Form::RoundedScales, ..case }, 16, Fill::Random, &mut Noise(5)).file;
    let artifact = Artifact::parse(&file).unwrap();
    let conv = *artifact.ops().next().unwrap().conv().unwrap();
    assert_eq!(conv.params_form(16, Dtype::I8), Some(ParamsForm::RoundedScales));
    let end = artifact.header().blob_offset() + (conv.params.offset + conv.params.len) as usize;
    let changed = |words: [i32; 2]| {
        let mut file = file.clone();
        file[end - 8..end].copy_from_slice(words.map(i32::to_le_bytes).as_flattened());
        seal(&mut file);
        Artifact::parse(&file).map(|_| ())
    };
    let ratio = |ratio: f32| ratio.to_bits().cast_signed();
    for words in [[ratio(1e-9), -128], [ratio(2e6), 127]] {
        assert_eq!(changed(words), Ok(()), "{words:?}");
    }
    for bad_ratio in [0.0, -1.0, 3e6, f32::INFINITY, f32::NAN] {
        assert_eq!(changed([ratio(bad_ratio), 0]), bad, "{bad_ratio}");
    }
    for zero_point in [-129, 128, i32::MIN] {
        assert_eq!(changed([ratio(1.0), zero_point]), bad, "{zero_point}");
    }
}

/// The weights of a file of one convolution, and its sums of them, where they are stored, in the file.
fn weights_and_sums(file: &[u8]) -> [core::ops::Range<usize>; 2] {
    let artifact = Artifact::parse(file).unwrap();
    let conv = *artifact.ops().next().unwrap().conv().unwrap();
    let (dtype, nr) = (artifact.header().dtype, artifact.header().nr);
    let form = conv.params_form(nr, dtype).unwrap();
    [conv.weights, conv.params].map(|span| {
        let start = artifact.header().blob_offset() + span.offset as usize;
        match (span == conv.params, form) {
            (false, _) => start..start + span.len as usize,
            (true, ParamsForm::Planes) => start + 4 * 16 * 4..start + 5 * 16 * 4,
            (true, _) => start + 2 * 16 * 4..start + 3 * 16 * 4,
        }
    })
}

/// Weights and their sums by which two CPUs would differ: kernels read one and not the other, or weights of
/// channels and rows that do not exist.
#[test]
fn forgeries_give_the_same_bytes_or_none() {
    let threads = Threads::new(2).unwrap().with_grain(0);
    let mut noise = Noise(11);
    let of = |c: u16, groups: u16, filter: u16| Case {
        input: [5, 7, c],
        groups,
        filter: [filter; 2],
        padding: [filter as u8 / 2; 4],
        // One panel.
        c_out: if groups == c { c } else { 12 },
        small: true,
        ..Case::BASE
    };
    // Rows of channels that are packed as one, that are not; groups; filters of each count of rows.
    let mut cases = vec![of(3, 1, 3), of(1, 1, 5), of(67, 1, 1), of(65, 1, 3), of(6, 3, 3)];
    cases.extend([1, 2, 3, 5, 7].map(|filter| of(11, 11, filter)));
    let (mut accepted, mut refused) = (0, 0);
    for case in cases {
        for (nr, form) in [(4, Form::Planes), (16, Form::Planes), (16, Form::Scales)] {
            let whole = conv_i8(&Case { form, ..case }, nr, Fill::Random, &mut noise).file;
            let [weights, sums] = weights_and_sums(&whole);
            let x: Vec<i8> = (0..5 * 7 * case.input[2]).map(|_| noise.i8()).collect();
            for i in 0..120 {
                let at = match i % 4 {
                    // The last ones are those that may not exist.
                    0 => weights.end - 1 - noise.below(weights.len().min(64)),
                    _ => weights.start + noise.below(weights.len()),
                };
                let mut file = AlignedBuf::from_slice(&whole);
                let by = if file[at].cast_signed() < 0 { 1 } else { -1 };
                file[at] = file[at].wrapping_add_signed(by);
                let sum = sums.start + (at - weights.start) % 64 / 4 * 4;
                if nr == 16 && noise.below(4) > 0 {
                    let word = &mut file[sum..sum + 4];
                    let sum = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    word.copy_from_slice(&(sum + i32::from(by)).to_le_bytes());
                }
                seal(&mut file);
                if Model::new(&file).is_err() {
                    refused += 1;
                    continue;
                }
                accepted += 1;
                let mut want: Option<Vec<i8>> = None;
                for isa in Isa::available() {
                    for workers in [&Inline as &dyn Workers, &threads] {
                        let got = first_output(&file, &x, isa, workers);
                        let want = want.get_or_insert_with(|| got.clone());
                        assert_eq!(got, *want, "{case:?} NR {nr}, byte {at}: {}", isa.name());
                    }
                }
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

#[test]
fn short_parameters_are_checked() {
    let case = Case { form: Form::Short, small: true, residual: true, ..Case::BASE };
    let file = conv_i8(&case, 4, Fill::Random, &mut Noise(5)).file;
    let artifact = Artifact::parse(&file).unwrap();
    let conv = *artifact.ops().next().unwrap().conv().unwrap();
    assert_eq!(conv.params_form(4, Dtype::I8), Some(ParamsForm::Short(16)));
    assert_eq!(artifact.header().version, 7);
    let blob = artifact.header().blob_offset() + conv.params.offset as usize;
    let changed = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        seal(&mut file);
        Artifact::parse(&file).map(|_| ())
    };
    // Multipliers and factors begin behind biases of a pair, and behind all pairs.
    let [multiplier, factor] = [blob + 8, blob + 16 * 8];
    let bad = Err(ArtifactError::Quantization { op: 0 });
    assert_eq!(changed(blob, 22), Ok(()));
    assert_eq!(changed(blob, 23), bad);
    assert_eq!(changed(multiplier + 3, 0x80), bad);
    assert_eq!(changed(factor + 3, 1), bad);
    assert_eq!(changed(8, 6), Err(ArtifactError::Record { op: 0 }));
}

#[test]
#[should_panic(expected = "Quantization")]
fn sums_beyond_those_of_winograd_are_refused() {
    let case = Case { input: [4, 4, 128], winograd: true, ..cases()[0] };
    conv_i8(&case, 16, Fill::Highest, &mut Noise(3));
}

#[test]
fn sums_of_one_sign_may_be_those_of_winograd() {
    let base = Case { input: [10, 6, 224], c_out: 16, winograd: true, ..Case::BASE };
    let case = Case { opposed: true, clamp: Clamp::Relu, ..base };
    let mut noise = Noise(7);
    for fill in [Fill::Highest, Fill::Lowest] {
        let model = conv_i8(&case, 16, fill, &mut noise);
        assert_eq!(Artifact::parse(&model.file).unwrap().header().version, 8);
        let mut older = model.file.clone();
        older[8] = 7;
        seal(&mut older);
        assert!(matches!(Artifact::parse(&older), Err(ArtifactError::Quantization { op: 0 })));
        // The largest and the smallest sums there are.
        for first in [-128, 127] {
            let x: Vec<i8> = [first, -1 - first].repeat(10 * 6 * 112);
            let want = reference_conv_i8(&case, &model, &x);
            for isa in Isa::available() {
                assert_eq!(first_output(&model.file, &x, isa, &Inline), want, "{}", isa.name());
            }
        }
    }
}

#[test]
fn affines_equal_the_formula() {
    let mut noise = Noise(2);
    for (channels, clamp) in [(1, Clamp::None), (16, Clamp::Relu), (20, BOUNDS), (64, Clamp::Relu)]
    {
        for nr in [4, 16] {
            let shape = Shape::new(3, 5, channels);
            let (file, op, values) = affine_i8(shape, nr, clamp, &mut noise);
            let x: Vec<i8> = (0..shape.len()).map(|_| noise.i8()).collect();
            let [low, high] = clamp.bytes(op.output.quant).map(i32::from);
            let want: Vec<i8> = x
                .iter()
                .enumerate()
                .map(|(i, x)| {
                    let [a, b] = values[i % usize::from(channels)];
                    let steps = (i32::from(*x) - i32::from(op.input.quant.zero_point)) * a + b;
                    let y = i32::from(op.output.quant.zero_point) + ((steps + (1 << 11)) >> 12);
                    y.max(low).min(high) as i8
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
    for (shape, in_place, clamp) in [
        (Shape::new(3, 5, 1), false, Clamp::None),
        (Shape::new(3, 5, 16), true, Clamp::Relu),
        (Shape::new(7, 2, 20), true, BOUNDS),
        (Shape::new(19, 17, 67), false, Clamp::Relu),
        (Shape::new(1, 1, 33), false, Clamp::None),
    ] {
        for (nr, fill) in [4, 16].into_iter().flat_map(|nr| Fill::ALL.map(|fill| (nr, fill))) {
            let quants = [-3, 11].map(|zero_point| Quant { scale: 1.0, zero_point });
            let (file, op) = gated(shape, nr, Dtype::I8, quants, in_place, clamp);
            let x: Vec<i8> = (0..shape.len()).map(|_| fill.i8(&mut noise)).collect();
            let c = usize::from(shape.c);
            let largest = |i: usize| x.iter().skip(i % c).step_by(c).max().map_or(0, |q| *q);
            let real = |q: i8| i32::from(q) + 3;
            let want = |(i, q): (usize, &i8)| {
                let y = op.requant.apply(real(*q) * real(largest(i)));
                let [low, high] = clamp.bytes(op.output.quant).map(i32::from);
                (y + 11).max(low).min(high) as f32 - 11.0
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

#[test]
fn lookups_are_the_table() {
    let threads = Threads::new(2).unwrap().with_grain(0);
    let mut noise = Noise(9);
    let table: Vec<u8> = (0..256).map(|_| noise.i8().cast_unsigned()).collect();
    for (shape, in_place) in [(Shape::new(9, 31, 7), true), (Shape::new(16, 16, 8), false)] {
        for nr in [4, 16] {
            let file = lookup(shape, nr, Dtype::I8, Curve::Silu, &table, in_place);
            let x: Vec<i8> = (0..shape.len()).map(|i| i as i8).collect();
            let want: Vec<i8> =
                x.iter().map(|q| table[usize::from(q.cast_unsigned())].cast_signed()).collect();
            for isa in Isa::available() {
                for workers in [&Inline as &dyn Workers, &threads] {
                    assert_eq!(first_output(&file, &x, isa, workers), want, "{}", isa.name());
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
fn distances_equal_the_formula() {
    let threads = Threads::new(2).unwrap().with_grain(0);
    let mut noise = Noise(12);
    for (c_out, rows) in [(1, 1), (20, 3), (300, 2), (515, 1)] {
        let base = Case { input: [3, 3, 4], c_out, padding: [0; 4], ..Case::BASE };
        for (nr, fill) in [4, 16].into_iter().flat_map(|nr| Fill::ALL.map(|fill| (nr, fill))) {
            let model = conv_i8(&base, nr, fill, &mut noise);
            let x: Vec<i8> = (0..36).map(|_| fill.i8(&mut noise)).collect();
            // What the last operator, a pool of one pixel, reads.
            let features = reference_conv_i8(&base, &model, &x);
            let means: Vec<i8> = (0..rows * features.len()).map(|_| fill.i8(&mut noise)).collect();
            let weights: Vec<u8> = features.iter().map(|_| noise.byte() | 1).collect();
            let row = |means: &[i8]| -> u64 {
                let terms = features.iter().zip(means).zip(&weights);
                terms.map(|((&x, &m), &w)| u64::from(x.abs_diff(m)).pow(2) * u64::from(w)).sum()
            };
            let want = means.chunks(features.len()).map(row).min();
            let known = Statistics {
                means: means.clone(),
                weights: weights.clone(),
                threshold: 5,
                usual: 7,
            };
            let file = AlignedBuf::from_slice(&with_known(&model.file, &known).unwrap());
            let model = Model::new(&file).unwrap();
            let mut arena = AlignedBuf::zeroed(model.arena_len());
            for isa in Isa::available() {
                for workers in [&Inline as &dyn Workers, &threads] {
                    let session = Session::new(&model, &mut arena).unwrap();
                    let mut session = session.with_isa(isa).with_workers(workers);
                    let quant = model.meta().input.quant;
                    let mut input = session.input_mut();
                    x.iter().enumerate().for_each(|(i, q)| input.set(i, quant.dequantize(*q)));
                    session.run();
                    let found = session.distance().unwrap();
                    assert_eq!(Some(found.value), want, "{c_out} {fill:?} NR {nr} {}", isa.name());
                    assert_eq!((found.threshold, found.usual), (5, 7));
                    assert_eq!(found.is_known(), found.value <= 5);
                }
            }
        }
    }
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
