//! NEON with SDOT, the dot product of four bytes (Raspberry Pi 5): 16 output channels in four
//! registers.

use super::neon::{Load4, Neon, Scale, finish, load_plane, scale};
use super::{Fp16, has};
use crate::kernels::conv::Conv;
use crate::kernels::depthwise::{Channels, Lines};
use crate::kernels::winograd::{Block, Multiply, Products};
use crate::kernels::{Finish, Kernel, Lanes, Rows, peak};
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_I8};
use core::arch::aarch64::*;
use half::bf16;

const NR: usize = 16;
/// Registers of sixteen 32-bit numbers.
const QUADS: usize = 4;

/// NEON with FEAT_DotProd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DotProd {
    neon: Neon,
    /// FEAT_FP16, too.
    fp16: bool,
}

impl DotProd {
    /// `None` unless the CPU has it.
    pub(crate) fn new() -> Option<Self> {
        let fp16 = has!("fp16");
        Neon::new().filter(|_| has!("dotprod")).map(|neon| Self { neon, fp16 })
    }

    /// Arithmetic of halves, where the CPU has it.
    pub(crate) const fn fp16(self) -> Option<Fp16> {
        if self.fp16 { Some(Fp16(self.neon)) } else { None }
    }

    /// Runs a kernel.
    pub(crate) fn run(self, kernel: impl Kernel) {
        self.neon.run(kernel);
    }
}

