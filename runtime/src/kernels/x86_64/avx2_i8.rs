//! Int8 with AVX2: 16 output channels in two registers.
//!
//! VPMADDUBSW multiplies unsigned activations, as which they are stored, with signed weights and
//! saturates sums of two products. They are exact where no pair of weights is too large for that
//! ([`artifact::layout::pairs_fit`]), which `convert` sees to: [`Fast`]. Any other weights go by
//! [`super::avx2_any`]. Where shifts are less than 32, which networks have none of, activations are
//! multiplied as `|x|` and weights as `w` with the sign of `x`, for `2 · 128 · 127 < 2¹⁵`, and
//! sums are requantized one by one.
//!
//! AVX-VNNI's VPDPBUSD does all three steps of [`Fast`]'s products at once, without saturation.

use super::avx2::Avx2;
use super::avx2_any;
use crate::kernels::conv::Conv;
use crate::kernels::depthwise::{Channels, Lines};
use crate::kernels::scalar::{Scalar, plane};
use crate::kernels::{Finish, Lanes, Rows, is_scaled, peak};
use artifact::Dtype;
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_I8, SCALE_PLANES, ScalePlane, conv_planes};
use core::arch::asm;
use core::arch::x86_64::*;

const NR: usize = 16;

/// Eight i32 of plane `p`, the first or second half.
#[inline(always)]
pub(super) fn load_half(params: &[i32], p: usize, half: usize) -> __m256i {
    let plane = &plane::<_, NR>(params, p)[half * 8..][..8];
    // SAFETY: AVX2 is proven by the callers' token; `plane` holds 8 numbers.
    unsafe { _mm256_loadu_si256(plane.as_ptr().cast()) }
}

/// Whether the shifts of all of so many outputs are at least 32, as those of networks are, or there are
/// none.
pub(crate) fn all_shifts_are_large(params: &[i32], outputs: u16) -> bool {
    if params.len() == SCALE_PLANES * usize::from(outputs).next_multiple_of(NR) {
        return true;
    }
    let panels = params.chunks_exact(conv_planes(Dtype::I8, NR) * NR);
    let shifts = panels.flat_map(|panel| plane::<_, NR>(panel, ConvPlane::Shift as usize));
    shifts.take(outputs.into()).all(|shift| *shift >= 32)
}

type AnyScale = <Scalar as Lanes<NR, i8, i8>>::Scale;

/// How quads of products are added to eight sums.
pub(super) trait Quads {
    /// `sum + Σ x·w` of activations as they are stored.
    ///
    /// # Safety
    /// The CPU has AVX2, and AVX-VNNI for [`Dots`].
    unsafe fn add(sum: __m256i, stored: __m256i, weights: __m256i) -> __m256i;

    /// Four activations, eight times.
    ///
    /// # Safety
    /// The CPU has AVX2; `at` points at four readable bytes.
    #[inline(always)]
    unsafe fn load(at: *const i8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }
}

/// Of weights whose pairs fit.
pub(super) struct Pairs;

/// Of any weights, and activations with their signs.
pub(super) struct Magnitudes;

/// Of any weights, with AVX-VNNI.
struct Dots;

impl Quads for Pairs {
    #[inline(always)]
    unsafe fn add(sum: __m256i, stored: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the caller's promise; registers only.
        unsafe {
            let pairs = _mm256_maddubs_epi16(stored, weights);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

impl Quads for Magnitudes {
    #[inline(always)]
    unsafe fn add(sum: __m256i, stored: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the caller's promise; registers only.
        unsafe {
            let x = _mm256_xor_si256(stored, _mm256_set1_epi8(Avx2::FLIP));
            Pairs::add(sum, _mm256_abs_epi8(x), _mm256_sign_epi8(weights, x))
        }
    }

    #[inline(always)]
    unsafe fn load(at: *const i8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { broadcast(at) }
    }
}

impl Quads for Dots {
    #[inline(always)]
    unsafe fn add(sum: __m256i, stored: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the caller's promise; registers only.
        unsafe { _mm256_dpbusd_avx_epi32(sum, stored, weights) }
    }
}

/// [`Quads::load`] that stays one instruction, where compilers change signs first.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn broadcast(at: *const i8) -> __m256i {
    let quads;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vpbroadcastd {quads}, [{at}]",
            at = in(reg) at,
            quads = lateout(ymm_reg) quads,
            options(nostack, readonly, pure, preserves_flags),
        );
    }
    quads
}

