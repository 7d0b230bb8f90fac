//! NEON as every aarch64 CPU has it (Raspberry Pi 3 and 4): 16 output channels in four registers,
//! or in eight while int8 is summed.
//!
//! SMULL and SMLAL make 16-bit sums of two products, `2 · 128 · 127 < 2¹⁵`; SADALP adds
//! neighbours of them to 32-bit sums. A group of KR = 4 inputs leaves two sums an output, which
//! are added at the end.

use crate::kernels::conv::Conv;
use crate::kernels::depthwise::{Channels, Lines};
use crate::kernels::scalar::{FloatWeight, plane};
use crate::kernels::winograd::{Block, Multiply, Products};
use crate::kernels::{Finish, Kernel, Lanes, Rows, is_scaled, peak};
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_I8, ScalePlane};
use core::arch::aarch64::*;
use half::bf16;

const NR: usize = 16;
/// Registers of sixteen 32-bit numbers.
const QUADS: usize = 4;

/// NEON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neon {
    _proof: (),
}

impl Neon {
    /// The target has it.
    pub(crate) fn new() -> Option<Self> {
        cfg!(target_feature = "neon").then_some(Self { _proof: () })
    }

    /// Runs a kernel: NEON is the baseline.
    pub(crate) fn run(self, kernel: impl Kernel) {
        kernel.eval();
    }
}

/// Sixteen i32 of plane `p`.
#[inline(always)]
pub(super) fn load_plane(params: &[i32], p: usize) -> [int32x4_t; QUADS] {
    let plane = plane::<_, NR>(params, p).as_ptr();
    // SAFETY: NEON is proven by the callers' token; `plane` holds 16 numbers.
    unsafe {
        [
            vld1q_s32(plane),
            vld1q_s32(plane.add(4)),
            vld1q_s32(plane.add(8)),
            vld1q_s32(plane.add(12)),
        ]
    }
}

/// A panel's requantization.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scale {
    /// With integers.
    Fixed(Fixed),
    /// See [`artifact::scale`].
    Float([float32x4_t; QUADS]),
}

/// A panel's requantization with integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed {
    multiplier: [int32x4_t; QUADS],
    /// Negative, for SRSHL, which rounds as the rule does; of the lower and upper two outputs.
    shift: [[int64x2_t; 2]; QUADS],
    /// Of the residual.
    factor: [int32x4_t; QUADS],
}

/// See [`Lanes::scale`].
#[inline(always)]
pub(super) fn scale(_: Neon, params: &[i32]) -> Scale {
    if is_scaled::<NR>(params) {
        let [a, b, c, d] = load_plane(params, ScalePlane::Scale as usize);
        // SAFETY: the token proves NEON; registers only.
        return Scale::Float(unsafe {
            [
                vreinterpretq_f32_s32(a),
                vreinterpretq_f32_s32(b),
                vreinterpretq_f32_s32(c),
                vreinterpretq_f32_s32(d),
            ]
        });
    }
    let shift = load_plane(params, ConvPlane::Shift as usize);
    // SAFETY: the token proves NEON; registers only.
    let negative = |quad: int32x4_t| unsafe {
        [vnegq_s64(vmovl_s32(vget_low_s32(quad))), vnegq_s64(vmovl_high_s32(quad))]
    };
    Scale::Fixed(Fixed {
        multiplier: load_plane(params, ConvPlane::Multiplier as usize),
        shift: [negative(shift[0]), negative(shift[1]), negative(shift[2]), negative(shift[3])],
        factor: load_plane(params, ConvPlane::Residual as usize),
    })
}

