//! Plain Rust: every CPU, every panel width.

use super::conv::Conv;
use super::depthwise::{Channels, Lines};
use super::winograd::{Block, Multiply, Products};
use super::{Finish, Kernel, Lanes, Rows, is_scaled, lift_residual, peak, requantize};
use artifact::Requant;
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_BF16, KR_I8, ScalePlane};
use artifact::scale::round;
use half::bf16;

/// No special instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scalar;

impl Scalar {
    /// Runs a kernel as compiled for the baseline.
    pub(crate) fn run(self, kernel: impl Kernel) {
        kernel.eval();
    }
}

/// Plane `plane` of NR parameters.
#[inline(always)]
pub(crate) fn plane<P, const NR: usize>(params: &[P], plane: usize) -> &[P] {
    &params[plane * NR..][..NR]
}

/// A panel's requantization.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyScale<const NR: usize> {
    /// Multiplier, shift and residual factor.
    Fixed([[i32; NR]; 3]),
    /// See [`artifact::scale`].
    Float([f32; NR]),
}

impl<const NR: usize> Lanes<NR, i8, i8> for Scalar {
    type Acc = [i32; NR];
    type Scale = AnyScale<NR>;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [i32; NR] {
        let bias = plane::<_, NR>(params, ConvPlane::Bias as usize);
        core::array::from_fn(|i| bias[i])
    }

