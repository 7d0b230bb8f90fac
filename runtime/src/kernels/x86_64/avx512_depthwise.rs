//! Depthwise convolution of int8 with AVX-512: 64 bytes of a map at a time.
//!
//! Rows of 64 bytes, one below the other, are interleaved byte by byte, so that VPDPBUSD takes four rows
//! at once. Interleaving keeps each 128 bits by themselves: the first of four registers has channels 0 to 3
//! of each sixteen, the second 4 to 7. Weights and scales lie alike, and packing the results brings
//! them back into order.
//!
//! 64 bytes are channels of a pixel, or pixels side by side where a pixel has less. Rows and columns
//! outside the map read a pixel of pad values.
#![expect(
    clippy::needless_range_loop,
    reason = "indices keep registers from being taken for memory"
)]

use super::Avx512Vnni;
use super::avx512::{Scale, pack, steps};
use crate::kernels::conv::{Conv, ResidualSource};
use crate::kernels::{Finish, Lanes, is_scaled};
use artifact::layout::{DEPTHWISE_ROWS, DepthwiseLayout, window_start};
use core::arch::x86_64::*;

const NR: usize = 16;
/// Bytes of a register.
const WIDE: usize = 64;
/// Panels of them.
const PANELS: usize = WIDE / NR;
/// Registers of interleaved rows.
type Quads = [__m512i; PANELS];
/// Most columns that vectors at a border read, where a pixel is at least eight bytes.
const MAX_EDGE: usize = WIDE + 4 * WIDE / 2;
/// Bytes of the rows that are read for all groups before the next ones: what stays in a near cache.
const BAND_BYTES: usize = 96 << 10;

/// A convolution's geometry.
#[derive(Clone, Copy)]
struct Map<'a> {
    conv: &'a Conv<'a, i8, i8>,
    layout: DepthwiseLayout,
    /// Channels, bytes of a pixel.
    c: usize,
    /// Columns of the input.
    w_in: usize,
    /// Columns of the output.
    w_out: usize,
}

/// Computes the leading channels of the rows that `out` holds, the first of which is `first_row`; returns
/// how many panels those are.
pub(super) fn run(
    isa: Avx512Vnni,
    conv: &Conv<'_, i8, i8>,
    first_row: usize,
    out: &mut [i8],
) -> usize {
    let c = usize::from(conv.output.c);
    let [kh, kw] = [conv.filter.kh, conv.filter.kw];
    let layout = DepthwiseLayout { kh, kw, channels: c, nr: NR, dtype: conv.filter.dtype };
    let params_len = conv.params.len() / layout.panels();
    let is_plain = matches!(conv.residual, ResidualSource::None);
    if !is_plain || !is_scaled::<NR>(&conv.params[..params_len]) {
        return 0;
    }
    let map = Map { conv, layout, c, w_in: conv.input.w.into(), w_out: conv.output.w.into() };
    // SAFETY: the token proves the features.
    unsafe {
        match (kh, kw, conv.stride[1]) {
            (3, 3, 1) => map.all::<3, 3, 1>(isa, first_row, out),
            (3, 3, 2) => map.all::<3, 3, 2>(isa, first_row, out),
            (5, 5, 1) => map.all::<5, 5, 1>(isa, first_row, out),
            (5, 5, 2) => map.all::<5, 5, 2>(isa, first_row, out),
            _ => 0,
        }
    }
}

/// A filter of KH rows and KW columns for 64 bytes.
struct Filter<const KH: usize, const KW: usize> {
    /// Of the first four rows, and of the fifth.
    weights: [[Quads; KW]; 2],
    start: Quads,
    scale: [__m512; PANELS],
}

/// Lines that a row of windows reads.
#[derive(Clone, Copy)]
struct Lines<const KH: usize> {
    /// Where the first pixel of each is.
    at: [*const i8; KH],
    /// From one pixel to the next: a pixel, or 0 outside the map.
    step: [usize; KH],
}

impl<const KH: usize> Lines<KH> {
    /// Column `x` of each.
    #[inline(always)]
    fn column(self, x: usize) -> [*const i8; KH] {
        let mut column = self.at;
        for r in 0..KH {
            column[r] = self.at[r].wrapping_add(x * self.step[r]);
        }
        column
    }
}

/// What four panels have of sixteen numbers each, in the order of interleaved rows.
#[inline(always)]
fn quads(_: Avx512Vnni, p: Quads) -> Quads {
    // SAFETY: the token proves AVX-512; registers only.
    unsafe {
        let low = [
            _mm512_shuffle_i32x4::<0b01_00_01_00>(p[0], p[1]),
            _mm512_shuffle_i32x4::<0b01_00_01_00>(p[2], p[3]),
        ];
        let high = [
            _mm512_shuffle_i32x4::<0b11_10_11_10>(p[0], p[1]),
            _mm512_shuffle_i32x4::<0b11_10_11_10>(p[2], p[3]),
        ];
        [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(low[0], low[1]),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(low[0], low[1]),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(high[0], high[1]),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(high[0], high[1]),
        ]
    }
}

