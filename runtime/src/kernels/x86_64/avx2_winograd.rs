//! Int8 by Winograd's F(2×2, 3×3), see [`artifact::winograd_i8`].
//!
//! VPMADDWD multiplies sixteen pairs of 16-bit numbers in one instruction, of bytes VPMADDUBSW and
//! VPMADDWD together do thirty-two: with 2.25 times fewer products, this is the faster way.

use super::Avx2;
use super::avx2_i8::{Fast, all_shifts_are_large};
use crate::kernels::Lanes;
use crate::kernels::conv::Conv;
use artifact::layout::{KR_I8, window_start};
use artifact::winograd_i8::{GROUP, LANES, MAX_CHANNELS, POSITIONS, TILE, WINDOW, group_len, tiles};
use core::arch::x86_64::*;

/// Most tiles of a run: their sums stay on the stack, a kilobyte for four.
pub(crate) const MAX_TILES: usize = 132;
/// Transformed filters of a row of positions: two channels of sixteen outputs are 32 numbers.
const ROW: usize = WINDOW * MAX_CHANNELS as usize * LANES;

/// Sixteen sums of a tile's output pixels.
type Sums = [[__m256i; 2]; TILE * TILE];

/// Some rows of tiles of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The convolution.
    pub conv: &'a Conv<'a, i8, i8>,
    /// First of its tiles.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// Whether [`Run::to_pixels`] can requantize a convolution's output.
pub(crate) fn suits(params: &[i32]) -> bool {
    all_shifts_are_large(params)
}