/// [`Lanes::dot`].
#[inline(always)]
pub(super) fn add_products<Q: Quads, const MR: usize, const NP: usize>(
    _: Avx2,
    acc: &mut [[[__m256i; 2]; NP]; MR],
    x: [&[i8]; MR],
    rows: Rows,
    w: [&[i8]; NP],
) {
    let groups = rows.check(&x, &w, [KR_I8, NR]);
    // A copy, which stays in registers through both loops.
    let mut sums = *acc;
    let (mut x_at, mut w_at) = (0, 0);
    for _ in 0..rows.count {
        for g in 0..groups {
            for p in 0..NP {
                // SAFETY: the token proves AVX2, and AVX-VNNI where the caller takes dots; row and
                // group are in bounds, as just asserted, and the loads are unaligned.
                unsafe {
                    let at = w[p].as_ptr().add(w_at + g * KR_I8 * NR);
                    let weights =
                        [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())];
                    for m in 0..MR {
                        let stored = Q::load(x[m].as_ptr().add(x_at + g * KR_I8));
                        for i in 0..2 {
                            sums[m][p][i] = Q::add(sums[m][p][i], stored, weights[i]);
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

impl Lanes<NR, i8, i8> for Avx2 {
    type Acc = [__m256i; 2];
    type Scale = AnyScale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        [0, 1].map(|half| load_half(params, ConvPlane::Bias as usize, half))
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> AnyScale {
        Lanes::<NR, i8, i8>::scale(Scalar, params, finish)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256i; 2]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        add_products::<Magnitudes, MR, NP>(self, acc, x, rows, w);
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [__m256i; 2],
        scale: &AnyScale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        // SAFETY: a vector is eight i32 of any value.
        let acc = unsafe { core::mem::transmute::<[__m256i; 2], [i32; NR]>(acc) };
        let flip = |from: &[i8; NR]| from.map(|x| x ^ Self::FLIP);
        let residual = residual.map(flip);
        flip(&Lanes::<NR, i8, i8>::finish(Scalar, acc, scale, finish, residual.as_ref()))
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Avx2, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            if all_shifts_are_large(conv.params, conv.output.c) {
                if isa.has_vnni() {
                    return Lanes::conv(Fast::<true>(isa), conv, first, out);
                }
                if conv.pairs_fit {
                    return Lanes::conv(Fast::<false>(isa), conv, first, out);
                }
                return avx2_any::run(isa, conv, first, out);
            }
            for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
                // 8 accumulators, 2 weights, 3 of an activation and its products of 16 registers.
                conv.panels::<_, NR, 4, 1>(isa, panel, first, out);
            }
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        if self.has_vnni() {
            return Lanes::peak(Fast::<true>(self), rounds);
        }
        Lanes::peak(Fast::<false>(self), rounds)
    }
}

/// For shifts of at least 32, and weights that never let VPMADDUBSW saturate unless with VNNI,
/// where the token has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fast<const VNNI: bool>(pub(super) Avx2);

/// A panel's requantization, for each half of it.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "a heap there is not, and they live for a panel")]
pub(crate) enum Scale {
    /// With integers.
    Fixed(Fixed),
    /// See [`artifact::scale`].
    Float([__m256; 2]),
}

/// A panel's requantization with integers, for each half of it.
///
/// Products have 64 bits, so even and odd outputs are multiplied apart. Their upper halves are
/// shifted by what a shift exceeds 32, for AVX2 has no arithmetic 64-bit shift.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed {
    /// Of the even and of the odd outputs, whose lanes are shifted down.
    multiplier: [[__m256i; 2]; 2],
    /// `2^(shift−1)` of the even and of the odd outputs.
    rounding: [[__m256i; 2]; 2],
    /// Less 32.
    shift: [__m256i; 2],
    /// Of the residual.
    factor: [__m256i; 2],
    /// What the residual's zero point (as it is stored) and rounding add to its product.
    addend: [__m256i; 2],
}

impl Fixed {
    /// Sums and residual in steps of the output, from its zero point.
    #[inline(always)]
    fn steps(
        &self,
        acc: [__m256i; 2],
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [__m256i; 2] {
        let mut acc = acc;
        // SAFETY: who made this proved AVX2; the residual is 16 bytes long.
        unsafe {
            if let Some(r) = residual {
                let count = _mm_cvtsi32_si128(finish.residual_shift as i32);
                let r = stored_steps(r);
                for i in 0..2 {
                    let r = _mm256_mullo_epi32(r[i], self.factor[i]);
                    let r = _mm256_add_epi32(r, self.addend[i]);
                    acc[i] = _mm256_add_epi32(acc[i], _mm256_sra_epi32(r, count));
                }
            }
            let mut y = acc;
            for i in 0..2 {
                let even = _mm256_mul_epi32(acc[i], self.multiplier[0][i]);
                let even = _mm256_add_epi64(even, self.rounding[0][i]);
                let odd = _mm256_mul_epi32(_mm256_srli_epi64(acc[i], 32), self.multiplier[1][i]);
                let odd = _mm256_add_epi64(odd, self.rounding[1][i]);
                let high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0b1010_1010);
                y[i] = _mm256_srav_epi32(high, self.shift[i]);
            }
            y
        }
    }
}

/// Sixteen stored activations in 32 bits: unsigned, as they are stored.
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn stored_steps(r: &[i8; NR]) -> [__m256i; 2] {
    // SAFETY: there are sixteen bytes.
    let halves =
        unsafe { [_mm_loadl_epi64(r.as_ptr().cast()), _mm_loadl_epi64(r.as_ptr().add(8).cast())] };
    [_mm256_cvtepu8_epi32(halves[0]), _mm256_cvtepu8_epi32(halves[1])]
}

/// Sums and residual in steps of the output, from its zero point: see [`artifact::scale`].
#[inline(always)]
fn steps(
    _: Avx2,
    acc: [__m256i; 2],
    scale: &[__m256; 2],
    finish: &Finish,
    residual: Option<&[i8; NR]>,
) -> [__m256i; 2] {
    // SAFETY: the token proves AVX2.
    unsafe {
        let mut y = *scale;
        for i in 0..2 {
            y[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[i]), scale[i]);
        }
        if let Some(r) = residual {
            let r = stored_steps(r);
            let zero = _mm256_set1_epi32(finish.residual_zero_point - i32::from(Avx2::FLIP));
            let ratio = _mm256_set1_ps(finish.residual_ratio);
            for i in 0..2 {
                if let Some(rounded) = finish.rounded {
                    y[i] = _mm256_max_ps(y[i], _mm256_set1_ps(rounded.low));
                    y[i] = _mm256_min_ps(y[i], _mm256_set1_ps(rounded.high));
                    y[i] = _mm256_round_ps::<_MM_FROUND_TO_NEAREST_INT>(y[i]);
                    y[i] = _mm256_mul_ps(y[i], _mm256_set1_ps(rounded.ratio));
                }
                let r = _mm256_cvtepi32_ps(_mm256_sub_epi32(r[i], zero));
                y[i] = _mm256_add_ps(y[i], _mm256_mul_ps(r, ratio));
            }
        }
        [_mm256_cvtps_epi32(y[0]), _mm256_cvtps_epi32(y[1])]
    }
}

impl<const VNNI: bool> Lanes<NR, i8, i8> for Fast<VNNI> {
    type Acc = [__m256i; 2];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        let sum = if is_scaled::<NR>(params) {
            ScalePlane::WeightSum as usize
        } else {
            ConvPlane::WeightSum as usize
        };
        let half = |i| {
            let bias = load_half(params, ConvPlane::Bias as usize, i);
            let sum = load_half(params, sum, i);
            // SAFETY: the token proves AVX2; registers only.
            unsafe { _mm256_sub_epi32(bias, _mm256_slli_epi32(sum, 7)) }
        };
        [half(0), half(1)]
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Scale {
        let load = |p| [load_half(params, p as usize, 0), load_half(params, p as usize, 1)];
        if is_scaled::<NR>(params) {
            let scale = ScalePlane::Scale as usize;
            // SAFETY: the token proves AVX2; registers only.
            return Scale::Float(
                [0, 1].map(|i| unsafe { _mm256_castsi256_ps(load_half(params, scale, i)) }),
            );
        }
        let (multiplier, shift) = (load(ConvPlane::Multiplier), load(ConvPlane::Shift));
        let factor = load(ConvPlane::Residual);
        let mut scale = Fixed {
            multiplier: [multiplier; 2],
            rounding: [shift; 2],
            shift,
            factor,
            addend: factor,
        };
        for i in 0..2 {
            // SAFETY: the token proves AVX2; registers only.
            unsafe {
                let one = _mm256_set1_epi64x(1);
                let even = _mm256_and_si256(shift[i], _mm256_set1_epi64x(0xffff_ffff));
                let odd = _mm256_srli_epi64(shift[i], 32);
                scale.multiplier[1][i] = _mm256_srli_epi64(multiplier[i], 32);
                scale.rounding[0][i] = _mm256_sllv_epi64(one, _mm256_sub_epi64(even, one));
                scale.rounding[1][i] = _mm256_sllv_epi64(one, _mm256_sub_epi64(odd, one));
                scale.shift[i] = _mm256_sub_epi32(shift[i], _mm256_set1_epi32(32));
                let stored = finish.residual_zero_point - i32::from(Avx2::FLIP);
                let zero = _mm256_mullo_epi32(factor[i], _mm256_set1_epi32(stored));
                let rounding = _mm256_set1_epi32((1 << finish.residual_shift) >> 1);
                scale.addend[i] = _mm256_sub_epi32(rounding, zero);
            }
        }
        Scale::Fixed(scale)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256i; 2]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        if VNNI {
            return add_products::<Dots, MR, NP>(self.0, acc, x, rows, w);
        }
        add_products::<Pairs, MR, NP>(self.0, acc, x, rows, w);
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [__m256i; 2],
        scale: &Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        let y = match scale {
            Scale::Fixed(scale) => scale.steps(acc, finish, residual),
            Scale::Float(scale) => steps(self.0, acc, scale, finish, residual),
        };
        let mut out = [0; NR];
        // SAFETY: the token proves AVX2; `out` is 16 bytes long.
        unsafe {
            // Packs saturate, which is the clamp at both ends, and leave the halves interleaved by
            // 128 bits. A number that 16 bits cannot hold is clamped whatever the zero point.
            let zero_point = finish.zero_point - i32::from(Avx2::FLIP);
            let low = finish.low - i32::from(Avx2::FLIP);
            let y = _mm256_packs_epi32(y[0], y[1]);
            let y = _mm256_adds_epi16(y, _mm256_set1_epi16(zero_point as i16));
            let y = _mm256_packus_epi16(y, y);
            let y = _mm_unpacklo_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
            let y = _mm_max_epu8(y, _mm_set1_epi8(low as i8));
            _mm_storeu_si128(out.as_mut_ptr().cast(), y);
        }
        out
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Fast<false>, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
                conv.panels::<_, NR, 4, 1>(isa, panel, first, out);
            }
        }
        #[target_feature(enable = "avx2,avxvnni")]
        fn vnni(isa: Fast<true>, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
                // 12 accumulators, 2 weights, 1 activation of 16 registers.
                conv.panels::<_, NR, 6, 1>(isa, panel, first, out);
            }
        }
        // SAFETY: the token proves the features.
        unsafe {
            if VNNI && self.0.has_vnni() {
                return vnni(Fast(self.0), conv, first_pixel, out);
            }
            enabled(Fast(self.0), conv, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Fast<false>, rounds: usize) -> u64 {
            peak::<_, i8, i8, NR, 4, 1>(isa, rounds)
        }
        #[target_feature(enable = "avx2,avxvnni")]
        fn vnni(isa: Fast<true>, rounds: usize) -> u64 {
            peak::<_, i8, i8, NR, 6, 1>(isa, rounds)
        }
        // SAFETY: the token proves the features.
        unsafe {
            if VNNI && self.0.has_vnni() {
                return vnni(Fast(self.0), rounds);
            }
            enabled(Fast(self.0), rounds)
        }
    }
}

