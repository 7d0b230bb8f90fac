//! 3×3 convolutions of f32 by Winograd's F(4×4, 3×3), see [`artifact::winograd`].
//!
//! Runs of rows of tiles are computed one after the other, as many at a time as there are
//! threads, each of which has a slot of the scratch for its run's transformed input. Its products with a panel's
//! filters, [`crate::kernels::winograd`], fit into a nearer cache and become pixels at once.

use super::operands::{Operands, operands};
use super::{Context, fill_pad, float_bounds};
use crate::isa::with_token;
use crate::kernels::Kernel;
use crate::kernels::conv::ResidualSource;
use crate::kernels::winograd::{BLOCK, Block, Multiply, Products, window};
use artifact::winograd::{LANES, POSITIONS, TILE, WINDOW, tiles};
use artifact::{Conv2d, Op};
use core::ops::Range;

/// Tiles of a run, unless a row of tiles has more.
const RUN: usize = 42;
/// Bytes of filters that stay in a cache of a core's own.
const NEAR: usize = 1 << 20;

/// Runs one convolution on the arena.
pub(super) fn run(cx: &Context<'_>, op: &Conv2d, arena: &mut [u8]) {
    let dtype = cx.dtype(op.output);
    let Some(Operands { x, residual, scratch, out }) = operands::<f32>(cx, op, arena) else {
        return;
    };
    let (c_in, c_out) = (usize::from(op.input.shape.c), usize::from(op.output.shape.c));
    let [rows, columns] = tiles(op.output.shape);
    // Runs that even out where a core is slower, of filters that stay near; others are read as seldom as may be.
    // There is a slot for each thread, as the scratch is for the whole map.
    let threads = cx.threads(Op::Conv2d(*op).macs());
    let is_near = POSITIONS * c_in * c_out * size_of::<f32>() <= NEAR;
    let parts = if is_near && threads > 1 { rows } else { threads };
    let run_rows = (RUN / columns).clamp(1, (rows / parts).max(1));
    let slot_len = run_rows * columns * POSITIONS * c_in;
    let row_len = TILE * usize::from(op.output.shape.w) * c_out;
    let (data, _) = out.split_at_mut(op.output.shape.len() * 4);
    let weights: &[f32] = bytemuck::cast_slice(cx.artifact.span(op.weights));
    let bias: &[f32] = bytemuck::cast_slice(cx.artifact.span(op.params));
    let sizes = [run_rows * row_len * 4, slot_len * 4];
    cx.workers.for_each_chunk_with([data, scratch], sizes, &|i, out, slot| {
        let out: &mut [f32] = bytemuck::cast_slice_mut(out);
        let slot: &mut [f32] = bytemuck::cast_slice_mut(slot);
        let count = out.len().div_ceil(row_len) * columns;
        let slot = &mut slot[..count * POSITIONS * c_in];
        let first_row = i * run_rows;
        cx.run(ToPositions { op, x, first: first_row * columns, out: slot });
        let first_value = first_row * row_len;
        let mut block = [[0.0; BLOCK * LANES]; POSITIONS];
        let panels = weights.chunks_exact(POSITIONS * c_in * LANES);
        for (panel, filters) in panels.enumerate() {
            for first in (0..count).step_by(BLOCK) {
                let tiles = BLOCK.min(count - first);
                let products = Products { x: slot, count, first, tiles, c_in, filters };
                with_token!(cx.isa, t => t.multiply(&products, &mut block));
                cx.run(ToPixels {
                    op,
                    products: &block,
                    tiles: first..first + tiles,
                    channel: panel * LANES,
                    bias,
                    residual,
                    first_value,
                    out,
                });
            }
        }
    });
    fill_pad(out, op.output, dtype, 0);
}

type Lane = [f32; LANES];

/// One dimension of the input's transform, `Bᵀ d`.
#[inline(always)]
fn input_transform(d: [&Lane; WINDOW], out: &mut [Lane; WINDOW]) {
    for c in 0..LANES {
        let [d0, d1, d2, d3, d4, d5] = [d[0][c], d[1][c], d[2][c], d[3][c], d[4][c], d[5][c]];
        let (even, odd) = (d4 - 4.0 * d2, d3 - 4.0 * d1);
        let (even2, odd2) = (d4 - d2, 2.0 * (d3 - d1));
        out[0][c] = 4.0 * d0 - 5.0 * d2 + d4;
        out[1][c] = even + odd;
        out[2][c] = even - odd;
        out[3][c] = even2 + odd2;
        out[4][c] = even2 - odd2;
        out[5][c] = 4.0 * d1 - 5.0 * d3 + d5;
    }
}

