//! What feature maps are made of: f32, or bf16 with sums in f32.
//!
//! Channels come in blocks of [`LANES`], and the channels of a block lie together: a pixel's
//! block is a [`Line`]. Convolutions broadcast one operand of a line and multiply it with a line
//! of weights, one for each output channel. An operand is a number, or two bf16 numbers.

pub(super) use crate::dispatch::{LANES, Line};
use crate::dispatch::{Simd, to_bf16};
use burn::tensor::{DType, Element as BurnElement};
use bytemuck::Pod;
use core::ops::Index;
use half::bf16;

/// Number type of feature maps.
pub(super) trait Element: BurnElement + Pod + Default + Send + Sync {
    /// What a multiplication takes.
    type Operand: Pod + Default + Send + Sync;
    /// The operands of a line.
    type Cell: Pod + Send + Sync + Index<usize, Output = Self::Operand>;
    /// Numbers in an operand.
    const DEPTH: usize;
    /// Operands in a line.
    const STEPS: usize = LANES / Self::DEPTH;
    /// As tensors name it.
    const DTYPE: DType;

    /// `sums[l] + x·w[l]`, over all numbers of the operands.
    fn dot<S: Simd>(
        simd: S,
        sums: S::Vector,
        x: Self::Operand,
        w: &Line<Self::Operand>,
    ) -> S::Vector;

    /// An operand of up to [`Self::DEPTH`] numbers.
    fn operand(numbers: [f32; 2]) -> Self::Operand;

    /// Operands whose numbers are those of the same lane of each line.
    fn join(first: &Line<Self>, second: &Line<Self>) -> Line<Self::Operand>;

    /// The nearest number.
    fn number(v: f32) -> Self;

    /// Its value.
    fn value(self) -> f32;

    /// To f32 in registers.
    fn load<S: Simd>(simd: S, line: &Line<Self>) -> S::Vector;

    /// From f32, to the nearest numbers, of equally near ones to the even.
    fn store<S: Simd>(simd: S, v: S::Vector) -> Line<Self>;
}

impl Element for f32 {
    type Operand = Self;
    type Cell = [Self; LANES];
    const DEPTH: usize = 1;
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sums: S::Vector, x: Self, w: &Line) -> S::Vector {
        simd.add_product(sums, x, w)
    }

    #[inline(always)]
    fn operand([number, _]: [f32; 2]) -> Self {
        number
    }

    #[inline(always)]
    fn join(first: &Line, _: &Line) -> Line {
        *first
    }

    #[inline(always)]
    fn number(v: f32) -> Self {
        v
    }

    #[inline(always)]
    fn value(self) -> Self {
        self
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, line: &Line) -> S::Vector {
        simd.load(line)
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, v: S::Vector) -> Line {
        simd.store(v)
    }
}

impl Element for bf16 {
    type Operand = u32;
    type Cell = [u32; LANES / 2];
    const DEPTH: usize = 2;
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sums: S::Vector, x: u32, w: &Line<u32>) -> S::Vector {
        simd.add_pairs(sums, x, w)
    }

    #[inline(always)]
    fn operand([low, high]: [f32; 2]) -> u32 {
        u32::from(to_bf16(low)) | u32::from(to_bf16(high)) << 16
    }

    #[inline(always)]
    fn join(first: &Line<Self>, second: &Line<Self>) -> Line<u32> {
        let mut pairs = [0; LANES];
        for l in 0..LANES {
            pairs[l] = u32::from(first[l].to_bits()) | u32::from(second[l].to_bits()) << 16;
        }
        pairs
    }

    #[inline(always)]
    fn number(v: f32) -> Self {
        Self::from_bits(to_bf16(v))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, line: &Line<Self>) -> S::Vector {
        simd.widen(bytemuck::cast_ref(line))
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, v: S::Vector) -> Line<Self> {
        bytemuck::cast(simd.narrow(v))
    }
}

/// Lines as cells of a frame, unless their alignment forbids it.
pub(super) fn as_cells<E: Element>(lines: &[Line<E>]) -> Option<&[E::Cell]> {
    bytemuck::try_cast_slice(lines).ok()
}

/// Cells as lines.
pub(super) fn lines_mut<E: Element>(cells: &mut [E::Cell]) -> &mut [Line<E>] {
    bytemuck::cast_slice_mut(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE];
        let many = (0..2_000_000_u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        for v in special.into_iter().chain(many).filter(|v| !v.is_nan()) {
            assert_eq!(to_bf16(v), bf16::from_f32(v).to_bits(), "{v:e}");
        }
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7f80_0001, 0x7fc0_0000] {
            assert!(bf16::from_bits(to_bf16(f32::from_bits(bits))).is_nan(), "{bits:x}");
        }
    }
}
