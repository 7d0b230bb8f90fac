//! Geometry of Winograd's F(2×2, 3×3) in integers, which is exact.
//!
//! A tile is 2×2 output pixels. With `Bᵀ d B` of its 4×4 input pixels and `2G g 2Gᵀ` of the
//! filter, both integers that fit into 16 bits, sixteen products per pair of channels replace 36,
//! and their transform is four times the convolution: the same accumulators, so the same bytes.
//!
//! It pays where multiplying 16-bit numbers is as fast as multiplying bytes: on AVX2. Weights
//! are therefore packed as for the direct convolution, and transformed as they are used; a model
//! only reserves scratch for transformed tiles, which other CPUs leave alone.
//!
//! Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.

use crate::Shape;
use crate::layout::align_up;

/// Output pixels of a tile along each side.
pub const TILE: usize = 2;
/// Input pixels of a tile along each side, and values after each one-dimensional transform.
pub const WINDOW: usize = TILE + 2;
/// Values of a transformed tile.
pub const POSITIONS: usize = WINDOW * WINDOW;
/// Channels are transformed this many at a time; input and output have whole groups of them.
pub const LANES: usize = 16;
/// Tiles whose products are computed at a time, and stored side by side.
pub const GROUP: usize = 6;
/// Most input channels: `4 · 9 · 255 · 127 · 512 < 2³¹`, and what is on the stack stays small.
pub const MAX_CHANNELS: u16 = 512;

/// Tiles for which scratch is reserved, unless a row of tiles has more.
const CAPACITY: usize = 128;

/// Rows and columns of tiles that cover a map.
pub const fn tiles(output: Shape) -> [usize; 2] {
    [(output.h as usize).div_ceil(TILE), (output.w as usize).div_ceil(TILE)]
}

/// Groups of tiles for which scratch is reserved: at least a row's.
pub const fn scratch_groups(output: Shape) -> usize {
    let [rows, columns] = tiles(output);
    let all = rows * columns;
    let some = if all < CAPACITY { all } else { CAPACITY };
    (if some < columns { columns } else { some }).div_ceil(GROUP)
}

/// Numbers of a transformed group, `[16, 6, c_in]`.
pub const fn group_len(c_in: u16) -> usize {
    POSITIONS * GROUP * c_in as usize
}

/// Bytes of scratch: the transformed groups in 16 bits.
pub const fn scratch_bytes(c_in: u16, output: Shape) -> usize {
    align_up(scratch_groups(output) * group_len(c_in) * 2)
}

/// Whether the channels of a convolution suit the transforms.
pub const fn channels_fit(c_in: u16, c_out: u16) -> bool {
    (c_in as usize).is_multiple_of(LANES)
        && (c_out as usize).is_multiple_of(LANES)
        && c_in <= MAX_CHANNELS
}
