//! Int8 with AVX2 where some pairs of weights are too large for VPMADDUBSW: windows that are large.
//!
//! Of a panel's groups, those whose pairs all fit are multiplied as in [`super::avx2_i8`]; the
//! others as `|x|` and `w` with the sign of `x`, for `2 · 128 · 127 < 2¹⁵`, with one instruction
//! more. Which are which is found out once for all pixels, and activations are taken apart once
//! for some panels.

use super::Avx2;
use super::avx2_any::{self, GROUP, LEAST_PIXELS, MR, ZERO};
use super::avx2_i8::{Fast, Scale, load_half};
use crate::kernels::conv::Conv;
use crate::kernels::{Finish, Lanes, Rows};
use artifact::layout::{ConvPlane, KR_I8, MAX_PAIR};
use core::arch::asm;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

const NR: usize = 16;
/// Groups whose bits are a word.
const WORD: usize = 64;
/// Words of a panel; any further groups are taken for such that do not fit.
const WORDS: usize = 40;
/// Of a panel's groups, the part that has to fit.
const LEAST_PART: usize = 4;

/// Of which groups of a panel all pairs fit.
struct Fits {
    /// A bit for each.
    words: [u64; WORDS],
    /// How many.
    count: usize,
    /// Of the weights of those groups, each output's.
    sums: [__m256i; 2],
}

impl Fits {
    /// No group.
    const NONE: Self = Self { words: [0; WORDS], count: 0, sums: [ZERO; 2] };

    /// Looks at all of a panel's weights.
    #[inline(always)]
    fn of(_: Avx2, panel: &[i8]) -> Self {
        let mut fits = Self::NONE;
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
                    let fit = _mm256_testz_si256(large, large);
                    *word |= (fit as u64) << g;
                    // Without branches, which no CPU could foresee.
                    let one = _mm256_set1_epi16(fit as i16);
                    fits.sums[0] = _mm256_add_epi32(fits.sums[0], _mm256_madd_epi16(low, one));
                    fits.sums[1] = _mm256_add_epi32(fits.sums[1], _mm256_madd_epi16(high, one));
                }
            }
            fits.count += word.count_ones() as usize;
        }
        // What few save, another loop costs.
        if fits.count < panel.len() / GROUP / LEAST_PART { Self::NONE } else { fits }
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

/// Four rows' activations of [`WORD`] groups: magnitudes, and as they are with signs.
type Apart = [[[MaybeUninit<u8>; WORD * KR_I8]; 2]; MR];

/// Writes `len` stored activations, a multiple of four, into a row.
///
/// # Safety
/// The CPU has AVX2; `x` points at `len` readable bytes, no more than the row has.
#[inline(always)]
unsafe fn take_apart(x: *const i8, len: usize, row: &mut [[MaybeUninit<u8>; WORD * KR_I8]; 2]) {
    // SAFETY: the caller's promise; each step lies within `len`.
    unsafe {
        let [magnitudes, signed] = row.each_mut().map(|row| row.as_mut_ptr());
        let whole = |at: usize| {
            let x = _mm256_loadu_si256(x.add(at).cast());
            let x = _mm256_xor_si256(x, _mm256_set1_epi8(Avx2::FLIP));
            _mm256_storeu_si256(magnitudes.add(at).cast(), _mm256_abs_epi8(x));
            _mm256_storeu_si256(signed.add(at).cast(), x);
        };
        let half = |at: usize| {
            let x = _mm_loadu_si128(x.add(at).cast());
            let x = _mm_xor_si128(x, _mm_set1_epi8(Avx2::FLIP));
            _mm_storeu_si128(magnitudes.add(at).cast(), _mm_abs_epi8(x));
            _mm_storeu_si128(signed.add(at).cast(), x);
        };
        // Last steps overlap those before.
        if len >= 32 {
            for at in (0..len - 31).step_by(32) {
                whole(at);
            }
            whole(len - 32);
        } else if len >= 16 {
            half(0);
            half(len - 16);
        } else {
            for at in (0..len).step_by(KR_I8) {
                let x = _mm_loadu_si32(x.add(at).cast());
                let x = _mm_xor_si128(x, _mm_set1_epi8(Avx2::FLIP));
                _mm_storeu_si32(magnitudes.add(at).cast(), _mm_abs_epi8(x));
                _mm_storeu_si32(signed.add(at).cast(), x);
            }
        }
    }
}

