//! Convolutions and dense layers.

use super::operands::{Operands, conv, operands};
#[cfg(feature = "host")]
use super::winograd;
#[cfg(all(feature = "host", target_arch = "x86_64"))]
use super::winograd_i8;
use super::{Context, columns, fill_pad};
use crate::isa::Token;
use crate::kernels::conv::Conv;
use crate::kernels::{Lanes, Number};
use artifact::{Conv2d, Dtype, Op};
#[cfg(feature = "host")]
use half::bf16;

/// Runs one convolution on the arena.
pub(crate) fn run(cx: &Context<'_>, op: &Conv2d, arena: &mut [u8]) {
    match (cx.dtype(op.output), cx.nr()) {
        (Dtype::I8, 4) => columns::run(cx, op, arena),
        #[cfg(feature = "float")]
        (Dtype::F16, 4) => execute::<f32, u16, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(Scalar, conv, first, out);
        }),
        #[cfg(feature = "host")]
        _ => run_host(cx, op, arena),
        #[cfg(not(feature = "host"))]
        _ => {} // refused by `Model::new`
    }
}

/// A convolution of floats, or in panels of 16.
#[cfg(feature = "host")]
fn run_host(cx: &Context<'_>, op: &Conv2d, arena: &mut [u8]) {
    match (cx.dtype(op.output), cx.nr()) {
        (Dtype::F32, _) if op.scratch.is_some() => winograd::run(cx, op, arena),
        (Dtype::F32, 4) => execute::<f32, f32, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(Scalar, conv, first, out);
        }),
        (Dtype::Bf16, 4) => execute::<f32, bf16, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(Scalar, conv, first, out);
        }),
        #[cfg(target_arch = "x86_64")]
        (Dtype::I8, _) if winograd_i8::run(cx, op, arena) => {}
        (Dtype::I8, _) => execute::<i8, i8, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
        (Dtype::F32, _) => execute::<f32, f32, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
        (Dtype::F16, _) => execute::<f32, u16, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
        (Dtype::Bf16, _) => execute::<f32, bf16, 16>(cx, op, arena, &|conv, first, out| {
            dispatch(cx, conv, first, out);
        }),
    }
}

#[cfg(target_arch = "aarch64")]
use crate::kernels::aarch64::{DotProd, Neon};
use crate::kernels::scalar::Scalar;
#[cfg(edge_simd128)]
use crate::kernels::wasm32::Simd128;
#[cfg(target_arch = "x86_64")]
use crate::kernels::x86_64::{Avx2, Avx512Vnni, Ssse3};

/// The kernel of the session's instruction set, panels of 16.
#[cfg(target_arch = "x86_64")]
fn dispatch<E: Number, W>(cx: &Context<'_>, conv: &Conv<'_, E, W>, first: usize, out: &mut [E])
where
    Scalar: Lanes<16, E, W>,
    Ssse3: Lanes<16, E, W>,
    Avx2: Lanes<16, E, W>,
    Avx512Vnni: Lanes<16, E, W>,
{
    match cx.isa.0 {
        Token::Scalar(t) => t.conv(conv, first, out),
        Token::Ssse3(t) => t.conv(conv, first, out),
        Token::Avx2(t) => t.conv(conv, first, out),
        Token::Avx512Vnni(t) => t.conv(conv, first, out),
    }
}

/// The kernel of the session's instruction set, panels of 16.
#[cfg(target_arch = "aarch64")]
fn dispatch<E: Number, W>(cx: &Context<'_>, conv: &Conv<'_, E, W>, first: usize, out: &mut [E])
where
    Scalar: Lanes<16, E, W>,
    Neon: Lanes<16, E, W>,
    DotProd: Lanes<16, E, W>,
{
    match cx.isa.0 {
        Token::Scalar(t) => t.conv(conv, first, out),
        Token::Neon(t) => t.conv(conv, first, out),
        Token::DotProd(t) => t.conv(conv, first, out),
    }
}

/// The kernel of the session's instruction set, panels of 16.
#[cfg(edge_simd128)]
fn dispatch<E: Number, W>(cx: &Context<'_>, conv: &Conv<'_, E, W>, first: usize, out: &mut [E])
where
    Scalar: Lanes<16, E, W>,
    Simd128: Lanes<16, E, W>,
{
    match cx.isa.0 {
        Token::Scalar(t) => t.conv(conv, first, out),
        Token::Simd128(t) => t.conv(conv, first, out),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", edge_simd128)))]
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

/// Hands chunks of output pixels to the workers.
fn execute<E: Number, W: bytemuck::Pod + Sync, const NR: usize>(
    cx: &Context<'_>,
    op: &Conv2d,
    arena: &mut [u8],
    kernel: &ChunkKernel<'_, E, W>,
) {
    let dtype = cx.dtype(op.output);
    let Some(Operands { x, residual, out, .. }) = operands::<E>(cx, op, arena) else { return };
    let conv = conv::<E, W, NR>(cx, op, x, residual);
    let pixels = op.output.shape.pixels();
    let pixel_bytes = usize::from(op.output.shape.c) * dtype.activation_bytes();
    let chunk_pixels = cx.chunk_pixels(pixels, Op::Conv2d(*op).macs(), dtype);
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    cx.workers.for_each_chunk(data, chunk_pixels * pixel_bytes, &|i, chunk| {
        kernel(&conv, i * chunk_pixels, bytemuck::cast_slice_mut(chunk));
    });
    fill_pad(out, op.output, dtype, cx.flip());
}
