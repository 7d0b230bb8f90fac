//! 3×3 convolutions of int8 by Winograd's F(4×4, 3×3), see [`artifact::winograd_i8`].
//!
//! Like [`super::winograd`], by bands of rows of tiles, a run for each thread. But filters are
//! transformed here, sixteen outputs at a time, by all threads for all of them.

use super::conv2d::{Operands, conv, operands};
use super::{Context, fill_pad};
use crate::isa::Token;
use crate::kernels::x86_64::avx2_winograd::{BLOCK_LEN, Run, suits, transform_filters};
use artifact::winograd::{TILE, tiles};
use artifact::winograd_i8::{GROUP, filters_len, group_len, scratch_groups};
use artifact::{Conv2d, Op};

/// Runs one convolution on the arena; false where another way is better, and nothing was done.
pub(super) fn run(cx: &Context<'_>, op: &Conv2d, arena: &mut [u8]) -> bool {
    let (Token::Avx2(isa), Some(_)) = (cx.isa.0, op.winograd) else { return false };
    if !suits(bytemuck::cast_slice(cx.artifact.span(op.params))) {
        return false;
    }
    let threads = match cx.parts(Op::Conv2d(*op).macs()) {
        1 => 1,
        _ => cx.workers.threads(),
    };
    let [rows, columns] = tiles(op.output.shape);
    // Whole groups in a thread's slot.
    let most = scratch_groups(op.output.shape) / threads * GROUP;
    let most_rows = (most / columns).min(rows.div_ceil(threads));
    if most_rows == 0 {
        return false;
    }
    let dtype = cx.dtype();
    let Some(Operands { x, residual, scratch, out }) = operands::<i8>(op, dtype, arena) else {
        return true;
    };
    let conv = conv::<i8, i8, 16>(cx, op, x, residual);
    let group_len = group_len(op.input.shape.c);
    let row_len = TILE * usize::from(op.output.shape.w) * usize::from(op.output.shape.c);
    let (filters, scratch) = scratch.split_at_mut(filters_len(op.input.shape.c) * 2);
    let (data, _) = out.split_at_mut(op.output.shape.len());
    let band_rows = threads * most_rows;
    for (band, out) in data.chunks_mut(band_rows * row_len).enumerate() {
        let first_row = band * band_rows;
        let band_rows = band_rows.min(rows - first_row);
        let run_rows = band_rows.div_ceil(threads);
        let run = |i: usize| {
            let count = run_rows.min(band_rows - i * run_rows) * columns;
            Run { conv: &conv, first: (first_row + i * run_rows) * columns, count }
        };
        let slot_len = (run_rows * columns).div_ceil(GROUP) * group_len;
        let slots = band_rows.div_ceil(run_rows);
        let scratch = &mut scratch[..slots * slot_len * 2];
        cx.workers.for_each_chunk(scratch, slot_len * 2, &|i, slot| {
            run(i).to_positions(isa, bytemuck::cast_slice_mut(slot));
        });
        let transformed: &[i16] = bytemuck::cast_slice(scratch);
        let panels = conv.weights.chunks_exact(conv.filter.panel_len());
        for (panel, weights) in panels.enumerate() {
            cx.workers.for_each_chunk(filters, BLOCK_LEN * 2, &|block, out| {
                transform_filters(isa, weights, block, bytemuck::cast_slice_mut(out));
            });
            let filters: &[i16] = bytemuck::cast_slice(filters);
            cx.workers.for_each_chunk(out, run_rows * row_len, &|i, out| {
                let slot = &transformed[i * slot_len..][..slot_len];
                let out = bytemuck::cast_slice_mut(out);
                run(i).to_pixels(isa, panel, filters, slot, out);
            });
        }
    }
    fill_pad(out, op.output, dtype, cx.flip());
    true
}
