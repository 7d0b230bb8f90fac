//! Direct convolution, once for every instruction set and number format.

use super::{Finish, Lanes, Number};
use artifact::Padding;
use artifact::Shape;
use artifact::layout::window_start;

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

/// Operands of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv<'a, E: Number, W> {
    /// Input with its pad pixel.
    pub x: &'a [E],
    /// Shape of the input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
    /// Filter rows and columns.
    pub filter: [u16; 2],
    /// Strides.
    pub stride: [u16; 2],
    /// Padding.
    pub padding: Padding,
    /// Packed weights.
    pub weights: &'a [W],
    /// Per-channel parameters.
    pub params: &'a [E::Param],
    /// Added activation.
    pub residual: ResidualSource<'a, E>,
    /// Epilogue.
    pub finish: Finish,
    /// KR: channels per group.
    pub kr: usize,
}

impl<E: Number, W> Conv<'_, E, W> {
    /// Computes panels `panel..panel + NP` of the output pixels that `out` holds, the first
    /// of which is `first_pixel`, MR pixels at a time.
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
        let c_out = usize::from(self.output.c);
        let c_in = usize::from(self.input.c);
        let (w_out, w_in) = (usize::from(self.output.w), usize::from(self.input.w));
        let [kh, kw] = self.filter.map(usize::from);
        let depth = c_in.div_ceil(self.kr) * self.kr;
        let tap_len = depth * NR;
        let panel_len = kh * kw * tap_len;
        let params_len = E::PLANES * NR;
        let pad_pixel = self.input.len();
        let weights: [&[W]; NP] =
            core::array::from_fn(|p| &self.weights[(panel + p) * panel_len..][..panel_len]);
        let params: [&[E::Param]; NP] =
            core::array::from_fn(|p| &self.params[(panel + p) * params_len..][..params_len]);
        let start: [I::Acc; NP] = core::array::from_fn(|p| isa.start(params[p]));
        let scale: [I::Scale; NP] = core::array::from_fn(|p| isa.scale(params[p]));
        let pixels = out.len() / c_out;

        let (mut row, mut column) = (first_pixel / w_out, first_pixel % w_out);
        let mut pixel = 0;
        while pixel < pixels {
            let mut origin = [(0isize, 0isize); MR];
            for (m, origin) in origin.iter_mut().enumerate() {
                *origin = (
                    window_start(row, self.stride[0], self.padding.top),
                    window_start(column, self.stride[1], self.padding.left),
                );
                // A last, partial tile computes its last pixel several times.
                if pixel + m + 1 < pixels {
                    column += 1;
                    if column == w_out {
                        (row, column) = (row + 1, 0);
                    }
                }
            }
            let mut acc = [start; MR];
            for ky in 0..kh {
                for kx in 0..kw {
                    let mut rows = [&self.x[..0]; MR];
                    for m in 0..MR {
                        let (y, x) = (origin[m].0 + ky as isize, origin[m].1 + kx as isize);
                        // One comparison per axis: negative numbers are huge as unsigned.
                        let inside = (y as usize) < usize::from(self.input.h)
                            && (x as usize) < usize::from(self.input.w);
                        let at = if inside {
                            (y as usize * w_in + x as usize) * c_in
                        } else {
                            pad_pixel
                        };
                        rows[m] = &self.x[at..at + depth];
                    }
                    let tap = (ky * kw + kx) * tap_len;
                    let mut w = [&weights[0][..0]; NP];
                    for p in 0..NP {
                        w[p] = &weights[p][tap..tap + tap_len];
                    }
                    isa.dot(&mut acc, rows, w);
                }
            }
            for (m, acc) in acc.into_iter().enumerate().take(pixels - pixel) {
                for (p, acc) in acc.into_iter().enumerate() {
                    let channel = (panel + p) * NR;
                    let n = NR.min(c_out - channel);
                    let at = (pixel + m) * c_out + channel;
                    let residual = match self.residual {
                        ResidualSource::None => None,
                        ResidualSource::InPlace => Some(lanes::<E, NR>(&out[at..at + n])),
                        ResidualSource::Other(r) => {
                            let at = (first_pixel + pixel + m) * c_out + channel;
                            Some(lanes::<E, NR>(&r[at..at + n]))
                        }
                    };
                    let y = isa.finish(acc, &scale[p], &self.finish, residual.as_ref());
                    if n == NR {
                        out[at..at + NR].copy_from_slice(&y);
                    } else {
                        out[at..at + n].copy_from_slice(&y[..n]);
                    }
                }
            }
            pixel += MR;
        }
    }
}

/// NR numbers from a slice that may be shorter, at a panel's ragged end.
#[inline(always)]
fn lanes<E: Number, const NR: usize>(from: &[E]) -> [E; NR] {
    if let Ok(full) = from.try_into() {
        return full;
    }
    let mut out = [E::zeroed(); NR];
    out[..from.len()].copy_from_slice(from);
    out
}
