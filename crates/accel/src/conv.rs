//! Convolution and its input gradient, as sums over taps of shifted rows.
//!
//! `y[q, o] = Σ_t Σ_i frame[q + t, i]·w[t, i, o]`: a tile of neighboring output pixels and one or
//! two blocks of output channels stays in registers while the taps `t` and input channels `i` of
//! all pixels stream by. The input gradient is the same sum with input and output exchanged; with
//! a stride `s`, its pixels fall into `s × s` classes by their remainder, and each class meets
//! other taps.
//!
//! Work is split by shape alone, never by thread count, and sums are added in a fixed order:
//! results are the same bits on any number of threads.

use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line, as_cells, lines_mut};
use crate::frame::{Fill, FillWindows, Frame, Planes, Transform};
use crate::recycle::{self, Numbers};
use bytemuck::Zeroable;
use rayon::prelude::*;

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

/// What a convolution reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a, E> {
    /// A feature map `[N, blocks, H, W, LANES]`.
    Map { values: &'a [E], transform: Option<Transform<'a>> },
    /// Pictures `[N, C, H, W]`.
    Pictures(&'a [f32]),
}

impl<E: Element> Source<'_, E> {
    /// Whether pictures are their own frames.
    fn is_direct(&self, g: &Geometry) -> bool {
        matches!(self, Self::Map { transform: None, .. }) && g.is_pointwise()
    }

    /// Picture `image` as a frame, unless its alignment forbids it.
    fn direct(&self, g: &Geometry, image: usize) -> Option<&[E::Cell]> {
        match self {
            Self::Map { values, .. } => {
                let len = g.input().lines() * LANES;
                as_cells::<E>(values[image * len..][..len].as_chunks().0)
            }
            Self::Pictures(_) => None,
        }
    }

    /// Fills a frame with rows of picture `image` from `first` on.
    pub(super) fn fill(
        &self,
        level: Level,
        g: &Geometry,
        frame: &Frame,
        [image, first]: [usize; 2],
        out: &mut [Line<E>],
    ) {
        match *self {
            Self::Map { values, transform } => {
                let planes = g.input();
                let picture = &values.as_chunks().0[image * planes.lines()..][..planes.lines()];
                level.run(Fill { frame, planes, picture, first, transform, out });
            }
            Self::Pictures(values) => {
                let size = [g.c_in, g.size[0], g.size[1]];
                let len = size.iter().product::<usize>();
                let picture = &values[image * len..][..len];
                let (stride, pad, filter) = (g.stride, g.pad, g.filter);
                level.run(FillWindows { frame, stride, pad, filter, size, picture, first, out });
            }
        }
    }
}

/// `source ∗ w`, `[N, blocks, H', W', LANES]`, with `after` applied to each picture of it and the
/// picture's part of `parts` while it is in the cache.
pub(super) fn forward<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    source: Source<'_, E>,
    w: &[f32],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    let result = g.output();
    let mut y = recycle::take(g.images * result.lines() * LANES);
    if g.is_empty() {
        y.fill(E::default());
        return y;
    }
    let in_place = source.is_direct(g);
    let strip = if in_place { result.height } else { g.strip::<E>(FRAME_BYTES) };
    let frame = g.frame(strip);
    let (blocks, taps) = g.window();
    let (k, per_filter) = (g.filter, g.per_filter());
    let planar = g.planar;
    let at = |o: usize, i: usize, t: usize| {
        if planar { w[o * per_filter + i] } else { w[o * per_filter + i * k * k + t] }
    };
    let pass = Pass {
        taps: (0..taps * taps).map(|t| frame.tap(t / taps, t % taps)).collect(),
        weights: pack::<E>(level, [g.c_out, g.window_channels(), taps * taps], at),
        pixels: Pixels::all(g.out),
    };
    let correlation = Correlation { frame, blocks, strip, rows: result.height, result };
    let read = |image, first, buffer: &mut [Line<E>]| {
        source.fill(level, g, &frame, [image, first], buffer);
    };
    let direct = |image| in_place.then(|| source.direct(g, image)).flatten();
    correlation.run(level, &[pass], (direct, read), (&mut y, parts), after);
    y
}

