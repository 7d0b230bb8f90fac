//! Weights and parameters as the kernels read them, see [`artifact::layout`].

use crate::int8::{Int8Weights, int8_weights, run_len};
use artifact::layout::{
    AFFINE_PLANES, ConvPlane, SCALE_PLANES, ScalePlane, conv_planes, has_columns,
};
use artifact::params::shorten;
use artifact::{Dtype, Grouped, MAX_RESIDUAL_FACTOR, Place, Quant, Requant};
use network::graph::Conv;

/// Where a convolution's weights lie in the file.
#[derive(Clone, Copy)]
pub(super) struct Packing<'a> {
    pub(super) record: &'a Grouped,
    pub(super) nr: usize,
    pub(super) dtype: Dtype,
    pub(super) fixed_point: bool,
}

impl Packing<'_> {
    /// Parameters of each plane.
    fn outputs(self) -> usize {
        usize::from(self.record.conv.output.shape.c).next_multiple_of(self.nr)
    }

    /// Weights in OHWI as they are packed.
    fn pack<T: Copy, P: Copy + Default>(self, weights: &[T], to: impl Fn(T) -> P) -> Vec<P> {
        let mut packed = vec![P::default(); self.record.packed_len(self.nr, self.dtype)];
        self.record.for_each_weight(self.nr, self.dtype, |from, at| packed[at] = to(weights[from]));
        packed
    }
}

/// Packed weights and biases; the error is a weight that 16 bits cannot hold.
pub(super) fn pack_float(conv: &Conv, packing: Packing<'_>) -> Result<(Vec<u8>, Vec<u8>), f32> {
    let packed = packing.pack(&conv.weights, |w| w);
    let halves = |half: fn(f32) -> Option<[u8; 2]>| {
        let halves: Result<Vec<_>, f32> = packed.iter().map(|&w| half(w).ok_or(w)).collect();
        halves.map(|h| h.concat())
    };
    let weights = match packing.dtype {
        // Few, and precise.
        _ if packing.record.is_depthwise() => bytes_of(&packed, f32::to_le_bytes),
        Dtype::F16 => halves(|w| {
            Some(half::f16::from_f32(w)).filter(|h| h.is_finite()).map(half::f16::to_le_bytes)
        })?,
        Dtype::Bf16 => halves(|w| {
            Some(half::bf16::from_f32(w)).filter(|h| h.is_finite()).map(half::bf16::to_le_bytes)
        })?,
        Dtype::F32 | Dtype::I8 => bytes_of(&packed, f32::to_le_bytes),
    };
    Ok((weights, pack_bias(conv, packing)))
}

pub(super) fn pack_bias(conv: &Conv, packing: Packing<'_>) -> Vec<u8> {
    let mut bias = conv.bias.clone();
    bias.resize(packing.outputs(), 0.0);
    bytes_of(&bias, f32::to_le_bytes)
}

pub(super) fn bytes_of<T: Copy>(values: &[T], to_bytes: fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|v| to_bytes(*v)).collect()
}

/// Quantization of a convolution's operands.
pub(super) struct ConvQuants {
    pub(super) input: Place,
    pub(super) output: Place,
    pub(super) residual: Option<Place>,
}

/// Scales of at least this, which no network has, and residuals of as many steps of the output, are left
/// to fixed-point numbers: so the reader's bound on sums times scales holds whatever the weights.
const MAX_SCALE: f64 = 0.5;
const MAX_RATIO: f64 = (1 << 20) as f64;

