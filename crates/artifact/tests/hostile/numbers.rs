//! Numbers that would leave the accumulator, or that are none.

use crate::small_model::{
    AFFINE, AVERAGE_POOL, DENSE, IN_PLACE_RESIDUAL, OTHER_RESIDUAL, Parts, STEM,
};
use crate::{refused, refuses, refuses_of, sound};
use artifact::ArtifactError::{Geometry, Meta, Operand, Quantization};
use artifact::layout::ConvPlane;
use artifact::writer::seal;
use artifact::{Artifact, Cast, Dtype, Op, Place, PoolKind, Quant, Shape};

#[test]
fn scales_that_are_no_steps() {
    let bad = [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40];
    for scale in bad {
        refuses(Meta, |p| p.input.quant.scale = scale);
        refuses(Operand { op: STEM }, |p| p.conv(STEM).output.quant.scale = scale);
        refuses(Operand { op: OTHER_RESIDUAL }, |p| {
            if let Some(residual) = &mut p.conv(OTHER_RESIDUAL).residual {
                residual.input.quant.scale = scale;
            }
        });
    }
}

#[test]
fn preprocessing_that_is_no_number_or_empty() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refuses(Meta, |p| p.preprocess.scale[1] = bad);
        refuses(Meta, |p| p.preprocess.offset[2] = bad);
    }
    refuses(Meta, |p| p.preprocess.scale[0] = 0.0);
    for size in [0, 3, 5, u16::MAX] {
        refuses(Meta, |p| p.preprocess.height = size);
        refuses(Meta, |p| p.preprocess.width = size);
    }
}

#[test]
fn shifts_and_multipliers_out_of_range() {
    let set = |plane: ConvPlane, value| {
        refused(move |p: &mut Parts| {
            let params = p.conv(STEM).params;
            p.set_param(params, plane as usize, 1, value);
        })
    };
    let error = Quantization { op: STEM };
    for shift in [0, -1, 63, 64, 256 + 30, i32::MIN, i32::MAX] {
        assert_eq!(set(ConvPlane::Shift, shift), error, "{shift}");
    }
    for multiplier in [-1, i32::MIN] {
        assert_eq!(set(ConvPlane::Multiplier, multiplier), error);
    }
    for factor in [-1, i32::MIN, artifact::MAX_RESIDUAL_FACTOR, i32::MAX] {
        assert_eq!(set(ConvPlane::Residual, factor), error);
    }
    for shift in [25, 31, 32, 255] {
        refuses(Quantization { op: OTHER_RESIDUAL }, |p| {
            if let Some(residual) = &mut p.conv(OTHER_RESIDUAL).residual {
                residual.shift = shift;
            }
        });
        refuses(Quantization { op: AFFINE }, |p| p.affine(AFFINE).shift = shift);
    }
    refuses(Quantization { op: AFFINE }, |p| p.affine(AFFINE).shift = 0);
    for shift in [0, 63, 255] {
        refuses(Quantization { op: AVERAGE_POOL }, |p| p.pool(AVERAGE_POOL).requant.shift = shift);
    }
    refuses(Quantization { op: AVERAGE_POOL }, |p| p.pool(AVERAGE_POOL).requant.multiplier = -1);
}

#[test]
fn pairs_of_weights_that_do_not_fit() {
    // The two are neighbours, and nobody else's sum is checked.
    let set = |pair: [i8; 2], pairs_fit| {
        let mut parts = sound();
        let conv = parts.conv(STEM);
        conv.pairs_fit = pairs_fit;
        let (at, len) = (conv.weights.offset as usize, conv.weights.len as usize);
        let weights = &mut parts.blob[at..at + len];
        for w in weights.iter_mut() {
            *w = w.cast_signed().clamp(-64, 64).cast_unsigned();
        }
        weights[..2].copy_from_slice(&pair.map(i8::cast_unsigned));
        parts.file().map(|_| ())
    };
    let error = Err(Quantization { op: STEM });
    for pair in [[64, 65], [-64, -65], [127, 2], [127, 127]] {
        assert_eq!(set(pair, true), error, "{pair:?}");
        assert_eq!(set(pair, false), Ok(()), "{pair:?}");
    }
}

#[test]
fn sums_that_are_not_those_of_the_weights() {
    for op in [STEM, OTHER_RESIDUAL, DENSE] {
        let last = usize::from(Parts::sound(Dtype::I8, 16).conv(op).output.shape.c) - 1;
        for channel in [0, last] {
            refuses_of(Quantization { op }, Parts::sound(Dtype::I8, 16), |p| {
                let params = p.conv(op).params;
                p.set_param(params, ConvPlane::WeightSum as usize, channel, 128 * 1000);
            });
        }
        // A weight of the first output.
        refuses_of(Quantization { op }, Parts::sound(Dtype::I8, 16), |p| {
            let at = p.conv(op).weights.offset as usize;
            p.blob[at] = if p.blob[at] == 5 { 6 } else { 5 };
        });
    }
}

