//! WebAssembly's 128-bit vectors, for browsers: int8 in eight registers of two outputs.
//!
//! `i32x4.dot_i16x8_s` multiplies 16-bit numbers and adds neighbours, so weights and activations
//! are widened as they are loaded; a group of KR = 4 inputs leaves two sums an output, which are
//! added at the end. Requantization and floats are plain Rust, which compilers turn into vectors.

#![expect(clippy::needless_range_loop, reason = "indices keep accumulators in registers")]

use super::conv::Conv;
use super::depthwise::{Channels, Lines};
use super::scalar::{PlainFloats, Scalar, plane};
use super::{Finish, Kernel, Lanes, Rows, peak};
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_I8};
use core::arch::wasm32::*;

const NR: usize = 16;
/// Registers of two outputs' two sums.
const PAIRS: usize = NR / 2;
/// Registers that are summed at once: with two pixels, as many as a CPU with 16 registers holds.
const AT_ONCE: usize = 4;

/// simd128; the module is compiled only where the target has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Simd128;

impl Simd128 {
    /// Runs a kernel: the instructions are the baseline.
    pub(crate) fn run(self, kernel: impl Kernel) {
        kernel.eval();
    }
}

impl Lanes<NR, i8, i8> for Simd128 {
    /// Two sums of each output, side by side.
    type Acc = [v128; PAIRS];
    type Scale = <Scalar as Lanes<NR, i8, i8>>::Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [v128; PAIRS] {
        let bias = plane::<_, NR>(params, ConvPlane::Bias as usize);
        core::array::from_fn(|i| i32x4(bias[2 * i], 0, bias[2 * i + 1], 0))
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Self::Scale {
        Lanes::<NR, i8, i8>::scale(Scalar, params, finish)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[v128; PAIRS]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        let groups = rows.check(&x, &w, [KR_I8, NR]);
        for p in 0..NP {
            for part in (0..PAIRS).step_by(AT_ONCE) {
                let mut sums = [[i32x4_splat(0); AT_ONCE]; MR];
                for m in 0..MR {
                    sums[m].copy_from_slice(&acc[m][p][part..][..AT_ONCE]);
                }
                let (mut x_at, mut w_at) = (0, part * 2 * KR_I8);
                for _ in 0..rows.count {
                    for g in 0..groups {
                        // SAFETY: row and group are in bounds, as just checked; loads need no
                        // alignment.
                        unsafe {
                            let mut inputs = [i32x4_splat(0); MR];
                            for m in 0..MR {
                                let at = x[m].as_ptr().add(x_at + g * KR_I8).cast();
                                inputs[m] = i16x8_extend_low_i8x16(v128_load32_splat(at));
                            }
                            for i in 0..AT_ONCE {
                                let at = w[p].as_ptr().add(w_at + (g * NR + 2 * i) * KR_I8);
                                let weights = i16x8_load_extend_i8x8(at);
                                for m in 0..MR {
                                    let products = i32x4_dot_i16x8(inputs[m], weights);
                                    sums[m][i] = i32x4_add(sums[m][i], products);
                                }
                            }
                        }
                    }
                    x_at += rows.stride;
                    w_at += rows.len * NR;
                }
                for m in 0..MR {
                    acc[m][p][part..][..AT_ONCE].copy_from_slice(&sums[m]);
                }
            }
        }
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [v128; PAIRS],
        scale: &Self::Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        let mut sums = [0; NR];
        for i in 0..PAIRS {
            let sum = i32x4_add(acc[i], i32x4_shuffle::<1, 0, 3, 2>(acc[i], acc[i]));
            sums[2 * i] = i32x4_extract_lane::<0>(sum);
            sums[2 * i + 1] = i32x4_extract_lane::<2>(sum);
        }
        Lanes::<NR, i8, i8>::finish(Scalar, sums, scale, finish, residual)
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            // 8 accumulators, 2 activations, a weight and a product of 16 registers.
            conv.panels::<_, NR, 2, 1>(self, panel, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, i8, i8, NR, 2, 1>(self, rounds)
    }
}

impl Channels<NR, i8> for Simd128 {
    const ROWS: usize = DEPTHWISE_ROWS;
    /// Four rows of each channel side by side, in 16 bits, two channels a register.
    type Column = [v128; PAIRS];
    type Weights = [v128; PAIRS];

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> [v128; PAIRS] {
        let at = lines.check::<_, NR>(x, at);
        // SAFETY: 16 bytes of each line are in bounds, as just checked; loads need no alignment.
        let [a, b, c, d] = at.map(|at| unsafe { v128_load(x.as_ptr().add(at).cast()) });
        let low =
            |x, y| i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(x, y);
        let high = |x, y| {
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(x, y)
        };
        let mut column = [a; PAIRS];
        for (i, (ab, cd)) in
            [(low(a, b), low(c, d)), (high(a, b), high(c, d))].into_iter().enumerate()
        {
            let quads = [
                i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(ab, cd),
                i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(ab, cd),
            ];
            for (j, quad) in quads.into_iter().enumerate() {
                column[4 * i + 2 * j] = i16x8_extend_low_i8x16(quad);
                column[4 * i + 2 * j + 1] = i16x8_extend_high_i8x16(quad);
            }
        }
        column
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> [v128; PAIRS] {
        let (pairs, _) = w.as_chunks::<8>();
        // SAFETY: a pair of channels has 8 bytes; loads need no alignment.
        core::array::from_fn(|i| unsafe { i16x8_load_extend_i8x8(pairs[i].as_ptr()) })
    }

    #[inline(always)]
    fn accumulate(
        self,
        mut acc: [v128; PAIRS],
        x: [v128; PAIRS],
        w: [v128; PAIRS],
    ) -> [v128; PAIRS] {
        for i in 0..PAIRS {
            acc[i] = i32x4_add(acc[i], i32x4_dot_i16x8(x[i], w[i]));
        }
        acc
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        conv.channels::<_, NR, 1>(self, first_row, out);
    }
}

impl PlainFloats for Simd128 {}
