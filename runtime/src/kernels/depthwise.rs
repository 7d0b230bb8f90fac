//! Depthwise convolution, once for every instruction set and number format.
//!
//! A weight is multiplied with one number, so nothing is broadcast: NR channels of a pixel are a vector,
//! and so are their weights. A *column* is what a step multiplies, one pixel of floats, or of int8 four of
//! a filter column, one below the other, which dot products take at once. Several outputs
//! of a row are computed at a time, so that a column is loaded once for all that read it.
//!
//! At the left and right border, columns outside the map are of the pad value. Above and below, the
//! window moves into the map and its weights the other way; what the rows outside would add is the same for
//! all pixels of a row, and becomes part of what sums start from. Filters of unusual
//! sizes are computed of a copy of each window.

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

    /// The NR numbers at `at` of each of some lines; of lines that do not exist, any.
    fn column(self, x: &[E], at: usize, lines: Lines) -> Self::Column;

    /// The weights of a step, ROWS · NR as [`DepthwiseLayout`] packs them.
    fn weights(self, w: &[E]) -> Self::Weights;

    /// `acc + Σ x · w`, channel by channel.
    fn accumulate(self, acc: Self::Acc, x: Self::Column, w: Self::Weights) -> Self::Acc;

    /// Runs [`Conv::channels`] with tile sizes that suit the registers, on rows of the output from
    /// `first_row` on.
    fn depthwise(self, conv: &Conv<'_, E, E>, first_row: usize, out: &mut [E]);
}

/// Lines of a map, one below the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    /// At least one.
    pub count: usize,
    /// Numbers from one to the next.
    pub stride: usize,
}

impl Lines {
    /// Where each of [`DEPTHWISE_ROWS`] lines has the number that the first has at `at`, of those that
    /// do not exist any; panics unless NR numbers there are in bounds.
    #[inline(always)]
    pub(crate) fn check<E, const NR: usize>(self, x: &[E], at: usize) -> [usize; DEPTHWISE_ROWS] {
        let Self { count, stride } = self;
        assert!(count > 0 && at + (count - 1) * stride + NR <= x.len());
        let line = |r: usize| at + if r < count { r * stride } else { 0 };
        [at, line(1), line(2), line(3)]
    }
}

/// Numbers of a panel's weights.
const MAX_WEIGHTS: usize = 16 * MAX_DEPTHWISE * (MAX_DEPTHWISE + 1);

/// Pixels below each other in the window of a copy.
type Patch<E, const NR: usize> = [[[E; NR]; MAX_DEPTHWISE]; MAX_DEPTHWISE];

/// Bytes of the rows that are read for all panels before the next ones: what stays in a near cache.
const BAND_BYTES: usize = 96 << 10;

/// What all outputs of a panel share.
struct Panel<'a, I: Lanes<NR, E, E>, E: Number, const NR: usize> {
    isa: I,
    layout: DepthwiseLayout,
    weights: &'a [E],
    start: I::Acc,
    scale: I::Scale,
    /// First channel.
    channel: usize,
    /// Channels.
    count: usize,
}

