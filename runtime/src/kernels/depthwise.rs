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

use super::conv::{Conv, ResidualSource};
use super::{Lanes, Number};
use artifact::layout::{DEPTHWISE_ROWS, DepthwiseLayout, MAX_DEPTHWISE, window_start};

/// The steps of a depthwise convolution on one instruction set.
pub(crate) trait Channels<const NR: usize, E: Number>: Lanes<NR, E, E> {
    /// Filter rows of a step, at most [`DEPTHWISE_ROWS`].
    const ROWS: usize;
    /// Whether usual filters have code of their own, which is faster and much larger.
    const UNROLLS: bool = true;
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

/// Most weights of a step.
const MAX_STEP: usize = 16 * DEPTHWISE_ROWS;

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

/// Where the columns of a row of windows lie.
#[derive(Clone, Copy)]
struct Map<'a, E, Column> {
    /// A panel of the map, from the windows' first row on.
    x: &'a [E],
    /// All rows of the windows.
    lines: Lines,
    /// What lies outside.
    pad: Column,
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
        self.channels_from::<I, NR, MR>(isa, 0, first_row, out);
    }

    /// As [`Self::channels`], but for panels before `first_panel`.
    #[inline(always)]
    pub(crate) fn channels_from<I, const NR: usize, const MR: usize>(
        &self,
        isa: I,
        first_panel: usize,
        first_row: usize,
        out: &mut [E],
    ) where
        I: Channels<NR, E>,
    {
        let c = usize::from(self.output.c);
        let row_len = usize::from(self.output.w) * c;
        let [kh, kw] = [self.filter.kh, self.filter.kw];
        let layout = DepthwiseLayout { kh, kw, channels: c, nr: NR, dtype: self.filter.dtype };
        let (panel_len, params_len) = (layout.panel_len(), self.params.len() / layout.panels());
        let line_bytes = self.input.len() / usize::from(self.input.h) * size_of::<E>();
        let band = (BAND_BYTES / line_bytes / usize::from(self.stride[0])).max(1);
        for (i, out) in out.chunks_mut(band * row_len).enumerate() {
            let first_row = first_row + i * band;
            for index in first_panel..layout.panels() {
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
                if !I::UNROLLS {
                    self.any(&panel, first_row, out);
                    continue;
                }
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
                moved => panel.moved(&whole, moved, pad),
            };
            let map = Map {
                x: &self.x[y_in as usize * stride + panel.channel..],
                lines: Lines { count: kh, stride },
                pad,
            };
            for first in (0..w_out).step_by(MR) {
                let count = MR.min(w_out - first);
                let at = window_start(first, self.stride[1], self.padding.left);
                let acc = if inside.start <= first && first + MR <= inside.end {
                    filter.tile::<MR, S>(isa, map, |j| Some((at as usize + j) * c))
                } else {
                    filter.tile::<MR, S>(isa, map, |j| {
                        // Negative numbers are huge as unsigned.
                        let at = (at + j as isize) as usize;
                        (at < w_in).then_some(at.wrapping_mul(c))
                    })
                };
                for (m, acc) in acc.into_iter().enumerate().take(count) {
                    self.store(panel, acc, [row, first + m], line);
                }
            }
        }
    }

    /// As [`Self::rows`], of any filter.
    #[inline(always)]
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
        let mut residual = None;
        if !matches!(self.residual, ResidualSource::None) {
            let mut numbers = [[E::zeroed(); NR]];
            self.residual.copy(y, first, &mut numbers);
            residual = Some(numbers[0]);
        }
        let all = panel.isa.finish(acc, &panel.scale, &self.finish, residual.as_ref());
        match y.as_chunks_mut() {
            ([whole], []) => *whole = all,
            _ => y.copy_from_slice(&all[..panel.count]),
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
        // Loops, since closures may be compiled for the baseline.
        let mut loaded = [[self.isa.weights(&weights[..len]); KW]; STEPS];
        for s in 0..STEPS {
            for k in 0..KW {
                loaded[s][k] = self.isa.weights(&weights[(s * KW + k) * len..][..len]);
            }
        }
        Filter { weights: loaded, start }
    }

    /// The filter of windows that were moved down by `moved` rows into the map: the weights of `whole`
    /// moved up, those that leave it multiplied with the pad value.
    #[inline(always)]
    fn moved<const KW: usize, const STEPS: usize>(
        &self,
        whole: &Filter<I, E, NR, KW, STEPS>,
        moved: isize,
        pad: I::Column,
    ) -> Filter<I, E, NR, KW, STEPS> {
        let isa = self.isa;
        let nothing = [E::zeroed(); MAX_STEP];
        let mut filter = *whole;
        if I::ROWS == 1 {
            // Whole vectors, and pixels outside are zero.
            for s in 0..STEPS {
                let from = s as isize + moved;
                filter.weights[s] = match usize::try_from(from).ok().filter(|from| *from < STEPS) {
                    Some(from) => whole.weights[from],
                    None => [isa.weights(&nothing[..NR]); KW],
                };
            }
            return filter;
        }
        let (kh, len) = (self.layout.kh, I::ROWS * NR);
        let [mut kept, mut left] = [[[nothing; KW]; STEPS]; 2];
        for y in 0..kh {
            let to = y as isize - moved;
            let (side, to) = match usize::try_from(to).ok().filter(|to| *to < kh) {
                Some(to) => (&mut kept, to),
                None => (&mut left, y),
            };
            for (k, to_step) in side[to / I::ROWS].iter_mut().enumerate() {
                let from = &self.weights[(y / I::ROWS * KW + k) * len..][..len];
                for (to_lane, from) in
                    to_step.chunks_exact_mut(I::ROWS).zip(from.chunks_exact(I::ROWS))
                {
                    to_lane[to % I::ROWS] = from[y % I::ROWS];
                }
            }
        }
        for s in 0..STEPS {
            for k in 0..KW {
                let outside = isa.weights(&left[s][k][..len]);
                filter.start = isa.accumulate(filter.start, pad, outside);
                filter.weights[s][k] = isa.weights(&kept[s][k][..len]);
            }
        }
        filter
    }
}

impl<I: Channels<NR, E>, E: Number, const NR: usize, const KW: usize, const STEPS: usize>
    Filter<I, E, NR, KW, STEPS>
{
    /// Sums of MR windows of a map; `place(j)` is where column `j` from the first window on lies, `None`
    /// outside.
    #[expect(clippy::needless_range_loop, reason = "indices keep accumulators in registers")]
    #[inline(always)]
    fn tile<const MR: usize, const S: usize>(
        &self,
        isa: I,
        map: Map<'_, E, I::Column>,
        place: impl Fn(usize) -> Option<usize>,
    ) -> [I::Acc; MR] {
        let mut acc = [self.start; MR];
        let Map { x, lines: Lines { count, stride }, pad } = map;
        for s in 0..STEPS {
            let lines = Lines { count: (count - s * I::ROWS).min(I::ROWS), stride };
            for j in 0..(MR - 1) * S + KW {
                let column = match place(j) {
                    Some(at) => isa.column(x, s * I::ROWS * stride + at, lines),
                    None => pad,
                };
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
