//! SSSE3, for CPUs without AVX2 such as Intel's small ones: int8 in four registers of 16 outputs.
//!
//! PMADDUBSW multiplies `|x|` with `w` that has the sign of `x`, so that its sums of two products
//! never saturate: `2 · 128 · 127 < 2¹⁵`. All else is as plain Rust does it.

use super::has;
use crate::kernels::conv::Conv;
use crate::kernels::depthwise::{Channels, Lines};
use crate::kernels::scalar::{PlainFloats, Scalar, plane};
use crate::kernels::{Finish, Kernel, Lanes, Rows, peak};
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_I8};
use core::arch::x86_64::*;

const NR: usize = 16;
/// Registers of sixteen 32-bit numbers.
const QUADS: usize = 4;

/// SSSE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ssse3 {
    _proof: (),
}

impl Ssse3 {
    /// `None` unless the CPU has it.
    pub(crate) fn new() -> Option<Self> {
        has!("ssse3").then_some(Self { _proof: () })
    }

    /// Runs a kernel compiled for these instructions.
    pub(crate) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "ssse3")]
        fn enabled(kernel: impl Kernel) {
            kernel.eval();
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(kernel) }
    }
}

impl Lanes<NR, i8, i8> for Ssse3 {
    type Acc = [__m128i; QUADS];
    type Scale = <Scalar as Lanes<NR, i8, i8>>::Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m128i; QUADS] {
        let bias = plane::<_, NR>(params, ConvPlane::Bias as usize).as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves SSSE3; the plane holds 16 numbers, aligned or not.
        unsafe {
            [
                _mm_loadu_si128(bias),
                _mm_loadu_si128(bias.add(1)),
                _mm_loadu_si128(bias.add(2)),
                _mm_loadu_si128(bias.add(3)),
            ]
        }
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Self::Scale {
        Lanes::<NR, i8, i8>::scale(Scalar, params, finish)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m128i; QUADS]; NP]; MR],
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
                    // SAFETY: `self` proves SSSE3; row and group are in bounds, as just asserted,
                    // and the loads are unaligned.
                    unsafe {
                        let ones = _mm_set1_epi16(1);
                        let at = w[p].as_ptr().add(w_at + g * KR_I8 * NR).cast::<__m128i>();
                        for m in 0..MR {
                            let x = x[m].as_ptr().add(x_at + g * KR_I8).cast::<i32>();
                            let x = _mm_set1_epi32(x.read_unaligned());
                            let magnitude = _mm_abs_epi8(x);
                            for (i, sum) in sums[m][p].iter_mut().enumerate() {
                                let signed = _mm_sign_epi8(_mm_loadu_si128(at.add(i)), x);
                                let pairs = _mm_maddubs_epi16(magnitude, signed);
                                let quads = _mm_madd_epi16(pairs, ones);
                                *sum = _mm_add_epi32(*sum, quads);
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
        acc: [__m128i; QUADS],
        scale: &Self::Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        // SAFETY: a vector is four i32 of any value.
        let acc = unsafe { core::mem::transmute::<[__m128i; QUADS], [i32; NR]>(acc) };
        Lanes::<NR, i8, i8>::finish(Scalar, acc, scale, finish, residual)
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        #[target_feature(enable = "ssse3")]
        fn enabled(isa: Ssse3, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
                // 8 accumulators, 2 of an activation, its products and the ones of 16 registers.
                conv.panels::<_, NR, 2, 1>(isa, panel, first, out);
            }
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "ssse3")]
        fn enabled(isa: Ssse3, rounds: usize) -> u64 {
            peak::<_, i8, i8, NR, 2, 1>(isa, rounds)
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, rounds) }
    }
}

/// Two pairs of rows, four channels a register.
type Pairs = [[__m128i; QUADS]; 2];

/// Bytes of eight channels' pairs as numbers of 16 bits, in two registers.
#[inline(always)]
fn widen(_: Ssse3, pairs: __m128i) -> [__m128i; 2] {
    // SAFETY: the token proves SSSE3; registers only.
    unsafe {
        [
            _mm_srai_epi16(_mm_unpacklo_epi8(pairs, pairs), 8),
            _mm_srai_epi16(_mm_unpackhi_epi8(pairs, pairs), 8),
        ]
    }
}

impl Channels<NR, i8> for Ssse3 {
    const ROWS: usize = DEPTHWISE_ROWS;
    type Column = Pairs;
    type Weights = Pairs;

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> Pairs {
        let at = lines.check::<_, NR>(x, at);
        // SAFETY: `self` proves SSSE3; 16 bytes of each line are in bounds, as just checked.
        let load = |r: usize| unsafe { _mm_loadu_si128(x.as_ptr().add(at[r]).cast()) };
        [0, 2].map(|r| {
            let (first, second) = (load(r), load(r + 1));
            // SAFETY: `self` proves SSSE3; registers only.
            let [low, high] =
                unsafe { [_mm_unpacklo_epi8(first, second), _mm_unpackhi_epi8(first, second)] };
            let ([a, b], [c, d]) = (widen(self, low), widen(self, high));
            [a, b, c, d]
        })
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> Pairs {
        let (quads, _) = w.as_chunks::<16>();
        // SAFETY: `self` proves SSSE3; registers only.
        let mut pairs = unsafe { [[_mm_setzero_si128(); QUADS]; 2] };
        for (i, quad) in quads.iter().enumerate().take(QUADS) {
            // SAFETY: `self` proves SSSE3; `quad` is 16 bytes long.
            let [first, second] = unsafe {
                let pairs = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
                widen(self, _mm_shuffle_epi8(_mm_loadu_si128(quad.as_ptr().cast()), pairs))
            };
            (pairs[0][i], pairs[1][i]) = (first, second);
        }
        pairs
    }

    #[inline(always)]
    fn accumulate(self, mut acc: [__m128i; QUADS], x: Pairs, w: Pairs) -> [__m128i; QUADS] {
        for pair in 0..2 {
            for i in 0..QUADS {
                // SAFETY: `self` proves SSSE3; registers only.
                acc[i] = unsafe { _mm_add_epi32(acc[i], _mm_madd_epi16(x[pair][i], w[pair][i])) };
            }
        }
        acc
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        #[target_feature(enable = "ssse3")]
        fn enabled(isa: Ssse3, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            conv.channels::<_, NR, 2>(isa, first, out);
        }
        // SAFETY: `self` proves the feature.
        unsafe { enabled(self, conv, first_row, out) }
    }
}

/// Plain Rust has SSE2 here.
impl PlainFloats for Ssse3 {}