/// One dimension of the products' transform, `Aᵀ m`.
#[inline(always)]
fn output_transform(m: [&Lane; WINDOW], out: &mut [Lane; TILE]) {
    for c in 0..LANES {
        let [m0, m1, m2, m3, m4, m5] = [m[0][c], m[1][c], m[2][c], m[3][c], m[4][c], m[5][c]];
        let (sum, difference) = (m1 + m2, m1 - m2);
        let (sum2, difference2) = (m3 + m4, m3 - m4);
        out[0][c] = m0 + sum + sum2;
        out[1][c] = difference + 2.0 * difference2;
        out[2][c] = sum + 4.0 * sum2;
        out[3][c] = difference + 8.0 * difference2 + m5;
    }
}

/// Sixteen channels at `at`; a checked model's are there.
#[inline(always)]
fn lane(from: &[f32], at: usize) -> &Lane {
    const NONE: &Lane = &[0.0; LANES];
    from.get(at..).and_then(<[f32]>::first_chunk).unwrap_or(NONE)
}

/// Input tiles to positions.
struct ToPositions<'a> {
    op: &'a Conv2d,
    x: &'a [f32],
    /// First tile.
    first: usize,
    /// `[36, tiles, c_in]`.
    out: &'a mut [f32],
}

impl Kernel for ToPositions<'_> {
    #[expect(clippy::needless_range_loop, reason = "i and j are the formula's")]
    #[inline(always)]
    fn eval(self) {
        let c_in = usize::from(self.op.input.shape.c);
        let count = self.out.len() / (POSITIONS * c_in);
        for tile in 0..count {
            let at = window(
                self.op.input.shape,
                self.op.output.shape,
                self.op.padding,
                self.first + tile,
            );
            for channel in (0..c_in).step_by(LANES) {
                // Columns first: `half[j][i]`.
                let mut half = [[[0.0; LANES]; WINDOW]; WINDOW];
                for j in 0..WINDOW {
                    let d = |i: usize| lane(self.x, at[i * WINDOW + j] + channel);
                    input_transform([d(0), d(1), d(2), d(3), d(4), d(5)], &mut half[j]);
                }
                for i in 0..WINDOW {
                    let mut values = [[0.0; LANES]; WINDOW];
                    let d = |j: usize| &half[j][i];
                    input_transform([d(0), d(1), d(2), d(3), d(4), d(5)], &mut values);
                    for (j, value) in values.iter().enumerate() {
                        let to = ((i * WINDOW + j) * count + tile) * c_in + channel;
                        self.out[to..to + LANES].copy_from_slice(value);
                    }
                }
            }
        }
    }
}

/// Products to output pixels, with bias, residual and ReLU.
struct ToPixels<'a> {
    op: &'a Conv2d,
    /// Of sixteen outputs of some tiles, at each position.
    products: &'a Block,
    /// Which tiles of the run these are.
    tiles: Range<usize>,
    /// First of the outputs.
    channel: usize,
    bias: &'a [f32],
    residual: ResidualSource<'a, f32>,
    /// Where `out` starts in the output.
    first_value: usize,
    /// All rows of the run.
    out: &'a mut [f32],
}

impl Kernel for ToPixels<'_> {
    #[expect(clippy::needless_range_loop, reason = "i and j are the formula's")]
    #[inline(always)]
    fn eval(self) {
        let (w, c_out) = (usize::from(self.op.output.shape.w), usize::from(self.op.output.shape.c));
        let [_, columns] = tiles(self.op.output.shape);
        let rows = self.out.len() / (w * c_out);
        let bias = lane(self.bias, self.channel);
        let bounds = float_bounds(self.op.clamp);
        for (i, tile) in self.tiles.enumerate() {
            let (y0, x0) = (tile / columns * TILE, tile % columns * TILE);
            // Rows first: `half[i]` holds the four columns of row i.
            let mut half = [[[0.0; LANES]; TILE]; WINDOW];
            for y in 0..WINDOW {
                let m = |x: usize| lane(&self.products[y * WINDOW + x], i * LANES);
                output_transform([m(0), m(1), m(2), m(3), m(4), m(5)], &mut half[y]);
            }
            for x in 0..TILE.min(w - x0) {
                let mut values = [[0.0; LANES]; TILE];
                let m = |y: usize| &half[y][x];
                output_transform([m(0), m(1), m(2), m(3), m(4), m(5)], &mut values);
                for (y, value) in values.iter_mut().enumerate().take(rows - y0) {
                    let at = ((y0 + y) * w + x0 + x) * c_out + self.channel;
                    let residual = match self.residual {
                        ResidualSource::None => [0.0; LANES],
                        ResidualSource::InPlace => *lane(self.out, at),
                        ResidualSource::Other(r) => *lane(r, self.first_value + at),
                    };
                    for c in 0..LANES {
                        let y = value[c] + bias[c] + residual[c];
                        value[c] = bounds.map_or(y, |[low, high]| y.max(low).min(high));
                    }
                    self.out[at..at + LANES].copy_from_slice(value);
                }
            }
        }
    }
}
