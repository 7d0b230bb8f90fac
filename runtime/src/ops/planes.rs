//! Depthwise convolutions on microcontrollers in int8.
//!
//! Channels lie side by side in a map, but nothing is added across them, so that the numbers that one
//! sum takes are far apart. Some channels' windows are therefore copied into planes first, with padding,
//! for a band of rows; each plane is then convolved as a picture of one color.

use super::columns::{Quick, channel_params};
use crate::kernels::conv::{Conv, ResidualSource};
#[cfg(edge_dsp)]
use crate::kernels::dsp_planes;
use crate::kernels::{Finish, lift_residual, requantize};
use artifact::layout::{DEPTHWISE_CHANNELS, DepthwisePlanes, MAX_DEPTHWISE, window_start};
use core::ops::Range;

/// Computes a map, or rows that are taken for one.
pub(super) fn rows(
    conv: &Conv<'_, i8, i8>,
    pad: i8,
    planes: DepthwisePlanes,
    scratch: &mut [i16],
    out: &mut [i8],
) {
    let c = usize::from(conv.output.c);
    let row_len = usize::from(conv.output.w) * c;
    let plane_len = planes.rows * planes.columns;
    #[cfg(edge_dsp)]
    let mut layer = dsp_planes::Layer::new(conv, planes, pad);
    for (i, out) in out.chunks_mut(planes.band * row_len).enumerate() {
        let (first_row, count) = (i * planes.band, out.len() / row_len);
        let [above, inside, below] = split_rows(conv, first_row, count);
        let y0 = window_start(first_row, conv.stride[0], conv.padding.top) + above as isize;
        for plane in scratch.chunks_exact_mut(plane_len).take(c) {
            plane[..above * planes.columns].fill(pad.into());
            plane[(above + inside) * planes.columns..][..below * planes.columns].fill(pad.into());
        }
        for channel in (0..c).step_by(DEPTHWISE_CHANNELS) {
            #[cfg(edge_dsp)]
            if let Some(layer) = &mut layer {
                layer.band(channel, [y0 as usize, inside, above], scratch, count, out);
                continue;
            }
            let channels = channel..c.min(channel + DEPTHWISE_CHANNELS);
            for row in 0..inside {
                let to = (above + row) * planes.columns;
                let y = y0 as usize + row;
                copy(conv, y, channels.clone(), pad, [to, planes.columns, plane_len], scratch);
            }
            for (plane, channel) in scratch.chunks_exact(plane_len).zip(channels) {
                convolve(conv, plane, planes.columns, [first_row, channel], out);
            }
        }
    }
    #[cfg(edge_dsp)]
    if layer.is_some() {
        super::columns::raise(out, conv.finish.low);
    }
}

/// How many rows the windows of `count` output rows from `first_row` on read above the map, in it
/// and below it.
fn split_rows(conv: &Conv<'_, i8, i8>, first_row: usize, count: usize) -> [usize; 3] {
    let rows = (count - 1) * usize::from(conv.stride[0]) + conv.filter.kh;
    let y0 = window_start(first_row, conv.stride[0], conv.padding.top);
    let above = rows.min(usize::try_from(-y0).unwrap_or(0));
    let end = (y0 + rows as isize).clamp(0, conv.input.h as isize);
    let inside = (end - y0.max(0)).max(0) as usize;
    [above, inside, rows - above - inside]
}

/// Copies a line of the map into those of some channels' planes, the first of which starts at `to`.
fn copy(
    conv: &Conv<'_, i8, i8>,
    y: usize,
    channels: Range<usize>,
    pad: i8,
    [to, columns, plane_len]: [usize; 3],
    scratch: &mut [i16],
) {
    let (w, c) = (usize::from(conv.input.w), usize::from(conv.input.c));
    let left = usize::from(conv.padding.left);
    let line = &conv.x[y * w * c..][..w * c];
    for (j, channel) in channels.enumerate() {
        let to = &mut scratch[j * plane_len + to..][..columns];
        let (before, to) = to.split_at_mut(left.min(to.len()));
        let (inside, after) = to.split_at_mut(to.len().min(w));
        before.fill(pad.into());
        after.fill(pad.into());
        for (to, x) in inside.iter_mut().zip(line[channel..].iter().step_by(c)) {
            *to = (*x).into();
        }
    }
}

/// Convolves a plane into one channel of the rows of `out`, which start at `first_row`.
fn convolve(
    conv: &Conv<'_, i8, i8>,
    plane: &[i16],
    columns: usize,
    [first_row, channel]: [usize; 2],
    out: &mut [i8],
) {
    let (w, c) = (usize::from(conv.output.w), usize::from(conv.output.c));
    let (kh, kw) = (conv.filter.kh, conv.filter.kw);
    let params = channel_params(conv, channel);
    let filter = &conv.weights[channel * kh * kw..][..kh * kw];
    let mut weights = [0i32; MAX_DEPTHWISE * MAX_DEPTHWISE];
    weights.iter_mut().zip(filter).for_each(|(to, w)| *to = (*w).into());
    let [row_stride, column_stride] = conv.stride.map(usize::from);
    let quick = Quick::new(&params, &conv.finish);
    let is_plain = matches!(conv.residual, ResidualSource::None);
    // Those have a kernel where there are DSP instructions.
    let is_three = cfg!(not(edge_dsp)) && kh == 3 && kw == 3 && is_plain;
    let three = weights.first_chunk::<9>().filter(|_| is_three);
    for (i, line) in out.chunks_exact_mut(w * c).enumerate() {
        let rows = &plane[i * row_stride * columns..];
        let outputs = line[channel..].iter_mut().step_by(c);
        if let (Some(weights), Some(quick)) = (three, quick) {
            let (first, others) = rows.split_at(columns);
            let (second, third) = others.split_at(columns);
            let [first, second, third] =
                [first, second, third].map(|row| row.array_windows::<3>().step_by(column_stride));
            let [d, e, f] = [0, 3, 6].map(|w| [weights[w], weights[w + 1], weights[w + 2]]);
            for (y, ((a, b), c)) in outputs.zip(first.zip(second).zip(third)) {
                let sum = params.bias.wrapping_add(dot(a, d)).wrapping_add(dot(b, e));
                *y = quick.apply(sum.wrapping_add(dot(c, f)));
            }
            continue;
        }
        for (x, y) in outputs.enumerate() {
            let mut sum = params.bias;
            for (ky, w) in weights[..kh * kw].chunks_exact(kw).enumerate() {
                let row = &rows[ky * columns + x * column_stride..][..kw];
                for (x, w) in row.iter().zip(w) {
                    sum = sum.wrapping_add(i32::from(*x) * w);
                }
            }
            let residual = match conv.residual {
                ResidualSource::None => None,
                ResidualSource::InPlace => Some(*y),
                ResidualSource::Other(r) => Some(r[((first_row + i) * w + x) * c + channel]),
            };
            if let Some(r) = residual {
                sum = sum.wrapping_add(lift_residual(r, params.residual, &conv.finish));
            }
            let Finish { zero_point, low, .. } = conv.finish;
            *y = match quick {
                Some(quick) => quick.apply(sum),
                None => requantize(sum, params.requant(), zero_point, low),
            };
        }
    }
}

/// A filter row of three, which no sum leaves 32 bits of.
#[inline(always)]
fn dot(x: &[i16; 3], w: [i32; 3]) -> i32 {
    i32::from(x[0]) * w[0] + i32::from(x[1]) * w[1] + i32::from(x[2]) * w[2]
}