/// Two pairs of rows in numbers of 16 bits, eight channels a register.
type RowPairs = [[__m256i; 2]; 2];

/// Four lines of bytes as numbers of 16 bits: as they are stored, or with their signs.
#[inline(always)]
fn row_pairs<const SIGNED: bool>(_: Avx2, x: &[i8], at: usize, lines: Lines) -> RowPairs {
    let at = lines.check::<_, NR>(x, at);
    // SAFETY: the token proves AVX2; 16 bytes of each line are in bounds, as just checked.
    unsafe {
        let mut pairs = [[_mm256_setzero_si256(); 2]; 2];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let mut first = _mm_loadu_si128(x.as_ptr().add(at[2 * i]).cast());
            let mut second = _mm_loadu_si128(x.as_ptr().add(at[2 * i + 1]).cast());
            if SIGNED {
                first = _mm_xor_si128(first, _mm_set1_epi8(Avx2::FLIP));
                second = _mm_xor_si128(second, _mm_set1_epi8(Avx2::FLIP));
            }
            let (low, high) = (_mm_unpacklo_epi8(first, second), _mm_unpackhi_epi8(first, second));
            *pair = match SIGNED {
                true => [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)],
                false => [_mm256_cvtepu8_epi16(low), _mm256_cvtepu8_epi16(high)],
            };
        }
        pairs
    }
}