/// Weights of a panel in registers, and what sums start from.
#[derive(Clone, Copy)]
struct Filter<I: Channels<NR, E>, E: Number, const NR: usize, const KW: usize, const STEPS: usize> {
    weights: [[I::Weights; KW]; STEPS],
    start: I::Acc,
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
        let line_bytes = self.input.len() / usize::from(self.input.h) * size_of::<E>();
        let band = (BAND_BYTES / line_bytes / usize::from(self.stride[0])).max(1);
        for (i, out) in out.chunks_mut(band * row_len).enumerate() {
            let first_row = first_row + i * band;
            for index in 0..layout.panels() {
                let params = &self.params[index * params_len..][..params_len];
                let panel = Panel {
                    isa,
                    layout,
                    weights: &self.weights[index * panel_len..][..panel_len],
                    start: isa.start(params),
                    scale: isa.scale(params, &self.finish),
                    channel: index * NR,
                    count: NR.min(c - index * NR),
                };
                // After the last pixel, there may be too few numbers for the panel.
                let fits = self.input.len() - c + panel.channel + NR <= self.x.len()
                    && kh <= usize::from(self.input.h);
                match (I::ROWS, kw, kh.div_ceil(I::ROWS), self.stride[1]) {
                    _ if !fits => self.any(&panel, first_row, out),
                    (4, 1, 1, 1) => self.rows::<I, NR, MR, 1, 1, 1>(&panel, first_row, out),
                    (4, 3, 1, 1) => self.rows::<I, NR, MR, 3, 1, 1>(&panel, first_row, out),
                    (4, 3, 1, 2) => self.rows::<I, NR, MR, 3, 1, 2>(&panel, first_row, out),
                    (4, 5, 2, 1) => self.rows::<I, NR, MR, 5, 2, 1>(&panel, first_row, out),
                    (4, 5, 2, 2) => self.rows::<I, NR, MR, 5, 2, 2>(&panel, first_row, out),
                    (1, 1, 1, 1) => self.rows::<I, NR, MR, 1, 1, 1>(&panel, first_row, out),
                    (1, 3, 3, 1) => self.rows::<I, NR, MR, 3, 3, 1>(&panel, first_row, out),
                    (1, 3, 3, 2) => self.rows::<I, NR, MR, 3, 3, 2>(&panel, first_row, out),
                    (1, 5, 5, 1) => self.rows::<I, NR, MR, 5, 5, 1>(&panel, first_row, out),
                    (1, 5, 5, 2) => self.rows::<I, NR, MR, 5, 5, 2>(&panel, first_row, out),
                    _ => self.any(&panel, first_row, out),
                }
            }
        }
    }

    /// A panel of some rows of the output, of a filter of KW columns and STEPS steps of rows, with
    /// stride S.
    #[inline(always)]
    fn rows<
        I,
        const NR: usize,
        const MR: usize,
        const KW: usize,
        const STEPS: usize,
        const S: usize,
    >(
        &self,
        panel: &Panel<'_, I, E, NR>,
        first_row: usize,
        out: &mut [E],
    ) where
        I: Channels<NR, E>,
    {
        let isa = panel.isa;
        let whole = panel.filter::<KW, STEPS>(panel.weights, panel.start);
        // All channels of a pixel outside are equal.
        let pad = isa.column(&[self.x[self.input.len()]; NR], 0, Lines { count: 1, stride: 0 });
        let (w_in, w_out) = (usize::from(self.input.w), usize::from(self.output.w));
        let (h_in, kh) = (usize::from(self.input.h), self.filter.kh);
        let (c, left) = (usize::from(self.input.c), usize::from(self.padding.left));
        // Outputs whose windows are inside the map.
        let end = (w_in + left).checked_sub(KW).map_or(0, |room| room / S + 1).min(w_out);
        let inside = left.div_ceil(S)..end;
        let stride = w_in * c;
        for (i, line) in out.chunks_exact_mut(w_out * usize::from(self.output.c)).enumerate() {
            let row = first_row + i;
            let y = window_start(row, self.stride[0], self.padding.top);
            let y_in = y.clamp(0, (h_in - kh) as isize);
            let filter = match y_in - y {
                0 => whole,
                moved => panel.moved(moved, pad),
            };
            let x = &self.x[y_in as usize * stride + panel.channel..];
            let column = |s: usize, at: usize| {
                let count = (kh - s * I::ROWS).min(I::ROWS);
                isa.column(x, s * I::ROWS * stride + at, Lines { count, stride })
            };
            for first in (0..w_out).step_by(MR) {
                let count = MR.min(w_out - first);
                let at = window_start(first, self.stride[1], self.padding.left);
                let acc = if inside.start <= first && first + MR <= inside.end {
                    filter.tile::<MR, S>(isa, |s, j| column(s, (at as usize + j) * c))
                } else {
                    filter.tile::<MR, S>(isa, |s, j| {
                        // Negative numbers are huge as unsigned.
                        let at = (at + j as isize) as usize;
                        if at < w_in { column(s, at * c) } else { pad }
                    })
                };
                for (m, acc) in acc.into_iter().enumerate().take(count) {
                    self.store(panel, acc, [row, first + m], line);
                }
            }
        }
    }

    /// As [`Self::rows`], of any filter.
    fn any<I, const NR: usize>(&self, panel: &Panel<'_, I, E, NR>, first_row: usize, out: &mut [E])
    where
        I: Channels<NR, E>,
    {
        let mut patch = [[[E::zeroed(); NR]; MAX_DEPTHWISE]; MAX_DEPTHWISE];
        let w_out = usize::from(self.output.w);
        let stride = NR * MAX_DEPTHWISE;
        for (i, line) in out.chunks_exact_mut(w_out * usize::from(self.output.c)).enumerate() {
            for x in 0..w_out {
                self.copy(panel, [first_row + i, x], &mut patch);
                let mut acc = panel.start;
                let steps = panel.weights.chunks_exact(self.filter.kw * I::ROWS * NR);
                for (s, weights) in steps.enumerate() {
                    let count = (self.filter.kh - s * I::ROWS).min(I::ROWS);
                    for (k, w) in weights.chunks_exact(I::ROWS * NR).enumerate() {
                        let at = s * I::ROWS * stride + k * NR;
                        let x = patch.as_flattened().as_flattened();
                        let column = panel.isa.column(x, at, Lines { count, stride });
                        acc = panel.isa.accumulate(acc, column, panel.isa.weights(w));
                    }
                }
                self.store(panel, acc, [first_row + i, x], line);
            }
        }
    }

    /// Copies the window of an output's pixel.
    fn copy<I: Lanes<NR, E, E>, const NR: usize>(
        &self,
        panel: &Panel<'_, I, E, NR>,
        [row, column]: [usize; 2],
        patch: &mut Patch<E, NR>,
    ) {
        let (w, c) = (usize::from(self.input.w), usize::from(self.input.c));
        let y0 = window_start(row, self.stride[0], self.padding.top);
        let x0 = window_start(column, self.stride[1], self.padding.left);
        for (i, patch) in patch.iter_mut().enumerate().take(self.filter.kh) {
            for (j, patch) in patch.iter_mut().enumerate().take(self.filter.kw) {
                let (y, x) = ((y0 + i as isize) as usize, (x0 + j as isize) as usize);
                if y < usize::from(self.input.h) && x < w {
                    let from = &self.x[(y * w + x) * c + panel.channel..][..panel.count];
                    patch[..panel.count].copy_from_slice(from);
                } else {
                    *patch = [self.x[self.input.len()]; NR];
                }
            }
        }
    }

    /// Finishes a pixel of the output, of which `line` holds the row.
    #[inline(always)]
    fn store<I, const NR: usize>(
        &self,
        panel: &Panel<'_, I, E, NR>,
        acc: I::Acc,
        [row, column]: [usize; 2],
        line: &mut [E],
    ) where
        I: Channels<NR, E>,
    {
        let at = column * usize::from(self.output.c) + panel.channel;
        let first = row * line.len() + at;
        let y = &mut line[at..][..panel.count];
        if panel.count == NR {
            let residual = self.residual.lanes::<NR, true>(y, first);
            let all = panel.isa.finish(acc, &panel.scale, &self.finish, residual.as_ref());
            if let ([whole], _) = y.as_chunks_mut() {
                *whole = all;
            }
        } else {
            let residual = self.residual.lanes::<NR, false>(y, first);
            let all = panel.isa.finish(acc, &panel.scale, &self.finish, residual.as_ref());
            y.copy_from_slice(&all[..panel.count]);
        }
    }
}

