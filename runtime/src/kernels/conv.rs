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

    /// Copies what is added to `out`, `at` the output's element `at`, of NP panels or less.
    #[inline(always)]
    pub(crate) fn copy<const NR: usize, const NP: usize>(
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
        // As in [`store`].
        if from.len() == NP * NR {
            if let ([whole], _) = from.as_chunks::<NR>().0.as_chunks() {
                *to = *whole;
            }
            return;
        }
        let (panels, rest) = from.as_chunks::<NR>();
        for (to, panel) in to.iter_mut().zip(panels) {
            *to = *panel;
        }
        if let Some(to) = to.get_mut(panels.len()) {
            to[..rest.len()].copy_from_slice(rest);
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

/// What a dot takes of windows inside the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All, which is a pixel.
    Pixels,
    /// All rows, as they lie in the map.
    Windows,
    /// All rows, copied one after the other, see [`picture_windows`].
    Picture,
    /// A tap.
    Taps,
}

/// How the windows of some panels are read.
struct Walk {
    way: Way,
    /// First input channel.
    first_channel: usize,
    /// Filter rows.
    kh: usize,
    /// Taps of a filter row as they are packed.
    taps: usize,
    /// Elements of a filter row as they are packed.
    row_len: usize,
    /// Elements of the map's row.
    line: usize,
}

impl Walk {
    fn of<E: Number, W>(conv: &Conv<'_, E, W>, panel: usize) -> Self {
        let filter = conv.filter;
        let c_in = usize::from(conv.input.c);
        let (taps, channels) = filter.taps();
        let depth = filter.groups() * filter.dtype.kr();
        let (kh, row_len, line) = (filter.kh, taps * depth, usize::from(conv.input.w) * c_in);
        // Not where channels leave groups partly empty, or where it does not see all of them.
        let by_rows = filter.c_in == c_in && (depth == channels || filter.packs_rows());
        let is_pointwise =
            (kh, filter.kw, conv.stride) == (1, 1, [1, 1]) && conv.padding == Padding::same(0);
        let way = if is_pointwise {
            Way::Pixels
        } else if !by_rows {
            Way::Taps
        } else if (kh, row_len, c_in, filter.packs_rows()) == (3, PICTURE_ROW, 3, true)
            && conv.stride[1] <= 2
        {
            Way::Picture
        } else {
            Way::Windows
        };
        let first_channel = conv.groups.first(panel, filter.c_in);
        Self { way, first_channel, kh, taps, row_len, line }
    }

    /// Rows of a window as it lies in the map.
    #[inline(always)]
    fn rows(&self) -> Rows {
        Rows { count: self.kh, stride: self.line, len: self.row_len }
    }

    /// Elements that are read from where the first of MR windows side by side starts.
    #[inline(always)]
    const fn slack<const MR: usize>(&self) -> usize {
        match self.way {
            Way::Picture => 2 * self.line + (MR - 1) * 6 + WIDE_ROW,
            _ => 0,
        }
    }
}

/// Rows of a window of a picture that is copied, and elements of one as they are packed: nine and
/// three more.
const PICTURE_ROWS: usize = 3;
const PICTURE_ROW: usize = 12;
/// Elements of a row that are copied at a time.
const WIDE_ROW: usize = 16;

/// Copies MR windows of 3×3 pixels of three channels, STEP elements apart from the start of `x` on, rows
/// of each one after the other.
#[inline(always)]
fn picture_windows<E: Number, const MR: usize, const STEP: usize>(
    x: &[E],
    line: usize,
    to: &mut [[E; RIM]; MR],
) {
    // All sizes are constants, which leaves a check for each row.
    for ky in 0..PICTURE_ROWS {
        let x = &x[ky * line..][..(MR - 1) * STEP + WIDE_ROW];
        for m in 0..MR {
            to[m][ky * PICTURE_ROW..][..WIDE_ROW].copy_from_slice(&x[m * STEP..][..WIDE_ROW]);
        }
    }
}

impl<E: Number, W> Conv<'_, E, W> {
    /// Computes panels `panel..panel + NP` of the output pixels that `out` holds, the first
    /// of which is `first_pixel`, MR pixels at a time. Of channels in groups, NP is one.
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
        // Panels of different groups read different channels.
        assert!(NP == 1 || self.groups.count == 1);
        const { assert!(RIM >= MAX_PACKED_ROW) };
        let c_out = usize::from(self.output.c);
        let (c_in, w_out) = (usize::from(self.input.c), usize::from(self.output.w));
        let walk = Walk::of(self, panel);
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
        let channel = panel * NR;
        let n = (NP * NR).min(c_out - channel);

        let mut at = (first_pixel / w_out, first_pixel % w_out);
        for pixel in (0..pixels).step_by(MR) {
            let mut acc = [start; MR];
            if let Some((first, stride)) = match walk.way {
                Way::Pixels => Some(((first_pixel + pixel) * c_in, c_in)),
                Way::Windows | Way::Picture if pixel + MR <= pixels => self
                    .inside::<MR>(at)
                    .filter(|first| first + walk.slack::<MR>() <= self.x.len())
                    .map(|first| (first, usize::from(self.stride[1]) * c_in)),
                _ => None,
            } {
                let mut rows = walk.rows();
                let mut x = [&self.x[..0]; MR];
                if walk.way == Way::Picture {
                    match stride {
                        3 => picture_windows::<E, MR, 3>(&self.x[first..], walk.line, &mut rim),
                        _ => picture_windows::<E, MR, 6>(&self.x[first..], walk.line, &mut rim),
                    }
                    rows = Rows::one(PICTURE_ROWS * PICTURE_ROW);
                    for (x, rim) in x.iter_mut().zip(&rim) {
                        *x = &rim[..rows.len];
                    }
                } else {
                    for (m, x) in x.iter_mut().enumerate() {
                        // Of pixels, a last, partial tile computes its last one several times.
                        let m = m.min(pixels - 1 - pixel);
                        *x = &self.x[first + m * stride + walk.first_channel..][..rows.span()];
                    }
                }
                isa.dot(&mut acc, x, rows, weights);
                at.1 += MR;
            } else {
                let mut corner = [(0, 0); MR];
                for (m, corner) in corner.iter_mut().enumerate() {
                    *corner = (
                        window_start(at.0, self.stride[0], self.padding.top),
                        window_start(at.1, self.stride[1], self.padding.left),
                    );
                    if pixel + m + 1 < pixels {
                        at = if at.1 + 1 == w_out { (at.0 + 1, 0) } else { (at.0, at.1 + 1) };
                    }
                }
                // Hidden, so that sums of a single dot stay in registers.
                acc = core::hint::black_box(acc);
                self.add_parts(isa, &walk, &mut acc, &corner, &mut rim, &weights);
            }
            if at.1 == w_out {
                at = (at.0 + 1, 0);
            }
            let to = pixel * c_out + channel;
            let mut residual = None;
            if !matches!(self.residual, ResidualSource::None) {
                let all = residual.insert([[[E::zeroed(); NR]; NP]; MR]);
                for (m, residual) in all.iter_mut().enumerate().take(pixels - pixel) {
                    let at = to + m * c_out;
                    self.residual.copy(&out[at..][..n], first_pixel * c_out + at, residual);
                }
            }
            let tile = isa.finish_tile(&acc, &scale, &self.finish, residual.as_ref());
            for (y, all) in out[pixel * c_out..].chunks_exact_mut(c_out).zip(&tile) {
                store(&mut y[channel..][..n], all);
            }
        }
    }

    /// Adds windows that start at `corner` row by row, or tap by tap.
    #[inline(always)]
    fn add_parts<I, const NR: usize, const MR: usize, const NP: usize>(
        &self,
        isa: I,
        walk: &Walk,
        acc: &mut [[I::Acc; NP]; MR],
        corner: &[(isize, isize); MR],
        rim: &mut [[E; RIM]; MR],
        weights: &[&[W]; NP],
    ) where
        I: Lanes<NR, E, W>,
    {
        let by_rows = walk.way != Way::Taps && walk.row_len <= RIM;
        let taps = if by_rows { 1 } else { walk.taps };
        let len = walk.row_len / taps;
        for step in 0..self.filter.kh * taps {
            let mut x = [&self.x[..0]; MR];
            for (m, rim) in rim.iter_mut().enumerate() {
                x[m] = if !by_rows {
                    let tap = self.tap(corner[m], step / taps, step % taps);
                    &self.x[tap + walk.first_channel..][..len]
                } else if let Some(row) = self.row_inside(corner[m], step) {
                    &self.x[row..][..len]
                } else {
                    self.gather(rim, corner[m], step);
                    &rim[..len]
                };
            }
            let mut part = *weights;
            for p in 0..NP {
                part[p] = &weights[p][step * len * NR..][..len * NR];
            }
            isa.dot(acc, x, Rows::one(len), part);
        }
    }

    /// Where the first of MR windows side by side starts, if all are inside the map: those of output
    /// pixels from `(row, column)` on.
    #[inline(always)]
    fn inside<const MR: usize>(&self, (row, column): (usize, usize)) -> Option<usize> {
        let (h, w) = (usize::from(self.input.h), usize::from(self.input.w));
        let y = window_start(row, self.stride[0], self.padding.top);
        let x = window_start(column, self.stride[1], self.padding.left);
        let step = usize::from(self.stride[1]);
        let is_inside = y >= 0
            && x >= 0
            && y as usize + self.filter.kh <= h
            && x as usize + (MR - 1) * step + self.filter.kw <= w
            && column + MR <= usize::from(self.output.w);
        let start = (y as usize).wrapping_mul(w).wrapping_add(x as usize);
        is_inside.then(|| start * usize::from(self.input.c))
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

/// Stores what panels have of a pixel, as many numbers as there is room for.
#[inline(always)]
fn store<E: Number, const NR: usize, const NP: usize>(y: &mut [E], all: &[[E; NR]; NP]) {
    // Sizes that are constants: a call for each pixel would take longer than its numbers.
    if y.len() == NP * NR {
        if let ([whole], _) = y.as_chunks_mut::<NR>().0.as_chunks_mut() {
            *whole = *all;
        }
        return;
    }
    let (panels, rest) = y.as_chunks_mut::<NR>();
    let count = panels.len();
    for (panel, all) in panels.iter_mut().zip(all) {
        *panel = *all;
    }
    if let Some(all) = all.get(count) {
        rest.copy_from_slice(&all[..rest.len()]);
    }
}
