//! Depthwise convolution, once for every instruction set and number format.
//!
//! A weight is multiplied with one number, so nothing is broadcast: NR channels of a pixel are a vector,
//! and so are their weights. A *column* is what a step multiplies, one pixel of floats, or of int8 four of
//! a filter column, one below the other, which dot products take at once. Several outputs
//! of a row are computed at a time, so that a column is loaded once for all that read it.
//!
//! Rows outside the map are a vector of the pad value. Outputs whose window reaches over the left or
//! right border are computed of a copy of their window, with padding.

use super::conv::Conv;
use super::{Lanes, Number};
use artifact::layout::{DEPTHWISE_ROWS, DepthwiseLayout, MAX_DEPTHWISE, window_start};

/// The steps of a depthwise convolution on one instruction set.
pub(crate) trait Channels<const NR: usize, E: Number>: Lanes<NR, E, E> {
    /// Filter rows of a step, at most [`DEPTHWISE_ROWS`].
    const ROWS: usize;
    /// NR channels of so many pixels, as they are multiplied.
    type Column: Copy;
    /// Their weights.
    type Weights: Copy;

    /// A column of the first [`Self::ROWS`] of `rows`.
    fn column(self, rows: [&[E; NR]; DEPTHWISE_ROWS]) -> Self::Column;

    /// The weights of a step, ROWS · NR as [`DepthwiseLayout`] packs them.
    fn weights(self, w: &[E]) -> Self::Weights;

    /// `acc + Σ x · w`, channel by channel.
    fn accumulate(self, acc: Self::Acc, x: Self::Column, w: Self::Weights) -> Self::Acc;

    /// Runs [`Conv::channels`] with tile sizes that suit the registers, on rows of the output from
    /// `first_row` on.
    fn depthwise(self, conv: &Conv<'_, E, E>, first_row: usize, out: &mut [E]);
}

/// Pixels below each other in the window of a copy.
type Patch<E, const NR: usize> = [[[E; NR]; MAX_DEPTHWISE]; MAX_DEPTHWISE];

/// A row of vectors.
#[derive(Clone, Copy)]
struct Row<'a, E> {
    numbers: &'a [E],
    /// Numbers from one vector to the next; 0 where all are the same.
    step: usize,
}

impl<'a, E, const NR: usize> Row<'a, [E; NR]> {
    /// Of a copy.
    fn of(vectors: &'a [[E; NR]]) -> Row<'a, E> {
        Row { numbers: vectors.as_flattened(), step: NR }
    }
}

impl<'a, E> Row<'a, E> {
    /// Vector `i`.
    #[inline(always)]
    fn at<const NR: usize>(self, i: usize) -> &'a [E; NR] {
        let (vectors, _) = self.numbers[i * self.step..].as_chunks();
        &vectors[0]
    }
}

/// What all outputs of a line and a panel share.
struct Line<'a, I: Lanes<NR, E, E>, E: Number, const NR: usize> {
    isa: I,
    weights: &'a [E],
    start: I::Acc,
    scale: I::Scale,
    /// First channel.
    channel: usize,
    /// Channels.
    count: usize,
    /// Output row.
    row: usize,
}