/// Weights of four rows in the same order.
#[inline(always)]
fn weight_pairs(_: Avx2, w: &[i8]) -> RowPairs {
    let (halves, _) = w.as_chunks::<32>();
    // SAFETY: the token proves AVX2; a half is 32 bytes long.
    unsafe {
        let order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
        let mut pairs = [[_mm256_setzero_si256(); 2]; 2];
        for i in 0..2 {
            let half = _mm256_loadu_si256(halves[i].as_ptr().cast());
            let half = _mm256_shuffle_epi8(half, _mm256_broadcastsi128_si256(order));
            let half = _mm256_permute4x64_epi64(half, 0b11_01_10_00);
            pairs[0][i] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(half));
            pairs[1][i] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(half, 1));
        }
        pairs
    }
}

/// `acc + Σ x · w`, pair by pair.
#[inline(always)]
fn add_pairs(_: Avx2, mut acc: [__m256i; 2], x: RowPairs, w: RowPairs) -> [__m256i; 2] {
    for pair in 0..2 {
        for i in 0..2 {
            // SAFETY: the token proves AVX2; registers only.
            unsafe {
                acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(x[pair][i], w[pair][i]));
            }
        }
    }
    acc
}

impl Channels<NR, i8> for Avx2 {
    const ROWS: usize = DEPTHWISE_ROWS;
    // Shifts below 32 are rare, and of files in fixed point.
    const UNROLLS: bool = false;
    type Column = RowPairs;
    type Weights = RowPairs;

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> RowPairs {
        row_pairs::<true>(self, x, at, lines)
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> RowPairs {
        weight_pairs(self, w)
    }

    #[inline(always)]
    fn accumulate(self, acc: [__m256i; 2], x: RowPairs, w: RowPairs) -> [__m256i; 2] {
        add_pairs(self, acc, x, w)
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Avx2, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            if all_shifts_are_large(conv.params, conv.output.c) {
                if isa.has_vnni() {
                    return Fast::<true>(isa).depthwise(conv, first, out);
                }
                return Fast::<false>(isa).depthwise(conv, first, out);
            }
            conv.channels::<_, NR, 2>(isa, first, out);
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, conv, first_row, out) }
    }
}

