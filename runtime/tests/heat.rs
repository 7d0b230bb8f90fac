//! Heat maps: straight from the formula, on every instruction set, and their sums against the scores.

mod one_op;

use artifact::layout::{
    FilterLayout, SCALE_PLANES, ScalePlane, activation_bytes, conv_planes, has_columns,
};
use artifact::writer::{Blob, Contents, write};
use artifact::{
    Clamp, Conv2d, Dtype, Meta, Op, Padding, Place, Pool2d, PoolKind, Preprocess, Quant, Requant,
    Shape, Span,
};
use one_op::{Noise, planes};
use runtime::heat::{HeatError, arena_len};
use runtime::{AlignedBuf, Isa, Model, Session};

const MAP: Quant = Quant { scale: 0.25, zero_point: -3 };
const MEAN: Quant = Quant { scale: 0.2, zero_point: 5 };
const SCORE: Quant = Quant { scale: 8.0, zero_point: 1 };

/// What a step of the weights of output `o` is worth; all formats hold their products.
fn weight_step(o: usize) -> f32 {
    0.5f32.powi(o as i32 % 4)
}

/// A network whose input is the map, and its weights `[classes, channels]` as integers.
struct Network {
    file: Vec<u8>,
    weights: Vec<i8>,
}

/// Pools a map and computes scores, which are written to the map's place.
fn network(shape: [u16; 3], classes: u16, dtype: Dtype, nr: usize, noise: &mut Noise) -> Network {
    let [h, w, c] = shape;
    let is_i8 = dtype == Dtype::I8;
    let place = |offset: usize, shape, quant| {
        let quant = if is_i8 { quant } else { Quant::NONE };
        Place { offset: offset as u32, shape, quant }
    };
    let bytes = |shape| activation_bytes(shape, dtype, nr).unwrap();
    let input = place(0, Shape::new(h, w, c), MAP);
    let scores = Shape::new(1, 1, classes);
    let first = bytes(input.shape).max(bytes(scores));
    let mean = place(first, Shape::new(1, 1, c), MEAN);
    let output = place(0, scores, SCORE);
    let mut arena = first + bytes(mean.shape);
    let pool = Pool2d {
        kind: PoolKind::Average,
        input,
        output: mean,
        filter: [h, w],
        stride: [1, 1],
        padding: Padding::default(),
        requant: Requant::new(f64::from(MAP.scale / MEAN.scale) / f64::from(h * w)).unwrap(),
    };
    let nothing = Span { offset: 0, len: 0 };
    let mut dense = Conv2d {
        input: mean,
        output,
        filter: [1, 1],
        stride: [1, 1],
        padding: Padding::default(),
        lines: 0,
        weights: nothing,
        scratch: None,
        pairs_fit: false,
        params: nothing,
        residual: None,
        clamp: Clamp::None,
    };
    let layout = dense.filter_layout(1, nr, dtype);
    if has_columns(dtype, nr) {
        let len = layout.column_bytes();
        dense.scratch = Some(Span { offset: arena as u32, len: len as u32 });
        arena += len.next_multiple_of(64);
    }
    let weights: Vec<i8> = (0..classes * c).map(|_| noise.i8().clamp(-64, 64)).collect();
    let [packed, params] = packed(layout, &weights);
    let mut blob = Blob::new();
    dense.weights = blob.push(&packed).unwrap();
    dense.params = blob.push(&params).unwrap();
    let labels: Vec<String> = (0..classes).map(|i| format!("class {i}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let meta = Meta {
        name: "head",
        input,
        output,
        preprocess: Preprocess::normalized(h, w, [0.0; 3], [1.0; 3]),
        dataset: "",
        metrics: "",
        tool: "",
        label_count: 0,
    };
    let ops = [Op::Pool2d(pool), Op::Conv2d(dense)];
    let contents = Contents { dtype, nr, arena_len: arena, meta, labels: &labels, ops: &ops, blob };
    Network { file: write(contents).unwrap(), weights }
}

/// Weights `[classes, channels]` as they are packed, and the parameters; no class has a bias.
fn packed(layout: FilterLayout, weights: &[i8]) -> [Vec<u8>; 2] {
    let FilterLayout { c_in: c, c_out: outputs, nr, dtype, .. } = layout;
    let size = dtype.weight_bytes();
    let mut packed = vec![0; layout.len() * size];
    for (i, weight) in weights.iter().enumerate() {
        let real = f32::from(*weight) * weight_step(i / c);
        let bytes = match dtype {
            Dtype::I8 => weight.to_le_bytes().to_vec(),
            Dtype::F32 => real.to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(real).to_le_bytes().to_vec(),
            Dtype::Bf16 => half::bf16::from_f32(real).to_le_bytes().to_vec(),
        };
        let at = layout.index(i / c, 0, 0, i % c) * size;
        packed[at..at + size].copy_from_slice(&bytes);
    }
    let sum = |o: usize| weights[o * c..][..c].iter().map(|w| i32::from(*w)).sum::<i32>();
    let factor = |o| weight_step(o) * MEAN.scale / SCORE.scale;
    let bias = |o| -i32::from(MEAN.zero_point) * sum(o);
    let params = match (dtype, nr) {
        (Dtype::I8, 16) => planes(outputs, nr, SCALE_PLANES, |o, set| {
            if o < outputs {
                set(ScalePlane::Bias as usize, bias(o));
                set(ScalePlane::Scale as usize, factor(o).to_bits().cast_signed());
                set(ScalePlane::WeightSum as usize, sum(o));
            }
        }),
        (Dtype::I8, _) => planes(outputs, nr, conv_planes(dtype, nr), |o, set| {
            let requant = Requant::new(factor(o).into()).unwrap();
            set(2, requant.shift.into());
            if o < outputs {
                set(0, bias(o));
                set(1, requant.multiplier);
            }
        }),
        _ => vec![0; outputs.next_multiple_of(nr)],
    };
    let params: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
    [packed, params]
}

#[test]
fn shares_are_those_of_the_formula() {
    let kinds = [
        (Dtype::I8, 16),
        (Dtype::I8, 4),
        (Dtype::F32, 16),
        (Dtype::F32, 4),
        (Dtype::F16, 16),
        (Dtype::Bf16, 16),
    ];
    let mut noise = Noise(7);
    for (dtype, nr) in kinds {
        for (shape, cells) in [([7, 7, 130], [7, 7]), ([1, 9, 6], [1, 5]), ([20, 16, 64], [7, 8])] {
            let classes = 19;
            let network = network(shape, classes, dtype, nr, &mut noise);
            let file = AlignedBuf::from_slice(&network.file);
            let model = Model::new(&file).unwrap();
            // Where the scores lie, the map cannot stay.
            let len = arena_len(&model).unwrap();
            assert!(len > model.arena_len());
            let mut arena = AlignedBuf::zeroed(len);
            let [h, w, c] = shape.map(usize::from);
            let map: Vec<i8> = (0..h * w * c).map(|_| noise.i8()).collect();
            for isa in Isa::available() {
                let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa);
                session = session.with_heat().unwrap();
                let mut input = session.input_mut();
                for (i, q) in map.iter().enumerate() {
                    input.set(i, MAP.dequantize(*q));
                }
                let scores: Vec<f32> = session.run().iter().collect();
                assert_eq!(session.heat_shape(), Some([h, w]));
                for (class, score) in scores.iter().enumerate() {
                    let weights = &network.weights[class * c..][..c];
                    let want: Vec<i32> = map
                        .chunks_exact(c)
                        .map(|pixel| {
                            let products = pixel.iter().zip(weights);
                            products.map(|(q, w)| (i32::from(*q) + 3) * i32::from(*w)).sum()
                        })
                        .collect();
                    let step = MAP.scale * weight_step(class) / (h * w) as f32;
                    let mut heat = vec![0.0; h * w];
                    session.heat(class, &mut heat).unwrap();
                    let most = want.iter().map(|sum| sum.abs()).max().unwrap() as f32 * step;
                    for (have, want) in heat.iter().zip(&want) {
                        let error = (have - *want as f32 * step).abs();
                        assert!(error <= 1e-5 * most, "{dtype:?}: {have}");
                    }
                    if dtype != Dtype::I8 {
                        // Some CPUs compute in 16 bits.
                        let rounding = if dtype == Dtype::F32 { 1e-5 } else { 1e-2 };
                        let error = (heat.iter().sum::<f32>() - score).abs();
                        assert!(error <= rounding * most * (h * w) as f32, "{dtype:?}: {score}");
                        assert_eq!(session.heat_cells(class), None);
                        continue;
                    }
                    let mut sums = vec![0; cells[0] * cells[1]];
                    let [rows, columns] = [h.div_ceil(8), w.div_ceil(8)];
                    for (i, v) in want.iter().enumerate() {
                        sums[i / w / rows * cells[1] + i % w / columns] += v;
                    }
                    let have = session.heat_cells(class).unwrap();
                    assert_eq!((have.shape(), have.sums()), (cells, &sums[..]), "{}", isa.name());
                }
            }
        }
    }
}

