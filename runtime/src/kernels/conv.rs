//! Direct convolution, once for every instruction set and number format.

use super::{Finish, Lanes, Number, Rows};
use artifact::Padding;
use artifact::Shape;
use artifact::layout::{FilterLayout, Groups, MAX_PACKED_ROW, window_start};
use artifact::params::ParamsForm;

/// Where the residual of a convolution lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ResidualSource<'a, E> {
    /// Nothing is added.
    None,
    /// Another activation of the output's shape.
    Other(&'a [E]),
    /// The output's own memory, read before it is written.
    InPlace,
}

impl<E: Number> ResidualSource<'_, E> {
    /// What is added to the outputs from element `at` on.
    #[inline(always)]
    pub(crate) fn skip(self, at: usize) -> Self {
        match self {
            Self::Other(r) => Self::Other(&r[at..]),
            here => here,
        }
    }

    /// Copies what is added to `out`, `at` the output's element `at`, of NP panels; unless WHOLE, less
    /// than they have.
    #[inline(always)]
    pub(crate) fn copy<const NR: usize, const NP: usize, const WHOLE: bool>(
        self,
        out: &[E],
        at: usize,
        to: &mut [[E; NR]; NP],
    ) {
        let from = match self {
            Self::None => return,
            Self::InPlace => out,
            Self::Other(r) => &r[at..][..out.len()],
        };
        match from.as_chunks::<NR>().0.as_chunks() {
            ([whole], _) if WHOLE => *to = *whole,
            _ => to.as_flattened_mut()[..from.len()].copy_from_slice(from),
        }
    }
}

/// Operands of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv<'a, E: Number, W> {
    /// Input with its pad pixel.
    pub x: &'a [E],
    /// Shape of the input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
    /// How its weights are packed.
    pub filter: FilterLayout,
    /// Which channels panels read.
    pub groups: Groups,
    /// Strides.
    pub stride: [u16; 2],
    /// Padding.
    pub padding: Padding,
    /// See [`artifact::layout::pairs_fit`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "AVX2 asks"))]
    pub pairs_fit: bool,
    /// Packed weights.
    pub weights: &'a [W],
    /// Per-channel parameters.
    pub params: &'a [E::Param],
    /// How they lie.
    pub params_form: ParamsForm,
    /// Added activation.
    pub residual: ResidualSource<'a, E>,
    /// Epilogue.
    pub finish: Finish,
}

/// Most elements of a filter row that is gathered where a window reaches over the border: three
/// taps of 64 channels. Longer rows go tap by tap, which costs them little.
const RIM: usize = 192;

