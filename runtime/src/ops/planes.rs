//! Depthwise convolutions on microcontrollers in int8.
//!
//! Channels lie side by side in a map, but nothing is added across them, so that the numbers that one
//! sum takes are far apart. Some channels' windows are therefore copied into planes first, with padding,
//! for a band of rows; each plane is then convolved as a picture of one color.

use crate::kernels::conv::{Conv, ResidualSource};
use crate::kernels::pairs::{NR, PLANES};
use crate::kernels::{lift_residual, requantize};
use artifact::Requant;
use artifact::layout::{
    ConvPlane, DEPTHWISE_CHANNELS, DepthwisePlanes, MAX_DEPTHWISE, window_start,
};

/// Computes a map, or rows that are taken for one.
pub(super) fn rows(
    conv: &Conv<'_, i8, i8>,
    pad: i8,
    planes: DepthwisePlanes,
    scratch: &mut [i8],
    out: &mut [i8],
) {
    let c = usize::from(conv.output.c);
    let row_len = usize::from(conv.output.w) * c;
    for (i, out) in out.chunks_mut(planes.band * row_len).enumerate() {
        let first_row = i * planes.band;
        for channel in (0..c).step_by(DEPTHWISE_CHANNELS) {
            let count = DEPTHWISE_CHANNELS.min(c - channel);
            copy(
                conv,
                [first_row, out.len() / row_len],
                channel..channel + count,
                pad,
                planes,
                scratch,
            );
            for (j, plane) in
                scratch.chunks_exact(planes.rows * planes.columns).enumerate().take(count)
            {
                convolve(conv, plane, planes.columns, [first_row, channel + j], out);
            }
        }
    }
}

/// Copies what the windows of `count` output rows from `first_row` on read of some channels.
fn copy(
    conv: &Conv<'_, i8, i8>,
    [first_row, count]: [usize; 2],
    channels: core::ops::Range<usize>,
    pad: i8,
    planes: DepthwisePlanes,
    scratch: &mut [i8],
) {
    let (w, c) = (usize::from(conv.input.w), usize::from(conv.input.c));
    let plane_len = planes.rows * planes.columns;
    let left = usize::from(conv.padding.left);
    let y0 = window_start(first_row, conv.stride[0], conv.padding.top);
    let rows = (count - 1) * usize::from(conv.stride[0]) + conv.filter.kh;
    for r in 0..rows {
        // Negative numbers are huge as unsigned.
        let y = (y0 + r as isize) as usize;
        let line = if y < usize::from(conv.input.h) { &conv.x[y * w * c..][..w * c] } else { &[] };
        for (j, channel) in channels.clone().enumerate() {
            let to = &mut scratch[j * plane_len + r * planes.columns..][..planes.columns];
            let (before, to) = to.split_at_mut(left.min(to.len()));
            let inside = to.len().min(line.len() / c);
            let (inside, after) = to.split_at_mut(inside);
            before.fill(pad);
            after.fill(pad);
            for (to, pixel) in inside.iter_mut().zip(line.chunks_exact(c)) {
                *to = pixel[channel];
            }
        }
    }
}

/// Convolves a plane into one channel of the rows of `out`, which start at `first_row`.
fn convolve(
    conv: &Conv<'_, i8, i8>,
    plane: &[i8],
    columns: usize,
    [first_row, channel]: [usize; 2],
    out: &mut [i8],
) {
    let (w, c) = (usize::from(conv.output.w), usize::from(conv.output.c));
    let (kh, kw) = (conv.filter.kh, conv.filter.kw);
    let params = &conv.params[channel / NR * (PLANES * NR)..][channel % NR..];
    let param = |p: ConvPlane| params[p as usize * NR];
    let requant =
        Requant { multiplier: param(ConvPlane::Multiplier), shift: param(ConvPlane::Shift) as u8 };
    let filter = &conv.weights[channel * kh * kw..][..kh * kw];
    let mut weights = [0i32; MAX_DEPTHWISE * MAX_DEPTHWISE];
    weights.iter_mut().zip(filter).for_each(|(to, w)| *to = (*w).into());
    let [row_stride, column_stride] = conv.stride.map(usize::from);
    for (i, line) in out.chunks_exact_mut(w * c).enumerate() {
        for (x, pixel) in line.chunks_exact_mut(c).enumerate() {
            let mut sum = param(ConvPlane::Bias);
            for (ky, w) in weights[..kh * kw].chunks_exact(kw).enumerate() {
                let row = &plane[(i * row_stride + ky) * columns + x * column_stride..][..kw];
                for (x, w) in row.iter().zip(w) {
                    sum = sum.wrapping_add(i32::from(*x) * w);
                }
            }
            let residual = match conv.residual {
                ResidualSource::None => None,
                ResidualSource::InPlace => Some(pixel[channel]),
                ResidualSource::Other(r) => Some(r[((first_row + i) * w + x) * c + channel]),
            };
            if let Some(r) = residual {
                let lifted = lift_residual(r, param(ConvPlane::Residual), &conv.finish);
                sum = sum.wrapping_add(lifted);
            }
            let (zero_point, low) = (conv.finish.zero_point, conv.finish.low);
            pixel[channel] = requantize(sum, requant, zero_point, low);
        }
    }
}