/// Sixteen activations from their zero point.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn residual_steps(r: &[i8; NR], zero_point: i32) -> [int32x4_t; QUADS] {
    // SAFETY: the caller's promise; there are sixteen bytes.
    unsafe {
        let r = vld1q_s8(r.as_ptr());
        let (low, high) = (vmovl_s8(vget_low_s8(r)), vmovl_high_s8(r));
        let zero_point = vdupq_n_s32(zero_point);
        [
            vsubq_s32(vmovl_s16(vget_low_s16(low)), zero_point),
            vsubq_s32(vmovl_high_s16(low), zero_point),
            vsubq_s32(vmovl_s16(vget_low_s16(high)), zero_point),
            vsubq_s32(vmovl_high_s16(high), zero_point),
        ]
    }
}

/// See [`Lanes::finish`]; accumulators in the order of the outputs.
#[inline(always)]
pub(super) fn finish(
    _: Neon,
    acc: [int32x4_t; QUADS],
    scale: &Scale,
    finish: &Finish,
    residual: Option<&[i8; NR]>,
) -> [i8; NR] {
    let mut out = [0; NR];
    // SAFETY: the token proves NEON; the residual and `out` are 16 bytes long.
    unsafe {
        let mut y = acc;
        let r = residual.map(|r| residual_steps(r, finish.residual_zero_point));
        match scale {
            Scale::Fixed(scale) => {
                if let Some(r) = r {
                    let shift = vdupq_n_s32(-(finish.residual_shift as i32));
                    for i in 0..QUADS {
                        let product = vmulq_s32(r[i], scale.factor[i]);
                        y[i] = vaddq_s32(y[i], vrshlq_s32(product, shift));
                    }
                }
                for i in 0..QUADS {
                    let low = vmull_s32(vget_low_s32(y[i]), vget_low_s32(scale.multiplier[i]));
                    let high = vmull_high_s32(y[i], scale.multiplier[i]);
                    let low = vmovn_s64(vrshlq_s64(low, scale.shift[i][0]));
                    y[i] = vmovn_high_s64(low, vrshlq_s64(high, scale.shift[i][1]));
                }
            }
            Scale::Float(scale) => {
                let ratio = vdupq_n_f32(finish.residual_ratio);
                for i in 0..QUADS {
                    let mut steps = vmulq_f32(vcvtq_f32_s32(y[i]), scale[i]);
                    if let Some(r) = r {
                        if let Some(rounded) = finish.rounded {
                            steps = vmaxq_f32(steps, vdupq_n_f32(rounded.low));
                            steps = vminq_f32(steps, vdupq_n_f32(rounded.high));
                            steps = vrndnq_f32(steps);
                            steps = vmulq_f32(steps, vdupq_n_f32(rounded.ratio));
                        }
                        steps = vaddq_f32(steps, vmulq_f32(vcvtq_f32_s32(r[i]), ratio));
                    }
                    y[i] = vcvtnq_s32_f32(steps);
                }
            }
        }
        for y in &mut y {
            *y = vaddq_s32(*y, vdupq_n_s32(finish.zero_point));
            *y = vmaxq_s32(*y, vdupq_n_s32(finish.low));
        }
        // Saturating, which is the clamp at 127.
        let low = vqmovn_high_s32(vqmovn_s32(y[0]), y[1]);
        let high = vqmovn_high_s32(vqmovn_s32(y[2]), y[3]);
        vst1q_s8(out.as_mut_ptr(), vqmovn_high_s16(vqmovn_s16(low), high));
    }
    out
}