#[test]
fn shares_add_up_to_the_score_of_shipped_models() {
    let mut noise = Noise(11);
    for (name, tolerance) in [
        ("resnet_8_cifar10.edge", 0.25),
        ("resnet_8_cifar10.cortex-m.edge", 0.25),
        ("resnet_20_cifar10.edge", 0.25),
        ("mobilenet_v2.edge", 0.35),
        ("mobilenet_v1_025.edge", 0.35),
    ] {
        let path = format!("{}/../models/{name}", env!("CARGO_MANIFEST_DIR"));
        let file = AlignedBuf::from_slice(&std::fs::read(path).unwrap());
        let model = Model::new(&file).unwrap();
        assert_eq!(arena_len(&model), Ok(model.arena_len()), "the map finds a place");
        let [mut kept, mut plain] = [0, 1].map(|_| AlignedBuf::zeroed(model.arena_len()));
        let mut plain = Session::new(&model, &mut plain).unwrap();
        let mut session = Session::new(&model, &mut kept).unwrap().with_heat().unwrap();
        // The bias falls out of the difference of two pictures.
        let mut biases = Vec::new();
        for _ in 0..2 {
            let values: Vec<f32> =
                (0..session.input_mut().len()).map(|_| f32::from(noise.i8()) / 64.0).collect();
            for (i, v) in values.iter().enumerate() {
                session.input_mut().set(i, *v);
                plain.input_mut().set(i, *v);
            }
            let scores: Vec<f32> = session.run().iter().collect();
            assert!(plain.run().iter().eq(scores.iter().copied()), "{name}");
            let [h, w] = session.heat_shape().unwrap();
            let mut heat = vec![0.0; h * w];
            biases.push([0, 1, 2].map(|class| {
                session.heat(class, &mut heat).unwrap();
                scores[class] - heat.iter().sum::<f32>()
            }));
        }
        for (a, b) in biases[0].iter().zip(biases[1]) {
            assert!((a - b).abs() < tolerance, "{name}: {biases:?}");
        }
    }
}