    #[inline(always)]
    fn scale(self, params: &[i32], _: &Finish) -> AnyScale<NR> {
        let array = |p: usize| {
            let plane = plane::<_, NR>(params, p);
            core::array::from_fn(|i| plane[i])
        };
        if is_scaled::<NR>(params) {
            return AnyScale::Float(
                array(ScalePlane::Scale as usize).map(|s| f32::from_bits(s as u32)),
            );
        }
        let planes = [ConvPlane::Multiplier, ConvPlane::Shift, ConvPlane::Residual];
        AnyScale::Fixed(planes.map(|p| array(p as usize)))
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[i32; NR]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        for (acc, x) in acc.iter_mut().zip(x) {
            for (acc, w) in acc.iter_mut().zip(w) {
                for (r, w) in w.chunks_exact(rows.len * NR).enumerate() {
                    let x = &x[r * rows.stride..][..rows.len];
                    for (x, w) in x.chunks_exact(KR_I8).zip(w.chunks_exact(NR * KR_I8)) {
                        for (acc, w) in acc.iter_mut().zip(w.chunks_exact(KR_I8)) {
                            for (x, w) in x.iter().zip(w) {
                                *acc = acc.wrapping_add(i32::from(*x) * i32::from(*w));
                            }
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [i32; NR],
        scale: &AnyScale<NR>,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        let [multiplier, shift, factor] = match scale {
            AnyScale::Fixed(planes) => planes,
            AnyScale::Float(scale) => {
                return core::array::from_fn(|i| {
                    let mut y = acc[i] as f32 * scale[i];
                    if let Some(rounded) = finish.rounded {
                        y = rounded.apply(y);
                    }
                    if let Some(r) = residual {
                        let steps = i32::from(r[i]) - finish.residual_zero_point;
                        y += steps as f32 * finish.residual_ratio;
                    }
                    (round(y) + finish.zero_point).clamp(finish.low, 127) as i8
                });
            }
        };
        core::array::from_fn(|i| {
            let lifted = residual.map_or(0, |r| lift_residual(r[i], factor[i], finish));
            let requant = Requant { multiplier: multiplier[i], shift: shift[i] as u8 };
            requantize(acc[i].wrapping_add(lifted), requant, finish.zero_point, finish.low)
        })
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            conv.panels::<Self, NR, 1, 1>(self, panel, first_pixel, out);
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, i8, i8, NR, 1, 1>(self, rounds)
    }
}

/// A stored weight that becomes f32.
pub(crate) trait FloatWeight: bytemuck::Pod + Sync {
    /// Input channels of a group, see [`artifact::Dtype::kr`].
    const KR: usize = 1;

    /// Its value.
    fn to_f32(self) -> f32;
}

impl FloatWeight for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// The bits of an IEEE half.
impl FloatWeight for u16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half::f16::from_bits(self).to_f32()
    }
}

impl FloatWeight for bf16 {
    const KR: usize = KR_BF16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

impl<const NR: usize, W: FloatWeight> Lanes<NR, f32, W> for Scalar {
    type Acc = [f32; NR];
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> [f32; NR] {
        core::array::from_fn(|i| params[i])
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[f32; NR]; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[W]; NP],
    ) {
        for (p, w) in w.into_iter().enumerate() {
            for (r, w) in w.chunks_exact(rows.len * NR).enumerate() {
                let x = x.map(|x| &x[r * rows.stride..][..rows.len]);
                for (g, w) in w.chunks_exact(NR * W::KR).enumerate() {
                    for k in 0..W::KR {
                        // Once for all pixels, which share them.
                        let w: [f32; NR] = core::array::from_fn(|i| w[i * W::KR + k].to_f32());
                        for (acc, x) in acc.iter_mut().zip(x) {
                            let x = x[g * W::KR + k];
                            for (acc, w) in acc[p].iter_mut().zip(w) {
                                *acc += x * w;
                            }
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [f32; NR],
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        core::array::from_fn(|i| {
            let y = acc[i] + residual.map_or(0.0, |r| r[i]);
            finish.bounds.map_or(y, |[low, high]| y.max(low).min(high))
        })
    }

    fn conv(self, conv: &Conv<'_, f32, W>, first_pixel: usize, out: &mut [f32]) {
        for panel in 0..usize::from(conv.output.c).div_ceil(NR) {
            // As many sums as a microcontroller's registers hold.
            if NR == 4 && cfg!(not(feature = "host")) {
                conv.panels::<Self, NR, 4, 1>(self, panel, first_pixel, out);
            } else {
                conv.panels::<Self, NR, 1, 1>(self, panel, first_pixel, out);
            }
        }
    }

    fn peak(self, rounds: usize) -> u64 {
        peak::<_, f32, W, NR, 1, 1>(self, rounds)
    }
}

impl<const NR: usize> Channels<NR, i8> for Scalar {
    const ROWS: usize = DEPTHWISE_ROWS;
    // What has no vectors gains little by them.
    const UNROLLS: bool = false;
    type Column = [[i8; NR]; DEPTHWISE_ROWS];
    type Weights = Self::Column;

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> Self::Column {
        lines.check::<_, NR>(x, at).map(|at| core::array::from_fn(|c| x[at + c]))
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> Self::Weights {
        core::array::from_fn(|r| core::array::from_fn(|c| w[c * DEPTHWISE_ROWS + r]))
    }

    #[inline(always)]
    fn accumulate(self, mut acc: [i32; NR], x: Self::Column, w: Self::Weights) -> [i32; NR] {
        for (x, w) in x.iter().zip(w) {
            for (acc, (x, w)) in acc.iter_mut().zip(x.iter().zip(w)) {
                *acc = acc.wrapping_add(i32::from(*x) * i32::from(w));
            }
        }
        acc
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        conv.channels::<Self, NR, 1>(self, first_row, out);
    }
}

impl<const NR: usize> Channels<NR, f32> for Scalar {
    const ROWS: usize = 1;
    // Nor has a microcontroller flash for them.
    const UNROLLS: bool = NR == 16;
    type Column = [f32; NR];
    type Weights = [f32; NR];

    #[inline(always)]
    fn column(self, x: &[f32], at: usize, _: Lines) -> [f32; NR] {
        core::array::from_fn(|c| x[at + c])
    }

    #[inline(always)]
    fn weights(self, w: &[f32]) -> [f32; NR] {
        core::array::from_fn(|c| w[c])
    }

    #[inline(always)]
    fn accumulate(self, acc: [f32; NR], x: [f32; NR], w: [f32; NR]) -> [f32; NR] {
        core::array::from_fn(|c| acc[c] + x[c] * w[c])
    }

    fn depthwise(self, conv: &Conv<'_, f32, f32>, first_row: usize, out: &mut [f32]) {
        conv.channels::<Self, NR, 1>(self, first_row, out);
    }
}

impl Multiply for Scalar {
    fn multiply(self, products: &Products<'_>, out: &mut Block) {
        products.eval::<Self, 1>(self, out);
    }
}

/// An instruction set for int8 alone, whose floats are plain Rust as compiled for the baseline.
pub(crate) trait PlainFloats: Copy + Sync {}

impl<T: PlainFloats, const NR: usize, W: FloatWeight> Lanes<NR, f32, W> for T {
    type Acc = [f32; NR];
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> [f32; NR] {
        Lanes::<NR, f32, W>::start(Scalar, params)
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[f32; NR]; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[W]; NP],
    ) {
        Scalar.dot(acc, x, rows, w);
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [f32; NR],
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        Lanes::<NR, f32, W>::finish(Scalar, acc, &(), finish, residual)
    }

    fn conv(self, conv: &Conv<'_, f32, W>, first_pixel: usize, out: &mut [f32]) {
        Lanes::<NR, f32, W>::conv(Scalar, conv, first_pixel, out);
    }

    fn peak(self, rounds: usize) -> u64 {
        Lanes::<NR, f32, W>::peak(Scalar, rounds)
    }
}

impl<T: PlainFloats, const NR: usize> Channels<NR, f32> for T {
    const ROWS: usize = 1;
    type Column = [f32; NR];
    type Weights = [f32; NR];

    #[inline(always)]
    fn column(self, x: &[f32], at: usize, lines: Lines) -> [f32; NR] {
        Scalar.column(x, at, lines)
    }

    #[inline(always)]
    fn weights(self, w: &[f32]) -> [f32; NR] {
        Channels::<NR, f32>::weights(Scalar, w)
    }

    #[inline(always)]
    fn accumulate(self, acc: [f32; NR], x: [f32; NR], w: [f32; NR]) -> [f32; NR] {
        Channels::<NR, f32>::accumulate(Scalar, acc, x, w)
    }

    fn depthwise(self, conv: &Conv<'_, f32, f32>, first_row: usize, out: &mut [f32]) {
        Channels::<NR, f32>::depthwise(Scalar, conv, first_row, out);
    }
}

impl<T: PlainFloats> Multiply for T {
    fn multiply(self, products: &Products<'_>, out: &mut Block) {
        Scalar.multiply(products, out);
    }
}