impl<E: Number> Conv<'_, E, E> {
    /// Computes the rows of the output that `out` holds, the first of which is `first_row`, MR pixels
    /// at a time.
    #[inline(always)]
    pub(crate) fn channels<I, const NR: usize, const MR: usize>(
        &self,
        isa: I,
        first_row: usize,
        out: &mut [E],
    ) where
        I: Channels<NR, E>,
    {
        let c = usize::from(self.output.c);
        let row_len = usize::from(self.output.w) * c;
        let [kh, kw] = [self.filter.kh, self.filter.kw];
        let layout = DepthwiseLayout { kh, kw, channels: c, nr: NR, dtype: self.filter.dtype };
        let (panel_len, params_len) = (layout.panel_len(), E::PLANES * NR);
        for (i, out) in out.chunks_exact_mut(row_len).enumerate() {
            for panel in 0..layout.panels() {
                let params = &self.params[panel * params_len..][..params_len];
                let line = Line {
                    isa,
                    weights: &self.weights[panel * panel_len..][..panel_len],
                    start: isa.start(params),
                    scale: isa.scale(params, &self.finish),
                    channel: panel * NR,
                    count: NR.min(c - panel * NR),
                    row: first_row + i,
                };
                match (I::ROWS, kw, kh.div_ceil(I::ROWS), self.stride[1]) {
                    (4, 1, 1, 1) => self.line::<I, NR, MR, 1, 1, 1>(&line, out),
                    (1, 1, 1, 1) => self.line::<I, NR, MR, 1, 1, 1>(&line, out),
                    (4, 3, 1, 1) => self.line::<I, NR, MR, 3, 1, 1>(&line, out),
                    (4, 3, 1, 2) => self.line::<I, NR, MR, 3, 1, 2>(&line, out),
                    (4, 5, 2, 1) => self.line::<I, NR, MR, 5, 2, 1>(&line, out),
                    (4, 5, 2, 2) => self.line::<I, NR, MR, 5, 2, 2>(&line, out),
                    (1, 3, 3, 1) => self.line::<I, NR, MR, 3, 3, 1>(&line, out),
                    (1, 3, 3, 2) => self.line::<I, NR, MR, 3, 3, 2>(&line, out),
                    (1, 5, 5, 1) => self.line::<I, NR, MR, 5, 5, 1>(&line, out),
                    (1, 5, 5, 2) => self.line::<I, NR, MR, 5, 5, 2>(&line, out),
                    _ => self.any_line(&line, out),
                }
            }
        }
    }

    /// A line of the output, of a filter of KW columns and STEPS steps of rows, with stride S.
    #[inline(always)]
    fn line<
        I,
        const NR: usize,
        const MR: usize,
        const KW: usize,
        const STEPS: usize,
        const S: usize,
    >(
        &self,
        line: &Line<'_, I, E, NR>,
        out: &mut [E],
    ) where
        I: Channels<NR, E>,
    {
        let step = |s: usize, k: usize| {
            let at = (s * KW + k) * I::ROWS * NR;
            line.isa.weights(&line.weights[at..][..I::ROWS * NR])
        };
        let weights: [[I::Weights; KW]; STEPS] =
            core::array::from_fn(|s| core::array::from_fn(|k| step(s, k)));
        let pad = [self.pad(); NR];
        let rows: [[Row<'_, E>; DEPTHWISE_ROWS]; STEPS] = core::array::from_fn(|s| {
            core::array::from_fn(|r| self.row(line, s * I::ROWS + r, &pad))
        });
        let (w_in, w_out) = (usize::from(self.input.w), usize::from(self.output.w));
        let left = usize::from(self.padding.left);
        // Outputs whose windows are inside the map.
        let end = (w_in + left).checked_sub(KW).map_or(0, |room| room / S + 1).min(w_out);
        let inside = left.div_ceil(S).min(w_out)..end;
        let inside = if self.reads_inside(line) && !inside.is_empty() { inside } else { 0..0 };
        let mut patch = [[[E::zeroed(); NR]; MAX_DEPTHWISE]; MAX_DEPTHWISE];
        for x in (0..inside.start).chain(inside.end..w_out) {
            self.copy(line, x, &mut patch);
            let rows: [[Row<'_, E>; DEPTHWISE_ROWS]; STEPS] = core::array::from_fn(|s| {
                core::array::from_fn(|r| Row::of(&patch[(s * I::ROWS + r) % MAX_DEPTHWISE]))
            });
            let [acc] = tile::<I, E, NR, 1, KW, STEPS, S>(line, &rows, &weights, 0, 1);
            self.store(line, acc, x, out);
        }
        for x in inside.clone().step_by(MR) {
            let count = MR.min(inside.end - x);
            let first = x * S - left;
            let acc = tile::<I, E, NR, MR, KW, STEPS, S>(line, &rows, &weights, first, count);
            for (m, acc) in acc.into_iter().enumerate().take(count) {
                self.store(line, acc, x + m, out);
            }
        }
    }

    /// As [`Self::line`], of any filter.
    fn any_line<I, const NR: usize>(&self, line: &Line<'_, I, E, NR>, out: &mut [E])
    where
        I: Channels<NR, E>,
    {
        let mut patch = [[[E::zeroed(); NR]; MAX_DEPTHWISE]; MAX_DEPTHWISE];
        for x in 0..usize::from(self.output.w) {
            self.copy(line, x, &mut patch);
            let mut acc = line.start;
            let steps = line.weights.chunks_exact(self.filter.kw * I::ROWS * NR);
            for (s, weights) in steps.enumerate() {
                for (k, w) in weights.chunks_exact(I::ROWS * NR).enumerate() {
                    let pixel = |r: usize| &patch[(s * I::ROWS + r) % MAX_DEPTHWISE][k];
                    let column = line.isa.column(core::array::from_fn(pixel));
                    acc = line.isa.accumulate(acc, column, line.isa.weights(w));
                }
            }
            self.store(line, acc, x, out);
        }
    }

    /// The value outside the map.
    #[inline(always)]
    fn pad(&self) -> E {
        self.x[self.input.len()]
    }

    /// Row `r` of the filter on a line's channels; rows that do not exist have no weights, whatever
    /// they are.
    #[inline(always)]
    fn row<'a, I: Lanes<NR, E, E>, const NR: usize>(
        &'a self,
        line: &Line<'_, I, E, NR>,
        r: usize,
        pad: &'a [E; NR],
    ) -> Row<'a, E> {
        let (w, c) = (usize::from(self.input.w), usize::from(self.input.c));
        let y = window_start(line.row, self.stride[0], self.padding.top) + r as isize;
        match usize::try_from(y).ok().filter(|y| *y < usize::from(self.input.h)) {
            Some(y) if r < self.filter.kh => {
                Row { numbers: &self.x[y * w * c + line.channel..], step: c }
            }
            _ => Row { numbers: pad, step: 0 },
        }
    }

    /// Whether NR numbers may be read of each pixel: a last panel has fewer, and those after the
    /// last pixel may be too few.
    #[inline(always)]
    fn reads_inside<I: Lanes<NR, E, E>, const NR: usize>(&self, line: &Line<'_, I, E, NR>) -> bool {
        let c = usize::from(self.input.c);
        self.input.len() - c + line.channel + NR <= self.x.len()
    }

    /// Copies the window of the output's column `x`.
    fn copy<I: Lanes<NR, E, E>, const NR: usize>(
        &self,
        line: &Line<'_, I, E, NR>,
        x: usize,
        patch: &mut Patch<E, NR>,
    ) {
        let (w, c) = (usize::from(self.input.w), usize::from(self.input.c));
        let y0 = window_start(line.row, self.stride[0], self.padding.top);
        let x0 = window_start(x, self.stride[1], self.padding.left);
        for (i, patch) in patch.iter_mut().enumerate().take(self.filter.kh) {
            for (j, patch) in patch.iter_mut().enumerate().take(self.filter.kw) {
                // Negative numbers are huge as unsigned.
                let (y, x) = ((y0 + i as isize) as usize, (x0 + j as isize) as usize);
                if y < usize::from(self.input.h) && x < w {
                    let from = &self.x[(y * w + x) * c + line.channel..][..line.count];
                    patch[..line.count].copy_from_slice(from);
                } else {
                    *patch = [self.pad(); NR];
                }
            }
        }
    }

    /// Finishes the output's column `x`.
    #[inline(always)]
    fn store<I, const NR: usize>(
        &self,
        line: &Line<'_, I, E, NR>,
        acc: I::Acc,
        x: usize,
        out: &mut [E],
    ) where
        I: Channels<NR, E>,
    {
        let c = usize::from(self.output.c);
        let at = x * c + line.channel;
        let y = &mut out[at..][..line.count];
        let first = line.row * usize::from(self.output.w) * c + at;
        if line.count == NR {
            let residual = self.residual.lanes::<NR, true>(y, first);
            let all = line.isa.finish(acc, &line.scale, &self.finish, residual.as_ref());
            if let ([whole], _) = y.as_chunks_mut() {
                *whole = all;
            }
        } else {
            let residual = self.residual.lanes::<NR, false>(y, first);
            let all = line.isa.finish(acc, &line.scale, &self.finish, residual.as_ref());
            y.copy_from_slice(&all[..line.count]);
        }
    }
}

/// Sums of MR windows, the first of which starts at vector `first` of the rows; of those after `count`,
/// any.
#[inline(always)]
fn tile<
    I,
    E: Number,
    const NR: usize,
    const MR: usize,
    const KW: usize,
    const STEPS: usize,
    const S: usize,
>(
    line: &Line<'_, I, E, NR>,
    rows: &[[Row<'_, E>; DEPTHWISE_ROWS]; STEPS],
    weights: &[[I::Weights; KW]; STEPS],
    first: usize,
    count: usize,
) -> [I::Acc; MR]
where
    I: Channels<NR, E>,
{
    let mut acc = [line.start; MR];
    let last = (count - 1) * S + KW - 1;
    for s in 0..STEPS {
        for j in 0..(MR - 1) * S + KW {
            let at = first + j.min(last);
            let column = line.isa.column(core::array::from_fn(|r| {
                // Those beyond ROWS are not looked at.
                rows[s][if r < I::ROWS { r } else { 0 }].at(at)
            }));
            for m in 0..MR {
                if j >= m * S && j - m * S < KW {
                    acc[m] = line.isa.accumulate(acc[m], column, weights[s][j - m * S]);
                }
            }
        }
    }
    acc
}
