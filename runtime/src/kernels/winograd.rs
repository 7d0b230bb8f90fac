//! Products of Winograd's algorithm: transformed tiles with transformed filters.

use super::{Finish, Lanes, Rows};
use artifact::layout::window_start;
use artifact::winograd::{LANES, POSITIONS, TILE, WINDOW, tiles};
use artifact::{Padding, Shape};

/// Tiles whose products are computed at a time, a multiple of what kernels take.
pub(crate) const BLOCK: usize = 24;

/// Sixteen outputs of each tile of a block, at each position.
pub(crate) type Block = [[f32; BLOCK * LANES]; POSITIONS];

/// Where each pixel of the window of a tile lies in the input; outside the map, the pad pixel.
#[inline(always)]
pub(crate) fn window(
    input: Shape,
    output: Shape,
    padding: Padding,
    tile: usize,
) -> [usize; POSITIONS] {
    let [h, w, c_in] = [input.h, input.w, input.c].map(usize::from);
    let [_, columns] = tiles(output);
    let y0 = window_start(tile / columns, TILE as u16, padding.top);
    let x0 = window_start(tile % columns, TILE as u16, padding.left);
    let mut at = [input.len(); POSITIONS];
    for i in 0..WINDOW {
        for j in 0..WINDOW {
            // Negative numbers are huge as unsigned.
            let (y, x) = ((y0 + i as isize) as usize, (x0 + j as isize) as usize);
            if y < h && x < w {
                at[i * WINDOW + j] = (y * w + x) * c_in;
            }
        }
    }
    at
}

/// Operands of a block's products.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Products<'a> {
    /// Transformed tiles, `[36, count, c_in]`.
    pub x: &'a [f32],
    /// All tiles of `x`.
    pub count: usize,
    /// First tile of the block.
    pub first: usize,
    /// Tiles of the block.
    pub tiles: usize,
    /// Input channels.
    pub c_in: usize,
    /// Filters of sixteen outputs, `[36, c_in, 16]`.
    pub filters: &'a [f32],
}

impl Products<'_> {
    /// Computes the products, MR tiles at a time.
    #[inline(always)]
    pub(crate) fn eval<I, const MR: usize>(&self, isa: I, out: &mut Block)
    where
        I: Lanes<LANES, f32, f32>,
    {
        let Self { x, count, first, tiles, c_in, filters } = *self;
        let start = isa.start(&[0.0; LANES]);
        let scale = isa.scale(&[0.0; LANES], &Finish::NONE);
        for (position, out) in out.iter_mut().enumerate() {
            let x = &x[(position * count + first) * c_in..][..tiles * c_in];
            let w = &filters[position * c_in * LANES..][..c_in * LANES];
            for tile in (0..tiles).step_by(MR) {
                let mut rows = [&x[..0]; MR];
                for m in 0..MR {
                    // A last, partial group computes its last tile several times.
                    rows[m] = &x[(tile + m).min(tiles - 1) * c_in..][..c_in];
                }
                let mut acc = [[start; 1]; MR];
                isa.dot(&mut acc, rows, Rows::one(c_in), [w]);
                for (m, [acc]) in acc.iter().enumerate() {
                    if tile + m >= tiles {
                        break;
                    }
                    let y = isa.finish(*acc, &scale, &Finish::NONE, None);
                    out[(tile + m) * LANES..][..LANES].copy_from_slice(&y);
                }
            }
        }
    }
}

/// An instruction set that computes [`Products`].
pub(crate) trait Multiply: Lanes<LANES, f32, f32> {
    /// Computes them with a tile size that suits the registers.
    fn multiply(self, products: &Products<'_>, out: &mut Block);
}
