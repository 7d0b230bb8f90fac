//! 3×3 convolutions of int8 by Winograd's F(4×4, 3×3), see [`artifact::winograd_i8`].
//!
//! Like [`super::winograd`], by bands of rows of tiles, a run for each thread. But filters are
//! transformed here, sixteen outputs at a time, by each thread for itself: the others' would have
//! to come from their caches, which takes longer.

use super::operands::{Operands, conv, operands};
use super::{Context, fill_pad};
use crate::isa::Token;
use crate::kernels::limit;
use crate::kernels::x86_64::avx2_winograd::Run;
use crate::kernels::x86_64::{Avx2, all_shifts_are_large};
use artifact::params::ParamsForm;
use artifact::winograd::{TILE, tiles};
use artifact::winograd_i8::{GROUP, filters_len, group_len, scratch_groups, slots};
use artifact::{Conv2d, Dtype, Grouped, Op};

/// How its tiles are split.
pub(super) struct Split {
    isa: Avx2,
    threads: usize,
    /// Most rows of tiles of a thread's run.
    most_rows: usize,
}

impl Split {
    /// That of a convolution, unless another way is better.
    pub(super) fn of(cx: &Context<'_>, op: &Conv2d) -> Option<Self> {
        let (Token::Avx2(isa), Some(_)) = (cx.isa.0, op.scratch) else { return None };
        // Which multiplies bytes four times as fast as 16 bits.
        let is_planes = op.params_form(16, Dtype::I8) == Some(ParamsForm::Planes);
        let params = bytemuck::cast_slice(cx.artifact.span(op.params));
        if isa.has_vnni() || (is_planes && !all_shifts_are_large(params, op.output.shape.c)) {
            return None;
        }
        let threads = cx.threads(Op::Conv2d(*op).macs());
        let slots = slots(op.output.shape);
        // The other way takes about half the time.
        if threads >= 2 * slots && threads > 1 {
            return None;
        }
        let threads = threads.min(slots);
        let [rows, columns] = tiles(op.output.shape);
        // Whole groups in a thread's slot.
        let most = scratch_groups(op.output.shape) / threads * GROUP;
        let most_rows = (most / columns).min(rows.div_ceil(threads));
        (most_rows > 0).then_some(Self { isa, threads, most_rows })
    }
}

/// Runs one convolution on the arena.
pub(super) fn run(cx: &Context<'_>, op: &Conv2d, arena: &mut [u8]) {
    let Some(Split { isa, threads, most_rows }) = Split::of(cx, op) else { return };
    let [rows, columns] = tiles(op.output.shape);
    let dtype = cx.dtype(op.output);
    let Some(Operands { x, residual, scratch, out }) = operands::<i8>(cx, op, arena) else {
        return;
    };
    let conv = conv::<i8, i8, 16>(cx, &Grouped { groups: 1, conv: *op }, x, residual);
    let (group_len, filters_len) = (group_len(op.input.shape.c), filters_len(op.input.shape.c));
    let row_len = TILE * usize::from(op.output.shape.w) * usize::from(op.output.shape.c);
    let (data, _) = out.split_at_mut(op.output.shape.len());
    let band_rows = threads * most_rows;
    for (band, out) in data.chunks_mut(band_rows * row_len).enumerate() {
        let first_row = band * band_rows;
        let run_rows = band_rows.min(rows - first_row).div_ceil(threads);
        let slot_len = (run_rows * columns).div_ceil(GROUP) * group_len + filters_len;
        let sizes = [run_rows * row_len, slot_len * 2];
        cx.workers.for_each_chunk_with([out, &mut *scratch], sizes, &|i, out, slot| {
            let first_row = first_row + i * run_rows;
            let count = out.len().div_ceil(row_len) * columns;
            let run = Run { conv: &conv, first: first_row * columns, count };
            let (filters, transformed) =
                bytemuck::cast_slice_mut::<_, i16>(slot).split_at_mut(filters_len);
            run.to_positions(isa, transformed);
            let out = bytemuck::cast_slice_mut(out);
            run.to_pixels(isa, filters, transformed, out);
            limit(out, conv.finish.high, cx.flip());
        });
    }
    fill_pad(out, op.output, dtype, cx.flip());
}
