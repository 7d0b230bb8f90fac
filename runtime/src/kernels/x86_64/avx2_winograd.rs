//! Int8 by Winograd's F(4×4, 3×3), see [`artifact::winograd_i8`].
//!
//! VPMADDWD and VPADDD do sixteen multiply-adds of 16-bit numbers, where the direct way's three
//! instructions do 32 of bytes. A quarter of the products more than makes up for that and for the
//! transforms.
#![expect(clippy::needless_range_loop, reason = "x, y, i and j are the formulas'")]

use super::Avx2;
use super::avx2_i8::Fast;
use crate::kernels::Lanes;
use crate::kernels::conv::{Conv, ResidualSource};
use crate::kernels::winograd::window;
use artifact::layout::KR_I8;
use artifact::winograd::{LANES, POSITIONS, TILE, WINDOW, tiles};
use artifact::winograd_i8::{GROUP, filters_len, group_len};
use core::arch::asm;
use core::arch::x86_64::*;

/// Sixteen sums.
type Sums = [__m256i; 2];

/// Numbers of a block of transformed filters: sixteen channels of sixteen outputs.
const BLOCK_LEN: usize = POSITIONS * LANES * LANES;

/// Some tiles of a convolution: whole rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The convolution.
    pub conv: &'a Conv<'a, i8, i8>,
    /// First of its tiles.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl Run<'_> {
    /// Transforms the input of the tiles to `out`, groups of `[36, 4, c_in]`.
    pub(crate) fn to_positions(self, _: Avx2, out: &mut [i16]) {
        // SAFETY: the token proves the feature.
        unsafe { self.input_to_positions(out) }
    }

    /// Computes output pixels of transformed tiles; `out` holds the run's rows, `filters` a
    /// panel's when they are transformed.
    pub(crate) fn to_pixels(self, isa: Avx2, filters: &mut [i16], x: &[i16], out: &mut [i8]) {
        let panels = self.conv.weights.chunks_exact(self.conv.filter.panel_len());
        for (panel, weights) in panels.enumerate() {
            // SAFETY: the token proves the feature.
            unsafe {
                for (block, filters) in filters.chunks_exact_mut(BLOCK_LEN).enumerate() {
                    filters_to_positions(weights, block, filters);
                }
                self.products_to_pixels(Fast(isa), panel, filters, x, out);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn input_to_positions(self, out: &mut [i16]) {
        let conv = self.conv;
        let c_in = usize::from(conv.input.c);
        for tile in 0..self.count {
            let at = window(conv.input, conv.output, conv.padding, self.first + tile);
            let group = tile / GROUP * group_len(conv.input.c);
            for channel in (0..c_in).step_by(LANES) {
                let mut half = [[_mm256_setzero_si256(); WINDOW]; WINDOW];
                for j in 0..WINDOW {
                    let mut d = [_mm256_setzero_si256(); WINDOW];
                    for i in 0..WINDOW {
                        let x = &conv.x[at[i * WINDOW + j] + channel..][..LANES];
                        // SAFETY: `x` is sixteen bytes long.
                        let x = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
                        d[i] = _mm256_cvtepu8_epi16(x);
                    }
                    let d = transform_input(d);
                    for i in 0..WINDOW {
                        half[i][j] = d[i];
                    }
                }
                for i in 0..WINDOW {
                    let values = transform_input(half[i]);
                    for j in 0..WINDOW {
                        let position = (i * WINDOW + j) * GROUP + tile % GROUP;
                        let to = group + position * c_in + channel;
                        let to = &mut out[to..][..LANES];
                        // SAFETY: `to` is sixteen numbers long.
                        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values[j]) };
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn products_to_pixels(
        self,
        isa: Fast<false>,
        panel: usize,
        filters: &[i16],
        x: &[i16],
        out: &mut [i8],
    ) {
        let conv = self.conv;
        let (c_in, c_out) = (usize::from(conv.input.c), usize::from(conv.output.c));
        let w_out = usize::from(conv.output.w);
        let [_, columns] = tiles(conv.output);
        let rows = out.len() / (w_out * c_out);
        let first_pixel = self.first / columns * TILE * w_out;
        let params_len = conv.params.len() / conv.filter.panels();
        let params = &conv.params[panel * params_len..][..params_len];
        let (start, scale) = (isa.start(params), isa.scale(params, &conv.finish));
        let group_len = group_len(conv.input.c);
        assert!(filters.len() == filters_len(conv.input.c));
        let mut products = [[[_mm256_setzero_si256(); 2]; GROUP]; POSITIONS];
        for first in (0..self.count).step_by(GROUP) {
            let x = &x[first / GROUP * group_len..][..group_len];
            for (position, products) in products.iter_mut().enumerate() {
                let x = &x[position * GROUP * c_in..][..GROUP * c_in];
                dot(x, &filters[position * LANES * LANES..], products);
            }
            for m in 0..GROUP.min(self.count - first) {
                let (row, column) = ((first + m) / columns, (first + m) % columns);
                let (y0, x0) = (row * TILE, column * TILE);
                let mut half = [[[_mm256_setzero_si256(); WINDOW]; 2]; TILE];
                for y in 0..WINDOW {
                    for h in 0..2 {
                        let mut m_y = [_mm256_setzero_si256(); WINDOW];
                        for x in 0..WINDOW {
                            m_y[x] = products[y * WINDOW + x][m][h];
                        }
                        let m_y = transform_products(m_y);
                        for x in 0..TILE {
                            half[x][h][y] = m_y[x];
                        }
                    }
                }
                for x in 0..TILE.min(w_out - x0) {
                    let sums = [transform_products(half[x][0]), transform_products(half[x][1])];
                    for y in 0..TILE.min(rows - y0) {
                        let mut acc = start;
                        for h in 0..2 {
                            // 576 is 64 · 9, whose second factor has an inverse.
                            let inverse = _mm256_set1_epi32(0x38e3_8e39);
                            let sum = _mm256_mullo_epi32(sums[h][y], inverse);
                            acc[h] = _mm256_add_epi32(acc[h], _mm256_srai_epi32(sum, 6));
                        }
                        let at = ((y0 + y) * w_out + x0 + x) * c_out + panel * LANES;
                        let to = &mut out[at..][..LANES];
                        let mut residual = None;
                        if !matches!(conv.residual, ResidualSource::None) {
                            let mut numbers = [[0; LANES]];
                            let first = first_pixel * c_out + at;
                            conv.residual.copy(to, first, &mut numbers);
                            residual = Some(numbers[0]);
                        }
                        let all = isa.finish(acc, &scale, &conv.finish, residual.as_ref());
                        to.copy_from_slice(&all);
                    }
                }
            }
        }
    }
}

/// One dimension of the input's transform, `Bᵀ d`.
#[target_feature(enable = "avx2")]
#[inline]
fn transform_input(d: [__m256i; WINDOW]) -> [__m256i; WINDOW] {
    let four = |x| _mm256_slli_epi16(x, 2);
    let [d0, d1, d2, d3, d4, d5] = d;
    let (even, odd) = (_mm256_sub_epi16(d4, four(d2)), _mm256_sub_epi16(d3, four(d1)));
    let (d20, d42) = (_mm256_sub_epi16(d0, d2), _mm256_sub_epi16(d4, d2));
    let (d31, d53) = (_mm256_sub_epi16(d1, d3), _mm256_sub_epi16(d5, d3));
    let twice = _mm256_add_epi16(d31, d31);
    [
        _mm256_add_epi16(four(d20), d42),
        _mm256_add_epi16(even, odd),
        _mm256_sub_epi16(even, odd),
        _mm256_sub_epi16(d42, twice),
        _mm256_add_epi16(d42, twice),
        _mm256_add_epi16(four(d31), d53),
    ]
}

/// One dimension of the products' transform, `Aᵀ m`, of rows of G as they are scaled.
#[target_feature(enable = "avx2")]
#[inline]
fn transform_products(m: [__m256i; WINDOW]) -> [__m256i; TILE] {
    let [m0, m1, m2, m3, m4, m5] = m;
    let sum = _mm256_slli_epi32(_mm256_add_epi32(m1, m2), 2);
    let difference = _mm256_slli_epi32(_mm256_sub_epi32(m1, m2), 2);
    let (sum2, difference2) = (_mm256_add_epi32(m3, m4), _mm256_sub_epi32(m3, m4));
    let six = _mm256_add_epi32(_mm256_slli_epi32(m0, 2), _mm256_slli_epi32(m0, 1));
    let three = _mm256_add_epi32(m5, _mm256_add_epi32(m5, m5));
    // 8 · (difference2 + 3 · m5)
    let last = _mm256_slli_epi32(_mm256_add_epi32(difference2, three), 3);
    [
        _mm256_add_epi32(_mm256_sub_epi32(six, sum), sum2),
        _mm256_sub_epi32(_mm256_slli_epi32(difference2, 1), difference),
        _mm256_sub_epi32(_mm256_slli_epi32(sum2, 2), sum),
        _mm256_sub_epi32(last, difference),
    ]
}

/// One dimension of a filter's transform, `G g`, of rows scaled by 4, −6, −6, 24, 24 and 1.
#[target_feature(enable = "avx2")]
#[inline]
fn transform_taps(g: [__m256i; 3]) -> [__m256i; WINDOW] {
    let [g0, g1, g2] = g;
    let (ends, ends4) = (_mm256_add_epi16(g0, g2), _mm256_add_epi16(g0, _mm256_slli_epi16(g2, 2)));
    let twice = _mm256_add_epi16(g1, g1);
    [
        g0,
        _mm256_add_epi16(ends, g1),
        _mm256_sub_epi16(ends, g1),
        _mm256_add_epi16(ends4, twice),
        _mm256_sub_epi16(ends4, twice),
        g2,
    ]
}

/// Transforms the filters of channels `block · 16 ..` of a panel's weights to `[36, 8, 16, 2]`.
#[target_feature(enable = "avx2")]
fn filters_to_positions(weights: &[i8], block: usize, out: &mut [i16]) {
    const GROUPS: usize = LANES / KR_I8;
    let tap_len = weights.len() / 9;
    let first = block * GROUPS * KR_I8 * LANES;
    assert!(out.len() == BLOCK_LEN && first + GROUPS * KR_I8 * LANES <= tap_len);
    // The first or last two of four channels, to upper halves of 16 bits.
    let orders = [
        _mm256_setr_epi8(
            -1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1, 4, -1, 5,
            -1, 8, -1, 9, -1, 12, -1, 13,
        ),
        _mm256_setr_epi8(
            -1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1, 2, -1, 3, -1, 6, -1, 7,
            -1, 10, -1, 11, -1, 14, -1, 15,
        ),
    ];
    for group in 0..GROUPS {
        for half in 0..2 {
            let from = &weights[first + group * KR_I8 * LANES + half * 32..];
            assert!(from.len() >= 8 * tap_len + 32);
            for (pair, order) in orders.iter().enumerate() {
                let mut rows = [[_mm256_setzero_si256(); 3]; WINDOW];
                for x in 0..3 {
                    let mut taps = [_mm256_setzero_si256(); 3];
                    for y in 0..3 {
                        // SAFETY: 32 bytes are there even of the last tap, as just asserted.
                        let bytes = unsafe {
                            _mm256_loadu_si256(from.as_ptr().add((y * 3 + x) * tap_len).cast())
                        };
                        taps[y] = _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, *order), 8);
                    }
                    let taps = transform_taps(taps);
                    for i in 0..WINDOW {
                        rows[i][x] = taps[i];
                    }
                }
                for i in 0..WINDOW {
                    let values = transform_taps(rows[i]);
                    for j in 0..WINDOW {
                        let to = (i * WINDOW + j) * LANES * LANES;
                        let to = to + (group * 2 + pair) * 2 * LANES + half * LANES;
                        let to = &mut out[to..][..LANES];
                        // SAFETY: `to` is sixteen numbers long.
                        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values[j]) };
                    }
                }
            }
        }
    }
}

/// Of four rows from `{x}` on, `{s}` and `{s3}` bytes apart: channels at `$x`, filters at `$w`.
macro_rules! step {
    ($x:literal, $w:literal) => {
        concat!(
            "vmovdqu {w0}, [{w} + ",
            $w,
            "]\n",
            "vmovdqu {w1}, [{w} + ",
            $w,
            " + 32]\n",
            step!("{a0}", "{a1}", "{x}", $x),
            step!("{a2}", "{a3}", "{x} + {s}", $x),
            step!("{a4}", "{a5}", "{x} + 2 * {s}", $x),
            step!("{a6}", "{a7}", "{x} + {s3}", $x),
        )
    };
    ($low:literal, $high:literal, $row:literal, $x:literal) => {
        concat!(
            "vpbroadcastd {t0}, [",
            $row,
            " + ",
            $x,
            "]\n",
            "vpmaddwd {t1}, {t0}, {w0}\n",
            "vpmaddwd {t0}, {t0}, {w1}\n",
            "vpaddd ",
            $low,
            ", ",
            $low,
            ", {t1}\n",
            "vpaddd ",
            $high,
            ", ",
            $high,
            ", {t0}\n",
        )
    };
}

/// Products of a group's tiles `[4, c_in]` with sixteen outputs' filters of one position: of
/// every sixteen channels `[8, 16, 2]`, [`BLOCK_LEN`] apart.
///
/// In assembly, because compilers neither unroll the loop nor leave its addresses to the loads.
#[target_feature(enable = "avx2")]
#[inline]
fn dot(x: &[i16], w: &[i16], out: &mut [Sums; GROUP]) {
    let c_in = x.len() / GROUP;
    let blocks = c_in / LANES;
    assert!(c_in > 0 && c_in.is_multiple_of(LANES));
    assert!(w.len() >= (blocks - 1) * BLOCK_LEN + LANES * LANES);
    let mut a = [[_mm256_setzero_si256(); 2]; GROUP];
    // SAFETY: each of the `blocks` turns reads sixteen channels of four rows of `c_in`, and their
    // filters, which are in bounds as just asserted.
    unsafe {
        asm!(
            "2:",
            step!("0", "0"),
            step!("4", "64"),
            step!("8", "128"),
            step!("12", "192"),
            step!("16", "256"),
            step!("20", "320"),
            step!("24", "384"),
            step!("28", "448"),
            "add {x}, 32",
            "add {w}, {block}",
            "dec {n}",
            "jnz 2b",
            block = const BLOCK_LEN * 2,
            x = inout(reg) x.as_ptr() => _,
            w = inout(reg) w.as_ptr() => _,
            s = in(reg) c_in * 2,
            s3 = in(reg) c_in * 6,
            n = inout(reg) blocks => _,
            a0 = inout(ymm_reg) a[0][0],
            a1 = inout(ymm_reg) a[0][1],
            a2 = inout(ymm_reg) a[1][0],
            a3 = inout(ymm_reg) a[1][1],
            a4 = inout(ymm_reg) a[2][0],
            a5 = inout(ymm_reg) a[2][1],
            a6 = inout(ymm_reg) a[3][0],
            a7 = inout(ymm_reg) a[3][1],
            w0 = out(ymm_reg) _,
            w1 = out(ymm_reg) _,
            t0 = out(ymm_reg) _,
            t1 = out(ymm_reg) _,
            options(nostack, readonly),
        );
    }
    *out = a;
}