/// Bytes at `at` of ROWS lines, interleaved.
///
/// # Safety
/// 64 bytes there are readable.
#[inline(always)]
unsafe fn interleaved<const ROWS: usize>(_: Avx512Vnni, at: [*const i8; ROWS]) -> Quads {
    // SAFETY: the token proves AVX-512, and the caller's promise.
    unsafe {
        let mut rows = [_mm512_setzero_si512(); DEPTHWISE_ROWS];
        for r in 0..ROWS {
            rows[r] = _mm512_loadu_si512(at[r].cast());
        }
        let [a, b, c, d] = rows;
        let first = [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)];
        let second = match ROWS {
            1 | 2 => [d; 2],
            _ => [_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)],
        };
        [
            _mm512_unpacklo_epi16(first[0], second[0]),
            _mm512_unpackhi_epi16(first[0], second[0]),
            _mm512_unpacklo_epi16(first[1], second[1]),
            _mm512_unpackhi_epi16(first[1], second[1]),
        ]
    }
}

impl Map<'_> {
    /// See [`run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn all<const KH: usize, const KW: usize, const S: usize>(
        self,
        isa: Avx512Vnni,
        first_row: usize,
        out: &mut [i8],
    ) -> usize {
        let Self { c, w_in, w_out, conv, .. } = self;
        let row_len = w_out * c;
        let lines = conv.stride[0];
        let band = (BAND_BYTES / (w_in * c) / usize::from(lines)).max(1);
        if c < WIDE {
            if S == 1 && c >= 8 && WIDE.is_multiple_of(c) && row_len >= WIDE {
                let filter = self.filter::<KH, KW>(isa, 0);
                match c {
                    8 => self.pixels::<KH, KW, 8>(isa, &filter, first_row, out),
                    16 => self.pixels::<KH, KW, 4>(isa, &filter, first_row, out),
                    _ => self.pixels::<KH, KW, 2>(isa, &filter, first_row, out),
                }
                return self.layout.panels();
            }
            return 0;
        }
        // What is left of less than half a register is done sixteen channels at a time.
        let is_last_whole = c % WIDE >= WIDE / 2 && c.is_multiple_of(NR);
        for (i, out) in out.chunks_mut(band * row_len).enumerate() {
            for channel in (0..c - WIDE + 1).step_by(WIDE) {
                let filter = self.filter::<KH, KW>(isa, channel);
                self.channels::<KH, KW, S>(isa, &filter, channel, first_row + i * band, out);
            }
            if is_last_whole {
                // Some of them once more.
                let filter = self.filter::<KH, KW>(isa, c - WIDE);
                self.channels::<KH, KW, S>(isa, &filter, c - WIDE, first_row + i * band, out);
            }
        }
        if is_last_whole { self.layout.panels() } else { c / WIDE * PANELS }
    }

    /// The filter of the 64 bytes from `channel` on, a multiple of sixteen, or of a pixel over and over.
    #[inline(always)]
    fn filter<const KH: usize, const KW: usize>(
        self,
        isa: Avx512Vnni,
        channel: usize,
    ) -> Filter<KH, KW> {
        let (panel_len, panels) = (self.layout.panel_len(), self.layout.panels());
        let params_len = self.conv.params.len() / panels;
        // SAFETY: the token proves AVX-512; a step's weights of a panel are 64 bytes.
        unsafe {
            let zero = _mm512_setzero_si512();
            let mut filter = Filter {
                weights: [[[zero; PANELS]; KW]; 2],
                start: [zero; PANELS],
                scale: [_mm512_setzero_ps(); PANELS],
            };
            let mut panel = [0; PANELS];
            for p in 0..PANELS {
                panel[p] = (channel / NR + p) % panels;
            }
            // Of pixels of eight channels, a panel has two.
            let whole = |numbers: __m512i| match self.c {
                8 => _mm512_shuffle_i32x4::<0b01_00_01_00>(numbers, numbers),
                _ => numbers,
            };
            for s in 0..KH.div_ceil(DEPTHWISE_ROWS) {
                for k in 0..KW {
                    let mut weights = [zero; PANELS];
                    for p in 0..PANELS {
                        let at = panel[p] * panel_len + (s * KW + k) * WIDE;
                        let from = &self.conv.weights[at..][..WIDE];
                        weights[p] = whole(_mm512_loadu_si512(from.as_ptr().cast()));
                    }
                    filter.weights[s][k] = quads(isa, weights);
                }
            }
            let (mut start, mut scale) = ([zero; PANELS], [zero; PANELS]);
            for p in 0..PANELS {
                let params = &self.conv.params[panel[p] * params_len..][..params_len];
                start[p] = whole(Lanes::<NR, i8, i8>::start(isa, params));
                let from = Lanes::<NR, i8, i8>::scale(isa, params, &self.conv.finish);
                if let Scale::Float(numbers) = from {
                    scale[p] = whole(_mm512_castps_si512(numbers));
                }
            }
            filter.start = quads(isa, start);
            let scale = quads(isa, scale);
            for q in 0..PANELS {
                filter.scale[q] = _mm512_castsi512_ps(scale[q]);
            }
            filter
        }
    }

    /// Lines that output row `row` reads, from `channel` on; `pad` stands for pixels outside.
    #[inline(always)]
    fn lines<const KH: usize>(self, row: usize, channel: usize, pad: &[i8; WIDE]) -> Lines<KH> {
        let conv = self.conv;
        let y = window_start(row, conv.stride[0], conv.padding.top);
        let mut lines = Lines { at: [pad.as_ptr(); KH], step: [0; KH] };
        for r in 0..KH {
            // Negative numbers are huge as unsigned.
            let y = (y + r as isize) as usize;
            if y < usize::from(conv.input.h) {
                lines.at[r] = conv.x[y * self.w_in * self.c + channel..].as_ptr();
                lines.step[r] = self.c;
            }
        }
        lines
    }

    /// 64 channels of some rows.
    #[inline(always)]
    fn channels<const KH: usize, const KW: usize, const S: usize>(
        self,
        isa: Avx512Vnni,
        filter: &Filter<KH, KW>,
        channel: usize,
        first_row: usize,
        out: &mut [i8],
    ) {
        const MR: usize = 2;
        let Self { c, w_in, w_out, conv, .. } = self;
        let pad = [conv.x[conv.input.len()]; WIDE];
        let left = usize::from(conv.padding.left);
        // Outputs whose windows are inside the map.
        let end = (w_in + left).checked_sub(KW).map_or(0, |room| room / S + 1).min(w_out);
        let inside = left.div_ceil(S)..end;
        for (i, line) in out.chunks_exact_mut(w_out * c).enumerate() {
            let lines = self.lines::<KH>(first_row + i, channel, &pad);
            for first in (0..w_out).step_by(MR) {
                let at = window_start(first, conv.stride[1], conv.padding.left);
                // SAFETY: columns inside the map have 64 bytes of each line from `channel` on; others
                // are of the pad value.
                let acc = unsafe {
                    if inside.start <= first && first + MR <= inside.end {
                        filter.tile::<MR, S>(isa, lines, at as usize)
                    } else {
                        filter.edge_tile::<MR, S>(isa, lines, at, w_in, &pad)
                    }
                };
                for (m, acc) in acc.into_iter().enumerate().take(w_out - first) {
                    let to = &mut line[(first + m) * c + channel..][..WIDE];
                    // SAFETY: the token proves AVX-512; there are 64 bytes.
                    unsafe {
                        let y = filter.finish(isa, acc, &conv.finish);
                        _mm512_storeu_si512(to.as_mut_ptr().cast(), y);
                    }
                }
            }
        }
    }

    /// Some rows of pixels of `64 / PIXELS` bytes.
    #[inline(always)]
    fn pixels<const KH: usize, const KW: usize, const PIXELS: usize>(
        self,
        isa: Avx512Vnni,
        filter: &Filter<KH, KW>,
        first_row: usize,
        out: &mut [i8],
    ) {
        const MR: usize = 2;
        let Self { w_in, w_out, conv, .. } = self;
        let c = WIDE / PIXELS;
        let pad = [conv.x[conv.input.len()]; WIDE];
        let mut edge = [[pad[0]; MAX_EDGE]; KH];
        for (i, line) in out.chunks_exact_mut(w_out * c).enumerate() {
            let lines = self.lines::<KH>(first_row + i, 0, &pad);
            let mut first = 0;
            while first < w_out {
                let at = window_start(first, 1, conv.padding.left);
                let is_inside =
                    |count: usize| at >= 0 && at as usize + count * PIXELS + KW - 1 <= w_in;
                if first + MR * PIXELS <= w_out && is_inside(MR) {
                    // SAFETY: columns inside the map have 64 bytes of each line, since the last one's
                    // PIXELS pixels are inside.
                    unsafe {
                        let acc = filter.tile::<MR, PIXELS>(isa, lines, at as usize);
                        for (m, acc) in acc.into_iter().enumerate() {
                            let to = &mut line[(first + m * PIXELS) * c..][..WIDE];
                            let y = filter.finish(isa, acc, &conv.finish);
                            _mm512_storeu_si512(to.as_mut_ptr().cast(), y);
                        }
                    }
                    first += MR * PIXELS;
                    continue;
                }
                // The last ones overlap those before.
                let from = first.min(w_out - PIXELS);
                let at = window_start(from, 1, conv.padding.left);
                let mut around = lines;
                for r in 0..KH {
                    // Pixels of the window that are inside.
                    let columns = PIXELS + KW - 1;
                    let before = (-at).clamp(0, columns as isize) as usize;
                    let start = (at.max(0) as usize).min(w_in);
                    let count = (columns - before).min(w_in - start);
                    let edge = &mut edge[r][..columns * c];
                    edge.fill(pad[0]);
                    if lines.step[r] != 0 {
                        // SAFETY: so many pixels of the line are inside the map.
                        let from = unsafe {
                            core::slice::from_raw_parts(lines.at[r].add(start * c), count * c)
                        };
                        edge[before * c..][..count * c].copy_from_slice(from);
                    }
                    (around.at[r], around.step[r]) = (edge.as_ptr(), c);
                }
                // SAFETY: `edge` has the columns of a window of PIXELS pixels.
                unsafe {
                    let [acc] = filter.tile::<1, PIXELS>(isa, around, 0);
                    let to = &mut line[from * c..][..WIDE];
                    let y = filter.finish(isa, acc, &conv.finish);
                    _mm512_storeu_si512(to.as_mut_ptr().cast(), y);
                }
                first = from + PIXELS;
            }
        }
    }
}

