//! Convolutions and dense layers.

#[cfg(feature = "float")]
use super::depthwise;
use super::operands::{Operands, conv, operands};
#[cfg(feature = "host")]
use super::winograd;
#[cfg(all(feature = "host", target_arch = "x86_64"))]
use super::winograd_i8;
use super::{Context, columns, fill_pad};
#[cfg(feature = "host")]
use crate::isa::with_token;
use crate::kernels::conv::Conv;
#[cfg(feature = "float")]
use crate::kernels::{Lanes, scalar::Scalar};
use crate::kernels::{Number, limit};
use artifact::{Dtype, Grouped, Op};
#[cfg(feature = "host")]
use half::bf16;

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// In int8 on microcontrollers, by columns of the map.
    Columns,
    /// Channel by channel.
    Depthwise,
    /// As a product of matrices, window by window.
    Direct,
    /// By Winograd's F(4×4, 3×3).
    #[cfg(feature = "host")]
    Winograd,
}

impl Method {
    /// That of a convolution.
    pub(crate) fn of(cx: &Context<'_>, op: &Grouped) -> Self {
        match (cx.dtype(op.conv.output), cx.nr()) {
            (Dtype::I8, 4) => Self::Columns,
            _ if op.is_depthwise() => Self::Depthwise,
            #[cfg(feature = "host")]
            (Dtype::F32, _) if op.conv.scratch.is_some() => Self::Winograd,
            #[cfg(all(feature = "host", target_arch = "x86_64"))]
            (Dtype::I8, _) if winograd_i8::Split::of(cx, &op.conv).is_some() => Self::Winograd,
            _ => Self::Direct,
        }
    }
}

/// The name of how a convolution is computed, for people, with the output's pixels that it
/// computes at a time.
#[cfg(feature = "std")]
pub(crate) fn describe(cx: &Context<'_>, op: &Grouped) -> std::string::String {
    match Method::of(cx, op) {
        Method::Columns => "columns".into(),
        Method::Depthwise => "depthwise".into(),
        Method::Direct => std::format!("direct {}", cx.isa.tile(cx.dtype(op.conv.output))),
        Method::Winograd => "winograd 4x4".into(),
    }
}

/// Runs one convolution on the arena.
pub(crate) fn run(cx: &Context<'_>, op: &Grouped, arena: &mut [u8]) {
    match Method::of(cx, op) {
        Method::Columns => columns::run(cx, op, arena),
        #[cfg(feature = "float")]
        Method::Depthwise => depthwise::run(cx, op, arena),
        #[cfg(feature = "host")]
        Method::Winograd if cx.dtype(op.conv.output) == Dtype::F32 => {
            winograd::run(cx, &op.conv, arena);
        }
        #[cfg(all(feature = "host", target_arch = "x86_64"))]
        Method::Winograd => winograd_i8::run(cx, &op.conv, arena),
        #[cfg(feature = "float")]
        Method::Direct => direct(cx, op, arena),
        #[cfg(any(not(feature = "float"), all(feature = "host", not(target_arch = "x86_64"))))]
        _ => {} // refused by `Model::new`
    }
}

#[cfg(feature = "float")]
fn direct(cx: &Context<'_>, op: &Grouped, arena: &mut [u8]) {
    match (cx.dtype(op.conv.output), cx.nr()) {
        (Dtype::F16, 4) => execute::<f32, u16, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(Scalar, conv, first, out);
        }),
        #[cfg(feature = "host")]
        (Dtype::F32, 4) => execute::<f32, f32, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(Scalar, conv, first, out);
        }),
        #[cfg(feature = "host")]
        (Dtype::Bf16, 4) => execute::<f32, bf16, 4>(cx, op, arena, &|conv, first, out| {
            Lanes::<4, _, _>::conv(Scalar, conv, first, out);
        }),
        #[cfg(feature = "host")]
        (Dtype::I8, _) => execute::<i8, i8, 16>(cx, op, arena, &|conv, first, out| {
            with_token!(cx.isa, t => Lanes::<16, _, _>::conv(t, conv, first, out));
        }),
        #[cfg(feature = "host")]
        (Dtype::F32, _) => execute::<f32, f32, 16>(cx, op, arena, &|conv, first, out| {
            with_token!(cx.isa, t => Lanes::<16, _, _>::conv(t, conv, first, out));
        }),
        #[cfg(feature = "host")]
        (Dtype::F16, _) => execute::<f32, u16, 16>(cx, op, arena, &|conv, first, out| {
            with_token!(cx.isa, t => Lanes::<16, _, _>::conv(t, conv, first, out));
        }),
        #[cfg(feature = "host")]
        (Dtype::Bf16, _) => execute::<f32, bf16, 16>(cx, op, arena, &|conv, first, out| {
            with_token!(cx.isa, t => Lanes::<16, _, _>::conv(t, conv, first, out));
        }),
        #[cfg(not(feature = "host"))]
        _ => {} // refused by `Model::new`
    }
}

/// Computes the output pixels of a chunk, given the first one's index.
type ChunkKernel<'k, E, W> = dyn Fn(&Conv<'_, E, W>, usize, &mut [E]) + Sync + 'k;

/// Hands chunks of output pixels to the workers.
fn execute<E: Number, W: bytemuck::Pod + Sync, const NR: usize>(
    cx: &Context<'_>,
    op: &Grouped,
    arena: &mut [u8],
    kernel: &ChunkKernel<'_, E, W>,
) {
    let output = op.conv.output;
    let dtype = cx.dtype(output);
    let Some(Operands { x, residual, out, .. }) = operands::<E>(cx, &op.conv, arena) else {
        return;
    };
    let conv = conv::<E, W, NR>(cx, op, x, residual);
    let pixels = output.shape.pixels();
    let pixel_bytes = usize::from(output.shape.c) * dtype.activation_bytes();
    let chunk_pixels = cx.chunk_pixels(pixels, Op::Grouped(*op).macs(), dtype);
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    cx.workers.for_each_chunk(data, chunk_pixels * pixel_bytes, &|i, chunk| {
        kernel(&conv, i * chunk_pixels, bytemuck::cast_slice_mut(chunk));
        if dtype == Dtype::I8 {
            limit(bytemuck::cast_slice_mut(chunk), conv.finish.high, cx.flip());
        }
    });
    fill_pad(out, output, dtype, cx.flip());
}
