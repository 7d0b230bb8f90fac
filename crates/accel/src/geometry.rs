//! Sizes of a convolution, and which pixels its kernels make of which cells of a frame.

use crate::element::{Element, LANES};
use crate::frame::{Frame, Planes};

/// Bytes of a frame: a good part of a core's second-level cache, leaving room for weights.
pub(super) const FRAME_BYTES: usize = 256 << 10;

/// Sizes of a convolution with a square filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    /// Height and width of the input.
    pub(super) size: [usize; 2],
    /// Height and width of the output.
    pub(super) out: [usize; 2],
    pub(super) filter: usize,
    pub(super) stride: usize,
    /// Zeros before the first row and column.
    pub(super) pad: [usize; 2],
    /// The input is planar, `[N, C, H, W]`, not in blocks.
    pub(super) planar: bool,
    /// Each channel has a filter of its own, and sees no other channel.
    pub(super) depthwise: bool,
}

impl Geometry {
    /// Weights of one output channel.
    pub(super) fn per_filter(&self) -> usize {
        let channels = if self.depthwise { 1 } else { self.c_in };
        channels * self.filter * self.filter
    }

    /// A picture of the input in blocks.
    pub(super) fn input(&self) -> Planes {
        let [height, width] = self.size;
        Planes { blocks: self.c_in.div_ceil(LANES), height, width }
    }

    /// A picture of the output.
    pub(super) fn output(&self) -> Planes {
        let [height, width] = self.out;
        Planes { blocks: self.c_out.div_ceil(LANES), height, width }
    }

    pub(super) fn is_empty(&self) -> bool {
        let [height, width] = self.size;
        self.images * self.c_in * self.c_out * height * width * self.out[0] * self.out[1] == 0
    }

    /// What an output pixel's window becomes in a frame: blocks, and taps in each direction.
    pub(super) fn window(&self) -> (usize, usize) {
        if self.planar {
            (self.per_filter().div_ceil(LANES), 1)
        } else {
            (self.input().blocks, self.filter)
        }
    }

    /// Channels of that window.
    pub(super) fn window_channels(&self) -> usize {
        if self.planar { self.per_filter() } else { self.c_in }
    }

    /// The frame of `rows` rows of output.
    pub(super) fn frame(&self, rows: usize) -> Frame {
        let (_, taps) = self.window();
        let (stride, pad) = if self.planar { (1, [0; 2]) } else { (self.stride, self.pad) };
        let reach = (taps - 1) / stride;
        Frame {
            stride,
            pad,
            phases: stride.min(taps),
            rows: rows + reach,
            pitch: self.out[1] + reach,
        }
    }

    /// Rows of output whose frame is of `bytes` bytes; all strips about the same.
    pub(super) fn strip<E: Element>(&self, bytes: usize) -> usize {
        let (blocks, taps) = self.window();
        let frame = self.frame(1);
        let row = blocks * frame.block() / frame.rows * size_of::<E::Cell>();
        even_strip(self.out[0], bytes / row.max(1), (taps - 1) / frame.stride)
    }

    /// Rows of a pointwise convolution of which both maps stay in a core's second-level cache.
    pub(super) fn direct_strip<E: Element>(&self) -> usize {
        let blocks = self.input().blocks + self.output().blocks;
        let row = blocks * self.out[1] * LANES * size_of::<E>();
        even_strip(self.out[0], 3 * FRAME_BYTES / row.max(1), 0)
    }

    /// Cells of the input along an axis, for its gradient: pixel `i` is `remainder + s·cell − pad` and
    /// gets `dy[cell − t]·w[remainder + s·t]`.
    pub(super) fn cells(&self, axis: usize) -> usize {
        (self.size[axis] - 1 + self.pad[axis]) / self.stride + 1
    }

    /// Cells before an own one that a pixel of the input's gradient reads.
    fn depth(&self) -> usize {
        (self.filter - 1) / self.stride
    }

    /// The frame of the output's gradient for `strip` rows of cells.
    pub(super) fn gradient_frame(&self, strip: usize) -> Frame {
        let depth = self.depth();
        let pitch = self.cells(1) + depth;
        Frame { stride: 1, pad: [depth; 2], phases: 1, rows: strip + depth, pitch }
    }

    /// Rows of cells whose frame is of `bytes` bytes, strips about the same.
    pub(super) fn gradient_strip<E: Element>(&self, bytes: usize) -> usize {
        let row = self.output().blocks * self.gradient_frame(1).pitch * LANES * size_of::<E>();
        even_strip(self.cells(0), bytes / row, self.depth())
    }

