//! AVX2, FMA and F16C: 16 output channels in two registers.
//!
//! VPMADDUBSW multiplies an unsigned by a signed byte and saturates sums of two products. Given
//! `|x|` and `w` with the sign of `x`, it never does: `2 · 128 · 127 < 2¹⁵`. So sums are exact,
//! at twice the products an instruction of widened numbers.

use super::has;
use crate::kernels::conv::Conv;
use crate::kernels::scalar::plane;
use crate::kernels::{Finish, Kernel, Lanes, peak};
use artifact::layout::{ConvPlane, KR_I8};
use core::arch::x86_64::*;

const NR: usize = 16;

/// AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2 {
    _proof: (),
}

impl Avx2 {
    /// `None` unless the CPU has them.
    pub(crate) fn new() -> Option<Self> {
        (has!("avx2") && has!("fma") && has!("f16c")).then_some(Self { _proof: () })
    }

    /// Runs a kernel compiled for these instructions.
    pub(crate) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx2")]
        fn enabled(kernel: impl Kernel) {
            kernel.eval();
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(kernel) }
    }
}

/// Eight i32 of plane `p`, the first or second half.
#[inline(always)]
fn load_half(params: &[i32], p: ConvPlane, half: usize) -> __m256i {
    let plane = &plane::<_, NR>(params, p as usize)[half * 8..][..8];
    // SAFETY: AVX2 is proven by the callers' token; `plane` holds 8 numbers.
    unsafe { _mm256_loadu_si256(plane.as_ptr().cast()) }
}

/// AVX2 has no arithmetic 64-bit shift: products are lifted by this, which every shift divides,
/// so that none is negative, shifted logically, and the lift is taken out again.
const LIFT: i64 = 1 << 62;

/// The requantization of four outputs, every second of eight: their products have 64 bits.
#[derive(Debug, Clone, Copy)]
struct Quad {
    multiplier: __m256i,
    shift: __m256i,
    /// `2^(shift−1)` and the lift.
    addend: __m256i,
    /// The lift after the shift.
    lift: __m256i,
}

impl Quad {
    /// From the low 32 bits of each 64-bit lane, and any high ones of `multiplier`.
    #[inline(always)]
    fn new(multiplier: __m256i, shift: __m256i) -> Self {
        // SAFETY: AVX2 is proven by the callers' token; registers only.
        unsafe {
            let one = _mm256_set1_epi64x(1);
            let lift = _mm256_set1_epi64x(LIFT);
            let half = _mm256_sllv_epi64(one, _mm256_sub_epi64(shift, one));
            Self {
                multiplier,
                shift,
                addend: _mm256_add_epi64(half, lift),
                lift: _mm256_srlv_epi64(lift, shift),
            }
        }
    }

    /// `(acc · multiplier + 2^(shift−1)) >> shift` of the low 32 bits of each 64-bit lane.
    #[inline(always)]
    fn apply(&self, acc: __m256i) -> __m256i {
        // SAFETY: AVX2 is proven by the callers' token; registers only.
        unsafe {
            let sum = _mm256_add_epi64(_mm256_mul_epi32(acc, self.multiplier), self.addend);
            _mm256_sub_epi64(_mm256_srlv_epi64(sum, self.shift), self.lift)
        }
    }
}

/// A panel's requantization, for each half of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    even: [Quad; 2],
    odd: [Quad; 2],
    /// Of the residual.
    factor: [__m256i; 2],
}

