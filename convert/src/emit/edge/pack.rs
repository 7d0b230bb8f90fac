//! Weights and parameters as the kernels read them, see [`artifact::layout`].

use crate::int8::{Int8Weights, int8_weights, run_len};
use artifact::layout::{AFFINE_PLANES, ConvPlane, conv_planes, has_columns};
use artifact::{Dtype, Grouped, MAX_RESIDUAL_FACTOR, Place, Quant, Requant};
use network::graph::Conv;

/// Where a convolution's weights lie in the file.
#[derive(Clone, Copy)]
pub(super) struct Packing<'a> {
    pub(super) record: &'a Grouped,
    pub(super) nr: usize,
    pub(super) dtype: Dtype,
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
    let Int8Weights { values: quantized, scales } =
        int8_weights(conv, run_len(conv, q.input.shape), q.input.quant, q.output.quant, residual);
    let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
    let packed = packing.pack(&quantized, i8::cast_unsigned);

    let ratio = |o: usize| residual_scale / (in_scale * scales[o]);
    let largest = (0..c_out).map(ratio).fold(0.0, f64::max);
    let shift = (0..=24u8)
        .rev()
        .find(|s| largest * f64::from(1u32 << s) < f64::from(MAX_RESIDUAL_FACTOR) - 1.0)?;

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
        let sum: i32 =
            quantized[o * per_output..][..per_output].iter().map(|w| i32::from(*w)).sum();
        let bias = (f64::from(conv.bias[o]) / unit).round() as i32;
        let requant = Requant::new(unit / out_scale)?;
        set(ConvPlane::Bias, bias - i32::from(q.input.quant.zero_point) * sum);
        if !has_columns(Dtype::I8, nr) {
            set(ConvPlane::WeightSum, sum);
        }
        set(ConvPlane::Multiplier, requant.multiplier);
        set(ConvPlane::Shift, requant.shift.into());
        set(ConvPlane::Residual, (ratio(o) * f64::from(1u32 << shift)).round() as i32);
    }
    Some((packed, bytes_of(&params, i32::to_le_bytes), shift))
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