/// `sum + x·w` of a quad of products, those of eight outputs: sum, weights, where products go.
macro_rules! add {
    ($sum:literal, $magnitudes:literal, $weights:literal, $to:literal) => {
        concat!(
            "vpmaddubsw ",
            $to,
            ", ",
            $magnitudes,
            ", ",
            $weights,
            "\n",
            "vpmaddwd ",
            $to,
            ", ",
            $to,
            ", {one}\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", ",
            $to,
            "\n",
        )
    };
}

/// A group's row, stored activations at `$x`, whose pairs fit.
macro_rules! fitting {
    ($low:literal, $high:literal, $x:literal) => {
        concat!(
            "vpbroadcastd {x}, [",
            $x,
            " + 4 * {g}]\n",
            add!($low, "{x}", "{w0}", "{t}"),
            add!($high, "{x}", "{w1}", "{x}"),
        )
    };
}

/// A group's row, magnitudes and activations at `$m` and `$x` in `apart`.
macro_rules! signed {
    ($low:literal, $high:literal, $m:literal, $x:literal) => {
        concat!(
            "vpbroadcastd {m}, [{apart} + 4 * {g} + ",
            $m,
            "]\n",
            "vpbroadcastd {x}, [{apart} + 4 * {g} + ",
            $x,
            "]\n",
            "vpsignb {t}, {w0}, {x}\n",
            add!($low, "{m}", "{t}", "{t}"),
            "vpsignb {x}, {w1}, {x}\n",
            add!($high, "{m}", "{x}", "{x}"),
        )
    };
}

/// The next of the groups that bits stand for, and its weights.
macro_rules! next {
    ($bits:literal) => {
        concat!(
            "tzcnt {g}, ",
            $bits,
            "\n",
            "lea {at}, [",
            $bits,
            " - 1]\n",
            "and ",
            $bits,
            ", {at}\n",
            "mov {at}, {g}\n",
            "shl {at}, 6\n",
            "vmovdqu {w0}, [{w} + {at}]\n",
            "vmovdqu {w1}, [{w} + {at} + 32]\n",
        )
    };
}

/// Up to [`WORD`] groups of a panel and a tile's four rows.
struct Groups<'a> {
    /// Those whose pairs fit.
    fit: u64,
    /// The others.
    rest: u64,
    /// Activations as they are stored, of those that fit.
    x: [*const i8; MR],
    /// Activations of the others.
    apart: &'a Apart,
    /// Weights.
    w: *const i8,
}

impl Groups<'_> {
    /// Adds their products to a panel's sums.
    ///
    /// In assembly: compilers load all rows first, whereupon sums leave the registers.
    ///
    /// # Safety
    /// The CPU has AVX2; weights and activations of all groups that bits stand for are readable.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn add<const NP: usize>(&self, sums: &mut [[[__m256i; 2]; NP]; MR], p: usize) {
        const { assert!(size_of::<Apart>() == 2048) };
        let mut a = [sums[0][p], sums[1][p], sums[2][p], sums[3][p]];
        // SAFETY: reads the groups of the bits, by the caller's promise.
        unsafe {
            asm!(
                "test {fit}, {fit}",
                "jz 3f",
                "2:",
                next!("{fit}"),
                fitting!("{a0}", "{a1}", "{x0}"),
                fitting!("{a2}", "{a3}", "{x1}"),
                fitting!("{a4}", "{a5}", "{x2}"),
                fitting!("{a6}", "{a7}", "{x3}"),
                "test {fit}, {fit}",
                "jnz 2b",
                "3:",
                "test {rest}, {rest}",
                "jz 5f",
                "4:",
                next!("{rest}"),
                signed!("{a0}", "{a1}", "0", "256"),
                signed!("{a2}", "{a3}", "512", "768"),
                signed!("{a4}", "{a5}", "1024", "1280"),
                signed!("{a6}", "{a7}", "1536", "1792"),
                "test {rest}, {rest}",
                "jnz 4b",
                "5:",
                fit = inout(reg) self.fit => _,
                rest = inout(reg) self.rest => _,
                g = out(reg) _,
                at = out(reg) _,
                w = in(reg) self.w,
                x0 = in(reg) self.x[0],
                x1 = in(reg) self.x[1],
                x2 = in(reg) self.x[2],
                x3 = in(reg) self.x[3],
                apart = in(reg) self.apart,
                a0 = inout(ymm_reg) a[0][0],
                a1 = inout(ymm_reg) a[0][1],
                a2 = inout(ymm_reg) a[1][0],
                a3 = inout(ymm_reg) a[1][1],
                a4 = inout(ymm_reg) a[2][0],
                a5 = inout(ymm_reg) a[2][1],
                a6 = inout(ymm_reg) a[3][0],
                a7 = inout(ymm_reg) a[3][1],
                one = in(ymm_reg) _mm256_set1_epi16(1),
                w0 = out(ymm_reg) _,
                w1 = out(ymm_reg) _,
                x = out(ymm_reg) _,
                m = out(ymm_reg) _,
                t = out(ymm_reg) _,
                options(nostack, readonly),
            );
        }
        for m in 0..MR {
            sums[m][p] = a[m];
        }
    }
}

