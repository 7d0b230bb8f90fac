//! AVX2, FMA and F16C: 16 output channels in two registers.
//!
//! Here f32; int8 is in [`super::avx2_i8`].

use super::has;
use crate::kernels::conv::Conv;
use crate::kernels::depthwise::{Channels, Lines};
use crate::kernels::scalar::{FloatWeight, plane};
use crate::kernels::winograd::{Block, Multiply, Products};
use crate::kernels::{Finish, Kernel, Lanes, Rows, peak};
use core::arch::x86_64::*;
use half::bf16;

const NR: usize = 16;

/// AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2 {
    /// AVX-VNNI, too.
    vnni: bool,
}

impl Avx2 {
    /// What stored int8 activations are XORed with: the instruction multiplies unsigned ones.
    pub(crate) const FLIP: i8 = -128;

    /// `None` unless the CPU has them.
    pub(crate) fn new() -> Option<Self> {
        (has!("avx2") && has!("fma") && has!("f16c")).then_some(Self { vnni: false })
    }

    /// `None` unless the CPU has them and AVX-VNNI.
    pub(crate) fn with_vnni() -> Option<Self> {
        Self::new().filter(|_| has!("avxvnni")).map(|_| Self { vnni: true })
    }

    /// Whether it stands for AVX-VNNI, too.
    pub(crate) const fn has_vnni(self) -> bool {
        self.vnni
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

/// A stored weight that AVX2 loads as 8 f32.
trait Load8: FloatWeight {
    /// Eight outputs' weights for input `k` of a group, which starts at `from`.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C; `from` points at 8 · KR readable weights, aligned or not.
    unsafe fn load(from: *const Self, k: usize) -> __m256;
}

impl Load8 for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self, _: usize) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }
}

impl Load8 for u16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, _: usize) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl Load8 for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, k: usize) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            // A bf16 is the upper half of an f32.
            _mm256_castsi256_ps(match k {
                0 => _mm256_slli_epi32(pairs, 16),
                _ => _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000u32.cast_signed())),
            })
        }
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
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256; 2]; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[W]; NP],
    ) {
        let groups = rows.check(&x, &w, [W::KR, NR]);
        // A copy, which stays in registers through both loops.
        let mut sums = *acc;
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            for c in 0..groups * W::KR {
                let (group, k) = (c / W::KR, c % W::KR);
                for p in 0..NP {
                    // SAFETY: `self` proves AVX2, FMA and F16C; row and group are in bounds, as
                    // just asserted.
                    unsafe {
                        let at = w[p].as_ptr().add(w_at + group * W::KR * NR);
                        let weights = [W::load(at, k), W::load(at.add(8 * W::KR), k)];
                        for m in 0..MR {
                            let x = _mm256_set1_ps(*x[m].get_unchecked(x_at + c));
                            for i in 0..2 {
                                sums[m][p][i] = _mm256_fmadd_ps(x, weights[i], sums[m][p][i]);
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
                if let Some([low, high]) = finish.bounds {
                    y = _mm256_max_ps(y, _mm256_set1_ps(low));
                    y = _mm256_min_ps(y, _mm256_set1_ps(high));
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

impl Channels<NR, f32> for Avx2 {
    const ROWS: usize = 1;
    type Column = [__m256; 2];
    type Weights = [__m256; 2];

    #[inline(always)]
    fn column(self, x: &[f32], at: usize, _: Lines) -> [__m256; 2] {
        Channels::<NR, f32>::weights(self, &x[at..at + NR])
    }

    #[inline(always)]
    fn weights(self, w: &[f32]) -> [__m256; 2] {
        let (halves, _) = w.as_chunks::<8>();
        // SAFETY: `self` proves AVX2; a half holds 8 numbers.
        [0, 1].map(|i: usize| unsafe { _mm256_loadu_ps(halves[i].as_ptr()) })
    }

    #[inline(always)]
    fn accumulate(self, acc: [__m256; 2], x: [__m256; 2], w: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves FMA; registers only.
        [0, 1].map(|i: usize| unsafe { _mm256_fmadd_ps(x[i], w[i], acc[i]) })
    }

    fn depthwise(self, conv: &Conv<'_, f32, f32>, first_row: usize, out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled(isa: Avx2, conv: &Conv<'_, f32, f32>, first: usize, out: &mut [f32]) {
            conv.channels::<_, NR, 4>(isa, first, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_row, out) }
    }
}

impl Multiply for Avx2 {
    fn multiply(self, products: &Products<'_>, out: &mut Block) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled(isa: Avx2, products: &Products<'_>, out: &mut Block) {
            products.eval::<_, 6>(isa, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, products, out) }
    }
}