impl Run<'_> {
    /// Transforms the input of the run's tiles to `out`, groups of `[16, 6, c_in]`.
    pub(crate) fn to_positions(self, _: Avx2, out: &mut [i16]) {
        #[target_feature(enable = "avx2")]
        fn enabled(run: Run<'_>, out: &mut [i16]) {
            run.transform_input(out);
        }
        // SAFETY: the token proves the feature.
        unsafe { enabled(self, out) }
    }

    /// Computes output pixels of transformed tiles; `out` holds the run's rows.
    pub(crate) fn to_pixels(self, isa: Avx2, x: &[i16], out: &mut [i8]) {
        #[target_feature(enable = "avx2")]
        fn enabled(run: Run<'_>, isa: Avx2, x: &[i16], out: &mut [i8]) {
            run.multiply(isa, x, out);
        }
        // SAFETY: the token proves the feature.
        unsafe { enabled(self, isa, x, out) }
    }

    #[inline(always)]
    fn transform_input(self, out: &mut [i16]) {
        let conv = self.conv;
        let (h, w) = (usize::from(conv.input.h), usize::from(conv.input.w));
        let c_in = usize::from(conv.input.c);
        let [_, columns] = tiles(conv.output);
        let pad_pixel = conv.input.len();
        for tile in 0..self.count {
            let (row, column) = ((self.first + tile) / columns, (self.first + tile) % columns);
            let y0 = window_start(row, TILE as u16, conv.padding.top);
            let x0 = window_start(column, TILE as u16, conv.padding.left);
            let mut at = [pad_pixel; POSITIONS];
            for i in 0..WINDOW {
                for j in 0..WINDOW {
                    let (y, x) = ((y0 + i as isize) as usize, (x0 + j as isize) as usize);
                    if y < h && x < w {
                        at[i * WINDOW + j] = (y * w + x) * c_in;
                    }
                }
            }
            let group = tile / GROUP * group_len(conv.input.c);
            for channel in (0..c_in).step_by(LANES) {
                // SAFETY: the callers' token proves AVX2; slices are bounds-checked and sixteen
                // bytes, or numbers, long.
                unsafe {
                    let zero = _mm256_setzero_si256();
                    let mut half = [[zero; WINDOW]; WINDOW];
                    for j in 0..WINDOW {
                        let mut d = [zero; WINDOW];
                        for i in 0..WINDOW {
                            let x = &conv.x[at[i * WINDOW + j] + channel..][..LANES];
                            d[i] = _mm256_cvtepu8_epi16(_mm_loadu_si128(x.as_ptr().cast()));
                        }
                        half[j] = input_transform(d);
                    }
                    for i in 0..WINDOW {
                        let mut d = [zero; WINDOW];
                        for j in 0..WINDOW {
                            d[j] = half[j][i];
                        }
                        let values = input_transform(d);
                        for j in 0..WINDOW {
                            let position = (i * WINDOW + j) * GROUP + tile % GROUP;
                            let to = group + position * c_in + channel;
                            let to = &mut out[to..][..LANES];
                            _mm256_storeu_si256(to.as_mut_ptr().cast(), values[j]);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn multiply(self, isa: Avx2, x: &[i16], out: &mut [i8]) {
        let conv = self.conv;
        let (c_in, c_out) = (usize::from(conv.input.c), usize::from(conv.output.c));
        let w_out = usize::from(conv.output.w);
        let [_, columns] = tiles(conv.output);
        let rows = out.len() / (w_out * c_out);
        let first_pixel = self.first / columns * TILE * w_out;
        let groups = self.count.div_ceil(GROUP);
        assert!(groups * GROUP <= MAX_TILES && x.len() >= groups * group_len(conv.input.c));
        let panel_len = conv.filter.panel_len();
        let isa = Fast(isa);
        let mut filters = [0i16; ROW];
        let filters = &mut filters[..WINDOW * c_in * LANES];
        // SAFETY: the token proves AVX2.
        let zero = unsafe { _mm256_setzero_si256() };
        let mut sums: [Sums; MAX_TILES] = [[[zero; 2]; TILE * TILE]; MAX_TILES];
        let panels = conv.weights.chunks_exact(panel_len);
        for (panel, weights) in panels.enumerate() {
            for i in 0..WINDOW {
                transform_filters(weights, i, filters);
                for (group, sums) in sums.chunks_exact_mut(GROUP).take(groups).enumerate() {
                    let x = &x[group * group_len(conv.input.c)..][..group_len(conv.input.c)];
                    let mut products = [[[zero; 2]; GROUP]; WINDOW];
                    for (j, products) in products.iter_mut().enumerate() {
                        let len = GROUP * c_in;
                        let x = &x[(i * WINDOW + j) * len..][..len];
                        let w = &filters[j * c_in * LANES..][..c_in * LANES];
                        dot(x, w, products);
                    }
                    add_products(&products, i, sums);
                }
            }
            let params = &conv.params[panel * 5 * LANES..][..5 * LANES];
            let (start, scale) = (isa.start(params), isa.scale(params, &conv.finish));
            for (tile, sums) in sums.iter().enumerate().take(self.count) {
                let (y0, x0) = (tile / columns * TILE, tile % columns * TILE);
                for y in 0..TILE.min(rows - y0) {
                    for x in 0..TILE.min(w_out - x0) {
                        let pixel = (y0 + y) * w_out + x0 + x;
                        let at = pixel * c_out + panel * LANES;
                        let to = &mut out[at..][..LANES];
                        let offset = first_pixel * c_out + at;
                        let residual = conv.residual.lanes::<LANES, true>(to, offset);
                        let mut acc = start;
                        for half in 0..2 {
                            let sum = sums[y * TILE + x][half];
                            // SAFETY: as above.
                            acc[half] = unsafe {
                                _mm256_add_epi32(acc[half], _mm256_srai_epi32(sum, 2))
                            };
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
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn input_transform(d: [__m256i; WINDOW]) -> [__m256i; WINDOW] {
    // SAFETY: the caller's promise; registers only.
    unsafe {
        [
            _mm256_sub_epi16(d[0], d[2]),
            _mm256_add_epi16(d[1], d[2]),
            _mm256_sub_epi16(d[2], d[1]),
            _mm256_sub_epi16(d[1], d[3]),
        ]
    }
}

/// Row `i` of `2G g 2Gᵀ` of a panel, `[4, c_in / 2, 16, 2]`.
#[inline(always)]
fn transform_filters(weights: &[i8], i: usize, out: &mut [i16]) {
    let tap_len = weights.len() / 9;
    let position_len = tap_len;
    assert!(out.len() == WINDOW * position_len && tap_len.is_multiple_of(KR_I8 * LANES));
    // SAFETY: the callers' token proves AVX2. Reads stay below 9 · tap_len, writes below
    // 4 · position_len numbers, which are as many as asserted.
    unsafe {
        // The first or second two of four channels, to upper halves of 16 bits.
        let pairs = [
            _mm256_setr_epi8(
                -1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1, 4, -1,
                5, -1, 8, -1, 9, -1, 12, -1, 13,
            ),
            _mm256_setr_epi8(
                -1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1, 2, -1, 3, -1, 6,
                -1, 7, -1, 10, -1, 11, -1, 14, -1, 15,
            ),
        ];
        for at in (0..tap_len).step_by(32) {
            for (pair, order) in pairs.iter().enumerate() {
                let mut r = [_mm256_setzero_si256(); 3];
                for x in 0..3 {
                    let top = weights.as_ptr().add(x * tap_len + at);
                    r[x] = match i {
                        0 => double(widen(top, *order)),
                        3 => double(widen(top.add(6 * tap_len), *order)),
                        _ => {
                            let bottom = widen(top.add(6 * tap_len), *order);
                            let middle = widen(top.add(3 * tap_len), *order);
                            let ends = _mm256_add_epi16(widen(top, *order), bottom);
                            if i == 1 {
                                _mm256_add_epi16(ends, middle)
                            } else {
                                _mm256_sub_epi16(ends, middle)
                            }
                        }
                    };
                }
                let ends = _mm256_add_epi16(r[0], r[2]);
                let values = [
                    double(r[0]),
                    _mm256_add_epi16(ends, r[1]),
                    _mm256_sub_epi16(ends, r[1]),
                    double(r[2]),
                ];
                // Of a group's 64 numbers, those of its first two channels come first.
                let to = at / 64 * 64 + pair * 32 + at % 64 / 2;
                for (j, value) in values.into_iter().enumerate() {
                    let to = out.as_mut_ptr().add(j * position_len + to);
                    _mm256_storeu_si256(to.cast(), value);
                }
            }
        }
    }
}

/// Sixteen of the bytes at `from`, as `order` picks them, in 16 bits.
///
/// # Safety
/// The CPU has AVX2; 32 bytes are readable.
#[inline(always)]
unsafe fn widen(from: *const i8, order: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = _mm256_loadu_si256(from.cast());
        _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, order), 8)
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn double(x: __m256i) -> __m256i {
    // SAFETY: the caller's promise; registers only.
    unsafe { _mm256_add_epi16(x, x) }
}

/// Products of a group's tiles `[6, c_in]` with sixteen outputs' filters `[c_in / 2, 16, 2]`.
#[inline(always)]
fn dot(x: &[i16], w: &[i16], out: &mut [[__m256i; 2]; GROUP]) {
    let c_in = x.len() / GROUP;
    assert!(w.len() == c_in * LANES);
    // SAFETY: the callers' token proves AVX2; reads stay below 6 · c_in and 16 · c_in numbers.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; GROUP];
        for c in (0..c_in / 2 * 2).step_by(2) {
            let w = w.as_ptr().add(c * LANES);
            let w = [_mm256_loadu_si256(w.cast()), _mm256_loadu_si256(w.add(16).cast())];
            for m in 0..GROUP {
                let x = x.as_ptr().add(m * c_in + c).cast::<i32>().read_unaligned();
                let x = _mm256_set1_epi32(x);
                for half in 0..2 {
                    let product = _mm256_madd_epi16(x, w[half]);
                    sums[m][half] = _mm256_add_epi32(sums[m][half], product);
                }
            }
        }
        *out = sums;
    }
}

/// Adds row `i` of a group's products to its sums, `Aᵀ m A`.
#[inline(always)]
fn add_products(products: &[[[__m256i; 2]; GROUP]; WINDOW], i: usize, sums: &mut [Sums]) {
    for (tile, sums) in sums.iter_mut().enumerate() {
        for half in 0..2 {
            // SAFETY: the callers' token proves AVX2; registers only.
            unsafe {
                let [first, second] = [products[0][tile][half], products[1][tile][half]];
                let [third, fourth] = [products[2][tile][half], products[3][tile][half]];
                let left = _mm256_add_epi32(_mm256_add_epi32(first, second), third);
                let right = _mm256_sub_epi32(_mm256_sub_epi32(second, third), fourth);
                for (x, value) in [left, right].into_iter().enumerate() {
                    let [mut top, mut bottom] = [sums[x][half], sums[TILE + x][half]];
                    match i {
                        0 => top = value,
                        1 => {
                            top = _mm256_add_epi32(top, value);
                            bottom = value;
                        }
                        2 => {
                            top = _mm256_add_epi32(top, value);
                            bottom = _mm256_sub_epi32(bottom, value);
                        }
                        _ => bottom = _mm256_sub_epi32(bottom, value),
                    }
                    sums[x][half] = top;
                    sums[TILE + x][half] = bottom;
                }
            }
        }
    }
}