#[test]
fn what_has_no_heat_maps_is_refused() {
    let case = one_op::Case::BASE;
    let other = one_op::conv_i8(&case, 16, one_op::Fill::Random, &mut Noise(5)).file;
    let other = AlignedBuf::from_slice(&other);
    let model = Model::new(&other).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    let session = Session::new(&model, &mut arena).unwrap();
    assert_eq!(session.heat_shape(), None);
    assert_eq!(session.heat_cells(0), None);
    assert_eq!(session.with_heat().unwrap_err(), HeatError::OtherHead);

    let network = network([4, 4, 16], 3, Dtype::I8, 16, &mut Noise(6));
    let file = AlignedBuf::from_slice(&network.file);
    let model = Model::new(&file).unwrap();
    let (needed, have) = (arena_len(&model).unwrap(), model.arena_len());
    let mut arena = AlignedBuf::zeroed(needed);
    let session = Session::new(&model, &mut arena[..have]).unwrap();
    let refusal = HeatError::ArenaTooSmall { needed, have };
    assert_eq!(session.with_heat().unwrap_err(), refusal);
    let mut session = Session::new(&model, &mut arena).unwrap().with_heat().unwrap();
    session.run();
    assert_eq!(session.heat(3, &mut [0.0; 16]), None);
    assert_eq!(session.heat(0, &mut [0.0; 15]), None);
    assert_eq!(session.heat(0, &mut [0.0; 16]), Some(()));
}