impl<const KH: usize, const KW: usize> Filter<KH, KW> {
    /// Sums of MR windows inside, the first of which starts at column `at`, S columns apart.
    ///
    /// # Safety
    /// 64 bytes of all lines are readable at each of their columns.
    #[inline(always)]
    unsafe fn tile<const MR: usize, const S: usize>(
        &self,
        isa: Avx512Vnni,
        lines: Lines<KH>,
        at: usize,
    ) -> [Quads; MR] {
        let mut acc = [self.start; MR];
        for j in 0..(MR - 1) * S + KW {
            // SAFETY: the caller's promise.
            unsafe { self.add::<MR, S>(isa, &mut acc, j, lines.column(at + j)) };
        }
        acc
    }

    /// As [`Self::tile`], of windows of which some columns are outside.
    ///
    /// # Safety
    /// 64 bytes of all lines are readable at each of `w_in` columns.
    #[inline(always)]
    unsafe fn edge_tile<const MR: usize, const S: usize>(
        &self,
        isa: Avx512Vnni,
        lines: Lines<KH>,
        at: isize,
        w_in: usize,
        pad: &[i8; WIDE],
    ) -> [Quads; MR] {
        let mut acc = [self.start; MR];
        for j in 0..(MR - 1) * S + KW {
            // Negative numbers are huge as unsigned.
            let x = (at + j as isize) as usize;
            let column = if x < w_in { lines.column(x) } else { [pad.as_ptr(); KH] };
            // SAFETY: the caller's promise.
            unsafe { self.add::<MR, S>(isa, &mut acc, j, column) };
        }
        acc
    }