/// Adds the products of two groups of four outputs to the sums of two pixels, `a` and `b`.
///
/// In assembly, because compilers take the upper halves apart first; in an order that in-order
/// CPUs need not wait in.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn two_groups(
    sums: &mut [int32x4_t; 4],
    w: [int8x16_t; 2],
    a: [int8x16_t; 2],
    b: [int8x16_t; 2],
) {
    let [mut a_low, mut a_high, mut b_low, mut b_high] = *sums;
    // SAFETY: the caller's promise; registers only.
    unsafe {
        core::arch::asm!(
            "smull {t0:v}.8h, {w0:v}.8b, {a0:v}.8b",
            "smull2 {t1:v}.8h, {w0:v}.16b, {a0:v}.16b",
            "smull {t2:v}.8h, {w0:v}.8b, {b0:v}.8b",
            "smull2 {t3:v}.8h, {w0:v}.16b, {b0:v}.16b",
            "smlal {t0:v}.8h, {w1:v}.8b, {a1:v}.8b",
            "smlal2 {t1:v}.8h, {w1:v}.16b, {a1:v}.16b",
            "smlal {t2:v}.8h, {w1:v}.8b, {b1:v}.8b",
            "smlal2 {t3:v}.8h, {w1:v}.16b, {b1:v}.16b",
            "sadalp {a_low:v}.4s, {t0:v}.8h",
            "sadalp {a_high:v}.4s, {t1:v}.8h",
            "sadalp {b_low:v}.4s, {t2:v}.8h",
            "sadalp {b_high:v}.4s, {t3:v}.8h",
            t0 = out(vreg) _,
            t1 = out(vreg) _,
            t2 = out(vreg) _,
            t3 = out(vreg) _,
            w0 = in(vreg) w[0],
            w1 = in(vreg) w[1],
            a0 = in(vreg) a[0],
            a1 = in(vreg) a[1],
            b0 = in(vreg) b[0],
            b1 = in(vreg) b[1],
            a_low = inout(vreg) a_low,
            a_high = inout(vreg) a_high,
            b_low = inout(vreg) b_low,
            b_high = inout(vreg) b_high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    *sums = [a_low, a_high, b_low, b_high];
}

impl Lanes<NR, i8, i8> for Neon {
    /// Two sums of each output, side by side.
    type Acc = [int32x4_t; 2 * QUADS];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [int32x4_t; 2 * QUADS] {
        let bias = load_plane(params, ConvPlane::Bias as usize);
        let mut acc = [bias[0]; 2 * QUADS];
        for i in 0..QUADS {
            // SAFETY: `self` proves NEON; registers only.
            unsafe {
                acc[2 * i] = vzip1q_s32(bias[i], vdupq_n_s32(0));
                acc[2 * i + 1] = vzip2q_s32(bias[i], vdupq_n_s32(0));
            }
        }
        acc
    }

    #[inline(always)]
    fn scale(self, params: &[i32], _: &Finish) -> Scale {
        scale(self, params)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[int32x4_t; 2 * QUADS]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        const { assert!(MR.is_multiple_of(2)) };
        let groups = rows.check(&x, &w, [KR_I8, NR]);
        // A copy, which stays in registers through both loops.
        let mut sums = *acc;
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            for g in (0..groups).step_by(2) {
                let both = g + 1 < groups;
                // SAFETY: `self` proves NEON; row and groups are in bounds, as just asserted, and
                // the loads are unaligned.
                unsafe {
                    let mut inputs = [[vdupq_n_s8(0); 2]; MR];
                    for m in 0..MR {
                        let at = x[m].as_ptr().add(x_at + g * KR_I8).cast::<i32>();
                        inputs[m][0] = vreinterpretq_s8_s32(vdupq_n_s32(at.read_unaligned()));
                        if both {
                            let at = at.add(1);
                            inputs[m][1] = vreinterpretq_s8_s32(vdupq_n_s32(at.read_unaligned()));
                        }
                    }
                    for p in 0..NP {
                        for i in 0..QUADS {
                            let at = w[p].as_ptr().add(w_at + g * KR_I8 * NR + i * 16);
                            let first = vld1q_s8(at);
                            // Of no input where there is no second group.
                            let second = if both { vld1q_s8(at.add(KR_I8 * NR)) } else { first };
                            for m in (0..MR).step_by(2) {
                                let mut four = [
                                    sums[m][p][2 * i],
                                    sums[m][p][2 * i + 1],
                                    sums[m + 1][p][2 * i],
                                    sums[m + 1][p][2 * i + 1],
                                ];
                                two_groups(&mut four, [first, second], inputs[m], inputs[m + 1]);
                                sums[m][p][2 * i] = four[0];
                                sums[m][p][2 * i + 1] = four[1];
                                sums[m + 1][p][2 * i] = four[2];
                                sums[m + 1][p][2 * i + 1] = four[3];
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
        acc: [int32x4_t; 2 * QUADS],
        scale: &Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        let mut sums = [acc[0]; QUADS];
        for i in 0..QUADS {
            // SAFETY: `self` proves NEON; registers only.
            sums[i] = unsafe { vpaddq_s32(acc[2 * i], acc[2 * i + 1]) };
        }
        self::finish(self, sums, scale, finish, residual)
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            // 16 accumulators, 2 weights, 4 activations, 4 products of 32 registers.
            conv.panels::<_, NR, 2, 1>(self, panel, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, i8, i8, NR, 2, 1>(self, rounds)
    }
}

/// A stored weight that NEON loads as 4 f32.
pub(super) trait Load4: FloatWeight {
    /// Four outputs' weights for input `k` of a group, which starts at `from`.
    ///
    /// # Safety
    /// The CPU has NEON; `from` points at 4 · KR readable weights, aligned or not.
    unsafe fn load(from: *const Self, k: usize) -> float32x4_t;
}

impl Load4 for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self, _: usize) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }
}

impl Load4 for u16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, _: usize) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { widen(vld1_u16(from)) }
    }
}

/// Four halves as f32.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
pub(super) unsafe fn widen(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the caller's promise; registers only. FCVTL, part of NEON, has no stable intrinsic.
    unsafe {
        core::arch::asm!(
            "fcvtl {wide:v}.4s, {halves:v}.4h",
            wide = lateout(vreg) wide,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}

impl Load4 for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, k: usize) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = vld1q_u32(from.cast());
            // A bf16 is the upper half of an f32.
            vreinterpretq_f32_u32(match k {
                0 => vshlq_n_u32::<16>(pairs),
                _ => vandq_u32(pairs, vdupq_n_u32(0xffff_0000)),
            })
        }
    }
}

