//! Int8 with AVX2 and any weights, in 16 bits: windows that are not large.
//!
//! Of a quad of products, `x₀w₀ + x₁w₁ = (x₀ + w₁)(x₁ + w₀) − x₀x₁ − w₀w₁`: half as many
//! multiplications, beside two terms that belong to a pixel and to an output alone. VPADDW, VPMADDWD
//! and VPADDD take hardly longer so than VPMADDUBSW and what follows it. Weights are widened
//! once for all pixels, activations once for some panels.

use super::Avx2;
use super::avx2_any::{self, GROUP, MR, ZERO};
use super::avx2_i8::{Fast, Scale};
use crate::kernels::conv::Conv;
use crate::kernels::{Finish, Lanes, Rows};
use artifact::layout::KR_I8;
use core::arch::asm;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

const NR: usize = 16;
/// Most groups of a panel: four panels of them are 32 KiB, what the nearest cache holds.
pub(super) const GROUPS: usize = 64;

/// A group's weights: second and fourth ones of pairs, then first and third ones, halves of each.
type Group = MaybeUninit<[__m256i; 4]>;

/// A panel's weights.
struct Panel {
    groups: [Group; GROUPS],
    /// How many it has.
    count: usize,
    /// `Σ w₀w₁` of each output.
    products: [__m256i; 2],
}

impl Panel {
    /// Nothing of it.
    const EMPTY: Self =
        Self { groups: [MaybeUninit::uninit(); GROUPS], count: 0, products: [ZERO; 2] };

    /// Fills it from packed weights.
    #[inline(always)]
    fn fill(&mut self, _: Avx2, panel: &[i8]) {
        for (to, group) in self.groups.iter_mut().zip(panel.as_chunks::<GROUP>().0) {
            // SAFETY: the token proves AVX2; a group is two registers long.
            unsafe {
                let mut wide = [_mm256_setzero_si256(); 4];
                for i in 0..2 {
                    let w = _mm256_loadu_si256(group.as_ptr().add(32 * i).cast());
                    wide[i] = _mm256_srai_epi16(w, 8);
                    wide[2 + i] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
                    let products = _mm256_madd_epi16(wide[i], wide[2 + i]);
                    self.products[i] = _mm256_add_epi32(self.products[i], products);
                }
                to.write(wide);
                self.count += 1;
            }
        }
    }
}

/// Of four rows, activations that come first and third of four, and the others, in 16 bits.
type Apart = [[[MaybeUninit<u8>; GROUPS * KR_I8]; 2]; MR];

/// Writes `len` stored activations, a multiple of four, from `to` on into a row; returns `sum` with
/// the products of pairs.
///
/// # Safety
/// The CPU has AVX2; `x` points at `len` readable bytes, and the row is at least `to + len` long.
#[inline(always)]
unsafe fn take_apart(
    x: *const i8,
    len: usize,
    row: &mut [[MaybeUninit<u8>; GROUPS * KR_I8]; 2],
    to: usize,
    mut sum: __m256i,
) -> __m256i {
    // SAFETY: the caller's promise; each step ends at or before `len`.
    unsafe {
        let [first, second] = row.each_mut().map(|row| row.as_mut_ptr().add(to));
        let mut split = |x: __m256i| {
            let pair = [_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)];
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pair[0], pair[1]));
            pair
        };
        let mut at = 0;
        while at + 32 <= len {
            let pair = split(_mm256_loadu_si256(x.add(at).cast()));
            _mm256_storeu_si256(first.add(at).cast(), pair[0]);
            _mm256_storeu_si256(second.add(at).cast(), pair[1]);
            at += 32;
        }
        if at + 16 <= len {
            let pair = split(_mm256_zextsi128_si256(_mm_loadu_si128(x.add(at).cast())));
            let pair = pair.map(|x| _mm256_castsi256_si128(x));
            _mm_storeu_si128(first.add(at).cast(), pair[0]);
            _mm_storeu_si128(second.add(at).cast(), pair[1]);
            at += 16;
        }
        if at + 8 <= len {
            let pair = split(_mm256_zextsi128_si256(_mm_loadl_epi64(x.add(at).cast())));
            let pair = pair.map(|x| _mm256_castsi256_si128(x));
            _mm_storel_epi64(first.add(at).cast(), pair[0]);
            _mm_storel_epi64(second.add(at).cast(), pair[1]);
            at += 8;
        }
        if at < len {
            let pair = split(_mm256_zextsi128_si256(_mm_loadu_si32(x.add(at).cast())));
            let pair = pair.map(|x| _mm256_castsi256_si128(x));
            _mm_storeu_si32(first.add(at).cast(), pair[0]);
            _mm_storeu_si32(second.add(at).cast(), pair[1]);
        }
    }
    sum
}

/// What all eight lanes of each row's register sum up to, in all of them.
#[inline(always)]
fn sums_of(_: Avx2, rows: [__m256i; MR]) -> [__m256i; MR] {
    // SAFETY: the token proves AVX2; registers only.
    unsafe {
        let low = _mm256_hadd_epi32(rows[0], rows[1]);
        let high = _mm256_hadd_epi32(rows[2], rows[3]);
        let all = _mm256_hadd_epi32(low, high);
        let all = _mm256_add_epi32(all, _mm256_permute2x128_si256(all, all, 1));
        [
            _mm256_shuffle_epi32(all, 0b00_00_00_00),
            _mm256_shuffle_epi32(all, 0b01_01_01_01),
            _mm256_shuffle_epi32(all, 0b10_10_10_10),
            _mm256_shuffle_epi32(all, 0b11_11_11_11),
        ]
    }
}