impl Lanes<NR, i8, i8> for Avx2 {
    type Acc = [__m256i; 2];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        [0, 1].map(|half| load_half(params, ConvPlane::Bias, half))
    }

    #[inline(always)]
    fn scale(self, params: &[i32]) -> Scale {
        let plane = |p| [0, 1].map(|half| load_half(params, p, half));
        let (multiplier, shift) = (plane(ConvPlane::Multiplier), plane(ConvPlane::Shift));
        // SAFETY: `self` proves AVX2; registers only.
        let (even, odd) = unsafe {
            let low = _mm256_set1_epi64x(0xffff_ffff);
            let high = |x| _mm256_srli_epi64(x, 32);
            let even = |i: usize| Quad::new(multiplier[i], _mm256_and_si256(shift[i], low));
            let odd = |i: usize| Quad::new(high(multiplier[i]), high(shift[i]));
            ([0, 1].map(even), [0, 1].map(odd))
        };
        Scale { even, odd, factor: plane(ConvPlane::Residual) }
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256i; 2]; NP]; MR],
        x: [&[i8]; MR],
        w: [&[i8]; NP],
    ) {
        let groups = x[0].len() / KR_I8;
        assert!(x.iter().all(|x| x.len() == groups * KR_I8));
        assert!(w.iter().all(|w| w.len() == groups * KR_I8 * NR));
        for g in 0..groups {
            for p in 0..NP {
                // SAFETY: `self` proves AVX2; group `g` of each slice is in bounds, as just
                // asserted, and the loads are unaligned.
                unsafe {
                    let ones = _mm256_set1_epi16(1);
                    let at = w[p].as_ptr().add(g * KR_I8 * NR);
                    let weights =
                        [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())];
                    for m in 0..MR {
                        let x = x[m].as_ptr().add(g * KR_I8).cast::<i32>().read_unaligned();
                        let x = _mm256_set1_epi32(x);
                        let magnitude = _mm256_abs_epi8(x);
                        for i in 0..2 {
                            let signed = _mm256_sign_epi8(weights[i], x);
                            let pairs = _mm256_maddubs_epi16(magnitude, signed);
                            let sums = _mm256_madd_epi16(pairs, ones);
                            acc[m][p][i] = _mm256_add_epi32(acc[m][p][i], sums);
                        }
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
        let mut out = [0; NR];
        let (low_bytes, high_bytes) = out.split_at_mut(8);
        for (half, out) in [low_bytes, high_bytes].into_iter().enumerate() {
            // SAFETY: `self` proves AVX2; `r` and `out` are 8 bytes long.
            unsafe {
                let mut acc = acc[half];
                if let Some(r) = residual {
                    let r = &r[half * 8..][..8];
                    let r = _mm256_cvtepi8_epi32(_mm_loadl_epi64(r.as_ptr().cast()));
                    let r = _mm256_sub_epi32(r, _mm256_set1_epi32(finish.residual_zero_point));
                    let rounding = _mm256_set1_epi32((1 << finish.residual_shift) >> 1);
                    let product =
                        _mm256_add_epi32(_mm256_mullo_epi32(r, scale.factor[half]), rounding);
                    let count = _mm_cvtsi32_si128(finish.residual_shift as i32);
                    acc = _mm256_add_epi32(acc, _mm256_sra_epi32(product, count));
                }
                let even = scale.even[half].apply(acc);
                let odd = scale.odd[half].apply(_mm256_srli_epi64(acc, 32));
                let y = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0b1010_1010);
                let y = _mm256_add_epi32(y, _mm256_set1_epi32(finish.zero_point));
                let y = _mm256_max_epi32(y, _mm256_set1_epi32(finish.low));
                let y = _mm256_min_epi32(y, _mm256_set1_epi32(127));
                // In range, so the saturating packs only narrow.
                let y = _mm_packs_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
                _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packs_epi16(y, y));
            }
        }
        out
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Avx2, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
                // 8 accumulators, 2 weights, 3 of an activation and its products of 16 registers.
                conv.panels::<_, NR, 4, 1>(isa, panel, first, out);
            }
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "avx2")]
        fn enabled(isa: Avx2, rounds: usize) -> u64 {
            peak::<_, i8, i8, NR, 4, 1>(isa, rounds)
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, rounds) }
    }
}

/// A stored weight that AVX2 loads as 8 f32.
trait Load8: bytemuck::Pod + Sync {
    /// Eight weights.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C; `from` points at 8 readable weights, aligned or not.
    unsafe fn load(from: *const Self) -> __m256;
}

impl Load8 for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }
}

impl Load8 for u16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl<W: Load8> Lanes<NR, f32, W> for Avx2 {
    type Acc = [__m256; 2];
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> [__m256; 2] {
        core::array::from_fn(|i| {
            let bias = &plane::<_, NR>(params, 0)[i * 8..][..8];
            // SAFETY: `self` proves AVX2; `bias` holds 8 numbers.
            unsafe { _mm256_loadu_ps(bias.as_ptr()) }
        })
    }

    #[inline(always)]
    fn scale(self, _: &[f32]) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256; 2]; NP]; MR],
        x: [&[f32]; MR],
        w: [&[W]; NP],
    ) {
        let depth = x[0].len();
        assert!(x.iter().all(|x| x.len() == depth));
        assert!(w.iter().all(|w| w.len() == depth * NR));
        for c in 0..depth {
            for p in 0..NP {
                // SAFETY: `self` proves AVX2, FMA and F16C; channel `c` of each slice is in
                // bounds, as just asserted.
                unsafe {
                    let at = w[p].as_ptr().add(c * NR);
                    let weights = [W::load(at), W::load(at.add(8))];
                    for m in 0..MR {
                        let x = _mm256_set1_ps(*x[m].get_unchecked(c));
                        for i in 0..2 {
                            acc[m][p][i] = _mm256_fmadd_ps(x, weights[i], acc[m][p][i]);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [__m256; 2],
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        let mut out = [0.0; NR];
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            // SAFETY: `self` proves AVX2; the residual's half and `out` hold 8 numbers.
            unsafe {
                let mut y = acc[i];
                if let Some(r) = residual {
                    y = _mm256_add_ps(y, _mm256_loadu_ps(r[i * 8..][..8].as_ptr()));
                }
                if finish.relu {
                    y = _mm256_max_ps(y, _mm256_setzero_ps());
                }
                _mm256_storeu_ps(out.as_mut_ptr(), y);
            }
        }
        out
    }

    fn conv(self, conv: &Conv<'_, f32, W>, first_pixel: usize, out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled<W: Load8>(isa: Avx2, conv: &Conv<'_, f32, W>, first: usize, out: &mut [f32]) {
            for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
                // 12 accumulators, 2 weights, 1 activation of 16 registers.
                conv.panels::<_, NR, 6, 1>(isa, panel, first, out);
            }
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled<W: Load8>(isa: Avx2, rounds: usize) -> u64 {
            peak::<_, f32, W, NR, 6, 1>(isa, rounds)
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled::<W>(self, rounds) }
    }
}