#[test]
fn weights_of_channels_that_do_not_exist() {
    // Nine numbers of a row are packed as twelve.
    for nr in [4, 16] {
        let at = if nr == 4 { 2 * 8 + 2 } else { 2 * 64 + 1 };
        refuses_of(Quantization { op: STEM }, Parts::sound(Dtype::I8, nr), |p| {
            let conv = p.conv(STEM);
            assert!(!conv.filter_layout(1, nr, Dtype::I8).c_in.is_multiple_of(4));
            let at = conv.weights.offset as usize + at;
            assert_eq!(p.blob[at], 0);
            p.blob[at] = 1;
            if nr == 16 {
                let params = p.conv(STEM).params;
                let sum = params.offset as usize + ConvPlane::WeightSum as usize * nr * 4;
                let sum = i32::from_le_bytes(p.blob[sum..sum + 4].try_into().unwrap());
                p.set_param(params, ConvPlane::WeightSum as usize, 0, sum + 1);
            }
        });
    }
}

#[test]
fn biases_that_leave_the_accumulator() {
    let taps = 3 * 3 * 3;
    for bias in [i32::MAX, i32::MIN, i32::MIN + 1, i32::MAX - taps * (1 << 14)] {
        for op in [STEM, OTHER_RESIDUAL, IN_PLACE_RESIDUAL] {
            refuses(Quantization { op }, |p| {
                let params = p.conv(op).params;
                p.set_param(params, ConvPlane::Bias as usize, 0, bias);
            });
        }
    }
    // The largest that is safe.
    let mut parts = sound();
    let params = parts.conv(STEM).params;
    let largest = i32::MAX - taps * (1 << 14) - 1;
    parts.set_param(params, ConvPlane::Bias as usize, 0, largest);
    assert!(parts.file().is_ok());
    for value in [1 << 29, i32::MAX, i32::MIN] {
        refuses(Quantization { op: AFFINE }, |p| {
            let params = p.affine(AFFINE).params;
            p.set_param(params, 1, 0, value);
        });
        refuses(Quantization { op: AFFINE }, |p| {
            let params = p.affine(AFFINE).params;
            p.set_param(params, 0, 0, value);
        });
    }
}

#[test]
fn a_weight_without_a_negative() {
    let set = |at: u32| {
        refused(move |p| {
            let weights = p.conv(OTHER_RESIDUAL).weights;
            p.blob[(weights.offset + at.min(weights.len - 1)) as usize] = 0x80;
        })
    };
    for at in [0, 1, u32::MAX] {
        assert_eq!(set(at), Quantization { op: OTHER_RESIDUAL });
    }
}

#[test]
fn pooling_that_changes_the_quantization() {
    refuses(Quantization { op: AVERAGE_POOL }, |p| {
        p.pool(AVERAGE_POOL).kind = PoolKind::Max;
    });
}

#[test]
fn float_models_with_weights_that_are_no_numbers() {
    // Refusing them is the converter's task; reading them must only do no harm.
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let mut parts = Parts::sound(dtype, 4);
        let weights = parts.conv(STEM).weights;
        parts.blob[..weights.len as usize].fill(0xff);
        assert!(parts.file().is_ok());
    }
}

#[test]
fn number_formats_meet_in_casts_only() {
    for nr in [4, 16] {
        let sound = Parts::mixed(nr);
        let has_floats = |parts: &Parts| {
            let file = parts.file().unwrap();
            artifact::Header::parse(&file).unwrap().has_floats
        };
        assert!(has_floats(&sound) && !has_floats(&Parts::sound(Dtype::I8, nr)));
        let refused = |spoil: &dyn Fn(&mut Parts)| {
            let mut parts = sound.clone();
            spoil(&mut parts);
            parts.file().unwrap_err()
        };
        let (first, summed) = (1, 2);
        let [stem, read] = [&sound.ops[first].input(), &sound.ops[first].output()].map(|p| *p);
        let quantization = |op| Quantization { op };
        assert_eq!(refused(&|p| p.conv(summed).input = stem), quantization(summed));
        assert_eq!(
            refused(&|p| p.conv(summed).residual.as_mut().unwrap().input = stem),
            quantization(summed)
        );
        assert_eq!(refused(&|p| p.pool(4).output.quant.scale = 0.5), quantization(4));
        // What is written over itself, and what is neither a float nor a scale.
        let cast = |p: &mut Parts, output: Place| {
            p.ops[first] = Op::Cast(Cast { input: stem, output });
        };
        let operand = Operand { op: first };
        assert_eq!(refused(&|p| cast(p, Place { offset: stem.offset, ..read })), operand);
        for quant in [
            Quant { scale: 0.0, zero_point: 1 },
            Quant { scale: -0.5, zero_point: 0 },
            Quant { scale: f32::NAN, zero_point: 0 },
        ] {
            assert_eq!(refused(&|p| cast(p, Place { quant, ..read })), operand);
        }
        let smaller = Shape { h: 3, ..read.shape };
        let geometry = Geometry { op: first };
        assert_eq!(refused(&|p| cast(p, Place { shape: smaller, ..read })), geometry);
        // Of one format, a cast is a copy.
        let other = Quant { scale: 0.25, zero_point: 5 };
        assert_eq!(refused(&|p| cast(p, Place { quant: other, ..read })), quantization(first));
        // A header that knows of no floats.
        let mut file = sound.file().unwrap();
        file[37] = 0;
        seal(&mut file);
        assert_eq!(Artifact::parse(&file).unwrap_err(), operand);
    }
}