/// Gradient with respect to the input in blocks, from `dy` in blocks, with `after` applied as by
/// [`forward`].
pub(super) fn input_gradient<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    w: &[f32],
    dy: &[E],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    let (source, result) = (g.output(), g.input());
    let mut dx = recycle::take(g.images * result.lines() * LANES);
    let k = g.filter;
    if g.is_empty() || k < g.stride {
        // Pixels between the windows have no gradient.
        dx.fill(E::default());
    }
    if g.is_empty() {
        return dx;
    }
    let pointwise = g.is_pointwise();
    let strip = if pointwise { g.cells(0) } else { g.gradient_strip::<E>(FRAME_BYTES) };
    let frame = g.gradient_frame(strip);
    let passes = g.gradient_passes(&frame, |taps| {
        let at = |i: usize, o: usize, t: usize| w[(o * g.c_in + i) * k * k + taps[t]];
        pack::<E>(level, [g.c_in, g.c_out, taps.len()], at)
    });
    let pictures: &[Line<E>] = dy.as_chunks().0;
    let picture = |image: usize| &pictures[image * source.lines()..][..source.lines()];
    let read = |image, first, out: &mut [Line<E>]| {
        let (frame, planes, picture) = (&frame, source, picture(image));
        level.run(Fill { frame, planes, picture, first, transform: None, out });
    };
    let direct = |image| pointwise.then(|| as_cells::<E>(picture(image))).flatten();
    let correlation = Correlation { frame, blocks: source.blocks, strip, rows: g.cells(0), result };
    correlation.run(level, &passes, (direct, read), (&mut dx, parts), after);
    dx
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

/// A correlation of every picture.
struct Correlation {
    frame: Frame,
    /// Blocks of the source.
    blocks: usize,
    /// Rows of cells computed from one frame.
    strip: usize,
    /// Rows of cells in all.
    rows: usize,
    result: Planes,
}