/// Half of a row: sum, the weights that are added to the activations in `x0` and `x1`, and where
/// products go.
macro_rules! half {
    ($sum:literal, $second:literal, $first:literal, $to0:literal, $to1:literal) => {
        concat!(
            "vpaddw ",
            $to0,
            ", {x0}, ",
            $second,
            "\n",
            "vpaddw ",
            $to1,
            ", {x1}, ",
            $first,
            "\n",
            "vpmaddwd ",
            $to0,
            ", ",
            $to0,
            ", ",
            $to1,
            "\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", ",
            $to0,
            "\n",
        )
    };
}

/// A group's row, from `$row` on in `apart`.
macro_rules! row {
    ($low:literal, $high:literal, $row:literal) => {
        concat!(
            "vpbroadcastd {x0}, [{apart} + 4 * {g} + ",
            $row,
            "]\n",
            "vpbroadcastd {x1}, [{apart} + 4 * {g} + ",
            $row,
            " + {row}]\n",
            half!($low, "{w0}", "{w2}", "{t0}", "{t1}"),
            half!($high, "{w1}", "{w3}", "{x0}", "{x1}"),
        )
    };
}

/// Adds a panel's products with `count` groups of four rows, but for the terms of either alone.
///
/// In assembly, for it takes all registers.
///
/// # Safety
/// The CPU has AVX2; `w` points at `count` groups, which `apart` has, too.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn add<const NP: usize>(
    sums: &mut [[[__m256i; 2]; NP]; MR],
    p: usize,
    squares: &[__m256i; MR],
    apart: &Apart,
    w: *const Group,
    count: usize,
) {
    let mut a = [[_mm256_setzero_si256(); 2]; MR];
    for m in 0..MR {
        for i in 0..2 {
            a[m][i] = _mm256_sub_epi32(sums[m][p][i], squares[m]);
        }
    }
    // SAFETY: reads `count` groups, by the caller's promise.
    unsafe {
        asm!(
            "2:",
            "vmovdqu {w0}, [{w}]",
            "vmovdqu {w1}, [{w} + 32]",
            "vmovdqu {w2}, [{w} + 64]",
            "vmovdqu {w3}, [{w} + 96]",
            row!("{a0}", "{a1}", "0"),
            row!("{a2}", "{a3}", "2 * {row}"),
            row!("{a4}", "{a5}", "4 * {row}"),
            row!("{a6}", "{a7}", "6 * {row}"),
            "add {w}, 128",
            "inc {g}",
            "cmp {g}, {count}",
            "jb 2b",
            row = const GROUPS * KR_I8,
            g = inout(reg) 0usize => _,
            count = in(reg) count,
            w = inout(reg) w => _,
            apart = in(reg) apart,
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
            w2 = out(ymm_reg) _,
            w3 = out(ymm_reg) _,
            x0 = out(ymm_reg) _,
            x1 = out(ymm_reg) _,
            t0 = out(ymm_reg) _,
            t1 = out(ymm_reg) _,
            options(nostack, readonly),
        );
    }
    for m in 0..MR {
        sums[m][p] = a[m];
    }
}

/// Some panels', for shifts of at least 32.
#[derive(Clone, Copy)]
struct Widened<'a, const NP: usize> {
    isa: Avx2,
    /// From the first of the panels on.
    weights: &'a [i8],
    /// From the first of the panels on.
    params: &'a [i32],
    panels: &'a [Panel; NP],
}

impl<const PANELS: usize> Lanes<NR, i8, i8> for Widened<'_, PANELS> {
    type Acc = [__m256i; 2];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        let panel = (params.as_ptr().addr() - self.params.as_ptr().addr()) / size_of_val(params);
        let products = self.panels[panel].products;
        let bias = Fast::<false>(self.isa).start(params);
        // SAFETY: the token proves AVX2; registers only.
        [0, 1].map(|i: usize| unsafe { _mm256_sub_epi32(bias[i], products[i]) })
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
        let count = rows.count * groups;
        assert!(count > 0 && self.panels.iter().all(|panel| first + count <= panel.count));
        let mut apart: Apart = [[[MaybeUninit::uninit(); GROUPS * KR_I8]; 2]; MR];
        // SAFETY: the token proves AVX2; rows and groups are in bounds, as just asserted, and there
        // is room for as many.
        unsafe {
            let mut squares = [_mm256_setzero_si256(); MR];
            for row in 0..rows.count {
                for m in 0..MR {
                    let x = x[m].as_ptr().add(row * rows.stride);
                    let to = row * rows.len;
                    squares[m] = take_apart(x, rows.len, &mut apart[m], to, squares[m]);
                }
            }
            let squares = sums_of(self.isa, squares);
            for p in 0..NP {
                let w = self.panels[p].groups.as_ptr().add(first);
                add(acc, p, &squares, &apart, w, count);
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

/// Computes NP panels from `panel` on, of no more than [`GROUPS`] groups, for shifts of at least 32.
#[inline(always)]
pub(super) fn some<const NP: usize>(
    isa: Avx2,
    conv: &Conv<'_, i8, i8>,
    panel: usize,
    first: usize,
    out: &mut [i8],
) {
    let len = conv.filter.panel_len();
    let mut panels = [const { Panel::EMPTY }; NP];
    for (to, panel) in panels.iter_mut().zip(conv.weights[panel * len..].chunks_exact(len)) {
        to.fill(isa, panel);
    }
    let widened = Widened {
        isa,
        weights: &conv.weights[panel * len..],
        params: &conv.params[panel * (conv.params.len() / conv.filter.panels())..],
        panels: &panels,
    };
    conv.panels::<_, NR, MR, NP>(widened, panel, first, out);
}