    /// For each class of the input's pixels, what makes its gradient; `pack` is given the numbers of
    /// the class's taps in a filter.
    pub(super) fn gradient_passes<W>(
        &self,
        frame: &Frame,
        pack: impl Fn(&[usize]) -> W,
    ) -> Vec<Pass<W>> {
        let (k, s, pad, depth) = (self.filter, self.stride, self.pad, self.depth());
        let classes = (0..s * s).map(|class| [class / s, class % s]);
        let pass = |remainder: [usize; 2]| {
            let [down, across] = remainder.map(|first| (k - 1 - first) / s + 1);
            let taps = || (0..down * across).map(|t| [t / across, t % across]);
            let number = |[r, c]: [usize; 2]| (remainder[0] + r * s) * k + remainder[1] + c * s;
            let cell = [0, 1].map(|a| pad[a].saturating_sub(remainder[a]).div_ceil(s));
            let pixel = [0, 1].map(|a| cell[a] * s + remainder[a] - pad[a]);
            let [rows, cols] = [0, 1].map(|a| self.size[a].saturating_sub(pixel[a]).div_ceil(s));
            Pass {
                taps: taps().map(|[r, c]| frame.tap(depth - r, depth - c)).collect(),
                weights: pack(&taps().map(number).collect::<Vec<_>>()),
                pixels: Pixels { cell, rows, cols, pixel, step: s },
            }
        };
        classes.filter(|remainder| remainder.iter().all(|r| *r < k)).map(pass).collect()
    }

    /// Pixels of the input are the frame's cells as they are.
    pub(super) fn is_pointwise(&self) -> bool {
        !self.planar
            && self.filter == 1
            && self.stride == 1
            && self.pad == [0; 2]
            && self.size == self.out
    }
}

/// Rows of equal strips of `all` rows that need at most `fit` rows, `reach` more than they have.
fn even_strip(all: usize, fit: usize, reach: usize) -> usize {
    let most = fit.saturating_sub(reach).max(1);
    all.div_ceil(all.div_ceil(most).max(1)).max(1)
}

/// One set of taps, its packed weights and the pixels that they make.
pub(super) struct Pass<W> {
    /// Distances in the frame.
    pub(super) taps: Vec<usize>,
    pub(super) weights: W,
    pub(super) pixels: Pixels,
}

/// Pixels of a result that are made of neighboring cells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixels {
    /// Row and column of the first cell that is a pixel.
    cell: [usize; 2],
    rows: usize,
    cols: usize,
    /// Row and column of that pixel in the result.
    pixel: [usize; 2],
    /// Pixels from one to the next.
    step: usize,
}

/// A column of tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// Pixels of a tile.
    pub(super) pixels: usize,
    /// Cell of the first pixel.
    pub(super) from: usize,
    pub(super) rows: usize,
    /// Line of the first pixel in a block of the result.
    pub(super) to: usize,
    /// Lines to the next pixel.
    pub(super) step: usize,
    /// Lines to the next row.
    pub(super) down: usize,
}

impl Pixels {
    /// All of a result, each of its own cell.
    pub(super) fn all([rows, cols]: [usize; 2]) -> Self {
        Self { cell: [0; 2], rows, cols, pixel: [0; 2], step: 1 }
    }

    /// The tiles, up to `most` pixels wide, of the pixels whose cells are in rows
    /// `first..first + strip`, with which the frame starts; rows of the result have `width` pixels.
    pub(super) fn columns(
        self,
        frame: &Frame,
        [first, strip]: [usize; 2],
        width: usize,
        most: usize,
    ) -> impl Iterator<Item = Column> {
        let Self { cell, rows, cols, pixel, step } = self;
        let from = first.max(cell[0]);
        let rows = (first + strip).min(cell[0] + rows).saturating_sub(from);
        let row = pixel[0] + from.saturating_sub(cell[0]) * step;
        let start = from.saturating_sub(first) * frame.pitch + cell[1];
        let mut col = 0;
        core::iter::from_fn(move || {
            let left = if rows > 0 { cols - col } else { 0 };
            if left == 0 {
                return None;
            }
            let pixels = tile_width(left, most);
            let to = row * width + pixel[1] + col * step;
            let column = Column { pixels, from: start + col, rows, to, step, down: step * width };
            col += pixels;
            Some(column)
        })
    }
}

/// Widths of tiles there are, widest first.
const TILES: [usize; 8] = [14, 8, 7, 6, 4, 3, 2, 1];

/// Runs an expression with `$width` as one of [`TILES`].
macro_rules! with_width {
    ($pixels:expr, $width:ident => $body:expr) => {
        with_width!(@ $pixels, $width, $body, 14 8 7 6 4 3 2 1)
    };
    (@ $pixels:expr, $width:ident, $body:expr, $($n:literal)*) => {
        match $pixels {
            $($n => {
                const $width: usize = $n;
                $body
            })*
            other => unreachable!("a tile of {other} pixels"),
        }
    };
}
pub(super) use with_width;

/// Pixels of the next tile where `left` remain: one that divides them if it is not much smaller
/// than the widest, for the sums of a narrow tile wait for each other.
fn tile_width(left: usize, most: usize) -> usize {
    let fits = || TILES.into_iter().filter(|t| *t <= most.min(left));
    let even = fits().find(|t| left.is_multiple_of(*t) && 2 * t >= most);
    even.or_else(|| fits().next()).unwrap_or(1)
}