    /// Outputs as they are stored.
    #[inline(always)]
    fn finish(&self, isa: Avx512Vnni, acc: Quads, finish: &Finish) -> __m512i {
        let [y] = steps(isa, [acc], self.scale, finish, None);
        pack(isa, y, finish)
    }

    /// Adds what column `j` of the windows' columns, whose rows are at `column`, gives to each of them.
    ///
    /// # Safety
    /// 64 bytes are readable at all rows.
    #[inline(always)]
    unsafe fn add<const MR: usize, const S: usize>(
        &self,
        isa: Avx512Vnni,
        acc: &mut [Quads; MR],
        j: usize,
        column: [*const i8; KH],
    ) {
        // SAFETY: the token proves AVX-512 VNNI, and the caller's promise.
        unsafe {
            let x = match KH {
                3 => interleaved(isa, [column[0], column[1], column[2]]),
                _ => interleaved(isa, [column[0], column[1], column[2], column[3]]),
            };
            for m in 0..MR {
                if j >= m * S && j - m * S < KW {
                    for q in 0..PANELS {
                        let w = self.weights[0][j - m * S][q];
                        acc[m][q] = _mm512_dpbusd_epi32(acc[m][q], x[q], w);
                    }
                }
            }
            if KH > DEPTHWISE_ROWS {
                let x = interleaved(isa, [column[KH - 1]]);
                for m in 0..MR {
                    if j >= m * S && j - m * S < KW {
                        for q in 0..PANELS {
                            let w = self.weights[1][j - m * S][q];
                            acc[m][q] = _mm512_dpbusd_epi32(acc[m][q], x[q], w);
                        }
                    }
                }
            }
        }
    }
}
