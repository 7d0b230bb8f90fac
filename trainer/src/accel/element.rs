//! What feature maps are made of: f32, or bf16 with sums in f32.
//!
//! Channels come in blocks of [`LANES`], and the channels of a block lie together: a pixel's
//! block is a [`Line`]. Convolutions broadcast one operand of a line and multiply it with a line
//! of weights, one for each output channel. An operand is a number, or two bf16 numbers.

use super::dispatch::Simd;
use burn::tensor::{DType, Element as BurnElement};
use bytemuck::Pod;
use half::bf16;

/// Channels of a block: a vector of f32 of AVX-512, whole vectors of smaller ones.
pub(super) const LANES: usize = 16;

/// One value for each channel of a block.
pub(super) type Line<E = f32> = [E; LANES];

/// Number type of feature maps.
pub(super) trait Element: BurnElement + Pod + Default + Send + Sync {
    /// What a multiplication takes.
    type Operand: Pod + Default + Send + Sync;
    /// Numbers in an operand.
    const DEPTH: usize;
    /// Operands in a line.
    const STEPS: usize = LANES / Self::DEPTH;
    /// As tensors name it.
    const DTYPE: DType;

    /// `sum[l] += x·w[l]`, over all numbers of the operands.
    fn dot<S: Simd>(simd: S, sum: &mut Line, x: Self::Operand, w: &Line<Self::Operand>);

    /// An operand of up to [`Self::DEPTH`] numbers.
    fn operand(numbers: [f32; 2]) -> Self::Operand;

    /// Operands whose numbers are those of the same lane of each line.
    fn join(first: &Line<Self>, second: &Line<Self>) -> Line<Self::Operand>;

    /// The nearest number.
    fn number(v: f32) -> Self;

    /// To f32.
    fn widen(line: &Line<Self>) -> Line;

    /// From f32, to the nearest number, of equally near ones to the even.
    fn narrow(line: &Line) -> Line<Self>;
}

impl Element for f32 {
    type Operand = Self;
    const DEPTH: usize = 1;
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sum: &mut Line, x: Self, w: &Line) {
        for l in 0..LANES {
            sum[l] = simd.mul_add(x, w[l], sum[l]);
        }
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
    fn widen(line: &Line) -> Line {
        *line
    }

    #[inline(always)]
    fn narrow(line: &Line) -> Line {
        *line
    }
}

impl Element for bf16 {
    type Operand = u32;
    const DEPTH: usize = 2;
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sum: &mut Line, x: u32, w: &Line<u32>) {
        simd.dot_pairs(sum, x, w);
    }

    #[inline(always)]
    fn operand([low, high]: [f32; 2]) -> u32 {
        u32::from(round(low)) | u32::from(round(high)) << 16
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
        Self::from_bits(round(v))
    }

    #[inline(always)]
    fn widen(line: &Line<Self>) -> Line {
        line.map(|v| f32::from_bits(u32::from(v.to_bits()) << 16))
    }

    #[inline(always)]
    fn narrow(line: &Line) -> Line<Self> {
        line.map(|v| Self::from_bits(round(v)))
    }
}

/// The bits of the nearest bf16. `half`'s own conversion is the same, but not made of vector
/// instructions.
#[inline(always)]
fn round(v: f32) -> u16 {
    let bits = v.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // A NaN whose payload is all ones would be carried over to zero.
    let quiet = bits >> 16 | 0x40;
    (if v.is_nan() { quiet } else { nearest }) as u16
}

/// The numbers as operands; an operand's numbers lie side by side.
pub(super) fn operands<E: Element>(numbers: &[E]) -> Option<&[E::Operand]> {
    bytemuck::try_cast_slice(numbers).ok()
}

/// A buffer of `lines` lines that is aligned for operands.
pub(super) fn operand_buffer<E: Element>(lines: usize) -> Vec<E::Operand> {
    vec![E::Operand::default(); lines * E::STEPS]
}

/// The operands as lines.
pub(super) fn lines_mut<E: Element>(operands: &mut [E::Operand]) -> &mut [Line<E>] {
    bytemuck::cast_slice_mut(operands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE];
        let many = (0..2_000_000_u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        for v in special.into_iter().chain(many).filter(|v| !v.is_nan()) {
            assert_eq!(round(v), bf16::from_f32(v).to_bits(), "{v:e}");
        }
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7f80_0001, 0x7fc0_0000] {
            assert!(bf16::from_bits(round(f32::from_bits(bits))).is_nan(), "{bits:x}");
        }
    }
}
