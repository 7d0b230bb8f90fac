//! Products of Winograd's algorithm: transformed tiles with transformed filters.

use super::{Finish, Lanes, Rows};
use artifact::winograd::{LANES, POSITIONS};

/// Tiles whose products are computed at a time, a multiple of what kernels take.
pub(crate) const BLOCK: usize = 24;

/// Sixteen outputs of each tile of a block, at each position.
pub(crate) type Block = [[f32; BLOCK * LANES]; POSITIONS];

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
        let scale = isa.scale(&[0.0; LANES], &Finish::default());
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
                    let y = isa.finish(*acc, &scale, &Finish::default(), None);
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