/// `acc += w · x`, four bytes of each lane of `w` with those of lane LANE of `x`.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn sdot<const LANE: u32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise; registers only. The intrinsic is not stable.
    unsafe {
        core::arch::asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            acc = inlateout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Group LANE of those that `x` holds, whose weights start at `w`.
///
/// # Safety
/// The CPU has FEAT_DotProd; the group's weights of each panel are readable.
#[inline(always)]
unsafe fn group<const LANE: u32, const MR: usize, const NP: usize>(
    sums: &mut [[[int32x4_t; QUADS]; NP]; MR],
    x: &[int8x16_t; MR],
    w: [*const i8; NP],
) {
    for p in 0..NP {
        for i in 0..QUADS {
            // SAFETY: the caller's promise.
            unsafe {
                let weights = vld1q_s8(w[p].add(LANE as usize * KR_I8 * NR + i * 16));
                for m in 0..MR {
                    sums[m][p][i] = sdot::<LANE>(sums[m][p][i], weights, x[m]);
                }
            }
        }
    }
}

impl Lanes<NR, i8, i8> for DotProd {
    type Acc = [int32x4_t; QUADS];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [int32x4_t; QUADS] {
        load_plane(params, ConvPlane::Bias as usize)
    }

    #[inline(always)]
    fn scale(self, params: &[i32], _: &Finish) -> Scale {
        scale(self.neon, params)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[int32x4_t; QUADS]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        let groups = rows.check(&x, &w, [KR_I8, NR]);
        // A copy, which stays in registers through both loops.
        let mut sums = *acc;
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            // SAFETY: `self` proves NEON with SDOT; rows and groups are in bounds, as just
            // asserted, and the loads are unaligned.
            unsafe {
                let mut at = [w[0].as_ptr(); NP];
                for p in 0..NP {
                    at[p] = w[p].as_ptr().add(w_at);
                }
                let mut four = [vdupq_n_s8(0); MR];
                for g in 0..groups / 4 {
                    for m in 0..MR {
                        four[m] = vld1q_s8(x[m].as_ptr().add(x_at + g * 4 * KR_I8));
                    }
                    group::<0, MR, NP>(&mut sums, &four, at);
                    group::<1, MR, NP>(&mut sums, &four, at);
                    group::<2, MR, NP>(&mut sums, &four, at);
                    group::<3, MR, NP>(&mut sums, &four, at);
                    for p in 0..NP {
                        at[p] = at[p].add(4 * KR_I8 * NR);
                    }
                }
                for g in groups / 4 * 4..groups {
                    for m in 0..MR {
                        let x = x[m].as_ptr().add(x_at + g * KR_I8).cast::<i32>();
                        four[m] = vreinterpretq_s8_s32(vdupq_n_s32(x.read_unaligned()));
                    }
                    group::<0, MR, NP>(&mut sums, &four, at);
                    for p in 0..NP {
                        at[p] = at[p].add(KR_I8 * NR);
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
        acc: [int32x4_t; QUADS],
        scale: &Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        self::finish(self.neon, acc, scale, finish, residual)
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            // 20 accumulators, 4 weights and 5 activations of 32 registers.
            conv.panels::<_, NR, 5, 1>(self, panel, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, i8, i8, NR, 5, 1>(self, rounds)
    }
}

/// As [`sdot`], lane by lane.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn sdot_lanes(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise; registers only. The intrinsic is not stable.
    unsafe {
        core::arch::asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inlateout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

impl Channels<NR, i8> for DotProd {
    const ROWS: usize = DEPTHWISE_ROWS;
    /// Four rows of each channel side by side.
    type Column = [int8x16_t; QUADS];
    type Weights = [int8x16_t; QUADS];

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> Self::Column {
        let at = lines.check::<_, NR>(x, at);
        // SAFETY: `self` proves NEON; 16 bytes of each line are in bounds, as just checked.
        unsafe {
            let [a, b, c, d] = at.map(|at| vld1q_s8(x.as_ptr().add(at)));
            let pairs = |x, y| {
                [vreinterpretq_s16_s8(vzip1q_s8(x, y)), vreinterpretq_s16_s8(vzip2q_s8(x, y))]
            };
            let ([ab, more_ab], [cd, more_cd]) = (pairs(a, b), pairs(c, d));
            [
                vreinterpretq_s8_s16(vzip1q_s16(ab, cd)),
                vreinterpretq_s8_s16(vzip2q_s16(ab, cd)),
                vreinterpretq_s8_s16(vzip1q_s16(more_ab, more_cd)),
                vreinterpretq_s8_s16(vzip2q_s16(more_ab, more_cd)),
            ]
        }
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> Self::Weights {
        let (quads, _) = w.as_chunks::<16>();
        // SAFETY: `self` proves NEON; a quad is 16 bytes long.
        [0, 1, 2, 3].map(|i: usize| unsafe { vld1q_s8(quads[i].as_ptr()) })
    }

    #[inline(always)]
    fn accumulate(
        self,
        acc: [int32x4_t; QUADS],
        x: Self::Column,
        w: Self::Weights,
    ) -> [int32x4_t; QUADS] {
        // SAFETY: `self` proves SDOT.
        [0, 1, 2, 3].map(|i: usize| unsafe { sdot_lanes(acc[i], w[i], x[i]) })
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        conv.channels::<_, NR, 4>(self, first_row, out);
    }
}

/// As NEON.
impl Channels<NR, f32> for DotProd {
    const ROWS: usize = 1;
    type Column = <Neon as Channels<NR, f32>>::Column;
    type Weights = <Neon as Channels<NR, f32>>::Weights;

    #[inline(always)]
    fn column(self, x: &[f32], at: usize, lines: Lines) -> Self::Column {
        Channels::<NR, f32>::column(self.neon, x, at, lines)
    }

    #[inline(always)]
    fn weights(self, w: &[f32]) -> Self::Weights {
        Channels::<NR, f32>::weights(self.neon, w)
    }

    #[inline(always)]
    fn accumulate(
        self,
        acc: [float32x4_t; QUADS],
        x: Self::Column,
        w: Self::Weights,
    ) -> [float32x4_t; QUADS] {
        Channels::<NR, f32>::accumulate(self.neon, acc, x, w)
    }

    fn depthwise(self, conv: &Conv<'_, f32, f32>, first_row: usize, out: &mut [f32]) {
        Channels::<NR, f32>::depthwise(self.neon, conv, first_row, out);
    }
}

/// A stored weight that the CPU may multiply as it is.
pub(super) trait Native: Load4 {
    /// Instructions beyond NEON that do.
    type With: Lanes<NR, f32, Self>;

    /// Where the CPU has them.
    fn native(_: DotProd) -> Option<Self::With> {
        None
    }
}

impl Native for f32 {
    type With = Neon;
}

impl Native for bf16 {
    type With = Neon;
}

impl Native for u16 {
    type With = Fp16;

    fn native(isa: DotProd) -> Option<Fp16> {
        isa.fp16()
    }
}

/// As NEON, but for what [`Native`] has.
impl<W: Native> Lanes<NR, f32, W> for DotProd {
    type Acc = <Neon as Lanes<NR, f32, W>>::Acc;
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> Self::Acc {
        Lanes::<NR, f32, W>::start(self.neon, params)
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[Self::Acc; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[W]; NP],
    ) {
        self.neon.dot(acc, x, rows, w);
    }

    #[inline(always)]
    fn finish(
        self,
        acc: Self::Acc,
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        Lanes::<NR, f32, W>::finish(self.neon, acc, &(), finish, residual)
    }

    fn conv(self, conv: &Conv<'_, f32, W>, first_pixel: usize, out: &mut [f32]) {
        match W::native(self) {
            Some(native) => native.conv(conv, first_pixel, out),
            None => self.neon.conv(conv, first_pixel, out),
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        match W::native(self) {
            Some(native) => native.peak(rounds),
            None => Lanes::<NR, f32, W>::peak(self.neon, rounds),
        }
    }
}

impl Multiply for DotProd {
    fn multiply(self, products: &Products<'_>, out: &mut Block) {
        self.neon.multiply(products, out);
    }
}