/// Packed weights, parameter planes and the residual's shift; `None` where no fixed-point
/// form exists.
pub(super) fn pack_i8(
    conv: &Conv,
    packing: Packing<'_>,
    q: ConvQuants,
) -> Option<(Vec<u8>, Vec<u8>, u8)> {
    let nr = packing.nr;
    let (c_out, per_output) = (conv.c_out(), conv.row_len());
    let in_scale = f64::from(q.input.quant.scale);
    let out_scale = f64::from(q.output.quant.scale);
    let residual_scale = q.residual.map_or(0.0, |r| f64::from(r.quant.scale));
    let residual = q.residual.map(|r| r.quant);
    let Int8Weights { values: mut quantized, scales } =
        int8_weights(conv, run_len(conv, q.input.shape), q.input.quant, q.output.quant, residual);
    let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
    let ratio = |o: usize| residual_scale / (in_scale * scales[o]);
    let largest = (0..c_out).map(ratio).fold(0.0, f64::max);
    let shift = (0..=24u8)
        .rev()
        .find(|s| largest * f64::from(1u32 << s) < f64::from(MAX_RESIDUAL_FACTOR) - 1.0)?;
    let sums: Vec<i32> = quantized
        .chunks_exact(per_output)
        .map(|weights| weights.iter().map(|w| i32::from(*w)).sum())
        .collect();
    let bias = |o: usize| {
        let bias = (f64::from(conv.bias[o]) / (in_scale * scales[o])).round() as i32;
        bias - i32::from(q.input.quant.zero_point) * sums[o]
    };
    if !packing.fixed_point {
        let panels = packing.outputs() / nr;
        let mut params = vec![0u32; panels * SCALE_PLANES * nr];
        // What a quantized source rounds first has steps of its own.
        let rounded = conv.sum_quant.filter(|_| residual.is_some());
        let sum_scale = rounded.map_or(out_scale, |sum| f64::from(sum.scale));
        let mut fits = residual_scale.max(sum_scale) / out_scale < MAX_RATIO;
        for o in 0..c_out {
            let scale = in_scale * scales[o] / sum_scale;
            fits &= scale < MAX_SCALE;
            let planes = [
                (ScalePlane::Bias, bias(o) as u32),
                (ScalePlane::Scale, (scale as f32).to_bits()),
                (ScalePlane::WeightSum, sums[o] as u32),
            ];
            for (plane, value) in planes {
                params[(o / nr * SCALE_PLANES + plane as usize) * nr + o % nr] = value;
            }
        }
        if let Some(sum) = rounded {
            let ratio = (sum_scale / out_scale) as f32;
            params.extend([ratio.to_bits(), i32::from(sum.zero_point) as u32]);
        }
        if fits {
            let packed = packing.pack(&quantized, i8::cast_unsigned);
            return Some((packed, bytes_of(&params, u32::to_le_bytes), 0));
        }
    }

    let planes = conv_planes(Dtype::I8, nr);
    let mut params = vec![0i32; packing.outputs() * planes];
    for o in 0..packing.outputs() {
        let panel = o / nr * planes * nr;
        let mut set = |plane: ConvPlane, value: i32| {
            params[panel + plane as usize * nr + o % nr] = value;
        };
        if o >= c_out {
            set(ConvPlane::Shift, 1);
            continue;
        }
        let unit = in_scale * scales[o];
        let weights = &mut quantized[o * per_output..][..per_output];
        let mut bias = bias(o);
        let mut requant = Requant::new(unit / out_scale)?;
        if has_columns(Dtype::I8, nr)
            && residual.is_none()
            && let Some(tamed) = tame(weights, bias, requant)
        {
            (bias, requant) = tamed;
        }
        set(ConvPlane::Bias, bias);
        if !has_columns(Dtype::I8, nr) {
            set(ConvPlane::WeightSum, sums[o]);
        }
        set(ConvPlane::Multiplier, requant.multiplier);
        set(ConvPlane::Shift, requant.shift.into());
        set(ConvPlane::Residual, (ratio(o) * f64::from(1u32 << shift)).round() as i32);
    }
    let packed = packing.pack(&quantized, i8::cast_unsigned);
    if has_columns(Dtype::I8, nr)
        && let Some(short) = shorten(&params, c_out, q.residual.is_some())
    {
        params = short;
    }
    Some((packed, bytes_of(&params, i32::to_le_bytes), shift))
}