impl<const VNNI: bool> Channels<NR, i8> for Fast<VNNI> {
    const ROWS: usize = DEPTHWISE_ROWS;
    type Column = RowPairs;
    type Weights = RowPairs;

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> RowPairs {
        row_pairs::<false>(self.0, x, at, lines)
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> RowPairs {
        weight_pairs(self.0, w)
    }

    #[inline(always)]
    fn accumulate(self, mut acc: [__m256i; 2], x: RowPairs, w: RowPairs) -> [__m256i; 2] {
        if !VNNI {
            return add_pairs(self.0, acc, x, w);
        }
        for pair in 0..2 {
            for i in 0..2 {
                // SAFETY: the token proves AVX-VNNI where VNNI is set; registers only.
                acc[i] = unsafe { _mm256_dpwssd_avx_epi32(acc[i], x[pair][i], w[pair][i]) };
            }
        }
        acc
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Fast<false>, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            conv.channels::<_, NR, 4>(isa, first, out);
        }
        #[target_feature(enable = "avx2,avxvnni")]
        fn vnni(isa: Fast<true>, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            conv.channels::<_, NR, 4>(isa, first, out);
        }
        // SAFETY: the token proves the features.
        unsafe {
            if VNNI && self.0.has_vnni() {
                return vnni(Fast(self.0), conv, first_row, out);
            }
            enabled(Fast(self.0), conv, first_row, out);
        }
    }
}