/// Some panels', for shifts of at least 32.
#[derive(Clone, Copy)]
struct Mixed<'a, const NP: usize> {
    isa: Avx2,
    /// From the first of the panels on.
    weights: &'a [i8],
    /// From the first of the panels on.
    params: &'a [i32],
    fits: &'a [Fits; NP],
}

impl<const PANELS: usize> Lanes<NR, i8, i8> for Mixed<'_, PANELS> {
    type Acc = [__m256i; 2];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        let panel = (params.as_ptr().addr() - self.params.as_ptr().addr()) / size_of_val(params);
        let sums = self.fits[panel].sums;
        let half = |i: usize| {
            let bias = load_half(params, ConvPlane::Bias as usize, i);
            // SAFETY: the token proves AVX2; registers only.
            unsafe { _mm256_sub_epi32(bias, _mm256_slli_epi32(sums[i], 7)) }
        };
        [half(0), half(1)]
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Scale {
        Fast::<false>(self.isa).scale(params, finish)
    }

    #[inline(always)]
    fn dot<const ROWS: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256i; 2]; NP]; ROWS],
        x: [&[i8]; ROWS],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        const { assert!(ROWS == MR && NP == PANELS) };
        let Some(acc) = acc.first_chunk_mut::<MR>() else { unreachable!() };
        let groups = rows.check(&x, &w, [KR_I8, NR]);
        // Of the panels, the first that is read.
        let first = (w[0].as_ptr().addr() - self.weights.as_ptr().addr()) / GROUP;
        let mut apart: Apart = [[[MaybeUninit::uninit(); WORD * KR_I8]; 2]; MR];
        for row in 0..rows.count {
            for start in (0..groups).step_by(WORD) {
                let (done, count) = (row * groups + start, (groups - start).min(WORD));
                let mut fit = [0; NP];
                let mut is_apart = false;
                for (fit, fits) in fit.iter_mut().zip(self.fits) {
                    *fit = fits.bits(first + done, count);
                    is_apart |= *fit != all(count);
                }
                let mut x_at = [x[0].as_ptr(); MR];
                // SAFETY: the token proves AVX2; rows and groups are in bounds, as just asserted,
                // and `apart` has room for as many.
                unsafe {
                    for m in 0..MR {
                        x_at[m] = x[m].as_ptr().add(row * rows.stride + start * KR_I8);
                        if is_apart {
                            take_apart(x_at[m], count * KR_I8, &mut apart[m]);
                        }
                    }
                    for p in 0..NP {
                        let rest = all(count) & !fit[p];
                        let w = w[p].as_ptr().add(done * GROUP);
                        Groups { fit: fit[p], rest, x: x_at, apart: &apart, w }.add(acc, p);
                    }
                }
            }
        }
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
        avx2_any::run(self.isa, conv, first_pixel, out);
    }

    fn peak(self, rounds: usize) -> u64 {
        Fast::<false>(self.isa).peak(rounds)
    }
}

/// Computes NP panels from `panel` on, for shifts of at least 32.
#[inline(always)]
pub(super) fn some<const NP: usize>(
    isa: Avx2,
    conv: &Conv<'_, i8, i8>,
    panel: usize,
    first: usize,
    out: &mut [i8],
) {
    let are_many = out.len() >= LEAST_PIXELS * usize::from(conv.output.c);
    let len = conv.filter.panel_len();
    let mut fits = [const { Fits::NONE }; NP];
    if are_many {
        let panels = conv.weights[panel * len..].chunks_exact(len);
        for (fits, panel) in fits.iter_mut().zip(panels) {
            *fits = Fits::of(isa, panel);
        }
    }
    let mixed = Mixed {
        isa,
        weights: &conv.weights[panel * len..],
        params: &conv.params[panel * (conv.params.len() / conv.filter.panels())..],
        fits: &fits,
    };
    // 8 accumulators, 2 weights, 2 of an activation, its products, 1 of 16 registers.
    conv.panels::<_, NR, MR, NP>(mixed, panel, first, out);
}
