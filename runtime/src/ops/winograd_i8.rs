//! 3×3 convolutions of int8 by Winograd's F(2×2, 3×3), see [`artifact::winograd_i8`].
//!
//! Like [`super::winograd`]: runs of rows of tiles, one per thread at a time, whose transformed
//! input has a slot of the scratch.

use super::conv2d::{Operands, conv, operands};
use super::{Context, fill_pad};
use crate::isa::Token;
use crate::kernels::x86_64::avx2_winograd::{MAX_TILES, Run, suits};
use artifact::winograd_i8::{GROUP, TILE, group_len, scratch_groups, tiles};
use artifact::{Conv2d, Op};

/// Fewest tiles for which a filter is worth transforming.
const MIN_TILES: usize = 8;

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
    // Whole groups in a thread's slot, and in the sums of a run.
    let most = (scratch_groups(op.output.shape) / threads * GROUP).min(MAX_TILES);
    let run_rows = (most / columns).min(rows.div_ceil(threads));
    // As many rows in each band, as far as that goes.
    let bands = rows.div_ceil((run_rows * threads).max(1));
    let run_rows = rows.div_ceil((bands * threads).max(1));
    let run_tiles = run_rows * columns;
    if run_rows == 0 || run_tiles < MIN_TILES {
        return false;
    }
    let dtype = cx.dtype();
    let Some(Operands { x, residual, scratch, out }) = operands::<i8>(op, dtype, arena) else {
        return true;
    };
    let conv = conv::<i8, i8, 16>(cx, op, x, residual);
    let slot_len = run_tiles.div_ceil(GROUP) * group_len(op.input.shape.c);
    let row_len = TILE * usize::from(op.output.shape.w) * usize::from(op.output.shape.c);
    let (data, _) = out.split_at_mut(op.output.shape.len());
    for (band, out) in data.chunks_mut(threads * run_rows * row_len).enumerate() {
        let run = |i: usize| {
            let first_row = (band * threads + i) * run_rows;
            let count = run_rows.min(rows - first_row) * columns;
            Run { conv: &conv, first: first_row * columns, count }
        };
        let slots = out.len().div_ceil(run_rows * row_len);
        let scratch = &mut scratch[..slots * slot_len * 2];
        cx.workers.for_each_chunk(scratch, slot_len * 2, &|i, slot| {
            run(i).to_positions(isa, bytemuck::cast_slice_mut(slot));
        });
        let transformed: &[i16] = bytemuck::cast_slice(scratch);
        cx.workers.for_each_chunk(out, run_rows * row_len, &|i, out| {
            let slot = &transformed[i * slot_len..][..slot_len];
            run(i).to_pixels(isa, slot, bytemuck::cast_slice_mut(out));
        });
    }
    fill_pad(out, op.output, dtype, cx.flip());
    true
}
