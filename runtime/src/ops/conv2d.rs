//! Convolutions and dense layers.

#[cfg(feature = "host")]
use super::winograd;
#[cfg(all(feature = "host", target_arch = "x86_64"))]
use super::winograd_i8;
use super::{Context, columns, fill_pad};
use crate::isa::Token;
use crate::kernels::conv::{Conv, ResidualSource};
use crate::kernels::{Finish, Lanes, Number};
use artifact::layout::FilterLayout;
use artifact::{Conv2d, Dtype, Op, Span};
use core::ops::Range;
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

/// A convolution's operands in the arena.
pub(super) struct Operands<'a, E> {
    pub(super) x: &'a [E],
    pub(super) residual: ResidualSource<'a, E>,
    pub(super) scratch: &'a mut [u8],
    pub(super) out: &'a mut [u8],
}

/// Borrows them. The reader proved that they are disjoint and in bounds; `None` would be its bug.
pub(super) fn operands<'a, E: Number>(
    cx: &Context<'_>,
    op: &Conv2d,
    arena: &'a mut [u8],
) -> Option<Operands<'a, E>> {
    let residual = op.residual.map(|r| cx.range(r.input));
    borrow(arena, op.scratch, [cx.range(op.input), cx.range(op.output)], residual)
}

/// As [`operands`], in ranges of the arena.
pub(super) fn borrow<E: Number>(
    arena: &mut [u8],
    scratch: Option<Span>,
    [input, output]: [Range<usize>; 2],
    residual: Option<Range<usize>>,
) -> Option<Operands<'_, E>> {
    let scratch = scratch.map_or(0..0, |s| {
        let start = s.offset as usize;
        start..start + s.len as usize
    });
    let (x, residual, scratch, out) = match residual {
        Some(r) if r != output && r != input => {
            let ranges = [input, r, scratch, output];
            let [x, r, scratch, out] = arena.get_disjoint_mut(ranges).ok()?;
            (&*x, ResidualSource::Other(bytemuck::cast_slice(r)), scratch, out)
        }
        residual => {
            let is_in_place = residual.as_ref() == Some(&output);
            let [x, scratch, out] = arena.get_disjoint_mut([input, scratch, output]).ok()?;
            let x = &*x;
            let residual = match residual {
                None => ResidualSource::None,
                Some(_) if is_in_place => ResidualSource::InPlace,
                Some(_) => ResidualSource::Other(bytemuck::cast_slice(x)),
            };
            (x, residual, scratch, out)
        }
    };
    Some(Operands { x: bytemuck::cast_slice(x), residual, scratch, out })
}

/// A convolution as kernels of panels of NR take it.
pub(super) fn conv<'a, E: Number, W: bytemuck::Pod, const NR: usize>(
    cx: &Context<'a>,
    op: &Conv2d,
    x: &'a [E],
    residual: ResidualSource<'a, E>,
) -> Conv<'a, E, W> {
    let zero_point = i32::from(op.output.quant.zero_point);
    Conv {
        x,
        input: op.input.shape,
        output: op.output.shape,
        filter: FilterLayout {
            kh: op.filter[0].into(),
            kw: op.filter[1].into(),
            c_in: op.input.shape.c.into(),
            c_out: op.output.shape.c.into(),
            nr: NR,
            dtype: cx.dtype(op.output),
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
    }
}

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
