//! NEON with arithmetic of halves (Raspberry Pi 5), for models with f16 weights: eight products
//! an instruction.
//!
//! Activations are f32; a dot rounds them as it goes, [`CHUNK`] of a pixel at a time. The products
//! of a chunk are summed in f16, chunks in f32, so that the error of a sum stays near that of
//! rounding its terms. Activations, and sums of a chunk, must stay below 65504, as they do after
//! batch normalization.

use super::neon::{Neon, widen};
use crate::kernels::conv::Conv;
use crate::kernels::{Finish, Lanes, Rows, peak};
use core::arch::aarch64::*;

const NR: usize = 16;
/// Registers of sixteen f32.
const QUADS: usize = 4;
/// Products that are summed in f16.
const CHUNK: usize = 32;

/// NEON with FEAT_FP16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fp16(pub(super) Neon);

/// `acc += w · x` in f16, each half of `w` with half LANE of `x`.
///
/// # Safety
/// The CPU has FEAT_FP16.
#[inline(always)]
unsafe fn fmla<const LANE: u32>(mut acc: uint16x8_t, w: uint16x8_t, x: uint16x8_t) -> uint16x8_t {
    // SAFETY: the caller's promise; registers only. The intrinsic is not stable.
    unsafe {
        core::arch::asm!(
            ".arch_extension fp16",
            "fmla {acc:v}.8h, {w:v}.8h, {x:v}.h[{lane}]",
            acc = inlateout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg_low16) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// `len` activations as f16, at most [`CHUNK`].
///
/// # Safety
/// The CPU has NEON; `len` f32 are readable at `from`.
#[inline(always)]
unsafe fn narrow(from: *const f32, len: usize, to: &mut [u16; CHUNK]) {
    let (eights, _) = to.as_chunks_mut::<8>();
    for (i, eight) in eights.iter_mut().enumerate().take(len.div_ceil(8)) {
        let mut last = [0.0; 8];
        let at = if (i + 1) * 8 <= len {
            from.wrapping_add(i * 8)
        } else {
            for (k, last) in last.iter_mut().enumerate().take(len % 8) {
                // SAFETY: the caller's promise.
                *last = unsafe { *from.add(i * 8 + k) };
            }
            last.as_ptr()
        };
        // SAFETY: the caller's promise; 8 numbers are readable. The intrinsics are not stable.
        unsafe {
            let (low, high) = (vld1q_f32(at), vld1q_f32(at.add(4)));
            let mut halves: uint16x8_t;
            core::arch::asm!(
                "fcvtn {halves:v}.4h, {low:v}.4s",
                "fcvtn2 {halves:v}.8h, {high:v}.4s",
                halves = out(vreg) halves,
                low = in(vreg) low,
                high = in(vreg) high,
                options(pure, nomem, nostack, preserves_flags)
            );
            vst1q_u16(eight.as_mut_ptr(), halves);
        }
    }
}

/// Input LANE of those that `x` holds, whose weights start at `w`.
///
/// # Safety
/// The CPU has FEAT_FP16; the input's weights of each panel are readable.
#[inline(always)]
unsafe fn input<const LANE: u32, const MR: usize, const NP: usize>(
    sums: &mut [[[uint16x8_t; 2]; NP]; MR],
    x: &[uint16x8_t; MR],
    w: [*const u16; NP],
) {
    for p in 0..NP {
        for i in 0..2 {
            // SAFETY: the caller's promise.
            unsafe {
                let weights = vld1q_u16(w[p].add(LANE as usize * NR + i * 8));
                for m in 0..MR {
                    sums[m][p][i] = fmla::<LANE>(sums[m][p][i], weights, x[m]);
                }
            }
        }
    }
}

impl Lanes<NR, f32, u16> for Fp16 {
    type Acc = [float32x4_t; QUADS];
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> [float32x4_t; QUADS] {
        Lanes::<NR, f32, u16>::start(self.0, params)
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[float32x4_t; QUADS]; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[u16]; NP],
    ) {
        rows.check(&x, &w, [1, NR]);
        let mut halves = [[0; CHUNK]; MR];
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            for chunk in (0..rows.len).step_by(CHUNK) {
                let len = CHUNK.min(rows.len - chunk);
                // SAFETY: `self` proves FP16; rows and inputs are in bounds, as just asserted.
                unsafe {
                    let mut at = [w[0].as_ptr(); NP];
                    for p in 0..NP {
                        at[p] = w[p].as_ptr().add(w_at + chunk * NR);
                    }
                    for m in 0..MR {
                        narrow(x[m].as_ptr().add(x_at + chunk), len, &mut halves[m]);
                    }
                    let mut sums = [[[vdupq_n_u16(0); 2]; NP]; MR];
                    let mut eight = [vdupq_n_u16(0); MR];
                    for c in (0..len / 8 * 8).step_by(8) {
                        for m in 0..MR {
                            eight[m] = vld1q_u16(halves[m].as_ptr().add(c));
                        }
                        input::<0, MR, NP>(&mut sums, &eight, at);
                        input::<1, MR, NP>(&mut sums, &eight, at);
                        input::<2, MR, NP>(&mut sums, &eight, at);
                        input::<3, MR, NP>(&mut sums, &eight, at);
                        input::<4, MR, NP>(&mut sums, &eight, at);
                        input::<5, MR, NP>(&mut sums, &eight, at);
                        input::<6, MR, NP>(&mut sums, &eight, at);
                        input::<7, MR, NP>(&mut sums, &eight, at);
                        for p in 0..NP {
                            at[p] = at[p].add(8 * NR);
                        }
                    }
                    for c in len / 8 * 8..len {
                        for m in 0..MR {
                            eight[m] = vdupq_n_u16(halves[m][c]);
                        }
                        input::<0, MR, NP>(&mut sums, &eight, at);
                        for p in 0..NP {
                            at[p] = at[p].add(NR);
                        }
                    }
                    for m in 0..MR {
                        for p in 0..NP {
                            for i in 0..QUADS {
                                let half = if i % 2 == 0 {
                                    vget_low_u16(sums[m][p][i / 2])
                                } else {
                                    vget_high_u16(sums[m][p][i / 2])
                                };
                                acc[m][p][i] = vaddq_f32(acc[m][p][i], widen(half));
                            }
                        }
                    }
                }
            }
            x_at += rows.stride;
            w_at += rows.len * NR;
        }
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [float32x4_t; QUADS],
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        Lanes::<NR, f32, u16>::finish(self.0, acc, &(), finish, residual)
    }

    fn conv(self, conv: &Conv<'_, f32, u16>, first_pixel: usize, out: &mut [f32]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            // 8 sums of halves, 16 of f32, 2 weights and 4 activations of 32 registers.
            conv.panels::<_, NR, 4, 1>(self, panel, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, f32, u16, NR, 4, 1>(self, rounds)
    }
}
