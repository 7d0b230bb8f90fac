//! The inner loops.
//!
//! A convolution is computed in *tiles*: MR output pixels × NP panels of NR output channels,
//! whose accumulators stay in registers. [`conv`] walks pixels, panels and filter taps; an
//! instruction set ([`Lanes`]) supplies the steps that differ: start accumulators, prepare a
//! panel's scales, multiply-add one tap, finish (requantize or clamp). Weights were packed in
//! exactly this order, and taps outside the map read the activation's pad pixel, so nothing
//! branches on borders inside the loops.

#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "vector intrinsics; each block states why it is sound")]
pub(crate) mod aarch64;
pub(crate) mod columns;
pub(crate) mod conv;
pub(crate) mod depthwise;
#[cfg(edge_dsp)]
#[expect(unsafe_code, reason = "DSP instructions; each block states why it is sound")]
#[expect(clippy::too_many_lines, reason = "one run of instructions")]
pub(crate) mod dsp;
#[cfg(edge_dsp)]
#[expect(unsafe_code, reason = "DSP instructions; each block states why it is sound")]
pub(crate) mod dsp_planes;
pub(crate) mod pairs;
pub(crate) mod scalar;
#[cfg(edge_thumb2)]
#[expect(unsafe_code, reason = "assembly; each block states why it is sound")]
pub(crate) mod thumb;
#[cfg(edge_simd128)]
#[expect(unsafe_code, reason = "vector loads; each block states why it is sound")]
pub(crate) mod wasm32;
pub(crate) mod winograd;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics; each block states why it is sound")]
pub(crate) mod x86_64;

use artifact::Requant;
use artifact::layout::SCALE_PLANES;
use artifact::scale::Rounded;

/// An activation number.
pub(crate) trait Number: bytemuck::Pod + Sync {
    /// Per-channel parameter.
    type Param: bytemuck::Pod + Sync;
}

impl Number for i8 {
    type Param = i32;
}

impl Number for f32 {
    type Param = Self;
}

/// How accumulators become activations; int8 fields are unused in f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    /// Zero point of the output.
    pub zero_point: i32,
    /// Smallest int8 output: the zero point with ReLU, −128 without.
    pub low: i32,
    /// Largest int8 output, 127 for nearly all layers: any other is kept to afterwards, by [`limit`].
    pub high: i8,
    /// Bounds of floats, where there are some.
    pub bounds: Option<[f32; 2]>,
    /// Zero point of the residual.
    pub residual_zero_point: i32,
    /// Fractional bits of the residual's factors.
    pub residual_shift: u32,
    /// See [`artifact::scale::residual_ratio`].
    pub residual_ratio: f32,
    /// What a sum is rounded to before the residual is added.
    pub rounded: Option<Rounded>,
}

impl Finish {
    /// Leaves sums as they are.
    pub(crate) const NONE: Self = Self {
        zero_point: 0,
        low: -128,
        high: 127,
        bounds: None,
        residual_zero_point: 0,
        residual_shift: 0,
        residual_ratio: 0.0,
        rounded: None,
    };
}

/// Numbers of MR pixels and NP panels.
pub(crate) type Tile<E, const NR: usize, const MR: usize, const NP: usize> = [[[E; NR]; NP]; MR];

/// What of a slice a dot takes: `count` runs of `len` elements, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub count: usize,
    pub stride: usize,
    pub len: usize,
}

impl Rows {
    /// A single one.
    #[inline(always)]
    pub(crate) fn one(len: usize) -> Self {
        Self { count: 1, stride: 0, len }
    }

    /// How long the slice must be.
    #[inline(always)]
    pub(crate) fn span(self) -> usize {
        self.count.saturating_sub(1) * self.stride + self.len
    }

    /// Panics unless the rows of `x` and their weights are in bounds; returns the groups of a row.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64", edge_simd128)),
        allow(dead_code, reason = "for vector kernels")
    )]
    #[inline(always)]
    pub(crate) fn check<E, W, const MR: usize, const NP: usize>(
        self,
        x: &[&[E]; MR],
        w: &[&[W]; NP],
        [kr, nr]: [usize; 2],
    ) -> usize {
        let groups = self.len / kr;
        assert!(groups * kr == self.len);
        for x in x {
            assert!(x.len() >= self.span());
        }
        for w in w {
            assert!(w.len() >= self.count * self.len * nr);
        }
        groups
    }
}

/// The steps of a convolution on one instruction set, for activations `E` and weights `W`.
///
/// A value is the proof that the CPU has the instructions.
pub(crate) trait Lanes<const NR: usize, E: Number, W>: Copy + Sync {
    /// NR accumulators.
    type Acc: Copy;
    /// What [`Self::finish`] wants to know of a panel's outputs, in the form it computes with.
    type Scale: Copy;

