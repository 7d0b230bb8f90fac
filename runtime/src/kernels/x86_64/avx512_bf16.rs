//! AVX-512 BF16: two products of bf16 at a time, summed in f32, for models with such weights.
//!
//! Activations are f32; a dot rounds them as it goes, 64 of a pixel at a time, which its four
//! panels share. An activation is then off by at most 2⁻⁸ of itself, as a weight is already.

use super::Avx512Vnni;
use super::avx512::{Load16, tiles};
use crate::kernels::conv::Conv;
use crate::kernels::{Finish, Lanes, Rows, peak};
use artifact::layout::KR_BF16;
use core::arch::x86_64::*;
use half::bf16;

const NR: usize = 16;
/// Activations of a pixel that are rounded together, two registers of bf16.
const CHUNK: usize = 64;

/// [`Avx512Vnni`] with BF16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512Bf16(Avx512Vnni);

impl Avx512Bf16 {
    /// `None` unless the CPU has it.
    pub(super) fn new(isa: Avx512Vnni) -> Option<Self> {
        isa.has_bf16().then_some(Self(isa))
    }
}

/// `len` activations as pairs of bf16; of the pairs beyond, whole registers are zero or left as
/// they are.
///
/// # Safety
/// The CPU has AVX-512 BF16; `len` f32 are readable at `from`, at most [`CHUNK`].
#[inline(always)]
unsafe fn round(from: *const f32, len: usize, pairs: &mut [u32; CHUNK / KR_BF16]) {
    let (registers, _) = pairs.as_chunks_mut::<16>();
    for (i, register) in registers.iter_mut().enumerate() {
        let rest = len.saturating_sub(i * 32).min(32);
        let mask = ((1u64 << rest) - 1) as u32;
        // SAFETY: the caller's promise; a masked load touches only the elements of its mask.
        unsafe {
            let from = from.wrapping_add(i * 32);
            let low = _mm512_maskz_loadu_ps(mask as u16, from);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16));
            let rounded: __m512i = core::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(register.as_mut_ptr().cast(), rounded);
        }
    }
}

impl Load16 for bf16 {
    type Native = Avx512Bf16;

    fn native(isa: Avx512Vnni) -> Option<Avx512Bf16> {
        Avx512Bf16::new(isa)
    }

    #[inline(always)]
    unsafe fn load(from: *const Self, k: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            // A bf16 is the upper half of an f32.
            _mm512_castsi512_ps(match k {
                0 => _mm512_slli_epi32(pairs, 16),
                _ => _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000u32.cast_signed())),
            })
        }
    }
}

impl Lanes<NR, f32, bf16> for Avx512Bf16 {
    type Acc = __m512;
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> __m512 {
        Lanes::<NR, f32, bf16>::start(self.0, params)
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[__m512; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[bf16]; NP],
    ) {
        rows.check(&x, &w, [KR_BF16, NR]);
        // A copy, which stays in registers through all loops.
        let mut sums = *acc;
        let mut pairs = [[0; CHUNK / KR_BF16]; MR];
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            for chunk in (0..rows.len).step_by(CHUNK) {
                let len = CHUNK.min(rows.len - chunk);
                for m in 0..MR {
                    // SAFETY: `self` proves BF16; the row is in bounds, as just asserted.
                    unsafe { round(x[m].as_ptr().add(x_at + chunk), len, &mut pairs[m]) };
                }
                #[expect(clippy::needless_range_loop, reason = "indices keep sums in registers")]
                for g in 0..len / KR_BF16 {
                    // SAFETY: `self` proves BF16; row and group are in bounds, as just asserted,
                    // and the loads are unaligned.
                    unsafe {
                        let mut weights = [_mm512_setzero_si512(); NP];
                        for p in 0..NP {
                            let at = w[p].as_ptr().add(w_at + (chunk + g * KR_BF16) * NR);
                            weights[p] = _mm512_loadu_si512(at.cast());
                        }
                        for m in 0..MR {
                            let x = _mm512_set1_epi32(pairs[m][g].cast_signed());
                            for p in 0..NP {
                                sums[m][p] = _mm512_dpbf16_ps(
                                    sums[m][p],
                                    core::mem::transmute::<__m512i, __m512bh>(x),
                                    core::mem::transmute::<__m512i, __m512bh>(weights[p]),
                                );
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
        acc: __m512,
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        Lanes::<NR, f32, bf16>::finish(self.0, acc, &(), finish, residual)
    }

    fn conv(self, conv: &Conv<'_, f32, bf16>, first_pixel: usize, out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        fn enabled(isa: Avx512Bf16, conv: &Conv<'_, f32, bf16>, first: usize, out: &mut [f32]) {
            tiles(isa, conv, first, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        fn enabled(isa: Avx512Bf16, rounds: usize) -> u64 {
            peak::<_, f32, bf16, NR, 6, 4>(isa, rounds)
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, rounds) }
    }
}