impl<I: Channels<NR, E>, E: Number, const NR: usize> Panel<'_, I, E, NR> {
    /// Loads packed weights.
    #[inline(always)]
    fn filter<const KW: usize, const STEPS: usize>(
        &self,
        weights: &[E],
        start: I::Acc,
    ) -> Filter<I, E, NR, KW, STEPS> {
        let len = I::ROWS * NR;
        let step = |s: usize, k: usize| self.isa.weights(&weights[(s * KW + k) * len..][..len]);
        let weights = core::array::from_fn(|s| core::array::from_fn(|k| step(s, k)));
        Filter { weights, start }
    }

    /// The filter of a window that was moved down by `moved` rows into the map: its weights moved up,
    /// those that leave it multiplied with the pad value.
    fn moved<const KW: usize, const STEPS: usize>(
        &self,
        moved: isize,
        pad: I::Column,
    ) -> Filter<I, E, NR, KW, STEPS> {
        let [mut kept, mut left] = [[E::zeroed(); MAX_WEIGHTS]; 2];
        for y in 0..self.layout.kh {
            let to = y as isize - moved;
            for (c, x) in (0..NR * KW).map(|i| (i % NR, i / NR)) {
                let weight = self.weights[self.layout.index(c, y, x)];
                if (0..self.layout.kh as isize).contains(&to) {
                    kept[self.layout.index(c, to as usize, x)] = weight;
                } else {
                    left[self.layout.index(c, y, x)] = weight;
                }
            }
        }
        let outside: Filter<I, E, NR, KW, STEPS> = self.filter(&left, self.start);
        let [start] = outside.tile::<1, 1>(self.isa, |_, _| pad);
        self.filter(&kept, start)
    }
}

impl<I: Channels<NR, E>, E: Number, const NR: usize, const KW: usize, const STEPS: usize>
    Filter<I, E, NR, KW, STEPS>
{
    /// Sums of MR windows; `column(s, j)` is what step `s` has in column `j` from the first window on.
    #[inline(always)]
    fn tile<const MR: usize, const S: usize>(
        &self,
        isa: I,
        column: impl Fn(usize, usize) -> I::Column,
    ) -> [I::Acc; MR] {
        let mut acc = [self.start; MR];
        for s in 0..STEPS {
            for j in 0..(MR - 1) * S + KW {
                let column = column(s, j);
                for m in 0..MR {
                    if j >= m * S && j - m * S < KW {
                        acc[m] = isa.accumulate(acc[m], column, self.weights[s][j - m * S]);
                    }
                }
            }
        }
        acc
    }
}