impl<E: Number, W> Conv<'_, E, W> {
    /// Computes panels `panel..panel + NP` of the output pixels that `out` holds, the first
    /// of which is `first_pixel`, MR pixels at a time.
    ///
    /// The taps of a filter row lie side by side in the map, so one dot takes whole rows of a
    /// window inside the map. Rows that reach over the border are gathered first.
    #[inline(always)]
    pub(crate) fn panels<I, const NR: usize, const MR: usize, const NP: usize>(
        &self,
        isa: I,
        panel: usize,
        first_pixel: usize,
        out: &mut [E],
    ) where
        I: Lanes<NR, E, W>,
    {
        if NP > 1 && self.groups.count > 1 {
            // Panels of different groups read different channels.
            for panel in panel..panel + NP {
                self.panels::<I, NR, MR, 1>(isa, panel, first_pixel, out);
            }
        } else if (panel + NP) * NR <= usize::from(self.output.c) {
            self.tiles::<I, NR, MR, NP, true>(isa, panel, first_pixel, out);
        } else {
            self.tiles::<I, NR, MR, NP, false>(isa, panel, first_pixel, out);
        }
    }

    /// As [`Self::panels`]; unless WHOLE, the last of them has less than NR outputs.
    #[inline(always)]
    fn tiles<I, const NR: usize, const MR: usize, const NP: usize, const WHOLE: bool>(
        &self,
        isa: I,
        panel: usize,
        first_pixel: usize,
        out: &mut [E],
    ) where
        I: Lanes<NR, E, W>,
    {
        const { assert!(RIM >= MAX_PACKED_ROW) };
        let c_out = usize::from(self.output.c);
        let (c_in, w_out) = (usize::from(self.input.c), usize::from(self.output.w));
        let depth = self.filter.groups() * self.filter.dtype.kr();
        let is_pointwise = (self.filter.kh, self.filter.kw) == (1, 1)
            && self.stride == [1, 1]
            && self.padding == Padding::same(0);
        let first_channel = self.groups.first(panel, self.filter.c_in);
        let panel_len = self.filter.panel_len();
        let params_len = self.params.len() / self.filter.panels();
        let mut rim = [[E::zeroed(); RIM]; MR];
        let weights: [&[W]; NP] =
            core::array::from_fn(|p| &self.weights[(panel + p) * panel_len..][..panel_len]);
        let params: [&[E::Param]; NP] =
            core::array::from_fn(|p| &self.params[(panel + p) * params_len..][..params_len]);
        let start: [I::Acc; NP] = core::array::from_fn(|p| isa.start(params[p]));
        let scale: [I::Scale; NP] = core::array::from_fn(|p| isa.scale(params[p], &self.finish));
        let pixels = out.len() / c_out;

        let mut walk = (first_pixel / w_out, first_pixel % w_out);
        for pixel in (0..pixels).step_by(MR) {
            let mut acc = [start; MR];
            if is_pointwise {
                let mut rows = [&self.x[..0]; MR];
                for (m, row) in rows.iter_mut().enumerate() {
                    // A last, partial tile computes its last pixel several times.
                    let at = (first_pixel + (pixel + m).min(pixels - 1)) * c_in + first_channel;
                    *row = &self.x[at..at + depth];
                }
                isa.dot(&mut acc, rows, Rows::one(depth), weights);
            } else {
                let mut origin = [(0isize, 0isize); MR];
                for (m, origin) in origin.iter_mut().enumerate() {
                    let (row, column) = walk;
                    *origin = (
                        window_start(row, self.stride[0], self.padding.top),
                        window_start(column, self.stride[1], self.padding.left),
                    );
                    if pixel + m + 1 < pixels {
                        walk = if column + 1 == w_out { (row + 1, 0) } else { (row, column + 1) };
                    }
                }
                self.windows(isa, &mut acc, &origin, first_channel, &mut rim, weights);
            }
            let channel = panel * NR;
            let n = if WHOLE { NP * NR } else { (NP * NR).min(c_out - channel) };
            let tile = if matches!(self.residual, ResidualSource::None) {
                isa.finish_tile(&acc, &scale, &self.finish, None)
            } else {
                let mut residual = [[[E::zeroed(); NR]; NP]; MR];
                let at = (first_pixel + pixel) * c_out + channel;
                for (m, residual) in residual.iter_mut().enumerate().take(pixels - pixel) {
                    let y = &out[(pixel + m) * c_out + channel..][..n];
                    self.residual.copy::<NR, NP, WHOLE>(y, at + m * c_out, residual);
                }
                isa.finish_tile(&acc, &scale, &self.finish, Some(&residual))
            };
            for (y, all) in out[pixel * c_out..].chunks_exact_mut(c_out).zip(&tile) {
                let y = &mut y[channel..][..n];
                match y.as_chunks_mut::<NR>().0.as_chunks_mut() {
                    ([whole], _) if WHOLE => *whole = *all,
                    _ => y.copy_from_slice(&all.as_flattened()[..n]),
                }
            }
        }
    }

    /// Adds the windows that start at `origin` to the accumulators, from `first_channel` on.
    #[inline(always)]
    fn windows<I, const NR: usize, const MR: usize, const NP: usize>(
        &self,
        isa: I,
        acc: &mut [[I::Acc; NP]; MR],
        origin: &[(isize, isize); MR],
        first_channel: usize,
        rim: &mut [[E; RIM]; MR],
        weights: [&[W]; NP],
    ) where
        I: Lanes<NR, E, W>,
    {
        let (c_in, w_in) = (usize::from(self.input.c), usize::from(self.input.w));
        let (taps, channels) = self.filter.taps();
        let depth = self.filter.groups() * self.filter.dtype.kr();
        // What a dot takes: a filter row, or a tap where channels leave groups partly empty, or where
        // it does not see all of them.
        let by_rows = self.filter.c_in == c_in && (depth == channels || self.filter.packs_rows());
        let row_len = taps * depth;
        if by_rows && self.are_inside(origin) {
            let window = Rows { count: self.filter.kh, stride: w_in * c_in, len: row_len };
            let mut windows = [&self.x[..0]; MR];
            for m in 0..MR {
                let at = (origin[m].0 as usize * w_in + origin[m].1 as usize) * c_in;
                windows[m] = &self.x[at..at + window.span()];
            }
            isa.dot(acc, windows, window, weights);
        } else if by_rows && row_len <= RIM {
            for ky in 0..self.filter.kh {
                let mut rows = [&self.x[..0]; MR];
                for (m, rim) in rim.iter_mut().enumerate() {
                    rows[m] = match self.row_inside(origin[m], ky) {
                        Some(at) => &self.x[at..at + row_len],
                        None => {
                            self.gather(rim, origin[m], ky);
                            &rim[..row_len]
                        }
                    };
                }
                isa.dot(acc, rows, Rows::one(row_len), part(&weights, ky, row_len * NR));
            }
        } else {
            for ky in 0..self.filter.kh {
                for kx in 0..taps {
                    let mut rows = [&self.x[..0]; MR];
                    for m in 0..MR {
                        let at = self.tap(origin[m], ky, kx) + first_channel;
                        rows[m] = &self.x[at..at + depth];
                    }
                    let w = part(&weights, ky * taps + kx, depth * NR);
                    isa.dot(acc, rows, Rows::one(depth), w);
                }
            }
        }
    }

    /// Whether all windows that start at `origin`, in the order of the output, are surely inside
    /// the map.
    #[inline(always)]
    fn are_inside<const MR: usize>(&self, origin: &[(isize, isize); MR]) -> bool {
        let (first, last) = (origin[0], origin[MR - 1]);
        self.padding == Padding::same(0)
            || first.0 == last.0
                && first.1 >= 0
                && first.0 >= 0
                && last.0 as usize + self.filter.kh <= usize::from(self.input.h)
                && last.1 as usize + self.filter.kw <= usize::from(self.input.w)
    }

    /// Where row `ky` of the window that starts at `origin` lies, if it is inside the map.
    #[inline(always)]
    fn row_inside(&self, origin: (isize, isize), ky: usize) -> Option<usize> {
        let (h, w) = (usize::from(self.input.h), usize::from(self.input.w));
        // One comparison for both ends: negative numbers are huge as unsigned.
        let y = (origin.0 + ky as isize) as usize;
        let inside = y < h && origin.1 >= 0 && origin.1 as usize + self.filter.kw <= w;
        inside.then(|| (y * w + origin.1 as usize) * usize::from(self.input.c))
    }

    /// Where the first channel of a tap of the window that starts at `origin` lies; outside the
    /// map, the pad pixel's.
    #[inline(always)]
    fn tap(&self, origin: (isize, isize), ky: usize, kx: usize) -> usize {
        let (h, w) = (usize::from(self.input.h), usize::from(self.input.w));
        let (y, x) = ((origin.0 + ky as isize) as usize, (origin.1 + kx as isize) as usize);
        if y < h && x < w { (y * w + x) * usize::from(self.input.c) } else { self.input.len() }
    }

    /// Copies row `ky` of a window, taps outside the map from the pad pixel.
    #[inline(always)]
    fn gather(&self, rim: &mut [E; RIM], origin: (isize, isize), ky: usize) {
        let (c, w) = (usize::from(self.input.c), usize::from(self.input.w));
        let rim = &mut rim[..self.filter.kw * c];
        // All of its channels are equal.
        let pad = self.x[self.input.len()];
        let y = (origin.0 + ky as isize) as usize;
        if y >= usize::from(self.input.h) {
            return rim.fill(pad);
        }
        let left = origin.1.clamp(0, w as isize) as usize;
        let right = (origin.1 + self.filter.kw as isize).clamp(0, w as isize) as usize;
        let (before, rest) = rim.split_at_mut((left as isize - origin.1) as usize * c);
        let (inside, after) = rest.split_at_mut((right - left) * c);
        before.fill(pad);
        inside.copy_from_slice(&self.x[(y * w + left) * c..(y * w + right) * c]);
        after.fill(pad);
    }
}

/// Part `index` of each panel's weights, in parts of `len`.
#[inline(always)]
fn part<'w, W, const NP: usize>(
    weights: &[&'w [W]; NP],
    index: usize,
    len: usize,
) -> [&'w [W]; NP] {
    let mut part = *weights;
    for p in 0..NP {
        part[p] = &weights[p][index * len..][..len];
    }
    part
}
