//! Int8 operators by their formulas: slow, short, and nothing of the runtime's kernels in it.

use artifact::layout::{AFFINE_PLANES, window_start};
use artifact::params::ParamsForm;
use artifact::scale::residual_ratio;
use artifact::{
    Affine, Artifact, Dtype, Gate, Grouped, Lookup, Op, Padding, Pool2d, PoolKind, Shape,
};
use rayon::prelude::*;

/// What operator `op` of a checked int8 model computes of `x` and, where it reads one, `second`;
/// numbers are those that are stored. Nothing of a layer that is computed in floats.
pub(super) fn run(
    artifact: &Artifact<'_>,
    op: &Op,
    x: &[f32],
    second: Option<&[f32]>,
) -> Option<Vec<f32>> {
    let (input, output) = (op.input().quant, op.output().quant);
    let ints = |values: &[f32]| -> Vec<i8> { values.iter().map(|v| *v as i8).collect() };
    let result = match op {
        Op::Cast(_) if output.is_float() => {
            let real = |q: &f32| (*q - f32::from(input.zero_point)) * input.scale;
            return Some(x.iter().map(real).collect());
        }
        Op::Cast(_) => x.iter().map(|v| output.quantize(*v)).collect(),
        _ if output.is_float() => return None,
        Op::Conv2d(_) | Op::Grouped(_) => {
            conv2d(artifact, &op.grouped()?, &ints(x), second.map(ints).as_deref())
        }
        Op::Lookup(op) => lookup(artifact, op, &ints(x)),
        Op::Pool2d(op) => pool2d(op, &ints(x)),
        Op::Affine(op) => affine(artifact, op, &ints(x)),
        Op::Gate(op) => gate(op, &ints(x), &second.map(ints)?),
    };
    Some(result.into_iter().map(f32::from).collect())
}

/// Little-endian numbers.
fn i32s(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
}

/// Taps of a window that lie on the map, as (row, column, pixel).
fn taps(
    at: usize,
    out: Shape,
    map: Shape,
    filter: [u16; 2],
    stride: [u16; 2],
    padding: Padding,
) -> Vec<(usize, usize, usize)> {
    let (h, w) = (usize::from(map.h), usize::from(map.w));
    let columns = usize::from(out.w);
    let top = window_start(at / columns, stride[0], padding.top);
    let left = window_start(at % columns, stride[1], padding.left);
    let mut taps = Vec::new();
    for y in 0..usize::from(filter[0]) {
        for x in 0..usize::from(filter[1]) {
            let place = |start: isize, i: usize, len: usize| {
                usize::try_from(start + i as isize).ok().filter(|&i| i < len)
            };
            if let (Some(row), Some(column)) = (place(top, y, h), place(left, x, w)) {
                taps.push((y, x, row * w + column));
            }
        }
    }
    taps
}

fn conv2d(
    artifact: &Artifact<'_>,
    grouped: &Grouped,
    x: &[i8],
    residual: Option<&[i8]>,
) -> Vec<i8> {
    let nr = artifact.header().nr;
    let op = &grouped.conv;
    let (c_map, c_out) = (usize::from(op.input.shape.c), usize::from(op.output.shape.c));
    let [kh, kw] = op.filter.map(usize::from);
    let groups = op.groups(grouped.groups, nr, Dtype::I8);
    // Channels that an output sees.
    let c_in = c_map / usize::from(grouped.groups);
    // Output by output, the weights of a tap side by side.
    let packed = artifact.span(op.weights);
    let mut weights = vec![0i8; c_out * kh * kw * c_in];
    grouped.for_each_weight(nr, Dtype::I8, |to, at| weights[to] = packed[at] as i8);
    let params = i32s(artifact.span(op.params));
    let form = op.params_form(nr, Dtype::I8).expect("a checked file");
    let [zero_x, zero_y] = [op.input, op.output].map(|p| i32::from(p.quant.zero_point));
    let [low, high] = op.clamp.bytes(op.output.quant).map(i32::from);
    let mut out = vec![0i8; op.output.shape.len()];
    out.par_chunks_exact_mut(c_out).enumerate().for_each(|(at, out)| {
        let taps = taps(at, op.output.shape, op.input.shape, op.filter, op.stride, op.padding);
        let inside: Vec<bool> =
            (0..kh * kw).map(|i| taps.iter().any(|(y, x, _)| y * kw + x == i)).collect();
        for (o, out) in out.iter_mut().enumerate() {
            let filter = &weights[o * kh * kw * c_in..][..kh * kw * c_in];
            // The bias has the zero point of all taps in it, so those outside count as that.
            let channel = form.channel(nr, o, op.residual.is_some(), |i| params[i]);
            let mut acc = channel.bias;
            for (tap, _) in inside.iter().enumerate().filter(|(_, inside)| !**inside) {
                acc += zero_x
                    * filter[tap * c_in..][..c_in].iter().map(|w| i32::from(*w)).sum::<i32>();
            }
            for &(y, column, pixel) in &taps {
                let w = &filter[(y * kw + column) * c_in..][..c_in];
                let x = &x[pixel * c_map + groups.inputs_of(o)[0]..][..c_in];
                acc += x.iter().zip(w).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum::<i32>();
            }
            let r = op.residual.zip(residual).map(|(record, values)| {
                let zero = i32::from(record.input.quant.zero_point);
                (record, i32::from(values[at * c_out + o]) - zero)
            });
            if matches!(form, ParamsForm::Scales | ParamsForm::RoundedScales) {
                let mut y = acc as f32 * f32::from_bits(channel.requant[0] as u32);
                if let (ParamsForm::RoundedScales, [.., ratio, zero_point]) = (form, &params[..]) {
                    let [low, high] = [-128, 127].map(|end| (end - zero_point) as f32);
                    y = y.round_ties_even().clamp(low, high) * f32::from_bits(*ratio as u32);
                }
                if let Some((record, r)) = r {
                    y += r as f32 * residual_ratio(record.input.quant, op.output.quant);
                }
                *out = (zero_y + y.round_ties_even() as i32).clamp(low, high) as i8;
                continue;
            }
            if let Some((record, r)) = r {
                let lifted = r * channel.residual;
                acc += match record.shift {
                    0 => lifted,
                    shift => (lifted + (1 << (shift - 1))) >> shift,
                };
            }
            *out = (zero_y + channel.requant().apply(acc)).max(low).min(high) as i8;
        }
    });
    out
}

