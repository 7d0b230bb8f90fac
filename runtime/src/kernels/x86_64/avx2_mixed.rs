//! Int8 with AVX2 where some pairs of weights are too large for VPMADDUBSW.
//!
//! Networks that were quantized elsewhere use all bytes as weights. Of a panel's groups, those whose
//! pairs all fit are multiplied as in [`super::avx2_i8`]; the others as `|x|` and `w` with the sign
//! of `x`, for `2 · 128 · 127 < 2¹⁵`, with one instruction more. Which are which is found
//! out once for each panel, and activations are taken apart once for all outputs of a panel.

use super::Avx2;
use super::avx2_i8::{Fast, Pairs, Quads, Scale, load_half};
use crate::kernels::conv::Conv;
use crate::kernels::{Finish, Lanes, Rows};
use artifact::layout::{ConvPlane, KR_I8, MAX_PAIR};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

const NR: usize = 16;
/// Bytes of a group of weights.
const GROUP: usize = NR * KR_I8;
/// Groups whose bits are a word.
const WORD: usize = 64;
/// Words of a panel; any further groups are taken for such that do not fit.
const WORDS: usize = 40;
/// Fewest pixels for which groups are looked at: five tiles take longer.
const LEAST_PIXELS: usize = 20;

/// Which groups of a panel can be multiplied by [`Pairs`].
struct Fits {
    words: [u64; WORDS],
    /// Of the weights of those groups, each output's.
    sums: [__m256i; 2],
}

impl Fits {
    /// No group.
    #[inline(always)]
    fn none(_: Avx2) -> Self {
        // SAFETY: the token proves AVX2.
        Self { words: [0; WORDS], sums: unsafe { [_mm256_setzero_si256(); 2] } }
    }

    /// Looks at all of a panel's weights.
    #[inline(always)]
    fn of(isa: Avx2, panel: &[i8]) -> Self {
        let mut fits = Self::none(isa);
        let words = panel.chunks(WORD * GROUP);
        for (word, groups) in fits.words.iter_mut().zip(words) {
            for (g, group) in groups.as_chunks::<GROUP>().0.iter().enumerate() {
                // SAFETY: the token proves AVX2; a group is two registers long.
                unsafe {
                    let at = group.as_ptr();
                    let one = _mm256_set1_epi8(1);
                    let low = _mm256_maddubs_epi16(one, _mm256_loadu_si256(at.cast()));
                    let high = _mm256_maddubs_epi16(one, _mm256_loadu_si256(at.add(32).cast()));
                    let largest = _mm256_max_epi16(_mm256_abs_epi16(low), _mm256_abs_epi16(high));
                    let large = _mm256_cmpgt_epi16(largest, _mm256_set1_epi16(MAX_PAIR));
                    if _mm256_testz_si256(large, large) == 1 {
                        *word |= 1 << g;
                        let one = _mm256_set1_epi16(1);
                        fits.sums[0] = _mm256_add_epi32(fits.sums[0], _mm256_madd_epi16(low, one));
                        fits.sums[1] = _mm256_add_epi32(fits.sums[1], _mm256_madd_epi16(high, one));
                    }
                }
            }
        }
        fits
    }

    /// The bits of up to [`WORD`] groups from `first` on.
    #[inline(always)]
    fn bits(&self, first: usize, count: usize) -> u64 {
        let (at, shift) = (first / WORD, first % WORD);
        let word = |at: usize| self.words.get(at).copied().unwrap_or(0);
        let bits = word(at) >> shift | (word(at + 1) << 1) << (WORD - 1 - shift);
        bits & all(count)
    }
}

/// As many bits.
#[inline(always)]
fn all(count: usize) -> u64 {
    u64::MAX >> (WORD - count)
}

/// Activations of [`WORD`] groups: magnitudes, and as they are with signs.
type Apart = [[MaybeUninit<u8>; WORD * KR_I8]; 2];

/// Fills them from `len` stored activations, a multiple of four.
///
/// # Safety
/// The CPU has AVX2; `x` points at `len` readable bytes, of which there are no more than in `to`.
#[inline(always)]
unsafe fn take_apart(x: *const i8, len: usize, to: &mut Apart) {
    let [magnitudes, signed] = to.each_mut().map(|to| to.as_mut_ptr());
    let mut at = 0;
    // SAFETY: the caller's promise; each step ends at or before `len`.
    unsafe {
        while at + 32 <= len {
            let x = _mm256_loadu_si256(x.add(at).cast());
            let x = _mm256_xor_si256(x, _mm256_set1_epi8(Avx2::FLIP));
            _mm256_storeu_si256(magnitudes.add(at).cast(), _mm256_abs_epi8(x));
            _mm256_storeu_si256(signed.add(at).cast(), x);
            at += 32;
        }
        while at + KR_I8 <= len {
            let x = _mm_loadu_si32(x.add(at).cast());
            let x = _mm_xor_si128(x, _mm_set1_epi8(Avx2::FLIP));
            _mm_storeu_si32(magnitudes.add(at).cast(), _mm_abs_epi8(x));
            _mm_storeu_si32(signed.add(at).cast(), x);
            at += KR_I8;
        }
    }
}