impl<W: Load4> Lanes<NR, f32, W> for Neon {
    type Acc = [float32x4_t; QUADS];
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> [float32x4_t; QUADS] {
        let bias = plane::<_, NR>(params, 0).as_ptr();
        // SAFETY: `self` proves NEON; `bias` holds 16 numbers.
        unsafe {
            [
                vld1q_f32(bias),
                vld1q_f32(bias.add(4)),
                vld1q_f32(bias.add(8)),
                vld1q_f32(bias.add(12)),
            ]
        }
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[float32x4_t; QUADS]; NP]; MR],
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
                    for i in 0..QUADS {
                        // SAFETY: `self` proves NEON; row and group are in bounds, as just
                        // asserted.
                        unsafe {
                            let at = w[p].as_ptr().add(w_at + (group * NR + i * 4) * W::KR);
                            let weights = W::load(at, k);
                            for m in 0..MR {
                                let x = *x[m].get_unchecked(x_at + c);
                                sums[m][p][i] = vfmaq_n_f32(sums[m][p][i], weights, x);
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
        acc: [float32x4_t; QUADS],
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        let mut out = [0.0; NR];
        for i in 0..QUADS {
            // SAFETY: `self` proves NEON; the residual and `out` hold 16 numbers.
            unsafe {
                let mut y = acc[i];
                if let Some(r) = residual {
                    y = vaddq_f32(y, vld1q_f32(r.as_ptr().add(i * 4)));
                }
                if let Some([low, high]) = finish.bounds {
                    y = vminq_f32(vmaxq_f32(y, vdupq_n_f32(low)), vdupq_n_f32(high));
                }
                vst1q_f32(out.as_mut_ptr().add(i * 4), y);
            }
        }
        out
    }

    fn conv(self, conv: &Conv<'_, f32, W>, first_pixel: usize, out: &mut [f32]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            // 20 accumulators, 4 weights and 5 activations of 32 registers.
            conv.panels::<_, NR, 5, 1>(self, panel, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, f32, W, NR, 5, 1>(self, rounds)
    }
}

impl Channels<NR, i8> for Neon {
    const ROWS: usize = DEPTHWISE_ROWS;
    type Column = [int8x16_t; DEPTHWISE_ROWS];
    type Weights = [int8x16_t; DEPTHWISE_ROWS];

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> Self::Column {
        // SAFETY: `self` proves NEON; 16 bytes of each line are in bounds, as just checked.
        lines.check::<_, NR>(x, at).map(|at| unsafe { vld1q_s8(x.as_ptr().add(at)) })
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> Self::Weights {
        let (all, _) = w.as_chunks::<{ NR * DEPTHWISE_ROWS }>();
        // SAFETY: `self` proves NEON; the weights are 64 bytes.
        let int8x16x4_t(a, b, c, d) = unsafe { vld4q_s8(all[0].as_ptr()) };
        [a, b, c, d]
    }

    #[inline(always)]
    fn accumulate(
        self,
        acc: [int32x4_t; 2 * QUADS],
        x: Self::Column,
        w: Self::Weights,
    ) -> [int32x4_t; 2 * QUADS] {
        let mut acc = acc;
        // SAFETY: `self` proves NEON; registers only.
        unsafe {
            // Two products of bytes, 2 · 128 · 127, fit 16 bits.
            let pair = |r: usize| {
                let low = vmull_s8(vget_low_s8(x[r]), vget_low_s8(w[r]));
                let high = vmull_high_s8(x[r], w[r]);
                [
                    vmlal_s8(low, vget_low_s8(x[r + 1]), vget_low_s8(w[r + 1])),
                    vmlal_high_s8(high, x[r + 1], w[r + 1]),
                ]
            };
            let (first, second) = (pair(0), pair(2));
            for half in 0..2 {
                let quads =
                    [vzip1q_s16(first[half], second[half]), vzip2q_s16(first[half], second[half])];
                for (i, quad) in quads.into_iter().enumerate() {
                    let at = half * QUADS + i * 2;
                    acc[at] = vaddw_s16(acc[at], vget_low_s16(quad));
                    acc[at + 1] = vaddw_high_s16(acc[at + 1], quad);
                }
            }
        }
        acc
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        conv.channels::<_, NR, 2>(self, first_row, out);
    }
}

impl Channels<NR, f32> for Neon {
    const ROWS: usize = 1;
    type Column = [float32x4_t; QUADS];
    type Weights = [float32x4_t; QUADS];

    #[inline(always)]
    fn column(self, x: &[f32], at: usize, _: Lines) -> Self::Column {
        Channels::<NR, f32>::weights(self, &x[at..at + NR])
    }

    #[inline(always)]
    fn weights(self, w: &[f32]) -> Self::Weights {
        let (quads, _) = w.as_chunks::<4>();
        // SAFETY: `self` proves NEON; a quad holds 4 numbers.
        [0, 1, 2, 3].map(|i: usize| unsafe { vld1q_f32(quads[i].as_ptr()) })
    }

    #[inline(always)]
    fn accumulate(
        self,
        acc: [float32x4_t; QUADS],
        x: Self::Column,
        w: Self::Weights,
    ) -> [float32x4_t; QUADS] {
        // SAFETY: `self` proves NEON; registers only.
        [0, 1, 2, 3].map(|i: usize| unsafe { vfmaq_f32(acc[i], x[i], w[i]) })
    }

    fn depthwise(self, conv: &Conv<'_, f32, f32>, first_row: usize, out: &mut [f32]) {
        conv.channels::<_, NR, 2>(self, first_row, out);
    }
}

impl Multiply for Neon {
    fn multiply(self, products: &Products<'_>, out: &mut Block) {
        products.eval::<_, 4>(self, out);
    }
}