fn pool2d(op: &Pool2d, x: &[i8]) -> Vec<i8> {
    let c = usize::from(op.input.shape.c);
    let [zero_x, zero_y] = [op.input, op.output].map(|p| i64::from(p.quant.zero_point));
    let full = i64::from(op.filter[0]) * i64::from(op.filter[1]);
    let mut out = Vec::with_capacity(op.output.shape.len());
    for at in 0..op.output.shape.pixels() {
        let taps = taps(at, op.output.shape, op.input.shape, op.filter, op.stride, op.padding);
        for channel in 0..c {
            let values = taps.iter().map(|(_, _, pixel)| i64::from(x[pixel * c + channel]));
            out.push(match op.kind {
                PoolKind::Max => values.max().unwrap_or(-128) as i8,
                PoolKind::Average => {
                    let count = taps.len().max(1) as i64;
                    // As if the window were full, rounded towards zero.
                    let sum = (values.sum::<i64>() - zero_x * count) * full / count;
                    (zero_y + i64::from(op.requant.apply(sum as i32))).clamp(-128, 127) as i8
                }
            });
        }
    }
    out
}

fn lookup(artifact: &Artifact<'_>, op: &Lookup, x: &[i8]) -> Vec<i8> {
    let table = artifact.span(op.table);
    x.iter().map(|x| table[usize::from(*x as u8)] as i8).collect()
}

fn gate(op: &Gate, x: &[i8], gate: &[i8]) -> Vec<i8> {
    let [zero_x, zero_s, zero_y] =
        [op.input, op.gate, op.output].map(|p| i32::from(p.quant.zero_point));
    let [low, high] = op.clamp.bytes(op.output.quant).map(i32::from);
    let value = |(x, s): (&i8, &i8)| {
        let product = (i32::from(*x) - zero_x) * (i32::from(*s) - zero_s);
        (zero_y + op.requant.apply(product)).max(low).min(high) as i8
    };
    x.iter().zip(gate.iter().cycle()).map(value).collect()
}

fn affine(artifact: &Artifact<'_>, op: &Affine, x: &[i8]) -> Vec<i8> {
    let nr = artifact.header().nr;
    let params = i32s(artifact.span(op.params));
    let param = |c: usize, plane: usize| params[(c / nr * AFFINE_PLANES + plane) * nr + c % nr];
    let [zero_x, zero_y] = [op.input, op.output].map(|p| i32::from(p.quant.zero_point));
    let [low, high] = op.clamp.bytes(op.output.quant).map(i32::from);
    let c = usize::from(op.input.shape.c);
    let value = |(i, x): (usize, &i8)| {
        let steps = (i32::from(*x) - zero_x) * param(i % c, 0) + param(i % c, 1);
        (zero_y + ((steps + (1 << (op.shift - 1))) >> op.shift)).max(low).min(high) as i8
    };
    x.iter().enumerate().map(value).collect()
}
