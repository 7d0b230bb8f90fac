//! Convolutions and dense layers.

use super::{Context, fill_pad, range};
use crate::isa::Token;
use crate::kernels::conv::{Conv, ResidualSource};
use crate::kernels::{Finish, Lanes, Number};
use artifact::layout::FilterLayout;
use artifact::{Conv2d, Dtype, Op};

/// Runs one convolution on the arena.
pub(crate) fn run(cx: &Context<'_>, op: &Conv2d, arena: &mut [u8]) {
    match (cx.dtype(), cx.nr()) {
        (Dtype::I8, 4) => execute::<i8, i8, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(crate::kernels::scalar::Scalar, conv, first, out);
        }),
        (Dtype::F32, 4) => execute::<f32, f32, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(crate::kernels::scalar::Scalar, conv, first, out);
        }),
        (Dtype::F16, 4) => execute::<f32, u16, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(crate::kernels::scalar::Scalar, conv, first, out);
        }),
        (Dtype::I8, _) => execute::<i8, i8, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
        (Dtype::F32, _) => execute::<f32, f32, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
        (Dtype::F16, _) => execute::<f32, u16, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
    }
}

use crate::kernels::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::kernels::x86_64::{Avx2, Avx512Vnni};

/// The kernel of the session's instruction set, panels of 16.
#[cfg(target_arch = "x86_64")]
fn dispatch<E: Number, W>(cx: &Context<'_>, conv: &Conv<'_, E, W>, first: usize, out: &mut [E])
where
    Scalar: Lanes<16, E, W>,
    Avx2: Lanes<16, E, W>,
    Avx512Vnni: Lanes<16, E, W>,
{
    match cx.isa.0 {
        Token::Scalar(t) => t.conv(conv, first, out),
        Token::Avx2(t) => t.conv(conv, first, out),
        Token::Avx512Vnni(t) => t.conv(conv, first, out),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch<E: Number, W>(cx: &Context<'_>, conv: &Conv<'_, E, W>, first: usize, out: &mut [E])
where
    Scalar: Lanes<16, E, W>,
{
    match cx.isa.0 {
        Token::Scalar(t) => t.conv(conv, first, out),
    }
}

/// Computes the output pixels of a chunk, given the first one's index.
type ChunkKernel<'k, E, W> = dyn Fn(&Conv<'_, E, W>, usize, &mut [E]) + Sync + 'k;

/// Borrows the operands and hands chunks of output pixels to the workers.
fn execute<E: Number, W: bytemuck::Pod + Sync, const NR: usize>(
    cx: &Context<'_>,
    op: &Conv2d,
    arena: &mut [u8],
    kernel: &ChunkKernel<'_, E, W>,
) {
    let dtype = cx.dtype();
    let (input, output) = (range(op.input, dtype), range(op.output, dtype));
    let other = op.residual.filter(|r| r.input.offset != op.output.offset);
    // The reader proved that these ranges are disjoint and in bounds; a refusal would be its bug.
    let (x, residual, out) = match other {
        None => match arena.get_disjoint_mut([input, output]) {
            Ok([x, out]) => (x, None, out),
            Err(_) => return,
        },
        Some(r) if r.input == op.input => match arena.get_disjoint_mut([input, output]) {
            Ok([x, out]) => (x, Some(None), out),
            Err(_) => return,
        },
        Some(r) => match arena.get_disjoint_mut([input, range(r.input, dtype), output]) {
            Ok([x, r, out]) => (x, Some(Some(&*r)), out),
            Err(_) => return,
        },
    };
    let x: &[E] = bytemuck::cast_slice(x);
    let residual = match (op.residual, residual) {
        (None, _) => ResidualSource::None,
        (Some(_), None) => ResidualSource::InPlace,
        (Some(_), Some(None)) => ResidualSource::Other(x),
        (Some(_), Some(Some(r))) => ResidualSource::Other(bytemuck::cast_slice(r)),
    };
    let flip = cx.flip();
    let zero_point = i32::from(op.output.quant.zero_point);
    let conv = Conv {
        x,
        input: op.input.shape,
        output: op.output.shape,
        filter: FilterLayout {
            kh: op.filter[0].into(),
            kw: op.filter[1].into(),
            c_in: op.input.shape.c.into(),
            c_out: op.output.shape.c.into(),
            nr: NR,
            dtype,
        },
        stride: op.stride,
        padding: op.padding,
        pairs_fit: op.pairs_fit,
        weights: bytemuck::cast_slice(cx.artifact.span(op.weights)),
        params: bytemuck::cast_slice(cx.artifact.span(op.params)),
        residual,
        finish: Finish {
            zero_point,
            low: if op.relu { zero_point } else { -128 },
            relu: op.relu,
            residual_zero_point: op.residual.map_or(0, |r| r.input.quant.zero_point.into()),
            residual_shift: op.residual.map_or(0, |r| r.shift.into()),
        },
    };
    let pixels = op.output.shape.pixels();
    let pixel_bytes = usize::from(op.output.shape.c) * dtype.activation_bytes();
    let chunk_pixels = cx.chunk_pixels(pixels, Op::Conv2d(*op).macs());
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    cx.workers.for_each_chunk(data, chunk_pixels * pixel_bytes, &|i, chunk| {
        kernel(&conv, i * chunk_pixels, bytemuck::cast_slice_mut(chunk));
    });
    fill_pad(out, op.output, dtype, flip);
}