/// One panel's, for shifts of at least 32.
#[derive(Clone, Copy)]
struct Mixed<'a> {
    isa: Avx2,
    weights: &'a [i8],
    fits: &'a Fits,
}

impl Lanes<NR, i8, i8> for Mixed<'_> {
    type Acc = [__m256i; 2];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        let half = |i: usize| {
            let bias = load_half(params, ConvPlane::Bias, i);
            // SAFETY: the token proves AVX2; registers only.
            unsafe { _mm256_sub_epi32(bias, _mm256_slli_epi32(self.fits.sums[i], 7)) }
        };
        [half(0), half(1)]
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Scale {
        Fast::<false>(self.isa).scale(params, finish)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256i; 2]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        const { assert!(NP == 1) };
        let groups = rows.check(&x, &w, [KR_I8, NR]);
        // Of the panel, the first that is read.
        let first = (w[0].as_ptr().addr() - self.weights.as_ptr().addr()) / GROUP;
        let mut apart = [[[MaybeUninit::uninit(); WORD * KR_I8]; 2]; MR];
        // A copy, which stays in registers through all loops.
        let mut sums = *acc;
        let (mut x_at, mut w_at) = (0, 0);
        for row in 0..rows.count {
            for start in (0..groups).step_by(WORD) {
                let count = (groups - start).min(WORD);
                let fit = self.fits.bits(first + row * groups + start, count);
                let at = x_at + start * KR_I8;
                // SAFETY: the token proves AVX2; rows and groups are in bounds, as just asserted.
                // Bits stand for `count` groups from `start` on, which `apart` has when it is read.
                unsafe {
                    let weights = w[0].as_ptr().add(w_at + start * GROUP);
                    let load = |g: usize| {
                        let at = weights.add(g * GROUP);
                        [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())]
                    };
                    let mut left = fit;
                    while left != 0 {
                        let g = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let weights = load(g);
                        for m in 0..MR {
                            let x = x[m].as_ptr().add(at + g * KR_I8);
                            let stored = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                            for i in 0..2 {
                                sums[m][0][i] = Pairs::add(sums[m][0][i], stored, weights[i]);
                            }
                        }
                    }
                    let mut left = all(count) & !fit;
                    if left == 0 {
                        continue;
                    }
                    for m in 0..MR {
                        take_apart(x[m].as_ptr().add(at), count * KR_I8, &mut apart[m]);
                    }
                    while left != 0 {
                        let g = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let weights = load(g);
                        for m in 0..MR {
                            let mut quads = [_mm256_setzero_si256(); 2];
                            for i in 0..2 {
                                let x = apart[m][i].as_ptr().add(g * KR_I8);
                                quads[i] = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                            }
                            let [magnitudes, signed] = quads;
                            for i in 0..2 {
                                let weights = _mm256_sign_epi8(weights[i], signed);
                                sums[m][0][i] = Pairs::add(sums[m][0][i], magnitudes, weights);
                            }
                        }
                    }
                }
            }
            x_at += rows.stride;
            w_at += rows.len * NR;
        }
        *acc = sums;
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [__m256i; 2],
        scale: &Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        Fast::<false>(self.isa).finish(acc, scale, finish, residual)
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        run(self.isa, conv, first_pixel, out);
    }

    fn peak(self, rounds: usize) -> u64 {
        Fast::<false>(self.isa).peak(rounds)
    }
}

/// [`Lanes::conv`] of any weights, for shifts of at least 32.
pub(super) fn run(isa: Avx2, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
    #[target_feature(enable = "avx2")]
    fn enabled(isa: Avx2, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
        let are_many = out.len() >= LEAST_PIXELS * usize::from(conv.output.c);
        let panels = conv.weights.chunks_exact(conv.filter.panel_len());
        for (panel, weights) in panels.enumerate() {
            let fits = if are_many { Fits::of(isa, weights) } else { Fits::none(isa) };
            let mixed = Mixed { isa, weights, fits: &fits };
            // 8 accumulators, 2 weights, 2 of an activation, its products, 1 of 16 registers.
            conv.panels::<_, NR, 4, 1>(mixed, panel, first, out);
        }
    }
    // SAFETY: the token proves the feature.
    unsafe { enabled(isa, conv, first_pixel, out) }
}
