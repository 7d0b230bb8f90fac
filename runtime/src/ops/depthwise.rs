//! Depthwise convolutions, unless on microcontrollers in int8, see [`super::columns`].

use super::operands::{Operands, conv, operands};
use super::{Context, fill_pad};
#[cfg(feature = "host")]
use crate::isa::with_token;
use crate::kernels::Number;
use crate::kernels::conv::Conv;
use crate::kernels::depthwise::Channels;
#[cfg(feature = "host")]
use crate::kernels::limit;
use crate::kernels::scalar::Scalar;
use artifact::{Dtype, Grouped, Op};

/// Runs one on the arena.
pub(super) fn run(cx: &Context<'_>, op: &Grouped, arena: &mut [u8]) {
    match (cx.dtype(op.conv.output), cx.nr()) {
        (Dtype::F32 | Dtype::F16 | Dtype::Bf16, 4) => {
            execute::<f32, 4>(cx, op, arena, &|conv, first, out| {
                Channels::<4, f32>::depthwise(Scalar, conv, first, out);
            });
        }
        #[cfg(feature = "host")]
        (Dtype::I8, _) => execute::<i8, 16>(cx, op, arena, &|conv, first, out| {
            with_token!(cx.isa, t => Channels::<16, i8>::depthwise(t, conv, first, out));
            limit(out, conv.finish.high, cx.flip());
        }),
        #[cfg(feature = "host")]
        _ => execute::<f32, 16>(cx, op, arena, &|conv, first, out| {
            with_token!(cx.isa, t => Channels::<16, f32>::depthwise(t, conv, first, out));
        }),
        #[cfg(not(feature = "host"))]
        _ => {} // refused by `Model::new`
    }
}

/// Computes the output rows of a chunk, given the first one's index.
type ChunkKernel<'k, E> = dyn Fn(&Conv<'_, E, E>, usize, &mut [E]) + Sync + 'k;

/// Hands chunks of output rows to the workers.
fn execute<E: Number, const NR: usize>(
    cx: &Context<'_>,
    op: &Grouped,
    arena: &mut [u8],
    kernel: &ChunkKernel<'_, E>,
) {
    let output = op.conv.output;
    let dtype = cx.dtype(output);
    let Some(Operands { x, residual, out, .. }) = operands::<E>(cx, &op.conv, arena) else {
        return;
    };
    let conv = conv::<E, E, NR>(cx, op, x, residual);
    let rows = usize::from(output.shape.h);
    let row_bytes = output.shape.len() / rows * dtype.activation_bytes();
    // A product costs more here than where each number is used for many outputs.
    const COST: u64 = 4;
    let chunk_rows = rows.div_ceil(cx.parts(Op::Grouped(*op).macs() * COST).max(1));
    let (data, _) = out.split_at_mut(rows * row_bytes);
    cx.workers.for_each_chunk(data, chunk_rows * row_bytes, &|i, chunk| {
        kernel(&conv, i * chunk_rows, bytemuck::cast_slice_mut(chunk));
    });
    fill_pad(out, output, dtype, cx.flip());
}