/// Other numbers that give the same output for every input, of a channel whose output is nearly the
/// same for all: of one that learned nothing, whose tiny weights come with a bias or a shift that the
/// short form of parameters has no room for. Weights may become zeros.
fn tame(weights: &mut [i8], bias: i32, requant: Requant) -> Option<(i32, Requant)> {
    let bound = |x: [i32; 2]| {
        weights.iter().map(|w| i32::from(*w)).map(|w| w * x[usize::from(w < 0)]).sum::<i32>()
    };
    let [low, high] = [[-128, 127], [127, -128]].map(|x| i64::from(bias) + i64::from(bound(x)));
    // Beyond 255 steps from the zero point it makes no difference by how many.
    let output = |sum: i64| {
        let product = sum * i64::from(requant.multiplier) + (1i64 << (requant.shift - 1));
        (product >> requant.shift).clamp(-255, 255)
    };
    let unit = |bits: u8| Requant { multiplier: 1 << 30, shift: 30 + bits };
    let (first, last) = (output(low), output(high));
    if first == last {
        weights.fill(0);
        return Some(((first as i32) << 8, unit(8)));
    }
    if first + 1 < last {
        return None;
    }
    // One of two: the second one from some sum on.
    let (mut below, mut from) = (low, high);
    while from - below > 1 {
        let middle = i64::midpoint(below, from);
        if output(middle) == last { from = middle } else { below = middle }
    }
    let bits = (3..24u8).find(|bits| 1i64 << bits > high - low)?;
    let bias = i64::from(bias) - from + (2 * last - 1) * (1i64 << (bits - 1));
    Some((i32::try_from(bias).ok()?, unit(bits)))
}

pub(super) fn affine_float(factor: &[f32], addend: &[f32], nr: usize) -> Vec<u8> {
    let values = planes(factor.len(), nr, |c| [factor[c], addend[c]]);
    bytes_of(&values, f32::to_le_bytes)
}

/// `factor` and `addend` of each channel as planes of panels, zero where there is none.
fn planes<T: Copy + Default>(channels: usize, nr: usize, at: impl Fn(usize) -> [T; 2]) -> Vec<T> {
    let mut out = vec![T::default(); channels.div_ceil(nr) * AFFINE_PLANES * nr];
    for c in 0..channels {
        for (plane, value) in at(c).into_iter().enumerate() {
            out[(c / nr * AFFINE_PLANES + plane) * nr + c % nr] = value;
        }
    }
    out
}

pub(super) fn affine_i8(
    factor: &[f32],
    addend: &[f32],
    input: Quant,
    output: Quant,
    nr: usize,
) -> Option<(Vec<u8>, u8)> {
    let ratio = f64::from(input.scale) / f64::from(output.scale);
    let a: Vec<f64> = factor.iter().map(|f| f64::from(*f) * ratio).collect();
    let b: Vec<f64> = addend.iter().map(|b| f64::from(*b) / f64::from(output.scale)).collect();
    let fits =
        |values: &[f64], limit: f64, one: f64| values.iter().all(|v| (v * one).abs() < limit);
    let shift = (1..=24u8).rev().find(|s| {
        let one = f64::from(1u32 << s);
        fits(&a, f64::from(1 << 21) - 1.0, one) && fits(&b, f64::from(1 << 29) - 1.0, one)
    })?;
    let one = f64::from(1u32 << shift);
    let values =
        planes(a.len(), nr, |c| [(a[c] * one).round() as i32, (b[c] * one).round() as i32]);
    Some((bytes_of(&values, i32::to_le_bytes), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tamed_channels_give_the_same_outputs() {
        let mut tamed = 0;
        for (factor, bias) in [(3e-9, 1_000_000_000), (1e-7, 26_558_475), (1e-7, -44_999_990)] {
            for weights in [[0, 1, -2, 3], [127, -127, 100, 5], [-1, -1, -1, -1]] {
                let requant = Requant::new(factor).unwrap();
                let mut changed = weights;
                let Some((new_bias, new)) = tame(&mut changed, bias, requant) else { continue };
                tamed += 1;
                for i in 0..4096i32 {
                    let x = [i % 8, i / 8 % 8, i / 64 % 8, i / 512].map(|x| x * 255 / 7 - 128);
                    let sum = |weights: [i8; 4]| -> i32 {
                        weights.iter().zip(x).map(|(w, x)| i32::from(*w) * x).sum()
                    };
                    let [old, new] =
                        [(requant, bias + sum(weights)), (new, new_bias + sum(changed))]
                            .map(|(requant, acc)| requant.apply(acc).clamp(-255, 255));
                    assert_eq!(old, new, "{factor} {bias} {weights:?} {x:?}");
                }
            }
        }
        assert_eq!(tamed, 9);
        assert_eq!(tame(&mut [127, 3], 5, Requant::new(0.01).unwrap()), None);
    }
}
