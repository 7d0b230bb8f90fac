//! Winograd's F(4×4, 3×3) in integers, which is exact.
//!
//! Geometry and transforms are [`crate::winograd`]'s, with rows of G scaled to integers: `4, −6,
//! −6, 24, 24, 1` times. A transformed tile of bytes is within `±10 · 10 · 255 / 2`, a transformed
//! filter within `±7 · 7 · 127`, so 16 bits hold both. The products' transform, with rows scaled
//! to make up for that, is `24² = 64 · 9` times the convolution, in arithmetic modulo 2³². 9 has
//! an inverse there, and `64 · Σ x·w` of unsigned bytes `x` fits into an i32 if neither an output's
//! positive weights nor its negative ones sum up to more than [`MAX_SUM`]: the same accumulators, so
//! the same bytes as by the direct way.
//!
//! It pays where multiplying 16-bit numbers is about as fast as multiplying bytes: on AVX2.
//! Weights are therefore packed as for the direct convolution, and transformed as they are used; a
//! model only reserves scratch, which other CPUs leave alone.

use crate::Shape;
use crate::layout::{KR_I8, align_up};
use crate::winograd::{LANES, POSITIONS, tiles};

/// Tiles whose products are computed at a time, and stored side by side.
pub const GROUP: usize = 4;
/// Most that an output's weights of one sign may sum up to: `64 · 255 · MAX_SUM < 2³¹`. In files of
/// before version 8, that all of its weights may sum up to without their signs.
pub const MAX_SUM: u32 = 131_585;
/// Most input channels; larger transformed filters leave the cache.
pub const MAX_CHANNELS: u16 = 512;

/// Tiles for which scratch is reserved, unless a row of tiles has more.
const CAPACITY: usize = 120;

/// Threads that have transformed filters of their own. Few tiles are not worth them, and fewer
/// threads than there are would be slower than all by the direct way.
pub const fn slots(output: Shape) -> usize {
    let [rows, columns] = tiles(output);
    match rows * columns / 8 {
        0 => 1,
        n if n < 4 => n,
        _ => 4,
    }
}

/// Groups of tiles for which scratch is reserved: at least a row's.
pub const fn scratch_groups(output: Shape) -> usize {
    let [rows, columns] = tiles(output);
    let all = rows * columns;
    let some = if all < CAPACITY { all } else { CAPACITY };
    (if some < columns { columns } else { some }).div_ceil(GROUP)
}

/// Numbers of a transformed group, `[36, 4, c_in]`.
pub const fn group_len(c_in: u16) -> usize {
    POSITIONS * GROUP * c_in as usize
}

/// Numbers of sixteen outputs' transformed filters, `[c_in / 16, 36, 8, 16, 2]`.
pub const fn filters_len(c_in: u16) -> usize {
    POSITIONS * c_in as usize * LANES
}

/// Bytes of scratch: transformed groups and each thread's filters in 16 bits.
pub const fn scratch_bytes(c_in: u16, output: Shape) -> usize {
    let filters = slots(output) * filters_len(c_in);
    align_up((scratch_groups(output) * group_len(c_in) + filters) * 2)
}

/// Whether the channels of a convolution suit the transforms.
pub const fn channels_fit(c_in: u16, c_out: u16) -> bool {
    crate::winograd::channels_fit(c_in, c_out) && c_in <= MAX_CHANNELS
}

/// What weights of an output sum up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// All of them, without their signs.
    pub all: u32,
    /// Those of one sign.
    pub one_sign: u32,
}

/// The largest sums of any output's weights; `packed` panels of `panel_len`.
pub fn largest_sums(packed: &[u8], panel_len: usize) -> Sums {
    const ROW: usize = LANES * KR_I8;
    // As many rows as 16 bits can sum up.
    const ROWS: usize = i16::MAX as usize / 128;
    let mut largest = Sums::default();
    for panel in packed.chunks_exact(panel_len.max(1)) {
        let (mut all, mut signed) = ([0u32; LANES], [0i32; LANES]);
        for part in panel.chunks(ROWS * ROW) {
            let (mut part_all, mut part_signed) = ([0u16; ROW], [0i16; ROW]);
            for row in part.as_chunks::<ROW>().0 {
                for (i, w) in row.iter().enumerate() {
                    part_all[i] += u16::from((*w as i8).unsigned_abs());
                    part_signed[i] += i16::from(*w as i8);
                }
            }
            for i in 0..ROW {
                all[i / KR_I8] += u32::from(part_all[i]);
                signed[i / KR_I8] += i32::from(part_signed[i]);
            }
        }
        for (all, signed) in all.into_iter().zip(signed) {
            largest.all = largest.all.max(all);
            // The larger of both signs' sums, whose difference `signed` is.
            largest.one_sign = largest.one_sign.max((all + signed.unsigned_abs()) / 2);
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_each_output() {
        let panel_len = 9 * 64 * LANES;
        let mut packed = [0u8; 2 * 9 * 64 * LANES];
        // Output 3 of the second panel; the largest weights there are.
        for (i, w) in packed[panel_len..].iter_mut().enumerate() {
            *w = if i / KR_I8 % LANES == 3 { 0x80 } else { 1 };
        }
        let all = 9 * 64 * 128;
        assert_eq!(largest_sums(&packed, panel_len), Sums { all, one_sign: all });
        for (i, w) in packed[panel_len..].iter_mut().enumerate() {
            *w = [127i8, -127, -127, -127][i % 4].cast_unsigned();
        }
        let all = 9 * 64 * 127;
        assert_eq!(largest_sums(&packed, panel_len), Sums { all, one_sign: all / 4 * 3 });
    }
}