impl Correlation {
    /// `direct` gives a picture that is its own frame, `read` fills a frame.
    fn run<'a, E: Element, P: Send>(
        &self,
        level: Level,
        passes: &[Pass<Numbers<E::Operand>>],
        (direct, read): (
            impl Fn(usize) -> Option<&'a [E::Cell]> + Sync,
            impl Fn(usize, usize, &mut [Line<E>]) + Sync,
        ),
        (y, parts): (&mut [E], &mut [P]),
        after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
    ) {
        let lines = self.result.lines();
        let pictures = y.as_chunks_mut::<LANES>().0.par_chunks_mut(lines);
        let images = pictures.len();
        let parts = parts.par_chunks_mut(parts.len() / images.max(1));
        let block = self.frame.block();
        let taps: Vec<Vec<usize>> = passes
            .iter()
            .map(|pass| {
                let blocks = 0..self.blocks;
                blocks.flat_map(|b| pass.taps.iter().map(move |t| b * block + t)).collect()
            })
            .collect();
        let buffer = Vec::<E::Cell>::new;
        pictures.zip(parts).enumerate().for_each_init(buffer, |buffer, (image, (y, parts))| {
            let whole = direct(image);
            if whole.is_none() && buffer.is_empty() {
                *buffer = vec![E::Cell::zeroed(); self.blocks * block];
            }
            let strip = if whole.is_some() { self.rows } else { self.strip };
            for first in (0..self.rows).step_by(strip) {
                let frame = match whole {
                    Some(lines) => lines,
                    None => {
                        read(image, first, lines_mut::<E>(buffer));
                        &*buffer
                    }
                };
                for (pass, taps) in passes.iter().zip(&taps) {
                    self.strip(level, (pass, taps), frame, [first, strip], y);
                }
            }
            after(y, parts);
        });
    }

    /// The pixels of a pass whose cells are in rows `first..first + strip`.
    fn strip<E: Element>(
        &self,
        level: Level,
        (pass, taps): (&Pass<Numbers<E::Operand>>, &[usize]),
        frame: &[E::Cell],
        strip: [usize; 2],
        y: &mut [Line<E>],
    ) {
        let (plane, width) = (self.result.pixels(), self.result.width);
        let most = level.tile();
        let per_block = taps.len() * E::STEPS * LANES;
        for (group, weights) in pass.weights.chunks(most.blocks * per_block).enumerate() {
            let y = &mut y[group * most.blocks * plane..];
            let together = weights.len() / per_block;
            let weights: &[Line<E::Operand>] = weights.as_chunks().0;
            for column in pass.pixels.columns(&self.frame, strip, width, most.pixels) {
                let pitch = self.frame.pitch;
                let tiles = Tiles { frame, taps, weights, column, pitch, plane, y };
                if together == 2 {
                    tiles.dispatch::<2>(level);
                } else {
                    tiles.dispatch::<1>(level);
                }
            }
        }
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

/// Weights in the order that [`Tiles`] reads them: for each group of as many blocks of results as
/// a tile has, for each block of sources, tap and operand, a line for each block of the group.
/// Absent channels are zero. `at(result, source, tap)` is a weight.
fn pack<E: Element>(
    level: Level,
    [results, sources, taps]: [usize; 3],
    at: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Numbers<E::Operand> {
    let (blocks, depth) = (results.div_ceil(LANES), sources.div_ceil(LANES));
    let most = level.tile().blocks;
    let per_block = depth * taps * E::STEPS * LANES;
    let mut packed = recycle::take::<E::Operand>(blocks * per_block);
    packed.par_chunks_mut(most * per_block).enumerate().for_each(|(group, packed)| {
        let together = packed.len() / per_block;
        let lines: &mut [Line<E::Operand>] = packed.as_chunks_mut().0;
        // Taps innermost: they lie together in the weights.
        for step in 0..depth * E::STEPS {
            let source = step * E::DEPTH;
            let first = (source / LANES * taps * E::STEPS + step % E::STEPS) * together;
            for lane in 0..together * LANES {
                let (block, lane) = (lane / LANES, lane % LANES);
                let result = (group * most + block) * LANES + lane;
                for tap in 0..taps {
                    let weight = |source: usize| match result < results && source < sources {
                        true => at(result, source, tap),
                        false => 0.0,
                    };
                    let operand = E::operand([weight(source), weight(source + E::DEPTH - 1)]);
                    lines[first + tap * E::STEPS * together + block][lane] = operand;
                }
            }
        }
    });
    packed
}

/// A column of tiles, `P` pixels wide and `B` blocks deep.
struct Tiles<'a, E: Element> {
    frame: &'a [E::Cell],
    /// Of every block of the source.
    taps: &'a [usize],
    weights: &'a [Line<E::Operand>],
    column: Column,
    /// Cells of a row.
    pitch: usize,
    /// Lines of a block of `y`.
    plane: usize,
    y: &'a mut [Line<E>],
}

impl<E: Element> Tiles<'_, E> {
    fn dispatch<const B: usize>(self, level: Level) {
        with_width!(self.column.pixels, P => level.run(Tile::<E, P, B>(self)));
    }
}

/// [`Tiles`] of a known size.
struct Tile<'a, E: Element, const P: usize, const B: usize>(Tiles<'a, E>);

impl<E: Element, const P: usize, const B: usize> Kernel for Tile<'_, E, P, B> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tiles { frame, taps, weights, column, pitch, plane, y } = self.0;
        let Column { from, rows, to, step, down, .. } = column;
        for row in 0..rows {
            let mut sums = [[simd.load(&[0.0; LANES]); B]; P];
            let start = from + row * pitch;
            for (weights, tap) in weights.as_chunks::<B>().0.chunks_exact(E::STEPS).zip(taps) {
                let Some(x) = frame[start + tap..].first_chunk::<P>() else {
                    panic!("a tile at {start} overruns a frame of {} cells", frame.len())
                };
                for (i, w) in weights.iter().enumerate().take(E::STEPS) {
                    unroll!(p < P, {
                        let x = x[p][i];
                        unroll!(b < B, { sums[p][b] = E::dot(simd, sums[p][b], x, &w[b]) });
                    });
                }
            }
            let to = to + row * down;
            unroll!(b < B, {
                unroll!(p < P, {
                    y[to + b * plane + p * step] = E::store(simd, sums[p][b]);
                });
            });
        }
    }
}