    /// Accumulators before the first tap, from a panel's planes.
    fn start(self, params: &[E::Param]) -> Self::Acc;

    /// What finishing a panel takes, from its planes; computed once for all of its pixels.
    fn scale(self, params: &[E::Param], finish: &Finish) -> Self::Scale;

    /// `acc[m][p] += x[m] · w[p]` over the `rows` of `x[m]` and all groups of KR in each, whose
    /// NR × KR weights follow each other in `w[p]`.
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[Self::Acc; NP]; MR],
        x: [&[E]; MR],
        rows: Rows,
        w: [&[W]; NP],
    );

    /// Adds the residual, requantizes and clamps.
    fn finish(
        self,
        acc: Self::Acc,
        scale: &Self::Scale,
        finish: &Finish,
        residual: Option<&[E; NR]>,
    ) -> [E; NR];

    /// [`Self::finish`] of a tile.
    #[inline(always)]
    fn finish_tile<const MR: usize, const NP: usize>(
        self,
        acc: &[[Self::Acc; NP]; MR],
        scale: &[Self::Scale; NP],
        finish: &Finish,
        residual: Option<&Tile<E, NR, MR, NP>>,
    ) -> Tile<E, NR, MR, NP> {
        let mut out = [[[E::zeroed(); NR]; NP]; MR];
        for m in 0..MR {
            for p in 0..NP {
                let residual = residual.map(|r| &r[m][p]);
                out[m][p] = self.finish(acc[m][p], &scale[p], finish, residual);
            }
        }
        out
    }

    /// Runs the convolution kernel with tile sizes that suit the registers.
    fn conv(self, conv: &conv::Conv<'_, E, W>, first_pixel: usize, out: &mut [E]);

    /// Runs the inner loop of the largest tile `rounds` times by [`peak`].
    fn peak(self, rounds: usize) -> u64;
}

/// Runs the inner loop of a tile `rounds` times on the same operands, which stay in the nearest
/// cache; returns how many multiply-accumulates that were. No convolution is faster.
#[inline(always)]
pub(crate) fn peak<I, E, W, const NR: usize, const MR: usize, const NP: usize>(
    isa: I,
    rounds: usize,
) -> u64
where
    I: Lanes<NR, E, W>,
    E: Number,
    W: bytemuck::Pod,
{
    const DEPTH: usize = 64;
    let params = [[<E::Param as bytemuck::Zeroable>::zeroed(); NR]; 5];
    let x = [[E::zeroed(); DEPTH]; MR];
    let w = [[[W::zeroed(); NR]; DEPTH]; NP];
    let start = isa.start(params.as_flattened());
    for _ in 0..rounds {
        let mut acc = [[start; NP]; MR];
        let mut rows = [&x[0][..]; MR];
        let mut panels = [w[0].as_flattened(); NP];
        for m in 0..MR {
            rows[m] = core::hint::black_box(&x[m]);
        }
        for p in 0..NP {
            panels[p] = core::hint::black_box(w[p].as_flattened());
        }
        isa.dot(&mut acc, rows, Rows::one(DEPTH), panels);
        core::hint::black_box(&acc);
    }
    (MR * NP * NR * DEPTH * rounds) as u64
}

/// Code that gains from being compiled for an instruction set, without using intrinsics.
pub(crate) trait Kernel {
    /// Runs it; must be `#[inline(always)]` to inherit the caller's instructions.
    fn eval(self);
}

/// Whether the parameters of a panel of an int8 convolution are [`artifact::layout::ScalePlane`]s.
#[inline(always)]
pub(crate) fn is_scaled<const NR: usize>(params: &[i32]) -> bool {
    params.len() == SCALE_PLANES * NR
}

/// `clamp(zero_point + requantize(acc))`: the scalar rule that each vector version equals.
#[inline(always)]
pub(crate) fn requantize(acc: i32, requant: Requant, zero_point: i32, low: i32) -> i8 {
    // Sums wrap, as vector instructions do; a checked model never gets there.
    requant.apply(acc).wrapping_add(zero_point).clamp(low, 127) as i8
}

/// Keeps stored int8 outputs at or below `high`; few layers have such a bound that is not 127.
#[inline(always)]
pub(crate) fn limit(out: &mut [i8], high: i8, flip: i8) {
    if high < i8::MAX {
        out.iter_mut().for_each(|y| *y = (*y ^ flip).min(high) ^ flip);
    }
}

/// `((r − zero_point) · factor + 2^(shift−1)) >> shift`.
#[inline(always)]
pub(crate) fn lift_residual(r: i8, factor: i32, finish: &Finish) -> i32 {
    let product = (i32::from(r) - finish.residual_zero_point).wrapping_mul(factor);
    product.wrapping_add((1 << finish.residual_shift) >> 1) >> finish.residual_shift
}
