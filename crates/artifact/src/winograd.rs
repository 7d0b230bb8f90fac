//! Geometry of Winograd's fast convolution F(4×4, 3×3).
//!
//! A 3×3 filter of stride 1 is applied to tiles of 4×4 output pixels. A tile's 6×6 input pixels
//! and the filter are transformed; then 36 products per pair of channels, one per [`POSITIONS`],
//! replace 144. A convolution becomes 36 matrix products `[tiles, c_in] × [c_in, c_out]`.
//!
//! Weights: for each [`LANES`] outputs, 36 filters of 1×1, each packed by
//! [`crate::layout::FilterLayout`]. Scratch: `[36, tiles, c_in]` f32, [`scratch_bytes`].
//!
//! Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.

use crate::Shape;
use crate::layout::align_up;

/// Output pixels of a tile along each side.
pub const TILE: usize = 4;
/// Input pixels of a tile along each side, and values after each one-dimensional transform.
pub const WINDOW: usize = TILE + 2;
/// Values of a transformed tile.
pub const POSITIONS: usize = WINDOW * WINDOW;
/// Channels are transformed this many at a time; input and output have whole groups of them.
pub const LANES: usize = 16;

/// Rows and columns of tiles that cover a map.
pub const fn tiles(output: Shape) -> [usize; 2] {
    [(output.h as usize).div_ceil(TILE), (output.w as usize).div_ceil(TILE)]
}

/// Bytes of the transformed input; `None` where they leave `u32`.
pub const fn scratch_bytes(c_in: u16, output: Shape) -> Option<usize> {
    let [rows, columns] = tiles(output);
    let bytes = rows as u64 * columns as u64 * POSITIONS as u64 * c_in as u64 * 4;
    if bytes > (u32::MAX / 2) as u64 { None } else { Some(align_up(bytes as usize)) }
}

/// Whether the channels of a convolution suit the transforms.
pub const fn channels_fit(c_in: u16, c_out: u16) -> bool {
    (c_in as usize).is_multiple_of(LANES) && (c_out as usize).is_multiple_of(LANES)
}
